//! How a process keeps its leases: the rounds of `dispatch/leasing.rs`, with its own book of what is held and its own rules
//! of what to take.

use std::{collections::BTreeSet, time::Duration};

use postrider::{
    dispatch::{
        event::Event,
        holdings::Holdings,
        leasing::{
            MARGIN, TAKE_OVER_MAX, forgotten, heard_of_within, next_expiry, patience, renew_every,
            rested, wanted,
        },
    },
    store::{
        attempt::Held,
        lease::{Returned, Table},
    },
};

use super::{
    hands::{STATEMENT_MAX, UPTIME, Who},
    leases::name,
    plan::{TTL, secs},
    sim::Sim,
};

/// What is on the wire of a shard that is to be given back may take so long.
const GIVE_BACK_WITHIN: Duration = secs(12);

impl Sim {
    /// One round: renews, looks who has what, and takes. The deadline counts from before the database is asked.
    pub(crate) fn renew(&mut self, who: Who) {
        let asked_at = self.now;
        let instance = self.instance(who);
        let held = instance.holdings.held();
        let oldest_open = instance.oldest_open();
        let is_draining = instance.is_draining;
        self.ask(
            who,
            TTL,
            move |sim, now| {
                let still = sim.database.renew(who.instance, &held, oldest_open, now);
                match is_draining {
                    true => _ = sim.database.senders.remove(&who.instance),
                    false => {
                        let until = now + heard_of_within(TTL);
                        sim.database.senders.insert(who.instance, until);
                    }
                }
                Some((still, sim.database.table(now)))
            },
            move |sim, seen| match seen {
                Some((still, table)) => sim.renewed(who, asked_at, &still, table),
                None => sim.end_round(who, asked_at, true),
            },
        );
    }

    fn renewed(&mut self, who: Who, asked_at: Duration, still: &[Held], mut table: Table) {
        let at = UPTIME + self.now;
        let me = name(who.instance);
        let instance = self.instance(who);
        if !instance.is_draining {
            table.senders.insert(me.clone());
        }
        let deadline = UPTIME + asked_at + TTL.saturating_sub(MARGIN);
        instance.holdings.renewed(still, deadline);
        let wanted = wanted(&me, &table, instance.missed);
        let mut missing: BTreeSet<i16> = instance.holdings.aim(&wanted, at).into_iter().collect();
        let forgotten = forgotten(&me, &table, &instance.holdings);
        missing.extend(&forgotten);
        let is_missing = !missing.is_empty() && !instance.is_draining && !instance.is_taking;
        instance.is_taking |= is_missing;
        // The table is looked at again when the first lease of another runs out.
        let look_at = next_expiry(&me, &table, at).saturating_sub(UPTIME);
        if look_at < asked_at + renew_every(TTL) {
            self.agenda.tick(look_at.max(self.now), move |sim| {
                sim.when_awake(who, move |sim| sim.look_at_table(who));
            });
        }
        if is_missing {
            self.take_over(who, missing.into_iter().collect(), forgotten);
        }
        self.see_to_the_rest(who, asked_at);
    }

    /// A lease of another may have run out between two rounds.
    pub(crate) fn look_at_table(&mut self, who: Who) {
        if !self.instance(who).is_in_round {
            self.instance(who).is_in_round = true;
            self.renew(who);
        }
    }

    /// Waits for what a former holder has under way, and ends its session when that takes too long. What is taken is sent for
    /// from the next renewal on.
    fn take_over(&mut self, who: Who, shards: Vec<i16>, forgotten: Vec<i16>) {
        let given_up_at = self.now + patience(TTL);
        self.ask(
            who,
            TAKE_OVER_MAX,
            move |sim, now| {
                if sim.database.holds_lease(&shards) {
                    if sim.now < given_up_at {
                        return None;
                    }
                    sim.database.end_sessions(&shards);
                }
                Some(sim.database.take(who.instance, &shards, now))
            },
            move |sim, taken| {
                let at = UPTIME + sim.now;
                let taken = rested(taken.unwrap_or_default(), &forgotten);
                let instance = sim.instance(who);
                instance.is_taking = false;
                instance.holdings.took(&taken, at);
                sim.look_at_table(who);
            },
        );
    }

    /// What should have been given back by now, and numbers that came from other shards.
    fn see_to_the_rest(&mut self, who: Who, asked_at: Duration) {
        self.give_back(who, |holdings, now| {
            holdings.overdue(GIVE_BACK_WITHIN, UPTIME + now)
        });
        let held = self.instance(who).holdings.held();
        if self
            .database
            .numbers
            .values()
            .all(|number| number.open_since.is_none())
        {
            return self.end_round(who, asked_at, false);
        }
        self.ask(
            who,
            STATEMENT_MAX,
            move |sim, now| {
                sim.database.adopt(who.instance, &held, now);
                Some(())
            },
            move |sim, done| sim.end_round(who, asked_at, done.is_none()),
        );
    }

    fn end_round(&mut self, who: Who, asked_at: Duration, missed: bool) {
        let instance = self.instance(who);
        instance.missed = missed;
        instance.is_in_round = false;
        self.tell_leases(who);
        let at = self.now.max(asked_at + renew_every(TTL));
        self.agenda.tick(at, move |sim| {
            sim.when_awake(who, move |sim| sim.look_at_table(who));
        });
    }

    /// The workers are told what they may send for, and again when a shard has rested.
    pub(crate) fn tell_leases(&mut self, who: Who) {
        let at = UPTIME + self.now;
        let holdings = &self.instance(who).holdings;
        let leases = holdings.leases(at);
        if let Some(free_at) = holdings.next_free(at) {
            self.agenda.at(free_at - UPTIME, move |sim| {
                sim.when_awake(who, move |sim| sim.tell_leases(who));
            });
        }
        self.tell_all(who, || Event::Leases(leases.clone()));
    }

    /// Gives shards back; when the database does not hear of it, they run out.
    pub(crate) fn give_back(
        &mut self,
        who: Who,
        which: impl FnOnce(&Holdings, Duration) -> Vec<Returned>,
    ) {
        let now = self.now;
        let holdings = &mut self.instance(who).holdings;
        let returned = which(holdings, now);
        if returned.is_empty() {
            return;
        }
        holdings.gave_back(&returned);
        self.ask(
            who,
            STATEMENT_MAX,
            move |sim, now| {
                sim.database.hand_back(who.instance, &returned, now);
                Some(())
            },
            |_, _| {},
        );
    }
}
