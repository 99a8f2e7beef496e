//! A play asks the rule every second what to do with one job, in a world whose webhook comes and goes. The judge counts the
//! seconds of that world by itself. To know that it sees, the same worlds are played by rules that are wrong.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000 + second, 0).expect("a time")
}

fn outage(began: i64, ended: i64) -> Outage {
    Outage {
        began: at(began),
        ended: at(ended),
    }
}

/// Posted at second 0, and given 20 s.
const UNKNOWN: fn() -> Unknown = || Unknown {
    since: at(0),
    resolve_after: Duration::from_secs(20),
    on_unknown: OnUnknown::Resend,
    resends: 0,
    expires_at: at(100_000),
};

/// The webhook is there, and a receipt for a message of second 1 came.
fn open(now: i64, outages: &[Outage]) -> Receiving<'_> {
    Receiving {
        seen_at: Some(at(now)),
        outages,
        taken_at: Some(at(1)),
    }
}

/// What the rule says at a second at which the webhook is there.
fn asked(unknown: &Unknown, outages: &[Outage], now: i64) -> Resolution {
    resolve(unknown, &open(now, outages), 1, at(now))
}

// --- One rule at a time ----------------------------------------------------------------------------------------------

#[test]
fn it_is_sent_again_when_its_time_is_over_and_a_later_message_has_a_receipt() {
    assert_eq!(asked(&UNKNOWN(), &[], 19), Resolution::Wait(at(20)));
    assert_eq!(asked(&UNKNOWN(), &[], 20), Resolution::Resend);
}

#[test]
fn a_receipt_for_an_earlier_message_is_no_evidence_and_five_times_the_time_stands_for_it() {
    for taken_at in [None, Some(at(-1)), Some(at(0))] {
        let ask = |now| {
            let receiving = Receiving {
                taken_at,
                ..open(now, &[])
            };
            resolve(&UNKNOWN(), &receiving, 1, at(now))
        };
        assert_eq!(ask(20), Resolution::Wait(at(100)));
        assert_eq!(ask(99), Resolution::Wait(at(100)));
        assert_eq!(ask(100), Resolution::Resend);
    }
}

#[test]
fn the_clock_stands_still_during_an_outage_and_for_as_long_after_it() {
    let outages = [outage(5, 35)];
    assert_eq!(asked(&UNKNOWN(), &outages, 36), Resolution::Wait(at(80)));
    assert_eq!(asked(&UNKNOWN(), &outages, 79), Resolution::Wait(at(80)));
    assert_eq!(asked(&UNKNOWN(), &outages, 80), Resolution::Resend);
}

#[test]
fn a_long_outage_extends_the_clock_by_an_hour_and_not_by_more() {
    let day = 86_400;
    let outages = [outage(5, 5 + day)];
    let due = 5 + day + 3_600 + 15;
    let asked = |now| {
        let unknown = Unknown {
            expires_at: at(2 * day),
            ..UNKNOWN()
        };
        asked(&unknown, &outages, now)
    };
    assert_eq!(asked(due - 1), Resolution::Wait(at(due)));
    assert_eq!(asked(due), Resolution::Resend);
}

#[test]
fn what_was_taken_over_just_after_an_outage_waits_for_receipts_that_it_delayed() {
    let outages = [outage(-61, -1)];
    assert_eq!(asked(&UNKNOWN(), &outages, 20), Resolution::Wait(at(79)));
    assert_eq!(asked(&UNKNOWN(), &outages, 79), Resolution::Resend);
}

#[test]
fn an_outage_under_way_holds_everything_up() {
    for seen_at in [None, Some(at(96)), Some(at(-1_000))] {
        let receiving = Receiving {
            seen_at,
            ..open(0, &[])
        };
        let said = resolve(&UNKNOWN(), &receiving, 1, at(100));
        assert!(matches!(said, Resolution::Wait(_)), "{seen_at:?}: {said:?}");
    }
    let late = Receiving {
        seen_at: Some(at(97)),
        ..open(0, &[])
    };
    assert_eq!(resolve(&UNKNOWN(), &late, 1, at(100)), Resolution::Resend);
}

#[test]
fn what_may_not_be_sent_again_is_given_up() {
    let stop = Unknown {
        on_unknown: OnUnknown::Stop,
        ..UNKNOWN()
    };
    let again = Unknown {
        resends: 1,
        ..UNKNOWN()
    };
    let over = Unknown {
        expires_at: at(20),
        ..UNKNOWN()
    };
    for unknown in [stop, again, over] {
        assert_eq!(asked(&unknown, &[], 19), Resolution::Wait(at(20)));
        assert_eq!(asked(&unknown, &[], 20), Resolution::GiveUp, "{unknown:?}");
    }
    assert_eq!(
        resolve(&UNKNOWN(), &open(20, &[]), 0, at(20)),
        Resolution::GiveUp
    );
}

#[test]
fn no_time_is_too_long_for_it() {
    let forever = Unknown {
        resolve_after: Duration::MAX,
        ..UNKNOWN()
    };
    let outages = [outage(0, 10)];
    assert_eq!(
        asked(&forever, &outages, 11),
        Resolution::Wait(DateTime::<Utc>::MAX_UTC)
    );
}

// --- Worlds ----------------------------------------------------------------------------------------------------------

/// The world of one job, in seconds.
#[derive(Debug, Clone)]
struct World {
    /// How long the webhook is there, and then is not, in turns.
    turns: Vec<(i64, i64)>,
    posted: i64,
    resolve_after: i64,
    stop: bool,
    valid_for: i64,
    max_resends: i32,
    /// From when until when receipts of the account come, each for a message of the same second; `None` when none comes.
    receipts: Option<(i64, i64)>,
}

const SECONDS: i64 = 1_500;

fn world() -> impl Strategy<Value = World> {
    let turns = prop::collection::vec((1..120_i64, 4..60_i64), 0..6);
    (
        turns,
        0..200_i64,
        5..40_i64,
        prop::bool::weighted(0.2),
        prop_oneof![Just(SECONDS), 10..600_i64],
        0..3_i32,
        prop::option::weighted(0.8, (0..300_i64, prop_oneof![Just(SECONDS), 0..300_i64])),
    )
        .prop_map(
            |(turns, posted, resolve_after, stop, valid_for, max_resends, receipts)| World {
                turns,
                posted,
                resolve_after,
                stop,
                valid_for,
                max_resends,
                receipts,
            },
        )
}

impl World {
    fn outages(&self) -> Vec<(i64, i64)> {
        let mut second = 0;
        let outage = |(up, down): &(i64, i64)| {
            let began = second + up;
            second = began + down;
            (began, second)
        };
        self.turns.iter().map(outage).collect()
    }

    /// The time of the last message that a receipt had come for, by a second.
    fn taken(&self, now: i64) -> Option<i64> {
        let is_up = |second: &i64| !self.outages().iter().any(|(a, b)| (a..b).contains(&second));
        let (from, until) = self.receipts?;
        (from..=now.min(until)).rev().find(is_up)
    }
}

type Rule = fn(&Unknown, &Receiving<'_>, i32, DateTime<Utc>) -> Resolution;

/// When the rule did what.
fn played(rule: Rule, world: &World) -> Vec<(i64, Resolution)> {
    let mut done = Vec::new();
    let mut unknown = Unknown {
        since: at(world.posted),
        resolve_after: Duration::from_secs(world.resolve_after.unsigned_abs()),
        on_unknown: if world.stop {
            OnUnknown::Stop
        } else {
            OnUnknown::Resend
        },
        resends: 0,
        expires_at: at(world.posted + world.valid_for),
    };
    for now in world.posted..SECONDS {
        let all = world.outages();
        let over = all.iter().filter(|(_, ended)| *ended <= now);
        let outages: Vec<Outage> = over.map(|(began, ended)| outage(*began, *ended)).collect();
        let down_since = all.iter().find(|(a, b)| (*a..*b).contains(&now));
        let receiving = Receiving {
            seen_at: Some(at(down_since.map_or(now, |(began, _)| *began))),
            outages: &outages,
            taken_at: world.taken(now).map(at),
        };
        let said = rule(&unknown, &receiving, world.max_resends, at(now));
        match said {
            Resolution::Wait(_) => continue,
            Resolution::Resend => {
                unknown.resends += 1;
                unknown.since = at(now);
            }
            Resolution::GiveUp => {}
        }
        done.push((now, said));
        if said == Resolution::GiveUp || done.len() > 9 {
            break;
        }
    }
    done
}

/// How long the clock of something posted then has run by a second: counted one by one.
fn clock(world: &World, posted: i64, now: i64) -> i64 {
    let (mut ran, mut owed) = (0, 0);
    for second in 0..now {
        let is_down = world
            .outages()
            .iter()
            .any(|(a, b)| (*a..*b).contains(&second));
        match owed {
            _ if is_down => owed += 1,
            1.. => owed -= 1,
            _ => ran += i64::from(second >= posted),
        }
    }
    ran
}

/// What is wrong with what was done in a world.
fn violation(world: &World, done: &[(i64, Resolution)]) -> Option<&'static str> {
    let mut posted = world.posted;
    for (now, said) in done {
        let ran = clock(world, posted, *now);
        let has_evidence = world.taken(*now).is_some_and(|taken| taken > posted);
        let is_down = world
            .outages()
            .iter()
            .any(|(a, b)| (a + 3..*b).contains(now));
        if ran < world.resolve_after {
            return Some("too soon");
        }
        if !has_evidence && ran < 5 * world.resolve_after {
            return Some("without evidence");
        }
        if is_down {
            return Some("during an outage");
        }
        if *said == Resolution::Resend {
            if world.stop || *now >= world.posted + world.valid_for {
                return Some("sent again against its kind or its validity");
            }
            posted = *now;
        }
    }
    let resends = done.iter().filter(|(_, said)| *said == Resolution::Resend);
    (resends.count() > world.max_resends.unsigned_abs() as usize).then_some("sent too often")
}

proptest! {
    #[test]
    fn nothing_is_resolved_before_its_time_without_evidence_or_more_often_than_allowed(world in world()) {
        prop_assert_eq!(violation(&world, &played(resolve, &world)), None);
    }

    #[test]
    fn whatever_happens_it_is_given_up_in_the_end(world in world()) {
        let mut world = world;
        // Time enough for every resend, each with the longest wait.
        world.turns.truncate(2);
        world.resolve_after = world.resolve_after.min(20);
        let done = played(resolve, &world);
        prop_assert_eq!(done.last().map(|(_, said)| *said), Some(Resolution::GiveUp));
    }

    #[test]
    fn an_outage_only_ever_postpones(world in world(), turn in (1..120_i64, 4..60_i64)) {
        let first = |world: &World| played(resolve, world).first().map_or(SECONDS, |(now, _)| *now);
        // Evidence is the same in both worlds, so that only the clock differs.
        let world = World { receipts: None, ..world };
        let mut worse = world.clone();
        worse.turns.push(turn);
        prop_assert!(first(&worse) >= first(&world));
    }

    #[test]
    fn what_it_waits_for_is_when_it_would_be_resolved(world in world(), after in 0..40_i64) {
        let world = World { turns: Vec::new(), receipts: None, ..world };
        let ask = |now| resolve(&Unknown { resolve_after: Duration::from_secs(world.resolve_after.unsigned_abs()), ..UNKNOWN() },
                                &Receiving { taken_at: None, ..open(now, &[]) }, 1, at(now));
        if let Resolution::Wait(until) = ask(after) {
            let second = (until - at(0)).num_seconds();
            prop_assert!(matches!(ask(second - 1), Resolution::Wait(_)));
            prop_assert_eq!(ask(second), Resolution::Resend);
        }
    }
}

/// Wrong: the clock runs on while nobody takes receipts.
fn clock_runs_on(u: &Unknown, r: &Receiving<'_>, max: i32, now: DateTime<Utc>) -> Resolution {
    resolve(u, &Receiving { outages: &[], ..*r }, max, now)
}

/// Wrong: it stands still, and goes on at once when the outage is over.
fn not_extended(u: &Unknown, r: &Receiving<'_>, max: i32, now: DateTime<Utc>) -> Resolution {
    let lost = r.outages.iter().fold(TimeDelta::zero(), |lost, outage| {
        lost + (outage.ended - outage.began.max(u.since)).max(TimeDelta::zero())
    });
    let since = u.since + lost;
    clock_runs_on(&Unknown { since, ..*u }, r, max, now)
}

/// Wrong: does not notice an outage before it is over.
fn blind_to_the_present(
    u: &Unknown,
    r: &Receiving<'_>,
    max: i32,
    now: DateTime<Utc>,
) -> Resolution {
    let seen_at = Some(now);
    resolve(u, &Receiving { seen_at, ..*r }, max, now)
}

/// Wrong: takes silence for an answer.
fn without_evidence(u: &Unknown, r: &Receiving<'_>, max: i32, now: DateTime<Utc>) -> Resolution {
    let taken_at = Some(DateTime::<Utc>::MAX_UTC);
    resolve(u, &Receiving { taken_at, ..*r }, max, now)
}

/// Wrong: any receipt will do.
fn any_receipt(u: &Unknown, r: &Receiving<'_>, max: i32, now: DateTime<Utc>) -> Resolution {
    let taken_at = r.taken_at.map(|_| DateTime::<Utc>::MAX_UTC);
    resolve(u, &Receiving { taken_at, ..*r }, max, now)
}

/// Wrong: sends as often as it stays unknown.
fn without_limit(u: &Unknown, r: &Receiving<'_>, _: i32, now: DateTime<Utc>) -> Resolution {
    resolve(u, r, i32::MAX, now)
}

/// Wrong: deaf to what the kind wants.
fn always_resends(u: &Unknown, r: &Receiving<'_>, max: i32, now: DateTime<Utc>) -> Resolution {
    let on_unknown = OnUnknown::Resend;
    resolve(&Unknown { on_unknown, ..*u }, r, max, now)
}

/// Wrong: sends what nobody wants any more.
fn after_its_validity(u: &Unknown, r: &Receiving<'_>, max: i32, now: DateTime<Utc>) -> Resolution {
    let expires_at = DateTime::<Utc>::MAX_UTC;
    resolve(&Unknown { expires_at, ..*u }, r, max, now)
}

#[test]
fn the_same_worlds_find_fault_with_every_wrong_rule_and_not_with_the_right_one() {
    let faults = |rule: Rule| {
        let mut runner = TestRunner::deterministic();
        let worlds = (0..200).map(|_| world().new_tree(&mut runner).expect("a world").current());
        worlds
            .filter(|world| violation(world, &played(rule, world)).is_some())
            .count()
    };
    assert_eq!(faults(resolve), 0);
    let wrong: [(&str, Rule); 8] = [
        ("the clock runs on", clock_runs_on),
        ("not extended", not_extended),
        ("blind to the present", blind_to_the_present),
        ("without evidence", without_evidence),
        ("any receipt", any_receipt),
        ("without limit", without_limit),
        ("always resends", always_resends),
        ("after its validity", after_its_validity),
    ];
    for (name, rule) in wrong {
        assert!(faults(rule) > 0, "{name}: nobody noticed");
    }
}
