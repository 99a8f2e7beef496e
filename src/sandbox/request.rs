//! The body of `POST /{version}/{phone_number_id}/messages`, borrowed from the bytes that arrived.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::errors::ApiError;

/// A string that borrows unless it has escapes. (serde borrows a `Cow` directly, but not inside an `Option`.)
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// The whole request. Keys that nobody knows are ignored at this level, as the provider does.
#[derive(Debug, Deserialize)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    pub(super) messaging_product: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) recipient_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) to: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) recipient: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) template: Option<Template<'a>>,
    #[serde(borrow)]
    pub(super) biz_opaque_callback_data: Option<Text<'a>>,
    /// `read` marks an inbound message as read; there is no recipient then.
    #[serde(borrow)]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) message_id: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    image: Option<&'a RawValue>,
    #[serde(borrow)]
    video: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
    #[serde(borrow)]
    document: Option<&'a RawValue>,
    #[serde(borrow)]
    sticker: Option<&'a RawValue>,
    #[serde(borrow)]
    location: Option<&'a RawValue>,
    #[serde(borrow)]
    contacts: Option<&'a RawValue>,
    #[serde(borrow)]
    reaction: Option<&'a RawValue>,
    #[serde(borrow)]
    interactive: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    /// Parses the body; what serde says becomes the details of error 100.
    pub(super) fn parse(body: &'a [u8]) -> Result<Request<'a>, ApiError> {
        serde_json::from_slice(body).map_err(|error| ApiError::new(100, error.to_string()))
    }

    /// The object that a free-form message of this type is made of; `None` when there is no such type.
    pub(super) fn free_form(&self, kind: &str) -> Option<Option<&'a RawValue>> {
        Some(match kind {
            "text" => self.text,
            "image" => self.image,
            "video" => self.video,
            "audio" => self.audio,
            "document" => self.document,
            "sticker" => self.sticker,
            "location" => self.location,
            "contacts" => self.contacts,
            "reaction" => self.reaction,
            "interactive" => self.interactive,
            _ => return None,
        })
    }
}

/// The `template` object.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Template<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) language: Language<'a>,
    #[serde(borrow, default)]
    pub(super) components: Vec<Component<'a>>,
}

/// The language of a template.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Language<'a> {
    #[serde(borrow)]
    pub(super) code: Text<'a>,
    /// Old, tolerated.
    #[serde(borrow, rename = "policy")]
    _policy: Option<Text<'a>>,
}

/// One of `components`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Component<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow)]
    pub(super) sub_type: Option<Text<'a>>,
    /// A string or an integer; both are accepted.
    #[serde(borrow)]
    index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) parameters: Vec<Parameter<'a>>,
}

impl Component<'_> {
    /// The button's place, from 0 on.
    pub(super) fn index(&self) -> Option<usize> {
        self.index?.get().trim_matches('"').parse().ok()
    }
}

/// One of `parameters`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameter<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow)]
    pub(super) parameter_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) payload: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) coupon_code: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) currency: Option<Currency<'a>>,
    #[serde(borrow)]
    pub(super) date_time: Option<DateTime<'a>>,
    #[serde(borrow)]
    pub(super) image: Option<Media<'a>>,
    #[serde(borrow)]
    pub(super) video: Option<Media<'a>>,
    #[serde(borrow)]
    pub(super) document: Option<Media<'a>>,
    #[serde(borrow)]
    pub(super) location: Option<Location<'a>>,
    #[serde(borrow)]
    pub(super) action: Option<&'a RawValue>,
}

/// An amount; `amount_1000` is the value times 1000.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Currency<'a> {
    #[serde(borrow)]
    pub(super) fallback_value: Text<'a>,
    #[serde(borrow)]
    pub(super) code: Text<'a>,
    #[serde(rename = "amount_1000")]
    _amount_1000: i64,
}

/// A date, of which only the fallback is shown.
#[derive(Debug, Deserialize)]
pub(super) struct DateTime<'a> {
    #[serde(borrow)]
    pub(super) fallback_value: Text<'a>,
}

/// A picture, film, document, sound or sticker.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Media<'a> {
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) link: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) filename: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) caption: Option<Text<'a>>,
}

/// A place. Coordinates are numbers or numbers in strings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Location<'a> {
    #[serde(borrow)]
    pub(super) latitude: &'a RawValue,
    #[serde(borrow)]
    pub(super) longitude: &'a RawValue,
    #[serde(borrow, rename = "name")]
    _name: Option<Text<'a>>,
    #[serde(borrow, rename = "address")]
    _address: Option<Text<'a>>,
}

/// The `text` object of a free-form message.
#[derive(Debug, Deserialize)]
pub(super) struct Body<'a> {
    #[serde(borrow)]
    pub(super) body: Text<'a>,
}

/// What all `interactive` objects have in common.
#[derive(Debug, Deserialize)]
pub(super) struct Interactive<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow)]
    pub(super) body: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) action: Option<&'a RawValue>,
}
