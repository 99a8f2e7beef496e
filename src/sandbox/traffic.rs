//! The state that requests change, and the decision about each of them under one lock.

use std::{
    collections::HashMap,
    io::Write,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use axum::http::{HeaderValue, StatusCode};
use chrono::{DateTime, Utc};
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::Notify;

use super::{
    SandboxError,
    check::{Checked, check, check_read_mark},
    errors::ApiError,
    faults::{Fault, Faults, Target},
    identity,
    ledger::{Row, Rows, Symbol},
    limits::Limits,
    request::Request,
    schedule::{Fate, Schedule},
    setup::{AtLimit, Setup},
    world::{Number, World},
};

/// Everything that requests, webhooks and the control share.
pub(super) struct Shared {
    pub(super) setup: Setup,
    world: RwLock<World>,
    traffic: Mutex<Traffic>,
    started: Instant,
    /// The wall clock at `started`, for the timestamps of webhooks.
    started_at: DateTime<Utc>,
    /// Rung when something came into an empty schedule.
    pub(super) due: Notify,
    /// Rung at each arrival.
    pub(super) arrived: Notify,
    /// Rung when webhooks were answered or given up.
    pub(super) posted: Notify,
}

/// What requests change.
pub(super) struct Traffic {
    pub(super) rng: StdRng,
    pub(super) faults: Faults,
    pub(super) ledger: Rows,
    pub(super) schedule: Schedule,
    limits: Limits,
    /// Until when the service window of a number and a person is open.
    windows: HashMap<(u32, Symbol), u64>,
}

/// What the head of a request says.
pub(super) struct Call<'a> {
    pub(super) number: &'a str,
    pub(super) authorization: &'a str,
    pub(super) version: u32,
}

/// What is to be answered, and after which time.
pub(super) struct Decision {
    pub(super) reply: Reply,
    pub(super) latency: Duration,
    pub(super) trace_id: String,
    /// The account's usage header.
    pub(super) usage: Option<HeaderValue>,
}

/// An answer, or what comes instead of one.
pub(super) enum Reply {
    Json(StatusCode, Vec<u8>),
    Html(StatusCode),
    /// The JSON trickles in over this time.
    Slow(Vec<u8>, Duration),
    Reset,
    Silence,
}

/// One request whose form is right, about to be let in.
struct Case<'a> {
    world: &'a World,
    setup: &'a Setup,
    number: &'a Number,
    checked: &'a Checked,
    target: Target<'a>,
    person: Symbol,
    now: u64,
}

/// What became of a request that no rule refused.
enum Verdict {
    Accepted(Option<Fault>, Fate),
    /// A fault ate it.
    Lost(Fault),
}

impl Shared {
    pub(super) fn new(setup: Setup) -> Result<Shared, SandboxError> {
        let world = World::new(&setup)?;
        let traffic = Traffic {
            rng: StdRng::seed_from_u64(setup.seed),
            faults: Faults::new(setup.faults.clone()),
            ledger: Rows::new(setup.ledger_max),
            schedule: Schedule::default(),
            limits: Limits::default(),
            windows: HashMap::new(),
        };
        Ok(Shared {
            setup,
            world: RwLock::new(world),
            traffic: Mutex::new(traffic),
            started: Instant::now(),
            started_at: crate::clock::now(),
            due: Notify::new(),
            arrived: Notify::new(),
            posted: Notify::new(),
        })
    }

    /// The facts. Whoever needs both locks takes this one first.
    pub(super) fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The facts, to be changed.
    pub(super) fn world_mut(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What requests change.
    pub(super) fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seed(&self) -> u64 {
        self.setup.seed
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// The Unix second of a time of ours.
    pub(super) fn unix_seconds(&self, at: u64) -> i64 {
        (self.started_at + Duration::from_nanos(at)).timestamp()
    }

    /// How long 24 hours last in here.
    fn day(&self) -> u64 {
        (86_400e9 / self.setup.time_compression) as u64
    }

    /// Opens or renews the service window of a person, who just wrote to a number.
    pub(super) fn open_window(&self, number: &Number, person: &str) {
        let until = self.now() + self.day();
        let mut traffic = self.traffic();
        let person = traffic.ledger.names.symbol(person);
        traffic.windows.insert((number.place, person), until);
    }

    /// Whether a fault resets the connection now that only the head is read; then the ledger has it.
    pub(super) fn is_reset_early(&self, number: &str) -> bool {
        let mut traffic = self.traffic();
        let traffic = &mut *traffic;
        let strikes = traffic.faults.strikes_early(number, &mut traffic.rng);
        if strikes {
            let number = traffic.ledger.names.symbol(number);
            traffic.ledger.push(Row {
                at: self.now(),
                number,
                ..Row::default()
            });
            self.arrived.notify_waiters();
        }
        strikes
    }

    /// Decides about a request and writes down what was decided.
    pub(super) fn decide(&self, call: &Call<'_>, body: &[u8]) -> Decision {
        let parsed = Request::parse(body);
        let world = self.world();
        let sender = world.sender(call.number, call.authorization);
        if let (
            Ok(_),
            Ok(
                request @ Request {
                    status: Some(_), ..
                },
            ),
        ) = (&sender, &parsed)
        {
            return self.mark_as_read(request);
        }
        let checked = match (&sender, &parsed) {
            (Ok(number), Ok(request)) => check(&world, number, request, call.version),
            (Err(error), _) | (_, Err(error)) => Err(error.clone()),
        };

        let mut traffic = self.traffic();
        let was_empty = traffic.schedule.is_empty();
        let now = self.now();
        let arrival = Arrival {
            shared: self,
            world: &world,
            call,
            request: parsed.as_ref().ok(),
            now,
        };
        let decision = traffic.decide(&arrival, sender.map(|number| &**number), checked.as_ref());
        if was_empty && !traffic.schedule.is_empty() {
            self.due.notify_one();
        }
        drop(traffic);
        self.arrived.notify_waiters();
        decision
    }

    /// A read mark is no message: it is answered and forgotten.
    fn mark_as_read(&self, request: &Request<'_>) -> Decision {
        let latency = self.setup.latency.draw(&mut self.traffic().rng);
        let trace_id = identity::trace_id(self.now());
        let reply = match check_read_mark(request) {
            Ok(()) => Reply::Json(StatusCode::OK, br#"{"success":true}"#.to_vec()),
            Err(error) => Reply::Json(
                error.status(),
                error.body(&trace_id).to_string().into_bytes(),
            ),
        };
        Decision {
            reply,
            latency,
            trace_id,
            usage: None,
        }
    }
}

/// One request, as far as it could be read.
struct Arrival<'a> {
    shared: &'a Shared,
    world: &'a World,
    call: &'a Call<'a>,
    request: Option<&'a Request<'a>>,
    now: u64,
}

impl<'a> Arrival<'a> {
    fn target(&self) -> Target<'a> {
        let recipient = self
            .request
            .and_then(|request| request.to.as_deref().or(request.recipient.as_deref()));
        let template = self.request.and_then(|request| request.template.as_ref());
        Target {
            number: self.call.number,
            recipient: recipient.unwrap_or_default(),
            template: template.map(|template| &*template.name).unwrap_or_default(),
        }
    }
}

impl Traffic {
    fn decide(
        &mut self,
        arrival: &Arrival<'_>,
        sender: Result<&Number, ApiError>,
        checked: Result<&Checked, &ApiError>,
    ) -> Decision {
        let setup = &arrival.shared.setup;
        let serial = self.ledger.next_serial();
        let mut row = self.row(arrival, checked.ok());
        let account = sender.as_ref().ok().map(|number| number.account);
        let verdict = self.judge(arrival, sender, checked, row.person);
        let reply = match verdict {
            Err(error) => {
                row.code = error.code;
                let body = error.body(&identity::trace_id(serial)).to_string();
                Reply::Json(error.status(), body.into_bytes())
            }
            Ok(Verdict::Lost(fault)) => lost(&fault),
            Ok(Verdict::Accepted(fault, fate)) => {
                row.accepted = true;
                self.schedule
                    .plan(serial, fate, &setup.webhooks, arrival.now, &mut self.rng);
                accepted(arrival, checked.ok(), serial, fault.as_ref())
            }
        };
        row.http_status = match &reply {
            Reply::Json(status, _) | Reply::Html(status) => status.as_u16(),
            Reply::Slow(..) => 200,
            Reply::Reset | Reply::Silence => 0,
        };
        let usage = account
            .map(|account| &arrival.world.accounts[account])
            .map(|account| account.usage(row.code));
        self.ledger.push(row);
        let latency = setup.latency.draw(&mut self.rng);
        Decision {
            reply,
            latency,
            trace_id: identity::trace_id(serial),
            usage,
        }
    }

    fn row(&mut self, arrival: &Arrival<'_>, checked: Option<&Checked>) -> Row {
        let names = &mut self.ledger.names;
        let target = arrival.target();
        let template = arrival
            .request
            .and_then(|request| request.template.as_ref());
        let callback = arrival
            .request
            .and_then(|request| request.biz_opaque_callback_data.as_deref());
        Row {
            at: arrival.now,
            number: names.symbol(target.number),
            recipient: names.symbol(target.recipient),
            person: checked.map_or(0, |checked| names.symbol(&checked.person)),
            template: names.symbol(target.template),
            language: names.symbol(
                template
                    .map(|template| &*template.language.code)
                    .unwrap_or_default(),
            ),
            callback: callback.map(Into::into),
            category: checked.map(|checked| checked.category).unwrap_or_default(),
            ..Row::default()
        }
    }

    /// The number's second first, as every request takes of it; then the request's own faults; then the other limits.
    fn judge(
        &mut self,
        arrival: &Arrival<'_>,
        sender: Result<&Number, ApiError>,
        checked: Result<&Checked, &ApiError>,
        person: Symbol,
    ) -> Result<Verdict, ApiError> {
        let (setup, number) = (&arrival.shared.setup, sender?);
        let most = number
            .setup
            .messages_per_second
            .saturating_add(setup.throughput_slack);
        if !self.limits.throughput(number.place, most, arrival.now) {
            return Err(ApiError::new(
                130_429,
                "Message failed to send because there were too many messages sent from this phone number in a short period of time",
            ));
        }
        let checked = checked.map_err(Clone::clone)?;
        let (world, target, now) = (arrival.world, arrival.target(), arrival.now);
        self.admit(
            &Case {
                world,
                setup,
                number,
                checked,
                target,
                person,
                now,
            },
            arrival.shared.day(),
        )
    }

    fn admit(&mut self, case: &Case<'_>, day: u64) -> Result<Verdict, ApiError> {
        let special = case.world.person(&case.checked.person);
        if let Some(code) = special.and_then(|person| person.refuse) {
            return Err(ApiError::new(
                code,
                "This recipient is refused by the sandbox's setup",
            ));
        }
        let pair = (case.number.place, case.person);
        if !self
            .limits
            .pairs()
            .has_room(case.setup.pair, pair, case.now)
        {
            return Err(ApiError::new(
                131_056,
                "Message failed to send because there were too many messages sent from this phone number to the same phone number in a short period of time",
            ));
        }
        let in_window = self
            .windows
            .get(&pair)
            .is_some_and(|until| *until > case.now);
        let fails_at_limit = match (
            in_window || self.has_room(case, day),
            case.setup.at_messaging_limit,
        ) {
            (true, _) => None,
            (false, AtLimit::Fail(code)) => Some(code),
            (false, AtLimit::Refuse(code)) => {
                return Err(ApiError::new(code, "The messaging limit is reached"));
            }
        };
        let fault = self.faults.pick(case.target, &mut self.rng);
        let mut fate = match fault {
            Some(Fault::Refuse { code, http_status }) => {
                return Err(ApiError::new(code, "A fault on demand").with_status(http_status));
            }
            Some(
                fault @ (Fault::ResetBeforeBody
                | Fault::NotJson {
                    accepted: false, ..
                }),
            ) => {
                return Ok(Verdict::Lost(fault));
            }
            ref fault => fate(fault.as_ref()),
        };
        let outside = (case.checked.is_free_form && !in_window).then_some(131_047);
        fate.fail = outside
            .or(fails_at_limit)
            .or(special.and_then(|person| person.fail))
            .or(fate.fail);
        fate.reads = special.and_then(|person| person.reads);
        fate.is_silent |= case.world.apps[case.number.app].callback_url.is_none();
        self.limits.pairs().take(case.setup.pair, pair, case.now);
        if !in_window && fate.fail.is_none() && case.limit().is_some() {
            self.limits
                .unique(case.number.portfolio)
                .count(case.person, case.now);
        }
        Ok(Verdict::Accepted(fault, fate))
    }

    fn has_room(&mut self, case: &Case<'_>, day: u64) -> bool {
        let room = |limit| {
            self.limits
                .unique(case.number.portfolio)
                .has_room(case.person, limit, day, case.now)
        };
        case.limit().is_none_or(room)
    }
}

impl Case<'_> {
    fn limit(&self) -> Option<u32> {
        self.world.portfolios[self.number.portfolio].messaging_limit
    }
}

/// What a fault means for the receipts.
fn fate(fault: Option<&Fault>) -> Fate {
    match fault {
        Some(Fault::Hold { for_ms, dropped }) => Fate {
            held_ns: for_ms * 1_000_000,
            fail: dropped.then_some(132_015),
            ..Fate::default()
        },
        Some(Fault::FailLater { code }) => Fate {
            fail: Some(*code),
            ..Fate::default()
        },
        Some(Fault::NoReceipts) => Fate {
            is_silent: true,
            ..Fate::default()
        },
        _ => Fate::default(),
    }
}

fn http_status(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The reply to a request that a fault ate.
fn lost(fault: &Fault) -> Reply {
    match fault {
        Fault::NotJson {
            http_status: status,
            ..
        } => Reply::Html(http_status(*status)),
        _ => Reply::Reset,
    }
}

/// The reply to an accepted message.
fn accepted(
    arrival: &Arrival<'_>,
    checked: Option<&Checked>,
    serial: u64,
    fault: Option<&Fault>,
) -> Reply {
    let person = checked.map(|checked| &*checked.person).unwrap_or_default();
    let by_user_id = checked.is_some_and(|checked| checked.by_user_id);
    let input = arrival.target().recipient;
    let body = |with_id: bool, status: &str| {
        let id = with_id.then(|| identity::message_id(person, serial, arrival.shared.seed()));
        answer(input, person, by_user_id, id.as_deref(), status)
    };
    match fault {
        Some(Fault::NotJson {
            http_status: status,
            ..
        }) => Reply::Html(http_status(*status)),
        Some(Fault::ResetAfterAccepting) => Reply::Reset,
        Some(Fault::SilenceAfterAccepting) => Reply::Silence,
        Some(Fault::SlowBody { over_ms }) => {
            Reply::Slow(body(true, "accepted"), Duration::from_millis(*over_ms))
        }
        Some(Fault::NoId) => Reply::Json(StatusCode::OK, body(false, "accepted")),
        Some(Fault::Hold { .. }) => {
            Reply::Json(StatusCode::OK, body(true, "held_for_quality_assessment"))
        }
        _ => Reply::Json(StatusCode::OK, body(true, "accepted")),
    }
}

/// The body of a 200. Written by hand, as it is on the path of every message; only `input` can need escaping.
fn answer(input: &str, person: &str, by_user_id: bool, id: Option<&str>, status: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(320);
    let written: std::io::Result<()> = (|| {
        body.write_all(br#"{"messaging_product":"whatsapp","contacts":[{"input":"#)?;
        serde_json::to_writer(&mut body, input)?;
        if by_user_id {
            write!(body, r#","user_id":"{input}"}}]"#)?;
        } else {
            write!(body, r#","wa_id":"{person}"}}]"#)?;
        }
        match id {
            Some(id) => write!(
                body,
                r#","messages":[{{"id":"{id}","message_status":"{status}"}}]}}"#
            ),
            None => body.write_all(br#","messages":[]}"#),
        }
    })();
    written.expect("writing to memory cannot fail");
    body
}

/// Waits until `is_true`, which can change whenever the bell rings.
pub(super) async fn listen(bell: &Notify, is_true: impl Fn() -> bool) {
    loop {
        let mut rung = pin!(bell.notified());
        // Listen first, look afterwards: a ring in between is not missed.
        rung.as_mut().enable();
        if is_true() {
            return;
        }
        rung.await;
    }
}
