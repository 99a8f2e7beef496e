//! What the provider changes by webhook, written where every instance reads it, in the transaction that keeps the webhook.
//!
//! A webhook that was repeated does nothing, and one that comes late undoes nothing newer: [`is_news`] holds its time
//! against those that were heeded and against the last list that was read. Only the app that the configuration names for
//! an account speaks for it. The history is written by triggers (migration 0018), with what is left in `postrider.told`
//! for them. What is not as we know it is not guessed at: the account asks for a sync.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use super::{
    facts::{self, By, Pause, Scope},
    receipts::Event,
    sync,
};
use crate::rules::change::{About, Change, Matter, TemplateRef};

/// A webhook that changes something.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// As it is kept.
    pub event: Event,
    /// Meta's id of the account that it is about.
    pub account: String,
    /// The provider's time.
    pub at: DateTime<Utc>,
    /// What it does.
    pub changes: Vec<Change>,
}

/// Keeps webhooks and does what they say, all of them or none. Returns what was changed, by account.
///
/// # Errors
/// When the database does not answer or refuses a value.
pub async fn heed(pool: &PgPool, all: &[Told]) -> Result<Vec<(String, Change)>, sqlx::Error> {
    let mut changed = Vec::new();
    if all.is_empty() {
        return Ok(changed);
    }
    let mut tx = pool.begin().await?;
    sync::take_turns(&mut tx).await?;
    for told in all {
        if !keep(&mut tx, &told.event).await? || !speaks_for(&mut tx, told).await? {
            continue;
        }
        for change in &told.changes {
            tell(&mut tx, told, change).await?;
            if apply(&mut tx, told, change).await? {
                changed.push((told.account.clone(), change.clone()));
            }
        }
    }
    tx.commit().await?;
    Ok(changed)
}

/// Keeps the webhook, unless it was kept before; returns whether it is new.
async fn keep(conn: &mut PgConnection, event: &Event) -> Result<bool, sqlx::Error> {
    let kept = sqlx::query!(
        "insert into postrider.webhook_event (received_at, app, field, problem, raw)
         select now(), $1, $2, $3, $4
         where not exists (
           select from postrider.webhook_event e where md5(e.raw) = md5($4) and e.raw = $4 and e.app = $1)",
        event.app,
        event.field,
        event.problem,
        event.raw
    )
    .execute(conn)
    .await?;
    Ok(kept.rows_affected() > 0)
}

/// Whether the account is ours, and the app that was called is its own.
async fn speaks_for(conn: &mut PgConnection, told: &Told) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from postrider.account where waba_id = $1 and app = $2) as "speaks!""#,
        told.account,
        told.event.app
    )
    .fetch_one(conn)
    .await
}

/// Leaves for the triggers what the history says beside before and after.
async fn tell(conn: &mut PgConnection, told: &Told, change: &Change) -> Result<(), sqlx::Error> {
    let mut context = json!({ "webhook": told.event.field, "said_at": told.at });
    if let Change::TemplateStatus { why: Some(why), .. } = change {
        context["why"] = Value::from(why.as_str());
    }
    sqlx::query!(
        "select set_config('postrider.told', $1, true)",
        context.to_string()
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Does what one change says; returns whether anything became different by it.
async fn apply(conn: &mut PgConnection, told: &Told, change: &Change) -> Result<bool, sqlx::Error> {
    match change {
        Change::TemplateStatus { template, .. }
        | Change::TemplateQuality { template, .. }
        | Change::TemplateCategory { template, .. } => {
            change_template(conn, told, template, change).await
        }
        Change::StopCategory {
            category,
            reason,
            until,
        } => stop_category(conn, told, category, reason, *until).await,
        Change::MessagingLimit {
            number,
            word,
            recipients,
        } => {
            let recipients = recipients.map(|it| i32::try_from(it).unwrap_or(i32::MAX));
            match number {
                Some(number) if is_limit_per_number(conn).await? => {
                    change_number_limit(conn, told, number, word, recipients).await
                }
                _ => change_limit(conn, told, word, recipients).await,
            }
        }
        Change::NumberThroughput { number, level } => {
            change_number(conn, told, number, Some(level), None).await
        }
        Change::NumberName { number, name } => {
            change_number(conn, told, number, None, Some(name)).await
        }
        Change::PauseAccount {
            matter,
            reason,
            until,
        } => pause_account(conn, told, *matter, reason, *until).await,
        Change::ResumeAccount { matter } => resume_account(conn, told, *matter).await,
        Change::Resync => sync::ask(conn, &told.account).await,
        Change::Note {
            about,
            action,
            detail,
        } => note(conn, told, about, action, detail).await,
    }
}

/// Whether nothing newer was heeded about that side of the thing. From then on, nothing older is.
async fn is_news(
    conn: &mut PgConnection,
    told: &Told,
    subject: &str,
    aspect: &str,
) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query!(
        "insert into postrider.told as t (subject, aspect, at) values ($1, $2, $3)
         on conflict (subject, aspect) do update set at = excluded.at where t.at <= excluded.at",
        subject,
        aspect,
        told.at
    )
    .execute(conn)
    .await?;
    Ok(noted.rows_affected() > 0)
}

async fn change_template(
    conn: &mut PgConnection,
    told: &Told,
    template: &TemplateRef,
    change: &Change,
) -> Result<bool, sqlx::Error> {
    let (aspect, status, quality, category) = match change {
        Change::TemplateStatus { status, .. } => ("status", Some(status), None, None),
        Change::TemplateQuality { quality, .. } => ("quality", None, Some(quality), None),
        Change::TemplateCategory { category, .. } => ("category", None, None, Some(category)),
        _ => return Ok(false),
    };
    let Some(listed_at) = listed_at(conn, told, template).await? else {
        sync::ask(conn, &told.account).await?;
        return Ok(false);
    };
    let target = target(told, template);
    let is_news = is_news(conn, told, &format!("template {target}"), aspect).await?;
    if !is_news || told.at < listed_at {
        return Ok(false);
    }
    let changed = sqlx::query_file!(
        "src/store/changes_template.sql",
        told.account,
        template.name,
        template.language,
        status,
        quality,
        category
    )
    .execute(&mut *conn)
    .await?;
    let resumed = status.is_some_and(|status| status == "APPROVED")
        && resume(conn, told, Scope::Template, &target).await?;
    Ok(changed.rows_affected() > 0 || resumed)
}

/// When the template was last seen in a list, less a minute, because lists are not told all at once and clocks differ.
/// `None` when it is not there, or is another one of the same name.
async fn listed_at(
    conn: &mut PgConnection,
    told: &Told,
    template: &TemplateRef,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select synced_at - interval '1 minute' as "listed_at!" from postrider.template
           where waba_id = $1 and name = $2 and language = $3 and coalesce(provider_id = $4, true)"#,
        told.account,
        template.name,
        template.language,
        template.provider_id
    )
    .fetch_optional(conn)
    .await
}

/// As pauses name it.
fn target(told: &Told, template: &TemplateRef) -> String {
    format!("{}/{}/{}", told.account, template.name, template.language)
}

async fn stop_category(
    conn: &mut PgConnection,
    told: &Told,
    category: &str,
    reason: &str,
    until: Option<DateTime<Utc>>,
) -> Result<bool, sqlx::Error> {
    let subject = format!("account {}", told.account);
    if !is_news(conn, told, &subject, &format!("category {category}")).await? {
        return Ok(false);
    }
    let targets = sqlx::query_scalar!(
        r#"select concat_ws('/', waba_id, name, language) as "target!" from postrider.template
           where waba_id = $1 and category = $2 and status not in ('DELETED', 'REJECTED')"#,
        told.account,
        category
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut changed = false;
    for target in targets {
        changed |= pause(conn, told, Scope::Template, &target, reason, until).await?;
    }
    Ok(changed)
}

/// The limit is the account's portfolio's, and moves its numbers to other shards when it comes or goes.
async fn change_limit(
    conn: &mut PgConnection,
    told: &Told,
    word: &str,
    recipients: Option<i32>,
) -> Result<bool, sqlx::Error> {
    let portfolio = sqlx::query!(
        r#"select p.portfolio_id, coalesce(p.synced_at - interval '1 minute' > $2, false) as "is_older!"
           from postrider.portfolio p join postrider.account a using (portfolio_id) where a.waba_id = $1"#,
        told.account,
        told.at
    )
    .fetch_one(&mut *conn)
    .await?;
    let subject = format!("portfolio {}", portfolio.portfolio_id);
    if !is_news(conn, told, &subject, "limit").await? || portfolio.is_older {
        return Ok(false);
    }
    let changed = sqlx::query!(
        "update postrider.portfolio set messaging_limit = $2, messaging_limit_tier = $3
         where portfolio_id = $1 and (messaging_limit is distinct from $2 or messaging_limit_tier is null)",
        portfolio.portfolio_id,
        recipients,
        word
    )
    .execute(&mut *conn)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(false);
    }
    sync::place(conn).await?;
    Ok(true)
}

/// Whether each number has a messaging limit of its own, as the configuration says.
async fn is_limit_per_number(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (
             select from postrider.setting where name = 'limit_scope' and value = '"number"') as "is!""#
    )
    .fetch_one(conn)
    .await
}

async fn change_number_limit(
    conn: &mut PgConnection,
    told: &Told,
    display: &str,
    word: &str,
    recipients: Option<i32>,
) -> Result<bool, sqlx::Error> {
    let Some(number) = number(conn, told, display).await? else {
        return sync::ask(conn, &told.account).await.map(|_| false);
    };
    if !is_news(conn, told, &format!("number {number}"), "limit").await? {
        return Ok(false);
    }
    let changed = sqlx::query!(
        "update postrider.number set messaging_limit = $2, messaging_limit_tier = $3
         where phone_number_id = $1 and (messaging_limit is distinct from $2 or messaging_limit_tier is null)
           and coalesce(synced_at - interval '1 minute' <= $4, true)",
        number,
        recipients,
        word,
        told.at
    )
    .execute(conn)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// These webhooks name a number as people see it, in whichever spelling.
async fn change_number(
    conn: &mut PgConnection,
    told: &Told,
    display: &str,
    throughput_level: Option<&str>,
    verified_name: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let Some(number) = number(conn, told, display).await? else {
        return sync::ask(conn, &told.account).await.map(|_| false);
    };
    let aspect = throughput_level.map_or("name", |_| "throughput");
    if !is_news(conn, told, &format!("number {number}"), aspect).await? {
        return Ok(false);
    }
    let changed = sqlx::query!(
        "update postrider.number set
           throughput_level = coalesce($2, throughput_level), verified_name = coalesce($3, verified_name)
         where phone_number_id = $1
           and (throughput_level is distinct from coalesce($2, throughput_level)
                or verified_name is distinct from coalesce($3, verified_name))
           and coalesce(synced_at - interval '1 minute' <= $4, true)",
        number,
        throughput_level,
        verified_name,
        told.at
    )
    .execute(conn)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// Meta's id of a number of the account.
async fn number(
    conn: &mut PgConnection,
    told: &Told,
    display: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r"select phone_number_id from postrider.number
          where waba_id = $1
            and regexp_replace(display_phone_number, '\D', '', 'g') = regexp_replace($2, '\D', '', 'g')",
        told.account,
        display
    )
    .fetch_optional(conn)
    .await
}

async fn pause_account(
    conn: &mut PgConnection,
    told: &Told,
    matter: Matter,
    reason: &str,
    until: Option<DateTime<Utc>>,
) -> Result<bool, sqlx::Error> {
    let subject = format!("account {}", told.account);
    Ok(is_news(conn, told, &subject, matter.as_str()).await?
        && pause(conn, told, Scope::Account, &told.account, reason, until).await?)
}

async fn resume_account(
    conn: &mut PgConnection,
    told: &Told,
    matter: Matter,
) -> Result<bool, sqlx::Error> {
    let subject = format!("account {}", told.account);
    Ok(is_news(conn, told, &subject, matter.as_str()).await?
        && resume(conn, told, Scope::Account, &told.account).await?)
}

/// Stops something as of when it was said, so that what was said next ends it, however late both are heard.
async fn pause(
    conn: &mut PgConnection,
    told: &Told,
    scope: Scope,
    target: &str,
    reason: &str,
    until: Option<DateTime<Utc>>,
) -> Result<bool, sqlx::Error> {
    let pause = Pause {
        scope,
        target,
        by: By::Provider,
        reason,
        error_code: None,
        since: Some(told.at),
        until,
    };
    facts::pause(conn, &pause).await
}

/// Ends what the provider paused, unless that was after this was said: an answer may be newer than a webhook.
async fn resume(
    conn: &mut PgConnection,
    told: &Told,
    scope: Scope,
    target: &str,
) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query!(
        "delete from postrider.pause
         where scope = $1 and target = $2 and source = 'provider' and since <= $3::timestamptz + interval '1 minute'",
        scope.as_str(),
        target,
        told.at
    )
    .execute(conn)
    .await?;
    Ok(ended.rows_affected() > 0)
}

async fn note(
    conn: &mut PgConnection,
    told: &Told,
    about: &About,
    action: &str,
    detail: &Value,
) -> Result<bool, sqlx::Error> {
    let target = match about {
        About::Account => format!("account {}", told.account),
        About::Template(template) => format!("template {}", target(told, template)),
        About::Number(display) => {
            let number = number(conn, told, display).await?;
            format!("number {}", number.as_deref().unwrap_or(display))
        }
    };
    sqlx::query!(
        "insert into postrider.operator_event (who, action, target, detail)
         values ('provider', $1, $2, current_setting('postrider.told')::jsonb || jsonb_build_object('said', $3::jsonb))",
        action,
        target,
        detail
    )
    .execute(conn)
    .await?;
    Ok(true)
}
