//! Buttons, and the codes that they carry.

use super::*;

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
