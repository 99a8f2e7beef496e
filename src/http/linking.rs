//! Links addresses that webhooks show to be one person's, beside the way of the rows: nearly every webhook names both of
//! somebody's addresses, and nearly always that is known.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::mpsc;

use crate::store::{
    people::{self, Link},
    within,
};

/// Pairs remembered as linked, 8 bytes each; beyond that we forget all and ask the database again.
const REMEMBERED: usize = 1_000_000;

/// Links that wait. One that finds no room is shown again by the person's next receipt.
const WAITING: usize = 10_000;

/// How many are linked in one transaction.
const BATCH: usize = 1_000;

/// How long links gather: the receipts of one message all show the same pair.
const GATHER: Duration = Duration::from_millis(50);

/// What takes longer is on a connection that hangs.
const LINK_MAX: Duration = Duration::from_secs(10);

/// After the database did not let us: it is away, or somebody writes consent in a long transaction.
const PAUSE: Duration = Duration::from_secs(1);

/// Where links are handed in.
#[derive(Debug, Clone)]
pub(super) struct Acquaintances(mpsc::Sender<Link>);

/// The task that links, until nobody can hand in any more.
pub(super) struct Linker {
    pool: PgPool,
    waiting: mpsc::Receiver<Link>,
    known: HashSet<u64>,
    hasher: RandomState,
}

pub(super) fn linker(pool: PgPool) -> (Acquaintances, Linker) {
    let (sender, waiting) = mpsc::channel(WAITING);
    let linker = Linker {
        pool,
        waiting,
        known: HashSet::new(),
        hasher: RandomState::new(),
    };
    (Acquaintances(sender), linker)
}

impl Acquaintances {
    pub(super) fn meet(&self, links: Vec<Link>) {
        for link in links {
            if self.0.try_send(link).is_err() {
                return tracing::debug!(
                    "too many new addresses at once; some are linked when they show again"
                );
            }
        }
    }
}

impl Linker {
    pub(super) async fn run(mut self) {
        let mut links = Vec::new();
        while self.waiting.recv_many(&mut links, BATCH).await > 0 {
            let mut shown = HashSet::new();
            links.retain(|link| {
                let hash = self.hasher.hash_one(link);
                !self.known.contains(&hash) && shown.insert(hash)
            });
            if !links.is_empty() {
                self.link(&links).await;
            }
            links.clear();
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Tries until it is done: some links are shown only once.
    async fn link(&mut self, links: &[Link]) {
        while let Err(error) = within(LINK_MAX, people::link(&self.pool, links)).await {
            tracing::warn!(%error, links = links.len(), "addresses of one person cannot be linked yet");
            if self.waiting.is_closed() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if self.known.len() + links.len() > REMEMBERED {
            self.known.clear();
        }
        let hasher = &self.hasher;
        self.known
            .extend(links.iter().map(|link| hasher.hash_one(link)));
    }
}
