//! Shards that come and go.

use super::*;

#[test]
fn a_number_whose_shard_moved_to_another_worker_is_left_alone() {
    let mut bench = Bench::new(10.0);
    bench.worker.settings.workers = 2;
    bench.lease_until(Duration::from_secs(3_600));
    bench.lane().shard = 1;
    bench.show_world();
    let job = bench.seen(7, LANE, Priority::Normal);
    assert!(attempts(&bench.look(vec![job])).is_empty());
}

impl Bench {
    /// Shard 0, in which both lanes are, is to be given back.
    fn give_back(&mut self) -> Vec<Action> {
        self.tell(Event::Leases(Leases {
            epochs: [(1, 1)].into(),
            leaving: [(0, 1)].into(),
            deadline: Duration::from_secs(3_600),
        }))
    }
}

#[test]
fn a_shard_can_be_given_back_when_its_last_outcome_is_written() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    assert_eq!(quiet(&bench.give_back()), []);
    bench.mono += Duration::from_millis(300);
    assert_eq!(quiet(&bench.answer(id, accepted())), []);
    let batch = bench.settled();
    let told = bench.tell(Event::Settled {
        batch,
        written: true,
    });
    let held = Held { shard: 0, epoch: 1 };
    let silent_for = Some(Duration::from_millis(320));
    assert_eq!(quiet(&told), [Quiet { held, silent_for }]);
    assert_eq!(quiet(&bench.wait(Duration::from_millis(20))), []);
}

#[test]
fn a_shard_that_is_given_back_posts_nothing_more_and_lets_go_of_its_jobs() {
    let mut bench = Bench::new(10.0);
    let jobs = (1..=3).map(|id| bench.seen(id, LANE, Priority::Normal));
    let jobs = jobs.collect();
    let wanted = attempts(&bench.look(jobs));
    // The attempts are being committed.
    assert_eq!(quiet(&bench.give_back()), []);
    let actions = bench.permit(&wanted);
    assert_eq!(posts(&actions), []);
    let batch = bench.settled();
    assert_eq!(batch.waiting.len(), wanted.len());
    let told = bench.tell(Event::Settled {
        batch,
        written: true,
    });
    assert_eq!(quiet(&told).len(), 1);
}

#[test]
fn lanes_that_become_ours_are_looked_at_at_once() {
    let mut bench = Bench::new(10.0);
    bench.wait(Duration::from_secs(1));
    let found = |actions: &[Action]| {
        let finds = |action: &&Action| matches!(action, Action::FindLanes);
        actions.iter().filter(finds).count()
    };
    bench.tell(Event::LanesFound(Some(Vec::new())));
    bench.give_back();
    bench.tell(Event::LanesFound(Some(Vec::new())));
    let regained = bench.lease_until(Duration::from_secs(3_600));
    assert_eq!(found(&regained), 1);
}
