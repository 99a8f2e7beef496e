//! Whether a request's components give what a template asks for.

use super::{Button, Header, Shape, Slots};
use crate::sandbox::{
    errors::ApiError,
    request::{Component, Media, Parameter, Text},
};

/// The longest body after filling in.
const BODY_MAX: usize = 1_024;
/// The longest one-time code.
const CODE_MAX: usize = 15;
/// The longest coupon, since December 2025.
const COUPON_MAX: usize = 20;

impl Shape {
    /// Whether a request's components fill it.
    pub(in crate::sandbox) fn check(
        &self,
        components: &[Component<'_>],
        version: u32,
    ) -> Result<(), ApiError> {
        let check = Check {
            shape: self,
            version,
        };
        known_types(components)?;
        check.header(one(components, "header")?)?;
        check.body(one(components, "body")?)?;
        check.buttons(components)?;
        if self.is_authentication {
            check.code(components)
        } else {
            Ok(())
        }
    }
}

fn is(text: &str, word: &str) -> bool {
    text.eq_ignore_ascii_case(word)
}

fn known_types(components: &[Component<'_>]) -> Result<(), ApiError> {
    let known = |kind: &str| {
        ["header", "body", "button"]
            .iter()
            .any(|word| is(kind, word))
    };
    match components
        .iter()
        .position(|component| !known(&component.kind))
    {
        None => Ok(()),
        Some(place) => Err(ApiError::parameter(format!(
            "Param template['components'][{place}]['type'] must be one of {{HEADER, BODY, BUTTON}} - got \"{}\".",
            &*components[place].kind
        ))),
    }
}

/// The component of this type, of which there is one at most.
fn one<'c, 'a>(
    components: &'c [Component<'a>],
    kind: &str,
) -> Result<Option<&'c Component<'a>>, ApiError> {
    let mut found = components
        .iter()
        .filter(|component| is(&component.kind, kind));
    let first = found.next();
    match found.next() {
        None => Ok(first),
        Some(_) => Err(ApiError::new(
            100,
            format!("components contain {kind} twice"),
        )),
    }
}

/// One request against one shape, in the words of one version of the API.
struct Check<'s> {
    shape: &'s Shape,
    version: u32,
}

impl Check<'_> {
    /// What is wrong with a parameter has had its own code since v23.
    fn flaw(&self, details: impl Into<String>) -> ApiError {
        ApiError::new(if self.version >= 23 { 132_018 } else { 132_012 }, details)
    }

    fn header(&self, given: Option<&Component<'_>>) -> Result<(), ApiError> {
        let parameters = given
            .map(|component| &*component.parameters)
            .unwrap_or_default();
        match &self.shape.header {
            Header::Fixed => count("header", parameters.len(), 0),
            Header::Text(slots) => self.texts("header", slots, parameters).map(|_| ()),
            Header::Media(kind) => {
                count("header", parameters.len(), 1)?;
                self.media(kind, &parameters[0])
            }
            Header::Location => {
                count("header", parameters.len(), 1)?;
                location(&parameters[0])
            }
        }
    }

    fn body(&self, given: Option<&Component<'_>>) -> Result<(), ApiError> {
        // An authentication template's text is the provider's own, with the code as its one variable.
        let own = Slots {
            names: vec!["1".into()],
            literal: 0,
        };
        let slots = if self.shape.is_authentication {
            &own
        } else {
            &self.shape.body
        };
        let parameters = given
            .map(|component| &*component.parameters)
            .unwrap_or_default();
        let filled = self.texts("body", slots, parameters)?;
        if slots.literal + filled > BODY_MAX {
            let length = slots.literal + filled;
            return Err(ApiError::new(
                132_005,
                format!("body: {length} characters, at most {BODY_MAX} are allowed"),
            ));
        }
        Ok(())
    }

    /// Text, currency and date parameters; says how many characters they come to.
    fn texts(
        &self,
        part: &str,
        slots: &Slots,
        parameters: &[Parameter<'_>],
    ) -> Result<usize, ApiError> {
        count(part, parameters.len(), slots.names.len())?;
        if self.shape.is_named {
            named(part, slots, parameters)?;
        } else if parameters
            .iter()
            .any(|parameter| parameter.parameter_name.is_some())
        {
            let details = format!(
                "{part}: parameter_name is given, but the template's parameters are positional"
            );
            return Err(ApiError::new(132_012, details));
        }
        let mut length = 0;
        for (place, parameter) in parameters.iter().enumerate() {
            length += self.text(part, place, parameter)?;
        }
        Ok(length)
    }

    fn text(&self, part: &str, place: usize, parameter: &Parameter<'_>) -> Result<usize, ApiError> {
        let missing = |key: &str| {
            missing(format!(
                "{part}: parameter {place} of type {key} is missing {key} value"
            ))
        };
        let kind = &*parameter.kind;
        let shown: &Text<'_> = if is(kind, "text") {
            parameter.text.as_ref().ok_or_else(|| missing("text"))?
        } else if is(kind, "currency") {
            let currency = parameter
                .currency
                .as_ref()
                .ok_or_else(|| missing("currency"))?;
            if currency.code.len() != 3
                || !currency.code.bytes().all(|byte| byte.is_ascii_uppercase())
            {
                return Err(self.flaw(format!(
                    "{part}: currency code \"{}\" is not ISO 4217",
                    &*currency.code
                )));
            }
            &currency.fallback_value
        } else if is(kind, "date_time") {
            &parameter
                .date_time
                .as_ref()
                .ok_or_else(|| missing("date_time"))?
                .fallback_value
        } else {
            let details = format!(
                "{part}: Format mismatch, expected TEXT, received {}",
                kind.to_uppercase()
            );
            return Err(ApiError::new(132_012, details));
        };
        self.plain(part, shown)
    }

    /// Parameter text is not empty and has no line break, tab or more than four spaces in a row.
    fn plain(&self, part: &str, text: &str) -> Result<usize, ApiError> {
        if text.trim().is_empty() {
            let details = format!("{part}: parameter of type text is missing text value");
            return Err(if self.version >= 23 {
                self.flaw(details)
            } else {
                missing(details)
            });
        }
        if text.contains(['\n', '\r', '\t']) || text.contains("     ") {
            let details =
                "Param text cannot have new-line/tab characters or more than 4 consecutive spaces";
            return Err(self.flaw(format!("{part}: {details}")));
        }
        Ok(text.chars().count())
    }

    fn media(&self, expected: &str, parameter: &Parameter<'_>) -> Result<(), ApiError> {
        if !is(&parameter.kind, expected) {
            let (expected, got) = (expected.to_uppercase(), parameter.kind.to_uppercase());
            return Err(ApiError::new(
                132_012,
                format!("header: Format mismatch, expected {expected}, received {got}"),
            ));
        }
        let object = match expected {
            "image" => &parameter.image,
            "video" => &parameter.video,
            _ => &parameter.document,
        };
        let object = object
            .as_ref()
            .ok_or_else(|| missing(format!("header: the {expected} object is missing")))?;
        source("header", object)?;
        if object.caption.is_some() || (object.filename.is_some() && expected != "document") {
            return Err(self.flaw(format!(
                "header: a template's {expected} takes no caption, and only documents a filename"
            )));
        }
        Ok(())
    }

    fn buttons(&self, components: &[Component<'_>]) -> Result<(), ApiError> {
        let mut given = vec![false; self.shape.buttons.len()];
        for component in components
            .iter()
            .filter(|component| is(&component.kind, "button"))
        {
            let place = self.button(component)?;
            if std::mem::replace(&mut given[place], true) {
                return Err(ApiError::new(
                    100,
                    format!("buttons: index {place} is given twice"),
                ));
            }
        }
        let absent = |(button, given): &(&Button, bool)| button.needs_parameter() && !given;
        match self
            .shape
            .buttons
            .iter()
            .zip(given)
            .position(|pair| absent(&pair))
        {
            None => Ok(()),
            Some(place) => {
                let name = self.shape.buttons[place].name();
                Err(missing(format!(
                    "buttons: Button at index {place} of type {name} requires a parameter"
                )))
            }
        }
    }

    /// One button component; says at which index.
    fn button(&self, component: &Component<'_>) -> Result<usize, ApiError> {
        let sub_type = component
            .sub_type
            .as_deref()
            .ok_or_else(|| missing("buttons: sub_type is missing".into()))?;
        let place = component
            .index()
            .ok_or_else(|| missing("buttons: index is missing or no number".into()))?;
        let button = self.shape.buttons.get(place);
        let button = button.ok_or_else(|| {
            self.flaw(format!(
                "buttons: the template has no button at index {place}"
            ))
        })?;
        if !is(button.sub_type(), sub_type) {
            return Err(self.flaw(format!(
                "buttons: Button at index {place} of type {} is not of type {sub_type}",
                button.name()
            )));
        }
        if matches!(
            button,
            Button::Url {
                has_variable: false
            } | Button::Phone
        ) {
            let name = button.name();
            return Err(self.flaw(format!(
                "buttons: Button at index {place} of type {name} does not require parameters"
            )));
        }
        count("buttons", component.parameters.len(), 1)?;
        self.button_parameter(button, &component.parameters[0])?;
        Ok(place)
    }

    fn button_parameter(&self, button: &Button, parameter: &Parameter<'_>) -> Result<(), ApiError> {
        let (expected, value) = match button {
            Button::QuickReply => ("payload", &parameter.payload),
            Button::CopyCode => ("coupon_code", &parameter.coupon_code),
            Button::Flow => {
                let fits = is(&parameter.kind, "action") && parameter.action.is_some();
                return if fits {
                    Ok(())
                } else {
                    Err(self.flaw("buttons: a flow button takes an action"))
                };
            }
            Button::Url { .. } | Button::Phone | Button::Otp => ("text", &parameter.text),
        };
        if !is(&parameter.kind, expected) {
            let got = &*parameter.kind;
            return Err(ApiError::new(
                132_012,
                format!("buttons: Format mismatch, expected {expected}, received {got}"),
            ));
        }
        let value = value
            .as_deref()
            .ok_or_else(|| missing(format!("buttons: {expected} is missing")))?;
        if expected != "payload" {
            self.plain("buttons", value)?;
        }
        if *button == Button::CopyCode && value.chars().count() > COUPON_MAX {
            return Err(self.flaw(format!(
                "buttons: a coupon code has at most {COUPON_MAX} characters"
            )));
        }
        Ok(())
    }

    /// The code of an authentication template stands in the body and in the button, and is a code.
    fn code(&self, components: &[Component<'_>]) -> Result<(), ApiError> {
        let text = |kind| {
            let component = components
                .iter()
                .find(|component| is(&component.kind, kind));
            component.and_then(|component| component.parameters.first()?.text.as_deref())
        };
        let code = text("body").unwrap_or_default();
        if text("button").is_some_and(|other| other != code) {
            return Err(self.flaw("the code in the body and the code in the button differ"));
        }
        if code.chars().count() > CODE_MAX
            || !code.bytes().all(|byte| byte.is_ascii_graphic())
            || code.contains("://")
        {
            return Err(self.flaw(format!(
                "body: a code has at most {CODE_MAX} characters, no URL and no emoji"
            )));
        }
        Ok(())
    }
}

fn missing(details: String) -> ApiError {
    ApiError::new(131_008, details)
}

fn count(part: &str, given: usize, expected: usize) -> Result<(), ApiError> {
    if given == expected {
        return Ok(());
    }
    Err(ApiError::new(
        132_000,
        format!(
            "{part}: number of localizable_params ({given}) does not match the expected number of params ({expected})"
        ),
    ))
}

fn named(part: &str, slots: &Slots, parameters: &[Parameter<'_>]) -> Result<(), ApiError> {
    let mut seen = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        let name = parameter
            .parameter_name
            .as_deref()
            .filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| {
            ApiError::new(100, format!("{part}: Parameter name is missing or empty"))
        })?;
        if !slots.names.iter().any(|known| known == name) || seen.contains(&name) {
            return Err(ApiError::new(
                132_000,
                format!("{part}: no variable {name} is left to be filled"),
            ));
        }
        seen.push(name);
    }
    Ok(())
}

/// A medium is named by id or by link, not both.
pub(in crate::sandbox) fn source(part: &str, media: &Media<'_>) -> Result<(), ApiError> {
    match (&media.id, &media.link) {
        (Some(id), None) if !id.is_empty() => Ok(()),
        (None, Some(link)) if link.starts_with("https://") || link.starts_with("http://") => Ok(()),
        (None, Some(_)) => Err(ApiError::new(
            131_009,
            format!("{part}: link is not a valid URL"),
        )),
        (Some(_), Some(_)) => Err(ApiError::new(
            100,
            format!("{part}: both id and link are given"),
        )),
        _ => Err(missing(format!("{part}: one of id or link is required"))),
    }
}

fn location(parameter: &Parameter<'_>) -> Result<(), ApiError> {
    if !is(&parameter.kind, "location") {
        let got = parameter.kind.to_uppercase();
        return Err(ApiError::new(
            132_012,
            format!("header: Format mismatch, expected LOCATION, received {got}"),
        ));
    }
    let place = parameter
        .location
        .as_ref()
        .ok_or_else(|| missing("header: the location object is missing".into()))?;
    coordinate("header", place.latitude.get(), 90.0)?;
    coordinate("header", place.longitude.get(), 180.0)
}

/// A latitude or longitude: a number, or one in a string.
pub(in crate::sandbox) fn coordinate(part: &str, raw: &str, limit: f64) -> Result<(), ApiError> {
    match raw.trim_matches('"').parse::<f64>() {
        Ok(value) if value.abs() <= limit => Ok(()),
        _ => Err(ApiError::new(
            131_009,
            format!("{part}: {raw} is not a coordinate"),
        )),
    }
}
