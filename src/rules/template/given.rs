//! Reads a job's parameters, in our form or in the provider's, into one shape.
//!
//! Ours: `{"header": …, "body": […] or {…}, "buttons": {"0": {…}}}`, or `{"code": "…"}` alone. The provider's:
//! `{"components": […]}`, exactly what its documentation shows.

use std::{collections::BTreeMap, fmt::Display};

use serde_json::{Map, Value, value::RawValue};

use super::{
    values::{Reader, name_of},
    wire::{ButtonParameter, ParameterValue},
};

/// What a job brings.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) header: Vec<Entry>,
    pub(super) body: Vec<Entry>,
    pub(super) buttons: BTreeMap<usize, Option<ButtonParameter>>,
    pub(super) code: Option<String>,
}

/// A value for the header or the body. `None` stands for one whose problem is known already.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Option<String>,
    pub(super) value: Option<ParameterValue>,
}

pub(super) fn read(content: &RawValue, reader: &mut Reader) -> Given {
    let mut given = Given::default();
    let mut fields = match serde_json::from_str(content.get()) {
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Null) => return given,
        Ok(other) => {
            reader.problems.add(
                "parameters",
                format!("expected an object, received {}", name_of(&other)),
            );
            return given;
        }
        Err(_) => {
            reader.problems.add("parameters", "are not JSON");
            return given;
        }
    };
    match fields.remove("components") {
        Some(components) => reader.components(components, &mut given),
        None => reader.parts(&mut fields, &mut given),
    }
    reader.nothing_else("parameters", &fields);
    given
}

/// Our form.
impl Reader {
    fn parts(&mut self, fields: &mut Map<String, Value>, given: &mut Given) {
        let mut take = |key: &str| fields.remove(key).filter(|value| !value.is_null());
        let (header, body, buttons, code) =
            (take("header"), take("body"), take("buttons"), take("code"));
        given
            .header
            .extend(header.map(|value| self.entry("header", None, value)));
        given.body = body.and_then(|value| self.body(value)).unwrap_or_default();
        if let Some(buttons) = buttons {
            self.buttons(buttons, given);
        }
        if let Some(code) = code {
            if !(given.header.is_empty() && given.body.is_empty() && given.buttons.is_empty()) {
                self.problems
                    .add("code", "stands alone: it fills the body and the button");
            }
            given.code = self.code(code);
        }
    }

    fn body(&mut self, value: Value) -> Option<Vec<Entry>> {
        match value {
            Value::Array(values) => {
                let values = values.into_iter().zip(1..);
                Some(
                    values
                        .map(|(value, n)| self.entry(&body_place(&n), None, value))
                        .collect(),
                )
            }
            Value::Object(values) => {
                let values = values.into_iter();
                Some(
                    values
                        .map(|(name, value)| {
                            self.entry(&body_place(&quoted(&name)), Some(name), value)
                        })
                        .collect(),
                )
            }
            other => self.problem(
                "body",
                format!("expected a list or an object, received {}", name_of(&other)),
            ),
        }
    }

    fn entry(&mut self, place: &str, name: Option<String>, value: Value) -> Entry {
        Entry {
            name,
            value: self.value(place, value),
        }
    }

    /// A bare text, or an object whose one key names the kind.
    fn value(&mut self, place: &str, value: Value) -> Option<ParameterValue> {
        match value {
            Value::Object(fields) => {
                let (kind, value) = self.only(place, fields)?;
                self.of_kind(place, &kind, value)
            }
            other => self.of_kind(place, "text", other),
        }
    }

    fn only(&mut self, place: &str, fields: Map<String, Value>) -> Option<(String, Value)> {
        let count = fields.len();
        match fields.into_iter().next() {
            Some(entry) if count == 1 => Some(entry),
            _ => self.problem(
                place,
                format!(
                    "expected an object with one key that names its kind, received {count} keys"
                ),
            ),
        }
    }

    fn buttons(&mut self, value: Value, given: &mut Given) {
        for (index, value) in self.object("buttons", value).unwrap_or_default() {
            let place = format!("button {index}");
            match index.parse() {
                Ok(index) => {
                    let parameter = self.button(&place, value);
                    given.buttons.insert(index, parameter);
                }
                Err(_) => self
                    .problems
                    .add(place, "is not a button's index; the first button is \"0\""),
            }
        }
    }

    fn button(&mut self, place: &str, value: Value) -> Option<ButtonParameter> {
        let fields = self.object(place, value)?;
        let (kind, value) = self.only(place, fields)?;
        match kind.as_str() {
            "url" => self
                .text(place, value)
                .map(|text| ButtonParameter::Text { text }),
            "payload" => self
                .text(place, value)
                .map(|payload| ButtonParameter::Payload { payload }),
            "coupon_code" => self
                .text(place, value)
                .map(|coupon_code| ButtonParameter::CouponCode { coupon_code }),
            "flow" => self
                .object(place, value)
                .and_then(|action| self.flow(place, action)),
            other => self.problem(
                place,
                format!("`{other}` is not known; a button takes url, payload, coupon_code or flow"),
            ),
        }
    }

    fn flow(&mut self, place: &str, action: Map<String, Value>) -> Option<ButtonParameter> {
        for key in action
            .keys()
            .filter(|key| !matches!(key.as_str(), "flow_token" | "flow_action_data"))
        {
            self.problems.add(
                place,
                format!("`{key}` is not known; a flow takes flow_token and flow_action_data"),
            );
        }
        Some(ButtonParameter::Action { action })
    }

    /// Text only: a number would have lost its leading zeros on the way.
    fn code(&mut self, value: Value) -> Option<String> {
        match value {
            Value::Number(_) => self.problem(
                "code",
                "is a number; give it as text, so that leading zeros survive",
            ),
            other => self.text("code", other),
        }
    }
}

/// The provider's form.
impl Reader {
    fn components(&mut self, value: Value, given: &mut Given) {
        for (component, n) in self
            .list("components", value)
            .unwrap_or_default()
            .into_iter()
            .zip(1..)
        {
            let place = format!("component {n}");
            if let Some(fields) = self.object(&place, component) {
                self.component(&place, fields, given);
            }
        }
    }

    fn component(&mut self, place: &str, mut fields: Map<String, Value>, given: &mut Given) {
        let kind = word(&mut fields, "type");
        let parameters = fields.remove("parameters").filter(|value| !value.is_null());
        match kind.as_str() {
            "header" if given.header.is_empty() => {
                given.header = self.entries("header", parameters);
            }
            "body" if given.body.is_empty() => given.body = self.entries("body", parameters),
            "button" => self.provider_button(place, &mut fields, parameters, given),
            "header" | "body" => self.problems.add(place, format!("is a second {kind}")),
            other => self.problems.add(
                place,
                format!("`{other}` is not a component that Postrider sends"),
            ),
        }
        self.nothing_else(place, &fields);
    }

    fn entries(&mut self, part: &str, parameters: Option<Value>) -> Vec<Entry> {
        let parameters = parameters
            .and_then(|parameters| self.list(part, parameters))
            .unwrap_or_default();
        let place = |n: usize| {
            if part == "header" {
                part.to_owned()
            } else {
                body_place(&n)
            }
        };
        let entries: Vec<Entry> = parameters
            .into_iter()
            .zip(1..)
            .map(|(parameter, n)| self.provider_entry(&place(n), parameter))
            .collect();
        let named = entries.iter().filter(|entry| entry.name.is_some()).count();
        if named != 0 && named != entries.len() {
            self.problems.add(
                part,
                "some of its parameters have a parameter_name and some have none",
            );
        }
        entries
    }

    fn provider_entry(&mut self, place: &str, parameter: Value) -> Entry {
        let Some(mut fields) = self.object(place, parameter) else {
            return Entry {
                name: None,
                value: None,
            };
        };
        let name = match fields.remove("parameter_name") {
            Some(Value::String(name)) => Some(name),
            _ => None,
        };
        let kind = word(&mut fields, "type");
        let value = fields.remove(&kind).unwrap_or(Value::Null);
        let value = self.of_kind(place, &kind, value);
        self.nothing_else(place, &fields);
        Entry { name, value }
    }

    fn provider_button(
        &mut self,
        place: &str,
        fields: &mut Map<String, Value>,
        parameters: Option<Value>,
        given: &mut Given,
    ) {
        let sub_type = word(fields, "sub_type");
        let Some(index) = fields.remove("index").as_ref().and_then(index) else {
            self.problems.add(
                place,
                "`index` must be the button's position, counted from 0",
            );
            return;
        };
        let place = format!("button {index}");
        let parameter = self.button_parameter(&place, &sub_type, parameters);
        if given.buttons.insert(index, parameter).is_some() {
            self.problems.add(place, "is given twice");
        }
    }

    fn button_parameter(
        &mut self,
        place: &str,
        sub_type: &str,
        parameters: Option<Value>,
    ) -> Option<ButtonParameter> {
        let (kind, ours) = match sub_type {
            "url" => ("text", "url"),
            "quick_reply" => ("payload", "payload"),
            "copy_code" => ("coupon_code", "coupon_code"),
            "flow" => ("action", "flow"),
            other => {
                return self.problem(
                    place,
                    format!("`{other}` is not a sub_type that Postrider sends"),
                );
            }
        };
        let mut parameters = match parameters {
            Some(parameters) => self.list(place, parameters)?,
            None => Vec::new(),
        };
        if sub_type == "flow" && parameters.is_empty() {
            return Some(ButtonParameter::Action { action: Map::new() });
        }
        if parameters.len() != 1 {
            return self.problem(
                place,
                format!("expected one parameter, received {}", parameters.len()),
            );
        }
        let mut fields = self.object(place, parameters.remove(0))?;
        let received = word(&mut fields, "type");
        let Some(value) = fields.remove(kind).filter(|_| received == kind) else {
            return self.problem(
                place,
                format!("expected a parameter of type {kind}, received `{received}`"),
            );
        };
        self.nothing_else(place, &fields);
        self.button(
            place,
            Value::Object(Map::from_iter([(ours.to_owned(), value)])),
        )
    }
}

pub(super) fn body_place(which: &dyn Display) -> String {
    format!("body parameter {which}")
}

pub(super) fn quoted(name: &str) -> String {
    format!("`{name}`")
}

/// Takes a word in lower case; an empty one where there is none.
fn word(fields: &mut Map<String, Value>, key: &str) -> String {
    match fields.remove(key) {
        Some(Value::String(word)) => word.to_ascii_lowercase(),
        _ => String::new(),
    }
}

/// The provider takes both `"0"` and `0`.
fn index(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => usize::try_from(other.as_u64()?).ok(),
    }
}
