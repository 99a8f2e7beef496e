//! From a free slot to the wire, and from the answer to its settlement.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use super::{
    super::{
        event::{About, Action, Learned, Now},
        lane::Permitted,
        settlement::{Attempt, not_sent, settlement},
        world::LaneFacts,
    },
    Flight, Worker,
    limiting::path,
};
use crate::{
    rules::{
        address::Address,
        breaker::{Changed, May, Target},
        job::{JobId, Lane, Priority},
        outcome::{Answer, Consequence, Effect, Outcome, judge},
        receipt::Callback,
    },
    store::people::{Link, LinkSource},
};

/// Why a job goes back to the queue whose attempt waited too long, for a slot or for a connection.
const STALE: &str = "what was checked before was no longer fresh";
/// With every connection in use, the next look at the due lanes.
const CROWDED_WAIT: Duration = Duration::from_millis(2);
/// One in so many requests is kept for urgent jobs: a slow provider holds all others, and then they would wait behind them.
const URGENT_ONE_IN: usize = 20;

/// When a lane may post again.
enum Again {
    /// At its next slot.
    At(Duration),
    /// When a request is answered: its slot has come, and every request that it may make is out.
    Crowded,
}

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
        let mut crowded = Vec::new();
        while let Some(Reverse((at, lane))) = self.due.peek().copied()
            && at <= now.mono
        {
            self.due.pop();
            if let Some(state) = self.lanes.get_mut(&lane) {
                state.scheduled = false;
            }
            match self.post_on(lane, now, actions) {
                Some(Again::At(again)) => self.schedule(lane, again),
                Some(Again::Crowded) => crowded.push((at, lane)),
                None => {}
            }
        }
        self.crowded_until = if crowded.is_empty() {
            Duration::ZERO
        } else {
            now.mono + CROWDED_WAIT
        };
        // Whose slot came first is served first.
        for (at, lane) in crowded {
            self.schedule(lane, at);
        }
    }

    /// Whether every request is out that jobs of this priority may make.
    fn is_crowded(&self, priority: Priority) -> bool {
        let most = self.settings.in_flight_max;
        let kept = match priority {
            Priority::Urgent => 0,
            Priority::Normal | Priority::Bulk => most / URGENT_ONE_IN,
        };
        self.in_flight.len() >= most - kept
    }

    /// Posts what the lane's slots allow now; returns when it may post next, if it has anything left.
    fn post_on(&mut self, lane: Lane, now: Now, actions: &mut Vec<Action>) -> Option<Again> {
        let state = self.lanes.get_mut(&lane)?;
        let stale = state.take_stale(now.mono);
        // What a throttle held up tells nothing of how much the machine can post.
        if !stale.is_empty() && state.hold_until <= now.mono {
            self.pipeline.in_vain(now.mono);
        }
        self.give_up(lane, Vec::new(), stale, STALE, now);
        let mut has_posted = false;
        loop {
            let state = self.lanes.get(&lane)?;
            let mut priority = state.next_to_post()?;
            let has_urgent = !state.ready[Priority::Urgent as usize].is_empty();
            if state.hold_until > now.mono {
                let stale_at = state.stale_at().unwrap_or(Duration::MAX);
                return Some(Again::At(state.hold_until.min(stale_at)));
            }
            if self.stopped(lane, now).is_some() {
                self.relinquish(lane, now);
                return None;
            }
            if self.is_crowded(priority) && has_urgent {
                priority = Priority::Urgent;
            }
            if self.is_crowded(priority) {
                // Who has just posted waits behind the others.
                return Some(match has_posted {
                    true => Again::At(now.mono),
                    false => Again::Crowded,
                });
            }
            let state = self.lanes.get_mut(&lane)?;
            let expired = state.ready[priority as usize]
                .front()
                .is_some_and(|next| next.job.expires_at <= now.wall);
            if !expired && let Err(again) = state.pacer.take(now.mono) {
                // When all slots are taken by posts that have not left, the lane goes on when one has.
                return (again < Duration::MAX).then_some(Again::At(again));
            }
            let next = state.take_ready(priority)?;
            let pool = state.facts.pool.as_ref();
            let may = self
                .breakers
                .may(path(lane, &state.facts, &next.job).targets(), now.wall);
            if let May::No { reason, .. } | May::Claim { reason } = may
                && !next.job.is_probe
            {
                if !expired {
                    state.pacer.stayed();
                }
                self.limits.withdraw(lane, &next.job);
                self.outbox.push(
                    not_sent(&next.attempt(), reason, now.wall, now.wall),
                    now.mono,
                );
            } else if expired {
                self.limits.withdraw(lane, &next.job);
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
                has_posted = true;
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
            not_after: self
                .leases
                .deadline
                .min(now.boot + next.fresh_until.saturating_sub(now.mono)),
            expires_at: next.job.expires_at,
        });
        let flight = Flight {
            lane,
            permitted: next,
            left_at: None,
        };
        self.in_flight.insert(flight.permitted.job.id, flight);
    }

    /// A request was written: its slot counts from then.
    pub(super) fn left(&mut self, id: JobId, at: Duration, now: Now) {
        let Some(flight) = self.in_flight.get_mut(&id) else {
            return;
        };
        flight.left_at = Some(at);
        let lane = flight.lane;
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.pacer.left(at);
            state.posted_at = Some(at);
            state.posted += 1;
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
            left_at,
        }) = self.in_flight.remove(&id)
        else {
            return;
        };
        if left_at.is_none() {
            self.stayed(lane, now);
            if posted.fresh_until <= now.mono {
                self.pipeline.in_vain(now.mono);
            }
        }
        let consequence = judge(&answer);
        let heard = Heard {
            lane,
            posted: &posted,
            sent: left_at.unwrap_or(now.mono),
            answer: &answer,
            consequence: &consequence,
        };
        self.heed(&heard, now, actions);
        if let Some(wait) = regain_access_in {
            self.rest_account(&heard, wait, now, actions);
        }
        if let Some(link) = same_person(&posted.job.recipient, &answer) {
            actions.push(Action::Learn(Learned::SamePerson(link)));
        }
        let waited = now.mono.saturating_sub(left_at.unwrap_or(now.mono));
        let attempt = Attempt {
            left_at: now.wall - waited,
            ..posted.attempt()
        };
        let outcome = settlement(
            &attempt,
            answer,
            &consequence,
            &self.settings.retry,
            now.wall,
            chance,
        );
        self.outbox.push(outcome, now.mono);
    }

    /// What the answer means for what the message went out by: the number's tempo, the pair, and the breakers.
    fn heed(&mut self, heard: &Heard<'_>, now: Now, actions: &mut Vec<Action>) {
        let pair = (heard.lane, heard.posted.job.recipient_hash);
        let Some(state) = self.lanes.get_mut(&heard.lane) else {
            return;
        };
        match heard.consequence.outcome {
            Outcome::Accepted | Outcome::Held => {
                let held = heard.consequence.outcome == Outcome::Held;
                state.accepted(heard.sent, held, now.mono);
                self.limits.pair_accepted(pair);
                self.has_closed |= self.breakers.iter().next().is_some();
            }
            _ => {}
        }
        match heard.consequence.effect {
            Some(Effect::SlowNumber) => state.throttled(heard.sent, now.mono),
            // The job itself waits long enough; this is for the others to the same person.
            Some(Effect::StopPair) => _ = self.limits.pair_refused(pair, now),
            Some(effect @ (Effect::OptOutMarketing | Effect::CloseWindow)) => {
                let about = heard.about(&state.facts);
                actions.push(Action::Learn(Learned::Effect(effect, about)));
            }
            _ => {}
        }
        let (code, title) = heard.words();
        let changed = self.breakers.answered(
            path(heard.lane, &state.facts, &heard.posted.job),
            heard.consequence,
            title,
            code,
            now.wall,
        );
        self.tell_changed(changed, heard, actions);
    }

    /// The provider says when the account may be used again.
    fn rest_account(
        &mut self,
        heard: &Heard<'_>,
        wait: Duration,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(state) = self.lanes.get(&heard.lane) else {
            return;
        };
        let account = Target::Account(Arc::clone(&state.facts.account));
        let why = "the account's call limit is used up";
        let opened = self.breakers.open(account, why, None, Some(wait), now.wall);
        let changed = Changed {
            opened,
            ..Changed::default()
        };
        self.tell_changed(changed, heard, actions);
    }

    /// What stopped or goes again is written down, so that the other workers, other instances and people know.
    fn tell_changed(&self, changed: Changed, heard: &Heard<'_>, actions: &mut Vec<Action>) {
        let Some(state) = self.lanes.get(&heard.lane) else {
            return;
        };
        let about = || heard.about(&state.facts);
        let opened = changed
            .opened
            .map(|opened| Learned::Stopped(opened, about()));
        let closed = changed.closed.into_iter();
        let closed = closed.map(|due| Learned::Closed(due, about()));
        actions.extend(opened.into_iter().chain(closed).map(Action::Learn));
    }
}

/// An answer, and to what.
struct Heard<'a> {
    lane: Lane,
    posted: &'a Permitted,
    /// When the request was written.
    sent: Duration,
    answer: &'a Answer,
    consequence: &'a Consequence,
}

impl Heard<'_> {
    /// The provider's code and words, where it gave any.
    fn words(&self) -> (Option<i32>, &str) {
        match self.answer {
            Answer::Error(error) => (Some(error.code), &error.title),
            _ => (None, ""),
        }
    }

    fn about(&self, facts: &LaneFacts) -> About {
        let (code, title) = self.words();
        About {
            phone_number_id: facts.sender.phone_number_id.to_string(),
            account: facts.account.to_string(),
            lane: self.lane,
            template: self.posted.job.template.clone(),
            person: self.posted.job.person.clone(),
            code,
            title: title.to_owned(),
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
