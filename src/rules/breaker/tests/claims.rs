//! What several workers send by is tried by one of them.

use super::*;

/// A worker's breakers, with an account in them whose stop is over since an hour after the start.
fn one_of_several(way: &Way) -> Breakers {
    let mut breakers = Breakers::default();
    breakers.seen([written(way, Scope::Account, Some(60))], start());
    breakers
}

#[test]
fn of_several_workers_the_one_that_was_granted_it_tries_and_the_others_wait_for_what_it_hears() {
    let (way, over) = (Way::new(), start() + HOUR);
    let (mut one, mut other) = (one_of_several(&way), one_of_several(&way));
    let account = Due {
        target: way.target(Scope::Account),
        until: over,
    };
    for breakers in [&mut one, &mut other] {
        let may = breakers.may(way.path().targets(), over);
        assert!(matches!(may, May::Claim { .. }), "{may:?}");
    }
    assert_eq!(
        one.claims(&way, Claim::Granted, over),
        std::slice::from_ref(&account),
        "neither the number nor the template is stopped"
    );
    assert_eq!(one.may(way.path().targets(), over), May::Probe);
    assert_eq!(other.claims(&way, Claim::Taken, over).len(), 1);
    assert_eq!(other.is_stopped(&way, over + MINUTE / 2), Some(true));

    one.probed(way.path().targets(), over);
    let changed = one.answered(way.path(), &accepted(false), "", None, over);
    assert_eq!(changed.closed, [account]);
    assert!(other.seen([], over), "it no longer stands written");
    assert_eq!(other.is_stopped(&way, over), Some(false));
}

#[test]
fn of_two_stops_the_template_is_claimed_when_the_account_is_granted() {
    let (way, over) = (Way::new(), start() + HOUR);
    let mut breakers = Breakers::default();
    let stops = [Scope::Template, Scope::Account].map(|scope| written(&way, scope, Some(60)));
    breakers.seen(stops, start());
    let mut claimed = Vec::new();
    while breakers.may(way.path().targets(), over) != May::Probe {
        let claims = breakers.claims(&way, Claim::Granted, over);
        claimed.push(claims.into_iter().map(|due| due.target).collect::<Vec<_>>());
    }
    let expected = [Scope::Account, Scope::Template].map(|scope| vec![way.target(scope)]);
    assert_eq!(claimed, expected);
}

#[test]
fn a_number_needs_no_claim() {
    let (way, mut breakers) = (Way::new(), Breakers::default());
    breakers.seen([written(&way, Scope::Number, Some(60))], start());
    let over = start() + HOUR;
    assert_eq!(breakers.may(way.path().targets(), over), May::Probe);
    assert_eq!(breakers.claims(&way, Claim::Granted, over), []);
}

#[test]
fn a_claim_without_an_answer_is_made_again_and_not_before() {
    let way = Way::new();
    let mut breakers = one_of_several(&way);
    let mut asked = Vec::new();
    for second in 0..12 {
        let now = start() + HOUR + MINUTE / 60 * second;
        breakers.claim(way.path().targets(), now);
        asked.extend(breakers.take_claims().iter().map(|_| second));
    }
    assert_eq!(asked, [0, 5, 10]);
}

#[test]
fn what_was_granted_is_good_for_a_minute() {
    let (way, over) = (Way::new(), start() + HOUR);
    let mut breakers = one_of_several(&way);
    breakers.claims(&way, Claim::Granted, over);
    let nearly = over + MINUTE - MINUTE / 60;
    assert_eq!(breakers.may(way.path().targets(), nearly), May::Probe);
    let may = breakers.may(way.path().targets(), over + MINUTE);
    assert!(matches!(may, May::Claim { .. }), "{may:?}");
}

#[test]
fn what_was_ended_by_the_time_of_the_claim_lets_everything_go() {
    let (way, over) = (Way::new(), start() + HOUR);
    let mut breakers = one_of_several(&way);
    breakers.claims(&way, Claim::Ended, over);
    assert_eq!(breakers.is_stopped(&way, over), Some(false));
}

#[test]
fn the_answer_to_a_claim_says_nothing_of_a_stop_that_came_since() {
    for told in [Claim::Granted, Claim::Taken, Claim::Ended] {
        let (way, over) = (Way::new(), start() + HOUR);
        let mut breakers = one_of_several(&way);
        breakers.claim(way.path().targets(), over);
        breakers.seen([written(&way, Scope::Account, Some(90))], over);
        breakers.claimed(&way.target(Scope::Account), told, over);
        assert_eq!(breakers.is_stopped(&way, over), Some(true), "{told:?}");
        let may = breakers.may(way.path().targets(), start() + 90 * MINUTE);
        assert!(matches!(may, May::Claim { .. }), "{told:?}: {may:?}");
    }
}

#[test]
fn what_was_taken_and_could_not_be_cleared_away_is_tried_again() {
    let (way, over) = (Way::new(), start() + HOUR);
    let mut breakers = one_of_several(&way);
    breakers.sends(&way, &accepted(false), over);
    breakers.seen([written(&way, Scope::Account, Some(60))], over);
    assert_eq!(breakers.is_stopped(&way, over), Some(false));
    let later = over + MINUTE;
    breakers.seen([written(&way, Scope::Account, Some(60))], later);
    assert_eq!(breakers.is_stopped(&way, later), None, "one may try");
}

proptest! {
    /// Of all workers that send by an account, however they take turns and whatever they hear: the database has one row
    /// for all of them.
    #[test]
    fn of_all_workers_together_at_most_one_message_goes_a_minute(
        steps in prop::collection::vec((0u32..90, 0usize..3, 0u8..4), 1..300),
    ) {
        let way = Way::new();
        let mut workers: [Breakers; 3] = Default::default();
        let mut row: Option<(Stop, Option<DateTime<Utc>>)> = None;
        let (mut now, mut went) = (start(), None::<DateTime<Utc>>);
        for (seconds, worker, answer) in steps {
            now += MINUTE / 60 * seconds;
            for breakers in &mut workers {
                let written = row.clone().map(|(stop, _)| (way.target(Scope::Account), stop));
                breakers.seen(written, now);
            }
            let breakers = &mut workers[worker];
            breakers.claim(way.path().targets(), now);
            for due in breakers.take_claims() {
                let claim = match &mut row {
                    None => Claim::Ended,
                    Some((stop, probed_at)) => {
                        let is_free = probed_at.is_none_or(|at| at + PROBE_AGAIN <= now);
                        if is_free && stop.until <= Some(due.until) {
                            *probed_at = Some(now);
                            Claim::Granted
                        } else {
                            Claim::Taken
                        }
                    }
                };
                breakers.claimed(&due.target, claim, now);
            }
            let may = breakers.may(way.path().targets(), now);
            prop_assert!(!matches!(may, May::Claim { .. }), "it was claimed");
            prop_assert_eq!(may == May::Yes, row.is_none());
            if matches!(may, May::No { .. }) {
                continue;
            }
            if let Some(went) = went.filter(|_| row.is_some()) {
                prop_assert!(now - went >= chrono::Duration::minutes(1));
            }
            went = Some(now);
            breakers.probed(way.path().targets(), now);
            let said = match answer {
                // The account's calls are used up, for a minute at first.
                0 => error(4),
                1 => accepted(false),
                _ => continue,
            };
            let changed = breakers.answered(way.path(), &said, "", None, now);
            if let Some(opened) = changed.opened {
                row = Some((opened.stop, None));
            } else if !changed.closed.is_empty() {
                row = None;
            }
        }
    }
}
