//! Keeps the shards leased and tells the workers which they may send for.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{crew::Crew, event::Event, shell::boot_time, world::Leases};
use crate::{
    clock,
    store::{Store, attempt::Held, lease, within},
};

/// How long a lease holds without renewal.
pub const TTL: Duration = Duration::from_secs(5);
/// The owner stops this much before the lease runs out: a pacing window of 1 s, and 0.2 s for clocks and the wire. So the
/// posts of two owners never share a window.
pub const MARGIN: Duration = Duration::from_millis(1_200);
/// All leases are renewed in one statement this often.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// After a hand-back nobody posts for this long: a pacing window and 0.1 s.
const HAND_BACK_SETTLE: Duration = Duration::from_millis(1_100);
/// There are as many shards.
const SHARDS: usize = 256;

/// What keeps the leases.
pub struct Leasing {
    /// Where they stand.
    pub store: Store,
    /// Who holds them.
    pub instance: String,
    /// Who is to be told, and how far back open attempts reach.
    pub crew: Crew,
    /// How many shards are held, for metrics and readiness.
    pub held: tokio::sync::watch::Sender<usize>,
}

impl Leasing {
    /// Takes and renews until `stop`. The leases are not handed back here: outcomes may still be on their way.
    pub async fn run(self, stop: CancellationToken) {
        let mut holding: HashMap<i16, Holding> = HashMap::new();
        let mut every = tokio::time::interval(RENEW_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            // The deadline counts from before the database is asked: its clock started later than ours.
            let asked = boot_time();
            match within(TTL, self.renew(&mut holding)).await {
                Ok(()) => {
                    self.tell(&holding, asked + TTL - MARGIN);
                    self.show().await;
                }
                Err(error) => tracing::warn!(%error, "the leases could not be renewed"),
            }
        }
    }

    async fn show(&self) {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        if let Err(error) =
            lease::show(self.store.pool(), &self.instance, &host, std::process::id()).await
        {
            tracing::debug!(%error, "this instance could not be shown");
        }
    }

    async fn renew(&self, holding: &mut HashMap<i16, Holding>) -> Result<(), sqlx::Error> {
        let held: Vec<Held> = holding
            .iter()
            .map(|(shard, h)| Held {
                shard: *shard,
                epoch: h.epoch,
            })
            .collect();
        let oldest_open = self.crew.load().oldest_open;
        let still =
            lease::renew(self.store.pool(), &self.instance, TTL, &held, oldest_open).await?;
        if still.len() < held.len() {
            tracing::warn!(
                lost = held.len() - still.len(),
                "leases ran out before they were renewed"
            );
        }
        holding.retain(|shard, h| {
            still.contains(&Held {
                shard: *shard,
                epoch: h.epoch,
            })
        });
        if holding.len() < SHARDS {
            let taken = lease::take(self.store.pool(), &self.instance, TTL, &still).await?;
            holding.extend(taken.iter().map(|t| {
                (
                    t.held.shard,
                    Holding {
                        epoch: t.held.epoch,
                        free_at: t.free_at,
                    },
                )
            }));
        }
        Ok(())
    }

    fn tell(&self, holding: &HashMap<i16, Holding>, deadline: Duration) {
        let now = clock::now();
        let free = holding.iter().filter(|(_, h)| h.free_at <= now);
        let epochs: HashMap<i16, i64> = free.map(|(shard, h)| (*shard, h.epoch)).collect();
        self.held.send_replace(epochs.len());
        self.crew.tell(|| {
            Event::Leases(Leases {
                epochs: epochs.clone(),
                deadline,
            })
        });
    }
}

/// Gives all shards back, when nothing of this instance is on the wire any more.
///
/// # Errors
/// When the database does not answer; then the leases run out by themselves.
pub async fn hand_back(store: &Store, instance: &str) -> Result<(), sqlx::Error> {
    lease::hand_back(store.pool(), instance, HAND_BACK_SETTLE).await
}

#[derive(Debug, Clone, Copy)]
struct Holding {
    epoch: i64,
    free_at: DateTime<Utc>,
}
