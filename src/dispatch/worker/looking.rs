//! From the bell or the poll through look and gate into the lane's buffers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        event::{Action, LookFor, Now},
        lane::{HEAD, Key, Prepared},
        settlement,
    },
    Known, POLL_EVERY, Worker,
};
use crate::{
    channel::whatsapp::request,
    rules::{
        gate::{self, Verdict, gate},
        job::{JobId, Lane, Priority},
    },
    store::{
        look::{Cursor, Seen},
        settle::Tags,
    },
};

/// Seconds of a number's rate that its buffers may hold, within the look-ahead.
const BUFFER_SECONDS: f64 = 4.0;
/// Transactions that commit an enqueue later than this are found when a look goes back to the head.
const MAY_COMMIT_WITHIN: Duration = Duration::from_secs(5 * 60);

impl Worker {
    pub(super) fn poll(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.polling || self.draining || now.mono < self.next_poll || !self.has_lanes {
            return;
        }
        self.polling = true;
        self.next_poll = now.mono + POLL_EVERY;
        actions.push(Action::FindLanes);
    }

    pub(super) fn look(
        &mut self,
        found: Option<Vec<(Lane, Priority)>>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let cursors: Vec<Cursor> = found
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(lane, p)| self.cursor(lane, p, now))
            .collect();
        self.polling = !cursors.is_empty();
        if self.polling {
            actions.push(self.ask(LookFor::Room, cursors));
        }
    }

    pub(super) fn answer_bell(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.answering_bell || self.draining || self.rung.is_empty() {
            return;
        }
        let rung: Vec<Lane> = self.rung.drain().collect();
        let cursors: Vec<Cursor> = rung
            .into_iter()
            .filter_map(|lane| {
                // Whoever rang may have committed late, behind the cursor.
                let cursor = self.cursor(lane, Priority::Urgent, now)?;
                Some(Cursor {
                    after: HEAD,
                    ..cursor
                })
            })
            .collect();
        if !cursors.is_empty() {
            self.answering_bell = true;
            actions.push(self.ask(LookFor::Bell, cursors));
        }
    }

    /// From where a lane is looked at next, if it may send and has room.
    pub(super) fn cursor(&mut self, lane: Lane, priority: Priority, now: Now) -> Option<Cursor> {
        // What the gate stops is an outcome too.
        if self.draining || self.is_behind() || self.stopped(lane, now).is_some() {
            return None;
        }
        if self.holds.priorities.contains(&priority) {
            return None;
        }
        let look_ahead = self.settings.look_ahead;
        let state = self.lane(lane, now);
        let state = state.filter(|state| state.hold_until <= now.mono)?;
        let parked = state.parked[priority as usize].len() as u32;
        let wanted = match parked {
            0 => ((state.facts.rate.per_second() * BUFFER_SECONDS) as u32 + 16).min(look_ahead),
            // Without room only those pass by who count already: they are sought in the whole look-ahead.
            _ => look_ahead,
        };
        let buffered = state.buffered[priority as usize].len() as u32 + parked;
        if buffered * 2 > wanted {
            return None;
        }
        let reading = &mut state.reading[priority as usize];
        Some(Cursor {
            lane,
            priority,
            after: reading.next_look(now.mono),
            room: wanted - buffered,
            ended_at: None,
            account: state.facts.account.to_string(),
            begun: reading.begun(),
        })
    }

    /// A look. Where it goes back, what memory has already is left out: it would use up the room.
    fn ask(&self, why: LookFor, cursors: Vec<Cursor>) -> Action {
        let goes_back = |cursor: &&Cursor| {
            let state = self.lanes.get(&cursor.lane);
            state
                .is_some_and(|state| cursor.after < state.reading[cursor.priority as usize].after())
        };
        let back: HashSet<(Lane, Priority)> = cursors
            .iter()
            .filter(goes_back)
            .map(|cursor| (cursor.lane, cursor.priority))
            .collect();
        let mut known = Vec::new();
        if !back.is_empty() {
            let behind = self
                .known
                .iter()
                .filter(|(_, known)| back.contains(&(known.lane, known.priority)));
            known.extend(behind.map(|(id, _)| *id));
        }
        Action::Look {
            why,
            cursors,
            holds: Arc::clone(&self.holds),
            known,
        }
    }

    pub(super) fn looked(
        &mut self,
        why: LookFor,
        cursors: &[Cursor],
        seen: Option<Vec<Seen>>,
        now: Now,
    ) {
        match why {
            LookFor::Room => self.polling = false,
            LookFor::Bell => self.answering_bell = false,
        }
        let Some(seen) = seen else {
            if why == LookFor::Bell {
                self.rung.extend(cursors.iter().map(|cursor| cursor.lane));
            }
            return;
        };
        let overtaken = self.overtaken(cursors);
        let filled = filled(cursors, &seen);
        if !self.holds.is_empty() {
            self.pass_over_held(cursors, &filled, &overtaken, now);
        }
        for seen in seen {
            let reads_on = !overtaken.contains(&(seen.job.lane, seen.job.priority));
            self.pass_gate(seen, reads_on, now);
        }
        for (key, last) in filled {
            if !overtaken.contains(&key) {
                self.go_on_behind(key, last);
            }
        }
    }

    /// A look that went back and was filled has left something behind it, and the cursor is far ahead: a big transaction
    /// committed late. The next looks go on from there, rather than take one handful each time one goes back.
    fn go_on_behind(&mut self, (lane, priority): (Lane, Priority), last: Key) {
        // A job that nobody can do anything with now would hold up the others for ever.
        if self.known.contains_key(&last.1)
            && let Some(state) = self.lanes.get_mut(&lane)
        {
            state.reading[priority as usize].go_on_from(last);
        }
    }

    /// Readings that began anew while the look was under way: it left out what may go now, so it tells nothing of them.
    fn overtaken(&self, cursors: &[Cursor]) -> HashSet<(Lane, Priority)> {
        let is_overtaken = |cursor: &&Cursor| {
            self.lanes.get(&cursor.lane).is_some_and(|state| {
                state.reading[cursor.priority as usize].begun() != cursor.begun
            })
        };
        cursors
            .iter()
            .filter(is_overtaken)
            .map(|cursor| (cursor.lane, cursor.priority))
            .collect()
    }

    /// A look that was not filled has read whatever was due, or as much of it as one may: what it left out need not be read
    /// again by the next ones.
    fn pass_over_held(
        &mut self,
        cursors: &[Cursor],
        filled: &HashMap<(Lane, Priority), Key>,
        overtaken: &HashSet<(Lane, Priority)>,
        now: Now,
    ) {
        for cursor in cursors {
            let key = (cursor.lane, cursor.priority);
            if filled.contains_key(&key)
                || overtaken.contains(&key)
                || !self
                    .lanes
                    .get(&cursor.lane)
                    .is_some_and(|state| self.may_send(cursor.lane, state, now))
            {
                continue;
            }
            let Some(state) = self.lanes.get_mut(&cursor.lane) else {
                continue;
            };
            let reading = &mut state.reading[cursor.priority as usize];
            match cursor.ended_at {
                None => reading.read_to((now.wall - MAY_COMMIT_WITHIN, JobId(0))),
                Some(end) => {
                    reading.came_to(cursor.after, end);
                    self.next_poll = now.mono;
                }
            }
        }
    }

    pub(super) fn pass_gate(&mut self, seen: Seen, reads_on: bool, now: Now) {
        let Seen {
            job,
            facts,
            recipient_hash,
        } = seen;
        let (lane, priority) = (job.lane, job.priority);
        if self.draining || self.stopped(lane, now).is_some() {
            return;
        }
        let state = self.lane(lane, now);
        let Some(state) = state.filter(|state| state.hold_until <= now.mono) else {
            return;
        };
        if reads_on {
            state.reading[priority as usize].read_to((job.due_at, job.id));
        }
        if self.known.contains_key(&job.id) && !self.let_go(job.id, lane) {
            return;
        }
        let Some(state) = self.lanes.get_mut(&lane) else {
            return;
        };
        let Some(kind) = self.world.kinds.get(&job.kind) else {
            return;
        };
        let template = job
            .template
            .as_ref()
            .and_then(|name| self.world.template(&state.facts.account, name));
        // Paused since the look was asked for.
        let (named, batch) = (job.template.as_ref(), job.batch.as_deref());
        if self
            .holds
            .hold(&state.facts.account, named, &job.kind, batch, priority)
        {
            return;
        }
        let world = gate::World {
            kind: &kind.kind,
            template,
            whitespace: self.world.whitespace,
        };
        match gate(&job, &facts, &world, now.wall) {
            // Whatever makes it wait is left out of the next look; when that ends, the cursor goes back to the head.
            Verdict::Wait(_) => return,
            Verdict::Reject(reason, detail) => {
                self.outbox.push(
                    settlement::rejected(job.id, job.tries, reason, detail, now.wall),
                    now.mono,
                );
            }
            Verdict::Send(payload) => {
                let body = request::body(&job.recipient, job.template.as_ref(), &payload);
                state.buffered[priority as usize].push_back(Prepared {
                    id: job.id,
                    priority,
                    tries: job.tries,
                    spent: job.spent,
                    expires_at: job.expires_at,
                    tags: Tags {
                        kind: job.kind.clone(),
                        priority,
                        enqueued_at: job.enqueued_at,
                    },
                    resolve_after: kind.resolve_after,
                    template: job.template,
                    batch: job.batch,
                    recipient: job.recipient,
                    person: job.person,
                    recipient_hash,
                    window_until: facts.window_until,
                    counted: true,
                    is_probe: false,
                    passed_at: now.mono,
                    body,
                });
            }
        }
        if !state.buffered[priority as usize].is_empty() {
            self.waiting_lanes.insert(lane);
            if priority == Priority::Urgent {
                self.urgent_lanes.insert(lane);
            }
        }
        self.known.insert(
            job.id,
            Known {
                lane,
                priority,
                attempted_at: None,
            },
        );
    }
}

/// The lanes of which as many jobs were found as there was room for, each with the last of them.
fn filled(cursors: &[Cursor], seen: &[Seen]) -> HashMap<(Lane, Priority), Key> {
    let mut found: HashMap<(Lane, Priority), (u32, Key)> = HashMap::new();
    for Seen { job, .. } in seen {
        let key = (job.due_at, job.id);
        let (count, last) = found.entry((job.lane, job.priority)).or_insert((0, key));
        *count += 1;
        *last = key.max(*last);
    }
    let is_filled = |cursor: &Cursor| {
        let lane = (cursor.lane, cursor.priority);
        let (count, last) = found.get(&lane)?;
        (*count >= cursor.room).then_some((lane, *last))
    };
    cursors.iter().filter_map(is_filled).collect()
}
