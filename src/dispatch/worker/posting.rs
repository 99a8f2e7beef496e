//! From a free slot to the wire, and from the answer to its settlement.

use std::{cmp::Reverse, time::Duration};

use super::{
    super::{
        event::{About, Action, Learned, Now},
        lane::Permitted,
        settlement::{not_sent, settlement},
    },
    Flight, Worker,
};
use crate::{
    rules::{
        address::Address,
        job::{JobId, Lane},
        outcome::{Answer, Effect, judge},
        receipt::Callback,
    },
    store::people::{Link, LinkSource},
};

/// The first hold after a throttle; doubled by each further one.
const THROTTLE_HOLD: Duration = Duration::from_secs(1);
const THROTTLE_HOLD_MAX: Duration = Duration::from_secs(60);
/// A request that found no connection for so long goes back to the queue: what was checked is no longer fresh.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);
/// With every connection in use, the next look at the due lanes.
const CROWDED_WAIT: Duration = Duration::from_millis(2);

impl Worker {
    /// The lane waits for its next slot from now on, unless it does already.
    pub(super) fn schedule(&mut self, lane: Lane, at: Duration) {
        if let Some(state) = self.lanes.get_mut(&lane)
            && !state.scheduled
        {
            state.scheduled = true;
            self.due.push(Reverse((at, lane)));
        }
    }

    /// Posts on every lane whose slot has come.
    pub(super) fn post(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(Reverse((at, lane))) = self.due.peek().copied()
            && at <= now.mono
        {
            self.due.pop();
            if let Some(state) = self.lanes.get_mut(&lane) {
                state.scheduled = false;
            }
            if let Some(again) = self.post_on(lane, now, actions) {
                self.schedule(lane, again);
            }
        }
    }

    /// Posts what the lane's slots allow now; returns when it may post next, if it has anything left.
    fn post_on(&mut self, lane: Lane, now: Now, actions: &mut Vec<Action>) -> Option<Duration> {
        loop {
            let state = self.lanes.get(&lane)?;
            let priority = state.next_to_post()?;
            if state.hold_until > now.mono {
                return Some(state.hold_until);
            }
            if self.stopped(lane, now).is_some() {
                self.relinquish(lane, now);
                return None;
            }
            if self.in_flight.len() >= self.settings.in_flight_max {
                return Some(now.mono + CROWDED_WAIT);
            }
            let state = self.lanes.get_mut(&lane)?;
            let expired = state.ready[priority as usize]
                .front()
                .is_some_and(|next| next.job.expires_at <= now.wall);
            if !expired && let Err(again) = state.pacer.take(now.mono) {
                // When all slots are taken by posts that have not left, the lane goes on when one has.
                return (again < Duration::MAX).then_some(again);
            }
            let next = state.take_ready(priority)?;
            let pool = state.facts.pool.as_ref();
            if expired {
                self.limits.release(lane, pool, &next.job);
                // It stays due, and the sweep tells that its validity ended.
                let why = "its validity ended before a slot was free";
                self.outbox
                    .push(not_sent(&next.attempt(), why, now.wall, now.wall), now.mono);
            } else if let Err((why, wait)) = self.limits.keep(lane, pool, &next.job, now) {
                state.pacer.stayed();
                self.outbox.push(
                    not_sent(&next.attempt(), why, now.wall, now.wall + wait),
                    now.mono,
                );
            } else {
                self.put_on_wire(lane, next, now, actions);
            }
        }
    }

    fn put_on_wire(
        &mut self,
        lane: Lane,
        mut next: Permitted,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(state) = self.lanes.get(&lane) else {
            return;
        };
        let callback = Callback {
            installation: &self.world.installation,
            job: next.job.id,
            attempt: next.job.tries + 1,
            lane,
            day: next.at.date_naive(),
        }
        .to_string();
        let body = std::mem::take(&mut next.job.body);
        actions.push(Action::Post {
            id: next.job.id,
            lane,
            sender: state.facts.sender.clone(),
            body,
            callback,
            not_after: self.leases.deadline.min(now.boot + WRITTEN_WITHIN),
            expires_at: next.job.expires_at,
        });
        let flight = Flight {
            lane,
            permitted: next,
            has_left: false,
        };
        self.in_flight.insert(flight.permitted.job.id, flight);
    }

    /// A request was written: its slot counts from then.
    pub(super) fn left(&mut self, id: JobId, at: Duration, now: Now) {
        let Some(flight) = self.in_flight.get_mut(&id) else {
            return;
        };
        flight.has_left = true;
        let lane = flight.lane;
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.pacer.left(at);
        }
        self.schedule(lane, now.mono);
    }

    /// The slot of a request that never left is free again.
    fn stayed(&mut self, lane: Lane, now: Now) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.pacer.stayed();
        }
        self.schedule(lane, now.mono);
    }

    pub(super) fn posted(
        &mut self,
        id: JobId,
        answer: Answer,
        regain_access_in: Option<Duration>,
        chance: f64,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(Flight {
            lane,
            permitted: posted,
            has_left,
        }) = self.in_flight.remove(&id)
        else {
            return;
        };
        if !has_left {
            self.stayed(lane, now);
        }
        let consequence = judge(&answer);
        if let Some(wait) = regain_access_in {
            self.slow_account(lane, wait, now);
        }
        match consequence.effect {
            Some(effect) => self.apply(effect, lane, &posted, &answer, now, actions),
            None => self.relax(lane, &posted, &answer),
        }
        if let Some(link) = same_person(&posted.job.recipient, &answer) {
            actions.push(Action::Learn(Learned::SamePerson(link)));
        }
        let outcome = settlement(
            &posted.attempt(),
            answer,
            &consequence,
            &self.settings.retry,
            now.wall,
            chance,
        );
        self.outbox.push(outcome, now.mono);
    }

    /// What is quick and concerns only memory is done here; the rest is for the shell to write down.
    fn apply(
        &mut self,
        effect: Effect,
        lane: Lane,
        posted: &Permitted,
        answer: &Answer,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match effect {
            Effect::SlowNumber => self.slow_number(lane, now),
            Effect::SlowAccount { for_ } => self.slow_account(lane, for_, now),
            // The job itself waits long enough; this is for the others to the same person.
            Effect::StopPair => {
                _ = self
                    .limits
                    .pair_refused((lane, posted.job.recipient_hash), now)
            }
            _ => {
                let Some(state) = self.lanes.get(&lane) else {
                    return;
                };
                let (code, title) = match answer {
                    Answer::Error(error) => (Some(error.code), error.title.clone()),
                    _ => (None, String::new()),
                };
                let about = About {
                    phone_number_id: state.facts.phone_number_id.clone(),
                    account: state.facts.account.clone(),
                    lane,
                    template: posted.job.template.clone(),
                    person: posted.job.person.clone(),
                    code,
                    title,
                };
                actions.push(Action::Learn(Learned::Effect(effect, about)));
            }
        }
    }

    fn slow_number(&mut self, lane: Lane, now: Now) {
        let Some(state) = self.lanes.get_mut(&lane) else {
            return;
        };
        if state.hold_until > now.mono {
            // Requests that were on the wire together are throttled together: that is one throttle.
            return;
        }
        let hold = (THROTTLE_HOLD * 2_u32.pow(state.throttles.min(6))).min(THROTTLE_HOLD_MAX);
        state.throttles += 1;
        state.hold_until = now.mono + hold;
    }

    fn slow_account(&mut self, lane: Lane, wait: Duration, now: Now) {
        let Some(account) = self
            .lanes
            .get(&lane)
            .map(|state| state.facts.account.clone())
        else {
            return;
        };
        for state in self
            .lanes
            .values_mut()
            .filter(|state| state.facts.account == account)
        {
            state.hold_until = state.hold_until.max(now.mono + wait);
        }
    }

    fn relax(&mut self, lane: Lane, posted: &Permitted, answer: &Answer) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.throttles = 0;
        }
        if matches!(answer, Answer::Accepted { .. }) {
            self.limits.pair_accepted((lane, posted.job.recipient_hash));
        }
    }
}

/// The link that an answer shows when the provider knows the recipient by another address than the one we sent to.
fn same_person(recipient: &str, answer: &Answer) -> Option<Link> {
    let Answer::Accepted { wa_id, user_id, .. } = answer else {
        return None;
    };
    let by_phone = wa_id.as_ref().map(|digits| format!("+{digits}"));
    let told = by_phone.or_else(|| user_id.clone())?;
    if told == recipient {
        return None;
    }
    let (known, also) = (
        Address::parse(recipient).ok()?.key(),
        Address::parse(&told).ok()?.key(),
    );
    (known != also).then_some(Link {
        known,
        also,
        source: LinkSource::Answer,
    })
}
