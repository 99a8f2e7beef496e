//! A webhook's body as the provider writes it. What is missing or of another type than we know spoils nothing else.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::http::lenient::{Elements, Scalar, Soft};

#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) entry: Elements<'a>,
}

#[derive(Deserialize)]
pub(super) struct Entry<'a> {
    #[serde(borrow, default)]
    pub(super) id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) time: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) changes: Elements<'a>,
}

#[derive(Deserialize)]
pub(super) struct Change<'a> {
    #[serde(borrow, default)]
    pub(super) field: Scalar<'a>,
    #[serde(borrow)]
    pub(super) value: &'a RawValue,
}

/// The value of the fields that are about people.
#[derive(Deserialize)]
pub(super) struct Value<'a> {
    #[serde(borrow, default)]
    pub(super) metadata: Soft<Metadata<'a>>,
    #[serde(borrow, default)]
    pub(super) contacts: Soft<Vec<Soft<Contact<'a>>>>,
    #[serde(borrow, default)]
    pub(super) statuses: Elements<'a>,
    #[serde(borrow, default)]
    pub(super) messages: Elements<'a>,
    #[serde(borrow, default)]
    pub(super) errors: Elements<'a>,
    #[serde(borrow, default)]
    pub(super) user_preferences: Elements<'a>,
    #[serde(borrow, default)]
    pub(super) user_id_update: Elements<'a>,
    #[serde(borrow, default)]
    pub(super) message_echoes: Elements<'a>,
}

#[derive(Deserialize)]
pub(super) struct Metadata<'a> {
    #[serde(borrow, default)]
    pub(super) phone_number_id: Scalar<'a>,
}

/// The names of one person.
#[derive(Deserialize)]
pub(super) struct Contact<'a> {
    #[serde(borrow, default)]
    pub(super) wa_id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) user_id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) parent_user_id: Scalar<'a>,
}

#[derive(Deserialize)]
pub(super) struct StatusElement<'a> {
    #[serde(borrow, default)]
    pub(super) id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) status: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) timestamp: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) recipient_type: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) recipient_id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) recipient_user_id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) recipient_parent_user_id: Scalar<'a>,
    /// Its name until 2026-05-05 (Meta, business-scoped user ids).
    #[serde(borrow, default)]
    pub(super) parent_recipient_user_id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) biz_opaque_callback_data: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) pricing: Soft<Pricing<'a>>,
    #[serde(borrow, default)]
    pub(super) errors: Soft<Vec<Soft<ErrorElement<'a>>>>,
}

#[derive(Default, Deserialize)]
pub(super) struct Pricing<'a> {
    #[serde(borrow, default)]
    pub(super) category: Scalar<'a>,
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Scalar<'a>,
}

#[derive(Default, Deserialize)]
pub(super) struct ErrorElement<'a> {
    #[serde(borrow, default)]
    pub(super) code: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) title: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) message: Scalar<'a>,
}

#[derive(Deserialize)]
pub(super) struct Preference<'a> {
    #[serde(borrow, default)]
    pub(super) wa_id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) user_id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) category: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) value: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) timestamp: Scalar<'a>,
}

#[derive(Deserialize)]
pub(super) struct IdUpdate<'a> {
    #[serde(borrow, default)]
    pub(super) wa_id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) user_id: Soft<IdChange<'a>>,
    #[serde(borrow, default)]
    pub(super) parent_user_id: Soft<IdChange<'a>>,
}

#[derive(Deserialize)]
pub(super) struct IdChange<'a> {
    #[serde(borrow, default)]
    pub(super) previous: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) current: Scalar<'a>,
}
