//! What becomes of jobs whose request was not answered and whose receipt does not come.

use std::time::Duration;

use postrider::rules::job::{JobId, State};

use super::{
    database::{Database, Row, Time},
    plan::{ms, secs},
    sabotage::Sabotage,
};

/// After an outage the clock is put back by its length, at most this.
const EXTENSION_MAX: Duration = secs(3_600);
/// So many times a job is sent again by itself.
const RESENDS_MAX: i32 = 1;
/// Without any receipt at all it takes so many times as long.
const WITHOUT_EVIDENCE: u32 = 5;

impl Database {
    /// No receipt can be taken between these times.
    pub(crate) fn deafen(&mut self, from: Time, to: Time) {
        match self.deaf.last_mut() {
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => self.deaf.push((from, to)),
        }
    }

    /// Resolves what has waited long enough.
    pub(crate) fn resolve(&mut self, now: Time) {
        let due = self
            .queue
            .iter()
            .filter(|(_, row)| row.is_unknown && row.due_at <= now);
        let due: Vec<JobId> = due.map(|(id, _)| *id).collect();
        for id in due {
            let row = self.queue[&id].clone();
            match self.wait_on(id, &row, now) {
                Some(until) => self.update(id, |row| row.due_at = until),
                None => self.give_up(id, row, now),
            }
        }
    }

    /// Until when it waits on; `None` when it has waited long enough.
    fn wait_on(&self, id: JobId, row: &Row, now: Time) -> Option<Time> {
        let attempt = row.tries + 1;
        let attempted_at = self.times_of(id, attempt).into_iter().max()?;
        let shard = self.numbers[&row.lane].shard;
        let since = attempted_at.max(self.leases[&shard].taken_at);
        let (mut stood_still, mut longest) = (Duration::ZERO, Duration::ZERO);
        for (from, to) in &self.deaf {
            let to = now.min(*to);
            if to > since && *from < now {
                stood_still += (to - since.max(*from)).to_std().unwrap_or_default();
                longest += (to - *from).to_std().unwrap_or_default();
            }
        }
        if self.is(Sabotage::ResolutionClockRunsOn) {
            (stood_still, longest) = (Duration::ZERO, Duration::ZERO);
        }
        let waited = (now - since)
            .to_std()
            .unwrap_or_default()
            .saturating_sub(stood_still);
        let needed = row.kind.resolve_after + longest.min(EXTENSION_MAX);
        if waited < needed {
            return Some(now + (needed - waited));
        }
        let is_told = self
            .inbox
            .values()
            .any(|r| r.job == id && r.attempt == attempt);
        let flows = self
            .heard_of
            .iter()
            .any(|(_, posted_at)| *posted_at > attempted_at);
        let has_evidence = flows || waited >= needed * WITHOUT_EVIDENCE;
        (is_told || !has_evidence).then_some(now + ms(1_000))
    }

    fn give_up(&mut self, id: JobId, row: Row, now: Time) {
        let is_sent_again = row.kind.resend && row.resends < RESENDS_MAX && row.expires_at > now;
        self.answer(id, row.tries + 1);
        if is_sent_again {
            *self.resent.entry(id).or_default() += 1;
            self.update(id, |row| {
                row.is_unknown = false;
                row.tries += 1;
                row.resends += 1;
                row.reason = None;
                row.due_at = now;
            });
        } else if let Some(row) = self.remove(id) {
            self.bury(id, row, State::Unknown);
        }
    }
}
