//! No 24 hours ever hold more people than the limit.

use std::collections::HashSet;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::{ledgers::*, play::*, *};

// --- 3 numbers, 250 recipients a day, 1,000 jobs to 600 people ------------------------------------------------------

/// A small generator, so that a schedule is the same each time.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |sides| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    }
}

/// In the evening of the first day one job to each of 550 people, who are more than two days' worth. Fifty more get an
/// urgent one in the following days, and there are 400 repeats, also to people who still wait for the first.
fn rush<B: Book>() -> Play<B> {
    let mut roll = dice(7);
    let mut play = Play::new(limit(250));
    let evening = at(18 * HOUR);
    for n in 0..1_000_i64 {
        let priority = match n {
            0..250 => Priority::Bulk,
            550..600 => Priority::Urgent,
            _ => Priority::Normal,
        };
        let later = match n {
            0..550 => Duration::ZERO,
            550..600 => SECOND * roll(60 * 3_600) as u32,
            _ => SECOND * roll(8 * 3_600) as u32,
        };
        play.enqueue(Job {
            person: n % 600,
            number: roll(3) as usize,
            priority,
            due: evening + later,
            expires: evening + 3 * DAY,
            pipeline: Duration::from_millis(roll(2_000)),
            travel: Duration::from_millis(roll(50_000)),
            held: (roll(20) == 0).then(|| SECOND * roll(3_600) as u32),
        });
    }
    play
}

#[test]
fn in_three_days_1000_jobs_to_600_people_never_pass_250_in_24_hours_and_all_go_out() {
    let mut play = rush::<Ledger>();
    play.run();
    assert_eq!(violation(&play.arrivals()), None);
    let waiting = play.posted.iter().filter(|posted| posted.is_none());
    assert_eq!(waiting.count(), 0);
}

#[test]
fn urgent_jobs_to_new_people_go_at_once_while_normal_and_bulk_wait_for_room() {
    let mut play = rush::<Ledger>();
    play.run();
    let waited = |n: usize| play.posted[n].map(|posted| posted.since(play.jobs[n].due));
    let longest = (550..600).filter_map(waited).max();
    assert!(longest < Some(MINUTE), "an urgent job waited {longest:?}");
    let long = (0..550).filter(|n| waited(*n) > Some(DAY)).count();
    assert!(
        long > 200,
        "the others had to wait, {long} of them over a day"
    );
}

/// Jobs that come over three days, more than there is room for, each valid for some hours.
fn flood<B: Book>() -> Play<B> {
    let mut roll = dice(11);
    let mut play = Play::new(limit(250));
    for _ in 0..1_500 {
        let due = at(SECOND * roll(3 * 86_400) as u32);
        let (priority, valid) = match roll(10) {
            0 => (Priority::Urgent, 5 * MINUTE),
            1..5 => (Priority::Normal, 12 * HOUR),
            _ => (Priority::Bulk, 24 * HOUR),
        };
        play.enqueue(Job {
            person: roll(2_000) as i64,
            number: roll(3) as usize,
            priority,
            due,
            expires: due + valid,
            pipeline: Duration::from_millis(roll(2_000)),
            travel: Duration::ZERO,
            held: None,
        });
    }
    play
}

#[test]
fn a_job_expires_only_if_there_was_no_room_for_it_all_its_life() {
    let mut play = flood::<Ledger>();
    play.run();
    assert_eq!(violation(&play.arrivals()), None);
    // With those who were promised room by then.
    let people = |now: Moment| {
        let counted = play
            .rows
            .iter()
            .filter(|(_, at)| *at <= now + 4 * SECOND && *at + ROOM > now);
        counted
            .map(|(person, _)| *person)
            .collect::<HashSet<_>>()
            .len()
    };
    // Whenever somebody could have left.
    let returns: Vec<(Moment, usize)> = play
        .rows
        .iter()
        .map(|(_, at)| (*at + ROOM, people(*at + ROOM)))
        .collect();
    let expired: Vec<Job> = (0..play.jobs.len())
        .filter(|n| play.posted[*n].is_none())
        .map(|n| play.jobs[n])
        .collect();
    assert!(
        expired.len() > 300,
        "{} expired: that says nothing",
        expired.len()
    );
    for job in expired {
        let allowance = limit(250).allowance(job.priority).expect("a finite limit") as usize;
        assert!(people(job.due) >= allowance, "{job:?}");
        let in_its_life = returns
            .iter()
            .filter(|(at, _)| job.due < *at && *at + MINUTE < job.expires);
        for (at, people) in in_its_life {
            assert!(*people >= allowance, "{job:?} at {at:?}");
        }
    }
}

#[test]
fn a_ledger_by_calendar_day_fails_the_proof() {
    let mut play = rush::<ByCalendarDay>();
    play.run();
    assert!(violation(&play.arrivals()).is_some());
}

#[test]
fn a_ledger_that_repeats_do_not_renew_fails_the_proof() {
    let mut play = rush::<NotRenewedByRepeats>();
    play.run();
    assert!(violation(&play.arrivals()).is_some());
}

#[test]
fn a_ledger_without_promises_fails_the_proof() {
    let mut play = rush::<WithoutPromises>();
    play.run();
    assert!(violation(&play.arrivals()).is_some());
}

// --- Any schedule ----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Job {
        person: i64,
        urgent: bool,
        pipeline: u64,
        travel: u64,
        held: Option<u64>,
    },
    Window {
        person: i64,
        lasts: u64,
    },
    Limit(Option<u32>),
    Restart,
}

/// Seconds between two steps: together, within the same hours, or about as long as somebody takes room.
fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..30_u64,
        3 => 0..3 * 3_600_u64,
        1 => 23 * 3_600 + 3_000..24 * 3_600 + 600_u64,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let held = prop_oneof![4 => Just(None), 1 => (0..20 * 3_600_u64).prop_map(Some)];
    let job = (0..20_i64, any::<bool>(), 0..20_u64, 0..50_u64, held);
    prop_oneof![
        20 => job.prop_map(|(person, urgent, pipeline, travel, held)| Step::Job {
            person, urgent, pipeline, travel, held,
        }),
        // Short ones close between the gate and the slot.
        2 => (0..20_i64, 0..120_u64).prop_map(|(person, lasts)| Step::Window { person, lasts }),
        1 => Just(Step::Restart),
        1 => prop_oneof![Just(None), (0..8_u32).prop_map(Some)].prop_map(Step::Limit),
    ]
}

fn schedule() -> impl Strategy<Value = Vec<(u64, Step)>> {
    prop::collection::vec((gap(), step()), 20..150)
}

fn played<B: Book>(steps: &[(u64, Step)]) -> Play<B> {
    let mut play = Play::new(bare(5));
    let mut now = at(DAY);
    for (gap, step) in steps {
        now = now + SECOND * *gap as u32;
        match *step {
            Step::Job {
                person,
                urgent,
                pipeline,
                travel,
                held,
            } => play.enqueue(Job {
                person,
                number: person as usize % 3,
                priority: if urgent {
                    Priority::Urgent
                } else {
                    Priority::Bulk
                },
                due: now,
                expires: now + 30 * HOUR,
                pipeline: Duration::from_secs(pipeline),
                travel: Duration::from_secs(travel),
                held: held.map(Duration::from_secs),
            }),
            Step::Window { person, lasts } => {
                let until = now + Duration::from_secs(lasts) + WINDOW_MARGIN / 2;
                play.queue(now, Event::Window { person, until });
            }
            Step::Limit(recipients) => play.queue(now, Event::Limit(recipients)),
            Step::Restart => play.queue(now, Event::Restart),
        }
    }
    play.run();
    play
}

proptest! {
    #[test]
    fn no_24_hours_ever_hold_more_people_than_the_limit_whatever_the_schedule(steps in schedule()) {
        let play = played::<Ledger>(&steps);
        prop_assert_eq!(violation(&play.arrivals()), None);
    }

    #[test]
    fn what_is_left_says_what_ask_then_grants(steps in schedule(), ahead in 0..100_000_u64) {
        let mut play = played::<Ledger>(&steps);
        let last = play.rows.iter().map(|(_, at)| *at).max().unwrap_or(at(DAY));
        let now = last + Duration::from_secs(ahead);
        let room = play.book.room(Priority::Urgent, now);
        let newcomers = (1_000..1_000 + room.unwrap_or(10) as i64).chain([2_000]);
        let answers: Vec<Answer> = newcomers
            .map(|person| {
                let answer = play.book.ask(person, Priority::Urgent, now);
                play.book.promise(person);
                answer
            })
            .collect();
        let granted = answers.iter().filter(|answer| **answer == Answer::Room).count();
        prop_assert_eq!(Some(granted), room.or(Some(11)));
    }
}

/// How many of 30 schedules the judge finds fault with.
fn faults<B: Book>() -> usize {
    let mut runner = TestRunner::deterministic();
    let schedules = (0..30).map(|_| {
        schedule()
            .new_tree(&mut runner)
            .expect("a schedule")
            .current()
    });
    schedules
        .filter(|steps| violation(&played::<B>(steps).arrivals()).is_some())
        .count()
}

#[test]
fn the_same_schedules_find_fault_with_every_wrong_ledger_and_not_with_the_right_one() {
    assert_eq!(faults::<Ledger>(), 0);
    for (wrong, faults) in [
        ("by calendar day", faults::<ByCalendarDay>()),
        ("not renewed by repeats", faults::<NotRenewedByRepeats>()),
        ("not rebuilt after a restart", faults::<NotRebuilt>()),
        ("without promises", faults::<WithoutPromises>()),
        (
            "deaf to receipts of held messages",
            faults::<DeafToReceipts>(),
        ),
        (
            "without the five minutes",
            faults::<WithoutTheFiveMinutes>(),
        ),
    ] {
        assert!(faults > 0, "{wrong}: nobody noticed");
    }
}
