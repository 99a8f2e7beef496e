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
mod tests;
