//! The sandbox is strict where the provider is strict, keeps its limits, tells what happened, and fails on demand.

#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "requests are written where they are used"
)]

mod accepts;
mod desk;
mod faults;
mod free_form;
mod limits;
mod operation;
mod refuses;
mod webhooks;
