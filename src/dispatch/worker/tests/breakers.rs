//! What the provider's word stops, and how it begins again.

use super::*;

fn refused(code: i32) -> Answer {
    Answer::Error(ProviderError {
        code,
        subcode: None,
        http_status: 400,
        title: format!("code {code}"),
        detail: String::new(),
        is_transient: false,
        retry_after: None,
    })
}

impl Bench {
    /// Jobs of different people, in open service windows.
    fn several(&self, ids: std::ops::Range<i64>) -> Vec<Seen> {
        ids.map(|id| self.seen(id, LANE, Priority::Normal))
            .collect()
    }

    fn stopped(actions: &[Action]) -> Vec<Target> {
        actions
            .iter()
            .filter_map(|action| match action {
                Action::Learn(Learned::Stopped(opened, _)) => Some(opened.target.clone()),
                _ => None,
            })
            .collect()
    }

    fn claims(actions: &[Action]) -> Vec<Target> {
        actions
            .iter()
            .filter_map(|action| match action {
                Action::Claim(due) => Some(due.target.clone()),
                _ => None,
            })
            .collect()
    }

    fn closed(actions: &[Action]) -> Vec<Target> {
        actions
            .iter()
            .filter_map(|action| match action {
                Action::Learn(Learned::Closed(due, _)) => Some(due.target.clone()),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn an_account_that_was_stopped_for_a_while_sends_one_message_when_that_is_over_and_then_all() {
    let mut bench = Bench::new(10.0);
    bench.lease_until(Duration::from_secs(100 * 3_600));
    let id = bench.one_on_the_wire();
    // The account's calls are used up; the answer does not say for how long.
    let stopped = Bench::stopped(&bench.answer(id, refused(80_007)));
    assert_eq!(stopped.len(), 1, "{stopped:?}");
    let jobs = bench.several(20..40);
    bench.look(jobs);
    assert_eq!(
        bench.send(10),
        [],
        "stopped at once, before it is even written down"
    );
    bench.wait(Duration::from_secs(6 * 3_600));
    let jobs = bench.several(20..40);
    let claims = Bench::claims(&bench.look(jobs));
    assert_eq!(claims, stopped, "asked for once, not once a job");
    assert_eq!(bench.send(10), [], "until it is granted");
    let actions = bench.tell(Event::Claimed {
        target: claims[0].clone(),
        claim: Claim::Granted,
    });
    let mut sent = posts(&bench.permit_all(&actions));
    sent.extend(bench.send(50));
    assert_eq!(sent.len(), 1, "one probe: {sent:?}");
    let actions = bench.answer(sent[0], accepted());
    assert_eq!(Bench::closed(&actions), stopped, "for the others to know");
    let mut sent = posts(&bench.permit_all(&actions));
    sent.extend(bench.send(150));
    assert_eq!(sent.len(), 19, "it was taken, so all may go");
}

#[test]
fn a_throttled_number_holds_a_moment_and_then_goes_at_half_its_rate() {
    let mut bench = Bench::new(80.0);
    let id = bench.one_on_the_wire();
    bench.answer(id, refused(130_429));
    assert_eq!(bench.send(49), [], "a second's hold");
    bench.send(2);
    let jobs = bench.several(100..400);
    let actions = bench.look(jobs);
    bench.permit_all(&actions);
    bench.send(50);
    let in_a_second = bench.send(50).len();
    assert!((30..=41).contains(&in_a_second), "{in_a_second} of 80");
}
