use serde_json::json;

use super::*;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap()
}

fn changes(field: &str, value: &Value) -> Vec<Change> {
    read(field, value, now())
}

fn template() -> TemplateRef {
    TemplateRef {
        name: "order_shipped".to_owned(),
        language: "en_US".to_owned(),
        provider_id: Some("594425479261596".to_owned()),
    }
}

/// A template webhook: with these keys beside those that name the template.
fn of_template(extra: &Value) -> Value {
    let mut value = json!({
        "message_template_id": 594_425_479_261_596_i64, "message_template_name": "order_shipped",
        "message_template_language": "en-US",
    });
    value
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    value
}

fn status_of(extra: &Value) -> Vec<Change> {
    changes("message_template_status_update", &of_template(extra))
}

fn is_note(changes: &[Change], expected: &str) -> bool {
    matches!(changes, [Change::Note { action, .. }, ..] if *action == expected)
}

#[test]
fn each_template_event_becomes_the_status_that_the_lists_have_for_it() {
    for (event, status) in [
        ("APPROVED", "APPROVED"),
        ("REINSTATED", "APPROVED"),
        ("PAUSED", "PAUSED"),
        ("paused", "PAUSED"),
        ("DISABLED", "DISABLED"),
        ("REJECTED", "REJECTED"),
        ("PENDING", "PENDING"),
        ("IN_APPEAL", "IN_APPEAL"),
        ("PENDING_DELETION", "PENDING_DELETION"),
        ("DELETED", "DELETED"),
        ("ARCHIVED", "ARCHIVED"),
        ("LIMIT_EXCEEDED", "LIMIT_EXCEEDED"),
    ] {
        let expected = Change::TemplateStatus {
            template: template(),
            status: status.to_owned(),
            why: None,
        };
        assert_eq!(
            status_of(&json!({"event": event, "reason": "NONE"})),
            [expected],
            "{event}"
        );
    }
}

#[test]
fn a_flagged_template_may_still_be_sent() {
    assert!(is_note(
        &status_of(&json!({"event": "FLAGGED"})),
        "template_flagged"
    ));
}

#[test]
fn an_event_that_does_not_say_what_the_template_is_now_asks_for_the_list() {
    for event in ["UNARCHIVED", "LOCKED", "TELEPORTED", ""] {
        assert_eq!(
            status_of(&json!({"event": event})),
            [Change::Resync],
            "{event}"
        );
    }
    let nameless = json!({"event": "PAUSED", "message_template_id": 7});
    assert_eq!(
        changes("message_template_status_update", &nameless),
        [Change::Resync]
    );
}

#[test]
fn the_providers_reasons_are_kept_in_its_words() {
    let why = |extra: &Value| match status_of(extra).remove(0) {
        Change::TemplateStatus { why, .. } => why,
        other => panic!("{other:?}"),
    };
    let title = json!({"event": "PAUSED", "reason": "NONE",
                       "other_info": {"title": "FIRST_PAUSE", "description": "for 3 hours"}});
    assert_eq!(why(&title).as_deref(), Some("FIRST_PAUSE; for 3 hours"));
    let rejected = json!({"event": "REJECTED", "reason": "INVALID_FORMAT",
                          "rejection_info": {"reason": "a variable at the end", "recommendation": "add words"}});
    assert_eq!(
        why(&rejected).as_deref(),
        Some("INVALID_FORMAT; a variable at the end; add words")
    );
    let disabled = json!({"event": "DISABLED", "reason": null, "disable_info": {"disable_date": 1_790_000_000}});
    assert_eq!(why(&disabled).as_deref(), Some("1790000000"));
}

#[test]
fn a_status_tells_the_category_too() {
    let approved =
        status_of(&json!({"event": "APPROVED", "message_template_category": "MARKETING"}));
    let category = Change::TemplateCategory {
        template: template(),
        category: "MARKETING".to_owned(),
    };
    assert_eq!(approved[1..], [category]);
}

#[test]
fn a_quality_is_understood_under_either_field() {
    let value =
        of_template(&json!({"previous_quality_score": "GREEN", "new_quality_score": "YELLOW"}));
    let expected = Change::TemplateQuality {
        template: template(),
        quality: "YELLOW".to_owned(),
    };
    for field in [
        "message_template_quality_update",
        "message_template_status_update",
    ] {
        assert_eq!(
            changes(field, &value),
            std::slice::from_ref(&expected),
            "{field}"
        );
    }
}

#[test]
fn an_edited_template_is_read_again() {
    let value = of_template(
        &json!({"message_template_title": "Hi", "message_template_element": "Hi {{1}}",
        "message_template_buttons": [{"message_template_button_type": "URL"}]}),
    );
    let edited = changes("message_template_components_update", &value);
    assert!(is_note(&edited, "template_edited"));
    assert_eq!(edited[1..], [Change::Resync]);
}

#[test]
fn an_announced_category_changes_nothing_yet_and_a_done_one_does() {
    let field = "template_category_update";
    let present = |category: &str| Change::TemplateCategory {
        template: template(),
        category: category.to_owned(),
    };
    let done = of_template(&json!({"previous_category": "UTILITY", "new_category": "MARKETING"}));
    assert_eq!(changes(field, &done), [present("MARKETING")]);
    let coming = of_template(
        &json!({"new_category": "UTILITY", "correct_category": "MARKETING",
                                     "category_update_timestamp": 1_790_086_400}),
    );
    let announced = changes(field, &coming);
    assert_eq!(announced[0], present("UTILITY"));
    assert!(is_note(&announced[1..], "template_category_announced"));
}

#[test]
fn limits_are_understood_as_words_and_as_numbers_under_every_key() {
    let limits = |field: &str, value: &Value| match changes(field, value).as_slice() {
        [Change::MessagingLimit { recipients, .. }, ..] => Some(*recipients),
        _ => None,
    };
    let field = "business_capability_update";
    for (value, expected) in [
        (
            json!({"max_daily_conversations_per_business": "TIER_2K"}),
            Some(Some(2_000)),
        ),
        (
            json!({"max_daily_conversations_per_business": 2_000, "max_phone_numbers_per_business": 25}),
            Some(Some(2_000)),
        ),
        (
            json!({"max_daily_conversations_per_business": "TIER_UNLIMITED"}),
            Some(None),
        ),
        (
            json!({"max_daily_conversation_per_phone": 1_000, "max_phone_numbers_per_business": 2}),
            Some(Some(1_000)),
        ),
        (json!({"max_daily_conversation_per_phone": -1}), Some(None)),
        (
            json!({"max_daily_conversations_per_phone": "-1"}),
            Some(None),
        ),
        // The portfolio's own word counts before the old one.
        (
            json!({"max_daily_conversation_per_phone": 250, "max_daily_conversations_per_business": "TIER_10K"}),
            Some(Some(10_000)),
        ),
        (
            json!({"max_daily_conversations_per_business": "TIER_NOT_SET"}),
            None,
        ),
        (json!({"max_daily_conversations_per_business": {}}), None),
        (json!({"max_phone_numbers_per_waba": 20}), None),
    ] {
        assert_eq!(limits(field, &value), expected, "{value}");
    }
    let field = "phone_number_quality_update";
    for (value, expected) in [
        (
            json!({"event": "UPGRADE", "current_limit": "TIER_100K", "old_limit": "TIER_10K"}),
            Some(Some(100_000)),
        ),
        (
            json!({"event": "ONBOARDING", "current_limit": "TIER_50"}),
            Some(Some(50)),
        ),
        (
            json!({"event": "DOWNGRADE", "current_limit": "TIER_1K", "max_daily_conversations_per_business": "TIER_2K"}),
            Some(Some(2_000)),
        ),
        (json!({"event": "UPGRADE"}), None),
    ] {
        assert_eq!(limits(field, &value), expected, "{value}");
    }
}

#[test]
fn a_number_that_may_send_faster_does_so_and_other_events_of_it_ask_for_the_list() {
    let of = |event: &str| {
        let value = json!({"display_phone_number": "15550783881", "event": event, "current_limit": "TIER_NOT_SET"});
        changes("phone_number_quality_update", &value)
    };
    let faster = Change::NumberThroughput {
        number: "15550783881".to_owned(),
        level: "HIGH",
    };
    assert_eq!(of("THROUGHPUT_UPGRADE"), [faster]);
    for event in ["FLAGGED", "UNFLAGGED", "ONBOARDING", "UPGRADE"] {
        let changes = of(event);
        assert!(is_note(&changes, "number_event"), "{event}");
        assert_eq!(changes[1..], [Change::Resync], "{event}");
    }
}

fn account(value: &Value) -> Vec<Change> {
    changes("account_update", value)
}

fn restricted(restriction: &Value) -> Vec<Change> {
    account(
        &json!({"phone_number": "16505551111", "event": "ACCOUNT_RESTRICTION", "restriction_info": restriction}),
    )
}

#[test]
fn a_restriction_of_messages_stops_the_account_until_it_ends() {
    let ends = DateTime::from_timestamp(1_790_086_400, 0);
    for expiration in [
        json!(1_790_086_400),
        json!("1790086400"),
        json!(1_790_086_400_000_i64),
        json!("2026-09-22T14:13:20.000Z"),
        json!("2026-09-22T14:13:20+0000"),
    ] {
        let restriction = json!({"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING", "expiration": expiration});
        let expected = Change::PauseAccount {
            matter: Matter::Restriction,
            reason: "RESTRICTED_BIZ_INITIATED_MESSAGING".to_owned(),
            until: ends,
        };
        assert_eq!(
            restricted(&json!([restriction])),
            std::slice::from_ref(&expected),
            "{expiration}"
        );
        assert_eq!(restricted(&restriction), [expected], "alone, not in a list");
    }
}

#[test]
fn a_restriction_without_an_end_stops_until_somebody_resumes() {
    let restriction = json!([{"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING", "remediation": "appeal"}]);
    let expected = Change::PauseAccount {
        matter: Matter::Restriction,
        reason: "RESTRICTED_BIZ_INITIATED_MESSAGING: appeal".to_owned(),
        until: None,
    };
    assert_eq!(restricted(&restriction), [expected]);
}

#[test]
fn a_restriction_that_is_over_stops_nothing() {
    let over = json!([{"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING", "expiration": 1_604_703_058}]);
    assert!(is_note(&restricted(&over), "account_event"));
}

#[test]
fn a_restriction_of_utility_templates_stops_only_those() {
    let restriction =
        json!([{"restriction_type": "RESTRICTED_UTILITY_TEMPLATES", "expiration": 1_790_086_400}]);
    let expected = Change::StopCategory {
        category: "UTILITY",
        reason: "RESTRICTED_UTILITY_TEMPLATES".to_owned(),
        until: DateTime::from_timestamp(1_790_086_400, 0),
    };
    assert_eq!(restricted(&restriction), [expected]);
}

#[test]
fn restrictions_of_what_is_not_done_here_stop_nothing() {
    for kind in [
        "RESTRICTED_CUSTOMER_INITIATED_MESSAGING",
        "RESTRICTED_ADD_PHONE_NUMBER_ACTION",
        "RESTRICTED_DIRECT_SEND_UTILITY_TEMPLATES",
        "RESTRICTED_BUSINESS_INITIATED_CALLING",
        "RESTRICTED_SOMETHING_NEW",
    ] {
        assert!(
            is_note(
                &restricted(&json!([{"restriction_type": kind}])),
                "account_event"
            ),
            "{kind}"
        );
    }
}

#[test]
fn an_account_that_is_disabled_deleted_gone_or_in_violation_stops() {
    for (value, matter, reason) in [
        (
            json!({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "DISABLE", "waba_ban_date": "April 17, 2025"}}),
            Matter::Ban,
            "it is disabled since April 17, 2025",
        ),
        (
            json!({"event": "ACCOUNT_VIOLATION", "violation_info": {"violation_type": "SCAM"}}),
            Matter::Violation,
            "it broke a policy: SCAM",
        ),
        (
            json!({"event": "ACCOUNT_DELETED"}),
            Matter::Existence,
            "it was deleted",
        ),
        (
            json!({"event": "ACCOUNT_OFFBOARDED"}),
            Matter::Connection,
            "it left the Cloud API with its phone",
        ),
    ] {
        let expected = Change::PauseAccount {
            matter,
            reason: reason.to_owned(),
            until: None,
        };
        assert_eq!(account(&value), [expected], "{value}");
    }
}

#[test]
fn an_account_that_is_reinstated_or_reconnected_goes_on_and_is_read_again() {
    for (value, matter) in [
        (
            json!({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "REINSTATE"}}),
            Matter::Ban,
        ),
        (json!({"event": "ACCOUNT_RECONNECTED"}), Matter::Connection),
    ] {
        assert_eq!(
            account(&value),
            [Change::ResumeAccount { matter }, Change::Resync],
            "{value}"
        );
    }
}

#[test]
fn other_events_of_an_account_are_noted() {
    for value in [
        json!({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "SCHEDULE_FOR_DISABLE", "waba_ban_date": "May 1, 2025"}}),
        json!({"event": "VOLUME_BASED_PRICING_TIER_UPDATE", "volume_tier_info": {"tier": "0:100000", "region": "Türkiye"}}),
        json!({"event": "AUTH_INTL_PRICE_ELIGIBILITY_UPDATE"}),
        json!({"event": "BUSINESS_PRIMARY_LOCATION_COUNTRY_UPDATE", "country": "TR"}),
        json!({"event": "PARTNER_REMOVED"}),
        json!({"event": "MM_LITE_TERMS_SIGNED"}),
        json!({"event": "AD_ACCOUNT_LINKED"}),
        json!({"event": "VERIFIED_ACCOUNT"}),
        json!({}),
    ] {
        assert!(is_note(&account(&value), "account_event"), "{value}");
    }
}

#[test]
fn what_people_should_know_of_is_noted() {
    let display = "15550783881";
    for (field, value, action) in [
        (
            "account_alerts",
            json!({"entity_type": "PHONE_NUMBER", "entity_id": 106, "alert_info": {"alert_severity": "CRITICAL"}}),
            "account_alert",
        ),
        (
            "account_review_update",
            json!({"decision": "REJECTED"}),
            "account_review",
        ),
        (
            "security",
            json!({"display_phone_number": display, "event": "PIN_CHANGED", "requester": 7}),
            "security",
        ),
        (
            "business_username_update",
            json!({"display_phone_number": display, "username": "shop", "status": "approved"}),
            "number_username",
        ),
        (
            "phone_number_name_update",
            json!({"display_phone_number": display, "decision": "REJECTED", "rejection_reason": "NAME_EXISTS"}),
            "number_name_refused",
        ),
    ] {
        assert!(is_note(&changes(field, &value), action), "{field}");
    }
}

#[test]
fn an_approved_name_is_the_numbers_name() {
    let value = json!({"display_phone_number": "15550783881", "decision": "APPROVED",
                       "requested_verified_name": "Lucky Shrub", "rejection_reason": null});
    let expected = Change::NumberName {
        number: "15550783881".to_owned(),
        name: "Lucky Shrub".to_owned(),
    };
    assert_eq!(changes("phone_number_name_update", &value), [expected]);
}

#[test]
fn what_the_business_wrote_by_hand_and_fields_that_we_do_not_know_change_nothing() {
    for field in ["smb_message_echoes", "account_settings_update", "flows", ""] {
        assert_eq!(
            changes(
                field,
                &json!({"message_echoes": [{"from": "1", "to": "2"}]})
            ),
            [],
            "{field}"
        );
    }
}

#[test]
fn no_shape_is_an_error() {
    for field in [
        "message_template_status_update",
        "message_template_quality_update",
        "message_template_components_update",
        "template_category_update",
        "phone_number_quality_update",
        "business_capability_update",
        "account_update",
        "account_alerts",
        "phone_number_name_update",
        "security",
    ] {
        for value in [
            json!(null),
            json!(7),
            json!("text"),
            json!([]),
            json!({"event": {}}),
            json!({"event": "ACCOUNT_RESTRICTION", "restriction_info": [7, null, {"expiration": []}]}),
            json!({"event": "PAUSED", "message_template_name": "", "message_template_language": 1}),
        ] {
            let changes = changes(field, &value);
            assert!(
                changes
                    .iter()
                    .all(|it| matches!(it, Change::Resync | Change::Note { .. })),
                "{field} {value}: {changes:?}"
            );
        }
    }
}
