//! Who paused, resumed and changed what, when and why: people, the provider, and we by ourselves.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;

/// Which events are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those of this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Those whose target contains this.
    pub target: Option<String>,
    /// Those of this action.
    pub action: Option<String>,
    /// No more than this; the newest count.
    pub limit: i64,
}

/// Something that somebody did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperatorEvent {
    /// When.
    pub at: DateTime<Utc>,
    /// A login role, `provider`, or `postrider` for what happens by itself.
    pub who: String,
    /// pause, resume, template_status, messaging_limit, ...
    pub action: String,
    /// What it was done to, for example `template 100/order_shipped/en_US`.
    pub target: String,
    /// Before and after, the reason, the end, what the provider said.
    pub detail: Option<Value>,
}

/// The newest events that fit, oldest of them first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(pool: &PgPool, filter: &Filter) -> Result<Vec<OperatorEvent>, sqlx::Error> {
    sqlx::query_file_as!(
        OperatorEvent,
        "src/store/history.sql",
        filter.since,
        filter.target,
        filter.action,
        filter.limit
    )
    .fetch_all(pool)
    .await
}
