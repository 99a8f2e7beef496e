//! Conservation (I1): every job that was enqueued is, at any instant, in exactly one place. What one snapshot of the
//! database shows of a job is judged here, and when a range of ids is finished.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// In how many rows of each sort one snapshot shows a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The job.
    pub job: i64,
    /// Rows that say that it was enqueued; exactly one is right.
    pub enqueued: i64,
    /// Rows of the queue.
    pub queue: i64,
    /// Messages.
    pub message: i64,
    /// Dead letters.
    pub dead_letter: i64,
    /// Dead letters that an operator dropped for good.
    pub dropped: i64,
    /// Whether it is a message although no attempt of it is written, which would be a post that was not written before.
    pub unattempted: bool,
}

/// What is wrong with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// It was enqueued and is nowhere.
    Missing,
    /// It is in more than one place.
    InSeveralPlaces,
    /// It is somewhere and was never enqueued.
    NeverEnqueued,
    /// It was enqueued more than once under one id.
    EnqueuedTwice,
    /// The provider took it, and no attempt of it is written.
    NotWrittenBeforeSent,
}

impl Places {
    /// What is wrong with it; the worst, when it is more than one thing.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        match self.queue + self.message + self.dead_letter + self.dropped {
            0 => Some(Problem::Missing),
            2.. => Some(Problem::InSeveralPlaces),
            _ if self.enqueued == 0 => Some(Problem::NeverEnqueued),
            _ if self.enqueued > 1 => Some(Problem::EnqueuedTwice),
            _ if self.unattempted => Some(Problem::NotWrittenBeforeSent),
            _ => None,
        }
    }
}

impl Problem {
    /// In words, as the end of a sentence about a job.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "was enqueued and is nowhere",
            Self::InSeveralPlaces => "is in more than one place",
            Self::NeverEnqueued => "was never enqueued",
            Self::EnqueuedTwice => "was enqueued more than once",
            Self::NotWrittenBeforeSent => "was taken by the provider without a written attempt",
        }
    }
}

/// Up to which id no transaction can add a job any more.
///
/// Ids are given before their transactions commit, and one may commit late or never. Whoever took an id holds a lock on the
/// sequence until its transaction ends, so: read the newest id, then see which transactions hold the lock; when all of these
/// have ended, everything up to that id is decided.
#[derive(Debug, Default)]
pub struct Horizon {
    decided: i64,
    asked: Option<Asked>,
}

/// An id that is not known to be decided yet.
#[derive(Debug)]
struct Asked {
    newest: i64,
    /// Transactions that may hold an id up to that one.
    open: BTreeSet<String>,
    /// Whether those that were prepared are in `open` under the name that they have since.
    with_prepared: bool,
}

/// A transaction that is prepared for its second phase loses its name: Postgres shows it as `-1/` and its number.
const PREPARED: &str = "-1/";

impl Horizon {
    /// Every job up to this id that will ever exist does; 0 when none is known to be decided.
    #[must_use]
    pub fn decided(&self) -> i64 {
        self.decided
    }

    /// Learns the newest id that was given, and the transactions that were seen to hold the sequence's lock after that was
    /// read.
    pub fn saw(&mut self, newest: i64, open: &BTreeSet<String>) {
        let asked = self.asked.get_or_insert_with(|| Asked {
            newest,
            open: open.clone(),
            with_prepared: false,
        });
        asked.open.retain(|transaction| open.contains(transaction));
        if asked.open.is_empty() && !asked.with_prepared {
            // Every one of them has ended or has been prepared by now; which of the prepared ones they are cannot be told.
            asked.with_prepared = true;
            let is_prepared = |transaction: &&String| transaction.starts_with(PREPARED);
            asked.open = open.iter().filter(is_prepared).cloned().collect();
        }
        if asked.open.is_empty() {
            self.decided = self.decided.max(asked.newest);
            self.asked = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Places = Places {
        job: 1,
        enqueued: 1,
        queue: 0,
        message: 1,
        dead_letter: 0,
        dropped: 0,
        unattempted: false,
    };

    #[test]
    fn a_job_is_right_in_exactly_one_place() {
        let one = |places: Places| places.problem();
        assert_eq!(one(FINE), None);
        for (queue, dead_letter, dropped) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
            let moved = Places {
                queue,
                dead_letter,
                dropped,
                ..FINE
            };
            assert_eq!(one(moved), Some(Problem::InSeveralPlaces));
            assert_eq!(
                one(Places {
                    message: 0,
                    ..moved
                }),
                None
            );
        }
        assert_eq!(one(Places { message: 0, ..FINE }), Some(Problem::Missing));
        // Two messages of two days.
        let twice = Places { message: 2, ..FINE };
        assert_eq!(one(twice), Some(Problem::InSeveralPlaces));
        let never = Places {
            enqueued: 0,
            ..FINE
        };
        assert_eq!(one(never), Some(Problem::NeverEnqueued));
        let again = Places {
            enqueued: 2,
            ..FINE
        };
        assert_eq!(one(again), Some(Problem::EnqueuedTwice));
        let unwritten = Places {
            unattempted: true,
            ..FINE
        };
        assert_eq!(one(unwritten), Some(Problem::NotWrittenBeforeSent));
    }

    fn open(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn ids_are_decided_when_all_transactions_have_ended_that_may_hold_one() {
        let mut horizon = Horizon::default();
        horizon.saw(10, &open(&["3/1", "4/7"]));
        assert_eq!(horizon.decided(), 0);
        // One has ended; others began later and hold later ids.
        horizon.saw(20, &open(&["4/7", "3/2"]));
        assert_eq!(horizon.decided(), 0);
        horizon.saw(30, &open(&["3/2", "4/8"]));
        assert_eq!(horizon.decided(), 10);
        // From here on it is about 40, the newest when it asks again.
        horizon.saw(40, &open(&["3/2", "4/9"]));
        horizon.saw(50, &open(&["4/9"]));
        assert_eq!(horizon.decided(), 10);
        horizon.saw(60, &open(&["5/1"]));
        assert_eq!(horizon.decided(), 40);
        horizon.saw(70, &open(&[]));
        assert_eq!(horizon.decided(), 70);
    }

    #[test]
    fn a_prepared_transaction_holds_its_ids_under_another_name() {
        let mut horizon = Horizon::default();
        horizon.saw(10, &open(&["3/1"]));
        horizon.saw(20, &open(&["-1/740"]));
        assert_eq!(horizon.decided(), 0, "it may be the one that was 3/1");
        // Those that are prepared later are not it.
        horizon.saw(30, &open(&["-1/740", "-1/741"]));
        assert_eq!(horizon.decided(), 0);
        horizon.saw(40, &open(&["-1/741"]));
        assert_eq!(horizon.decided(), 10);
    }

    #[test]
    fn every_problem_has_its_words() {
        assert_eq!(Problem::Missing.words(), "was enqueued and is nowhere");
        assert_eq!(
            serde_json::to_value(Problem::InSeveralPlaces).unwrap(),
            "in_several_places"
        );
    }
}
