//! The body of `POST /{phone_number_id}/messages` (WHATSAPP.md 1.1), written once when a job is buffered and closed when
//! its attempt is known: the attempt's number is in the callback data.

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::rules::{free_form::FreeForm, gate::Payload, job::TemplateName, template::Components};

/// Most requests fit; a longer one grows.
const CAPACITY: usize = 512;

/// A request up to its callback data: the JSON object without its closing brace. [`finish`] closes it.
///
/// `template` is the job's; a free-form message has none.
#[must_use]
pub fn body(recipient: &str, template: Option<&TemplateName>, payload: &Payload) -> Vec<u8> {
    let mut body = Vec::with_capacity(CAPACITY);
    serde_json::to_writer(
        &mut body,
        &Request {
            recipient,
            template,
            payload,
        },
    )
    .expect("memory takes what is written to it, and every key is a text");
    let brace = body.pop();
    debug_assert_eq!(brace, Some(b'}'));
    body
}

/// The whole request: the body with its callback data, which comes back in every receipt of the message.
#[must_use]
pub fn finish(body: &[u8], callback: &str) -> Vec<u8> {
    const KEY: &[u8] = br#","biz_opaque_callback_data":"#;
    let mut request = Vec::with_capacity(body.len() + KEY.len() + callback.len() + 3);
    request.extend_from_slice(body);
    request.extend_from_slice(KEY);
    serde_json::to_writer(&mut request, callback).expect("memory takes what is written to it");
    request.push(b'}');
    request
}

struct Request<'a> {
    recipient: &'a str,
    template: Option<&'a TemplateName>,
    payload: &'a Payload,
}

/// By hand, because the last key is named after the message's type.
impl Serialize for Request<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("messaging_product", "whatsapp")?;
        map.serialize_entry("recipient_type", "individual")?;
        // A phone number always has its plus; without one the provider would put the business's country code in front.
        let to = if self.recipient.starts_with('+') {
            "to"
        } else {
            "recipient"
        };
        map.serialize_entry(to, self.recipient)?;
        match self.payload {
            Payload::Template(components) => {
                map.serialize_entry("type", "template")?;
                map.serialize_entry("template", &Template::new(self.template, components))?;
            }
            Payload::FreeForm(message) => free_form(&mut map, message)?,
        }
        map.end()
    }
}

fn free_form<M: SerializeMap>(map: &mut M, message: &FreeForm) -> Result<(), M::Error> {
    map.serialize_entry("type", message.kind())?;
    map.serialize_entry(message.kind(), message.object())?;
    match message.context() {
        Some(context) => map.serialize_entry("context", context),
        None => Ok(()),
    }
}

#[derive(Serialize)]
struct Template<'a> {
    name: &'a str,
    language: Language<'a>,
    #[serde(skip_serializing_if = "Components::is_empty")]
    components: &'a Components,
}

#[derive(Serialize)]
struct Language<'a> {
    code: &'a str,
}

impl<'a> Template<'a> {
    fn new(name: Option<&'a TemplateName>, components: &'a Components) -> Self {
        // The gate fills a template only when the job names one.
        let (name, code) = name.map_or(("", ""), |name| (&name.name, &name.language));
        Template {
            name,
            language: Language { code },
            components,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;
    use crate::rules::template::{self, Whitespace};

    const CALLBACK: &str = "pr1.a1b2c3d4.1042.1.7.261121";

    fn name() -> TemplateName {
        TemplateName {
            name: "order_shipped".to_owned(),
            language: "en_US".to_owned(),
        }
    }

    fn filled(listed: &Value, parameters: &Value) -> Payload {
        let template = template::Template::parse("APPROVED", "UTILITY", "POSITIONAL", listed);
        Payload::Template(
            template
                .fill(&to_raw_value(parameters).unwrap(), Whitespace::Collapse)
                .unwrap(),
        )
    }

    fn message(message: &Value) -> Payload {
        Payload::FreeForm(FreeForm::check(&to_raw_value(message).unwrap()).unwrap())
    }

    fn text(request: Vec<u8>) -> String {
        String::from_utf8(request).unwrap()
    }

    #[test]
    fn a_template_goes_to_a_phone_number() {
        let payload = filled(
            &json!([{"type": "BODY", "text": "Hi {{1}}, it's {{2}}."}]),
            &json!({"body": ["Ada \"A\"", "☎"]}),
        );
        let body = body("+905551231234", Some(&name()), &payload);
        let expected = concat!(
            r#"{"messaging_product":"whatsapp","recipient_type":"individual","to":"+905551231234","type":"template","#,
            r#""template":{"name":"order_shipped","language":{"code":"en_US"},"components":[{"type":"body","parameters":["#,
            r#"{"type":"text","text":"Ada \"A\""},{"type":"text","text":"☎"}]}]},"#,
            r#""biz_opaque_callback_data":"pr1.a1b2c3d4.1042.1.7.261121"}"#,
        );
        assert_eq!(text(finish(&body, CALLBACK)), expected);
    }

    #[test]
    fn a_template_without_variables_has_no_components() {
        let payload = filled(&json!([{"type": "BODY", "text": "Hello"}]), &json!({}));
        let body = body("+905551231234", Some(&name()), &payload);
        let request: Value = serde_json::from_slice(&finish(&body, CALLBACK)).unwrap();
        assert_eq!(
            request["template"],
            json!({"name": "order_shipped", "language": {"code": "en_US"}})
        );
    }

    #[test]
    fn a_business_scoped_id_is_a_recipient_and_not_a_number() {
        let payload = message(&json!({"type": "text", "text": {"body": "Hi"}}));
        let body = body("US.13491208655302741918", None, &payload);
        let expected = concat!(
            r#"{"messaging_product":"whatsapp","recipient_type":"individual","recipient":"US.13491208655302741918","#,
            r#""type":"text","text":{"body":"Hi"},"biz_opaque_callback_data":"pr1.a1b2c3d4.1042.1.7.261121"}"#,
        );
        assert_eq!(text(finish(&body, CALLBACK)), expected);
    }

    #[test]
    fn a_free_form_message_goes_out_as_it_was_enqueued() {
        let enqueued = json!({
            "type": "interactive",
            "interactive": {"type": "button", "body": {"text": "Home?"}, "action": {"buttons": [
                {"type": "reply", "reply": {"id": "y", "title": "Yes"}}]}},
            "context": {"message_id": "wamid.1"},
        });
        let request = finish(&body("+905551231234", None, &message(&enqueued)), CALLBACK);
        let request: Value = serde_json::from_slice(&request).unwrap();
        let mut expected = enqueued;
        expected["messaging_product"] = json!("whatsapp");
        expected["recipient_type"] = json!("individual");
        expected["to"] = json!("+905551231234");
        expected["biz_opaque_callback_data"] = json!(CALLBACK);
        assert_eq!(request, expected);
    }

    #[test]
    fn one_body_serves_every_attempt() {
        let body = body(
            "+905551231234",
            None,
            &message(&json!({"type": "text", "text": {"body": "Hi"}})),
        );
        for callback in ["pr1.a.1.1.7.261121", "a \"quoted\" one"] {
            let request: Value = serde_json::from_slice(&finish(&body, callback)).unwrap();
            assert_eq!(request["biz_opaque_callback_data"], callback);
        }
    }
}
