//! A template of every form, filled and refused.

use serde_json::{Value, json, value::RawValue};

use super::*;

mod body;
mod buttons;
mod header;

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

fn template(components: &Value) -> Template {
    Template::parse("APPROVED", "UTILITY", "POSITIONAL", components)
}

fn named(components: &Value) -> Template {
    Template::parse("APPROVED", "UTILITY", "NAMED", components)
}

fn with_header(header: &Value) -> Template {
    template(&json!([header, {"type": "BODY", "text": "Hello"}]))
}

fn with_buttons(buttons: &Value) -> Template {
    template(&json!([{"type": "BODY", "text": "Hello"}, {"type": "BUTTONS", "buttons": buttons}]))
}

fn order() -> Template {
    template(&json!([{"type": "BODY", "text": "Hi {{1}}, order {{2}} is on its way."}]))
}

fn otp() -> Template {
    let url = "https://www.whatsapp.com/otp/code/?otp_type=COPY_CODE&code=otp{{1}}";
    let components = json!([
        {"type": "BODY", "text": "*{{1}}* is your verification code.", "add_security_recommendation": true},
        {"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Copy code", "url": url}]},
    ]);
    Template::parse("APPROVED", "AUTHENTICATION", "POSITIONAL", &components)
}

#[track_caller]
fn filled(template: &Template, parameters: &Value) -> Components {
    template
        .fill(&raw(parameters), Whitespace::Collapse)
        .unwrap()
}

/// The parameters give these components, and these components passed through give themselves.
#[track_caller]
fn gives(template: &Template, parameters: &Value, components: &Value) {
    assert_eq!(json!(filled(template, parameters)), *components);
    assert_eq!(
        json!(filled(template, &json!({"components": components}))),
        *components
    );
}

#[track_caller]
fn refuses(template: &Template, parameters: &Value, problems: &[&str]) {
    let refused = template
        .fill(&raw(parameters), Whitespace::Collapse)
        .unwrap_err();
    assert_eq!(
        refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
        problems,
        "{parameters}"
    );
}

#[test]
fn only_an_approved_template_is_sendable() {
    let standing = |status| Template::parse(status, "UTILITY", "POSITIONAL", &json!([])).standing();
    assert_eq!(standing("APPROVED"), Standing::Sendable);
    assert_eq!(standing("PAUSED"), Standing::Held);
    assert_eq!(
        standing("DISABLED"),
        Standing::Gone(FinalReason::TemplateDisabled)
    );
    let gone = [
        "PENDING",
        "REJECTED",
        "IN_APPEAL",
        "PENDING_DELETION",
        "DELETED",
        "ARCHIVED",
        "LIMIT_EXCEEDED",
        "SOMETHING_NEW",
        "",
    ];
    for status in gone {
        assert_eq!(
            standing(status),
            Standing::Gone(FinalReason::TemplateNotApproved),
            "{status}"
        );
    }
}

#[test]
fn unknown_parameters_are_a_problem() {
    let parameters = json!({"body": ["Ada", "#1"], "boddy": 1, "footer": "x"});
    refuses(
        &order(),
        &parameters,
        &[
            "parameters: `boddy` is not known here",
            "parameters: `footer` is not known here",
        ],
    );
    refuses(
        &order(),
        &json!([]),
        &[
            "parameters: expected an object, received a list",
            "body: expected 2 parameters, received 0",
        ],
    );
}

#[test]
fn a_template_with_a_part_that_is_not_sent_is_refused() {
    let carousel =
        template(&json!([{"type": "BODY", "text": "Hello"}, {"type": "CAROUSEL", "cards": []}]));
    refuses(
        &carousel,
        &json!({}),
        &["carousel: this template has one, and Postrider does not send it"],
    );
    let product = with_header(&json!({"type": "HEADER", "format": "PRODUCT"}));
    refuses(
        &product,
        &json!({}),
        &["header: this template's is a product, and Postrider does not send it"],
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let template = template(&json!([
        {"type": "HEADER", "format": "IMAGE"},
        {"type": "BODY", "text": "Hi {{1}} {{2}}"},
        {"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Track", "url": "https://example.com/{{1}}"}]},
    ]));
    refuses(
        &template,
        &json!({"body": ["", {"currency": {}}], "x": 1}),
        &[
            "body parameter 1: is empty, which the provider refuses",
            "body parameter 2: `fallback` is missing: the text that the recipient reads",
            "body parameter 2: `code` must be a currency in three capital letters, for example TRY",
            "body parameter 2: `amount_1000` must be a whole number: the amount times 1000",
            "parameters: `x` is not known here",
            "header: expected image, exactly one; received 0",
            "button 0: expected url, received nothing",
        ],
    );
}

#[test]
fn no_problem_quotes_a_value() {
    let secret = "83920175";
    let parameters = [
        json!({"code": secret, "body": [secret]}),
        json!({"code": format!("{secret}{secret}")}),
        json!({"body": [secret, secret], "buttons": {"0": {"url": "other"}, "1": {"url": secret}}}),
        json!({"body": {"code": secret}}),
        json!({"header": {"image": {"link": secret}}}),
        json!(secret),
    ];
    for parameters in parameters {
        let problems = otp()
            .fill(&raw(&parameters), Whitespace::Refuse)
            .unwrap_err();
        assert!(
            problems
                .iter()
                .all(|problem| !problem.to_string().contains(secret)),
            "{problems:?}"
        );
    }
}

#[test]
fn the_text_is_what_the_recipient_reads() {
    let template = template(&json!([
        {"type": "HEADER", "format": "DOCUMENT"},
        {"type": "BODY", "text": "Hi {{1}}, {{2}} costs {{3}}. Bye {{1}}!"},
        {"type": "FOOTER", "text": "Acme Air"},
        {"type": "BUTTONS", "buttons": [
            {"type": "URL", "text": "Check in", "url": "https://example.com/{{1}}"},
            {"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+15550001111"},
            {"type": "COPY_CODE", "text": "Copy code"},
            {"type": "QUICK_REPLY", "text": "Thanks"},
        ]},
    ]));
    let components = filled(
        &template,
        &json!({
            "header": {"document": {"link": "https://example.com/1", "filename": "pass.pdf"}},
            "body": ["Ada", "EVN-IST", {"currency": {"code": "EUR", "amount_1000": 99_000, "fallback": "99 €"}}],
            "buttons": {"0": {"url": "r/7"}, "2": {"coupon_code": "FLY10"}},
        }),
    );
    let text = "[document: pass.pdf]\nHi Ada, EVN-IST costs 99 €. Bye Ada!\nAcme Air\n\
                [Check in] https://example.com/r/7\n[Call] +15550001111\n[Copy code] FLY10\n[Thanks]";
    assert_eq!(template.text(&components), text);
}

#[test]
fn a_code_is_shown_once_in_the_text() {
    let components = filled(&otp(), &json!({"code": "012345"}));
    assert_eq!(
        otp().text(&components),
        "*012345* is your verification code.\n[Copy code]"
    );
}
