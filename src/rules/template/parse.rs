//! Reads the provider's listing of a template.

use serde_json::Value;

use super::{Action, Button, Header, MediaKind, Piece, Template, Text};

/// Components that cannot be sent without parameters of their own. Others that we do not know are assumed to need none.
const NEED_PARAMETERS: [&str; 2] = ["CAROUSEL", "LIMITED_TIME_OFFER"];

pub(super) fn template(
    status: &str,
    category: &str,
    parameter_format: &str,
    components: &Value,
) -> Template {
    let mut template = Template {
        status: status.to_ascii_uppercase(),
        category: category.to_ascii_uppercase(),
        is_named: parameter_format.eq_ignore_ascii_case("NAMED"),
        header: None,
        body: Text::default(),
        footer: None,
        buttons: Vec::new(),
        unsupported: Vec::new(),
    };
    for component in components.as_array().into_iter().flatten() {
        let kind = upper(component, "type");
        match kind.as_str() {
            "HEADER" => template.header = Some(header(component)),
            "BODY" => template.body = body(component),
            "FOOTER" => template.footer = footer(component),
            "BUTTONS" => template.buttons = buttons(component),
            _ if NEED_PARAMETERS.contains(&kind.as_str()) => {
                template.unsupported.push(kind.to_lowercase());
            }
            _ => {}
        }
    }
    template
}

fn header(component: &Value) -> Header {
    let format = upper(component, "format");
    match format.as_str() {
        "TEXT" | "" => Header::Text(Text::read(word(component, "text"))),
        "LOCATION" => Header::Location,
        other => MediaKind::from_word(other)
            .map_or_else(|| Header::Unsupported(other.to_lowercase()), Header::Media),
    }
}

/// The provider writes the body of authentication templates itself; a listing usually shows it, but where it does not, the
/// English wording stands in.
fn body(component: &Value) -> Text {
    let text = word(component, "text");
    if !text.is_empty() || component.get("add_security_recommendation").is_none() {
        return Text::read(text);
    }
    let is_recommended = component["add_security_recommendation"]
        .as_bool()
        .unwrap_or(false);
    let recommendation = if is_recommended {
        " For your security, do not share this code."
    } else {
        ""
    };
    Text::read(&format!(
        "*{{{{1}}}}* is your verification code.{recommendation}"
    ))
}

fn footer(component: &Value) -> Option<String> {
    match (
        word(component, "text"),
        component["code_expiration_minutes"].as_u64(),
    ) {
        ("", None) => None,
        ("", Some(minutes)) => Some(format!("This code expires in {minutes} minutes.")),
        (text, _) => Some(text.to_owned()),
    }
}

fn buttons(component: &Value) -> Vec<Button> {
    let buttons = component["buttons"].as_array();
    buttons.into_iter().flatten().map(button).collect()
}

fn button(button: &Value) -> Button {
    let url = word(button, "url");
    let kind = upper(button, "type");
    let action = match kind.as_str() {
        "QUICK_REPLY" => Action::QuickReply,
        // How approved authentication templates list their button: the code goes through a page of WhatsApp's.
        "URL" if url.contains("whatsapp.com/otp/") => Action::Otp,
        "URL" => Action::Url(Text::read(url)),
        "PHONE_NUMBER" => Action::Call(word(button, "phone_number").to_owned()),
        "COPY_CODE" => Action::CopyCode,
        "OTP" => Action::Otp,
        "FLOW" => Action::Flow,
        _ => Action::Unsupported(kind.to_lowercase()),
    };
    Button {
        label: word(button, "text").to_owned(),
        action,
    }
}

fn word<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or("")
}

fn upper(object: &Value, key: &str) -> String {
    word(object, key).to_ascii_uppercase()
}

impl Text {
    /// Splits a text at its `{{variables}}`. Braces around anything else are plain text.
    pub(super) fn read(text: &str) -> Text {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            literal.push_str(before);
            match after.split_once("}}") {
                Some((name, behind)) if is_variable(name.trim()) => {
                    push_literal(&mut pieces, &mut literal);
                    pieces.push(Piece::Variable(name.trim().to_owned()));
                    rest = behind;
                }
                _ => {
                    literal.push_str("{{");
                    rest = after;
                }
            }
        }
        literal.push_str(rest);
        push_literal(&mut pieces, &mut literal);
        Text { pieces }
    }
}

fn push_literal(pieces: &mut Vec<Piece>, literal: &mut String) {
    if !literal.is_empty() {
        pieces.push(Piece::Literal(std::mem::take(literal)));
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(components: &Value) -> Template {
        template("APPROVED", "UTILITY", "POSITIONAL", components)
    }

    fn literal(text: &str) -> Piece {
        Piece::Literal(text.to_owned())
    }

    fn variable(name: &str) -> Piece {
        Piece::Variable(name.to_owned())
    }

    #[test]
    fn a_listed_template_is_taken_apart() {
        let template = parse(&json!([
            {"type": "HEADER", "format": "DOCUMENT", "example": {"header_handle": ["https://example.com/1.pdf"]}},
            {"type": "BODY", "text": "Flight {{1}} on {{2}}.", "example": {"body_text": [["EVN-IST", "Friday"]]}},
            {"type": "FOOTER", "text": "Acme Air"},
            {"type": "BUTTONS", "buttons": [
                {"type": "URL", "text": "Check in", "url": "https://example.com/{{1}}", "example": ["https://example.com/a"]},
                {"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+15550001111"},
                {"type": "QUICK_REPLY", "text": "Yes"},
                {"type": "COPY_CODE", "text": "Copy", "example": "SAVE"},
                {"type": "FLOW", "text": "Book", "flow_id": 1},
            ]},
        ]));
        assert_eq!(template.header, Some(Header::Media(MediaKind::Document)));
        let body = vec![
            literal("Flight "),
            variable("1"),
            literal(" on "),
            variable("2"),
            literal("."),
        ];
        assert_eq!(template.body.pieces, body);
        assert_eq!(template.footer.as_deref(), Some("Acme Air"));
        let actions: Vec<Action> = template
            .buttons
            .into_iter()
            .map(|button| button.action)
            .collect();
        let url = Text {
            pieces: vec![literal("https://example.com/"), variable("1")],
        };
        let call = Action::Call("+15550001111".to_owned());
        assert_eq!(
            actions,
            [
                Action::Url(url),
                call,
                Action::QuickReply,
                Action::CopyCode,
                Action::Flow
            ]
        );
    }

    #[test]
    fn an_authentication_button_is_recognised_in_both_listed_forms() {
        let url = "https://www.whatsapp.com/otp/code/?otp_type=COPY_CODE&code=otp{{1}}";
        for button in [
            json!({"type": "URL", "text": "Copy code", "url": url}),
            json!({"type": "OTP", "otp_type": "ONE_TAP"}),
        ] {
            let template = parse(&json!([{"type": "BUTTONS", "buttons": [button]}]));
            assert_eq!(template.buttons[0].action, Action::Otp);
        }
    }

    #[test]
    fn an_authentication_template_without_a_listed_body_still_takes_its_code() {
        let template = parse(&json!([
            {"type": "BODY", "add_security_recommendation": true},
            {"type": "FOOTER", "code_expiration_minutes": 5},
        ]));
        assert_eq!(template.body.variables(), ["1"]);
        assert_eq!(
            template.footer.as_deref(),
            Some("This code expires in 5 minutes.")
        );
    }

    #[test]
    fn what_is_not_known_is_kept_by_name() {
        let template = parse(&json!([
            {"type": "HEADER", "format": "PRODUCT"},
            {"type": "CAROUSEL", "cards": []},
            {"type": "TELEPATHY"},
            {"type": "BUTTONS", "buttons": [{"type": "TELEPORT", "text": "Go"}, "what"]},
            7,
        ]));
        assert_eq!(
            template.header,
            Some(Header::Unsupported("product".to_owned()))
        );
        assert_eq!(template.unsupported, ["carousel"]);
        assert_eq!(
            template.buttons[0].action,
            Action::Unsupported("teleport".to_owned())
        );
    }

    #[test]
    fn what_is_not_a_list_of_components_is_an_empty_template() {
        for components in [json!(null), json!({}), json!("BODY"), json!([])] {
            assert!(parse(&components).body.pieces.is_empty());
        }
    }

    #[test]
    fn variables_are_counted_once_and_in_the_order_of_parameters() {
        assert_eq!(
            Text::read("{{2}} {{1}} {{10}} {{2}}").variables(),
            ["1", "2", "10"]
        );
        assert_eq!(
            Text::read("{{ zoo }} and {{ant}}").variables(),
            ["zoo", "ant"]
        );
    }

    #[test]
    fn braces_around_something_else_are_text() {
        for text in ["{{", "}}", "{{}}", "{{a b}}", "{1}", "{{é}}", "{{ {{"] {
            assert_eq!(Text::read(text).pieces, [literal(text)], "{text}");
        }
        assert_eq!(Text::read("{{{1}}}").variables(), Vec::<&str>::new());
        assert_eq!(Text::read("{{x {{1}}").variables(), ["1"]);
    }
}
