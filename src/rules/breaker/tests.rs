use chrono::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::rules::outcome::{Answer, Consequence, ProviderError, TABLE, judge};

mod claims;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn start() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap()
}

fn name(name: &str) -> TemplateName {
    TemplateName {
        name: name.to_owned(),
        language: "en".to_owned(),
    }
}

/// What the messages of these tests go by.
struct Way {
    account: Arc<str>,
    template: TemplateName,
}

impl Way {
    fn new() -> Self {
        Self {
            account: "waba".into(),
            template: name("order"),
        }
    }

    fn path(&self) -> Path<'_> {
        Path {
            lane: Lane(1),
            account: &self.account,
            template: Some(&self.template),
        }
    }

    fn target(&self, scope: Scope) -> Target {
        self.path().target(scope).unwrap()
    }
}

fn error(code: i32) -> Consequence {
    judge(&Answer::Error(ProviderError {
        code,
        subcode: None,
        http_status: 400,
        title: String::new(),
        detail: String::new(),
        is_transient: false,
        retry_after: None,
    }))
}

fn accepted(held: bool) -> Consequence {
    judge(&Answer::Accepted {
        provider_id: "wamid.1".to_owned(),
        held,
        wa_id: None,
        user_id: None,
    })
}

impl Breakers {
    fn hears(&mut self, way: &Way, said: &Consequence, now: DateTime<Utc>) -> Option<Opened> {
        self.answered(way.path(), said, "said so", Some(1), now)
            .opened
    }

    /// Claims what is to be claimed, and is told this.
    fn claims(&mut self, way: &Way, told: Claim, now: DateTime<Utc>) -> Vec<Due> {
        self.claim(way.path().targets(), now);
        let claims = self.take_claims();
        for due in &claims {
            self.claimed(&due.target, told, now);
        }
        claims
    }

    /// Lets a message go and answers it.
    fn sends(&mut self, way: &Way, said: &Consequence, now: DateTime<Utc>) -> Option<Opened> {
        self.claims(way, Claim::Granted, now);
        assert_ne!(self.is_stopped(way, now), Some(true), "a message may go");
        self.probed(way.path().targets(), now);
        self.hears(way, said, now)
    }

    /// Whether a message is stopped, `None` when one may try.
    fn is_stopped(&self, way: &Way, now: DateTime<Utc>) -> Option<bool> {
        match self.may(way.path().targets(), now) {
            May::Yes => Some(false),
            May::Probe | May::Claim { .. } => None,
            May::No { .. } => Some(true),
        }
    }
}

/// What DESIGN section 6 and the classes of the error table say a code does: the scope that it stops, and for how many
/// minutes where it ends by itself.
fn designed(first: i32, class: &str) -> Option<(Scope, Option<u64>)> {
    match (first, class) {
        // Codes that end by themselves, or are not what their class says at first sight.
        (131_005, _) => Some((Scope::Number, None)),
        (131_057, _) => Some((Scope::Number, Some(1))),
        (133_016, _) => Some((Scope::Number, Some(60))),
        (133_015, _) => Some((Scope::Number, Some(5))),
        (132_015, _) => Some((Scope::Template, Some(180))),
        (132_007, _) => Some((Scope::Template, None)),
        (132_069, _) => Some((Scope::Template, Some(6))),
        (132_001 | 132_016, _) => Some((Scope::Template, Some(15))),
        (131_064 | 132_068 | 134_102 | 141_002, _) => Some((Scope::Template, Some(60))),
        // An error of the request; subcode 33 is told apart elsewhere. Parameters that do not fit are counted.
        (100 | 132_000, _) => None,
        (_, class) if class.contains("PA") => Some((Scope::Account, None)),
        (_, class) if class.contains("PN") => Some((Scope::Number, None)),
        (_, "TA") => Some((Scope::Account, Some(1))),
        _ => None,
    }
}

#[test]
fn every_code_of_the_table_stops_what_the_design_says_for_as_long_and_nothing_else() {
    for row in TABLE {
        let (way, mut breakers) = (Way::new(), Breakers::default());
        let opened = breakers.hears(&way, &error(row.first), start());
        let expected = designed(row.first, row.class).map(|(scope, minutes)| Opened {
            target: way.target(scope),
            stop: Stop {
                reason: "said so".to_owned(),
                code: Some(1),
                since: start(),
                until: minutes.map(|minutes| start() + MINUTE * minutes as u32),
            },
        });
        assert_eq!(opened, expected, "{} {}", row.first, row.class);
        let stopped: Vec<_> = breakers.iter().map(|(target, _)| target).collect();
        let expected: Vec<_> = expected.iter().map(|opened| &opened.target).collect();
        assert_eq!(stopped, expected, "{}", row.first);
        assert_eq!(
            breakers.is_stopped(&way, start()),
            Some(!stopped.is_empty()),
            "{}",
            row.first
        );
    }
}

#[test]
fn every_code_of_the_table_that_stops_something_lets_it_go_again() {
    for row in TABLE {
        let (way, mut breakers) = (Way::new(), Breakers::default());
        let Some(opened) = breakers.hears(&way, &error(row.first), start()) else {
            continue;
        };
        let later = if let Some(until) = opened.stop.until {
            assert_eq!(breakers.is_stopped(&way, until - MINUTE / 60), Some(true));
            assert_eq!(breakers.is_stopped(&way, until), None, "one may try");
            breakers.sends(&way, &accepted(false), until);
            until
        } else {
            breakers.seen([(opened.target, opened.stop)], start());
            let years = start() + 1_000 * 24 * HOUR;
            assert_eq!(breakers.is_stopped(&way, years), Some(true));
            // Somebody resumes it.
            breakers.seen([], years);
            years
        };
        assert_eq!(
            breakers.is_stopped(&way, later),
            Some(false),
            "{}",
            row.first
        );
        assert_eq!(breakers.iter().count(), 0, "{}", row.first);
    }
}

#[test]
fn a_stopped_thing_stops_what_goes_by_it_and_no_more() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    let by = |lane, account: &str, template: &str| {
        let path = Path {
            lane: Lane(lane),
            account: &account.into(),
            template: Some(&name(template)),
        };
        path.targets().collect::<Vec<_>>()
    };
    let same = by(1, "waba", "order");
    let others = [
        by(2, "waba", "order"),
        by(1, "waba", "otp"),
        by(3, "else", "order"),
    ];
    for (code, reached) in [
        (131_048, [false, true, false]),
        (190, [true, true, false]),
        (132_015, [true, false, false]),
    ] {
        breakers.seen([], start() + HOUR);
        breakers.hears(&way, &error(code), start());
        assert_ne!(breakers.may(same.clone(), start()), May::Yes, "{code}");
        for (other, reached) in others.iter().zip(reached) {
            let may = breakers.may(other.clone(), start());
            assert_eq!(may != May::Yes, reached, "{code} and {other:?}");
        }
    }
}

#[test]
fn exactly_one_message_tries_when_the_time_is_over() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    breakers.hears(&way, &error(131_057), start());
    let over = start() + MINUTE;
    assert_eq!(breakers.may(way.path().targets(), over), May::Probe);
    breakers.probed(way.path().targets(), over);
    for later in 0..60 {
        let now = over + MINUTE / 60 * later;
        let may = breakers.may(way.path().targets(), now);
        assert!(matches!(may, May::No { until: Some(_), .. }), "{may:?}");
    }
}

#[test]
fn a_probe_of_which_nothing_certain_came_lets_another_go_after_a_minute() {
    let not_sent = Answer::NotSent {
        detail: String::new(),
    };
    let no_answer = Answer::NoAnswer {
        http_status: None,
        detail: String::new(),
    };
    let about_itself = error(131_026);
    for said in [judge(&not_sent), judge(&no_answer), about_itself] {
        let (way, mut breakers) = (Way::new(), Breakers::default());
        breakers.hears(&way, &error(131_057), start());
        let over = start() + MINUTE;
        breakers.sends(&way, &said, over);
        assert_eq!(breakers.is_stopped(&way, over + MINUTE / 2), Some(true));
        assert_eq!(breakers.is_stopped(&way, over + MINUTE), None, "{said:?}");
        breakers.sends(&way, &accepted(false), over + MINUTE);
        assert_eq!(breakers.is_stopped(&way, over + MINUTE), Some(false));
    }
}

#[test]
fn a_probe_that_is_held_for_quality_was_taken() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    breakers.hears(&way, &error(132_015), start());
    breakers.sends(&way, &accepted(true), start() + 3 * HOUR);
    assert_eq!(breakers.is_stopped(&way, start() + 3 * HOUR), Some(false));
}

#[test]
fn a_probe_that_hears_no_doubles_the_time_to_a_day_at_most() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    let mut opened = breakers.hears(&way, &error(132_068), start()).unwrap();
    let mut hours = Vec::new();
    for _ in 0..7 {
        let until = opened.stop.until.unwrap();
        opened = breakers.sends(&way, &error(132_068), until).unwrap();
        assert_eq!(opened.stop.since, until, "it opened anew");
        let lasts = opened.stop.until.unwrap() - opened.stop.since;
        hours.push(lasts.num_hours());
    }
    assert_eq!(hours, [2, 4, 8, 16, 24, 24, 24]);
}

#[test]
fn a_probe_that_hears_of_no_end_leaves_it_to_a_person() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    breakers.hears(&way, &error(131_057), start());
    let opened = breakers
        .sends(&way, &error(131_048), start() + MINUTE)
        .unwrap();
    assert_eq!(opened.stop.until, None);
}

#[test]
fn after_it_closed_a_breaker_begins_with_the_short_time_again() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    let mut now = start();
    for _ in 0..3 {
        let opened = breakers.sends(&way, &error(131_057), now).unwrap();
        assert_eq!(opened.stop.until, Some(now + MINUTE));
        now += MINUTE;
        breakers.sends(&way, &accepted(false), now);
    }
}

#[test]
fn what_was_on_the_wire_when_it_opened_is_no_news_and_does_not_close_it() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    assert!(breakers.hears(&way, &error(131_057), start()).is_some());
    let soon = start() + MINUTE / 60;
    assert_eq!(breakers.hears(&way, &error(131_057), soon), None);
    assert_eq!(breakers.hears(&way, &accepted(false), soon), None);
    assert_eq!(breakers.is_stopped(&way, soon), Some(true));
    let longer = breakers.hears(&way, &error(133_015), soon).unwrap();
    assert_eq!(longer.stop.since, start(), "it was open already");
    assert_eq!(longer.stop.until, Some(soon + 5 * MINUTE));
}

#[test]
fn what_waits_for_a_person_is_not_ended_by_a_shorter_word() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    assert!(breakers.hears(&way, &error(131_048), start()).is_some());
    for code in [131_048, 131_057] {
        assert_eq!(breakers.hears(&way, &error(code), start()), None);
    }
    assert_eq!(breakers.is_stopped(&way, start() + HOUR), Some(true));
}

#[test]
fn five_jobs_in_a_row_whose_parameters_do_not_fit_pause_their_template() {
    for codes in [[132_000; 5], [132_000, 132_012, 132_018, 132_012, 132_018]] {
        let (way, mut breakers) = (Way::new(), Breakers::default());
        let opened = codes.map(|code| breakers.hears(&way, &error(code), start()));
        assert_eq!(opened[..4], [const { None }; 4]);
        let opened = opened[4].as_ref().expect("the fifth");
        assert_eq!(opened.target, way.target(Scope::Template));
        assert_eq!(opened.stop.until, Some(start() + 15 * MINUTE));
    }
}

#[test]
fn one_job_of_the_template_that_is_taken_clears_the_suspicion() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    let other = Way {
        template: name("otp"),
        ..Way::new()
    };
    for _ in 0..10 {
        for _ in 0..4 {
            assert_eq!(breakers.hears(&way, &error(132_012), start()), None);
        }
        breakers.hears(&way, &accepted(false), start());
    }
    for _ in 0..4 {
        breakers.hears(&way, &error(132_012), start());
    }
    breakers.hears(&other, &accepted(false), start());
    assert!(
        breakers.hears(&way, &error(132_012), start()).is_some(),
        "another template's job clears nothing"
    );
}

#[test]
fn of_two_stops_the_one_that_ends_later_is_told() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    breakers.open(
        way.target(Scope::Number),
        "number",
        None,
        Some(HOUR),
        start(),
    );
    breakers.open(
        way.target(Scope::Account),
        "account",
        None,
        Some(MINUTE),
        start(),
    );
    let may = |breakers: &Breakers, now| match breakers.may(way.path().targets(), now) {
        May::No { until, reason } => (until, reason.to_owned()),
        may => panic!("{may:?}"),
    };
    assert_eq!(May::Probe.and(May::Yes), May::Probe);
    let number = (Some(start() + HOUR), "number".to_owned());
    assert_eq!(may(&breakers, start()), number);
    assert_eq!(
        may(&breakers, start() + MINUTE),
        number,
        "one of them may try"
    );
    breakers.open(way.target(Scope::Template), "template", None, None, start());
    assert_eq!(may(&breakers, start()), (None, "template".to_owned()));
}

fn written(way: &Way, scope: Scope, minutes: Option<u32>) -> (Target, Stop) {
    let stop = Stop {
        reason: "written".to_owned(),
        code: None,
        since: start(),
        until: minutes.map(|minutes| start() + MINUTE * minutes),
    };
    (way.target(scope), stop)
}

#[test]
fn what_another_instance_or_a_webhook_wrote_down_stops_us_too() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    breakers.seen([written(&way, Scope::Account, None)], start());
    assert_eq!(breakers.is_stopped(&way, start()), Some(true));
    breakers.seen([], start());
    assert_eq!(breakers.is_stopped(&way, start()), Some(false));
}

#[test]
fn a_restart_finds_a_breaker_as_it_was_and_doubles_what_it_had_lasted() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    breakers.seen([written(&way, Scope::Template, Some(240))], start());
    let over = start() + 4 * HOUR;
    breakers.seen([written(&way, Scope::Template, Some(240))], over);
    assert_eq!(breakers.is_stopped(&way, over), None, "one may try");
    let opened = breakers.sends(&way, &error(132_068), over).unwrap();
    assert_eq!(opened.stop.until, Some(over + 8 * HOUR));
}

#[test]
fn a_restart_after_the_end_of_a_stop_sends_one_message_and_then_all() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    let old = written(&way, Scope::Number, Some(60));
    let later = start() + 2 * HOUR;
    breakers.seen([old.clone()], later);
    assert_eq!(breakers.is_stopped(&way, later), None, "one may try");
    breakers.sends(&way, &accepted(false), later);
    assert_eq!(breakers.is_stopped(&way, later), Some(false));
    breakers.seen([old], later);
    assert_eq!(
        breakers.is_stopped(&way, later),
        Some(false),
        "it is not cleared away yet, but it was tried"
    );
}

#[test]
fn what_we_just_opened_stays_open_until_it_can_have_been_written() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    breakers.hears(&way, &error(190), start());
    // Read before it was written.
    breakers.seen([], start() + MINUTE / 60);
    assert_eq!(breakers.is_stopped(&way, start()), Some(true));
    // Nobody ever wrote it.
    breakers.seen([], start() + MINUTE);
    assert_eq!(breakers.is_stopped(&way, start()), Some(false));
}

#[test]
fn a_longer_stop_is_not_undone_by_the_shorter_one_that_is_still_written() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    let short = written(&way, Scope::Number, Some(1));
    breakers.seen([short.clone()], start());
    breakers.hears(&way, &error(131_048), start());
    breakers.seen([short], start());
    assert_eq!(breakers.is_stopped(&way, start() + HOUR), Some(true));
    let long = written(&way, Scope::Number, None);
    breakers.seen([long], start());
    // A person resumed it, and then it is over at once.
    breakers.seen([], start());
    assert_eq!(breakers.is_stopped(&way, start()), Some(false));
}

#[test]
fn a_person_who_ends_a_pause_before_its_time_lets_everything_go() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    breakers.seen([written(&way, Scope::Number, Some(60))], start());
    breakers.seen([], start() + MINUTE);
    assert_eq!(breakers.is_stopped(&way, start() + MINUTE), Some(false));
}

#[test]
fn our_own_word_is_known_when_it_is_read_back_and_whoever_ends_it_then_lets_everything_go() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    let now = start() + Duration::from_nanos(123_456_789);
    let changed = breakers.answered(way.path(), &error(132_015), "", Some(132_015), now);
    let Opened { target, stop } = changed.opened.unwrap();
    // Postgres keeps microseconds.
    let read = Stop {
        since: stop.since.trunc_subsecs(6),
        until: stop.until.map(|until| until.trunc_subsecs(6)),
        ..stop
    };
    assert!(!breakers.seen([(target, read)], now + MINUTE / 60));
    assert!(breakers.seen([], now + MINUTE / 30), "something ended");
    assert_eq!(
        breakers.may(way.path().targets(), now + MINUTE / 30),
        May::Yes
    );
}

#[test]
fn while_one_tries_the_old_pause_changes_nothing_and_a_new_one_stops_all() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    let old = written(&way, Scope::Number, Some(60));
    breakers.seen([old.clone()], start());
    let over = start() + HOUR;
    breakers.probed(way.path().targets(), over);
    breakers.seen([old], over);
    assert_eq!(
        breakers.is_stopped(&way, over),
        Some(true),
        "the probe is out"
    );
    breakers.hears(&way, &accepted(false), over);
    assert_eq!(breakers.is_stopped(&way, over), Some(false));

    breakers.seen([written(&way, Scope::Number, Some(60))], start());
    breakers.probed(way.path().targets(), over);
    breakers.seen([written(&way, Scope::Number, Some(90))], over);
    breakers.hears(&way, &accepted(false), over);
    assert_eq!(breakers.is_stopped(&way, over), Some(true), "stopped anew");
}

#[test]
fn a_message_without_a_template_is_stopped_by_number_and_account_only() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    breakers.hears(&way, &error(132_007), start());
    let free_form = Path {
        template: None,
        ..way.path()
    };
    assert_eq!(breakers.may(free_form.targets(), start()), May::Yes);
    let said = error(132_007);
    let changed = breakers.answered(free_form, &said, "", None, start());
    assert_eq!(changed, Changed::default());
}

proptest! {
    /// Whatever is answered and whenever: of the messages that go after the time is over and before an answer, only
    /// one goes a minute, and none goes while it is open.
    #[test]
    fn between_a_no_and_the_next_yes_at_most_one_message_goes_a_minute(
        steps in prop::collection::vec((0u32..90, 0u8..5), 1..300),
    ) {
        let (way, mut breakers) = (Way::new(), Breakers::default());
        let codes = [131_057, 131_048, 133_015];
        let (mut now, mut stopped, mut went) = (start(), false, None::<DateTime<Utc>>);
        for (seconds, answer) in steps {
            now += MINUTE / 60 * seconds;
            let may = breakers.may(way.path().targets(), now);
            prop_assert_eq!(may == May::Yes, !stopped);
            if matches!(may, May::No { .. }) {
                continue;
            }
            if let Some(went) = went.filter(|_| stopped) {
                prop_assert!(now - went >= chrono::Duration::minutes(1));
            }
            went = Some(now);
            breakers.probed(way.path().targets(), now);
            match answer {
                0..3 => {
                    breakers.hears(&way, &error(codes[usize::from(answer)]), now);
                    stopped = true;
                }
                3 => {
                    breakers.hears(&way, &accepted(false), now);
                    stopped = false;
                }
                // No answer.
                _ => {}
            }
        }
    }
}
