use chrono::NaiveDate;
use serde_json::{Value as Json, json};

use super::*;
use crate::rules::job::{JobId, Lane};

fn read_at(body: &str, now: DateTime<Utc>) -> Notices {
    let keywords = Keywords::default();
    let reading = Reading {
        app: "main",
        installation: "inst",
        keywords: &keywords,
        stop_covers: "all",
        now,
    };
    read(body.as_bytes(), &reading)
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_100, 0).unwrap()
}

fn read_value(value: &Json) -> Notices {
    read_change(&json!({ "field": "messages", "value": value }))
}

fn read_change(change: &Json) -> Notices {
    let body = json!({
        "object": "whatsapp_business_account",
        "entry": [{ "id": "waba", "time": 1_790_000_000, "changes": [change] }],
    });
    read_at(&body.to_string(), now())
}

fn status() -> Json {
    json!({
        "id": "wamid.A", "status": "sent", "timestamp": "1790000000", "recipient_id": "905551231234",
        "biz_opaque_callback_data": "pr1.inst.42.1.7.260921",
        "pricing": { "billable": true, "pricing_model": "PMP", "type": "regular", "category": "utility" },
    })
}

fn with(mut element: Json, key: &str, value: Json) -> Json {
    element[key] = value;
    element
}

#[test]
fn a_status_is_read_with_its_job_price_and_number() {
    let value = json!({ "metadata": { "phone_number_id": "106" }, "statuses": [status()] });
    let notices = read_value(&value);
    let [receipt] = notices.receipts.try_into().unwrap();
    assert_eq!(receipt.phone_number_id.as_deref(), Some("106"));
    assert_eq!(
        (receipt.provider_id.as_str(), receipt.status.as_str()),
        ("wamid.A", "sent")
    );
    assert_eq!(receipt.at.timestamp(), 1_790_000_000);
    assert_eq!(receipt.pricing_category.as_deref(), Some("utility"));
    assert_eq!(receipt.pricing_type.as_deref(), Some("regular"));
    let about = receipt.about.unwrap();
    assert_eq!(
        (about.job, about.attempt, about.lane),
        (JobId(42), 1, Lane(7))
    );
    assert_eq!(about.day, NaiveDate::from_ymd_opt(2026, 9, 21).unwrap());
    assert_eq!(receipt.raw, status().to_string());
    assert_eq!(notices.events, []);
}

#[test]
fn a_malformed_element_spoils_only_itself() {
    for bad in [
        json!(7),
        json!("sent"),
        json!(null),
        json!([]),
        json!({}),
        json!({ "id": "x" }),
        json!({ "status": {} , "id": []}),
    ] {
        let notices = read_value(&json!({ "statuses": [status(), bad, status()] }));
        assert_eq!(notices.receipts.len(), 2, "{bad}");
        let [event] = notices.events.try_into().unwrap();
        assert!(event.problem.is_some());
        assert_eq!(event.raw, bad.to_string());
    }
}

#[test]
fn a_lone_surrogate_spoils_only_its_own_element() {
    let body = r#"{"entry":[{"changes":[{"field":"messages","value":{"statuses":[
        {"id":"a","status":"sent","recipient_id":"\ud83d"},{"id":"b","status":"sent"}]}}]}]}"#;
    let notices = read_at(body, now());
    assert_eq!((notices.receipts.len(), notices.events.len()), (1, 1));
}

#[test]
fn odd_parts_of_a_status_are_absent_and_the_status_counts() {
    let mut odd = status();
    for (key, value) in [
        ("pricing", json!("free")),
        ("errors", json!({ "code": 1 })),
        ("conversation", json!([])),
        ("timestamp", json!("soon")),
        ("recipient_id", json!({})),
    ] {
        odd = with(odd, key, value);
    }
    let [receipt] = read_value(&json!({ "statuses": [odd] }))
        .receipts
        .try_into()
        .unwrap();
    assert_eq!(receipt.at, now(), "the time of its coming stands in");
    assert_eq!((receipt.pricing_type, receipt.error_code), (None, None));
    assert!(receipt.about.is_some());
}

#[test]
fn codes_and_times_come_as_numbers_and_as_strings() {
    for (code, time) in [
        (json!(132_015), json!(1_790_000_000)),
        (json!("132015"), json!("1790000000")),
        (json!("132015"), json!("1790000000000")),
        (json!(132_015), json!(1_790_000_000_000_i64)),
    ] {
        let failed = with(
            with(status(), "timestamp", time),
            "errors",
            json!([{ "code": code, "title": "Paused" }]),
        );
        let [receipt] = read_value(&json!({ "statuses": [failed] }))
            .receipts
            .try_into()
            .unwrap();
        assert_eq!(receipt.error_code, Some(132_015));
        assert_eq!(receipt.error_title.as_deref(), Some("Paused"));
        assert_eq!(receipt.at.timestamp(), 1_790_000_000);
    }
}

#[test]
fn only_known_statuses_of_our_own_installation_are_about_a_job() {
    let about = |key, value| {
        let element = with(status(), key, json!(value));
        let [receipt] = read_value(&json!({ "statuses": [element] }))
            .receipts
            .try_into()
            .unwrap();
        receipt.about
    };
    assert!(about("status", "played").is_some());
    assert_eq!(about("status", "warning"), None);
    assert_eq!(
        about("biz_opaque_callback_data", "pr1.other.42.1.7.260921"),
        None
    );
    assert_eq!(about("biz_opaque_callback_data", "order-77"), None);
}

#[test]
fn what_is_not_json_or_not_a_webhook_is_kept_as_an_event() {
    for body in [
        "",
        "{",
        "[]",
        "7",
        r#"{"entry":{}}"#,
        r#"{"entry":[7]}"#,
        r#"{"entry":[{"changes":""}]}"#,
    ] {
        let [event] = read_at(body, now()).events.try_into().unwrap();
        assert!(event.problem.is_some(), "{body}");
    }
    let keywords = Keywords::default();
    let reading = Reading {
        app: "main",
        installation: "inst",
        keywords: &keywords,
        stop_covers: "all",
        now: now(),
    };
    assert_eq!(read(b"\xff\0", &reading).events[0].raw, "\u{fffd}\u{fffd}");
}

#[test]
fn what_changes_a_rule_is_told_with_its_account_and_its_time() {
    let change = json!({ "field": "account_update", "value": { "event": "ACCOUNT_DELETED" } });
    let notices = read_change(&change);
    assert_eq!(notices.events, []);
    let [told] = notices.told.try_into().unwrap();
    assert_eq!(
        (told.account.as_str(), told.at.timestamp()),
        ("waba", 1_790_000_000)
    );
    assert_eq!(told.changes.len(), 1);
    assert_eq!(
        (told.event.app.as_str(), told.event.field.as_str()),
        ("main", "account_update")
    );
}

#[test]
fn a_time_that_is_ahead_of_ours_makes_nothing_later_look_old() {
    let change = json!({ "field": "account_update", "value": { "event": "ACCOUNT_DELETED" } });
    for time in [json!(1_790_003_600), json!("soon"), json!(null)] {
        let body = json!({ "entry": [{ "id": "waba", "time": time, "changes": [change] }] });
        let [told] = read_at(&body.to_string(), now()).told.try_into().unwrap();
        assert_eq!(told.at, now(), "{time}");
    }
}

#[test]
fn other_fields_are_kept_whole_with_the_account_they_are_about() {
    let change = json!({ "field": "smb_message_echoes", "value": { "message_echoes": [] } });
    let [event] = read_change(&change).events.try_into().unwrap();
    assert_eq!(
        (event.field.as_str(), event.problem),
        ("smb_message_echoes", None)
    );
    let raw: Json = serde_json::from_str(&event.raw).unwrap();
    assert_eq!(
        raw,
        json!({ "id": "waba", "time": 1_790_000_000, "changes": [change] })
    );
}

#[test]
fn a_person_with_both_addresses_is_linked_and_a_group_is_nobody() {
    let both = with(status(), "recipient_user_id", json!("US.1349"));
    let links = read_value(&json!({ "statuses": [both] })).links;
    let link = Link {
        known: "+905551231234".into(),
        also: "US.1349".into(),
        source: LinkSource::Webhook,
    };
    assert_eq!(links, std::slice::from_ref(&link));
    assert_eq!(
        read_value(&json!({ "contacts": [{ "wa_id": "905551231234", "user_id": "US.1349" }] }))
            .links,
        [link]
    );
    let group = with(both, "recipient_type", json!("group"));
    assert_eq!(read_value(&json!({ "statuses": [group] })).links, []);
    let empty = with(status(), "recipient_user_id", json!(""));
    assert_eq!(read_value(&json!({ "statuses": [empty] })).links, []);
}

/// Both addresses of each link, and what showed it.
fn linked(notices: &Notices) -> Vec<String> {
    let words = |link: &Link| format!("{} {} {}", link.known, link.also, link.source.as_str());
    notices.links.iter().map(words).collect()
}

#[test]
fn a_parents_id_is_linked_to_the_number_and_to_the_id_of_who_hides_it() {
    for (list, [phone, user, parent]) in [
        ("contacts", ["wa_id", "user_id", "parent_user_id"]),
        ("messages", ["from", "from_user_id", "from_parent_user_id"]),
        (
            "statuses",
            [
                "recipient_id",
                "recipient_user_id",
                "recipient_parent_user_id",
            ],
        ),
        // As the last one was called before.
        (
            "statuses",
            [
                "recipient_id",
                "recipient_user_id",
                "parent_recipient_user_id",
            ],
        ),
    ] {
        let mut element = json!({ "id": "wamid.A", "status": "sent" });
        let mut say = |key: &str, value: &str| {
            element[key] = json!(value);
            linked(&read_value(&json!({ list: [element] })))
        };
        let (hidden, shown) = (
            "US.1349 US.ENT.77 webhook",
            [
                "+905551231234 US.1349 webhook",
                "+905551231234 US.ENT.77 webhook",
            ],
        );
        assert_eq!(say(parent, "US.ENT.77"), [""; 0], "{list}, {parent}");
        assert_eq!(say(user, "US.1349"), [hidden], "{list}, {parent}");
        assert_eq!(say(phone, "905551231234"), shown, "{list}, {parent}");
        assert_eq!(say(user, ""), shown[1..], "{list}, {parent}");
        say(user, "US.1349");
        assert_eq!(say(phone, ""), [hidden], "{list}, {parent}");
    }
}

#[test]
fn a_status_with_both_names_of_a_parents_id_counts_and_the_newer_name_is_heeded() {
    let newer = |id: &str| {
        let older = with(status(), "parent_recipient_user_id", json!("US.ENT.1"));
        with(older, "recipient_parent_user_id", json!(id))
    };
    for (id, link) in [
        ("US.ENT.77", "+905551231234 US.ENT.77 webhook"),
        ("", "+905551231234 US.ENT.1 webhook"),
    ] {
        let notices = read_value(&json!({ "statuses": [newer(id)] }));
        assert_eq!(
            (notices.receipts.len(), notices.events.len()),
            (1, 0),
            "{id}"
        );
        assert_eq!(linked(&notices), [link]);
    }
    let group = with(newer("US.ENT.77"), "recipient_type", json!("group"));
    assert_eq!(read_value(&json!({ "statuses": [group] })).links, []);
}

#[test]
fn a_changed_id_links_the_old_with_the_new_and_with_the_number() {
    let update = json!({ "wa_id": "905551231234", "user_id": { "previous": "US.1", "current": "US.2" },
                         "parent_user_id": { "previous": "US.ENT.1", "current": "US.ENT.2" } });
    let links =
        read_change(&json!({ "field": "user_id_update", "value": { "user_id_update": [update] } }))
            .links;
    assert_eq!(
        links
            .iter()
            .map(|l| (l.known.as_str(), l.also.as_str()))
            .collect::<Vec<_>>(),
        [
            ("US.1", "US.2"),
            ("+905551231234", "US.2"),
            ("US.ENT.1", "US.ENT.2"),
            ("+905551231234", "US.ENT.2"),
        ]
    );
}

#[test]
fn stopping_marketing_in_the_app_is_heeded_for_marketing() {
    let preference = |value: &str| {
        let element = json!({ "wa_id": "905551231234", "category": "marketing_messages", "value": value,
                              "timestamp": 1_790_000_000 });
        let value = json!({ "user_preferences": [element, 7] });
        read_change(&json!({ "field": "user_preferences", "value": value }))
    };
    let notices = preference("stop");
    let [wish] = notices.wishes.try_into().unwrap();
    assert_eq!(
        (wish.key.as_str(), wish.scope.as_str(), wish.given),
        ("+905551231234", "marketing", false)
    );
    assert_eq!(
        notices.events.len(),
        2,
        "the change itself, and the element that is none"
    );
    assert!(preference("resume").wishes[0].given);
    assert_eq!(preference("perhaps").wishes, []);
}

#[test]
fn a_thousand_updates_are_read() {
    let statuses: Vec<Json> = (0..1_000)
        .map(|n| with(status(), "id", json!(format!("wamid.{n}"))))
        .collect();
    assert_eq!(
        read_value(&json!({ "statuses": statuses })).receipts.len(),
        1_000
    );
}
