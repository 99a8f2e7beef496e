//! A filled template in the provider's form: what `components` holds in a request.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// The `components` of a request, checked against a template. Parts without variables are left out, as the provider wants.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Components(pub(super) Vec<Component>);

impl Components {
    /// Whether the template takes no parameters at all; the key is then left out of the request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Component {
    Header {
        parameters: [Parameter; 1],
    },
    Body {
        parameters: Vec<Parameter>,
    },
    Button {
        sub_type: &'static str,
        #[serde(serialize_with = "as_text")]
        index: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        parameters: Option<[ButtonParameter; 1]>,
    },
}

/// What stands in for a variable of the header or the body.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Parameter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameter_name: Option<String>,
    #[serde(flatten)]
    pub(super) value: ParameterValue,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ParameterValue {
    Text { text: String },
    Currency { currency: Currency },
    DateTime { date_time: DateTime },
    Image { image: Media },
    Video { video: Media },
    Document { document: Media },
    Gif { gif: Media },
    Location { location: Location },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Currency {
    pub(super) fallback_value: String,
    pub(super) code: String,
    pub(super) amount_1000: i64,
}

/// Only the text is used today, whatever else a request may say (pywa, templates, 2026-08).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DateTime {
    pub(super) fallback_value: String,
}

/// A file: by the id of an upload, or by a link that the provider fetches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Media {
    #[serde(flatten)]
    pub(super) source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) filename: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    Id(String),
    Link(String),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Location {
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ButtonParameter {
    Text { text: String },
    Payload { payload: String },
    CouponCode { coupon_code: String },
    Action { action: Map<String, Value> },
}

/// The provider takes a button's index as text or number; its documentation writes text.
fn as_text<S: Serializer>(index: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(index)
}
