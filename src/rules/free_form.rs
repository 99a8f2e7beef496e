//! Messages that are not templates. They may go only to people who wrote to us within the last 24 hours, and are
//! enqueued in the provider's own form: `{"type": "text", "text": {"body": "…"}}`.
//!
//! The limits are the provider's (WHATSAPP.md 1.4 and the pages it names). What passes is sent as it came.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, value::RawValue};

use super::{
    problem::{Problem, Problems},
    template::{is_https, name_of},
};

const TEXT_MAX: usize = 4096;
const CAPTION_MAX: usize = 1024;
const REPLY_BUTTONS_MAX: usize = 3;
const REPLY_ID_MAX: usize = 256;
const BUTTON_LABEL_MAX: usize = 20;
const LIST_ROWS_MAX: usize = 10;
const ROW_ID_MAX: usize = 200;
const ROW_TITLE_MAX: usize = 24;
const ROW_DESCRIPTION_MAX: usize = 72;
const FOOTER_MAX: usize = 60;

/// What a message can be.
const KINDS: &str =
    "text, image, video, audio, document, sticker, location, contacts, reaction, interactive";

/// Interactive kinds whose `action` is left to the provider: they are made of its own catalogues and dialogues.
const OTHER_INTERACTIVE: [&str; 5] = [
    "location_request_message",
    "product",
    "product_list",
    "catalog_message",
    "request_contact_info",
];

/// A free-form message whose form was checked.
#[derive(Debug, Clone)]
pub struct FreeForm {
    kind: String,
    object: Box<RawValue>,
    context: Option<Box<RawValue>>,
}

impl FreeForm {
    /// Checks a message as enqueued, and tells everything that the provider would refuse.
    pub fn check(content: &RawValue) -> Result<FreeForm, Vec<Problem>> {
        let mut problems = Problems::default();
        match read(content, &mut problems) {
            Some(message) => problems.or(message),
            None => Err(problems.0),
        }
    }

    /// The value of `type`, which is also the key of the message's object.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The object named after the type, as it was enqueued.
    #[must_use]
    pub fn object(&self) -> &RawValue {
        &self.object
    }

    /// Which message it answers: `{"message_id": …}`.
    #[must_use]
    pub fn context(&self) -> Option<&RawValue> {
        self.context.as_deref()
    }
}

/// `None` when there is no message to speak of; its problem is then added.
fn read(content: &RawValue, problems: &mut Problems) -> Option<FreeForm> {
    let Ok(mut fields) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(content.get())
    else {
        problems.add(
            "message",
            "expected an object with `type` and the object that the type names",
        );
        return None;
    };
    let Some(kind) = fields
        .remove("type")
        .and_then(|kind| serde_json::from_str::<String>(kind.get()).ok())
    else {
        problems.add(
            "message",
            format!("`type` is missing; it is one of {KINDS}"),
        );
        return None;
    };
    let Some(object) = fields.remove(&kind) else {
        problems.add("message", format!("has no `{kind}`, which its type names"));
        return None;
    };
    let context = fields.remove("context");
    for key in fields.keys() {
        problems.add("message", format!("`{key}` is not known here"));
    }
    let parse = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or(Value::Null);
    let mut check = Check { problems };
    check.message(&kind, &parse(&object));
    if let Some(context) = &context {
        check.text("context", &parse(context), "message_id", usize::MAX);
    }
    Some(FreeForm {
        kind,
        object,
        context,
    })
}

/// Walks a message and collects what is wrong with it.
struct Check<'a> {
    problems: &'a mut Problems,
}

impl Check<'_> {
    fn message(&mut self, kind: &str, object: &Value) {
        match kind {
            "text" => self.text("text", object, "body", TEXT_MAX),
            "image" | "video" | "audio" | "document" | "sticker" => self.media(kind, object),
            "location" => self.location(object),
            "contacts" => self.contacts(object),
            "reaction" => self.reaction(object),
            "interactive" => self.interactive(object),
            other => self.problems.add(
                "message",
                format!("`{other}` is not a type of message; it is one of {KINDS}"),
            ),
        }
    }

    fn media(&mut self, kind: &str, object: &Value) {
        let given = |key: &str| object.get(key).filter(|value| !value.is_null());
        match (given("id"), given("link")) {
            (Some(_), Some(_)) => self
                .problems
                .add(kind, "has both `id` and `link`; give one"),
            (Some(_), None) => self.text(kind, object, "id", usize::MAX),
            (None, Some(link)) if link.as_str().is_some_and(is_https) => {}
            (None, Some(_)) => self
                .problems
                .add(kind, "`link` must be an https:// address without blanks"),
            (None, None) => self.problems.add(kind, "has neither `id` nor `link`"),
        }
        if matches!(kind, "audio" | "sticker") && given("caption").is_some() {
            self.problems.add(kind, "cannot have a `caption`");
        } else {
            self.optional_text(kind, object, "caption", CAPTION_MAX);
        }
        if kind != "document" && given("filename").is_some() {
            self.problems.add(kind, "only a document has a `filename`");
        }
    }

    fn location(&mut self, object: &Value) {
        for (key, limit) in [("latitude", 90.0), ("longitude", 180.0)] {
            let value = &object[key];
            let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
            if !number.is_some_and(|number| (-limit..=limit).contains(&number)) {
                self.problems.add(
                    "location",
                    format!("`{key}` must be a number from -{limit} to {limit}"),
                );
            }
        }
    }

    fn contacts(&mut self, object: &Value) {
        for (contact, n) in self
            .items("contacts", Some(object), usize::MAX)
            .iter()
            .zip(1..)
        {
            self.text(
                &format!("contact {n}"),
                &contact["name"],
                "formatted_name",
                usize::MAX,
            );
        }
    }

    /// An empty emoji takes a reaction back.
    fn reaction(&mut self, object: &Value) {
        self.text("reaction", object, "message_id", usize::MAX);
        if !object["emoji"].is_string() {
            self.problems.add(
                "reaction",
                "`emoji` is missing; an empty one takes the reaction back",
            );
        }
    }

    fn interactive(&mut self, object: &Value) {
        let (kind, action) = (object["type"].as_str().unwrap_or(""), &object["action"]);
        match kind {
            "button" => self.reply_buttons(action),
            "list" => self.list(action),
            "cta_url" => self.link_button(&action["parameters"]),
            "flow" => self.flow(&action["parameters"]),
            other if OTHER_INTERACTIVE.contains(&other) => {}
            other => self.problems.add(
                "interactive",
                format!("`{other}` is not a type that Postrider sends"),
            ),
        }
        if kind != "product" {
            // A list's text may be as long as a plain one's.
            let max = if kind == "list" {
                TEXT_MAX
            } else {
                CAPTION_MAX
            };
            self.text("interactive body", &object["body"], "text", max);
        }
        if object.get("footer").is_some() {
            self.text("interactive footer", &object["footer"], "text", FOOTER_MAX);
        }
        self.interactive_header(&object["header"]);
    }

    fn interactive_header(&mut self, header: &Value) {
        match header["type"].as_str() {
            None if header.is_null() => {}
            Some("text") => self.text("interactive header", header, "text", FOOTER_MAX),
            Some(kind @ ("image" | "video" | "document")) => self.media(kind, &header[kind]),
            _ => self.problems.add(
                "interactive header",
                "`type` must be text, image, video or document",
            ),
        }
    }

    fn reply_buttons(&mut self, action: &Value) {
        let mut ids = HashSet::new();
        for (button, n) in self
            .items("buttons", action.get("buttons"), REPLY_BUTTONS_MAX)
            .iter()
            .zip(1..)
        {
            let place = format!("button {n}");
            if button["type"] != "reply" {
                self.problems.add(&place, "`type` must be reply");
            }
            self.text(&place, &button["reply"], "id", REPLY_ID_MAX);
            self.text(&place, &button["reply"], "title", BUTTON_LABEL_MAX);
            self.unique(&place, &button["reply"], &mut ids);
        }
    }

    fn list(&mut self, action: &Value) {
        self.text("list", action, "button", BUTTON_LABEL_MAX);
        let sections = self.items("sections", action.get("sections"), LIST_ROWS_MAX);
        let mut ids = HashSet::new();
        let mut count = 0;
        for (section, n) in sections.iter().zip(1..) {
            let place = format!("section {n}");
            if sections.len() > 1 {
                self.text(&place, section, "title", ROW_TITLE_MAX);
            }
            for row in self.items(&place, section.get("rows"), usize::MAX) {
                count += 1;
                let place = format!("row {count}");
                self.text(&place, row, "id", ROW_ID_MAX);
                self.text(&place, row, "title", ROW_TITLE_MAX);
                self.optional_text(&place, row, "description", ROW_DESCRIPTION_MAX);
                self.unique(&place, row, &mut ids);
            }
        }
        if count > LIST_ROWS_MAX {
            self.problems.add(
                "list",
                format!("has {count} rows; at most {LIST_ROWS_MAX} are allowed"),
            );
        }
    }

    fn link_button(&mut self, parameters: &Value) {
        self.text("link button", parameters, "display_text", BUTTON_LABEL_MAX);
        self.text("link button", parameters, "url", usize::MAX);
    }

    fn flow(&mut self, parameters: &Value) {
        self.text("flow", parameters, "flow_message_version", usize::MAX);
        self.text("flow", parameters, "flow_cta", BUTTON_LABEL_MAX);
        match (parameters.get("flow_id"), parameters.get("flow_name")) {
            (Some(_), Some(_)) => self
                .problems
                .add("flow", "has both `flow_id` and `flow_name`; give one"),
            (None, None) => self
                .problems
                .add("flow", "has neither `flow_id` nor `flow_name`"),
            _ => {}
        }
        if !matches!(
            parameters["flow_action"].as_str(),
            None | Some("navigate" | "data_exchange")
        ) {
            self.problems
                .add("flow", "`flow_action` must be navigate or data_exchange");
        }
    }

    /// The items of a list that must be there and hold something.
    fn items<'v>(&mut self, place: &str, list: Option<&'v Value>, max: usize) -> &'v [Value] {
        let items = list
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        if items.is_empty() {
            self.problems
                .add(place, "expected a list with at least one item");
        } else if items.len() > max {
            self.problems.add(
                place,
                format!("has {} items; at most {max} are allowed", items.len()),
            );
        }
        items
    }

    /// A text that must be there, hold something and not be longer than `max` characters.
    fn text(&mut self, place: &str, object: &Value, key: &str, max: usize) {
        match object.get(key) {
            None => self.problems.add(place, format!("`{key}` is missing")),
            Some(Value::String(text)) if text.trim().is_empty() => {
                self.problems.add(place, format!("`{key}` is empty"));
            }
            Some(Value::String(text)) => {
                let count = text.chars().count();
                if count > max {
                    self.problems.add(
                        place,
                        format!("`{key}` has {count} characters; at most {max} are allowed"),
                    );
                }
            }
            Some(other) => self.problems.add(
                place,
                format!("`{key}`: expected a text, received {}", name_of(other)),
            ),
        }
    }

    fn optional_text(&mut self, place: &str, object: &Value, key: &str, max: usize) {
        if object.get(key).is_some() {
            self.text(place, object, key, max);
        }
    }

    /// Replies name what was chosen by its id alone.
    fn unique<'v>(&mut self, place: &str, object: &'v Value, ids: &mut HashSet<&'v str>) {
        if let Some(id) = object["id"].as_str()
            && !ids.insert(id)
        {
            self.problems.add(place, "has the `id` of another");
        }
    }
}

#[cfg(test)]
mod tests {
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
        passes(
            &json!({"type": "text", "text": {"body": "line one\nline two", "preview_url": true}}),
        );
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
        let faulty =
            json!([reply("a", "A title that is too long"), reply("a", "No"), {"type": "url"}]);
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
        let template =
            format!("message: `template` is not a type of message; it is one of {KINDS}");
        refuses(
            &json!({"type": "template", "template": {"name": "x"}}),
            &[&template],
        );
        let addressed = json!({"type": "text", "text": {"body": "hi"}, "to": "+15550001111"});
        refuses(&addressed, &["message: `to` is not known here"]);
    }
}
