//! From a webhook's field and value to what it does.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{About, Change, Matter, TemplateRef};
use crate::rules::messaging_limit::Tier;

/// What a webhook does; nothing when it changes no rule, or is one that we do not know. A restriction that is over `now`
/// does nothing any more.
#[must_use]
pub fn read(field: &str, value: &Value, now: DateTime<Utc>) -> Vec<Change> {
    match field {
        // One of the provider's own examples puts a quality update under the wrong field.
        "message_template_status_update" | "message_template_quality_update"
            if word(value, "new_quality_score").is_some() =>
        {
            template_quality(value)
        }
        "message_template_status_update" => template_status(value),
        // The edited texts come without their variables' examples and without the header's kind.
        "message_template_components_update" => vec![
            about_template(value, "template_edited"),
            Some(Change::Resync),
        ]
        .into_iter()
        .flatten()
        .collect(),
        "template_category_update" => template_category(value),
        "phone_number_quality_update" => number_quality(value),
        "business_capability_update" => limit(value).into_iter().collect(),
        "account_update" => account(value, now),
        "account_alerts" => vec![note(About::Account, "account_alert", value)],
        "account_review_update" => vec![
            note(About::Account, "account_review", value),
            Change::Resync,
        ],
        "phone_number_name_update" => number_name(value),
        "security" => vec![note(about_number(value), "security", value)],
        "business_username_update" => vec![note(about_number(value), "number_username", value)],
        _ => Vec::new(),
    }
}

fn template_status(value: &Value) -> Vec<Change> {
    let Some(template) = template(value) else {
        return vec![Change::Resync];
    };
    let event = word(value, "event").unwrap_or_default();
    let status = match event.as_str() {
        "APPROVED" | "REINSTATED" => "APPROVED",
        "PAUSED" | "DISABLED" | "REJECTED" | "PENDING" | "IN_APPEAL" | "PENDING_DELETION"
        | "DELETED" | "ARCHIVED" | "LIMIT_EXCEEDED" => &event,
        // A warning: it may still be sent.
        "FLAGGED" => return vec![note(About::Template(template), "template_flagged", value)],
        // They say what happened, but not what the template is now.
        _ => return vec![Change::Resync],
    };
    let status = Change::TemplateStatus {
        template: template.clone(),
        status: status.to_owned(),
        why: reasons(value),
    };
    let category = word(value, "message_template_category")
        .map(|category| Change::TemplateCategory { template, category });
    [Some(status), category].into_iter().flatten().collect()
}

/// All that the provider says about why, in its own words.
fn reasons(value: &Value) -> Option<String> {
    let places = [
        text(value, "reason"),
        text(&value["other_info"], "title"),
        text(&value["other_info"], "description"),
        text(&value["rejection_info"], "reason"),
        text(&value["rejection_info"], "recommendation"),
        text(&value["disable_info"], "disable_date"),
    ];
    let said: Vec<String> = places
        .into_iter()
        .flatten()
        .filter(|reason| reason != "NONE")
        .collect();
    (!said.is_empty()).then(|| said.join("; "))
}

fn template_quality(value: &Value) -> Vec<Change> {
    match (template(value), word(value, "new_quality_score")) {
        (Some(template), Some(quality)) => vec![Change::TemplateQuality { template, quality }],
        _ => vec![Change::Resync],
    }
}

/// Announced or done, `new_category` is the present one; an announcement has the coming one in `correct_category`.
fn template_category(value: &Value) -> Vec<Change> {
    let (Some(template), Some(category)) = (template(value), word(value, "new_category")) else {
        return vec![Change::Resync];
    };
    let coming = word(value, "correct_category").filter(|coming| *coming != category);
    let announced = coming.and_then(|_| about_template(value, "template_category_announced"));
    let present = Change::TemplateCategory { template, category };
    [Some(present), announced].into_iter().flatten().collect()
}

fn number_quality(value: &Value) -> Vec<Change> {
    let mut changes: Vec<Change> = limit(value).into_iter().collect();
    match word(value, "event").as_deref() {
        Some("THROUGHPUT_UPGRADE") => {
            changes.extend(text(value, "display_phone_number").map(|number| {
                Change::NumberThroughput {
                    number,
                    level: "HIGH",
                }
            }));
        }
        Some("UPGRADE" | "DOWNGRADE") if !changes.is_empty() => {}
        // A quality or a status that is not named here; the list of numbers has it.
        _ => changes.extend([
            note(about_number(value), "number_event", value),
            Change::Resync,
        ]),
    }
    changes
}

/// Both fields that carry a limit have it under the newest key first. What the provider has not decided is no limit.
fn limit(value: &Value) -> Option<Change> {
    const KEYS: [&str; 5] = [
        "max_daily_conversations_per_business",
        "max_daily_conversation_per_business",
        "max_daily_conversations_per_phone",
        "max_daily_conversation_per_phone",
        "current_limit",
    ];
    KEYS.iter().find_map(|key| {
        let word = word(value, key)?;
        let recipients = match Tier::parse(&word)? {
            Tier::Recipients(recipients) => Some(recipients),
            Tier::Unlimited => None,
            Tier::NotSet => return None,
        };
        Some(Change::MessagingLimit {
            number: text(value, "display_phone_number"),
            word,
            recipients,
        })
    })
}

fn number_name(value: &Value) -> Vec<Change> {
    let is_approved = word(value, "decision").as_deref() == Some("APPROVED");
    let name = text(value, "requested_verified_name").filter(|_| is_approved);
    match text(value, "display_phone_number").zip(name) {
        Some((number, name)) => vec![Change::NumberName { number, name }],
        None => vec![note(about_number(value), "number_name_refused", value)],
    }
}

fn account(value: &Value, now: DateTime<Utc>) -> Vec<Change> {
    let event = word(value, "event").unwrap_or_default();
    let stop = |matter, reason: String| Change::PauseAccount {
        matter,
        reason,
        until: None,
    };
    match event.as_str() {
        "ACCOUNT_RESTRICTION" => restrictions(value, now),
        "ACCOUNT_VIOLATION" => {
            let kind = text(&value["violation_info"], "violation_type");
            let reason = format!(
                "it broke a policy: {}",
                kind.as_deref().unwrap_or("which, it does not say")
            );
            vec![stop(Matter::Violation, reason)]
        }
        "DISABLED_UPDATE" => ban(value),
        "ACCOUNT_DELETED" => vec![stop(Matter::Existence, "it was deleted".to_owned())],
        "ACCOUNT_OFFBOARDED" => {
            let reason = "it left the Cloud API with its phone".to_owned();
            vec![stop(Matter::Connection, reason)]
        }
        "ACCOUNT_RECONNECTED" => vec![
            Change::ResumeAccount {
                matter: Matter::Connection,
            },
            Change::Resync,
        ],
        _ => vec![note(About::Account, "account_event", value)],
    }
}

fn ban(value: &Value) -> Vec<Change> {
    let info = &value["ban_info"];
    let date = text(info, "waba_ban_date").map(|date| format!(" since {date}"));
    match word(info, "waba_ban_state").as_deref() {
        Some("DISABLE") => vec![Change::PauseAccount {
            matter: Matter::Ban,
            reason: format!("it is disabled{}", date.unwrap_or_default()),
            until: None,
        }],
        Some("REINSTATE") => vec![
            Change::ResumeAccount {
                matter: Matter::Ban,
            },
            Change::Resync,
        ],
        // SCHEDULE_FOR_DISABLE has a date, but only in prose.
        _ => vec![note(About::Account, "account_event", value)],
    }
}

/// Restrictions of calls, of replies and of new numbers stop nothing that goes out from here.
fn restrictions(value: &Value, now: DateTime<Utc>) -> Vec<Change> {
    let info = &value["restriction_info"];
    let each = match info {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let changes = each.iter().map(|restriction| {
        let until = moment(&restriction["expiration"]);
        let kind = word(restriction, "restriction_type").unwrap_or_default();
        let reason = [Some(kind.clone()), text(restriction, "remediation")];
        let reason = reason.into_iter().flatten().collect::<Vec<_>>().join(": ");
        if until.is_some_and(|until| until <= now) {
            return note(About::Account, "account_event", restriction);
        }
        match kind.as_str() {
            "RESTRICTED_BIZ_INITIATED_MESSAGING" => Change::PauseAccount {
                matter: Matter::Restriction,
                reason,
                until,
            },
            "RESTRICTED_UTILITY_TEMPLATES" => Change::StopCategory {
                category: "UTILITY",
                reason,
                until,
            },
            _ => note(About::Account, "account_event", restriction),
        }
    });
    changes.collect()
}

fn note(about: About, action: &'static str, detail: &Value) -> Change {
    Change::Note {
        about,
        action,
        detail: detail.clone(),
    }
}

fn about_template(value: &Value, action: &'static str) -> Option<Change> {
    template(value).map(|template| note(About::Template(template), action, value))
}

fn about_number(value: &Value) -> About {
    text(value, "display_phone_number").map_or(About::Account, About::Number)
}

fn template(value: &Value) -> Option<TemplateRef> {
    Some(TemplateRef {
        name: text(value, "message_template_name")?,
        language: text(value, "message_template_language")?.replace('-', "_"),
        provider_id: text(value, "message_template_id"),
    })
}

/// A text or a number under a key; the provider means the same by an empty text as by none. Postgres keeps no NUL.
fn text(value: &Value, key: &str) -> Option<String> {
    match value.get(key)? {
        Value::String(text) if text.trim().is_empty() => None,
        Value::String(text) => Some(text.trim().replace('\0', "\u{fffd}")),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The same, where the provider has a list of words.
fn word(value: &Value, key: &str) -> Option<String> {
    text(value, key).map(|word| word.to_ascii_uppercase())
}

/// A time in seconds or milliseconds, as a number or as a text, or in one of ISO 8601's forms.
fn moment(value: &Value) -> Option<DateTime<Utc>> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    match text.parse::<i64>() {
        Ok(seconds @ ..100_000_000_000) => DateTime::from_timestamp(seconds, 0),
        Ok(milliseconds) => DateTime::from_timestamp_millis(milliseconds),
        Err(_) => DateTime::parse_from_rfc3339(&text)
            .or_else(|_| DateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%z"))
            .ok()
            .map(|at| at.to_utc()),
    }
}
