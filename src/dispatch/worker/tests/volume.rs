//! How many attempts are made at once and ahead.

use super::*;

/// Otherwise they would wait for longer than their attempts are fresh, where the machine cannot post as much as the numbers may.
#[test]
fn all_numbers_together_have_no_more_attempts_under_way_than_the_worker_can_post_in_time() {
    let mut bench = Bench::new(1_000.0);
    let of = |bench: &Bench, lane, from: i64| {
        let ids = from..from + 1_000;
        ids.map(|id| bench.seen(id, lane, Priority::Normal))
            .collect::<Vec<_>>()
    };
    let mut jobs = of(&bench, LANE, 0);
    jobs.extend(of(&bench, OTHER, 1_000));
    let mut wanted = attempts(&bench.look(jobs));
    for _ in 0..5 {
        wanted.extend(attempts(&bench.wait(Duration::from_millis(100))));
    }
    let on = |lane| wanted.iter().filter(|w| w.lane == lane).count();
    assert_eq!((on(LANE), on(OTHER)), (750, 750));
}

/// The machine posts less than the numbers may: here a thousand requests wait for their answers, and there is room for no more.
#[test]
fn what_was_attempted_in_vain_is_followed_by_fewer_attempts() {
    let mut bench = Bench::new(1_000.0);
    let look = |bench: &mut Bench, from: i64| {
        let on = |lane, from| (from..from + 1_000).map(move |id| (id, lane));
        let jobs = on(LANE, from).chain(on(OTHER, from + 1_000));
        let seen = jobs.map(|(id, lane)| bench.seen(id, lane, Priority::Normal));
        let seen = seen.collect();
        bench.look(seen)
    };
    let mut actions = look(&mut bench, 0);
    let (mut posted, mut in_vain) = (Vec::new(), 0);
    for _ in 0..30 {
        let permitted = bench.permit_all(&actions);
        posted.extend(posts(&actions));
        posted.extend(posts(&permitted));
        actions = bench.wait(Duration::from_millis(100));
        let given_up = |action: &Action| match action {
            Action::Settle(batch) => batch.waiting.len(),
            _ => 0,
        };
        in_vain += actions.iter().map(given_up).sum::<usize>();
    }
    bench.permit_all(&actions);
    assert!(in_vain > 0, "none was attempted in vain");
    for id in posted {
        bench.answer(id, accepted());
    }
    bench.wait(Duration::from_secs(1));
    look(&mut bench, 10_000);
    for _ in 0..5 {
        bench.wait(Duration::from_millis(100));
    }
    let under_way = [LANE, OTHER].map(|lane| bench.worker.lanes[&lane].in_pipeline());
    let under_way: usize = under_way.iter().sum();
    assert!((500..1_000).contains(&under_way), "{under_way}");
}

/// What a slow database permits too late is not posted: without this it would permit nothing in time, for ever.
#[test]
fn batches_that_take_the_database_long_get_smaller_until_they_do_not() {
    let mut bench = Bench::new(1_000.0);
    let mut next_batch = |from: i64, took: Duration| {
        let jobs = (from..from + 800).map(|id| bench.seen(id, LANE, Priority::Normal));
        let jobs = jobs.collect();
        bench.mono += Duration::from_secs(2);
        let mut wanted = attempts(&bench.look(jobs));
        let size = wanted.len();
        // Not permitted, so that the next batch finds all slots free.
        while !wanted.is_empty() {
            let actions = bench.tell(Event::Attempted {
                urgent: false,
                wanted,
                permitted: Some(Vec::new()),
                took,
            });
            wanted = attempts(&actions);
            wanted.extend(attempts(&bench.wait(Duration::from_millis(100))));
        }
        size
    };
    let sizes = [0, 1, 2].map(|round| next_batch(1_000 * round, Duration::from_millis(1_500)));
    assert!(sizes[0] > 500, "{sizes:?}");
    assert!(sizes[1] <= 500 && sizes[2] <= 250, "{sizes:?}");
    let again = [3, 4, 5, 6, 7].map(|round| next_batch(1_000 * round, Duration::from_millis(5)));
    assert!(again[4] > 500, "{again:?}");
}
