//! Keeps the leases: renews what this instance holds, takes its share of what is free, gives back what is another's share
//! ([`spread`]), and tells the workers what they may send for.
//!
//! A round is made every so often, and at once when something is due: a lease of another instance runs out, a shard's rest is
//! over, a shard that is to be given back has become quiet. All that is known of other instances is in the database.
//!
//! What this does not promise: that a shard is always somebody's. Between two owners it rests for a pacing window, and one
//! whose owner died is free when its lease has run out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    crew::Crew,
    event::Event,
    holdings::{Holdings, Quiet, REST},
    shell::boot_time,
};
use crate::{
    rules::spread::{Place, spread},
    store::{
        Store,
        lease::{self, Holder, Returned, Row, Table, Taken},
    },
};

/// The owner stops this much before the lease runs out: a pacing window of 1 s, and 0.2 s for clocks and the wire. So the
/// posts of two owners never share a window.
pub const MARGIN: Duration = Duration::from_millis(1_200);
/// All leases are renewed in one statement this often, or more often where they are short.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A take-over sees to what was left open, which may be much: given up sooner, it would begin anew for ever. What is held
/// already is renewed meanwhile.
pub const TAKE_OVER_MAX: Duration = Duration::from_secs(15);
/// The database's clock may be read a moment later than ours; a lease that ran out is looked at so much after.
const EXPIRED: Duration = Duration::from_millis(10);

/// What keeps the leases.
pub struct Leasing {
    /// Where they stand.
    pub store: Store,
    /// Who takes them, and for how long.
    pub holder: Holder,
    /// What is on the wire of a shard that is to be given back may take so long.
    pub give_back_within: Duration,
    /// Who is to be told, and how far back open attempts reach.
    pub crew: Crew,
    /// What the workers have nothing under way for any more.
    pub quiet: mpsc::UnboundedReceiver<Quiet>,
    /// Rung when numbers became ours to send for.
    pub changed: Arc<Notify>,
    /// How many shards are sent for, for metrics and readiness.
    pub held: watch::Sender<usize>,
}

/// When the leases have to be renewed again: several times before the owner has to stop.
#[must_use]
pub fn renew_every(ttl: Duration) -> Duration {
    RENEW_EVERY.min(ttl.saturating_sub(MARGIN) / 3)
}

/// An instance is given shards while it was heard of within this: a few renewals, and well before its leases run out, so that
/// what is free is not kept for somebody who is gone.
#[must_use]
pub fn heard_of_within(ttl: Duration) -> Duration {
    ttl * 3 / 5
}

/// How long a take-over waits for attempts of a former holder before it ends their sessions: less than an owner may post
/// without a renewal, so that the shards are not idle for much longer than the lease that ran out.
#[must_use]
pub fn patience(ttl: Duration) -> Duration {
    ttl.saturating_sub(MARGIN) / 4
}

impl Leasing {
    /// Keeps the leases until `close`. From `drain` on nothing is taken, and each shard is given back when nothing of it is
    /// under way any more; what is left at the end is given back then.
    pub async fn run(mut self, drain: CancellationToken, close: CancellationToken) {
        let mut holdings = Holdings::default();
        let mut next = Next::default();
        // At most one at a time; what is under way at the end is given up.
        let mut taking = JoinSet::new();
        loop {
            let wake_in = next.wake_at.saturating_sub(boot_time());
            let mut quiet = Vec::new();
            tokio::select! {
                biased;
                () = close.cancelled() => break,
                () = drain.cancelled(), if !next.draining => {
                    next = Next { draining: true, ..Next::default() };
                }
                Some(first) = self.quiet.recv() => quiet.push(first),
                Some(taken) = taking.join_next() => {
                    let taken: Vec<Taken> = taken.unwrap_or_default();
                    if !taken.is_empty() {
                        tracing::info!(shards = taken.len(), "took {} shards", taken.len());
                        holdings.took(&taken, boot_time());
                        // Only what is renewed is sent for.
                        next.round_at = Duration::ZERO;
                    }
                }
                () = tokio::time::sleep(wake_in) => {}
            }
            quiet.extend(std::iter::from_fn(|| self.quiet.try_recv().ok()));
            let missing = self.turn(&mut holdings, &mut next, quiet).await;
            if !missing.shards.is_empty() && taking.is_empty() {
                taking.spawn(take(self.store.clone(), self.holder.clone(), missing));
            }
        }
        let rest = holdings
            .held()
            .into_iter()
            .map(|held| Returned { held, rest: REST });
        self.give_back(&mut holdings, rest.collect()).await;
    }

    /// Returns what is to be taken.
    async fn turn(&self, holdings: &mut Holdings, next: &mut Next, quiet: Vec<Quiet>) -> Missing {
        let mut missing = Missing::default();
        let returned = quiet
            .into_iter()
            .filter_map(|quiet| holdings.returned(quiet));
        self.give_back(holdings, returned.collect()).await;
        if boot_time() >= next.round_at.min(next.look_at) {
            next.round_at = boot_time() + renew_every(self.holder.ttl);
            // Known anew when the round succeeds: one that fails is not repeated at once.
            next.look_at = Duration::MAX;
            // A database that does not answer for as long as this has given our leases to others.
            let round = tokio::time::timeout(self.holder.ttl, self.round(holdings, next)).await;
            next.missed = !matches!(round, Ok(Ok(_)));
            match round {
                Ok(Ok(found)) => {
                    next.starting = holdings.held().is_empty() && !found.shards.is_empty();
                    missing = found;
                }
                Ok(Err(error)) => tracing::warn!(%error, "the leases could not be renewed"),
                Err(_) => tracing::warn!("the database did not answer a renewal of the leases"),
            }
        }
        self.tell(holdings, next.missed || next.starting);
        let wake_at = next.round_at.min(next.look_at);
        next.wake_at = holdings
            .next_free(boot_time())
            .map_or(wake_at, |free_at| free_at.min(wake_at));
        missing
    }

    /// Renews, and looks who has what and what is missing.
    async fn round(
        &self,
        holdings: &mut Holdings,
        next: &mut Next,
    ) -> Result<Missing, sqlx::Error> {
        let pool = self.store.pool();
        // The deadline counts from before the database is asked: its clock started later than ours.
        let asked = boot_time();
        let oldest_open = self.crew.load().oldest_open;
        let still = lease::renew(pool, &self.holder, &holdings.held(), oldest_open).await?;
        let lost = holdings.renewed(&still, asked + self.holder.ttl.saturating_sub(MARGIN));
        if lost > 0 {
            tracing::warn!(lost, "leases ran out before they were renewed");
        }
        let counts_for = (!next.draining).then(|| heard_of_within(self.holder.ttl));
        lease::send_for(pool, &self.holder.instance, counts_for).await?;
        let mut table = lease::table(pool).await?;
        if !next.draining {
            table.senders.insert(self.holder.instance.clone());
        }
        let seen_at = boot_time();
        let wanted = wanted(&self.holder.instance, &table, next.missed);
        let mut missing = Missing {
            shards: holdings.aim(&wanted, seen_at),
            forgotten: forgotten(&self.holder.instance, &table, holdings),
        };
        match next.draining {
            true => missing = Missing::default(),
            false => missing.shards.extend(&missing.forgotten),
        }
        missing.shards.sort_unstable();
        missing.shards.dedup();
        next.look_at = next_expiry(&self.holder.instance, &table, seen_at);
        let overdue = holdings.overdue(self.give_back_within, boot_time());
        self.give_back(holdings, overdue).await;
        if !lease::adopt(pool, &self.holder, &holdings.held())
            .await?
            .is_empty()
        {
            self.changed.notify_one();
        }
        Ok(missing)
    }

    async fn give_back(&self, holdings: &mut Holdings, returned: Vec<Returned>) {
        if returned.is_empty() {
            return;
        }
        holdings.gave_back(&returned);
        let handing = lease::hand_back(self.store.pool(), &self.holder.instance, &returned);
        // What is not handed back by then runs out by itself.
        match tokio::time::timeout(self.holder.ttl, handing).await {
            Ok(Ok(())) => {
                let shards = returned.len();
                tracing::info!(shards, "gave {shards} shards back");
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "leases could not be given back; they run out by themselves");
            }
            Err(_) => tracing::warn!("the database did not answer when leases were given back"),
        }
    }

    /// What is held is shown to the workers, and to operators only when it `is_preliminary` no longer.
    fn tell(&self, holdings: &Holdings, is_preliminary: bool) {
        let leases = holdings.leases(boot_time());
        if !is_preliminary {
            self.held.send_replace(leases.epochs.len());
        }
        self.crew.tell(|| Event::Leases(leases.clone()));
    }
}

/// What this instance should have and does not.
#[derive(Debug, Default)]
struct Missing {
    shards: Vec<i16>,
    /// Those of them that are ours by the table alone.
    forgotten: Vec<i16>,
}

/// Takes them; what cannot be had now is missing in the next round too.
async fn take(store: Store, holder: Holder, missing: Missing) -> Vec<Taken> {
    let at_most = holder.ttl.max(TAKE_OVER_MAX);
    let taking = lease::take(store.pool(), &holder, &missing.shards);
    match tokio::time::timeout(at_most, taking).await {
        Ok(Ok(taken)) => rested(taken, &missing.forgotten),
        Ok(Err(error)) => {
            tracing::warn!(%error, "shards could not be taken");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!("the database did not answer a take-over of shards");
            Vec::new()
        }
    }
}

/// What is to be done next, and when.
#[derive(Debug, Default)]
struct Next {
    wake_at: Duration,
    round_at: Duration,
    /// When a lease of another instance runs out if it is not renewed.
    look_at: Duration,
    /// Whether the last round failed.
    missed: bool,
    /// Whether it holds nothing because it has not taken it yet.
    starting: bool,
    draining: bool,
}

/// The shards that this instance should have: its fair share. After a round that failed only of those that were its own: with
/// the database away for all, the others are about to come back too.
#[must_use]
pub fn wanted(me: &str, table: &Table, missed: bool) -> BTreeSet<i16> {
    let places: BTreeMap<i16, Place<'_>> = table
        .rows
        .iter()
        .map(|row| (row.shard, place(row)))
        .collect();
    let senders: BTreeSet<&str> = table.senders.iter().map(String::as_str).collect();
    let mut wanted = spread(me, &senders, &places);
    if missed {
        wanted.retain(|shard| match places[shard] {
            Place::Held(last) | Place::Free(Some(last)) => last == me,
            Place::Free(None) => true,
        });
    }
    wanted
}

fn place(row: &Row) -> Place<'_> {
    match (row.instance.as_deref(), row.expires_in) {
        (Some(holder), Some(_)) => Place::Held(holder),
        (last, _) => Place::Free(last),
    }
}

/// What the table says is ours, although we know nothing of it: from before a restart, or from a take-over whose end we did
/// not hear of. It is taken anew, also when it is too much: only then is what was left open seen to.
#[must_use]
pub fn forgotten(me: &str, table: &Table, holdings: &Holdings) -> Vec<i16> {
    let held: BTreeSet<i16> = holdings.held().iter().map(|held| held.shard).collect();
    let is_forgotten = |row: &&Row| place(row) == Place::Held(me) && !held.contains(&row.shard);
    table
        .rows
        .iter()
        .filter(is_forgotten)
        .map(|row| row.shard)
        .collect()
}

/// A former run of ours may have posted until a moment ago, and its pacing went with it: what it left rests as if it had been
/// given back just now.
#[must_use]
pub fn rested(mut taken: Vec<Taken>, forgotten: &[i16]) -> Vec<Taken> {
    for taken in &mut taken {
        if forgotten.contains(&taken.held.shard) {
            taken.free_in = taken.free_in.max(REST);
        }
    }
    taken
}

/// When the first lease of another instance runs out, if it is not renewed.
#[must_use]
pub fn next_expiry(me: &str, table: &Table, seen_at: Duration) -> Duration {
    let others = table
        .rows
        .iter()
        .filter(|row| row.instance.as_deref() != Some(me));
    others
        .filter_map(|row| row.expires_in)
        .min()
        .map_or(Duration::MAX, |expires_in| {
            seen_at.saturating_add(expires_in).saturating_add(EXPIRED)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::attempt::Held;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Shards 0 and on, by who has each, and for how many seconds.
    fn table(senders: &[&str], rows: &[(Option<&str>, Option<u64>)]) -> Table {
        let row = |(shard, (instance, expires_in)): (i16, &(Option<&str>, Option<u64>))| Row {
            shard,
            instance: instance.map(str::to_owned),
            expires_in: expires_in.map(secs),
        };
        Table {
            rows: (0..).zip(rows).map(row).collect(),
            senders: senders.iter().map(|sender| (*sender).to_owned()).collect(),
        }
    }

    #[test]
    fn a_lease_that_ran_out_is_free() {
        let table = table(
            &["a"],
            &[(Some("b"), None), (Some("b"), Some(2)), (None, None)],
        );
        assert_eq!(wanted("a", &table, false), [0, 2].into());
    }

    #[test]
    fn after_the_database_was_away_an_instance_leaves_the_others_theirs_at_first() {
        let table = table(
            &["a"],
            &[(Some("a"), None), (Some("b"), None), (None, None)],
        );
        assert_eq!(wanted("a", &table, true), [0, 2].into());
        assert_eq!(wanted("a", &table, false), [0, 1, 2].into());
    }

    #[test]
    fn what_was_ours_before_a_restart_is_taken_anew_also_when_it_is_too_much() {
        let table = table(&["a", "b"], &[(Some("a"), Some(3)), (Some("a"), Some(3))]);
        assert_eq!(wanted("a", &table, false), [0].into());
        assert_eq!(forgotten("a", &table, &Holdings::default()), [0, 1]);
    }

    #[test]
    fn what_a_former_run_left_rests_before_it_is_sent_for() {
        let taken = |shard| Taken {
            held: Held { shard, epoch: 7 },
            free_in: Duration::ZERO,
        };
        let rested = rested(vec![taken(0), taken(1)], &[1]);
        let free_in: Vec<Duration> = rested.iter().map(|taken| taken.free_in).collect();
        assert_eq!(free_in, [Duration::ZERO, REST]);
    }

    #[test]
    fn the_table_is_looked_at_when_the_first_lease_of_another_runs_out() {
        let rows = [
            (Some("a"), Some(1)),
            (Some("b"), Some(3)),
            (Some("c"), Some(2)),
            (Some("d"), None),
        ];
        let table = table(&["a"], &rows);
        assert_eq!(next_expiry("a", &table, secs(10)), secs(12) + EXPIRED);
        let alone = self::table(&["a"], &rows[..1]);
        assert_eq!(next_expiry("a", &alone, secs(10)), Duration::MAX);
    }

    #[test]
    fn leases_are_renewed_several_times_before_the_owner_has_to_stop() {
        for ttl in [2, 5, 60].map(secs) {
            let deadline = ttl - MARGIN;
            assert!(renew_every(ttl) * 3 <= deadline, "{ttl:?}");
            // A take-over waits twice: for the lease, and for jobs that are left open.
            assert!(renew_every(ttl) + 2 * patience(ttl) <= deadline, "{ttl:?}");
            assert!(heard_of_within(ttl) > 2 * renew_every(ttl), "{ttl:?}");
            assert!(heard_of_within(ttl) < ttl, "{ttl:?}");
        }
    }
}
