//! What somebody paused stays where it is, wherever it is.

use super::*;

/// A job that each of those pauses holds, prepared as if it had passed the gate.
fn pausable(bench: &Bench, id: i64) -> Seen {
    let mut seen = bench.seen(id, LANE, Priority::Normal);
    seen.job.batch = Some("autumn".into());
    seen
}

const SCOPES: [&str; 4] = ["kind", "batch", "priority", "template"];

/// The gate would refuse a job whose template it does not know, so it is named only once it is in the buffers.
fn name_templates(bench: &mut Bench) {
    let template = Some(TemplateName {
        name: "order_shipped".into(),
        language: "en".into(),
    });
    let state = bench.worker.lanes.get_mut(&LANE).expect("the lane");
    let buffered = state.buffered.iter_mut().flatten();
    let ready = state.ready.iter_mut().flatten().map(|next| &mut next.job);
    for job in buffered.chain(ready).chain(state.attempting.values_mut()) {
        job.template.clone_from(&template);
    }
}

#[test]
fn what_is_paused_leaves_the_buffers_and_is_not_written_to() {
    for scope in SCOPES {
        let mut bench = Bench::new(1.0);
        let jobs = (1..=5).map(|id| pausable(&bench, id)).collect();
        let asked = attempts(&bench.look(jobs));
        name_templates(&mut bench);
        assert!(
            asked.len() < 5 && bench.worker.load().buffered > 0,
            "{scope}"
        );
        hold_everything_of(&mut bench, scope);
        bench.show_world();
        assert_eq!(bench.worker.load().buffered, 0, "{scope}");
        assert_eq!(bench.worker.load().unsettled, 0, "{scope}");
        assert!(bench.worker.known.len() == asked.len(), "{scope}");
    }
}

#[test]
fn what_is_paused_with_a_committed_attempt_is_settled_as_not_sent() {
    for scope in SCOPES {
        let mut bench = Bench::new(1.0);
        // The first takes the only slot of this second, so the second waits for the next one with its attempt committed.
        let job = pausable(&bench, 1);
        let wanted = attempts(&bench.look(vec![job]));
        assert_eq!(posts(&bench.permit(&wanted)), [JobId(1)]);
        let job = pausable(&bench, 2);
        let mut wanted = attempts(&bench.look(vec![job]));
        while wanted.is_empty() {
            wanted = attempts(&bench.wait(Duration::from_millis(1)));
        }
        assert_eq!(posts(&bench.permit(&wanted)), [], "{scope}");
        name_templates(&mut bench);
        assert_eq!(bench.worker.lanes[&LANE].in_pipeline(), 1, "{scope}");
        hold_everything_of(&mut bench, scope);
        bench.show_world();
        assert_eq!(bench.worker.lanes[&LANE].in_pipeline(), 0, "{scope}");
        let batch = bench.settled();
        assert_eq!(batch.waiting.len(), 1, "{scope}: {batch:?}");
        assert_eq!(posts(&bench.wait(Duration::from_secs(2))), [], "{scope}");
    }
}

#[test]
fn what_is_paused_while_its_attempt_is_being_committed_is_not_posted() {
    for scope in SCOPES {
        let mut bench = Bench::new(10.0);
        let job = pausable(&bench, 7);
        let wanted = attempts(&bench.look(vec![job]));
        name_templates(&mut bench);
        hold_everything_of(&mut bench, scope);
        bench.show_world();
        assert_eq!(posts(&bench.permit(&wanted)), [], "{scope}");
        assert_eq!(bench.settled().waiting.len(), 1, "{scope}");
    }
}

#[test]
fn a_look_that_was_asked_for_before_a_pause_brings_nothing_of_what_is_paused() {
    for scope in ["kind", "batch", "priority"] {
        let mut bench = Bench::new(10.0);
        hold_everything_of(&mut bench, scope);
        bench.show_world();
        let job = pausable(&bench, 7);
        assert_eq!(attempts(&bench.look(vec![job])), [], "{scope}");
        assert_eq!(bench.worker.load(), Load::default(), "{scope}");
    }
}

#[test]
fn others_of_the_lane_go_on_beside_what_is_paused() {
    let mut bench = Bench::new(10.0);
    bench.world.paused.batches = ["autumn".to_owned()].into();
    bench.show_world();
    let (paused, other) = (pausable(&bench, 7), bench.seen(8, LANE, Priority::Normal));
    let wanted = attempts(&bench.look(vec![paused, other]));
    assert_eq!(posts(&bench.permit(&wanted)), [JobId(8)]);
}

#[test]
fn a_paused_priority_is_not_looked_at_until_it_is_resumed_and_then_from_the_head() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    bench.look(vec![job]);
    hold_everything_of(&mut bench, "priority");
    bench.show_world();
    let actions = bench.tell(Event::LanesFound(Some(vec![
        (LANE, Priority::Normal),
        (LANE, Priority::Bulk),
    ])));
    let looked = actions.iter().find_map(|action| match action {
        Action::Look { cursors, .. } => Some(cursors.clone()),
        _ => None,
    });
    let priorities: Vec<_> = looked.iter().flatten().map(|it| it.priority).collect();
    assert_eq!(priorities, [Priority::Bulk]);
    bench.world.paused = Holds::default();
    bench.show_world();
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn an_expired_job_of_a_stopped_template_gives_back_no_slot() {
    let mut bench = Bench::new(2.0);
    bench.no_connection = true;
    let mut jobs: Vec<Seen> = (1..=4)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    jobs[1].job.expires_at = wall(bench.mono + Duration::from_millis(300));
    let actions = bench.look(jobs);
    // The first has a slot and no connection, the others wait with their attempts committed.
    assert_eq!(posts(&bench.permit_all(&actions)), [JobId(1)]);
    let template = TemplateName {
        name: "order_shipped".into(),
        language: "en".into(),
    };
    let state = bench.worker.lanes.get_mut(&LANE).expect("the lane");
    let mut waiting = state
        .buffered
        .iter_mut()
        .flatten()
        .chain(state.ready.iter_mut().flatten().map(|next| &mut next.job));
    let expiring = waiting.find(|job| job.id == JobId(2)).expect("it waits");
    expiring.template = Some(template.clone());
    let stopped = Target::Template {
        account: "waba".into(),
        name: template,
    };
    let (hour, now) = (Some(Duration::from_secs(3_600)), bench.now().wall);
    bench.worker.breakers.open(stopped, "no", None, hour, now);
    // Two a second, of which none has left.
    assert_eq!(bench.send(80), [JobId(3)]);
}
