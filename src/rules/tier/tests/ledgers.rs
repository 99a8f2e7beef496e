//! Ledgers, right and wrong.

use super::*;

/// What the dispatcher of these proofs uses. A wrong ledger is one that does one thing otherwise.
pub(super) trait Book {
    fn open(limit: Limit) -> Self;
    fn ledger(&mut self) -> &mut Ledger;

    fn ask(&mut self, person: i64, priority: Priority, now: Moment) -> Answer {
        self.ledger().ask(person, priority, now)
    }
    fn promise(&mut self, person: i64) {
        self.ledger().promise(person);
    }
    fn take(&mut self, person: i64, now: Moment) {
        self.ledger().take(person, now);
    }
    fn keep(&mut self, person: i64, now: Moment) {
        self.ledger().release(person);
        self.take(person, now);
    }
    fn renew(&mut self, person: i64, at: Moment) {
        self.ledger().renew(person, at);
    }
    fn rebuild(&mut self, posts: &[(i64, Moment)], now: Moment) {
        self.ledger().rebuild(posts.iter().copied(), now);
    }
}

impl Book for Ledger {
    fn open(limit: Limit) -> Self {
        Self::new(limit)
    }
    fn ledger(&mut self) -> &mut Ledger {
        self
    }
    fn keep(&mut self, person: i64, now: Moment) {
        Ledger::keep(self, person, now);
    }
}

/// A wrong ledger: a name, and what it does otherwise.
macro_rules! wrong {
    ($name:ident, $($wrong:tt)*) => {
        pub(super) struct $name(Ledger);
        impl Book for $name {
            fn open(limit: Limit) -> Self {
                Self(Ledger::new(limit))
            }
            fn ledger(&mut self) -> &mut Ledger {
                &mut self.0
            }
            $($wrong)*
        }
    };
}

wrong! { NotRenewedByRepeats,
    fn take(&mut self, person: i64, now: Moment) {
        if self.0.ask(person, Priority::Bulk, now) != Answer::Known {
            self.0.take(person, now);
        }
    }
}
wrong! { NotRebuilt,
    fn rebuild(&mut self, _: &[(i64, Moment)], _: Moment) {}
}
wrong! { WithoutPromises,
    fn promise(&mut self, _: i64) {}
}
wrong! { DeafToReceipts,
    fn renew(&mut self, _: i64, _: Moment) {}
}
wrong! { WithoutTheFiveMinutes,
    fn take(&mut self, person: i64, now: Moment) {
        self.0.take(person, now - 5 * MINUTE);
    }
}

/// Starts anew at each midnight.
pub(super) struct ByCalendarDay {
    pub(super) ledger: Ledger,
    pub(super) day: u64,
}

impl Book for ByCalendarDay {
    fn open(limit: Limit) -> Self {
        Self {
            ledger: Ledger::new(limit),
            day: 0,
        }
    }
    fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
    fn ask(&mut self, person: i64, priority: Priority, now: Moment) -> Answer {
        let day = now.since_start().as_secs() / DAY.as_secs();
        if day != self.day {
            *self = Self {
                day,
                ..Self::open(self.ledger.limit())
            };
        }
        match self.ledger.ask(person, priority, now) {
            Answer::Full { .. } => Answer::Full {
                until: at(DAY * (day as u32 + 1)),
            },
            answer => answer,
        }
    }
}
