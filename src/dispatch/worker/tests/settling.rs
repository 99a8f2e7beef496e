//! Outcomes are written before anything is forgotten, and a drain waits for them.

use super::*;

#[test]
fn outcomes_that_the_database_did_not_take_are_written_again() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    bench.answer(id, accepted());
    let batch = bench.settled();
    bench.tell(Event::Settled {
        batch: batch.clone(),
        written: false,
    });
    let again = settles(bench.wait(Duration::from_secs(1)));
    assert_eq!(again, [batch]);
}

#[test]
fn with_too_many_outcomes_unwritten_it_neither_looks_nor_attempts_until_they_are() {
    let mut bench = Bench::new(10.0);
    // Free-form messages to people who did not write to us are stopped at the gate.
    let shut_out = |id| Seen {
        facts: PersonFacts::default(),
        ..bench.seen(id, LANE, Priority::Normal)
    };
    let many = (1..=20_001).map(shut_out).collect();
    let mut batches = settles(bench.look(many));
    assert!(bench.cursors(Priority::Normal).is_empty());
    let sendable = bench.seen(30_000, LANE, Priority::Normal);
    assert!(attempts(&bench.look(vec![sendable])).is_empty());
    let mut attempted = Vec::new();
    while let Some(batch) = batches.pop() {
        let written = true;
        let actions = bench.tell(Event::Settled { batch, written });
        attempted.extend(attempts(&actions));
        batches.extend(settles(actions));
    }
    assert_eq!(attempted.len(), 1);
}

#[test]
fn a_drain_posts_nothing_more_settles_what_is_on_the_wire_and_ends() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    let waiting = bench.seen(8, LANE, Priority::Normal);
    bench.look(vec![waiting]);
    let actions = bench.tell(Event::Drain);
    assert!(posts(&actions).is_empty() && !actions.iter().any(|a| matches!(a, Action::Finish)));
    bench.answer(id, accepted());
    let batch = bench.settled();
    // The attempt of the second job may still be under way; it is not used.
    let wanted = vec![Wanted {
        id: JobId(8),
        lane: LANE,
        tries: 0,
        shard: 0,
        recipient_hash: 8,
        counted: false,
    }];
    let mut last = bench.tell(Event::Settled {
        batch,
        written: true,
    });
    if !last.iter().any(|a| matches!(a, Action::Finish)) {
        last = bench.permit(&wanted);
        for batch in settles(bench.wait(Duration::from_millis(20))) {
            last = bench.tell(Event::Settled {
                batch,
                written: true,
            });
        }
    }
    assert!(last.iter().any(|a| matches!(a, Action::Finish)), "{last:?}");
}

#[test]
fn an_attempt_that_is_committed_during_a_drain_goes_back_unposted() {
    let mut bench = Bench::new(1.0);
    let jobs = (1..=2)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    let first = attempts(&bench.look(jobs));
    bench.permit(&first);
    bench.answer(JobId(1), accepted());
    let second = attempts(&bench.wait(Duration::from_millis(1_000)));
    assert_eq!(second.len(), 1);
    let mut batches = settles(bench.tell(Event::Drain));
    let actions = bench.permit(&second);
    assert!(posts(&actions).is_empty());
    batches.extend(settles(actions));
    batches.extend(settles(bench.wait(Duration::from_millis(20))));
    let waiting: Vec<_> = batches.iter().flat_map(|batch| &batch.waiting).collect();
    assert_eq!(waiting.len(), 1, "{batches:?}");
    assert_eq!(waiting[0].answered.outcome, "not_sent");
}
