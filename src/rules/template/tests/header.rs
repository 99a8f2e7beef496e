//! Headers: text, files, places.

use super::*;

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
