//! The world that a seed makes: which numbers there are, how fast they may send, who sends for them, and what goes wrong.

use std::time::Duration;

use postrider::rules::{
    job::{Lane, Priority},
    pair::Allowance,
};

use super::{dice::Dice, sabotage::Sabotage};

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How long a lease holds without renewal.
pub(crate) const TTL: Duration = secs(5);

/// What a job can be about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KindPlan {
    pub(crate) name: &'static str,
    pub(crate) priority: Priority,
    pub(crate) valid_for: Duration,
    pub(crate) resolve_after: Duration,
    pub(crate) resend: bool,
}

pub(crate) const KINDS: [KindPlan; 4] = [
    KindPlan {
        name: "otp",
        priority: Priority::Urgent,
        valid_for: secs(300),
        resolve_after: secs(20),
        resend: true,
    },
    KindPlan {
        name: "order",
        priority: Priority::Normal,
        valid_for: secs(24 * 3_600),
        resolve_after: secs(120),
        resend: true,
    },
    // Not sent again by itself.
    KindPlan {
        name: "booking",
        priority: Priority::Normal,
        valid_for: secs(12 * 3_600),
        resolve_after: secs(120),
        resend: false,
    },
    KindPlan {
        name: "survey",
        priority: Priority::Bulk,
        valid_for: secs(1_800),
        resolve_after: secs(120),
        resend: true,
    },
];

#[derive(Debug, Clone)]
pub(crate) struct LanePlan {
    pub(crate) lane: Lane,
    pub(crate) shard: i16,
    /// Messages a second.
    pub(crate) rate: f64,
    /// Which of the messaging limits it falls under.
    pub(crate) pool: Option<usize>,
}

/// What goes wrong during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process is killed, and starts again after a while.
    Kill,
    /// A process does nothing for a while, and then goes on with what it had.
    Freeze,
    /// A process is stopped in order, and starts again.
    Restart,
    /// A process comes to help, or leaves for good.
    JoinOrLeave,
    /// The wall clock of a machine jumps.
    WallJump,
    /// The database is away; what was not committed is undone.
    DatabaseAway,
    /// Statements take long.
    DatabaseSlow,
    /// No receipt is taken.
    WebhookAway,
    /// Somebody withdraws jobs.
    Cancel,
    /// Somebody pauses a number for a while, and its jobs move to others.
    Pause,
    /// A number comes under another shard.
    Reshard,
    /// People withdraw their consent, or give it again.
    Consent,
    /// Somebody writes to us.
    Inbound,
    /// The provider takes no request for a while, or answers none.
    ProviderAway,
}

const FAULTS: [Fault; 14] = [
    Fault::Kill,
    Fault::Freeze,
    Fault::Restart,
    Fault::JoinOrLeave,
    Fault::WallJump,
    Fault::DatabaseAway,
    Fault::DatabaseSlow,
    Fault::WebhookAway,
    Fault::Cancel,
    Fault::Pause,
    Fault::Reshard,
    Fault::Consent,
    Fault::Inbound,
    Fault::ProviderAway,
];

/// How often what happens to a request, as shares of all.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mood {
    pub(crate) lost_before: f64,
    pub(crate) lost_after: f64,
    pub(crate) bare_5xx: f64,
    pub(crate) coded_5xx: f64,
    pub(crate) without_id: f64,
    pub(crate) throttled: f64,
    pub(crate) refused: f64,
    pub(crate) held: f64,
    /// Of the messages that were taken, so many never get a receipt.
    pub(crate) withheld: f64,
    /// Receipts that come again.
    pub(crate) repeated: f64,
    /// Statements that fail, half of them after they were done.
    pub(crate) statement_fails: f64,
    /// Requests that find no connection for a while.
    pub(crate) crowded: f64,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) instances: usize,
    pub(crate) workers: usize,
    pub(crate) lanes: Vec<LanePlan>,
    /// Unique recipients in 24 h, by pool.
    pub(crate) limits: Vec<u32>,
    pub(crate) pair: Allowance,
    pub(crate) people: usize,
    /// What goes wrong; a seed has only some of it, so that one trouble does not hide another.
    pub(crate) faults: Vec<Fault>,
    pub(crate) mood: Mood,
    /// Dense stretches, with quiet ones between them.
    pub(crate) stretches: usize,
    /// At most so much goes wrong in a dense stretch.
    pub(crate) troubles: usize,
    /// Jobs a second in a dense stretch.
    pub(crate) density: f64,
    /// Share of the enqueueing transactions that commit late.
    pub(crate) late_commits: f64,
}

impl Plan {
    /// The world of this seed. Where a mistake is to be found, what it takes to find it is always in play.
    pub(crate) fn new(dice: &mut Dice, sabotage: Option<Sabotage>) -> Self {
        let pools = dice.below(3);
        let lanes = 2 + dice.below(4);
        let mut plan = Self {
            instances: 1 + dice.below(3),
            workers: 1 + dice.below(2),
            lanes: (0..lanes).map(|n| lane(n, pools, dice)).collect(),
            limits: (0..pools).map(|_| 10 + dice.below(40) as u32).collect(),
            pair: Allowance {
                burst: 2 + dice.below(6) as u32,
                refill: secs(6),
            },
            people: 5 + dice.below(80),
            faults: FAULTS.into_iter().filter(|_| dice.chance(0.5)).collect(),
            mood: mood(dice),
            stretches: 1 + dice.below(4),
            troubles: 6,
            density: dice.pick(&[0.5, 2.0, 8.0]),
            late_commits: dice.pick(&[0.0, 0.05, 0.3]),
        };
        if let Some(sabotage) = sabotage {
            plan.provoke(sabotage);
        }
        plan
    }

    fn provoke(&mut self, sabotage: Sabotage) {
        let also: &[Fault] = match sabotage {
            Sabotage::AttemptAfterPost => &[Fault::Kill],
            Sabotage::AttemptWithoutJoin => &[Fault::Cancel, Fault::Consent, Fault::Pause],
            Sabotage::LeaseNotChecked | Sabotage::TakeOverWithoutLock => {
                &[Fault::Freeze, Fault::Kill, Fault::DatabaseSlow]
            }
            Sabotage::UnknownAsFailed | Sabotage::FoldWithoutLattice => &[Fault::WebhookAway],
            Sabotage::CursorNeverBack => &[],
            Sabotage::LedgerNotRebuilt => &[Fault::Kill, Fault::Restart],
            Sabotage::ResolutionClockRunsOn => &[Fault::WebhookAway, Fault::ProviderAway],
        };
        let more = also.iter().filter(|fault| !self.faults.contains(fault));
        let more: Vec<Fault> = more.copied().collect();
        self.faults.extend(more);
        match sabotage {
            Sabotage::UnknownAsFailed | Sabotage::ResolutionClockRunsOn => {
                self.mood.lost_after = self.mood.lost_after.max(0.1);
            }
            Sabotage::CursorNeverBack => self.late_commits = 0.3,
            // What has to come together here is rare: much of it, and little else.
            Sabotage::AttemptWithoutJoin
            | Sabotage::LeaseNotChecked
            | Sabotage::TakeOverWithoutLock => {
                self.faults = also.to_vec();
                self.instances = 3;
                self.density = 8.0;
                self.troubles = 40;
            }
            Sabotage::LedgerNotRebuilt => {
                for lane in &mut self.lanes {
                    lane.pool = Some(0);
                    lane.shard = 0;
                }
                self.limits = vec![10];
            }
            _ => {}
        }
    }
}

/// Numbers with a limit share the shard of their pool; the others are spread over some more.
fn lane(n: usize, pools: usize, dice: &mut Dice) -> LanePlan {
    let pool = (pools > 0 && dice.chance(0.6)).then(|| dice.below(pools));
    LanePlan {
        lane: Lane(n as i32 + 1),
        shard: match pool {
            Some(pool) => pool as i16,
            None => 10 + dice.below(4) as i16,
        },
        rate: dice.pick(&[1.0, 2.5, 5.0, 10.0]),
        pool,
    }
}

fn mood(dice: &mut Dice) -> Mood {
    let mut some = |share: f64| if dice.chance(0.5) { share } else { 0.0 };
    Mood {
        lost_before: some(0.03),
        lost_after: some(0.05),
        bare_5xx: some(0.03),
        coded_5xx: some(0.05),
        without_id: some(0.02),
        throttled: some(0.03),
        refused: some(0.03),
        held: some(0.05),
        withheld: some(0.05),
        repeated: some(0.2),
        statement_fails: some(0.02),
        crowded: some(0.05),
    }
}
