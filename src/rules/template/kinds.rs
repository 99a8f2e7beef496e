//! What each part of a template takes and what each value is, in the words of a job's parameters.

use super::{
    Action, Header,
    wire::{ButtonParameter, ParameterValue},
};

impl Header {
    /// Whether it needs a parameter.
    pub(super) fn is_variable(&self) -> bool {
        !matches!(self, Header::Text(text) if text.variables().is_empty())
    }

    pub(super) fn takes(&self) -> &str {
        match self {
            Header::Text(_) => "text",
            Header::Media(kind) => kind.as_str(),
            Header::Location => "location",
            Header::Unsupported(format) => format,
        }
    }

    pub(super) fn accepts(&self, value: &ParameterValue) -> bool {
        match self {
            Header::Text(_) => value.is_text(),
            other => value.kind() == other.takes(),
        }
    }
}

impl Action {
    /// The parameter it takes, as our form names it, and the `sub_type` it goes out as.
    pub(super) fn takes(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Action::QuickReply => Some(("payload", "quick_reply")),
            Action::Url(url) if url.variables().is_empty() => None,
            // The button of an authentication template goes out as the page that it is made of.
            Action::Url(_) | Action::Otp => Some(("url", "url")),
            Action::CopyCode => Some(("coupon_code", "copy_code")),
            Action::Flow => Some(("flow", "flow")),
            Action::Call(_) | Action::Unsupported(_) => None,
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Action::Url(_) => "opens a fixed page".to_owned(),
            Action::Call(_) => "calls a fixed number".to_owned(),
            Action::Unsupported(kind) => {
                format!("is a {kind} button, which Postrider does not fill,")
            }
            _ => "is fixed".to_owned(),
        }
    }
}

impl ParameterValue {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            ParameterValue::Text { .. } => "text",
            ParameterValue::Currency { .. } => "currency",
            ParameterValue::DateTime { .. } => "date_time",
            ParameterValue::Image { .. } => "image",
            ParameterValue::Video { .. } => "video",
            ParameterValue::Document { .. } => "document",
            ParameterValue::Gif { .. } => "gif",
            ParameterValue::Location { .. } => "location",
        }
    }

    /// Whether it stands inside a text.
    pub(super) fn is_text(&self) -> bool {
        matches!(
            self,
            ParameterValue::Text { .. }
                | ParameterValue::Currency { .. }
                | ParameterValue::DateTime { .. }
        )
    }
}

impl ButtonParameter {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            ButtonParameter::Text { .. } => "url",
            ButtonParameter::Payload { .. } => "payload",
            ButtonParameter::CouponCode { .. } => "coupon_code",
            ButtonParameter::Action { .. } => "flow",
        }
    }

    /// A flow without token and data is sent without a parameter.
    pub(super) fn is_bare(&self) -> bool {
        matches!(self, ButtonParameter::Action { action } if action.is_empty())
    }
}
