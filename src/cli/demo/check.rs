//! Holds what the database says against what the samples expect and against what the provider saw. The sandbox's ledger
//! is written before any answer, so it knows of every message, also of those whose answer got lost.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use serde::Serialize;

use super::samples::{Expect, Story};
use crate::{
    rules::job::{JobId, State},
    sandbox::{Entry, Statuses},
};

/// A job that was enqueued, or refused.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// File, line and copy.
    pub(super) name: String,
    /// What it is about.
    pub(super) kind: String,
    /// To whom.
    pub(super) recipient: String,
    /// What must become of it.
    pub(super) expect: Expect,
    /// What the sandbox does about it.
    pub(super) story: Option<Story>,
    /// Its id, or the SQLSTATE with which it was refused.
    pub(super) taken: Result<JobId, String>,
}

/// Where a job is, as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Its state.
    pub(super) state: State,
    /// Why, where there is a reason.
    pub(super) reason: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)?;
        self.reason
            .as_ref()
            .map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// A job that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Off {
    /// Which.
    pub(super) job: String,
    /// What is wrong with it.
    pub(super) what: String,
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.job, self.what)
    }
}

/// Every job that is off, in the order of the jobs, and then whatever the provider has that nobody asked for.
pub(super) fn check(
    jobs: &[Job],
    outcomes: &HashMap<JobId, Outcome>,
    ledger: &HashMap<i64, Vec<Entry>>,
) -> Vec<Off> {
    let ours: HashSet<i64> = jobs
        .iter()
        .filter_map(|job| job.taken.as_ref().ok())
        .map(|id| id.0)
        .collect();
    let mut strays: Vec<_> = ledger.keys().filter(|id| !ours.contains(id)).collect();
    strays.sort();
    let strays = strays.into_iter().map(|id| Off {
        job: format!("job {id}"),
        what: "it reached the provider, but nobody enqueued it".to_owned(),
    });
    jobs.iter()
        .filter_map(|job| check_job(job, outcomes, ledger))
        .chain(strays)
        .collect()
}

fn check_job(
    job: &Job,
    outcomes: &HashMap<JobId, Outcome>,
    ledger: &HashMap<i64, Vec<Entry>>,
) -> Option<Off> {
    let (name, what) = match &job.taken {
        Err(code) => (job.name.clone(), refusal(&job.expect, code)),
        Ok(id) => {
            let posts = ledger.get(&id.0).map(Vec::as_slice).unwrap_or_default();
            let what = match outcomes.get(id) {
                None => Err("the database does not know it any more".to_owned()),
                Some(outcome) => {
                    posted(&job.expect, posts).and_then(|()| settled(&job.expect, outcome, posts))
                }
            };
            (format!("job {id} ({})", job.name), what)
        }
    };
    what.err().map(|what| Off { job: name, what })
}

fn refusal(expect: &Expect, code: &str) -> Result<(), String> {
    match expect {
        Expect::Refused(wanted) if wanted == code => Ok(()),
        _ => Err(format!(
            "enqueue refused it with {code}, but expected is {expect}"
        )),
    }
}

/// What the provider saw: a job that must go was accepted once, whatever was refused before; of one that must not go
/// there is not even a refused request.
fn posted(expect: &Expect, posts: &[Entry]) -> Result<(), String> {
    let accepted = posts.iter().filter(|post| post.accepted).count();
    match (expect, accepted) {
        (Expect::Delivered | Expect::Failed(_), 1) => Ok(()),
        (Expect::Delivered | Expect::Failed(_), 0) => match posts.last() {
            None => Err("it never reached the provider".to_owned()),
            Some(post) => Err(format!(
                "the provider never accepted it; its last answer was {}",
                answer(post)
            )),
        },
        (Expect::Delivered | Expect::Failed(_), times) => {
            Err(format!("the provider accepted it {times} times"))
        }
        (Expect::Kept(..), _) if posts.is_empty() => Ok(()),
        (Expect::Kept(..), _) => Err(format!(
            "it must not leave ({expect}), but the provider saw it"
        )),
        (Expect::Refused(_), _) => Err(format!("enqueue took it, but expected is {expect}")),
    }
}

fn answer(post: &Entry) -> String {
    match (post.code, post.http_status) {
        (Some(code), _) => code.to_string(),
        (None, Some(status)) => format!("HTTP {status}"),
        (None, None) => "none".to_owned(),
    }
}

/// What the database says: the reason that is expected, or exactly as far as the receipts that the provider sent.
fn settled(expect: &Expect, outcome: &Outcome, posts: &[Entry]) -> Result<(), String> {
    let reason = |reason: &dyn fmt::Display| Some(reason.to_string());
    let wanted = match expect {
        Expect::Kept(state, why) => Outcome {
            state: *state,
            reason: reason(why),
        },
        Expect::Failed(why) => Outcome {
            state: State::Failed,
            reason: reason(why),
        },
        Expect::Delivered | Expect::Refused(_) => {
            let receipts = posts
                .iter()
                .find(|post| post.accepted)
                .map(|post| post.receipts)
                .unwrap_or_default();
            Outcome {
                state: told_by(receipts),
                reason: None,
            }
        }
    };
    let arrived = matches!(wanted.state, State::Delivered | State::Read);
    if *expect == Expect::Delivered && !arrived {
        return Err(format!(
            "the provider never said that it was delivered; it is {outcome}"
        ));
    }
    if *outcome == wanted {
        Ok(())
    } else {
        Err(format!("it is {outcome}, but must be {wanted}"))
    }
}

/// The state that these receipts amount to.
fn told_by(receipts: Statuses) -> State {
    let Statuses {
        sent,
        delivered,
        read,
        failed,
    } = receipts;
    match [read, delivered, failed, sent]
        .iter()
        .position(|count| *count > 0)
    {
        Some(0) => State::Read,
        Some(1) => State::Delivered,
        Some(2) => State::Failed,
        Some(_) => State::Sent,
        None => State::Accepted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::job::FinalReason;

    /// One job of the demo with everything about it as it should be.
    struct World {
        job: Job,
        outcomes: HashMap<JobId, Outcome>,
        ledger: HashMap<i64, Vec<Entry>>,
    }

    impl World {
        fn new(expect: &str, state: State, reason: Option<FinalReason>, posts: Vec<Entry>) -> Self {
            let outcome = Outcome {
                state,
                reason: reason.map(|reason| reason.to_string()),
            };
            Self {
                job: Job {
                    name: "order.jsonl:1, copy 2".to_owned(),
                    kind: "order".to_owned(),
                    recipient: "+15550100001".to_owned(),
                    expect: expect.parse().unwrap(),
                    story: None,
                    taken: Ok(JobId(7)),
                },
                outcomes: HashMap::from([(JobId(7), outcome)]),
                ledger: if posts.is_empty() {
                    HashMap::new()
                } else {
                    HashMap::from([(7, posts)])
                },
            }
        }

        fn delivered() -> Self {
            Self::new(
                "delivered",
                State::Delivered,
                None,
                vec![refused(131_000), accepted()],
            )
        }

        fn rejected() -> Self {
            Self::new(
                "rejected:no_opt_in",
                State::Rejected,
                Some(FinalReason::NoOptIn),
                vec![],
            )
        }

        fn off(&self) -> Vec<String> {
            let offs = check(
                std::slice::from_ref(&self.job),
                &self.outcomes,
                &self.ledger,
            );
            offs.iter().map(ToString::to_string).collect()
        }

        /// The one thing that is wrong with job 7.
        #[track_caller]
        fn complaint(&self) -> String {
            let off = self.off();
            let [one] = off.as_slice() else {
                panic!("{off:?}")
            };
            one.strip_prefix("job 7 (order.jsonl:1, copy 2): ")
                .expect("it names the job")
                .to_owned()
        }
    }

    fn post() -> Entry {
        Entry {
            serial: 0,
            at_ns: 0,
            number: "1".to_owned(),
            recipient: None,
            template: None,
            language: None,
            callback: None,
            http_status: Some(200),
            code: None,
            accepted: false,
            message_id: None,
            receipts: Statuses::default(),
        }
    }

    fn accepted() -> Entry {
        Entry {
            accepted: true,
            receipts: Statuses {
                sent: 1,
                delivered: 2,
                ..Statuses::default()
            },
            ..post()
        }
    }

    fn refused(code: i32) -> Entry {
        Entry {
            http_status: Some(500),
            code: Some(code),
            ..post()
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_not_named() {
        for world in [World::delivered(), World::rejected()] {
            assert_eq!(world.off(), Vec::<String>::new());
        }
    }

    #[test]
    fn a_message_that_was_accepted_twice_is_named() {
        let mut world = World::delivered();
        world.ledger.get_mut(&7).unwrap().push(accepted());
        assert_eq!(world.complaint(), "the provider accepted it 2 times");
    }

    #[test]
    fn a_message_that_is_missing_is_named() {
        let mut world = World::delivered();
        world.ledger.clear();
        assert_eq!(world.complaint(), "it never reached the provider");
        world.ledger.insert(7, vec![refused(131_000)]);
        assert_eq!(
            world.complaint(),
            "the provider never accepted it; its last answer was 131000"
        );
    }

    #[test]
    fn a_message_that_must_not_leave_is_named_even_when_the_provider_refused_it() {
        for post in [accepted(), refused(132_001)] {
            let mut world = World::rejected();
            world.ledger.insert(7, vec![post]);
            assert_eq!(
                world.complaint(),
                "it must not leave (rejected: no_opt_in), but the provider saw it"
            );
        }
    }

    #[test]
    fn another_state_or_reason_than_expected_is_named() {
        let mut world = World::rejected();
        world.outcomes.get_mut(&JobId(7)).unwrap().reason = Some("opted_out".to_owned());
        assert_eq!(
            world.complaint(),
            "it is rejected: opted_out, but must be rejected: no_opt_in"
        );
        world.outcomes.clear();
        assert_eq!(world.complaint(), "the database does not know it any more");
    }

    #[test]
    fn a_receipt_that_was_not_folded_is_named() {
        let mut world = World::delivered();
        world.ledger.get_mut(&7).unwrap()[1].receipts.read = 1;
        assert_eq!(world.complaint(), "it is delivered, but must be read");
    }

    #[test]
    fn a_message_without_a_receipt_of_its_delivery_is_named() {
        let mut world = World::delivered();
        world.ledger.get_mut(&7).unwrap()[1].receipts = Statuses {
            sent: 1,
            ..Statuses::default()
        };
        assert_eq!(
            world.complaint(),
            "the provider never said that it was delivered; it is delivered"
        );
    }

    #[test]
    fn a_failure_is_expected_with_its_reason() {
        let failed = Entry {
            receipts: Statuses {
                failed: 1,
                ..Statuses::default()
            },
            ..accepted()
        };
        let reason = FinalReason::NotReachableOnWhatsapp;
        let world = World::new(
            "failed:not_reachable_on_whatsapp",
            State::Failed,
            Some(reason),
            vec![failed.clone()],
        );
        assert_eq!(world.off(), Vec::<String>::new());
        let world = World::new(
            "failed:media_failed",
            State::Failed,
            Some(reason),
            vec![failed],
        );
        assert_eq!(
            world.complaint(),
            "it is failed: not_reachable_on_whatsapp, but must be failed: media_failed"
        );
    }

    #[test]
    fn a_job_that_enqueue_must_refuse_is_refused_with_its_sqlstate() {
        let mut world = World::new("refused:PR001", State::Delivered, None, vec![accepted()]);
        assert_eq!(
            world.complaint(),
            "enqueue took it, but expected is refused at enqueue: PR001"
        );
        world.ledger.clear();
        world.job.taken = Err("PR001".to_owned());
        assert_eq!(world.off(), Vec::<String>::new());
        world.job.taken = Err("PR006".to_owned());
        let said = "order.jsonl:1, copy 2: enqueue refused it with PR006, but expected is refused at enqueue: PR001";
        assert_eq!(world.off(), [said]);
    }

    #[test]
    fn a_message_that_nobody_enqueued_is_named() {
        let mut world = World::delivered();
        world.ledger.insert(8, vec![accepted()]);
        assert_eq!(
            world.off(),
            ["job 8: it reached the provider, but nobody enqueued it"]
        );
    }
}
