//! The messaging limit and the pair limit, as the worker keeps them.

use serde_json::json;

use super::*;
use crate::{
    dispatch::world::PoolFacts,
    rules::{pick::Floor, template::Template, tier::Limit},
    store::{echoes::Echo, ledger::Released},
};

mod pairs;

const HOUR: Duration = Duration::from_secs(3_600);

/// Both lanes in one pool; what was posted before is counted.
fn limited(recipients: u32, before: &[i64]) -> Bench {
    let mut bench = Bench::new(80.0);
    bench.lease_until(1_000 * HOUR);
    bench.set_limit(recipients);
    let posts = before.iter().map(|person| (*person, wall(bench.mono)));
    bench.tell(Event::Counted {
        pool: "portfolio".into(),
        standing: standing(1),
        posts: Some(posts.collect()),
    });
    bench
}

impl Bench {
    /// Without headroom; a tenth is for urgent jobs.
    fn set_limit(&mut self, recipients: u32) -> Vec<Action> {
        let limit = Limit {
            recipients: Some(recipients),
            elsewhere: 0,
            headroom: 0.0,
            urgent_reserve: 0.1,
        };
        for facts in self.world.lanes.values_mut() {
            Arc::make_mut(facts).pool = Some(PoolFacts {
                name: "portfolio".into(),
                limit,
            });
        }
        let body = json!([{"type": "BODY", "text": "Hello"}]);
        let template = Template::parse("APPROVED", "UTILITY", "POSITIONAL", &body);
        let templates = self.world.templates.entry("waba".into()).or_default();
        templates.insert(greeting(), Arc::new(template));
        self.show_world()
    }

    fn set_limit_of(&mut self, name: &str, recipients: u32) {
        for facts in self.world.lanes.values_mut() {
            let pool = Arc::make_mut(facts)
                .pool
                .as_mut()
                .filter(|pool| &*pool.name == name);
            if let Some(pool) = pool {
                pool.limit.recipients = Some(recipients);
            }
        }
        let now = self.now();
        // The world alone, without the turn in which jobs take the new room.
        let world = World {
            lanes: self.world.lanes.clone(),
            kinds: self.world.kinds.clone(),
            templates: self.world.templates.clone(),
            ..World::default()
        };
        let event = Event::World(Arc::new(world));
        self.worker.note(event, now, &mut Vec::new());
    }

    /// A template message to somebody who has no open service window.
    fn greeting(&self, id: i64, lane: Lane, priority: Priority, person: i64) -> Seen {
        let mut seen = self.seen(id, lane, priority);
        seen.job.template = Some(greeting());
        seen.job.content = RawValue::from_string("{}".into()).expect("JSON");
        seen.job.expires_at = wall(self.mono + 100 * HOUR);
        seen.facts.window_until = None;
        seen.recipient_hash = person;
        seen
    }

    fn normal(&self, people: std::ops::Range<i64>) -> Vec<Seen> {
        people
            .map(|person| self.greeting(person, LANE, Priority::Normal, person))
            .collect()
    }

    /// What is posted within two seconds after these were looked at.
    fn look_and_send(&mut self, seen: Vec<Seen>) -> Vec<i64> {
        let actions = self.look(seen);
        let mut posted = posts(&self.permit_all(&actions));
        posted.extend(self.send(100));
        let mut posted: Vec<i64> = posted.into_iter().map(|id| id.0).collect();
        posted.sort_unstable();
        posted
    }
}

/// Both lanes in shard 0, held in this epoch.
fn standing(epoch: i64) -> Standing {
    [LANE, OTHER].map(|lane| (lane, (0, epoch))).into()
}

fn greeting() -> TemplateName {
    TemplateName {
        name: "greeting".into(),
        language: "en".into(),
    }
}

fn ids(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

#[test]
fn what_was_posted_through_all_pools_before_is_asked_at_once() {
    let mut bench = Bench::new(80.0);
    bench.set_limit(10);
    for (lane, facts) in &mut bench.world.lanes {
        let pool = Arc::make_mut(facts).pool.as_mut().expect("a limit");
        pool.name = format!("number {}", lane.0).into();
    }
    let asked = bench.show_world();
    let pools = asked.iter().filter_map(|action| match action {
        Action::Count { pools, .. } => Some(pools.len()),
        _ => None,
    });
    assert_eq!(pools.collect::<Vec<_>>(), [2]);
}

#[test]
fn nothing_is_sent_before_what_was_posted_before_is_counted() {
    let mut bench = Bench::new(80.0);
    let asked = bench.set_limit(10);
    let stood = asked.iter().find_map(|action| match action {
        Action::Count { pools, .. } => Some(pools[0].1.clone()),
        _ => None,
    });
    assert_eq!(stood, Some(standing(1)));
    let jobs = bench.normal(0..3);
    assert_eq!(bench.look_and_send(jobs), ids(0..0));
    // The database was away; it is asked again.
    let again = bench.tell(Event::Counted {
        pool: "portfolio".into(),
        standing: standing(1),
        posts: None,
    });
    assert!(
        again.iter().any(|a| matches!(a, Action::Count { .. })),
        "{again:?}"
    );
    bench.tell(Event::Counted {
        pool: "portfolio".into(),
        standing: standing(1),
        posts: Some(
            (100..108)
                .map(|person| (person, wall(bench.mono)))
                .collect(),
        ),
    });
    let jobs = bench.normal(0..3);
    assert_eq!(
        bench.look_and_send(jobs),
        [0],
        "9 of 10 are for normal jobs, 8 are taken"
    );
}

#[test]
fn at_the_limit_normal_jobs_wait_and_urgent_ones_use_the_reserve() {
    let mut bench = limited(10, &[]);
    let jobs = bench.normal(0..20);
    assert_eq!(bench.look_and_send(jobs), ids(0..9));
    let urgent = (50..53).map(|id| bench.greeting(id, OTHER, Priority::Urgent, id));
    let urgent = urgent.collect();
    assert_eq!(
        bench.look_and_send(urgent),
        [50],
        "the tenth recipient of the portfolio"
    );
}

#[test]
fn somebody_who_counts_already_passes_by_those_who_wait() {
    let mut bench = limited(10, &[]);
    let jobs = bench.normal(0..20);
    assert_eq!(bench.look_and_send(jobs), ids(0..9));
    let again = vec![bench.greeting(100, LANE, Priority::Normal, 3)];
    assert_eq!(bench.look_and_send(again), [100]);
}

#[test]
fn a_message_in_an_open_window_takes_no_room() {
    let mut bench = limited(10, &[]);
    let jobs = bench.normal(0..9);
    assert_eq!(bench.look_and_send(jobs), ids(0..9));
    let mut job = bench.greeting(100, LANE, Priority::Normal, 100);
    job.facts.window_until = Some(wall(bench.mono + HOUR));
    assert_eq!(bench.look_and_send(vec![job]), [100]);
}

#[test]
fn room_comes_back_a_day_and_five_minutes_after_the_last_message() {
    let mut bench = limited(10, &[]);
    let jobs = bench.normal(0..20);
    assert_eq!(bench.look_and_send(jobs), ids(0..9));
    bench.mono += 24 * HOUR;
    let jobs = bench.normal(9..20);
    assert_eq!(bench.look_and_send(jobs), ids(0..0), "not yet");
    bench.mono += Duration::from_secs(5 * 60);
    let jobs = bench.normal(9..20);
    assert_eq!(bench.look_and_send(jobs), ids(9..18));
}

#[test]
fn a_lane_without_room_is_not_looked_at() {
    let mut bench = limited(10, &[]);
    bench.worker.settings.look_ahead = 100;
    let jobs = bench.normal(0..100);
    assert_eq!(bench.look_and_send(jobs), ids(0..9));
    assert_eq!(bench.cursors(Priority::Normal), []);
    assert_ne!(bench.cursors(Priority::Urgent), []);
}

#[test]
fn jobs_that_wait_for_room_are_read_again_once_a_minute_since_a_window_may_have_opened() {
    let mut bench = limited(10, &[]);
    bench.worker.settings.look_ahead = 100;
    let jobs = bench.normal(0..100);
    bench.look_and_send(jobs);
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn jobs_that_wait_for_room_are_read_again_also_where_some_comes_back_all_the_time() {
    let mut bench = limited(10, &[]);
    bench.worker.settings.look_ahead = 100;
    let jobs = bench.normal(0..100);
    assert_eq!(bench.look_and_send(jobs), ids(0..9));
    assert_eq!(bench.cursors(Priority::Normal), []);
    for person in 200..206 {
        bench.wait(Duration::from_secs(10));
        // Somebody's room is given back, and those who wait ask for it.
        let code = bench.greeting(person, OTHER, Priority::Urgent, person);
        let wanted = attempts(&bench.look(vec![code]));
        assert_eq!(wanted.len(), 1);
        bench.tell(Event::Attempted {
            urgent: true,
            wanted,
            permitted: Some(Vec::new()),
            took: Duration::from_millis(2),
        });
    }
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn a_pool_whose_lease_was_lost_is_counted_anew() {
    let mut bench = limited(10, &[]);
    bench.tell(Event::Leases(Leases {
        epochs: [(0, 2)].into(),
        deadline: 1_000 * HOUR,
        ..Leases::default()
    }));
    let jobs = bench.normal(0..3);
    assert_eq!(
        bench.look_and_send(jobs),
        ids(0..0),
        "another owner may have posted"
    );
}

#[test]
fn a_count_from_before_the_lease_was_lost_is_no_answer() {
    let mut bench = limited(10, &[]);
    bench.tell(Event::Leases(Leases {
        epochs: [(0, 2)].into(),
        deadline: 1_000 * HOUR,
        ..Leases::default()
    }));
    bench.tell(Event::Counted {
        pool: "portfolio".into(),
        standing: standing(1),
        posts: Some(Vec::new()),
    });
    let jobs = bench.normal(0..3);
    assert_eq!(
        bench.look_and_send(jobs),
        ids(0..0),
        "another owner may have posted since"
    );
    bench.tell(Event::Counted {
        pool: "portfolio".into(),
        standing: standing(2),
        posts: Some(Vec::new()),
    });
    let jobs = bench.normal(0..3);
    assert_eq!(bench.look_and_send(jobs), ids(0..3));
}

#[test]
fn a_job_that_is_not_permitted_gives_its_room_back() {
    let mut bench = limited(10, &[]);
    let jobs = bench.normal(0..9);
    let wanted = attempts(&bench.look(jobs));
    assert!(!wanted.is_empty());
    bench.tell(Event::Attempted {
        urgent: false,
        wanted,
        permitted: Some(Vec::new()),
        took: Duration::from_millis(2),
    });
    let others = bench.normal(20..40);
    assert_eq!(bench.look_and_send(others).len(), 9);
}

/// Whoever takes over counts it: others must not have got its room meanwhile.
#[test]
fn a_job_of_which_nobody_knows_whether_its_attempt_is_committed_keeps_its_room() {
    let mut bench = limited(10, &[]);
    let jobs = bench.normal(0..9);
    let wanted = attempts(&bench.look(jobs));
    let uncertain = wanted.len();
    assert!(uncertain > 0);
    bench.tell(Event::Attempted {
        urgent: false,
        wanted,
        permitted: None,
        took: Duration::from_secs(5),
    });
    let others = bench.normal(20..40);
    assert_eq!(bench.look_and_send(others).len(), 9 - uncertain);
}

fn echo(bench: &Bench, person: i64, counted: bool) -> Echo {
    Echo {
        message_hash: person,
        lane: LANE,
        recipient_hash: person,
        counted,
        at: wall(bench.mono),
        noted_at: wall(bench.mono),
    }
}

#[test]
fn messages_from_the_phone_app_to_somebody_without_a_window_take_room() {
    let mut bench = limited(10, &[]);
    bench.world.echoes = (100..104).map(|n| echo(&bench, n, n < 103)).collect();
    bench.show_world();
    bench.world.echoes.clear();
    let jobs = bench.normal(0..20);
    assert_eq!(bench.look_and_send(jobs), ids(0..6), "9 less 3");
}

#[test]
fn normal_jobs_keep_the_floor_that_the_configuration_gives_them_from_then_on() {
    let normal_of = |bench: &mut Bench, from: i64| {
        let mut jobs: Vec<Seen> = (from..from + 200)
            .map(|id| bench.greeting(id, LANE, Priority::Urgent, id))
            .collect();
        jobs.extend(
            (from + 200..from + 400).map(|id| bench.greeting(id, LANE, Priority::Normal, id)),
        );
        let actions = bench.look(jobs);
        let mut posted = posts(&bench.permit_all(&actions));
        while posted.len() < 80 {
            posted.extend(bench.send(1));
        }
        posted.iter().filter(|id| id.0 >= from + 200).count()
    };
    let mut bench = limited(10_000, &[]);
    let kept = normal_of(&mut bench, 0);
    assert!((3..=5).contains(&kept), "{kept} of 80");
    let mut bench = limited(10_000, &[]);
    bench.world.floor = Floor::new(0.25);
    bench.show_world();
    let kept = normal_of(&mut bench, 0);
    assert!((18..=22).contains(&kept), "{kept} of 80");
}

/// The other lane in a portfolio of its own, where nobody counts.
fn two_portfolios(recipients: u32) -> Bench {
    let mut bench = limited(recipients, &[]);
    for (lane, name) in [(LANE, "portfolio"), (OTHER, "other portfolio")] {
        let facts = bench.world.lanes.get_mut(&lane).expect("a lane");
        Arc::make_mut(facts).pool.as_mut().expect("a pool").name = name.into();
    }
    bench.show_world();
    for (lane, name) in [(LANE, "portfolio"), (OTHER, "other portfolio")] {
        bench.tell(Event::Counted {
            pool: name.into(),
            standing: [(lane, (0, 1))].into(),
            posts: Some(Vec::new()),
        });
    }
    bench
}

#[test]
fn a_job_that_waits_for_room_goes_out_by_the_number_that_it_was_moved_to() {
    let mut bench = two_portfolios(10);
    let jobs = bench.normal(0..12);
    assert_eq!(bench.look_and_send(jobs), ids(0..9));
    let moved: Vec<Seen> = (9..12)
        .map(|id| bench.greeting(id, OTHER, Priority::Normal, id))
        .collect();
    assert_eq!(bench.look_and_send(moved), ids(9..12));
    bench.mono += 25 * HOUR;
    assert_eq!(
        bench.look_and_send(Vec::new()),
        ids(0..0),
        "the first number no longer has them"
    );
}

#[test]
fn a_job_on_the_wire_is_not_taken_over_by_another_lane() {
    let mut bench = two_portfolios(10);
    let jobs = bench.normal(0..1);
    assert_eq!(bench.look_and_send(jobs), [0]);
    let moved = vec![bench.greeting(0, OTHER, Priority::Normal, 0)];
    assert_eq!(bench.look_and_send(moved), ids(0..0));
}

#[test]
fn a_report_tells_how_much_room_is_left_and_whether_jobs_lack_it() {
    let mut bench = two_portfolios(10);
    let jobs = bench.normal(0..6);
    bench.look_and_send(jobs);
    let rooms = |bench: &mut Bench| {
        let now = bench.now();
        let mut rooms = bench.worker.report(now).rooms;
        rooms.sort_by_key(|room| room.room);
        let told = rooms.iter().map(|it| (it.used, it.room, it.is_short));
        told.collect::<Vec<_>>()
    };
    assert_eq!(rooms(&mut bench), [(6, 3, false), (0, 9, false)]);
    let jobs = bench.normal(6..12);
    bench.look_and_send(jobs);
    assert_eq!(rooms(&mut bench), [(9, 0, true), (0, 9, false)]);
    bench.mono += 24 * HOUR + Duration::from_secs(301);
    bench.wait(Duration::ZERO);
    assert_eq!(rooms(&mut bench), [(0, 9, false), (0, 9, false)]);
}

#[test]
fn a_pool_in_which_jobs_were_refused_is_short_though_some_room_came_back_since() {
    let mut bench = two_portfolios(10);
    let jobs = bench.normal(0..20);
    bench.look_and_send(jobs);
    bench.set_limit_of("portfolio", 12);
    let now = bench.now();
    let rooms = bench.worker.report(now).rooms;
    let portfolio = rooms.iter().find(|it| &*it.pool == "portfolio");
    let portfolio = portfolio.expect("the pool");
    assert!(portfolio.room > 0 && portfolio.is_short, "{portfolio:?}");
}

#[test]
fn the_report_measures_numbers_that_have_more_to_send_against_their_rates() {
    let mut bench = Bench::new(10.0);
    let jobs = (0..1_000).map(|id| bench.seen(id, LANE, Priority::Normal));
    let jobs: Vec<Seen> = jobs.collect();
    let now = bench.now();
    bench.worker.report(now);
    let actions = bench.look(jobs);
    bench.permit_all(&actions);
    bench.send(500);
    let now = bench.now();
    let report = bench.worker.report(now);
    let ratio = f64::from(report.posted) / report.allowed;
    assert!((0.9..=1.05).contains(&ratio), "{report:?}");
}

#[test]
fn a_held_message_counts_from_when_the_provider_sent_it() {
    let mut bench = limited(10, &[]);
    let jobs = bench.normal(0..9);
    assert_eq!(bench.look_and_send(jobs), ids(0..9));
    bench.mono += 2 * HOUR;
    bench.world.released = vec![Released {
        lane: LANE,
        recipient_hash: 4,
        at: wall(bench.mono),
        noted_at: wall(bench.mono),
    }];
    bench.show_world();
    bench.mono += 23 * HOUR;
    let jobs = bench.normal(20..40);
    assert_eq!(
        bench.look_and_send(jobs).len(),
        8,
        "one of them counts still"
    );
}
