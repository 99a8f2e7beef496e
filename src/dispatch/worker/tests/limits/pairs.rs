//! How many messages one person may get from one number.

use super::*;

#[test]
fn the_forty_sixth_message_to_a_person_is_put_off_and_those_to_others_go() {
    let mut bench = limited(1_000, &[]);
    let same = (0..50).map(|id| bench.greeting(id, LANE, Priority::Normal, 7));
    let mut jobs: Vec<Seen> = same.collect();
    jobs.extend(bench.normal(100..110));
    let looked = bench.look(jobs);
    let mut put_off = Vec::new();
    let mut actions = looked;
    let mut posted = Vec::new();
    for _ in 0..100 {
        posted.extend(posts(&actions));
        let wanted = attempts(&actions);
        for batch in settles(actions) {
            put_off.extend(batch.deferred);
        }
        actions = match wanted.is_empty() {
            true => bench.wait(Duration::from_millis(20)),
            false => bench.permit(&wanted),
        };
    }
    assert_eq!(posted.iter().filter(|id| id.0 < 100).count(), 45);
    assert_eq!(posted.iter().filter(|id| id.0 >= 100).count(), 10);
    let due: Vec<_> = put_off.iter().map(|job| job.due_at).collect();
    assert_eq!(due.len(), 5);
    assert!(
        due.windows(2)
            .all(|two| two[1] - two[0] >= chrono::TimeDelta::seconds(6)),
        "one token each 6 s: {due:?}"
    );
    assert!(
        put_off
            .iter()
            .all(|job| job.reason == WaitReason::PairRateLimited)
    );
}

#[test]
fn a_code_is_not_put_off_behind_the_bulk_that_its_person_was_put_off_for() {
    let mut bench = limited(1_000, &[]);
    let same = (0..60).map(|id| bench.greeting(id, LANE, Priority::Bulk, 7));
    let same = same.collect();
    assert_eq!(bench.look_and_send(same).len(), 45);
    let code = bench.greeting(100, LANE, Priority::Urgent, 7);
    let mut actions = bench.look(vec![code]);
    let mut put_off = Vec::new();
    for _ in 0..20 {
        let deferred = settles(actions)
            .into_iter()
            .flat_map(|batch| batch.deferred);
        put_off.extend(deferred.filter(|job| job.id == JobId(100)));
        actions = bench.wait(Duration::from_millis(20));
    }
    let wait = put_off[0].due_at - wall(bench.mono);
    assert!(wait < chrono::TimeDelta::seconds(10), "{wait}");
}

/// How many of 50 messages to one person go at once.
fn burst(bench: &mut Bench) -> usize {
    let jobs = (0..50)
        .map(|id| bench.greeting(id, LANE, Priority::Normal, 7))
        .collect();
    bench.look_and_send(jobs).len()
}

/// Both lanes without a messaging limit, held in another epoch from now on.
fn taken_over(got_before: Option<Vec<(Pair, u32)>>) -> (Bench, Vec<Action>) {
    let mut bench = limited(1_000, &[]);
    for facts in bench.world.lanes.values_mut() {
        Arc::make_mut(facts).pool = None;
    }
    bench.show_world();
    bench.got_before = got_before;
    let asked = bench.tell(Event::Leases(Leases {
        epochs: [(0, 2)].into(),
        deadline: 1_000 * HOUR,
        ..Leases::default()
    }));
    (bench, asked)
}

#[test]
fn after_a_take_over_a_pair_gets_only_what_is_left_of_its_burst() {
    let (mut bench, _) = taken_over(Some(vec![((LANE, 7), 40), ((OTHER, 7), 45)]));
    assert_eq!(burst(&mut bench), 5);
}

#[test]
fn nothing_is_sent_before_what_pairs_got_of_late_is_counted() {
    let (mut bench, asked) = taken_over(None);
    let stood = asked_of_pairs(&asked).expect("it is asked");
    assert_eq!(stood, standing(2));
    assert_eq!(burst(&mut bench), 0);
    let counted = |standing: Standing, posts| Event::PairsCounted { standing, posts };
    let again = bench.tell(counted(stood.clone(), None));
    assert_eq!(
        asked_of_pairs(&again),
        Some(stood.clone()),
        "the database was away"
    );
    bench.tell(counted(standing(1), Some(Vec::new())));
    assert_eq!(burst(&mut bench), 0, "that was before the lease was lost");
    bench.tell(counted(stood, Some(vec![((LANE, 7), 44)])));
    assert_eq!(burst(&mut bench), 1);
    assert_eq!(asked_of_pairs(&bench.show_world()), None, "once is enough");
}

#[test]
fn a_message_from_the_phone_app_that_a_take_over_counted_does_not_count_again() {
    let mut bench = limited(1_000, &[]);
    bench.mono += HOUR;
    bench.world.echoes = vec![echo(&bench, 7, false); 30];
    bench.mono += Duration::from_secs(1);
    bench.got_before = Some(vec![((LANE, 7), 30)]);
    bench.tell(Event::Leases(Leases {
        epochs: [(0, 2)].into(),
        deadline: 1_000 * HOUR,
        ..Leases::default()
    }));
    bench.tell(Event::Counted {
        pool: "portfolio".into(),
        standing: standing(2),
        posts: Some(Vec::new()),
    });
    bench.show_world();
    bench.world.echoes.clear();
    assert_eq!(burst(&mut bench), 15);
}

#[test]
fn messages_from_the_phone_app_count_against_the_pair() {
    let mut bench = limited(1_000, &[]);
    bench.mono += Duration::from_secs(1);
    bench.world.echoes = vec![echo(&bench, 7, false); 30];
    bench.show_world();
    bench.world.echoes.clear();
    assert_eq!(burst(&mut bench), 15);
}
