//! One rule at a time here; the proofs play schedules in virtual time through a small dispatcher that keeps to the module's
//! protocol. The judge knows nothing of ledgers: it looks at the list of what reached the provider, and when. To know that it
//! sees, the same schedules are played with ledgers that are wrong.

use super::*;

mod ledgers;
mod play;
mod proof;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A service window that stays open so much longer makes a post free (DESIGN.md, the tier).
const WINDOW_MARGIN: Duration = Duration::from_secs(60);

fn at(since_start: Duration) -> Moment {
    Moment::from(since_start)
}

fn limit(recipients: impl Into<Option<u32>>) -> Limit {
    Limit {
        recipients: recipients.into(),
        elsewhere: 0,
        headroom: 0.05,
        urgent_reserve: 0.10,
    }
}

/// Nothing withheld, so that a test sees the limit itself.
fn bare(recipients: impl Into<Option<u32>>) -> Limit {
    Limit {
        headroom: 0.0,
        urgent_reserve: 0.0,
        ..limit(recipients)
    }
}

const NOON: Duration = Duration::from_secs(12 * 3_600);

/// A ledger with so many people, the `n`-th of whom was written to `n` minutes after noon.
fn with_people(limit: Limit, people: i64) -> Ledger {
    let mut ledger = Ledger::new(limit);
    for person in 0..people {
        ledger.take(person, at(NOON) + MINUTE * person as u32);
    }
    ledger
}

#[test]
fn urgent_may_use_all_but_the_headroom_and_the_others_all_but_the_reserve_too() {
    use Priority::{Bulk, Normal, Urgent};
    let allowances =
        |limit: Limit| [Urgent, Normal, Bulk].map(|priority| limit.allowance(priority));
    assert_eq!(allowances(limit(250)), [237, 212, 212].map(Some));
    assert_eq!(allowances(limit(2_000)), [1_900, 1_700, 1_700].map(Some));
    assert_eq!(
        allowances(limit(100_000)),
        [95_000, 85_000, 85_000].map(Some)
    );
    assert_eq!(allowances(limit(1)), [1, 1, 1].map(Some));
    assert_eq!(allowances(limit(0)), [0, 0, 0].map(Some));
    assert_eq!(allowances(limit(None)), [None; 3]);
    let shared = |elsewhere| Limit {
        elsewhere,
        ..limit(250)
    };
    assert_eq!(allowances(shared(150)), [95, 85, 85].map(Some));
    assert_eq!(allowances(shared(300)), [0, 0, 0].map(Some));
}

#[test]
fn at_its_allowance_a_priority_waits_until_enough_people_have_left() {
    let mut ledger = with_people(limit(250), 212);
    let now = at(NOON + 5 * HOUR);
    assert_eq!(ledger.room(Priority::Urgent, now), Some(25));
    assert_eq!(ledger.room(Priority::Bulk, now), Some(0));
    let full_until = |minutes: u32| Answer::Full {
        until: at(NOON + minutes * MINUTE) + ROOM,
    };
    assert_eq!(ledger.ask(-1, Priority::Normal, now), full_until(0));
    assert_eq!(ledger.ask(-1, Priority::Urgent, now), Answer::Room);
    for person in 212..237 {
        ledger.take(person, now);
    }
    ledger.renew(0, now);
    ledger.set_limit(limit(250));
    assert_eq!(ledger.ask(-1, Priority::Urgent, now), full_until(1));
    assert_eq!(ledger.ask(-1, Priority::Normal, now), full_until(26));
    let first = at(NOON + MINUTE) + ROOM;
    assert_eq!(ledger.next_return(now), Some(first));
    assert_eq!(ledger.returning_by(first + 9 * MINUTE, now), 10);
    ledger.promise(-2);
    ledger.set_limit(limit(250));
    assert_eq!(ledger.ask(-1, Priority::Urgent, now), full_until(2));
    ledger.release(-2);
    assert_eq!(ledger.ask(-1, Priority::Urgent, now), full_until(1));
    let before = first - Duration::from_nanos(1);
    assert_eq!(ledger.ask(-1, Priority::Urgent, before), full_until(1));
    assert_eq!(ledger.ask(-1, Priority::Urgent, first), Answer::Room);
}

#[test]
fn who_counts_already_passes_by_and_counts_for_another_day() {
    let mut ledger = with_people(bare(2), 2);
    let late = at(NOON) + ROOM - SECOND;
    assert_eq!(ledger.ask(0, Priority::Bulk, late), Answer::Known);
    ledger.take(0, late);
    assert_eq!(ledger.used(late + MINUTE), 2);
    assert_eq!(ledger.used(late + 2 * MINUTE), 1, "the other has left");
    assert_eq!(ledger.ask(0, Priority::Bulk, late + DAY), Answer::Known);
    assert_eq!(ledger.ask(0, Priority::Bulk, late + ROOM), Answer::Room);
}

#[test]
fn a_promise_takes_room_once_for_a_person_until_all_are_kept_or_released() {
    let mut ledger = Ledger::new(bare(1));
    let now = at(NOON);
    ledger.promise(1);
    ledger.promise(1);
    assert_eq!(ledger.ask(1, Priority::Urgent, now), Answer::Known);
    assert!(matches!(
        ledger.ask(2, Priority::Urgent, now),
        Answer::Full { .. }
    ));
    ledger.release(1);
    assert!(matches!(
        ledger.ask(2, Priority::Urgent, now),
        Answer::Full { .. }
    ));
    ledger.release(1);
    assert_eq!(ledger.ask(2, Priority::Urgent, now), Answer::Room);
    ledger.promise(2);
    ledger.keep(2, now);
    ledger.release(2);
    assert_eq!(ledger.used(now), 1, "what was taken is not given back");
    ledger.promise(2);
    assert_eq!(ledger.used(now + ROOM), 1, "nor does the promised leave");
    ledger.release(2);
    assert_eq!(ledger.used(now + ROOM), 0);
}

#[test]
fn people_counted_without_a_limit_count_when_there_is_one() {
    let mut ledger = with_people(bare(None), 10);
    let now = at(NOON + HOUR);
    assert_eq!(ledger.ask(-1, Priority::Bulk, now), Answer::Room);
    assert_eq!(ledger.room(Priority::Bulk, now), None);
    ledger.set_limit(bare(4));
    let until = at(NOON + 6 * MINUTE) + ROOM;
    assert_eq!(ledger.ask(-1, Priority::Bulk, now), Answer::Full { until });
    ledger.set_limit(bare(11));
    assert_eq!(ledger.ask(-1, Priority::Bulk, now), Answer::Room);
}

#[test]
fn above_a_limit_that_fell_nobody_passes_by_whom_the_provider_may_have_forgotten() {
    let mut ledger = with_people(bare(3), 3);
    let late = at(NOON) + DAY + MINUTE;
    assert_eq!(ledger.ask(0, Priority::Urgent, late), Answer::Known);
    ledger.set_limit(bare(2));
    assert!(matches!(
        ledger.ask(0, Priority::Urgent, late),
        Answer::Full { .. }
    ));
    assert_eq!(
        ledger.ask(0, Priority::Urgent, at(NOON + 20 * HOUR)),
        Answer::Known
    );
}

#[test]
fn a_rebuilt_ledger_answers_like_the_one_that_was_lost() {
    let mut lost = with_people(bare(8), 8);
    let mut posts: Vec<(i64, Moment)> = (0..8).map(|n| (n, at(NOON) + MINUTE * n as u32)).collect();
    posts.push((9, at(NOON) - DAY));
    posts.reverse();
    // Its clock began an hour ago; most of the posts were before that.
    let shift = NOON + HOUR;
    let mut rebuilt = Ledger::new(bare(8));
    let now = at(NOON + 2 * HOUR);
    rebuilt.rebuild(
        posts.into_iter().map(|(person, at)| (person, at - shift)),
        now - shift,
    );
    assert_eq!(rebuilt.used(now - shift), 8);
    assert_eq!(
        rebuilt.next_return(now - shift).map(|at| at + shift),
        lost.next_return(now)
    );
}

#[test]
fn people_beyond_the_memory_of_an_unlimited_pool_stop_newcomers_once_there_is_a_limit() {
    let mut ledger = Ledger::new(bare(None));
    let now = at(NOON);
    for person in 0..REMEMBERED_MAX as i64 + 10 {
        ledger.take(person, now + Duration::from_millis(person as u64));
    }
    assert_eq!(ledger.used(now + HOUR), REMEMBERED_MAX);
    ledger.set_limit(bare(1_000_000));
    let until = now + Duration::from_millis(REMEMBERED_MAX as u64 + 9) + ROOM;
    assert_eq!(ledger.room(Priority::Urgent, now + HOUR), Some(0));
    assert_eq!(
        ledger.ask(-1, Priority::Urgent, now + HOUR),
        Answer::Full { until }
    );
    assert_eq!(ledger.ask(-1, Priority::Urgent, until), Answer::Room);
}

/// Bytes that the ledger has on the heap: a bucket of a hash map has one byte of its own, and an eighth is kept free.
fn bytes(ledger: &Ledger) -> usize {
    let buckets = (ledger.last.capacity() * 8).div_ceil(7);
    buckets * (size_of::<(i64, Moment)>() + 1)
        + ledger.leaving.capacity() * size_of::<Reverse<(Moment, i64)>>()
}

#[test]
fn a_recipient_takes_about_50_bytes_however_often_they_are_written_to_and_whoever_leaves() {
    const PEOPLE: i64 = 100_000;
    assert!(
        size_of::<Ledger>() + bytes(&Ledger::new(limit(250))) < 300,
        "of an idle pool"
    );
    let mut ledger = Ledger::new(bare(PEOPLE as u32));
    let mut now = at(NOON);
    let mut per_person = |people: i64, ledger: &mut Ledger| {
        for n in 0..people {
            now = now + Duration::from_millis(860);
            ledger.take(n.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64), now);
        }
        bytes(ledger) / PEOPLE as usize
    };
    assert!(per_person(PEOPLE, &mut ledger) <= 50);
    assert!(
        per_person(PEOPLE / 2, &mut ledger) <= 50,
        "repeats cost nothing"
    );
    // Three days in which everybody is somebody new: a hash map needs some air for that.
    assert!(per_person(4 * PEOPLE, &mut ledger) <= 70);
}
