//! What the recipient reads, as plain text.

use super::{
    Action, Header, Piece, Template, Text,
    wire::{ButtonParameter, Component, Components, Media, Parameter, ParameterValue, Source},
};

pub(super) fn text(template: &Template, components: &Components) -> String {
    let mut lines = Vec::new();
    lines.extend(header(template, components));
    lines.push(template.body.with(&body_values(components)));
    lines.extend(template.footer.clone());
    lines.extend((0..template.buttons.len()).map(|index| button(template, components, index)));
    lines.join("\n")
}

fn header(template: &Template, components: &Components) -> Option<String> {
    let value = components.0.iter().find_map(|component| match component {
        Component::Header {
            parameters: [parameter],
        } => Some(&parameter.value),
        _ => None,
    });
    match (template.header.as_ref()?, value) {
        (Header::Text(text), value) => Some(
            text.with(
                &value
                    .map(ParameterValue::shown)
                    .into_iter()
                    .collect::<Vec<_>>(),
            ),
        ),
        (_, Some(value)) => Some(format!("[{}]", value.describe())),
        (_, None) => None,
    }
}

fn body_values(components: &Components) -> Vec<&str> {
    let parameters = components.0.iter().find_map(|component| match component {
        Component::Body { parameters } => Some(parameters),
        _ => None,
    });
    parameters
        .into_iter()
        .flatten()
        .map(|Parameter { value, .. }| value.shown())
        .collect()
}

fn button(template: &Template, components: &Components, at: usize) -> String {
    let button = &template.buttons[at];
    let parameter = components.0.iter().find_map(|component| match component {
        Component::Button {
            index,
            parameters: Some([parameter]),
            ..
        } if *index == at => Some(parameter),
        _ => None,
    });
    let label = &button.label;
    match (&button.action, parameter) {
        (Action::Url(url), Some(ButtonParameter::Text { text })) => {
            format!("[{label}] {}", url.with(&[text]))
        }
        (Action::Url(url), _) => format!("[{label}] {}", url.with(&[])),
        (Action::Call(number), _) => format!("[{label}] {number}"),
        (Action::CopyCode, Some(ButtonParameter::CouponCode { coupon_code })) => {
            format!("[{label}] {coupon_code}")
        }
        _ => format!("[{label}]"),
    }
}

impl Text {
    /// The text with values in place of its variables, in the order of [`Text::variables`]; a variable without one stays.
    pub(super) fn with(&self, values: &[&str]) -> String {
        let variables = self.variables();
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Variable(name) => {
                    let at = variables.iter().position(|variable| variable == name);
                    match at.and_then(|at| values.get(at)) {
                        Some(value) => text.push_str(value),
                        None => text.extend(["{{", name, "}}"]),
                    }
                }
            }
        }
        text
    }
}

impl ParameterValue {
    /// How it reads inside a text; empty for what does not stand in one.
    pub(super) fn shown(&self) -> &str {
        match self {
            ParameterValue::Text { text } => text,
            ParameterValue::Currency { currency } => &currency.fallback_value,
            ParameterValue::DateTime { date_time } => &date_time.fallback_value,
            _ => "",
        }
    }

    fn describe(&self) -> String {
        match self {
            ParameterValue::Image { image } => format!("image: {}", image.describe()),
            ParameterValue::Video { video } => format!("video: {}", video.describe()),
            ParameterValue::Gif { gif } => format!("gif: {}", gif.describe()),
            ParameterValue::Document { document } => format!("document: {}", document.describe()),
            ParameterValue::Location { location } => {
                let place = [&location.name, &location.address]
                    .into_iter()
                    .flatten()
                    .cloned();
                let degrees = format!("{}, {}", location.latitude, location.longitude);
                format!(
                    "location: {}",
                    place.chain([degrees]).collect::<Vec<_>>().join(", ")
                )
            }
            other => other.shown().to_owned(),
        }
    }
}

impl Media {
    fn describe(&self) -> &str {
        match (&self.filename, &self.source) {
            (Some(name), _) => name,
            (None, Source::Id(place) | Source::Link(place)) => place,
        }
    }
}
