//! How much is attempted at once: as much as the database commits and the machine posts while it is fresh.

use std::time::Duration;

/// Attempts are gathered for this long, so that one commit serves many; urgent jobs do not wait for it.
const ATTEMPT_EVERY: Duration = Duration::from_millis(25);
/// After a batch as large as this there is a rush, and the next is gathered for longer: fewer commits, and
/// by the horizon no slot is missed.
const RUSH: usize = 50;
const ATTEMPT_EVERY_IN_A_RUSH: Duration = Duration::from_millis(60);
/// For so long after it was asked for, an attempt may be posted. The statement asks for consent, and a withdrawal that is older
/// than this must hold.
pub(super) const FRESH_FOR: Duration = Duration::from_secs(2);
/// Jobs with an attempt that wait for their slots, about, over all lanes of a worker, at most and at least.
const PIPELINE_MAX: usize = 1_500;
const PIPELINE_MIN: usize = 100;
/// From the least to the most it takes so long.
const PIPELINE_GROWS_WITHIN: Duration = Duration::from_secs(15);
/// The smallest batch is one of 15.
const HALVED_MAX: u32 = 6;
/// One statement's worth.
const BATCH_MAX: usize = 1_000;
/// A commit is expected to take as long as the longest of late, but not longer than this.
const COMMIT_EXPECTED_MAX: Duration = Duration::from_millis(500);
/// A long one is half forgotten after so long: stalls tend to come back (checkpoints, backups).
const COMMIT_HALF_LIFE: Duration = Duration::from_secs(10);

/// How attempts are being committed.
#[derive(Debug, Default)]
pub(super) struct Commits {
    pub(super) next_at: Duration,
    pub(super) running: usize,
    pub(super) urgent_running: usize,
    /// Jobs of the last batch that was gathered.
    pub(super) gathered: usize,
    /// Lanes that were served by batches which were too small for all of them: the next one begins with the others.
    pub(super) served: usize,
    /// How often the largest batch is halved.
    halved: u32,
    expected: Duration,
    expected_at: Duration,
}

impl Commits {
    /// How long a commit may take now, by those of late.
    pub(super) fn expected(&self, now: Duration) -> Duration {
        let half_lives =
            now.saturating_sub(self.expected_at).as_secs_f64() / COMMIT_HALF_LIFE.as_secs_f64();
        self.expected.mul_f64(0.5_f64.powf(half_lives))
    }

    /// How long the next batch is gathered.
    pub(super) fn every(&self) -> Duration {
        if self.gathered >= RUSH {
            ATTEMPT_EVERY_IN_A_RUSH
        } else {
            ATTEMPT_EVERY
        }
    }

    /// Jobs in a batch, at most. What a slow database takes too long over is no longer fresh when it is permitted, so a batch
    /// that took long is followed by smaller ones.
    pub(super) fn most(&self) -> usize {
        BATCH_MAX >> self.halved
    }

    /// A commit of so many jobs took so long.
    pub(super) fn took(&mut self, jobs: usize, took: Duration, now: Duration) {
        if took > FRESH_FOR / 2 {
            self.halved = (self.halved + 1).min(HALVED_MAX);
        } else if jobs >= self.most() / 2 {
            // A small one says nothing of larger ones.
            self.halved = self.halved.saturating_sub(1);
        }
        self.expected = self.expected(now).max(took).min(COMMIT_EXPECTED_MAX);
        self.expected_at = now;
    }
}

/// How many attempts may wait for their slots. Where the numbers may post more than the machine can, some wait for too long and
/// were made in vain; then there are half as many, and more again by and by.
#[derive(Debug)]
pub(super) struct Pipeline {
    most: usize,
    /// Since when it grows.
    since: Duration,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            most: PIPELINE_MAX,
            since: Duration::ZERO,
        }
    }
}

impl Pipeline {
    /// How many there may be now.
    pub(super) fn most(&self, now: Duration) -> usize {
        let grows_for = now.saturating_sub(self.since).min(PIPELINE_GROWS_WITHIN);
        let grown = (PIPELINE_MAX - PIPELINE_MIN) as u128 * grows_for.as_millis()
            / PIPELINE_GROWS_WITHIN.as_millis();
        (self.most + grown as usize).min(PIPELINE_MAX)
    }

    /// One was made in vain. What was made before the last halving tells nothing of it.
    pub(super) fn in_vain(&mut self, now: Duration) {
        if now >= self.since + FRESH_FOR {
            self.most = (self.most(now) / 2).max(PIPELINE_MIN);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn what_is_attempted_in_vain_halves_the_pipeline_once_and_it_grows_again() {
        let mut pipeline = Pipeline::default();
        assert_eq!(pipeline.most(secs(5)), PIPELINE_MAX);
        for _ in 0..100 {
            pipeline.in_vain(secs(6));
        }
        pipeline.in_vain(Duration::from_millis(7_900));
        assert_eq!(pipeline.most(secs(6)), PIPELINE_MAX / 2);
        let later = pipeline.most(secs(9));
        assert!(later > PIPELINE_MAX / 2 && later < PIPELINE_MAX, "{later}");
        pipeline.in_vain(secs(9));
        assert_eq!(pipeline.most(secs(9)), later / 2);
        assert_eq!(pipeline.most(secs(60)), PIPELINE_MAX);
    }

    #[test]
    fn the_pipeline_is_never_shut() {
        let mut pipeline = Pipeline::default();
        for second in 0..1_000 {
            pipeline.in_vain(secs(second));
        }
        assert!(pipeline.most(secs(1_000)) >= PIPELINE_MIN);
    }
}
