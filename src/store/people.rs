//! People, not strings: addresses that are one person's share consent and service windows.
//!
//! What a person wants is written under the name they go by at that moment; that a link made meanwhile leaves nothing
//! behind under another name is seen to by a trigger and a lock (migration 0020), which whoever writes consent holds
//! shared and whoever links holds alone. Links are rare and take milliseconds; one that has to wait for a long transaction
//! gives up, so that nobody queues behind it, and is tried again.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use super::receipts::column;
use crate::rules::job::Lane;

/// Two addresses that are one person's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Link {
    /// Canonical key of the address that keeps its name for the person; the phone number where there is one.
    pub known: String,
    /// Canonical key of the other.
    pub also: String,
    /// What showed it.
    pub source: LinkSource,
}

/// What showed that two addresses are one person's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkSource {
    /// The provider answered with another address than we sent to.
    Answer,
    /// A webhook named both.
    Webhook,
    /// The person changed their number.
    NumberChange,
    /// The provider changed the person's business-scoped id.
    IdChange,
}

impl LinkSource {
    /// As stored in `address.source`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LinkSource::Answer => "answer",
            LinkSource::Webhook => "webhook",
            LinkSource::NumberChange => "number_change",
            LinkSource::IdChange => "id_change",
        }
    }

    /// Whether the provider tells it once only. Of all others later receipts and messages tell again.
    #[must_use]
    pub fn is_shown_once(self) -> bool {
        matches!(self, LinkSource::NumberChange | LinkSource::IdChange)
    }
}

/// A wish of a person about being written to.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Canonical key of an address of theirs.
    pub key: String,
    /// `all`, or what it is limited to.
    pub scope: String,
    /// Whether they agree or withdraw.
    pub given: bool,
    /// When they said so.
    pub at: DateTime<Utc>,
    /// Where: `whatsapp` in a message, `provider` when the provider told us.
    pub source: &'static str,
    /// What proves it.
    pub evidence: Option<Value>,
}

/// Makes addresses one person's, with their consents and windows. Returns how many links were new. Fails when the lock
/// cannot be had at once (SQLSTATE 55P03); then nothing is done, and it can be tried again.
pub async fn link(pool: &PgPool, links: &[Link]) -> Result<usize, sqlx::Error> {
    let new = new_links(pool, links).await?;
    if new.is_empty() {
        return Ok(0);
    }
    let mut tx = pool.begin().await?;
    hold_alone(&mut tx).await?;
    let met = meet(&mut tx, &new).await?;
    let mut linked = met.len();
    let others = new
        .iter()
        .enumerate()
        .filter(|(index, _)| !met.contains(index));
    for (_, link) in others {
        let source = link.source.as_str();
        let is_new =
            sqlx::query_file_scalar!("src/store/people_link.sql", &link.known, &link.also, source)
                .fetch_one(&mut *tx)
                .await?;
        linked += usize::from(is_new);
    }
    tx.commit().await?;
    Ok(linked)
}

/// Keeps links until [`link_kept`] makes them, whatever happens to this process.
///
/// # Errors
/// When the database does not answer.
pub async fn keep(pool: &PgPool, links: &[&Link]) -> Result<(), sqlx::Error> {
    if links.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/store/people_keep.sql",
        &column(links, |link| link.known.as_str()) as &[&str],
        &column(links, |link| link.also.as_str()) as &[&str],
        &column(links, |link| link.source.as_str()) as &[&str],
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Makes the links that were kept, up to a thousand of them, in the order in which they came. Returns whether there may be
/// more.
///
/// # Errors
/// As [`link`]; then all of them are still there.
pub async fn link_kept(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let is_empty = sqlx::query_scalar!(
        r#"select not exists (select from postrider.link_inbox) as "is_empty!""#
    )
    .fetch_one(pool)
    .await?;
    if is_empty {
        return Ok(false);
    }
    let mut tx = pool.begin().await?;
    hold_alone(&mut tx).await?;
    let mut kept = sqlx::query_file!("src/store/people_kept.sql")
        .fetch_all(&mut *tx)
        .await?;
    kept.sort_by_key(|link| link.id);
    for link in &kept {
        sqlx::query_file_scalar!(
            "src/store/people_link.sql",
            &link.known,
            &link.also,
            &link.source
        )
        .fetch_one(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(!kept.is_empty())
}

/// Writes down the addresses that are seen for the first time, all at once, and tells which of the links that were. Nearly
/// all links are of this sort: whoever gets a first message is told of with their business-scoped id.
async fn meet(conn: &mut PgConnection, links: &[&Link]) -> Result<HashSet<usize>, sqlx::Error> {
    let ordinals = sqlx::query_file_scalar!(
        "src/store/people_meet.sql",
        &column(links, |link| link.known.as_str()) as &[&str],
        &column(links, |link| link.also.as_str()) as &[&str],
        &column(links, |link| link.source.as_str()) as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let index = |ordinal: i64| usize::try_from(ordinal - 1).ok();
    Ok(ordinals.into_iter().filter_map(index).collect())
}

/// Those links that are not in the database yet; nearly always none.
async fn new_links<'a>(pool: &PgPool, links: &'a [Link]) -> Result<Vec<&'a Link>, sqlx::Error> {
    let ordinals = sqlx::query_file_scalar!(
        "src/store/people_new_links.sql",
        &column(links, |link| link.known.as_str()) as &[&str],
        &column(links, |link| link.also.as_str()) as &[&str],
    )
    .fetch_all(pool)
    .await?;
    let at = |ordinal: i64| {
        usize::try_from(ordinal - 1)
            .ok()
            .and_then(|index| links.get(index))
    };
    Ok(ordinals.into_iter().filter_map(at).collect())
}

/// Notes that the provider told us of a person who wants no marketing from this business.
///
/// # Errors
/// When the database does not answer.
pub async fn opt_out_of_marketing(
    pool: &PgPool,
    person: &str,
    at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let wish = Wish {
        key: person.to_owned(),
        scope: "marketing".to_owned(),
        given: false,
        at,
        source: "provider",
        evidence: None,
    };
    heed(&mut *pool.acquire().await?, &[wish]).await
}

/// Closes a service window that the provider says is closed.
///
/// # Errors
/// When the database does not answer.
pub async fn close_window(pool: &PgPool, person: &str, lane: Lane) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from postrider.service_window where person = $1 and lane = $2",
        person,
        lane.0
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Writes down what people want; the newest word of each sort stays.
pub async fn heed(conn: &mut PgConnection, wishes: &[Wish]) -> Result<(), sqlx::Error> {
    if wishes.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/store/people_heed.sql",
        &column(wishes, |w| w.key.as_str()) as &[&str],
        &column(wishes, |w| w.scope.as_str()) as &[&str],
        &column(wishes, |w| w.given),
        &column(wishes, |w| w.at),
        &column(wishes, |w| w.source) as &[&str],
        &column(wishes, |w| w.evidence.as_ref()) as &[Option<&Value>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Until the end of the transaction nobody writes consent. A quarter of a second is long enough for those who are about
/// to commit, and short enough for those who queue behind us.
async fn hold_alone(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("set local lock_timeout = '250ms'")
        .execute(&mut *conn)
        .await?;
    sqlx::query!("select pg_advisory_xact_lock(hashtext('postrider.people'))")
        .execute(conn)
        .await?;
    Ok(())
}
