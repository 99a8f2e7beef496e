//! Mistakes that are made on purpose, to see that the simulation finds them. They are made in the model of the database and
//! in the hands; the code under test does not know of them, it is only told something else.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// The permission is written when the request has left already.
    AttemptAfterPost,
    /// The attempt statement does not ask the queue whether the job is still there as memory believes.
    AttemptWithoutJoin,
    /// The attempt statement does not ask the lease.
    LeaseNotChecked,
    /// A take-over does not wait for the attempts that are being committed.
    TakeOverWithoutLock,
    /// A request without an answer counts as not taken, and is sent again at once.
    UnknownAsFailed,
    /// A look never goes back before where it was.
    CursorNeverBack,
    /// The last receipt says what a message's state is.
    FoldWithoutLattice,
    /// Who takes a shard over is not told what was posted before.
    LedgerNotRebuilt,
    /// The time in which no receipt could be taken counts as time in which none came.
    ResolutionClockRunsOn,
}
