//! From the look to the wire, and what an answer means for the job.

use super::*;

#[test]
fn a_worker_without_numbers_rests() {
    let bench = Bench::new(10.0);
    let mut idle = Worker::new(bench.worker.settings.clone());
    idle.turn(bench.now(), &mut Vec::new());
    assert!(idle.wake_at(bench.mono) > bench.mono);
}

#[test]
fn a_job_goes_from_the_look_through_one_attempt_to_the_wire_and_is_settled() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    bench.answer(id, accepted());
    let batch = bench.settled();
    assert_eq!((batch.accepted.len(), batch.len()), (1, 1));
    assert_eq!(batch.accepted[0].attempt, 1);
}

#[test]
fn a_job_that_memory_has_is_not_taken_twice_by_a_look_that_goes_back() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    let again = bench.seen(id.0, LANE, Priority::Normal);
    assert!(attempts(&bench.look(vec![again])).is_empty());
}

#[test]
fn what_the_attempt_does_not_return_is_neither_posted_nor_remembered() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let wanted = attempts(&bench.look(vec![job.clone()]));
    let took = Duration::from_millis(2);
    let actions = bench.tell(Event::Attempted {
        urgent: false,
        wanted,
        permitted: Some(Vec::new()),
        took,
    });
    assert!(posts(&actions).is_empty());
    bench.wait(Duration::from_millis(100));
    assert_eq!(
        attempts(&bench.look(vec![job])).len(),
        1,
        "it is looked at again"
    );
}

#[test]
fn an_attempt_without_the_databases_word_is_not_posted() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let wanted = attempts(&bench.look(vec![job]));
    let took = Duration::from_millis(2);
    let actions = bench.tell(Event::Attempted {
        urgent: false,
        wanted,
        permitted: None,
        took,
    });
    assert!(posts(&actions).is_empty());
    assert!(posts(&bench.wait(Duration::from_secs(1))).is_empty());
}

#[test]
fn nothing_is_posted_after_the_leases_deadline() {
    let mut bench = Bench::new(10.0);
    let deadline = bench.mono + Duration::from_millis(5);
    bench.lease_until(deadline);
    let job = bench.seen(7, LANE, Priority::Normal);
    let wanted = attempts(&bench.look(vec![job]));
    bench.mono = deadline;
    assert!(posts(&bench.permit(&wanted)).is_empty());
    let batch = bench.settled();
    assert_eq!(
        (batch.waiting.len(), batch.waiting[0].answered.outcome),
        (1, "not_sent")
    );
    assert!(!batch.waiting[0].spends);
}

#[test]
fn an_urgent_job_takes_the_next_slot_before_normal_jobs_that_are_ready() {
    let mut bench = Bench::new(1.0);
    let normal: Vec<_> = (1..=3)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    let wanted = attempts(&bench.look(normal));
    assert_eq!(
        posts(&bench.permit(&wanted)),
        [JobId(1)],
        "the only slot of this second"
    );
    let ready = attempts(&bench.wait(Duration::from_millis(1_000)));
    assert!(posts(&bench.permit(&ready)).is_empty());
    let urgent = bench.seen(9, LANE, Priority::Urgent);
    let wanted = attempts(&bench.look(vec![urgent]));
    assert_eq!(
        wanted.iter().map(|w| w.id).collect::<Vec<_>>(),
        [JobId(9)],
        "it does not wait for a batch"
    );
    bench.permit_as(true, &wanted);
    assert_eq!(posts(&bench.wait(Duration::from_millis(30))), [JobId(9)]);
}

#[test]
fn no_second_holds_more_posts_than_the_rate() {
    let mut bench = Bench::new(10.0);
    let jobs: Vec<_> = (1..=50)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    let mut actions = bench.look(jobs);
    let mut times = Vec::new();
    for _ in 0..3_000 {
        let wanted = attempts(&actions);
        times.extend(posts(&actions).iter().map(|_| bench.mono));
        actions = if wanted.is_empty() {
            bench.wait(Duration::from_millis(1))
        } else {
            bench.permit(&wanted)
        };
    }
    assert!(times.len() >= 28, "{} posts in about 3 s", times.len());
    for (first, start) in times.iter().enumerate() {
        let within = times[first..]
            .iter()
            .take_while(|t| **t < *start + Duration::from_secs(1))
            .count();
        assert!(within <= 10, "{within} posts in one second");
    }
}

#[test]
fn a_paused_number_keeps_nothing_and_its_committed_attempts_go_back_unspent() {
    let mut bench = Bench::new(1.0);
    let jobs: Vec<_> = (1..=5)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    let wanted = attempts(&bench.look(jobs));
    bench.permit(&wanted);
    let ready = attempts(&bench.wait(Duration::from_millis(1_000)));
    bench.permit(&ready);
    bench.stop_lane(Some("blocked by the provider"));
    let batch = bench.settled();
    assert_eq!(
        batch
            .waiting
            .iter()
            .map(|w| w.answered.outcome)
            .collect::<Vec<_>>(),
        ["not_sent"]
    );
    assert!(
        bench.cursors(Priority::Normal).is_empty(),
        "a paused lane is not looked at"
    );
    bench.stop_lane(None);
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn a_throttle_holds_its_number_and_no_other() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    bench.answer(id, error(130_429));
    let batch = bench.settled();
    let jobs = vec![
        bench.seen(8, LANE, Priority::Normal),
        bench.seen(9, OTHER, Priority::Normal),
    ];
    bench.mono += Duration::from_millis(100);
    let wanted = attempts(&bench.look(jobs));
    assert_eq!(wanted.iter().map(|w| w.id).collect::<Vec<_>>(), [JobId(9)]);
    assert_eq!(
        (batch.waiting[0].reason, batch.waiting[0].spends),
        (WaitReason::RateLimited, false)
    );
}

/// Somebody may have withdrawn their consent since: the attempt statement asks again.
#[test]
fn a_job_that_waited_for_its_slot_for_two_seconds_after_its_attempt_is_attempted_again() {
    let mut bench = Bench::new(10.0);
    let jobs: Vec<Seen> = (7..9)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    let wanted = attempts(&bench.look(jobs));
    let posted = posts(&bench.permit(&wanted));
    assert_eq!(posted, [JobId(7)], "the other waits for its slot");
    // The number is throttled for longer than that.
    bench.answer(JobId(7), error(130_429));
    bench.settled();
    let waited = bench.wait(Duration::from_secs(2));
    assert!(posts(&waited).is_empty());
    let batch = bench.settled();
    let back: Vec<_> = batch
        .waiting
        .iter()
        .map(|job| (job.id, job.spends))
        .collect();
    assert_eq!(back, [(JobId(8), false)]);
}

/// A request that finds no connection in time is not written either.
#[test]
fn a_post_may_be_written_until_two_seconds_after_its_attempt_was_asked_for() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let wanted = attempts(&bench.look(vec![job]));
    let asked_at = bench.now().boot;
    bench.mono += Duration::from_millis(500);
    let at = wall(bench.mono);
    let actions = bench.tell(Event::Attempted {
        urgent: false,
        permitted: Some(wanted.iter().map(|w| (w.id, at)).collect()),
        wanted,
        took: Duration::from_millis(500),
    });
    let not_after = actions.iter().find_map(|action| match action {
        Action::Post { not_after, .. } => Some(*not_after),
        _ => None,
    });
    assert_eq!(not_after, Some(asked_at + Duration::from_secs(2)));
}

/// Its attempt would be made in vain every two seconds.
#[test]
fn an_urgent_job_of_a_number_that_posts_seldom_is_attempted_shortly_before_its_slot() {
    // One in ten seconds.
    let mut bench = Bench::new(0.1);
    bench.one_on_the_wire();
    let posted_at = bench.mono;
    bench.mono += Duration::from_secs(1);
    let code = bench.seen(8, LANE, Priority::Urgent);
    let mut wanted = attempts(&bench.look(vec![code]));
    while wanted.is_empty() && bench.mono < posted_at + Duration::from_secs(20) {
        wanted = attempts(&bench.wait(Duration::from_millis(20)));
    }
    assert_eq!(wanted.first().map(|w| w.id), Some(JobId(8)));
    let after = bench.mono - posted_at;
    let expected = Duration::from_millis(8_900)..Duration::from_millis(9_500);
    assert!(expected.contains(&after), "{after:?}");
}

#[test]
fn a_job_that_expired_before_its_slot_is_not_posted() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let wanted = attempts(&bench.look(vec![job]));
    bench.mono += Duration::from_secs(601);
    assert!(posts(&bench.permit(&wanted)).is_empty());
}

#[test]
fn a_post_counts_from_when_it_was_written_however_late_that_is() {
    let mut bench = Bench::new(1.0);
    bench.no_connection = true;
    let jobs = (1..=3).map(|id| bench.seen(id, LANE, Priority::Normal));
    let jobs = jobs.collect();
    let wanted = attempts(&bench.look(jobs));
    assert_eq!(posts(&bench.permit(&wanted)), [JobId(1)]);
    assert_eq!(bench.send(150), [], "the first may be written any moment");
    let written = bench.left(JobId(1));
    bench.tell(written);
    assert_eq!(bench.send(49), [], "less than a second ago");
    assert_eq!(bench.send(10), [JobId(2)]);
}

#[test]
fn a_request_that_never_left_gives_its_slot_back() {
    let mut bench = Bench::new(1.0);
    bench.no_connection = true;
    let jobs = (1..=2).map(|id| bench.seen(id, LANE, Priority::Normal));
    let jobs = jobs.collect();
    let wanted = attempts(&bench.look(jobs));
    assert_eq!(posts(&bench.permit(&wanted)), [JobId(1)]);
    let detail = "no connection".to_owned();
    bench.answer(JobId(1), Answer::NotSent { detail });
    assert_eq!(bench.send(100), [JobId(2)]);
}

#[test]
fn an_answer_that_names_another_address_makes_both_one_person() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    let answer = Answer::Accepted {
        provider_id: "wamid.x".into(),
        held: false,
        wa_id: Some("905320000000".into()),
        user_id: None,
    };
    let actions = bench.answer(id, answer);
    let linked = actions.iter().find_map(|a| match a {
        Action::Learn(Learned::SamePerson(link)) => Some((link.known.as_str(), link.also.as_str())),
        _ => None,
    });
    assert_eq!(linked, Some(("+905321234567", "+905320000000")));
}

#[test]
fn while_every_request_is_out_the_number_that_waits_longest_posts_next() {
    let mut bench = Bench::new(10.0);
    bench.worker.settings.in_flight_max = 1;
    let jobs = (1..=20).flat_map(|id| {
        [
            bench.seen(id, LANE, Priority::Normal),
            bench.seen(100 + id, OTHER, Priority::Normal),
        ]
    });
    let jobs = jobs.collect();
    let actions = bench.look(jobs);
    let mut on_the_wire = posts(&bench.permit_all(&actions));
    let mut lanes = Vec::new();
    for _ in 0..10 {
        assert_eq!(on_the_wire.len(), 1);
        // As long as both have a slot again.
        assert_eq!(bench.send(8), []);
        on_the_wire = posts(&bench.answer(on_the_wire[0], accepted()));
        lanes.push(on_the_wire[0].0 < 100);
    }
    assert!(lanes.windows(2).all(|two| two[0] != two[1]), "{lanes:?}");
}

#[test]
fn an_urgent_job_finds_a_request_though_a_slow_provider_holds_those_of_all_others() {
    let mut bench = Bench::new(80.0);
    bench.worker.settings.in_flight_max = 20;
    let bulk = (1..=40).map(|id| bench.seen(id, LANE, Priority::Bulk));
    let bulk = bulk.collect();
    let actions = bench.look(bulk);
    let mut posted = posts(&bench.permit_all(&actions));
    posted.extend(bench.send(50));
    assert_eq!(posted.len(), 19);
    let code = bench.seen(100, LANE, Priority::Urgent);
    let wanted = attempts(&bench.look(vec![code]));
    assert_eq!(posts(&bench.permit_as(true, &wanted)), [JobId(100)]);
}
