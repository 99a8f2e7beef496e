//! What the provider changes by itself: told by webhook, written once, never backwards, and in the history.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::{
    TestDatabase,
    daemon::Postrider,
    eventually,
    receiving::{NUMBER, Receiver, count, prepare, secret, settings},
    rig::{Rig, recipients},
};
use postrider::{
    clock,
    http::signature::sign,
    sandbox::{Setup, Template},
    store::{
        facts::{self, By, Pause, Scope},
        sync::{self, TemplateRow},
    },
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;

/// A database with one account `w` of the app `main`, a number, two templates, and the webhook before it.
struct World {
    database: TestDatabase,
    receiver: Receiver,
    now: i64,
}

impl World {
    async fn new() -> Self {
        let database = common::database().await;
        prepare(database.pool()).await;
        for statement in [
            "update postrider.number set display_phone_number = '+1 555-078-3881', status = 'CONNECTED',
               throughput_level = 'STANDARD', verified_name = 'Shop'",
            "insert into postrider.template (waba_id, name, language, provider_id, status, category, components, quality,
               revision, synced_at)
             select 'w', name, 'en_US', id, 'APPROVED', 'UTILITY', '[]', 'GREEN', nextval('postrider.template_revision'),
               now() - interval '1 hour'
             from (values ('shipped', '1'), ('window', '2')) t (name, id)",
        ] {
            sqlx::query(statement).execute(database.pool()).await.unwrap();
        }
        let receiver = Receiver::with(database.pool(), settings(&["main", "other"])).await;
        let now = clock::now().timestamp();
        Self {
            database,
            receiver,
            now,
        }
    }

    fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    /// The provider tells something, so many seconds from now.
    async fn told(&self, seconds: i64, field: &str, value: Value) {
        self.told_of("w", "main", seconds, field, value).await;
    }

    async fn told_of(&self, account: &str, app: &str, seconds: i64, field: &str, value: Value) {
        let entry = json!({"id": account, "time": self.now + seconds, "changes": [{"field": field, "value": value}]});
        let body = json!({"object": "whatsapp_business_account", "entry": [entry]}).to_string();
        let signature = sign(body.as_bytes(), &secret());
        let path = format!("/webhooks/whatsapp/{app}");
        let answer = self.receiver.post(&path, Some(&signature), body).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }

    async fn template_is(&self, seconds: i64, name: &str, event: &str) {
        let value = template(name, json!({"event": event, "reason": "NONE"}));
        self.told(seconds, "message_template_status_update", value)
            .await;
    }

    async fn recategorised(&self, seconds: i64, from: &str, to: &str) {
        let value = template(
            "shipped",
            json!({"previous_category": from, "new_category": to}),
        );
        self.told(seconds, "template_category_update", value).await;
    }

    async fn account_is(&self, seconds: i64, value: Value) {
        self.told(seconds, "account_update", value).await;
    }

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(self.pool())
            .await
            .unwrap();
    }

    async fn text(&self, sql: &str) -> String {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select ({sql})::text")))
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    async fn status(&self, name: &str) -> String {
        self.text(&format!(
            "select status from postrider.template where name = '{name}'"
        ))
        .await
    }

    /// Whom and what, of every event.
    async fn history(&self) -> Vec<String> {
        sqlx::query_scalar(
            "select concat_ws(' ', who, action, target) from postrider.operator_event order by id",
        )
        .fetch_all(self.pool())
        .await
        .unwrap()
    }

    /// Scope, target and source of what is stopped.
    async fn stopped(&self) -> Vec<String> {
        sqlx::query_scalar(
            "select concat_ws(' ', scope, target, source) from postrider.pause_now order by 1",
        )
        .fetch_all(self.pool())
        .await
        .unwrap()
    }

    async fn asks_for_sync(&self) -> bool {
        sync::take_asked(self.pool()).await.unwrap()
    }

    async fn pause(&self, scope: Scope, target: &str, by: By<'_>) {
        let pause = Pause {
            scope,
            target,
            by,
            reason: "test",
            error_code: None,
            since: None,
            until: None,
        };
        facts::pause(self.pool(), &pause).await.unwrap();
    }
}

fn template(name: &str, mut extra: Value) -> Value {
    let id = if name == "shipped" { 1 } else { 2 };
    let value = extra.as_object_mut().unwrap();
    value.insert("message_template_id".to_owned(), json!(id));
    value.insert("message_template_name".to_owned(), json!(name));
    value.insert("message_template_language".to_owned(), json!("en-US"));
    extra
}

fn restriction(expiration: i64) -> Value {
    json!({"event": "ACCOUNT_RESTRICTION", "restriction_info": [
        {"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING", "expiration": expiration}]})
}

#[tokio::test]
async fn a_template_that_is_paused_is_news_for_every_instance_and_in_the_history() {
    let world = World::new().await;
    let before = facts::templates_since(world.pool(), 0).await.unwrap();
    let revision = before.iter().map(|it| it.revision).max().unwrap();
    let value = template(
        "shipped",
        json!({"event": "PAUSED", "other_info": {"title": "FIRST_PAUSE"}}),
    );
    world
        .told(-5, "message_template_status_update", value)
        .await;
    let [news] = facts::templates_since(world.pool(), revision)
        .await
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!(
        (news.name.as_str(), news.status.as_str()),
        ("shipped", "PAUSED")
    );
    let (who, action, target, detail): (String, String, String, Value) =
        sqlx::query_as("select who, action, target, detail from postrider.operator_event")
            .fetch_one(world.pool())
            .await
            .unwrap();
    assert_eq!(
        (who.as_str(), action.as_str(), target.as_str()),
        ("provider", "template_status", "template w/shipped/en_US")
    );
    for (key, expected) in [
        ("before", "APPROVED"),
        ("after", "PAUSED"),
        ("why", "FIRST_PAUSE"),
        ("webhook", "message_template_status_update"),
    ] {
        assert_eq!(detail[key], expected);
    }
    assert!(!world.asks_for_sync().await);
}

#[tokio::test]
async fn approval_ends_the_providers_pause_and_never_a_persons() {
    let world = World::new().await;
    let (shipped, window) = ("w/shipped/en_US", "w/window/en_US");
    world.pause(Scope::Template, shipped, By::Provider).await;
    world
        .pause(Scope::Template, shipped, By::Operator("ada"))
        .await;
    world.pause(Scope::Template, window, By::Provider).await;
    world.template_is(0, "shipped", "REINSTATED").await;
    assert_eq!(
        world.stopped().await,
        [
            "template w/shipped/en_US operator",
            "template w/window/en_US provider"
        ]
    );
}

#[tokio::test]
async fn a_repeated_webhook_does_not_stop_again_what_somebody_resumed() {
    let world = World::new().await;
    let until = world.now + 3_600;
    world.account_is(-5, restriction(until)).await;
    assert_eq!(world.stopped().await, ["account w provider"]);
    facts::resume(world.pool(), Scope::Account, "w", By::Operator("ada"))
        .await
        .unwrap();
    world.account_is(-5, restriction(until)).await;
    assert_eq!(world.stopped().await, [""; 0]);
    assert_eq!(
        world.history().await,
        ["provider pause account w", "ada resume account w"]
    );
    assert_eq!(count(world.pool(), "webhook_event").await, 1);
}

#[tokio::test]
async fn an_older_webhook_that_comes_late_undoes_nothing() {
    let world = World::new().await;
    world.template_is(-10, "shipped", "APPROVED").await;
    world.template_is(-20, "shipped", "PAUSED").await;
    assert_eq!(world.status("shipped").await, "APPROVED");
    // Another side of it, and another template, have times of their own.
    let quality = template("shipped", json!({"new_quality_score": "YELLOW"}));
    world
        .told(-20, "message_template_quality_update", quality)
        .await;
    world.template_is(-20, "window", "PAUSED").await;
    let quality = "select quality from postrider.template where name = 'shipped'";
    assert_eq!(world.text(quality).await, "YELLOW");
    assert_eq!(world.status("window").await, "PAUSED");

    let ban =
        |state: &str| json!({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": state}});
    world.account_is(-10, ban("REINSTATE")).await;
    world.account_is(-20, ban("DISABLE")).await;
    assert_eq!(world.stopped().await, [""; 0]);
    world
        .told(
            -10,
            "business_capability_update",
            json!({"max_daily_conversations_per_business": 2_000}),
        )
        .await;
    world
        .told(
            -20,
            "business_capability_update",
            json!({"max_daily_conversations_per_business": 250}),
        )
        .await;
    assert_eq!(
        world
            .text("select messaging_limit from postrider.portfolio")
            .await,
        "2000"
    );
}

#[tokio::test]
async fn a_webhook_that_is_older_than_the_list_undoes_nothing() {
    let world = World::new().await;
    // The list was read an hour ago.
    world.template_is(-2 * 3_600, "shipped", "PAUSED").await;
    assert_eq!(world.status("shipped").await, "APPROVED");
    world.template_is(-1_800, "shipped", "PAUSED").await;
    assert_eq!(world.status("shipped").await, "PAUSED");
}

#[tokio::test]
async fn a_list_that_was_read_before_a_webhook_does_not_undo_it() {
    let world = World::new().await;
    world.template_is(-1, "shipped", "PAUSED").await;
    let limit = json!({"max_daily_conversations_per_business": 250});
    world.told(-1, "business_capability_update", limit).await;
    let listed = |name: &str| TemplateRow {
        provider_id: Some("1".to_owned()),
        name: name.to_owned(),
        language: "en_US".to_owned(),
        status: "APPROVED".to_owned(),
        category: "UTILITY".to_owned(),
        parameter_format: None,
        components: json!([]),
        quality: None,
        message_send_ttl_seconds: None,
        rejected_reason: None,
    };
    sync::templates(world.pool(), "w", &[listed("shipped")])
        .await
        .unwrap();
    sync::limit(world.pool(), "p", "TIER_2K", Some(2_000))
        .await
        .unwrap();
    let limit = "select messaging_limit from postrider.portfolio";
    assert_eq!(world.status("shipped").await, "PAUSED");
    assert_eq!(world.text(limit).await, "250");
    sqlx::query("update postrider.told set at = now() - interval '2 minutes'")
        .execute(world.pool())
        .await
        .unwrap();
    sync::templates(world.pool(), "w", &[listed("shipped")])
        .await
        .unwrap();
    sync::limit(world.pool(), "p", "TIER_2K", Some(2_000))
        .await
        .unwrap();
    assert_eq!(
        world.status("shipped").await,
        "APPROVED",
        "later, the list counts"
    );
    assert_eq!(world.text(limit).await, "2000");
}

#[tokio::test]
async fn a_new_limit_holds_for_the_portfolio_and_moves_numbers_when_it_ends_or_begins() {
    let world = World::new().await;
    let limit = || async {
        world
            .text("select row(messaging_limit, messaging_limit_tier) from postrider.portfolio")
            .await
    };
    let shard = "select shard from postrider.number";
    world
        .told(
            -9,
            "business_capability_update",
            json!({"max_daily_conversations_per_business": "TIER_2K"}),
        )
        .await;
    assert_eq!(limit().await, "(2000,TIER_2K)");
    let together = world.text(shard).await;
    world
        .told(
            -8,
            "business_capability_update",
            json!({"max_daily_conversation_per_phone": -1}),
        )
        .await;
    assert_eq!(limit().await, "(,-1)");
    assert_ne!(world.text(shard).await, together);
    let upgrade = json!({"display_phone_number": "15550783881", "event": "DOWNGRADE", "current_limit": "TIER_10K"});
    world.told(-7, "phone_number_quality_update", upgrade).await;
    assert_eq!(limit().await, "(10000,TIER_10K)");
    assert_eq!(world.text(shard).await, together);
    let history = world.text(
        "select string_agg(detail ->> 'before' || '>' || (detail ->> 'after'), ' ' order by id)
                              from postrider.operator_event where action = 'messaging_limit'",
    );
    assert_eq!(
        history.await,
        "unlimited>2000 2000>unlimited unlimited>10000"
    );
    // The same in other words is no change.
    world
        .told(
            -6,
            "business_capability_update",
            json!({"max_daily_conversations_per_business": 10_000}),
        )
        .await;
    assert_eq!(world.history().await.len(), 3);
}

#[tokio::test]
async fn with_a_limit_for_each_number_a_webhook_changes_the_number_that_it_names() {
    let world = World::new().await;
    world
        .run("insert into postrider.setting values ('limit_scope', '\"number\"')")
        .await;
    let limits = "select string_agg(row(n.messaging_limit, l.messaging_limit, p.messaging_limit)::text, '')
                  from postrider.number n join postrider.number_limit l using (lane), postrider.portfolio p";
    let upgrade = |limit: &str| json!({"display_phone_number": "15550783881", "event": "UPGRADE", "current_limit": limit});
    world
        .told(-9, "phone_number_quality_update", upgrade("TIER_10K"))
        .await;
    let after = world.text(limits).await;
    assert_eq!(after, "(10000,10000,)", "the portfolio's stays as it was");
    world
        .told(-12, "phone_number_quality_update", upgrade("TIER_1K"))
        .await;
    assert_eq!(world.text(limits).await, after, "older news");
    world
        .told(-8, "phone_number_quality_update", upgrade("TIER_2K"))
        .await;
    assert_eq!(world.text(limits).await, after.replace("10000", "2000"));
    assert_eq!(
        world.history().await,
        [format!("provider messaging_limit number {NUMBER}")],
        "the first word of the provider is no change"
    );
    // One that names nobody is the portfolio's, which holds for numbers that were never told of.
    world
        .told(
            -7,
            "business_capability_update",
            json!({"max_daily_conversations_per_business": "TIER_100K"}),
        )
        .await;
    let limit = world.text(limits).await;
    assert_eq!(limit, "(2000,2000,100000)");
}

#[tokio::test]
async fn a_message_from_the_phone_app_counts_once_and_not_in_an_open_window() {
    let world = World::new().await;
    let at = world.now - 5;
    let echo = |id: &str, to: &str| json!({"from": "15550783881", "to": to, "id": id, "timestamp": at.to_string(), "type": "text"});
    let told =
        |echoes: Value| json!({"metadata": {"phone_number_id": NUMBER}, "message_echoes": echoes});
    world
        .run(
            "insert into postrider.service_window (person, lane, expires_at)
             select '+905321000002', lane, now() + interval '1 hour' from postrider.number",
        )
        .await;
    let first = told(json!([
        echo("wamid.1", "905321000001"),
        {"id": "wamid.broken"},
        echo("wamid.2", "905321000002"),
        {"id": "wamid.3", "to_user_id": "US.1349", "timestamp": at},
    ]));
    for field in [
        &first,
        &first,
        &told(json!([echo("wamid.1", "905321000001")])),
    ] {
        world.told(-4, "smb_message_echoes", field.clone()).await;
    }
    let kept = "select string_agg(concat_ws(' ', counted, extract(epoch from at)::bigint), ', ' order by counted)
                from postrider.echo";
    assert_eq!(world.text(kept).await, format!("f {at}, t {at}, t {at}"));
    let windows = count(world.pool(), "service_window").await;
    assert_eq!(windows, 1, "an echo opens none");
    let broken = count(world.pool(), "webhook_event where problem is not null").await;
    assert!(broken > 0, "the one that is broken spoils only itself");
}

#[tokio::test]
async fn a_number_is_found_by_what_people_see_and_one_that_is_not_asks_for_the_list() {
    let world = World::new().await;
    let event =
        |display: &str| json!({"display_phone_number": display, "event": "THROUGHPUT_UPGRADE"});
    world
        .told(-9, "phone_number_quality_update", event("1 (555) 0783881"))
        .await;
    let name = json!({"display_phone_number": "15550783881", "decision": "APPROVED", "requested_verified_name": "Lucky"});
    world.told(-9, "phone_number_name_update", name).await;
    let number = "select row(throughput_level, verified_name) from postrider.number";
    assert_eq!(world.text(number).await, "(HIGH,Lucky)");
    assert!(!world.asks_for_sync().await);
    world
        .told(-8, "phone_number_quality_update", event("1999"))
        .await;
    assert!(world.asks_for_sync().await);
    assert!(!world.asks_for_sync().await, "once is enough");
    let throughput = format!("provider number_throughput number {NUMBER}");
    assert_eq!(world.history().await[0], throughput);
}

#[tokio::test]
async fn a_restriction_stops_the_account_until_its_end_and_never_shortens_a_ban() {
    let world = World::new().await;
    let until = world.now + 86_400;
    world.account_is(-9, restriction(until)).await;
    let end = "select extract(epoch from until)::bigint from postrider.pause";
    assert_eq!(world.text(end).await, until.to_string());
    world
        .account_is(
            -8,
            json!({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "DISABLE"}}),
        )
        .await;
    world.account_is(-7, restriction(until)).await;
    assert_eq!(
        world
            .text("select count(*) from postrider.pause where until is null")
            .await,
        "1"
    );
}

#[tokio::test]
async fn a_reinstated_account_goes_on_unless_a_person_paused_it() {
    let world = World::new().await;
    let ban =
        |state: &str| json!({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": state}});
    world.account_is(-9, ban("DISABLE")).await;
    world.pause(Scope::Account, "w", By::Operator("ada")).await;
    world.account_is(-8, ban("REINSTATE")).await;
    assert_eq!(world.stopped().await, ["account w operator"]);
    assert!(world.asks_for_sync().await);
}

#[tokio::test]
async fn a_pause_that_came_after_the_webhook_was_said_stays() {
    let world = World::new().await;
    world.pause(Scope::Account, "w", By::Provider).await;
    world
        .account_is(-300, json!({"event": "ACCOUNT_RECONNECTED"}))
        .await;
    assert_eq!(world.stopped().await, ["account w provider"]);
}

#[tokio::test]
async fn what_was_said_next_ends_a_pause_however_late_both_are_heard() {
    let world = World::new().await;
    world
        .account_is(-600, json!({"event": "ACCOUNT_OFFBOARDED"}))
        .await;
    assert_eq!(world.stopped().await, ["account w provider"]);
    world
        .account_is(-300, json!({"event": "ACCOUNT_RECONNECTED"}))
        .await;
    assert_eq!(world.stopped().await, [""; 0]);
    assert_eq!(
        world.history().await,
        ["provider pause account w", "provider resume account w"]
    );
}

#[tokio::test]
async fn a_pause_by_webhook_stands_since_it_was_said() {
    let world = World::new().await;
    world
        .account_is(-600, json!({"event": "ACCOUNT_OFFBOARDED"}))
        .await;
    world
        .account_is(
            -500,
            json!({"event": "ACCOUNT_RESTRICTION", "restriction_info": [
        {"restriction_type": "RESTRICTED_UTILITY_TEMPLATES", "expiration": world.now + 60}]}),
        )
        .await;
    let since = |scope: &str| {
        format!(
            "select string_agg(distinct extract(epoch from since)::bigint::text, ' ')
             from postrider.pause where scope = '{scope}'"
        )
    };
    assert_eq!(
        world.text(&since("account")).await,
        (world.now - 600).to_string()
    );
    assert_eq!(
        world.text(&since("template")).await,
        (world.now - 500).to_string()
    );
    // Said once more, it stands since the first time.
    world
        .account_is(-400, json!({"event": "ACCOUNT_OFFBOARDED"}))
        .await;
    assert_eq!(
        world.text(&since("account")).await,
        (world.now - 600).to_string()
    );
}

#[tokio::test]
async fn a_restriction_of_utility_templates_stops_those_and_no_others() {
    let world = World::new().await;
    sqlx::query("update postrider.template set category = 'AUTHENTICATION' where name = 'window'")
        .execute(world.pool())
        .await
        .unwrap();
    world
        .account_is(
            -9,
            json!({"event": "ACCOUNT_RESTRICTION", "restriction_info": [
        {"restriction_type": "RESTRICTED_UTILITY_TEMPLATES", "expiration": world.now + 60}]}),
        )
        .await;
    assert_eq!(world.stopped().await, ["template w/shipped/en_US provider"]);
}

#[tokio::test]
async fn a_template_that_nobody_asked_to_be_marketing_is_paused_until_it_is_taken_back() {
    let world = World::new().await;
    world.recategorised(-9, "UTILITY", "MARKETING").await;
    assert_eq!(world.stopped().await, ["template w/shipped/en_US operator"]);
    assert_eq!(
        world
            .text("select by || ': ' || reason from postrider.pause")
            .await,
        "postrider: the provider changed its category from UTILITY to MARKETING"
    );
    // It is the operators' rule: the provider's approval does not end it.
    world.template_is(-8, "shipped", "APPROVED").await;
    assert_eq!(world.stopped().await.len(), 1);
    world.recategorised(-7, "MARKETING", "UTILITY").await;
    assert_eq!(world.stopped().await, [""; 0]);
    assert_eq!(
        world.history().await,
        [
            "provider template_category template w/shipped/en_US",
            "postrider pause template w/shipped/en_US",
            "provider template_category template w/shipped/en_US",
            "postrider resume template w/shipped/en_US",
        ]
    );
}

#[tokio::test]
async fn a_category_that_a_kind_does_not_allow_pauses_and_one_that_all_allow_does_not() {
    let world = World::new().await;
    sqlx::query("update postrider.kind set categories = '{UTILITY,MARKETING}'")
        .execute(world.pool())
        .await
        .unwrap();
    world.recategorised(-9, "UTILITY", "MARKETING").await;
    assert_eq!(world.stopped().await, [""; 0]);
    sqlx::query("update postrider.kind set categories = '{MARKETING}'")
        .execute(world.pool())
        .await
        .unwrap();
    world.recategorised(-8, "MARKETING", "UTILITY").await;
    assert_eq!(world.stopped().await.len(), 1);
}

#[tokio::test]
async fn with_warn_a_recategorised_template_is_only_noted() {
    let world = World::new().await;
    sqlx::query("insert into postrider.setting values ('on_recategorised', '\"warn\"')")
        .execute(world.pool())
        .await
        .unwrap();
    world.recategorised(-9, "UTILITY", "MARKETING").await;
    assert_eq!(world.stopped().await, [""; 0]);
    assert_eq!(
        world.history().await,
        ["provider template_category template w/shipped/en_US"]
    );
}

#[tokio::test]
async fn a_template_that_we_do_not_know_asks_for_the_list_and_changes_nothing() {
    let world = World::new().await;
    world.template_is(-9, "unheard_of", "APPROVED").await;
    assert!(world.asks_for_sync().await);
    // Deleted and made anew: the same name, another id.
    let mut former = template("shipped", json!({"event": "DELETED"}));
    former["message_template_id"] = json!("77");
    world
        .told(-8, "message_template_status_update", former)
        .await;
    assert!(world.asks_for_sync().await);
    assert_eq!(world.status("shipped").await, "APPROVED");
    let edited = template("shipped", json!({"message_template_element": "Hi"}));
    world
        .told(-7, "message_template_components_update", edited)
        .await;
    assert!(world.asks_for_sync().await);
}

#[tokio::test]
async fn only_an_accounts_own_app_speaks_for_it() {
    let world = World::new().await;
    world
        .told_of(
            "w",
            "other",
            -9,
            "account_update",
            json!({"event": "ACCOUNT_DELETED"}),
        )
        .await;
    world
        .told_of(
            "stranger",
            "main",
            -9,
            "account_update",
            json!({"event": "ACCOUNT_DELETED"}),
        )
        .await;
    assert_eq!(world.stopped().await, [""; 0]);
    assert_eq!(world.history().await, [""; 0]);
    assert_eq!(
        count(world.pool(), "webhook_event").await,
        2,
        "they are kept all the same"
    );
}

#[tokio::test]
async fn what_changes_nothing_is_kept_and_what_people_should_know_is_in_the_history() {
    let world = World::new().await;
    world
        .told(-9, "smb_message_echoes", json!({"message_echoes": []}))
        .await;
    world.told(-9, "something_new", json!({"event": "X"})).await;
    world
        .told(
            -9,
            "security",
            json!({"display_phone_number": "15550783881", "event": "PIN_CHANGED"}),
        )
        .await;
    world
        .told(
            -9,
            "account_alerts",
            json!({"entity_type": "BUSINESS", "alert_info": {"alert_type": "OBA_APPROVED"}}),
        )
        .await;
    assert_eq!(
        count(world.pool(), "webhook_event where problem is null").await,
        4
    );
    assert_eq!(count(world.pool(), "service_window").await, 0);
    assert_eq!(
        world.history().await,
        [
            format!("provider security number {NUMBER}"),
            "provider account_alert account w".to_owned()
        ]
    );
}

#[tokio::test]
async fn a_change_that_the_database_refuses_spoils_only_itself() {
    let world = World::new().await;
    let changes = [
        json!({"field": "message_template_status_update", "value": template("shipped", json!({"event": "PAUSED"}))}),
        // No JSON of Postgres holds this character.
        json!({"field": "account_alerts", "value": {"alert_info": "a\0b"}}),
        json!({"field": "message_template_status_update", "value": template("window", json!({"event": "PAUSED"}))}),
    ];
    let body = json!({"entry": [{"id": "w", "time": world.now, "changes": changes}]}).to_string();
    let signature = sign(body.as_bytes(), &secret());
    let answer = world
        .receiver
        .post("/webhooks/whatsapp/main", Some(&signature), body)
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
    for name in ["shipped", "window"] {
        assert_eq!(world.status(name).await, "PAUSED");
    }
    assert_eq!(
        count(
            world.pool(),
            "webhook_event where problem like 'the database refused it%'"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn every_pause_and_every_end_of_one_is_in_the_history_whoever_it_was() {
    let world = World::new().await;
    world.pause(Scope::All, "", By::Operator("ada")).await;
    world.pause(Scope::Number, NUMBER, By::Provider).await;
    // Said again with each answer: no news.
    world.pause(Scope::Number, NUMBER, By::Provider).await;
    facts::resume(world.pool(), Scope::Number, NUMBER, By::Provider)
        .await
        .unwrap();
    sqlx::query("update postrider.pause set until = now() - interval '1 second'")
        .execute(world.pool())
        .await
        .unwrap();
    facts::expire_pauses(world.pool()).await.unwrap();
    assert_eq!(
        world.history().await,
        [
            "ada pause all".to_owned(),
            format!("provider pause number {NUMBER}"),
            format!("provider resume number {NUMBER}"),
            "ada pause all".to_owned(),
            "postrider resume all".to_owned(),
        ]
    );
}

#[tokio::test]
async fn history_shows_who_did_what_and_why_newest_last() {
    let world = World::new().await;
    let config = format!("[database]\nurl = {:?}\n", world.database.url());
    let postrider = Postrider::new(&config);
    let run = |args: &[&str]| {
        let output = postrider.run(&[&["history"], args].concat());
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let actions = |args: &[&str]| -> Vec<String> {
        let printed = run(&[args, &["--json"]].concat());
        let events = printed
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        events
            .map(|event| event["action"].as_str().unwrap().to_owned())
            .collect()
    };
    world.template_is(-9, "shipped", "PAUSED").await;
    world.pause(Scope::Account, "w", By::Operator("ada")).await;
    world.template_is(-8, "window", "DISABLED").await;
    assert_eq!(
        actions(&[]),
        ["template_status", "pause", "template_status"]
    );
    assert_eq!(actions(&["--target", "shipped"]), ["template_status"]);
    assert_eq!(actions(&["--action", "pause"]), ["pause"]);
    assert_eq!(actions(&["--limit", "2"]), ["pause", "template_status"]);
    assert_eq!(actions(&["--since", "2100-01-01T00:00:00Z"]), [""; 0]);
    assert_eq!(
        actions(&["--target", "s_ipped"]),
        [""; 0],
        "letters mean themselves"
    );
    let table = run(&[]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[1].contains("provider") && lines[1].contains("APPROVED → PAUSED"),
        "{table}"
    );
    assert!(
        lines[2].contains("ada") && lines[2].contains("account w"),
        "{table}"
    );
}

/// Every waiting job, with where its row is and who wrote it: an UPDATE would change both.
async fn waiting_rows(pool: &PgPool, template: &str) -> Vec<String> {
    sqlx::query_scalar(
        "select concat_ws(' ', id, xmin, ctid) from postrider.queue where template = $1 order by id",
    )
    .bind(template)
    .fetch_all(pool)
    .await
    .unwrap()
}

/// The same, once nothing has become of any of them for some seconds.
async fn rows_at_rest(pool: &PgPool, template: &str) -> Vec<String> {
    eventually("the rows to rest", || async {
        let before = waiting_rows(pool, template).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        (waiting_rows(pool, template).await == before).then_some(before)
    })
    .await
}

async fn sent(pool: &PgPool, template: &str) -> i64 {
    sqlx::query_scalar("select count(*) from postrider.message where template = $1")
        .bind(template)
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn enqueue(pool: &PgPool, to: &[String], template: &str, parameters: &Value) {
    sqlx::query(
        "select postrider.enqueue(recipient, $2, $3, language => 'en_US') from unnest($1::text[]) recipient",
    )
    .bind(to)
    .bind(template)
    .bind(parameters)
    .execute(pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_template_paused_by_webhook_stops_within_a_second_and_goes_on_when_it_is_approved() {
    let mut setup = Setup::quick();
    setup.numbers.truncate(1);
    let number = setup.numbers[0].id.clone();
    let rig = Rig::new(setup, "[pacing]\nmessages_per_second = 20\n").await;
    let _daemon = rig.daemon().await;
    let people = recipients(400);
    rig.opt_in(&people).await;
    let pool = rig.pool();
    enqueue(
        pool,
        &people[..300],
        "order_shipped",
        &json!({"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}),
    )
    .await;
    enqueue(
        pool,
        &people[300..],
        "delivery_window",
        &json!({"header": "PR-1", "body": ["Ada", "Monday"]}),
    )
    .await;
    let sent = |template: &'static str| sent(pool, template);
    eventually("some of them to be sent", || async {
        (sent("order_shipped").await > 20).then_some(())
    })
    .await;

    // Only the webhook says so: the sandbox would go on taking the messages.
    let control = rig.sandbox.control();
    let tell = |event: &str| {
        let value = json!({"event": event, "message_template_name": "order_shipped", "message_template_language": "en-US"});
        control
            .webhook(&number, "message_template_status_update", &value)
            .unwrap();
    };
    tell("PAUSED");
    control.quiet().await;
    let told = postrider::clock::now();
    let rows = rows_at_rest(pool, "order_shipped").await;
    let last: chrono::DateTime<chrono::Utc> = sqlx::query_scalar(
        "select max(attempt.at) from postrider.attempt join postrider.message using (job)
         where message.template = 'order_shipped'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    // Within a second, in which it is read, and as long again for a busy machine.
    assert!(
        last - told < chrono::TimeDelta::seconds(2),
        "{}",
        last - told
    );
    assert!(!rows.is_empty(), "it stopped before all were sent");
    eventually("the other template to go on", || async {
        (sent("delivery_window").await == 100).then_some(())
    })
    .await;
    assert_eq!(waiting_rows(pool, "order_shipped").await, rows);

    tell("REINSTATED");
    rig.queue_is_empty().await;
    assert_eq!(sent("order_shipped").await, 300);
}

#[tokio::test]
async fn a_template_that_is_new_to_us_is_read_when_a_webhook_tells_of_it() {
    let setup = Setup::quick();
    let (waba_id, number) = (
        setup.accounts[0].waba_id.clone(),
        setup.numbers[0].id.clone(),
    );
    let rig = Rig::new(setup, "").await;
    let _daemon = rig.daemon().await;
    let control = rig.sandbox.control();
    control.set_template(&Template {
        waba_id,
        name: "brand_new".to_owned(),
        language: "en_US".to_owned(),
        status: "APPROVED".to_owned(),
        category: "UTILITY".to_owned(),
        parameter_format: "POSITIONAL".to_owned(),
        components: json!([{"type": "BODY", "text": "Hi {{1}}!"}]),
    });
    let value = json!({"event": "APPROVED", "message_template_name": "brand_new", "message_template_language": "en-US"});
    control
        .webhook(&number, "message_template_status_update", &value)
        .unwrap();
    eventually("the new template to be read", || async {
        let known = count(rig.pool(), "template where name = 'brand_new'").await;
        (known == 1).then_some(())
    })
    .await;
}
