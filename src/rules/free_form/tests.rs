use serde_json::json;

use super::*;

fn check(message: &Value) -> Result<FreeForm, Vec<Problem>> {
    FreeForm::check(&serde_json::value::to_raw_value(message).unwrap())
}

#[track_caller]
fn passes(message: &Value) {
    let checked = check(message).unwrap();
    let kind = message["type"].as_str().unwrap();
    assert_eq!(checked.kind(), kind);
    let object: Value = serde_json::from_str(checked.object().get()).unwrap();
    assert_eq!(object, message[kind], "what passes is sent as it came");
}

#[track_caller]
fn refuses(message: &Value, problems: &[&str]) {
    let refused = check(message).unwrap_err();
    assert_eq!(
        refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
        problems,
        "{message}"
    );
}

fn interactive(kind: &str, action: &Value) -> Value {
    json!({"type": "interactive", "interactive": {"type": kind, "body": {"text": "Choose"}, "action": action}})
}

fn reply(id: &str, title: &str) -> Value {
    json!({"type": "reply", "reply": {"id": id, "title": title}})
}

#[test]
fn a_text_has_up_to_4096_characters() {
    passes(&json!({"type": "text", "text": {"body": "line one\nline two", "preview_url": true}}));
    passes(&json!({"type": "text", "text": {"body": "ü".repeat(4096)}}));
    let too_long = "text: `body` has 4097 characters; at most 4096 are allowed";
    refuses(
        &json!({"type": "text", "text": {"body": "ü".repeat(4097)}}),
        &[too_long],
    );
    refuses(
        &json!({"type": "text", "text": {"body": " "}}),
        &["text: `body` is empty"],
    );
    refuses(
        &json!({"type": "text", "text": {"body": 7}}),
        &["text: `body`: expected a text, received a number"],
    );
    refuses(
        &json!({"type": "text", "text": "hello"}),
        &["text: `body` is missing"],
    );
}

#[test]
fn a_file_has_an_id_or_a_link() {
    for kind in ["image", "video", "audio", "document", "sticker"] {
        passes(&json!({"type": kind, kind: {"id": "84512"}}));
        passes(&json!({"type": kind, kind: {"link": "https://example.com/a"}}));
        refuses(
            &json!({"type": kind, kind: {}}),
            &[&format!("{kind}: has neither `id` nor `link`")],
        );
        let both = json!({"type": kind, kind: {"id": "1", "link": "https://example.com/a"}});
        refuses(
            &both,
            &[&format!("{kind}: has both `id` and `link`; give one")],
        );
        let plain = json!({"type": kind, kind: {"link": "http://example.com/a"}});
        refuses(
            &plain,
            &[&format!(
                "{kind}: `link` must be an https:// address without blanks"
            )],
        );
    }
}

#[test]
fn captions_and_file_names_are_for_those_that_show_them() {
    for kind in ["image", "video", "document"] {
        passes(&json!({"type": kind, kind: {"id": "1", "caption": "Yours"}}));
    }
    for kind in ["audio", "sticker"] {
        let message = json!({"type": kind, kind: {"id": "1", "caption": "Yours"}});
        refuses(&message, &[&format!("{kind}: cannot have a `caption`")]);
    }
    passes(&json!({"type": "document", "document": {"id": "1", "filename": "a.pdf"}}));
    let named = json!({"type": "image", "image": {"id": "1", "filename": "a.png"}});
    refuses(&named, &["image: only a document has a `filename`"]);
}

#[test]
fn a_location_is_on_the_globe() {
    passes(
        &json!({"type": "location", "location": {"latitude": 40.18, "longitude": "44.51", "name": "Shop"}}),
    );
    refuses(
        &json!({"type": "location", "location": {"latitude": 90.1}}),
        &[
            "location: `latitude` must be a number from -90 to 90",
            "location: `longitude` must be a number from -180 to 180",
        ],
    );
}

#[test]
fn every_contact_has_a_name() {
    let ada = json!({"name": {"formatted_name": "Ada", "first_name": "Ada"}, "phones": [{"phone": "+15550001111"}]});
    passes(&json!({"type": "contacts", "contacts": [ada]}));
    refuses(
        &json!({"type": "contacts", "contacts": []}),
        &["contacts: expected a list with at least one item"],
    );
    let nameless = json!({"type": "contacts", "contacts": [ada, {"phones": []}]});
    refuses(&nameless, &["contact 2: `formatted_name` is missing"]);
}

#[test]
fn a_reaction_names_a_message_and_an_emoji() {
    passes(&json!({"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": "👍"}}));
    passes(&json!({"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": ""}}));
    refuses(
        &json!({"type": "reaction", "reaction": {}}),
        &[
            "reaction: `message_id` is missing",
            "reaction: `emoji` is missing; an empty one takes the reaction back",
        ],
    );
}

#[test]
fn there_are_one_to_three_reply_buttons_with_ids_of_their_own() {
    let three = json!([reply("a", "Yes"), reply("b", "No"), reply("c", "Later")]);
    passes(&interactive("button", &json!({"buttons": three})));
    let four = json!([
        reply("a", "1"),
        reply("b", "2"),
        reply("c", "3"),
        reply("d", "4")
    ]);
    let too_many = "buttons: has 4 items; at most 3 are allowed";
    refuses(
        &interactive("button", &json!({"buttons": four})),
        &[too_many],
    );
    refuses(
        &interactive("button", &json!({})),
        &["buttons: expected a list with at least one item"],
    );
    let faulty = json!([reply("a", "A title that is too long"), reply("a", "No"), {"type": "url"}]);
    refuses(
        &interactive("button", &json!({"buttons": faulty})),
        &[
            "button 1: `title` has 24 characters; at most 20 are allowed",
            "button 2: has the `id` of another",
            "button 3: `type` must be reply",
            "button 3: `id` is missing",
            "button 3: `title` is missing",
        ],
    );
}

#[test]
fn a_list_has_at_most_ten_rows() {
    let rows = |n: usize| {
        (0..n)
            .map(|i| json!({"id": format!("r{i}"), "title": "Row"}))
            .collect::<Vec<_>>()
    };
    passes(&interactive(
        "list",
        &json!({"button": "Open", "sections": [{"rows": rows(10)}]}),
    ));
    let eleven = interactive(
        "list",
        &json!({"button": "Open", "sections": [{"rows": rows(11)}]}),
    );
    refuses(&eleven, &["list: has 11 rows; at most 10 are allowed"]);
    let untitled = json!({"sections": [{"title": "One", "rows": rows(1)}, {"rows": []}]});
    refuses(
        &interactive("list", &untitled),
        &[
            "list: `button` is missing",
            "section 2: `title` is missing",
            "section 2: expected a list with at least one item",
        ],
    );
    let long = json!({"button": "Open", "sections": [{"rows": [
        {"id": "a", "title": "x".repeat(25), "description": "x".repeat(73)}]}]});
    refuses(
        &interactive("list", &long),
        &[
            "row 1: `title` has 25 characters; at most 24 are allowed",
            "row 1: `description` has 73 characters; at most 72 are allowed",
        ],
    );
}

#[test]
fn a_link_button_has_a_label_and_an_address() {
    let parameters = json!({"display_text": "Track", "url": "https://example.com/t"});
    passes(&interactive(
        "cta_url",
        &json!({"name": "cta_url", "parameters": parameters}),
    ));
    refuses(
        &interactive("cta_url", &json!({"name": "cta_url"})),
        &[
            "link button: `display_text` is missing",
            "link button: `url` is missing",
        ],
    );
}

#[test]
fn a_flow_is_named_once() {
    let flow = |more: Value| {
        let mut parameters =
            json!({"flow_message_version": "3", "flow_cta": "Book", "flow_token": "t"});
        parameters
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        interactive("flow", &json!({"name": "flow", "parameters": parameters}))
    };
    passes(&flow(json!({"flow_id": "1", "flow_action": "navigate"})));
    passes(&flow(json!({"flow_name": "booking"})));
    refuses(
        &flow(json!({})),
        &["flow: has neither `flow_id` nor `flow_name`"],
    );
    refuses(
        &flow(json!({"flow_id": "1", "flow_name": "booking", "flow_action": "dance"})),
        &[
            "flow: has both `flow_id` and `flow_name`; give one",
            "flow: `flow_action` must be navigate or data_exchange",
        ],
    );
}

#[test]
fn an_interactive_message_has_a_body_and_known_parts() {
    passes(&interactive(
        "location_request_message",
        &json!({"name": "send_location"}),
    ));
    refuses(
        &interactive("dance", &json!({})),
        &["interactive: `dance` is not a type that Postrider sends"],
    );
    let message = json!({"type": "interactive", "interactive": {
        "type": "location_request_message",
        "header": {"type": "audio"},
        "footer": {"text": "x".repeat(61)},
    }});
    refuses(
        &message,
        &[
            "interactive body: `text` is missing",
            "interactive footer: `text` has 61 characters; at most 60 are allowed",
            "interactive header: `type` must be text, image, video or document",
        ],
    );
}

#[test]
fn a_message_may_answer_another() {
    let message =
        json!({"type": "text", "text": {"body": "Yes"}, "context": {"message_id": "wamid.1"}});
    assert_eq!(
        check(&message).unwrap().context().unwrap().get(),
        r#"{"message_id":"wamid.1"}"#
    );
    let nameless = json!({"type": "text", "text": {"body": "Yes"}, "context": {}});
    refuses(&nameless, &["context: `message_id` is missing"]);
}

#[test]
fn what_is_no_message_is_refused() {
    refuses(
        &json!("hi"),
        &["message: expected an object with `type` and the object that the type names"],
    );
    let untyped = json!({"text": {"body": "hi"}});
    let types = format!("message: `type` is missing; it is one of {KINDS}");
    refuses(&untyped, &[&types]);
    refuses(
        &json!({"type": "text"}),
        &["message: has no `text`, which its type names"],
    );
    let unknown = format!("message: `smell` is not a type of message; it is one of {KINDS}");
    refuses(&json!({"type": "smell", "smell": {}}), &[&unknown]);
    let template = format!("message: `template` is not a type of message; it is one of {KINDS}");
    refuses(
        &json!({"type": "template", "template": {"name": "x"}}),
        &[&template],
    );
    let addressed = json!({"type": "text", "text": {"body": "hi"}, "to": "+15550001111"});
    refuses(&addressed, &["message: `to` is not known here"]);
}
