//! A template of every form, filled and refused.

use serde_json::{Value, json, value::RawValue};

use super::*;

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
fn a_template_without_variables_takes_nothing_and_sends_no_components() {
    let plain =
        template(&json!([{"type": "BODY", "text": "Hello"}, {"type": "FOOTER", "text": "Acme"}]));
    for nothing in [
        json!({}),
        json!(null),
        json!({"body": []}),
        json!({"body": null, "header": null}),
        json!({"components": []}),
    ] {
        assert!(filled(&plain, &nothing).is_empty(), "{nothing}");
    }
    refuses(
        &plain,
        &json!({"body": ["x"]}),
        &["body: expected 0 parameters, received 1"],
    );
}

#[test]
fn a_positional_body_is_filled_in_order() {
    gives(
        &order(),
        &json!({"body": ["Ada", "#1042"]}),
        &json!([{"type": "body", "parameters": [{"type": "text", "text": "Ada"}, {"type": "text", "text": "#1042"}]}]),
    );
}

#[test]
fn a_whole_number_is_a_text_and_a_fraction_is_refused() {
    let components = json!(filled(&order(), &json!({"body": ["Ada", 1042]})));
    assert_eq!(
        components[0]["parameters"][1],
        json!({"type": "text", "text": "1042"})
    );
    let fraction =
        "body parameter 2: is a fraction; give it as text, the way the recipient should read it";
    refuses(&order(), &json!({"body": ["Ada", 10.5]}), &[fraction]);
}

#[test]
fn a_named_body_is_filled_by_name_in_any_order() {
    let template = named(
        &json!([{"type": "BODY", "text": "Hi {{name}}, order {{order_id}} costs {{total}}."}]),
    );
    gives(
        &template,
        &json!({"body": {
            "total": {"currency": {"code": "TRY", "amount_1000": 129_990, "fallback": "₺129,99"}},
            "order_id": "#1042",
            "name": "Ada",
        }}),
        &json!([{"type": "body", "parameters": [
            {"parameter_name": "name", "type": "text", "text": "Ada"},
            {"parameter_name": "order_id", "type": "text", "text": "#1042"},
            {"parameter_name": "total", "type": "currency",
             "currency": {"fallback_value": "₺129,99", "code": "TRY", "amount_1000": 129_990}},
        ]}]),
    );
}

#[test]
fn a_named_body_tells_every_name_that_is_missing_or_unknown() {
    let template = named(&json!([{"type": "BODY", "text": "Hi {{name}}, order {{order_id}}."}]));
    refuses(
        &template,
        &json!({"body": {"nmae": "Ada"}}),
        &[
            "body parameter `name`: is missing",
            "body parameter `order_id`: is missing",
            "body parameter `nmae`: the template has no parameter of this name, or it is given twice",
        ],
    );
    refuses(
        &template,
        &json!({}),
        &[
            "body parameter `name`: is missing",
            "body parameter `order_id`: is missing",
        ],
    );
}

#[test]
fn names_and_positions_are_not_interchangeable() {
    let by_name = named(&json!([{"type": "BODY", "text": "Hi {{name}}!"}]));
    let no_list = "body: this template's parameters have names; give an object with name";
    refuses(&by_name, &json!({"body": ["Ada"]}), &[no_list]);
    let no_object = "body: this template's parameters have no names; give a list";
    refuses(
        &order(),
        &json!({"body": {"1": "Ada", "2": "#1042"}}),
        &[no_object],
    );
    let mixed = json!({"components": [{"type": "body", "parameters": [
        {"type": "text", "parameter_name": "name", "text": "Ada"}, {"type": "text", "text": "x"}]}]});
    let problems = by_name
        .fill(&raw(&mixed), Whitespace::Collapse)
        .unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "body: some of its parameters have a parameter_name and some have none"
    );
}

#[test]
fn currency_and_date_time_go_out_with_their_fallback() {
    gives(
        &order(),
        &json!({"body": [
            {"currency": {"code": "EUR", "amount_1000": 12_500, "fallback": "12,50 €"}},
            {"date_time": {"fallback": "5 May 2026"}},
        ]}),
        &json!([{"type": "body", "parameters": [
            {"type": "currency", "currency": {"fallback_value": "12,50 €", "code": "EUR", "amount_1000": 12_500}},
            {"type": "date_time", "date_time": {"fallback_value": "5 May 2026"}},
        ]}]),
    );
}

#[test]
fn a_currency_tells_everything_that_is_wrong_with_it() {
    refuses(
        &order(),
        &json!({"body": ["Ada", {"currency": {"code": "try", "amount_1000": 1.5, "amount": 2}}]}),
        &[
            "body parameter 2: `fallback` is missing: the text that the recipient reads",
            "body parameter 2: `code` must be a currency in three capital letters, for example TRY",
            "body parameter 2: `amount_1000` must be a whole number: the amount times 1000",
            "body parameter 2: `amount` is not known here",
        ],
    );
}

#[test]
fn the_wrong_count_of_body_parameters_is_told_with_both_counts() {
    refuses(
        &order(),
        &json!({"body": ["Ada"]}),
        &["body: expected 2 parameters, received 1"],
    );
    refuses(
        &order(),
        &json!({"body": ["Ada", "x", "y"]}),
        &["body: expected 2 parameters, received 3"],
    );
    refuses(
        &order(),
        &json!({}),
        &["body: expected 2 parameters, received 0"],
    );
}

#[test]
fn a_body_takes_texts_only() {
    let image = json!({"image": {"id": "1"}});
    let media = "body parameter 2: expected a text, currency or date_time, received image";
    refuses(&order(), &json!({"body": ["Ada", image]}), &[media]);
    let kinds = [
        (json!(null), "expected a text, received null"),
        (json!(true), "expected a text, received true or false"),
        (json!(["x"]), "expected a text, received a list"),
        (
            json!({}),
            "expected an object with one key that names its kind, received 0 keys",
        ),
        (
            json!({"emoji": "x"}),
            "`emoji` is not a kind of parameter that Postrider sends",
        ),
        (
            json!({"currency": 5}),
            "expected an object, received a number",
        ),
        (json!(""), "is empty, which the provider refuses"),
        (json!(" \n "), "is empty, which the provider refuses"),
    ];
    for (value, problem) in kinds {
        refuses(
            &order(),
            &json!({"body": ["Ada", value]}),
            &[&format!("body parameter 2: {problem}")],
        );
    }
    refuses(
        &order(),
        &json!({"body": "Ada"}),
        &[
            "body: expected a list or an object, received a text",
            "body: expected 2 parameters, received 0",
        ],
    );
}

#[test]
fn refused_blanks_are_collapsed_or_refused_as_configured() {
    let parameters = raw(&json!({"body": ["Ada\nLovelace", "a      b"]}));
    let components = json!(order().fill(&parameters, Whitespace::Collapse).unwrap());
    assert_eq!(components[0]["parameters"][0]["text"], "Ada Lovelace");
    assert_eq!(components[0]["parameters"][1]["text"], "a b");
    let problems = order().fill(&parameters, Whitespace::Refuse).unwrap_err();
    let refused =
        "has a line break, a tab or more than four blanks in a row, which the provider refuses";
    assert_eq!(
        problems
            .iter()
            .map(|problem| problem.what.as_str())
            .collect::<Vec<_>>(),
        [refused, refused]
    );
}

#[test]
fn a_body_is_measured_with_its_parameters() {
    let template = template(&json!([{"type": "BODY", "text": "Hi {{1}}."}]));
    filled(&template, &json!({"body": ["ü".repeat(1020)]}));
    let too_long = "body: has 1025 characters with its parameters; at most 1024 are allowed";
    refuses(&template, &json!({"body": ["ü".repeat(1021)]}), &[too_long]);
}

#[test]
fn a_text_header_takes_one_text() {
    let header = with_header(&json!({"type": "HEADER", "format": "TEXT", "text": "Order {{1}}"}));
    gives(
        &header,
        &json!({"header": "#1042"}),
        &json!([{"type": "header", "parameters": [{"type": "text", "text": "#1042"}]}]),
    );
    refuses(
        &header,
        &json!({}),
        &["header: expected text, exactly one; received 0"],
    );
    refuses(
        &header,
        &json!({"header": {"image": {"id": "1"}}}),
        &["header: expected text, received image"],
    );
    let too_long = "header: has 61 characters with its parameters; at most 60 are allowed";
    refuses(&header, &json!({"header": "x".repeat(55)}), &[too_long]);
    let two = json!({"components": [{"type": "header", "parameters": [
        {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]});
    refuses(
        &header,
        &two,
        &["header: expected text, exactly one; received 2"],
    );
}

#[test]
fn a_named_text_header_carries_its_name() {
    let template = named(&json!([{"type": "HEADER", "format": "TEXT", "text": "Order {{id}}"}]));
    gives(
        &template,
        &json!({"header": "#1042"}),
        &json!([{"type": "header", "parameters": [{"parameter_name": "id", "type": "text", "text": "#1042"}]}]),
    );
    let other = json!({"components": [{"type": "header", "parameters": [
        {"type": "text", "parameter_name": "di", "text": "#1042"}]}]});
    refuses(
        &template,
        &other,
        &["header: its parameter_name is not the template's"],
    );
}

#[test]
fn a_header_without_variables_takes_nothing() {
    let none = template(&json!([{"type": "BODY", "text": "Hello"}]));
    let fixed = with_header(&json!({"type": "HEADER", "format": "TEXT", "text": "Hello"}));
    for template in [none, fixed] {
        assert!(filled(&template, &json!({})).is_empty());
        refuses(
            &template,
            &json!({"header": "x"}),
            &["header: this template's header takes no parameter"],
        );
    }
}

#[test]
fn an_image_video_or_gif_header_takes_an_id_or_a_link() {
    for kind in ["image", "video", "gif"] {
        let header = with_header(&json!({"type": "HEADER", "format": kind.to_uppercase()}));
        for source in [
            json!({"id": "84512"}),
            json!({"link": "https://example.com/a"}),
        ] {
            gives(
                &header,
                &json!({"header": {kind: source}}),
                &json!([{"type": "header", "parameters": [{"type": kind, kind: source}]}]),
            );
        }
        let named = json!({"header": {kind: {"id": "1", "filename": "a"}}});
        refuses(
            &header,
            &named,
            &["header: only a document has a `filename`"],
        );
    }
}

#[test]
fn a_document_header_takes_a_file_name() {
    let header = with_header(&json!({"type": "HEADER", "format": "DOCUMENT"}));
    let document = json!({"link": "https://example.com/pass.pdf", "filename": "boarding pass.pdf"});
    gives(
        &header,
        &json!({"header": {"document": document}}),
        &json!([{"type": "header", "parameters": [{"type": "document", "document": document}]}]),
    );
    refuses(
        &header,
        &json!({"header": "text"}),
        &["header: expected document, received text"],
    );
}

#[test]
fn a_file_that_cannot_be_fetched_is_refused() {
    let header = with_header(&json!({"type": "HEADER", "format": "IMAGE"}));
    let cases = [
        (
            json!({"link": "http://example.com/a"}),
            "`link` must be an https:// address without blanks",
        ),
        (
            json!({"link": 7}),
            "`link` must be an https:// address without blanks",
        ),
        (json!({}), "has neither `id` nor `link`"),
        (
            json!({"id": "1", "link": "https://example.com/a"}),
            "has both `id` and `link`; give one",
        ),
        (
            json!({"id": "1", "caption": "x"}),
            "`caption` is not known here",
        ),
        (json!({"id": ""}), "is empty, which the provider refuses"),
        (
            json!("https://example.com/a"),
            "expected an object, received a text",
        ),
    ];
    for (image, problem) in cases {
        refuses(
            &header,
            &json!({"header": {"image": image}}),
            &[&format!("header: {problem}")],
        );
    }
}

#[test]
fn a_location_header_takes_a_place() {
    let header = with_header(&json!({"type": "HEADER", "format": "LOCATION"}));
    let place =
        json!({"latitude": 40.18, "longitude": 44.51, "name": "Shop", "address": "Abovyan 1"});
    gives(
        &header,
        &json!({"header": {"location": place}}),
        &json!([{"type": "header", "parameters": [{"type": "location", "location": place}]}]),
    );
    let quoted = json!(filled(
        &header,
        &json!({"header": {"location": {"latitude": "40.18", "longitude": "-44.5"}}})
    ));
    assert_eq!(
        quoted[0]["parameters"][0]["location"],
        json!({"latitude": 40.18, "longitude": -44.5})
    );
    refuses(
        &header,
        &json!({"header": {"location": {"latitude": 91, "name": 5.5}}}),
        &[
            "header: `latitude` must be a number from -90 to 90",
            "header: `longitude` must be a number from -180 to 180",
            "header: is a fraction; give it as text, the way the recipient should read it",
        ],
    );
}

#[test]
fn audio_is_refused_by_name_wherever_it_stands() {
    let header = with_header(&json!({"type": "HEADER", "format": "DOCUMENT"}));
    let place = |place: &str| {
        format!(
            "{place}: WhatsApp templates cannot carry audio; send it as a free-form message in an open service window, \
             or link to it"
        )
    };
    let audio = json!({"link": "https://example.com/a.ogg"});
    refuses(
        &header,
        &json!({"header": {"audio": audio}}),
        &[&place("header")],
    );
    refuses(
        &order(),
        &json!({"body": ["Ada", {"audio": audio}]}),
        &[&place("body parameter 2")],
    );
    refuses(
        &order(),
        &json!({"body": ["Ada", "x"], "audio": audio}),
        &[&place("parameters")],
    );
}

#[test]
fn a_url_button_takes_what_its_address_ends_with() {
    let template = with_buttons(
        &json!([{"type": "URL", "text": "Track", "url": "https://example.com/t/{{1}}"}]),
    );
    gives(
        &template,
        &json!({"buttons": {"0": {"url": "1042?x=1"}}}),
        &json!([{"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "1042?x=1"}]}]),
    );
    refuses(
        &template,
        &json!({}),
        &["button 0: expected url, received nothing"],
    );
    refuses(
        &template,
        &json!({"buttons": {"0": {"payload": "x"}}}),
        &["button 0: expected url, received payload"],
    );
    let too_long = "button 0: has 2001 characters with its parameters; at most 2000 are allowed";
    refuses(
        &template,
        &json!({"buttons": {"0": {"url": "x".repeat(1979)}}}),
        &[too_long],
    );
}

#[test]
fn a_quick_reply_takes_a_payload_or_nothing() {
    let template = with_buttons(
        &json!([{"type": "QUICK_REPLY", "text": "No"}, {"type": "QUICK_REPLY", "text": "Yes"}]),
    );
    gives(
        &template,
        &json!({"buttons": {"1": {"payload": "yes:1042"}}}),
        &json!([{"type": "button", "sub_type": "quick_reply", "index": "1",
                 "parameters": [{"type": "payload", "payload": "yes:1042"}]}]),
    );
    assert!(filled(&template, &json!({})).is_empty());
}

#[test]
fn a_copy_code_button_takes_a_coupon_of_twenty_characters() {
    let template = with_buttons(&json!([{"type": "COPY_CODE", "text": "Copy", "example": "SAVE"}]));
    gives(
        &template,
        &json!({"buttons": {"0": {"coupon_code": "12345678901234567890"}}}),
        &json!([{"type": "button", "sub_type": "copy_code", "index": "0",
                 "parameters": [{"type": "coupon_code", "coupon_code": "12345678901234567890"}]}]),
    );
    let too_long = "button 0: the coupon code has 21 characters; at most 20 are allowed";
    refuses(
        &template,
        &json!({"buttons": {"0": {"coupon_code": "123456789012345678901"}}}),
        &[too_long],
    );
    refuses(
        &template,
        &json!({}),
        &["button 0: expected coupon_code, received nothing"],
    );
}

#[test]
fn a_flow_button_is_always_named_and_takes_a_token_and_data() {
    let template = with_buttons(&json!([{"type": "FLOW", "text": "Book"}]));
    let flow = json!({"flow_token": "t1", "flow_action_data": {"day": "Friday"}});
    gives(
        &template,
        &json!({"buttons": {"0": {"flow": flow}}}),
        &json!([{"type": "button", "sub_type": "flow", "index": "0", "parameters": [{"type": "action", "action": flow}]}]),
    );
    let bare = json!([{"type": "button", "sub_type": "flow", "index": "0"}]);
    gives(&template, &json!({}), &bare);
    gives(&template, &json!({"buttons": {"0": {"flow": {}}}}), &bare);
    let unknown = "button 0: `token` is not known; a flow takes flow_token and flow_action_data";
    refuses(
        &template,
        &json!({"buttons": {"0": {"flow": {"token": "t1"}}}}),
        &[unknown],
    );
}

#[test]
fn buttons_are_counted_over_all_kinds() {
    let template = with_buttons(&json!([
        {"type": "QUICK_REPLY", "text": "Yes"},
        {"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+15550001111"},
        {"type": "URL", "text": "Home", "url": "https://example.com"},
        {"type": "URL", "text": "Track", "url": "https://example.com/{{1}}"},
        {"type": "VOICE_CALL", "text": "Call on WhatsApp"},
    ]));
    let components = json!(filled(
        &template,
        &json!({"buttons": {"3": {"url": "a"}, "0": {"payload": "y"}}})
    ));
    assert_eq!(
        (&components[0]["index"], &components[1]["index"]),
        (&json!("0"), &json!("3"))
    );
    refuses(
        &template,
        &json!({"buttons": {
            "1": {"url": "a"}, "2": {"url": "a"}, "3": {"url": "a"}, "4": {"url": "a"}, "5": {"url": "a"}, "first": {"url": "a"},
        }}),
        &[
            "button first: is not a button's index; the first button is \"0\"",
            "button 1: calls a fixed number and takes no parameter",
            "button 2: opens a fixed page and takes no parameter",
            "button 4: is a voice_call button, which Postrider does not fill, and takes no parameter",
            "button 5: this template has 5 buttons, counted from 0",
        ],
    );
}

#[test]
fn a_code_goes_into_the_body_and_the_button() {
    gives(
        &otp(),
        &json!({"code": "012345"}),
        &json!([
            {"type": "body", "parameters": [{"type": "text", "text": "012345"}]},
            {"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "012345"}]},
        ]),
    );
    let by_hand = json!({"body": ["012345"], "buttons": {"0": {"url": "012345"}}});
    assert_eq!(
        filled(&otp(), &by_hand),
        filled(&otp(), &json!({"code": "012345"}))
    );
}

#[test]
fn a_code_that_the_provider_would_refuse_is_refused() {
    let cases = [
        (
            json!({"code": "1234567890123456"}),
            "code: has 16 characters; at most 15 are allowed",
        ),
        (
            json!({"code": "https://a.b"}),
            "code: looks like a link, which an authentication template may not carry",
        ),
        (
            json!({"code": "evil.example"}),
            "code: looks like a link, which an authentication template may not carry",
        ),
        (
            json!({"code": "12345🔥"}),
            "code: has an emoji, which an authentication template may not carry",
        ),
    ];
    for (parameters, problem) in cases {
        refuses(&otp(), &parameters, &[problem]);
    }
    filled(&otp(), &json!({"code": "123-456 A.1"}));
    let number = "code: is a number; give it as text, so that leading zeros survive";
    let problems = otp()
        .fill(&raw(&json!({"code": 12345})), Whitespace::Collapse)
        .unwrap_err();
    assert_eq!(problems[0].to_string(), number);
}

#[test]
fn a_code_is_the_same_in_the_body_and_the_button() {
    let different = json!({"body": ["1"], "buttons": {"0": {"url": "2"}}});
    refuses(
        &otp(),
        &different,
        &["code: the body and the button have different codes"],
    );
    let alone = json!({"code": "1", "body": ["1"]});
    refuses(
        &otp(),
        &alone,
        &["code: stands alone: it fills the body and the button"],
    );
}

#[test]
fn only_an_authentication_template_takes_a_code() {
    let plain = template(&json!([{"type": "BODY", "text": "Hello"}]));
    refuses(
        &plain,
        &json!({"code": "1"}),
        &["code: only an authentication template takes one"],
    );
}

#[test]
fn the_providers_own_form_is_checked_the_same_way() {
    let template = with_buttons(
        &json!([{"type": "URL", "text": "Track", "url": "https://example.com/{{1}}"}]),
    );
    let button = |button: Value| json!({"components": [button]});
    let cases = [
        (
            json!({"type": "button", "sub_type": "quick_reply", "index": 0, "parameters": [{"type": "payload", "payload": "x"}]}),
            "button 0: expected url, received payload",
        ),
        (
            json!({"type": "button", "sub_type": "url", "index": 0, "parameters": [{"type": "payload", "payload": "x"}]}),
            "button 0: expected a parameter of type text, received `payload`",
        ),
        (
            json!({"type": "button", "sub_type": "url", "index": 0}),
            "button 0: expected one parameter, received 0",
        ),
        (
            json!({"type": "button", "sub_type": "catalog", "index": 0}),
            "button 0: `catalog` is not a sub_type that Postrider sends",
        ),
    ];
    for (component, problem) in cases {
        refuses(&template, &button(component), &[problem]);
    }
    let numeric = json!({"type": "BUTTON", "sub_type": "URL", "index": 0, "parameters": [{"type": "text", "text": "x"}]});
    filled(&template, &button(numeric));
    let carousel = json!({"components": [{"type": "carousel", "cards": []}, 5]});
    let problems = template
        .fill(&raw(&carousel), Whitespace::Collapse)
        .unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems[0],
        "component 1: `carousel` is not a component that Postrider sends"
    );
    assert!(problems.contains(&"component 2: expected an object, received a number".to_owned()));
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
