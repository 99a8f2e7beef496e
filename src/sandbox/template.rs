//! What a template's components ask for; [`check`] says whether those of a request give it.

use serde_json::Value;

pub(super) use self::check::{coordinate, source};

mod check;

/// The parts of a template that take parameters.
#[derive(Debug)]
pub(super) struct Shape {
    header: Header,
    body: Slots,
    buttons: Vec<Button>,
    is_named: bool,
    is_authentication: bool,
}

#[derive(Debug)]
enum Header {
    /// None, or one without variables.
    Fixed,
    Text(Slots),
    /// `image`, `video` or `document`.
    Media(&'static str),
    Location,
}

#[derive(Debug, PartialEq, Eq)]
enum Button {
    Url {
        has_variable: bool,
    },
    QuickReply,
    Phone,
    CopyCode,
    Flow,
    /// The code of an authentication template; sent as a `url` button.
    Otp,
}

impl Button {
    /// As the provider's messages call it.
    fn name(&self) -> &'static str {
        match self {
            Button::Url { .. } | Button::Otp => "Url",
            Button::QuickReply => "QuickReply",
            Button::Phone => "PhoneNumber",
            Button::CopyCode => "CopyCode",
            Button::Flow => "Flow",
        }
    }

    /// The `sub_type` that a request uses for it.
    fn sub_type(&self) -> &'static str {
        match self {
            Button::Url { .. } | Button::Otp => "url",
            Button::QuickReply => "quick_reply",
            Button::Phone => "phone_number",
            Button::CopyCode => "copy_code",
            Button::Flow => "flow",
        }
    }

    fn needs_parameter(&self) -> bool {
        matches!(
            self,
            Button::Url { has_variable: true } | Button::CopyCode | Button::Otp
        )
    }
}

/// The variables of a text.
#[derive(Debug, Default)]
struct Slots {
    names: Vec<String>,
    /// Characters of the text around them.
    literal: usize,
}

impl Slots {
    fn of(text: &str) -> Slots {
        let mut slots = Slots::default();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                break;
            };
            slots.literal += before.chars().count();
            if !slots.names.iter().any(|known| known == name) {
                slots.names.push(name.to_owned());
            }
            rest = after;
        }
        slots.literal += rest.chars().count();
        slots
    }
}

impl Shape {
    /// Reads the components as the provider lists them.
    pub(super) fn of(category: &str, parameter_format: &str, components: &Value) -> Shape {
        let mut shape = Shape {
            header: Header::Fixed,
            body: Slots::default(),
            buttons: Vec::new(),
            is_named: parameter_format == "NAMED",
            is_authentication: category == "AUTHENTICATION",
        };
        for component in components.as_array().into_iter().flatten() {
            let text = component["text"].as_str().unwrap_or_default();
            match component["type"].as_str().unwrap_or_default() {
                "HEADER" => {
                    shape.header = header(component["format"].as_str().unwrap_or("TEXT"), text);
                }
                "BODY" => shape.body = Slots::of(text),
                "BUTTONS" => shape.buttons = buttons(&component["buttons"]),
                _ => {}
            }
        }
        shape
    }

    /// Whether it carries a one-time code.
    pub(super) fn is_authentication(&self) -> bool {
        self.is_authentication
    }
}

fn header(format: &str, text: &str) -> Header {
    match format {
        "IMAGE" => Header::Media("image"),
        "VIDEO" => Header::Media("video"),
        "DOCUMENT" => Header::Media("document"),
        "LOCATION" => Header::Location,
        _ => match Slots::of(text) {
            slots if slots.names.is_empty() => Header::Fixed,
            slots => Header::Text(slots),
        },
    }
}

fn buttons(listed: &Value) -> Vec<Button> {
    let listed = listed.as_array().into_iter().flatten();
    listed
        .map(|button| match button["type"].as_str().unwrap_or_default() {
            "URL" => Button::Url {
                has_variable: button["url"].as_str().is_some_and(|url| url.contains("{{")),
            },
            "PHONE_NUMBER" => Button::Phone,
            "COPY_CODE" => Button::CopyCode,
            "FLOW" => Button::Flow,
            "OTP" => Button::Otp,
            _ => Button::QuickReply,
        })
        .collect()
}
