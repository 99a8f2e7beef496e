//! What becomes of jobs whose request was not answered and whose receipt does not come: see `src/store/unknown.rs`. What is
//! decided is decided by the rule.

use postrider::rules::{
    job::{JobId, State},
    unknown::{
        OUTAGE_AFTER, OnUnknown, Outage, Receiving, Resolution, Unknown, WITHOUT_EVIDENCE, resolve,
    },
};

use super::{
    database::{Database, Row, Time},
    plan::secs,
    sabotage::Sabotage,
};

/// So many times a job is sent again by itself.
const RESENDS_MAX: i32 = 1;

/// What is known of the way on which receipts come.
#[derive(Debug, Default)]
pub(crate) struct Way {
    pub(crate) seen_at: Option<Time>,
    outages: Vec<Outage>,
    /// The latest attempt that a receipt came for, the one before, and when that was noted.
    flow: Option<(Time, Option<Time>, Time)>,
}

impl Way {
    /// `receiving_beat.sql`: a receipt could be committed now.
    pub(crate) fn beat(&mut self, now: Time) {
        if let Some(began) = self.seen_at.filter(|seen| *seen < now - OUTAGE_AFTER) {
            self.outages.push(Outage { began, ended: now });
        }
        self.seen_at = Some(now);
    }

    /// `fold_flow.sql`.
    pub(crate) fn note(&mut self, taken: Time, now: Time) {
        self.flow = match self.flow {
            None => Some((taken, None, now)),
            Some((last, _, noted)) if taken > last && noted <= now - secs(2) => {
                Some((taken, Some(last), now))
            }
            as_before => as_before,
        };
    }

    fn evidence(&self, now: Time) -> Option<Time> {
        let (last, before, noted) = self.flow?;
        if noted <= now - secs(2) {
            Some(last)
        } else {
            before
        }
    }
}

impl Database {
    /// Decides what has waited long enough.
    pub(crate) fn resolve(&mut self, now: Time) {
        let taken_at = self.way.evidence(now);
        let outages = match self.is(Sabotage::ResolutionClockRunsOn) {
            true => Vec::new(),
            false => self.way.outages.clone(),
        };
        let receiving = Receiving {
            seen_at: self.way.seen_at,
            outages: &outages,
            taken_at,
        };
        if !receiving.is_open(now) {
            return;
        }
        let due = self.queue.iter().filter(|(id, row)| {
            row.is_unknown && row.due_at <= now && self.may_be_over(**id, row, taken_at, now)
        });
        let due: Vec<(JobId, Unknown)> = due.map(|(id, row)| (*id, unknown(row))).collect();
        for (id, unknown) in due {
            match resolve(&unknown, &receiving, RESENDS_MAX, now) {
                Resolution::Wait(until) => self.update(id, |row| {
                    row.due_at = until.min(now + unknown.resolve_after);
                    row.unknown_since = row.unknown_since.or(Some(unknown.since));
                }),
                Resolution::Resend => self.send_again(id, now),
                Resolution::GiveUp => self.give_up(id),
            }
        }
    }

    /// `unknown_due.sql`; one whose receipt is here already, and only not folded yet, is left to it.
    fn may_be_over(&self, id: JobId, row: &Row, taken_at: Option<Time>, now: Time) -> bool {
        let since = unknown(row).since;
        let is_over = taken_at.is_some_and(|taken| taken > since)
            || now >= since + row.kind.resolve_after * WITHOUT_EVIDENCE.unsigned_abs();
        is_over && !self.is_locked(id) && self.inbox.values().all(|receipt| receipt.job != id)
    }

    /// `unknown_resend.sql`.
    fn send_again(&mut self, id: JobId, now: Time) {
        *self.resent.entry(id).or_default() += 1;
        self.close(id);
        self.update(id, |row| {
            row.is_unknown = false;
            row.unknown_since = None;
            row.tries += 1;
            row.resends += 1;
            row.reason = None;
            row.due_at = now;
        });
    }

    /// `unknown_give_up.sql`.
    fn give_up(&mut self, id: JobId) {
        self.close(id);
        if let Some(mut row) = self.remove(id) {
            row.tries += 1;
            self.bury(id, row, State::Unknown);
        }
    }

    /// A crash between attempt and answer left none.
    fn close(&mut self, id: JobId) {
        let attempt = self.queue[&id].tries + 1;
        if !self.answers.contains_key(&(id, attempt)) {
            self.answer(id, attempt, "unknown");
        }
    }

    /// `may_have_left`: whether an earlier attempt stayed without an answer.
    pub(crate) fn may_have_left(&self, id: JobId, row: &Row) -> bool {
        let mut earlier = self.answers.range((id, 0)..=(id, row.tries));
        row.resends > 0 || earlier.any(|(_, outcomes)| outcomes.contains(&"unknown"))
    }
}

fn unknown(row: &Row) -> Unknown {
    let since = row.due_at - row.kind.resolve_after;
    Unknown {
        since: row.unknown_since.unwrap_or(since),
        resolve_after: row.kind.resolve_after,
        on_unknown: match row.kind.resend {
            true => OnUnknown::Resend,
            false => OnUnknown::Stop,
        },
        resends: row.resends,
        expires_at: row.expires_at,
    }
}
