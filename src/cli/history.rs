//! `postrider history`: who paused, resumed, redrove and changed what, when and why. The newest come last, where the eye is.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Context, Exit, output::time};
use crate::store::history::{self, Filter, OperatorEvent};

/// Arguments of `postrider history`.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    /// Events of this time or later, for example 2026-09-21T08:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<DateTime<Utc>>,
    /// Events whose target contains this: a number, an account, a template's name, ...
    #[arg(long, value_name = "TEXT")]
    target: Option<String>,
    /// Events of this sort: pause, resume, redrive, template_status, messaging_limit, ...
    #[arg(long, value_name = "WORD")]
    action: Option<String>,
    /// No more than this, the newest
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: u32,
}

const HEADINGS: [&str; 5] = ["when (UTC)", "who", "action", "target", "why"];

pub(super) async fn run(args: HistoryArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    let filter = Filter {
        since: args.since,
        target: args.target,
        action: args.action,
        limit: args.limit.into(),
    };
    let events = history::list(database.store.pool(), &filter).await?;
    context.output.rows(&events, &HEADINGS, cells)?;
    Ok(Exit::Done)
}

fn cells(event: &OperatorEvent) -> Vec<String> {
    vec![
        time(event.at),
        event.who.clone(),
        event.action.clone(),
        event.target.clone(),
        why(event.detail.as_ref()),
    ]
}

/// The details that people ask for first; `--json` has all of them.
fn why(detail: Option<&Value>) -> String {
    let Some(detail) = detail else {
        return String::new();
    };
    let text = |key: &str| detail.get(key).map(plain);
    let change = text("before")
        .zip(text("after"))
        .map(|(before, after)| format!("{before} → {after}"));
    let until = text("until").map(|until| format!("until {until}"));
    let said = detail.get("said").and_then(said);
    let code = text("code").map(|code| format!("code {code}"));
    let jobs = text("jobs").map(|jobs| format!("{jobs} jobs"));
    let parts = [change, jobs, text("reason"), text("why"), said, code, until];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What the provider calls it.
fn said(value: &Value) -> Option<String> {
    const KEYS: [&str; 5] = [
        "event",
        "decision",
        "correct_category",
        "restriction_type",
        "status",
    ];
    let alert = value.pointer("/alert_info/alert_type");
    alert
        .or_else(|| KEYS.iter().find_map(|key| value.get(key)))
        .map(plain)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_says_what_changed_and_why() {
        for (detail, expected) in [
            (
                json!({"before": "APPROVED", "after": "PAUSED", "why": "FIRST_PAUSE", "webhook": "x"}),
                "APPROVED → PAUSED, FIRST_PAUSE",
            ),
            (
                json!({"reason": "quality", "code": 131_048, "until": "2026-09-22T08:00:00+00:00"}),
                "quality, code 131048, until 2026-09-22T08:00:00+00:00",
            ),
            (json!({"said": {"event": "PIN_CHANGED"}}), "PIN_CHANGED"),
            (
                json!({"jobs": 12, "why": "the provider was down", "filter": {"kind": ["order"]}}),
                "12 jobs, the provider was down",
            ),
            (
                json!({"said": {"event": "x", "alert_info": {"alert_type": "OBA_APPROVED"}}}),
                "OBA_APPROVED",
            ),
            (json!({}), ""),
        ] {
            assert_eq!(why(Some(&detail)), expected);
        }
        assert_eq!(why(None), "");
    }
}
