//! What a receipt says, and how receipts add up.
//!
//! The provider promises no order and repeats itself, so what is known of a message is a join: whatever order receipts
//! are taken in, in whatever groups, however often each comes, the sum is the same. `store/fold_apply.sql` does the same
//! join in the database; a test holds the two against each other.

use std::{cmp::Reverse, fmt};

use chrono::{DateTime, NaiveDate, Utc};

use super::job::{JobId, Lane, State};

/// What our requests carry in `biz_opaque_callback_data`, and every receipt brings back:
/// `pr1.<installation>.<job>.<attempt>.<lane>.<yymmdd>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callback<'a> {
    /// Which installation sent it; another one's receipts are kept but not applied.
    pub installation: &'a str,
    /// The job.
    pub job: JobId,
    /// The attempt, from 1.
    pub attempt: i32,
    /// The number's lane.
    pub lane: Lane,
    /// The UTC day of the attempt, which is the message's partition.
    pub day: NaiveDate,
}

impl<'a> Callback<'a> {
    /// Reads callback data; `None` when it is not in our form.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix("pr1.")?.rsplitn(5, '.');
        let day = NaiveDate::parse_from_str(six_digits(parts.next()?)?, "%y%m%d").ok()?;
        let lane = Lane(parts.next()?.parse().ok()?);
        let attempt = parts.next()?.parse().ok().filter(|attempt| *attempt >= 1)?;
        let job = JobId(parts.next()?.parse().ok()?);
        let installation = parts.next().filter(|name| !name.is_empty())?;
        Some(Callback {
            installation,
            job,
            attempt,
            lane,
            day,
        })
    }
}

/// chrono's `%y` takes one digit too, and blanks before it.
fn six_digits(text: &str) -> Option<&str> {
    (text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

impl fmt::Display for Callback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Callback {
            installation,
            job,
            attempt,
            lane,
            day,
        } = self;
        write!(
            f,
            "pr1.{installation}.{job}.{attempt}.{lane}.{}",
            day.format("%y%m%d")
        )
    }
}

/// A status that moves a message. The provider has others, old and new; they are kept as they come and move nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// On its way.
    Sent,
    /// On the phone.
    Delivered,
    /// Opened; a voice message that was played has been opened too.
    Read,
    /// Given up by the provider.
    Failed,
}

impl Status {
    /// From the provider's word; `None` for one that moves nothing.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "sent" => Status::Sent,
            "delivered" => Status::Delivered,
            "read" | "played" => Status::Read,
            "failed" => Status::Failed,
            _ => return None,
        })
    }
}

/// How far a state is. A failure overrules only what came before the phone: a message that was delivered did not fail.
/// `undelivered` is a guess of ours that any word from the phone corrects, and a failure makes precise.
#[must_use]
pub fn rank(state: State) -> i16 {
    match state {
        State::Held => 1,
        State::Sent => 2,
        State::Undelivered => 3,
        State::Failed => 4,
        State::Delivered => 5,
        State::Read => 6,
        _ => 0,
    }
}

/// Why a message failed, in the provider's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// When it failed.
    pub at: Option<DateTime<Utc>>,
    /// The provider's error code.
    pub code: Option<i32>,
    /// The provider's words for it.
    pub title: Option<String>,
}

/// What is known of a message so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where it is.
    pub state: State,
    /// Why, as long as the state is `failed`.
    pub failure: Failure,
    /// The earliest time that it was said to be sent.
    pub sent_at: Option<DateTime<Utc>>,
    /// The earliest time that it was said to be delivered.
    pub delivered_at: Option<DateTime<Utc>>,
    /// The earliest time that it was said to be read.
    pub read_at: Option<DateTime<Utc>>,
    /// What it is billed as.
    pub pricing_category: Option<String>,
    /// How it is billed.
    pub pricing_type: Option<String>,
}

impl Progress {
    /// A message that nothing is known of but this state.
    #[must_use]
    pub fn in_state(state: State) -> Self {
        Progress {
            state,
            failure: Failure::default(),
            sent_at: None,
            delivered_at: None,
            read_at: None,
            pricing_category: None,
            pricing_type: None,
        }
    }

    /// What one status says, at its time.
    #[must_use]
    pub fn of(status: Status, at: DateTime<Utc>) -> Self {
        match status {
            Status::Sent => Progress {
                sent_at: Some(at),
                ..Self::in_state(State::Sent)
            },
            Status::Delivered => Progress {
                delivered_at: Some(at),
                ..Self::in_state(State::Delivered)
            },
            Status::Read => Progress {
                read_at: Some(at),
                ..Self::in_state(State::Read)
            },
            Status::Failed => {
                let failure = Failure {
                    at: Some(at),
                    ..Failure::default()
                };
                Progress {
                    failure,
                    ..Self::in_state(State::Failed)
                }
            }
        }
    }

    /// Both together: the farther state, of two failures the earlier, the earliest time of each status.
    #[must_use]
    pub fn join(self, other: Progress) -> Progress {
        let (a, b) = (self, other);
        let (sent_at, delivered_at) = (
            least(a.sent_at, b.sent_at),
            least(a.delivered_at, b.delivered_at),
        );
        let read_at = least(a.read_at, b.read_at);
        let pricing_category = least(a.pricing_category, b.pricing_category);
        let pricing_type = least(a.pricing_type, b.pricing_type);
        let ends = [(a.state, a.failure), (b.state, b.failure)];
        let [first, second] = ends.map(|(state, failure)| (rank(state), Reverse(failure), state));
        let (_, Reverse(failure), state) = if second > first { second } else { first };
        Progress {
            state,
            failure,
            sent_at,
            delivered_at,
            read_at,
            pricing_category,
            pricing_type,
        }
    }

    /// When it reached the phone, and whether that is only inferred: what was read had been delivered, though the
    /// provider leaves `delivered` out when the chat is open.
    #[must_use]
    pub fn delivered(&self) -> Option<(DateTime<Utc>, bool)> {
        let inferred = self.read_at.map(|at| (at, true));
        self.delivered_at.map(|at| (at, false)).or(inferred)
    }
}

/// The lesser of what is there.
fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*, sample::select};

    use super::*;

    fn time(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + secs, 0).unwrap()
    }

    #[test]
    fn callback_data_comes_back_as_it_went_out() {
        let text = "pr1.a1b2c3d4.1042.2.17.261121";
        let callback = Callback::parse(text).unwrap();
        assert_eq!(callback.job, JobId(1042));
        assert_eq!((callback.attempt, callback.lane), (2, Lane(17)));
        assert_eq!(callback.day, NaiveDate::from_ymd_opt(2026, 11, 21).unwrap());
        assert_eq!(callback.to_string(), text);
    }

    #[test]
    fn an_installations_name_may_hold_dots() {
        assert_eq!(
            Callback::parse("pr1.eu.west.7.1.3.261121")
                .unwrap()
                .installation,
            "eu.west"
        );
    }

    #[test]
    fn callback_data_in_another_form_is_not_ours() {
        for text in [
            "",
            "notif:9f3",
            "pr1",
            "pr1.",
            "pr2.a.1.1.1.261121",
            "pr1.a.1.1.261121",
            "pr1..1.1.1.261121",
            "pr1.a.x.1.1.261121",
            "pr1.a.1.0.1.261121",
            "pr1.a.1.1.1.261301",
            "pr1.a.1.1.1.26111",
            "pr1.a.1.1.1.261121 ",
            "pr1.a.99999999999999999999.1.1.261121",
        ] {
            assert_eq!(Callback::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_failure_overrules_accepted_and_sent_but_nothing_that_reached_the_phone() {
        let failed = || Progress::of(Status::Failed, time(9));
        for (before, after) in [
            (State::Accepted, State::Failed),
            (State::Held, State::Failed),
            (State::Sent, State::Failed),
            (State::Undelivered, State::Failed),
            (State::Delivered, State::Delivered),
            (State::Read, State::Read),
        ] {
            let joined = Progress::in_state(before).join(failed());
            assert_eq!(joined.state, after);
            assert_eq!(
                joined.failure.at.is_some(),
                after == State::Failed,
                "{before}: a failure shows only while it holds"
            );
        }
    }

    #[test]
    fn what_was_read_counts_as_delivered_until_the_phone_says_when() {
        let read = Progress::of(Status::Read, time(9));
        assert_eq!(read.delivered(), Some((time(9), true)));
        assert_eq!(
            read.join(Progress::of(Status::Delivered, time(5)))
                .delivered(),
            Some((time(5), false))
        );
    }

    #[test]
    fn of_two_failures_the_earlier_is_told() {
        let fail = |at, code| Progress {
            failure: Failure {
                at: Some(time(at)),
                code: Some(code),
                title: None,
            },
            ..Progress::of(Status::Failed, time(at))
        };
        assert_eq!(
            fail(7, 131_026).join(fail(3, 131_049)).failure.code,
            Some(131_049)
        );
    }

    fn progress() -> impl Strategy<Value = Progress> {
        let states = [
            State::Accepted,
            State::Held,
            State::Sent,
            State::Undelivered,
            State::Failed,
            State::Delivered,
            State::Read,
        ];
        let at = || option::of((0..4i64).prop_map(time));
        let word = || option::of(select(vec!["utility".to_owned(), "marketing".to_owned()]));
        let failure = (at(), option::of(0..3i32), word()).prop_map(|(at, code, title)| Failure {
            at,
            code,
            title,
        });
        (
            select(states.to_vec()),
            failure,
            at(),
            at(),
            at(),
            word(),
            word(),
        )
            .prop_map(
                |(
                    state,
                    failure,
                    sent_at,
                    delivered_at,
                    read_at,
                    pricing_category,
                    pricing_type,
                )| Progress {
                    state,
                    failure: if state == State::Failed {
                        failure
                    } else {
                        Failure::default()
                    },
                    sent_at,
                    delivered_at,
                    read_at,
                    pricing_category,
                    pricing_type,
                },
            )
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic_and_what_is_ours_is_written_back_the_same(text in "(pr1\\.)?[a-z0-9.]{0,40}") {
            if let Some(callback) = Callback::parse(&text) {
                let written = callback.to_string();
                prop_assert_eq!(Callback::parse(&written), Some(callback));
            }
        }

        #[test]
        fn the_order_of_two_does_not_matter(a in progress(), b in progress()) {
            prop_assert_eq!(a.clone().join(b.clone()), b.join(a));
        }

        #[test]
        fn the_grouping_of_three_does_not_matter(a in progress(), b in progress(), c in progress()) {
            let left = a.clone().join(b.clone()).join(c.clone());
            prop_assert_eq!(left, a.join(b.join(c)));
        }

        #[test]
        fn a_repeat_changes_nothing_and_no_receipt_moves_a_message_back(a in progress(), b in progress()) {
            let joined = a.clone().join(b.clone());
            prop_assert_eq!(joined.clone().join(b.clone()), joined.clone());
            prop_assert_eq!(a.clone().join(a.clone()), a.clone());
            prop_assert!(rank(joined.state) >= rank(a.state).max(rank(b.state)));
        }
    }
}
