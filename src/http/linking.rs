//! Links addresses that webhooks show to be one person's, beside the way of the rows: nearly every webhook names both of
//! somebody's addresses, and nearly always that is known. What is shown once only (somebody changed their number) was kept in
//! the database before its webhook was answered, and is linked from there.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::{Notify, mpsc};

use crate::store::{
    people::{self, Link},
    within,
};

/// Pairs remembered as linked, 8 bytes each; beyond that we forget all and ask the database again.
const REMEMBERED: usize = 1_000_000;

/// Links that wait in memory. One that finds no room is shown again by the person's next receipt.
const WAITING: usize = 10_000;

/// How many are linked in one transaction.
const BATCH: usize = 1_000;

/// How long links gather: the receipts of one message all show the same pair.
const GATHER: Duration = Duration::from_millis(50);

/// What takes longer is on a connection that hangs.
const LINK_MAX: Duration = Duration::from_secs(10);

/// After the database did not let us: it is away, or somebody writes consent in a long transaction.
const PAUSE: Duration = Duration::from_secs(1);

/// How often we look for links that were kept, perhaps by a process that is gone.
const KEPT_EVERY: Duration = Duration::from_secs(10);

/// Where links are handed in.
#[derive(Debug, Clone)]
pub(super) struct Acquaintances {
    waiting: mpsc::Sender<Link>,
    kept: Arc<Notify>,
}

/// The task that links, until nobody can hand in any more.
pub(super) struct Linker {
    pool: PgPool,
    waiting: mpsc::Receiver<Link>,
    kept: Arc<Notify>,
    known: HashSet<u64>,
    hasher: RandomState,
}

pub(super) fn linker(pool: PgPool) -> (Acquaintances, Linker) {
    let (sender, waiting) = mpsc::channel(WAITING);
    let kept = Arc::new(Notify::new());
    let acquaintances = Acquaintances {
        waiting: sender,
        kept: Arc::clone(&kept),
    };
    let linker = Linker {
        pool,
        waiting,
        kept,
        known: HashSet::new(),
        hasher: RandomState::new(),
    };
    (acquaintances, linker)
}

impl Acquaintances {
    /// Hands in what a webhook showed, after that was committed: those that are shown once only are kept by then.
    pub(super) fn meet(&self, links: Vec<Link>) {
        let (once, again): (Vec<Link>, Vec<Link>) = links
            .into_iter()
            .partition(|link| link.source.is_shown_once());
        if !once.is_empty() {
            self.kept.notify_one();
        }
        let lost = again
            .into_iter()
            .filter_map(|link| self.waiting.try_send(link).err())
            .count();
        if lost > 0 {
            tracing::debug!(
                lost,
                "too many new addresses at once; {lost} are linked when they show again"
            );
        }
    }
}

impl Linker {
    pub(super) async fn run(mut self) {
        let mut links = Vec::new();
        let mut every = tokio::time::interval(KEPT_EVERY);
        loop {
            let shown = tokio::select! {
                shown = self.waiting.recv_many(&mut links, BATCH) => Some(shown),
                () = self.kept.notified() => None,
                _ = every.tick() => None,
            };
            match shown {
                Some(0) => break,
                Some(_) => self.link_new(&mut links).await,
                None => self.link_kept().await,
            }
            tokio::time::sleep(GATHER).await;
        }
        self.link_kept().await;
    }

    /// Those of the links that are not known, each once.
    async fn link_new(&mut self, links: &mut Vec<Link>) {
        let mut shown = HashSet::new();
        links.retain(|link| {
            let hash = self.hasher.hash_one(link);
            !self.known.contains(&hash) && shown.insert(hash)
        });
        if !links.is_empty() {
            self.link(links).await;
        }
        links.clear();
    }

    /// What was kept stays so until it is done: there is a next time.
    async fn link_kept(&self) {
        loop {
            match within(LINK_MAX, people::link_kept(&self.pool)).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "changed addresses cannot be linked to their persons yet");
                    if !self.waiting.is_closed() {
                        self.kept.notify_one();
                    }
                    return tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Tries until it is done.
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
