//! Bodies, by position and by name.

use super::*;

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
