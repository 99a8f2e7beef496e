//! The configuration and the provider's lists in the database: what is mirrored, what is news, what is stopped, and which
//! shard a number belongs to.

#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]

mod common;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use postrider::{
    clock,
    rules::job::{KeepParameters, Kind, Priority},
    store::{
        facts::{
            self, By, Facts, MirroredAccount, MirroredConfig, MirroredKind, MirroredSender,
            NumberFact, Pause, Scope,
        },
        sync::{self, Changes, LimitRow, NumberRow, TemplateRow},
    },
};
use serde_json::json;
use sqlx::PgPool;

fn otp() -> MirroredKind {
    MirroredKind {
        kind: Kind {
            name: Arc::from("otp"),
            priority: Priority::Urgent,
            categories: Some(vec!["AUTHENTICATION".to_owned(), "UTILITY".to_owned()]),
            requires_opt_in: true,
            consent_scope: None,
            keep_parameters: KeepParameters::Never,
        },
        valid_for: Duration::from_secs(300),
        resolve_after: Duration::from_secs(20),
        resend: true,
    }
}

/// One account `w` of portfolio `p` with the numbers 1 to 4.
fn config() -> MirroredConfig {
    MirroredConfig {
        kinds: vec![otp()],
        senders: vec![sender("default", &["1", "2", "3", "4"])],
        accounts: vec![account("w")],
        settings: vec![("default_kind".to_owned(), json!("otp"))],
        default_messaging_limit: 250,
        limit_per_number: false,
    }
}

fn sender(name: &str, numbers: &[&str]) -> MirroredSender {
    MirroredSender {
        name: name.to_owned(),
        phone_number_ids: numbers.iter().map(ToString::to_string).collect(),
        strict: false,
    }
}

fn account(waba_id: &str) -> MirroredAccount {
    MirroredAccount {
        waba_id: waba_id.to_owned(),
        portfolio_id: "p".to_owned(),
        app: "main".to_owned(),
    }
}

fn number(id: &str) -> NumberRow {
    NumberRow {
        phone_number_id: id.to_owned(),
        status: Some("CONNECTED".to_owned()),
        ..NumberRow::default()
    }
}

fn template(name: &str) -> TemplateRow {
    TemplateRow {
        provider_id: Some("7".to_owned()),
        name: name.to_owned(),
        language: "en-US".to_owned(),
        status: "APPROVED".to_owned(),
        category: "UTILITY".to_owned(),
        parameter_format: None,
        components: json!([{"type": "BODY", "text": "Hi"}]),
        quality: None,
        message_send_ttl_seconds: None,
        rejected_reason: Some("NONE".to_owned()),
    }
}

async fn load(pool: &PgPool) -> Facts {
    facts::load(pool).await.unwrap()
}

fn shards(numbers: &[NumberFact]) -> Vec<i16> {
    numbers.iter().map(|it| it.shard).collect()
}

fn ids(numbers: &[NumberFact]) -> Vec<&str> {
    numbers
        .iter()
        .map(|it| it.phone_number_id.as_str())
        .collect()
}

#[tokio::test]
async fn the_configuration_comes_back_as_facts() {
    let database = common::database().await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let facts = load(database.pool()).await;
    let otp_fact = &facts.kinds["otp"];
    assert_eq!(otp_fact.kind, otp().kind);
    assert_eq!(
        (otp_fact.resolve_after, otp_fact.resend),
        (Duration::from_secs(20), true)
    );
    assert_eq!(ids(&facts.numbers), ["1", "2", "3", "4"]);
    assert_eq!(facts.numbers[0].messaging_limit, Some(250));
    assert_eq!(facts.settings.get("default_kind"), Some(&json!("otp")));
    assert_eq!(facts.settings.installation().len(), 8);
}

#[tokio::test]
async fn a_new_number_may_be_sent_from_at_once() {
    let database = common::database().await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let facts = load(database.pool()).await;
    assert!(
        facts
            .numbers
            .iter()
            .all(|it| it.free_at == DateTime::<Utc>::UNIX_EPOCH)
    );
}

#[tokio::test]
async fn mirroring_again_changes_nothing() {
    let database = common::database().await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let before = load(database.pool()).await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let after = load(database.pool()).await;
    assert_eq!(before.numbers, after.numbers);
    assert_eq!(before.kinds, after.kinds);
}

#[tokio::test]
async fn what_the_configuration_drops_stays_but_is_no_longer_configured() {
    let database = common::database().await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let less = MirroredConfig {
        kinds: vec![],
        senders: vec![sender("other", &["2"])],
        ..config()
    };
    facts::mirror(database.pool(), &less).await.unwrap();
    let facts = load(database.pool()).await;
    assert_eq!(ids(&facts.numbers), ["2"]);
    assert!(facts.kinds.contains_key("otp"));
    let configured: Vec<(String, bool)> = sqlx::query_as(
        "select name, configured from postrider.kind
         union all select name, configured from postrider.sender_pool order by name",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    let expected = [("default", false), ("other", true), ("otp", false)]
        .map(|(name, is)| (name.to_owned(), is));
    assert_eq!(configured, expected);

    facts::mirror(database.pool(), &config()).await.unwrap();
    assert_eq!(load(database.pool()).await.numbers.len(), 4);
}

#[tokio::test]
async fn with_several_accounts_a_number_waits_for_the_provider_to_say_whose_it_is() {
    let database = common::database().await;
    let two = MirroredConfig {
        accounts: vec![account("w"), account("v")],
        ..config()
    };
    facts::mirror(database.pool(), &two).await.unwrap();
    assert!(load(database.pool()).await.numbers.is_empty());
    sync::numbers(database.pool(), "v", &[number("1"), number("99")])
        .await
        .unwrap();
    let facts = load(database.pool()).await;
    assert_eq!(ids(&facts.numbers), ["1"]);
    assert_eq!(facts.numbers[0].waba_id, "v");
}

#[tokio::test]
async fn the_numbers_of_a_limited_portfolio_share_a_shard_and_others_spread() {
    let database = common::database().await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let together = shards(&load(database.pool()).await.numbers);
    assert!(
        together.iter().all(|shard| *shard == together[0]),
        "{together:?}"
    );

    sync::limit(database.pool(), "p", "TIER_UNLIMITED", None)
        .await
        .unwrap();
    let mut apart = shards(&load(database.pool()).await.numbers);
    apart.sort_unstable();
    apart.dedup();
    assert_eq!(apart.len(), 4);

    sync::limit(database.pool(), "p", "TIER_2K", Some(2_000))
        .await
        .unwrap();
    assert_eq!(shards(&load(database.pool()).await.numbers), together);
    let per_number = MirroredConfig {
        limit_per_number: true,
        ..config()
    };
    facts::mirror(database.pool(), &per_number).await.unwrap();
    assert_ne!(shards(&load(database.pool()).await.numbers), together);
}

#[tokio::test]
async fn a_number_that_changes_its_shard_rests_until_its_former_owner_is_surely_done() {
    let database = common::database().await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    sqlx::query(
        "update postrider.lease set instance = 'former', expires_at = now() + interval '5 s'",
    )
    .execute(database.pool())
    .await
    .unwrap();
    let before = clock::now();
    let moved = sync::limit(database.pool(), "p", "TIER_UNLIMITED", None)
        .await
        .unwrap();
    assert!(moved >= 3, "{moved}");
    let old_shard = load(database.pool()).await.numbers;
    let resting = old_shard
        .iter()
        .filter(|it| it.free_at > before + chrono::Duration::seconds(6))
        .count();
    assert_eq!(u64::try_from(resting).unwrap(), moved);

    let again = sync::limit(database.pool(), "p", "TIER_UNLIMITED", None)
        .await
        .unwrap();
    assert_eq!(again, 0, "nothing moves twice");
    assert_eq!(load(database.pool()).await.numbers, old_shard);
}

#[tokio::test]
async fn a_number_that_leaves_a_shard_that_nobody_holds_may_be_sent_from_at_once() {
    let database = common::database().await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let moved = sync::limit(database.pool(), "p", "TIER_UNLIMITED", None)
        .await
        .unwrap();
    assert!(moved >= 3, "{moved}");
    let numbers = load(database.pool()).await.numbers;
    let now = clock::now();
    assert!(numbers.iter().all(|it| it.free_at <= now));
}

#[tokio::test]
async fn a_shard_that_gets_numbers_again_has_nothing_to_look_for_from_before() {
    let database = common::database().await;
    let pool = database.pool();
    facts::mirror(pool, &config()).await.unwrap();
    let together = shards(&load(pool).await.numbers)[0];
    let settled_days_ago = async || -> f64 {
        sqlx::query_scalar(
            "select extract(epoch from now() - settled_until)::float8 / 86400 from postrider.lease where shard = $1",
        )
        .bind(together)
        .fetch_one(pool)
        .await
        .unwrap()
    };
    sqlx::query("update postrider.lease set epoch = 3, settled_until = now() - interval '30 days'")
        .execute(pool)
        .await
        .unwrap();
    let limit = async |name: &str, recipients: Option<i32>| {
        sync::limit(pool, "p", name, recipients).await.unwrap();
    };
    limit("TIER_UNLIMITED", None).await;
    // Whoever holds the numbers now looks that far back for them, wherever they are.
    let looked_back: i64 = sqlx::query_scalar(
        "select count(*) from postrider.number where open_since < now() - interval '29 days'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert!(looked_back >= 3, "{looked_back}");
    assert!(settled_days_ago().await > 29.0, "they have only just left");
    limit("TIER_2K", Some(2_000)).await;
    assert_eq!(shards(&load(pool).await.numbers)[0], together);
    assert!(settled_days_ago().await < 0.1);
}

#[tokio::test]
async fn the_configured_limit_holds_until_the_provider_names_its_own() {
    let database = common::database().await;
    let limit = async |pool: &PgPool| load(pool).await.numbers[0].messaging_limit;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let more = MirroredConfig {
        default_messaging_limit: 1_000,
        ..config()
    };
    facts::mirror(database.pool(), &more).await.unwrap();
    assert_eq!(limit(database.pool()).await, Some(1_000));
    sync::limit(database.pool(), "p", "TIER_10K", Some(10_000))
        .await
        .unwrap();
    facts::mirror(database.pool(), &config()).await.unwrap();
    assert_eq!(limit(database.pool()).await, Some(10_000));
}

#[tokio::test]
async fn with_a_limit_for_each_number_only_the_number_that_was_told_has_another() {
    let database = common::database().await;
    let per_number = MirroredConfig {
        limit_per_number: true,
        ..config()
    };
    facts::mirror(database.pool(), &per_number).await.unwrap();
    let limits = async || {
        let numbers = load(database.pool()).await.numbers;
        numbers
            .into_iter()
            .map(|it| (it.phone_number_id, it.messaging_limit))
            .collect::<BTreeMap<_, _>>()
    };
    let told = |number: &str, tier: &str, recipients| LimitRow {
        phone_number_id: number.to_owned(),
        tier: tier.to_owned(),
        recipients,
    };
    let rows = [
        told("1", "TIER_2K", Some(2_000)),
        told("2", "TIER_UNLIMITED", None),
    ];
    sync::number_limits(database.pool(), &rows).await.unwrap();
    let known = limits().await;
    assert_eq!((known["1"], known["2"]), (Some(2_000), None));
    assert_eq!(known["3"], Some(250), "nobody has told us of it");
    facts::mirror(database.pool(), &config()).await.unwrap();
    assert_eq!(
        limits().await["1"],
        Some(250),
        "the portfolio's, as configured"
    );
}

#[tokio::test]
async fn what_the_provider_does_not_say_of_a_number_stays_as_it_was() {
    let database = common::database().await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let whole = NumberRow {
        quality_rating: Some("GREEN".to_owned()),
        throughput_level: Some("HIGH".to_owned()),
        is_on_biz_app: Some(true),
        ..number("1")
    };
    sync::numbers(database.pool(), "w", &[whole]).await.unwrap();
    let bare = NumberRow {
        phone_number_id: "1".to_owned(),
        ..NumberRow::default()
    };
    sync::numbers(database.pool(), "w", &[bare.clone(), bare])
        .await
        .unwrap();
    let one = &load(database.pool()).await.numbers[0];
    assert_eq!(one.status, "CONNECTED");
    assert_eq!(one.quality_rating.as_deref(), Some("GREEN"));
    assert_eq!(one.throughput_level.as_deref(), Some("HIGH"));
    assert!(one.is_on_biz_app);
}

#[tokio::test]
async fn a_number_that_is_no_longer_listed_is_deleted_and_may_come_back() {
    let database = common::database().await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let all = ["1", "2", "3", "4"].map(number);
    sync::numbers(database.pool(), "w", &all).await.unwrap();
    let changes = sync::numbers(database.pool(), "w", &all[1..])
        .await
        .unwrap();
    assert_eq!(changes.gone, 1);
    assert_eq!(load(database.pool()).await.numbers[0].status, "DELETED");
    sync::numbers(database.pool(), "w", &all).await.unwrap();
    assert_eq!(load(database.pool()).await.numbers[0].status, "CONNECTED");
}

#[tokio::test]
async fn only_a_template_that_changed_is_news() {
    let database = common::database().await;
    let pool = database.pool();
    facts::mirror(pool, &config()).await.unwrap();
    let list = [template("a"), template("b")];
    assert_eq!(
        sync::templates(pool, "w", &list).await.unwrap(),
        Changes {
            changed: 2,
            gone: 0
        }
    );
    let all = facts::templates_since(pool, 0).await.unwrap();
    assert_eq!(
        all.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(
        (all[0].language.as_str(), all[0].parameter_format.as_str()),
        ("en_US", "POSITIONAL")
    );

    let seen = all.last().unwrap().revision;
    assert_eq!(
        sync::templates(pool, "w", &list).await.unwrap(),
        Changes::default()
    );
    assert!(facts::templates_since(pool, seen).await.unwrap().is_empty());

    let paused = TemplateRow {
        status: "PAUSED".to_owned(),
        ..template("b")
    };
    assert_eq!(
        sync::templates(pool, "w", &[template("a"), paused])
            .await
            .unwrap(),
        Changes {
            changed: 1,
            gone: 0
        }
    );
    let news = facts::templates_since(pool, seen).await.unwrap();
    assert_eq!(
        news.iter()
            .map(|it| (it.name.as_str(), it.status.as_str()))
            .collect::<Vec<_>>(),
        [("b", "PAUSED")]
    );
}

#[tokio::test]
async fn a_template_that_is_no_longer_listed_is_deleted_once() {
    let database = common::database().await;
    let pool = database.pool();
    facts::mirror(pool, &config()).await.unwrap();
    sync::templates(pool, "w", &[template("a"), template("b")])
        .await
        .unwrap();
    let seen = facts::templates_since(pool, 0)
        .await
        .unwrap()
        .last()
        .unwrap()
        .revision;
    assert_eq!(
        sync::templates(pool, "w", &[template("a")]).await.unwrap(),
        Changes {
            changed: 0,
            gone: 1
        }
    );
    let news = facts::templates_since(pool, seen).await.unwrap();
    assert_eq!((news.len(), news[0].status.as_str()), (1, "DELETED"));
    assert_eq!(
        sync::templates(pool, "w", &[template("a")]).await.unwrap(),
        Changes::default()
    );
}

#[tokio::test]
async fn one_language_spelt_two_ways_is_one_template() {
    let database = common::database().await;
    facts::mirror(database.pool(), &config()).await.unwrap();
    let other = TemplateRow {
        language: "en_US".to_owned(),
        ..template("a")
    };
    sync::templates(database.pool(), "w", &[template("a"), other])
        .await
        .unwrap();
    assert_eq!(
        facts::templates_since(database.pool(), 0)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn revisions_become_visible_in_their_order_whoever_writes() {
    let database = common::database().await;
    let pool = database.pool();
    let two = MirroredConfig {
        accounts: vec![account("w"), account("v")],
        ..config()
    };
    facts::mirror(pool, &two).await.unwrap();
    // The first writer has its revision and has not committed; the second must not overtake it.
    let mut first = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(hashtext('postrider.facts'))")
        .execute(&mut *first)
        .await
        .unwrap();
    let second = tokio::spawn({
        let pool = pool.clone();
        async move { sync::templates(&pool, "v", &[template("a")]).await }
    });
    let waiting = "select 1 from pg_locks l join pg_database d on d.oid = l.database
                   where l.locktype = 'advisory' and not l.granted and d.datname = current_database()";
    common::eventually("the second writer waits", async || {
        sqlx::query_scalar::<_, i32>(waiting)
            .fetch_optional(pool)
            .await
            .unwrap()
    })
    .await;
    assert!(facts::templates_since(pool, 0).await.unwrap().is_empty());
    first.commit().await.unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(facts::templates_since(pool, 0).await.unwrap().len(), 1);
}

fn stop<'a>(by: By<'a>, until: Option<DateTime<Utc>>) -> Pause<'a> {
    Pause {
        scope: Scope::Number,
        target: "1",
        by,
        reason: "quality",
        error_code: Some(131_048),
        since: None,
        until,
    }
}

fn in_secs(secs: i64) -> Option<DateTime<Utc>> {
    Some(clock::now() + chrono::Duration::seconds(secs))
}

#[tokio::test]
async fn a_pause_holds_until_it_is_resumed() {
    let database = common::database().await;
    let pool = database.pool();
    assert!(
        facts::pause(pool, &stop(By::Operator("ada"), None))
            .await
            .unwrap()
    );
    let [paused] = load(pool).await.pauses.try_into().unwrap();
    assert_eq!(
        (paused.scope, paused.target.as_str(), paused.by.as_str()),
        (Scope::Number, "1", "ada")
    );
    assert!(!paused.by_provider);
    assert!(
        facts::resume(pool, Scope::Number, "1", By::Operator("ada"))
            .await
            .unwrap()
    );
    assert!(
        !facts::resume(pool, Scope::Number, "1", By::Operator("ada"))
            .await
            .unwrap()
    );
    assert!(load(pool).await.pauses.is_empty());
}

#[tokio::test]
async fn the_provider_cannot_end_what_a_person_paused_but_a_person_ends_both() {
    let database = common::database().await;
    let pool = database.pool();
    facts::pause(pool, &stop(By::Operator("ada"), None))
        .await
        .unwrap();
    facts::pause(pool, &stop(By::Provider, None)).await.unwrap();
    assert_eq!(load(pool).await.pauses.len(), 2);
    facts::resume(pool, Scope::Number, "1", By::Provider)
        .await
        .unwrap();
    let [left] = load(pool).await.pauses.try_into().unwrap();
    assert!(!left.by_provider);
    facts::pause(pool, &stop(By::Provider, None)).await.unwrap();
    facts::resume(pool, Scope::Number, "1", By::Operator("ada"))
        .await
        .unwrap();
    assert!(load(pool).await.pauses.is_empty());
}

#[tokio::test]
async fn people_and_the_provider_are_written_into_the_history_by_name() {
    let database = common::database().await;
    let pool = database.pool();
    facts::pause(pool, &stop(By::Provider, None)).await.unwrap();
    facts::resume(pool, Scope::Number, "1", By::Provider)
        .await
        .unwrap();
    facts::pause(pool, &stop(By::Operator("ada"), None))
        .await
        .unwrap();
    facts::pause(pool, &stop(By::Provider, None)).await.unwrap();
    facts::resume(pool, Scope::Number, "1", By::Operator("bob"))
        .await
        .unwrap();
    let history: Vec<(String, String, String)> =
        sqlx::query_as("select who, action, target from postrider.operator_event order by id")
            .fetch_all(pool)
            .await
            .unwrap();
    let expected = [
        ("provider", "pause"),
        ("provider", "resume"),
        ("ada", "pause"),
        ("provider", "pause"),
        // Two pauses, both ended by one person.
        ("bob", "resume"),
        ("bob", "resume"),
    ];
    assert_eq!(
        history,
        expected.map(|(who, action)| (who.to_owned(), action.to_owned(), "number 1".to_owned()))
    );
}

#[tokio::test]
async fn a_short_pause_that_arrives_late_does_not_undo_a_long_one() {
    let database = common::database().await;
    let pool = database.pool();
    let until = async || load(pool).await.pauses[0].until;
    facts::pause(pool, &stop(By::Provider, in_secs(300)))
        .await
        .unwrap();
    let long = until().await;
    assert!(
        !facts::pause(pool, &stop(By::Provider, in_secs(60)))
            .await
            .unwrap()
    );
    assert_eq!(until().await, long);
    assert!(facts::pause(pool, &stop(By::Provider, None)).await.unwrap());
    assert!(
        !facts::pause(pool, &stop(By::Provider, in_secs(9999)))
            .await
            .unwrap()
    );
    assert_eq!(until().await, None);
}

#[tokio::test]
async fn a_pause_whose_time_is_over_does_not_hold_and_is_cleared_away() {
    let database = common::database().await;
    let pool = database.pool();
    facts::pause(pool, &stop(By::Provider, in_secs(-1)))
        .await
        .unwrap();
    assert!(load(pool).await.pauses.is_empty());
    let before = clock::now();
    facts::pause(pool, &stop(By::Provider, in_secs(60)))
        .await
        .unwrap();
    assert!(load(pool).await.pauses[0].since >= before - chrono::Duration::seconds(1));
    assert_eq!(facts::expire_pauses(pool).await.unwrap(), 0);
    facts::pause(pool, &stop(By::Operator("ada"), in_secs(-1)))
        .await
        .unwrap();
    assert_eq!(facts::expire_pauses(pool).await.unwrap(), 1);
    assert_eq!(load(pool).await.pauses.len(), 1);
}

#[tokio::test]
async fn a_template_that_is_approved_again_is_no_longer_paused_by_the_provider() {
    let database = common::database().await;
    let pool = database.pool();
    facts::mirror(pool, &config()).await.unwrap();
    let paused = TemplateRow {
        status: "PAUSED".to_owned(),
        ..template("a")
    };
    sync::templates(pool, "w", &[paused, template("b")])
        .await
        .unwrap();
    for target in ["w/a/en_US", "w/b/en_US"] {
        let stop = Pause {
            scope: Scope::Template,
            target,
            ..stop(By::Provider, None)
        };
        facts::pause(pool, &stop).await.unwrap();
    }
    sync::templates(pool, "w", &[template("a"), template("b")])
        .await
        .unwrap();
    let left: Vec<_> = load(pool)
        .await
        .pauses
        .into_iter()
        .map(|it| it.target)
        .collect();
    // b was approved all along: its pause tells of something newer than the list.
    assert_eq!(left, ["w/b/en_US"]);
}
