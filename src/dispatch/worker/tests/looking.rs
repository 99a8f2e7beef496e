//! From where lanes are read.

use super::*;
use crate::dispatch::lane::Key;

#[test]
fn looks_go_on_from_the_last_key_now_and_then_back_and_once_a_minute_to_the_head() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let key = (job.job.due_at, job.job.id);
    bench.look(vec![job]);
    assert_eq!(bench.cursors(Priority::Normal)[0].after, key);
    bench.mono += Duration::from_secs(2);
    assert_eq!(
        bench.cursors(Priority::Normal)[0].after.0,
        key.0 - Duration::from_secs(30)
    );
    bench.mono += Duration::from_secs(1);
    assert_eq!(bench.cursors(Priority::Normal)[0].after, key);
    bench.mono += Duration::from_secs(58);
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn jobs_of_a_template_that_is_no_longer_held_are_found_again_from_the_head() {
    let mut bench = Bench::new(10.0);
    let template = TemplateName {
        name: "order_confirmation".into(),
        language: "en".into(),
    };
    bench.world.paused.templates = [("waba".to_owned(), [template].into())].into();
    bench.show_world();
    let job = bench.seen(7, LANE, Priority::Normal);
    bench.look(vec![job]);
    assert_ne!(bench.cursors(Priority::Normal)[0].after, HEAD);
    bench.world.paused.templates.clear();
    bench.show_world();
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn a_ring_looks_from_the_head_because_its_job_may_have_committed_late() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Urgent);
    bench.look(vec![job]);
    let actions = bench.tell(Event::Rang(Some(LANE)));
    let cursors = actions.iter().find_map(|a| match a {
        Action::Look {
            why: LookFor::Bell,
            cursors,
            ..
        } => Some(cursors.clone()),
        _ => None,
    });
    assert_eq!(cursors.expect("a look")[0].after, HEAD);
}

#[test]
fn a_look_that_a_release_overtook_does_not_say_how_far_the_lane_is_read() {
    let mut bench = Bench::new(10.0);
    hold_everything_of(&mut bench, "kind");
    bench.show_world();
    let cursors = bench.cursors(Priority::Normal);
    bench.world.paused = Holds::default();
    bench.show_world();
    let seen = vec![bench.seen(9, LANE, Priority::Normal)];
    bench.tell(Event::Looked {
        why: LookFor::Room,
        cursors,
        seen: Some(seen),
    });
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn held_jobs_that_a_look_passed_over_are_not_read_again_by_the_next() {
    let mut bench = Bench::new(10.0);
    hold_everything_of(&mut bench, "kind");
    bench.show_world();
    let cursors = bench.cursors(Priority::Normal);
    assert_eq!(cursors[0].after, HEAD);
    bench.tell(Event::Looked {
        why: LookFor::Room,
        cursors,
        seen: Some(Vec::new()),
    });
    let after = bench.cursors(Priority::Normal)[0].after.0;
    assert_eq!(after, wall(bench.mono) - Duration::from_secs(300));
}

#[test]
fn a_lane_that_took_over_jobs_of_another_is_read_from_the_head() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    bench.look(vec![job]);
    assert_ne!(bench.cursors(Priority::Normal)[0].after, HEAD);
    let refilled_at = wall(bench.mono);
    bench.lane().refilled_at = refilled_at;
    bench.show_world();
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn what_a_big_transaction_committed_late_is_read_on_and_not_a_handful_a_minute() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let long_ago = job.job.due_at - Duration::from_secs(100);
    bench.look(vec![job]);
    bench.mono += Duration::from_secs(61);
    let cursors = bench.cursors(Priority::Normal);
    assert_eq!(cursors[0].after, HEAD);
    let late = |id| {
        let mut seen = bench.seen(id, LANE, Priority::Normal);
        seen.job.due_at = long_ago;
        seen
    };
    let room = i64::from(cursors[0].room);
    let seen: Vec<Seen> = (100..100 + room).map(late).collect();
    bench.tell(Event::Looked {
        why: LookFor::Room,
        cursors,
        seen: Some(seen),
    });
    let after = |bench: &Bench| bench.worker.lanes[&LANE].reading[1].after();
    assert_eq!(after(&bench), (long_ago, JobId(99 + room)));
}

/// Everything of the kind is held, and so much of it that a look from there came no further than `end`.
fn came_to(bench: &mut Bench, cursors: Vec<Cursor>, end: Key) -> Vec<Action> {
    let cursors = cursors.into_iter().map(|cursor| Cursor {
        ended_at: Some(end),
        ..cursor
    });
    bench.tell(Event::Looked {
        why: LookFor::Room,
        cursors: cursors.collect(),
        seen: Some(Vec::new()),
    })
}

#[test]
fn more_held_jobs_than_one_look_reads_are_read_on_at_once_by_the_next() {
    let mut bench = Bench::new(10.0);
    hold_everything_of(&mut bench, "kind");
    bench.show_world();
    let cursors = bench.cursors(Priority::Normal);
    let end = (wall(bench.mono) - Duration::from_secs(9_000), JobId(7));
    let next = came_to(&mut bench, cursors, end);
    assert!(matches!(next[..], [Action::FindLanes]), "{next:?}");
    assert_eq!(bench.cursors(Priority::Normal)[0].after, end);
}

#[test]
fn a_look_back_over_more_held_jobs_than_it_reads_is_gone_on_with_in_turns_with_new_jobs() {
    let mut bench = Bench::new(10.0);
    hold_everything_of(&mut bench, "kind");
    bench.show_world();
    let now = wall(bench.mono);
    let [early, late] = [9_000, 5_000].map(|ago| (now - Duration::from_secs(ago), JobId(7)));
    let cursors = bench.cursors(Priority::Normal);
    came_to(&mut bench, cursors, late);
    bench.mono += Duration::from_secs(61);
    let head = bench.cursors(Priority::Normal);
    assert_eq!(head[0].after, HEAD);
    came_to(&mut bench, head, early);
    let mut next = || {
        let cursors = bench.cursors(Priority::Normal);
        let after = cursors[0].after;
        came_to(&mut bench, cursors, after.max(early));
        after
    };
    let after = [next(), next()];
    assert!(after.contains(&early) && after.contains(&late), "{after:?}");
    // As long as it is under way, no other begins.
    bench.mono += Duration::from_secs(61);
    assert_ne!(bench.cursors(Priority::Normal)[0].after, HEAD);
}
