//! The worker as a list of events: no clock, no database, no provider.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::value::RawValue;

use super::*;
use crate::dispatch::{event::Learned, holdings::Quiet};
use crate::{
    channel::whatsapp::{Client, Endpoint, Sender},
    dispatch::{event::LookFor, lane::HEAD, limits::Standing, outbox::Batch, world::LaneFacts},
    rules::{
        breaker::{Claim, Target},
        job::{Job, KeepParameters, Kind, PersonFacts, TemplateName, WaitReason},
        outcome::{Answer, ProviderError},
        pace::Rate,
        pair::Pair,
    },
    store::{
        attempt::{Held, Wanted},
        facts::KindFact,
        look::{Cursor, Seen},
    },
};

mod breakers;
mod full;
mod limits;
mod looking;
mod memory;
mod owning;
mod pausing;
mod sending;
mod settling;
mod volume;

const LANE: Lane = Lane(1);
const OTHER: Lane = Lane(2);

fn wall(mono: Duration) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time") + mono
}

fn lane_facts(rate: f64) -> LaneFacts {
    let endpoint = Endpoint {
        base_url: "http://127.0.0.1:1".into(),
        api_version: "v25.0".into(),
        auth_header: "Authorization".into(),
        request_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        tcp_user_timeout: Duration::from_secs(10),
        http2_prior_knowledge: false,
        clients: 1,
    };
    let client = Client::new(&endpoint).expect("a client");
    let credentials = client.credentials(&SecretString::from("token"));
    LaneFacts {
        sender: Sender {
            phone_number_id: "100".into(),
            credentials: credentials.expect("credentials"),
        },
        account: "waba".into(),
        shard: 0,
        rate: Rate::new(rate).expect("a rate"),
        free_at: DateTime::UNIX_EPOCH,
        refilled_at: DateTime::UNIX_EPOCH,
        stopped: None,
        pool: None,
    }
}

fn world(rate: f64) -> World {
    let kind = Kind {
        name: "order".into(),
        priority: Priority::Normal,
        categories: None,
        requires_opt_in: false,
        consent_scope: None,
        keep_parameters: KeepParameters::No,
    };
    World {
        installation: "test".into(),
        lanes: [LANE, OTHER]
            .into_iter()
            .map(|lane| (lane, Arc::new(lane_facts(rate))))
            .collect(),
        kinds: [(
            "order".into(),
            KindFact {
                resend: true,
                kind,
                resolve_after: Duration::from_secs(120),
            },
        )]
        .into(),
        ..World::default()
    }
}

/// A worker under a clock that the test moves.
struct Bench {
    worker: Worker,
    mono: Duration,
    world: World,
    /// Whether requests find no free connection.
    no_connection: bool,
    /// What each pair got before, when that is asked; `None` when the test answers itself.
    got_before: Option<Vec<(Pair, u32)>>,
}

impl Bench {
    /// With two lanes of this rate, leased for an hour.
    fn new(rate: f64) -> Self {
        let settings = Settings {
            index: 0,
            workers: 1,
            look_ahead: 1_000,
            in_flight_max: 1_000,
            jitter_allowance: Duration::from_millis(20),
            retry: Policy {
                first: Duration::from_secs(1),
                max: Duration::from_secs(60),
                max_attempts: 3,
            },
        };
        let mut bench = Self {
            worker: Worker::new(settings),
            mono: Duration::from_secs(10),
            world: world(rate),
            no_connection: false,
            got_before: Some(Vec::new()),
        };
        bench.lease_until(Duration::from_secs(3_600));
        bench.show_world();
        bench
    }

    fn now(&self) -> Now {
        Now {
            mono: self.mono,
            boot: self.mono,
            wall: wall(self.mono),
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.worker.note(event, self.now(), &mut actions);
        self.turn(actions)
    }

    /// What is known of the lane.
    fn lane(&mut self) -> &mut LaneFacts {
        Arc::make_mut(self.world.lanes.get_mut(&LANE).expect("the lane"))
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.mono += time;
        self.turn(Vec::new())
    }

    /// A turn after which everything that was posted is written at once, unless no connection is free. What pairs got before
    /// is answered at once too.
    fn turn(&mut self, mut actions: Vec<Action>) -> Vec<Action> {
        self.worker.turn(self.now(), &mut actions);
        if let Some(standing) = asked_of_pairs(&actions).filter(|_| self.got_before.is_some()) {
            let posts = self.got_before.clone();
            let counted = Event::PairsCounted { standing, posts };
            self.worker.note(counted, self.now(), &mut actions);
            self.worker.turn(self.now(), &mut actions);
        }
        if !self.no_connection {
            for id in posts(&actions) {
                self.worker.note(self.left(id), self.now(), &mut actions);
            }
        }
        actions
    }

    fn left(&self, id: JobId) -> Event {
        Event::Left { id, at: self.mono }
    }

    fn lease_until(&mut self, deadline: Duration) -> Vec<Action> {
        self.tell(Event::Leases(Leases {
            epochs: [(0, 1), (1, 1)].into(),
            deadline,
            ..Leases::default()
        }))
    }

    fn show_world(&mut self) -> Vec<Action> {
        let world = World {
            installation: self.world.installation.clone(),
            lanes: self.world.lanes.clone(),
            kinds: self.world.kinds.clone(),
            templates: self.world.templates.clone(),
            paused: self.world.paused.clone(),
            released: self.world.released.clone(),
            echoes: self.world.echoes.clone(),
            floor: self.world.floor,
            ..World::default()
        };
        self.tell(Event::World(Arc::new(world)))
    }

    fn stop_lane(&mut self, why: Option<&str>) -> Vec<Action> {
        self.lane().stopped = why.map(Into::into);
        self.show_world()
    }

    /// A free-form message in an open service window: nothing at the gate speaks against it.
    fn seen(&self, id: i64, lane: Lane, priority: Priority) -> Seen {
        let job = Job {
            id: JobId(id),
            lane,
            priority,
            due_at: wall(self.mono),
            tries: 0,
            spent: 0,
            kind: "order".into(),
            recipient: "+905321234567".into(),
            person: "+905321234567".into(),
            template: None,
            content: RawValue::from_string(r#"{"type":"text","text":{"body":"Hello"}}"#.into())
                .expect("JSON"),
            enqueued_at: wall(self.mono),
            expires_at: wall(self.mono + Duration::from_secs(600)),
            batch: None,
        };
        let window_until = Some(wall(self.mono + Duration::from_secs(7_200)));
        Seen {
            job,
            facts: PersonFacts {
                window_until,
                ..PersonFacts::default()
            },
            recipient_hash: id,
        }
    }

    fn look(&mut self, seen: Vec<Seen>) -> Vec<Action> {
        self.tell(Event::Looked {
            why: LookFor::Room,
            cursors: Vec::new(),
            seen: Some(seen),
        })
    }

    fn permit(&mut self, wanted: &[Wanted]) -> Vec<Action> {
        self.permit_as(false, wanted)
    }

    fn permit_as(&mut self, urgent: bool, wanted: &[Wanted]) -> Vec<Action> {
        let at = wall(self.mono);
        let permitted = Some(wanted.iter().map(|w| (w.id, at)).collect());
        let took = Duration::from_millis(2);
        self.tell(Event::Attempted {
            urgent,
            wanted: wanted.to_vec(),
            permitted,
            took,
        })
    }

    /// What is posted in so many steps of 20 ms, with every attempt permitted.
    fn send(&mut self, steps: usize) -> Vec<JobId> {
        let mut posted = Vec::new();
        for _ in 0..steps {
            let actions = self.wait(Duration::from_millis(20));
            posted.extend(posts(&actions));
            posted.extend(posts(&self.permit_all(&actions)));
        }
        posted
    }

    /// Permits every attempt among the actions.
    fn permit_all(&mut self, actions: &[Action]) -> Vec<Action> {
        let attempts = actions.iter().filter_map(|action| match action {
            Action::Attempt { urgent, wanted, .. } => Some((*urgent, wanted)),
            _ => None,
        });
        attempts
            .flat_map(|(urgent, wanted)| self.permit_as(urgent, wanted))
            .collect()
    }

    /// One normal job, looked at, attempted and on the wire.
    fn one_on_the_wire(&mut self) -> JobId {
        let job = self.seen(7, LANE, Priority::Normal);
        let wanted = attempts(&self.look(vec![job]));
        let posts = posts(&self.permit(&wanted));
        assert_eq!(posts, [JobId(7)]);
        posts[0]
    }

    fn answer(&mut self, id: JobId, answer: Answer) -> Vec<Action> {
        self.tell(Event::Posted {
            id,
            answer,
            regain_access_in: None,
            chance: 0.5,
        })
    }

    /// The next batch to be settled, once it is old enough.
    fn settled(&mut self) -> Batch {
        let actions = self.wait(Duration::from_millis(20));
        settles(actions).pop().expect("something to settle")
    }

    fn cursors(&mut self, priority: Priority) -> Vec<Cursor> {
        let found = self.tell(Event::LanesFound(Some(vec![(LANE, priority)])));
        found
            .into_iter()
            .find_map(|a| {
                if let Action::Look { cursors, .. } = a {
                    Some(cursors)
                } else {
                    None
                }
            })
            .unwrap_or_default()
    }
}

fn quiet(actions: &[Action]) -> Vec<Quiet> {
    let quiet = |action: &Action| match action {
        Action::Quiet(quiet) => Some(*quiet),
        _ => None,
    };
    actions.iter().filter_map(quiet).collect()
}

fn attempts(actions: &[Action]) -> Vec<Wanted> {
    actions
        .iter()
        .filter_map(|a| {
            if let Action::Attempt { wanted, .. } = a {
                Some(wanted.clone())
            } else {
                None
            }
        })
        .flatten()
        .collect()
}

fn asked_of_pairs(actions: &[Action]) -> Option<Standing> {
    actions.iter().find_map(|action| match action {
        Action::CountPairs { standing, .. } => Some(standing.clone()),
        _ => None,
    })
}

fn posts(actions: &[Action]) -> Vec<JobId> {
    actions
        .iter()
        .filter_map(|a| {
            if let Action::Post { id, .. } = a {
                Some(*id)
            } else {
                None
            }
        })
        .collect()
}

fn settles(actions: Vec<Action>) -> Vec<Batch> {
    actions
        .into_iter()
        .filter_map(|a| {
            if let Action::Settle(batch) = a {
                Some(batch)
            } else {
                None
            }
        })
        .collect()
}

fn accepted() -> Answer {
    Answer::Accepted {
        provider_id: "wamid.x".into(),
        held: false,
        wa_id: None,
        user_id: None,
    }
}

fn error(code: i32) -> Answer {
    Answer::Error(ProviderError {
        code,
        subcode: None,
        http_status: 400,
        title: "no".into(),
        detail: String::new(),
        is_transient: false,
        retry_after: None,
    })
}

/// What pauses of each scope but number and account hold.
fn hold_everything_of(bench: &mut Bench, scope: &str) {
    let paused = &mut bench.world.paused;
    match scope {
        "kind" => paused.kinds = ["order".into()].into(),
        "batch" => paused.batches = ["autumn".to_owned()].into(),
        "priority" => paused.priorities = [Priority::Normal].into(),
        _ => {
            let template = TemplateName {
                name: "order_shipped".into(),
                language: "en".into(),
            };
            paused.templates = [("waba".to_owned(), [template].into())].into();
        }
    }
}
