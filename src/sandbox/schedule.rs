//! Receipts and inbound messages that are due later: one heap, from which one task takes.

use std::{cmp::Reverse, collections::BinaryHeap};

use rand::{RngExt, rngs::StdRng, seq::SliceRandom};
use serde_json::Value;

use super::setup::Webhooks;

/// The statuses of a message that receipts tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Sent,
    Delivered,
    Read,
    Failed,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Status::Sent => "sent",
            Status::Delivered => "delivered",
            Status::Read => "read",
            Status::Failed => "failed",
        }
    }
}

/// What is due.
#[derive(Debug)]
pub(super) enum What {
    /// A receipt of the message with this serial.
    Receipt {
        serial: u64,
        status: Status,
        code: i32,
    },
    /// Anything else: one element of `changes`.
    Change {
        app: usize,
        waba_id: String,
        change: Value,
    },
}

/// Something that is due at a time (nanoseconds since the start).
#[derive(Debug)]
pub(super) struct Event {
    pub(super) at: u64,
    order: u64,
    pub(super) what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Event {
    fn key(&self) -> (u64, u64) {
        (self.at, self.order)
    }
}

/// Everything that is due some day.
#[derive(Default)]
pub(super) struct Schedule {
    heap: BinaryHeap<Reverse<Event>>,
    pushed: u64,
    /// Taken, and neither answered 200 nor given up yet.
    pub(super) outstanding: usize,
    /// While set, nothing is due.
    pub(super) is_paused: bool,
}

impl Schedule {
    pub(super) fn push(&mut self, at: u64, what: What) {
        self.pushed += 1;
        self.heap.push(Reverse(Event {
            at,
            order: self.pushed,
            what,
        }));
    }

    /// How many were pushed ever.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Whether nothing waits in here.
    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// How many wait in here.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// At most `most` events whose time has come, the oldest first.
    pub(super) fn take_due(&mut self, now: u64, most: usize) -> Vec<Event> {
        let mut due = Vec::new();
        while due.len() < most
            && !self.is_paused
            && self
                .heap
                .peek()
                .is_some_and(|Reverse(event)| event.at <= now)
        {
            due.extend(self.heap.pop().map(|Reverse(event)| event));
        }
        self.outstanding += due.len();
        due
    }
}

/// What becomes of an accepted message.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fate {
    /// Whether any receipt comes at all.
    pub(super) is_silent: bool,
    /// It fails with this code.
    pub(super) fail: Option<i32>,
    /// It is read or not; none leaves it to chance.
    pub(super) reads: Option<bool>,
    /// Its first receipt comes this much later.
    pub(super) held_ns: u64,
}

impl Schedule {
    /// Plans the receipts of a message that was accepted at `now`.
    pub(super) fn plan(
        &mut self,
        serial: u64,
        fate: Fate,
        hooks: &Webhooks,
        now: u64,
        rng: &mut StdRng,
    ) {
        if fate.is_silent {
            return;
        }
        let mut receipts = story(fate, hooks, now + fate.held_ns, rng);
        if hooks.shuffled_share > 0.0 && rng.random_bool(hooks.shuffled_share.min(1.0)) {
            shuffle(&mut receipts, rng);
        }
        for (at, status, code) in receipts {
            self.push(
                at,
                What::Receipt {
                    serial,
                    status,
                    code,
                },
            );
            if hooks.repeated_share > 0.0 && rng.random_bool(hooks.repeated_share.min(1.0)) {
                let again = at + hooks.sent_after.draw(rng).as_nanos() as u64;
                self.push(
                    again,
                    What::Receipt {
                        serial,
                        status,
                        code,
                    },
                );
            }
        }
    }
}

/// The receipts of a message in their natural order.
fn story(fate: Fate, hooks: &Webhooks, start: u64, rng: &mut StdRng) -> Vec<(u64, Status, i32)> {
    let mut happens = |share: f64| share >= 1.0 || (share > 0.0 && rng.random_bool(share));
    let fail = fate
        .fail
        .or_else(|| happens(hooks.failed_share).then_some(hooks.failed_code));
    let delivered = happens(hooks.delivered_share);
    let read = delivered && fate.reads.unwrap_or_else(|| happens(hooks.read_share));
    let sent_at = start + hooks.sent_after.draw(rng).as_nanos() as u64;
    if let Some(code) = fail {
        return vec![(sent_at, Status::Failed, code)];
    }
    let mut receipts = vec![(sent_at, Status::Sent, 0)];
    if delivered {
        let delivered_at = sent_at + hooks.delivered_after.draw(rng).as_nanos() as u64;
        receipts.push((delivered_at, Status::Delivered, 0));
        if read {
            receipts.push((
                delivered_at + hooks.read_after.draw(rng).as_nanos() as u64,
                Status::Read,
                0,
            ));
        }
    }
    receipts
}

/// Deals the statuses out anew over the same times.
fn shuffle(receipts: &mut [(u64, Status, i32)], rng: &mut StdRng) {
    let mut statuses: Vec<Status> = receipts.iter().map(|receipt| receipt.1).collect();
    statuses.shuffle(rng);
    for (receipt, status) in receipts.iter_mut().zip(statuses) {
        receipt.1 = status;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn planned(hooks: &Webhooks, fate: Fate) -> Vec<Status> {
        let mut schedule = Schedule::default();
        schedule.plan(0, fate, hooks, 0, &mut StdRng::seed_from_u64(1));
        let due = schedule.take_due(u64::MAX, usize::MAX);
        let statuses = due.into_iter().map(|event| match event.what {
            What::Receipt { status, .. } => status,
            What::Change { .. } => panic!("no change was planned"),
        });
        statuses.collect()
    }

    #[test]
    fn a_message_is_sent_then_delivered_then_read() {
        let hooks = Webhooks {
            read_share: 1.0,
            ..Webhooks::default()
        };
        assert_eq!(
            planned(&hooks, Fate::default()),
            [Status::Sent, Status::Delivered, Status::Read]
        );
    }

    #[test]
    fn a_message_that_fails_has_one_receipt_and_a_silent_one_none() {
        let fail = Fate {
            fail: Some(131_026),
            ..Fate::default()
        };
        assert_eq!(planned(&Webhooks::default(), fail), [Status::Failed]);
        assert_eq!(
            planned(
                &Webhooks::default(),
                Fate {
                    is_silent: true,
                    ..Fate::default()
                }
            ),
            []
        );
    }

    #[test]
    fn receipts_can_come_twice_each() {
        let hooks = Webhooks {
            read_share: 1.0,
            repeated_share: 1.0,
            ..Webhooks::default()
        };
        assert_eq!(planned(&hooks, Fate::default()).len(), 6);
    }

    #[test]
    fn shuffling_changes_the_order_of_some_messages() {
        let hooks = Webhooks {
            read_share: 1.0,
            shuffled_share: 1.0,
            ..Webhooks::default()
        };
        let rng = &mut StdRng::seed_from_u64(1);
        let mut schedule = Schedule::default();
        (0..100).for_each(|serial| schedule.plan(serial, Fate::default(), &hooks, 0, rng));
        let due = schedule.take_due(u64::MAX, usize::MAX);
        let mut first = std::collections::HashMap::new();
        for event in due {
            if let What::Receipt { serial, status, .. } = event.what {
                first.entry(serial).or_insert(status);
            }
        }
        assert_eq!(first.len(), 100);
        assert!(first.values().any(|status| *status != Status::Sent));
        assert!(first.values().any(|status| *status == Status::Sent));
    }

    #[test]
    fn nothing_is_due_before_its_time_or_while_paused() {
        let mut schedule = Schedule::default();
        schedule.push(
            10,
            What::Receipt {
                serial: 0,
                status: Status::Sent,
                code: 0,
            },
        );
        assert!(schedule.take_due(9, 5).is_empty());
        schedule.is_paused = true;
        assert!(schedule.take_due(10, 5).is_empty());
        schedule.is_paused = false;
        assert_eq!(schedule.take_due(10, 5).len(), 1);
        assert_eq!(schedule.outstanding, 1);
    }
}
