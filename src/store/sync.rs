//! Writes down what the provider says of numbers, limits and templates.

use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool};

/// A number, as the provider lists it. What it did not say is `None` and stays as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberRow {
    /// Meta's id.
    pub phone_number_id: String,
    /// As people see it.
    pub display_phone_number: Option<String>,
    /// The business name that recipients see.
    pub verified_name: Option<String>,
    /// CONNECTED is the only one that can send.
    pub status: Option<String>,
    /// GREEN, YELLOW, RED or UNKNOWN.
    pub quality_rating: Option<String>,
    /// STANDARD, HIGH or NOT_APPLICABLE.
    pub throughput_level: Option<String>,
    /// Also used on the phone app.
    pub is_on_biz_app: Option<bool>,
}

/// A template in one language, as the provider lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateRow {
    /// Meta's id.
    pub provider_id: Option<String>,
    /// Lower case, digits and underscores.
    pub name: String,
    /// `en_US`, or `en-US`.
    pub language: String,
    /// APPROVED is the only one that sends.
    pub status: String,
    /// MARKETING, UTILITY or AUTHENTICATION.
    pub category: String,
    /// POSITIONAL (also when it does not say) or NAMED.
    pub parameter_format: Option<String>,
    /// The provider's own form.
    pub components: Value,
    /// GREEN, YELLOW, RED or UNKNOWN.
    pub quality: Option<String>,
    /// -1 means 30 days.
    pub message_send_ttl_seconds: Option<i32>,
    /// Why it was rejected.
    pub rejected_reason: Option<String>,
}

/// What writing a list changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// New, or not as it was.
    pub changed: i64,
    /// No longer listed.
    pub gone: i64,
}

/// Writes an account's numbers. One that it no longer lists gets the status DELETED. A number that no sender pool names is
/// kept for people to see, and never sent from.
///
/// # Errors
/// When the database does not answer, or does not know the account.
pub async fn numbers(
    pool: &PgPool,
    waba_id: &str,
    rows: &[NumberRow],
) -> Result<Changes, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    take_turns(&mut transaction).await?;
    let changes = sqlx::query_file_as!(
        Changes,
        "src/store/sync_numbers.sql",
        waba_id,
        &each(rows, |it| it.phone_number_id.clone()),
        &each(rows, |it| it.display_phone_number.clone()) as _,
        &each(rows, |it| it.verified_name.clone()) as _,
        &each(rows, |it| it.status.clone()) as _,
        &each(rows, |it| it.quality_rating.clone()) as _,
        &each(rows, |it| it.throughput_level.clone()) as _,
        &each(rows, |it| it.is_on_biz_app) as _,
    )
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::query!(
        "update postrider.account set synced_at = now() where waba_id = $1",
        waba_id
    )
    .execute(&mut *transaction)
    .await?;
    place(&mut transaction).await?;
    transaction.commit().await?;
    Ok(changes)
}

/// Writes a portfolio's messaging limit; `recipients` is `None` when unlimited. Returns how many numbers changed their
/// shard by it.
///
/// # Errors
/// When the database does not answer.
pub async fn limit(
    pool: &PgPool,
    portfolio_id: &str,
    tier: &str,
    recipients: Option<i32>,
) -> Result<u64, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    take_turns(&mut transaction).await?;
    sqlx::query!(
        "update postrider.portfolio set messaging_limit_tier = $2, messaging_limit = $3, synced_at = now()
         where portfolio_id = $1
           -- The provider may have been asked before a webhook told otherwise.
           and not postrider.told_lately('portfolio ' || $1, 'limit')",
        portfolio_id,
        tier,
        recipients
    )
    .execute(&mut *transaction)
    .await?;
    let moved = place(&mut transaction).await?;
    transaction.commit().await?;
    Ok(moved)
}

/// A number's own messaging limit, where `limit_scope` is `number`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRow {
    /// Meta's id.
    pub phone_number_id: String,
    /// The provider's word for it.
    pub tier: String,
    /// Unique recipients per rolling 24 h; `None` when unlimited.
    pub recipients: Option<i32>,
}

/// Writes the messaging limits of numbers that have their own.
///
/// # Errors
/// When the database does not answer.
pub async fn number_limits(pool: &PgPool, rows: &[LimitRow]) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    take_turns(&mut transaction).await?;
    sqlx::query!(
        "update postrider.number n set messaging_limit_tier = l.tier, messaging_limit = l.recipients
         from unnest($1::text[], $2::text[], $3::int[]) as l(phone_number_id, tier, recipients)
         where n.phone_number_id = l.phone_number_id
           -- As for a portfolio.
           and not postrider.told_lately('number ' || n.phone_number_id, 'limit')",
        &each(rows, |it| it.phone_number_id.clone()),
        &each(rows, |it| it.tier.clone()),
        &each(rows, |it| it.recipients) as _,
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Writes an account's templates. Each that changed gets a new revision; one that is no longer listed becomes DELETED. A
/// template that the provider approves again is no longer paused by the provider's earlier word.
///
/// # Errors
/// When the database does not answer, or does not know the account.
pub async fn templates(
    pool: &PgPool,
    waba_id: &str,
    rows: &[TemplateRow],
) -> Result<Changes, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    take_turns(&mut transaction).await?;
    let before =
        sqlx::query_scalar!(r#"select nextval('postrider.template_revision') as "revision!""#)
            .fetch_one(&mut *transaction)
            .await?;
    let changes = sqlx::query_file_as!(
        Changes,
        "src/store/sync_templates.sql",
        waba_id,
        before,
        &each(rows, |it| it.provider_id.clone()) as _,
        &each(rows, |it| it.name.clone()),
        &each(rows, |it| it.language.replace('-', "_")),
        &each(rows, |it| it.status.clone()),
        &each(rows, |it| it.category.clone()),
        &each(rows, |it| it.parameter_format.clone()) as _,
        &each(rows, |it| it.components.clone()),
        &each(rows, |it| it.quality.clone()) as _,
        &each(rows, |it| it.message_send_ttl_seconds) as _,
        &each(rows, |it| it.rejected_reason.clone()) as _,
    )
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::query_file!("src/store/sync_approved.sql", waba_id, before)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(changes)
}

/// Asks whichever process syncs to read the lists again: something changed at the provider. Returns whether nobody had asked
/// yet.
///
/// # Errors
/// When the database does not answer.
pub async fn ask(database: impl PgExecutor<'_>, account: &str) -> Result<bool, sqlx::Error> {
    let asked = sqlx::query!(
        "update postrider.account set sync_asked_at = now() where waba_id = $1 and sync_asked_at is null",
        account
    )
    .execute(database)
    .await?;
    Ok(asked.rows_affected() > 0)
}

/// Whether a webhook or an answer told of something that we do not know, so that the lists should be read again. Whoever asks this does
/// it: the next one is told no.
///
/// # Errors
/// When the database does not answer.
pub async fn take_asked(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let asked = sqlx::query!(
        "update postrider.account set sync_asked_at = null where sync_asked_at is not null"
    )
    .execute(pool)
    .await?;
    Ok(asked.rows_affected() > 0)
}

/// One writer of facts at a time. Template revisions come from a sequence: were two transactions to write at once, the
/// later number could commit first, and a reader that had seen it would never see the earlier one.
pub(super) async fn take_turns(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(r#"select pg_advisory_xact_lock(hashtext('postrider.facts')) as "locked!: ()""#)
        .fetch_one(connection)
        .await?;
    Ok(())
}

/// Puts every number into the shard where it belongs; returns how many moved.
pub(super) async fn place(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    // A shard without numbers is renewed by nobody. What numbers left open that went away is seen to where they are, so
    // whoever takes it with new ones need not look back to then.
    sqlx::query!(
        "update postrider.lease set settled_until = clock_timestamp() - interval '10 seconds'
         where settled_until < clock_timestamp() - interval '1 minute' and epoch > 0
           and not exists (select from postrider.number where number.shard = lease.shard)"
    )
    .execute(&mut *connection)
    .await?;
    let placed = sqlx::query_file!("src/store/sync_place.sql")
        .execute(connection)
        .await?;
    Ok(placed.rows_affected())
}

fn each<R, T>(rows: &[R], column: impl Fn(&R) -> T) -> Vec<T> {
    rows.iter().map(column).collect()
}
