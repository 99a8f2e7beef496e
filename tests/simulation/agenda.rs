//! What is to happen, in the order of virtual time. What recurs by itself ([`Agenda::tick`]) is kept apart from what comes
//! only once: while there is nothing but ticks, time may be skipped.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

use super::sim::Sim;

/// Something that is done to the world when its time has come.
type Deed = Box<dyn FnOnce(&mut Sim)>;

struct Item {
    at: Duration,
    /// Of two at the same time, what was planned first comes first.
    order: u64,
    deed: Deed,
}

impl Ord for Item {
    /// Reversed, because the heap gives the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Item {}

#[derive(Default)]
pub(crate) struct Agenda {
    once: BinaryHeap<Item>,
    ticks: BinaryHeap<Item>,
    planned: u64,
}

impl Agenda {
    pub(crate) fn at(&mut self, at: Duration, deed: impl FnOnce(&mut Sim) + 'static) {
        let item = self.item(at, Box::new(deed));
        self.once.push(item);
    }

    pub(crate) fn tick(&mut self, at: Duration, deed: impl FnOnce(&mut Sim) + 'static) {
        let item = self.item(at, Box::new(deed));
        self.ticks.push(item);
    }

    fn item(&mut self, at: Duration, deed: Deed) -> Item {
        self.planned += 1;
        let order = self.planned;
        Item { at, order, deed }
    }

    /// When something comes that does not come by itself again and again.
    pub(crate) fn next_once(&self) -> Option<Duration> {
        self.once.peek().map(|item| item.at)
    }

    /// What comes next, unless it comes after the end.
    pub(crate) fn next(&mut self, end: Duration) -> Option<(Duration, Deed)> {
        let from = match (self.once.peek(), self.ticks.peek()) {
            (Some(once), Some(tick)) if once < tick => &mut self.ticks,
            (None, _) => &mut self.ticks,
            _ => &mut self.once,
        };
        if from.peek()?.at > end {
            return None;
        }
        from.pop().map(|item| (item.at, item.deed))
    }

    /// Nothing recurs before `to`.
    pub(crate) fn skip(&mut self, to: Duration) {
        while let Some(item) = self.ticks.peek()
            && item.at < to
        {
            if let Some(mut item) = self.ticks.pop() {
                item.at = to;
                self.ticks.push(item);
            }
        }
    }
}
