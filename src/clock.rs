//! The one place that reads the wall clock. Everything else is given the time.

use chrono::{DateTime, Utc};

/// The time now, by this machine's clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
#[must_use]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}
