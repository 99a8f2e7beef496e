//! The bodies of webhooks: receipts gathered by account and number, and everything else as it was asked for.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    errors, identity,
    schedule::{Event, Status, What},
    traffic::{Shared, Traffic},
    world::{Number, World},
};

/// One element of a webhook, with all that its body needs, copied from under the locks.
pub(super) struct Update {
    pub(super) app: usize,
    pub(super) at: i64,
    pub(super) news: News,
}

/// What an update is about.
pub(super) enum News {
    Receipt(Receipt),
    Change { waba_id: String, change: Value },
}

/// A receipt.
pub(super) struct Receipt {
    pub(super) serial: u64,
    pub(super) status: Status,
    number: Arc<Number>,
    code: i32,
    person: Arc<str>,
    message_id: String,
    callback: Option<Box<str>>,
    category: &'static str,
}

/// Looks up what an event's body needs; nothing when the ledger has forgotten the message.
pub(super) fn resolve(
    shared: &Shared,
    world: &World,
    traffic: &Traffic,
    event: Event,
) -> Option<Update> {
    let at = shared.unix_seconds(event.at);
    match event.what {
        What::Change {
            app,
            waba_id,
            change,
        } => Some(Update {
            app,
            at,
            news: News::Change { waba_id, change },
        }),
        What::Receipt {
            serial,
            status,
            code,
        } => {
            let row = traffic.ledger.get(serial)?;
            let number = world
                .number(&traffic.ledger.names.name(row.number))?
                .clone();
            let person = traffic.ledger.names.name(row.person);
            let message_id = identity::message_id(&person, serial, shared.seed());
            let (callback, category) = (row.callback.clone(), row.category);
            let app = number.app;
            let receipt = Receipt {
                serial,
                status,
                number,
                code,
                person,
                message_id,
                callback,
                category,
            };
            Some(Update {
                app,
                at,
                news: News::Receipt(receipt),
            })
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    object: &'static str,
    entry: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    /// Absent on messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<i64>,
    changes: Vec<Change<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Change<'a> {
    Statuses {
        field: &'static str,
        value: Statuses<'a>,
    },
    Other(&'a Value),
}

#[derive(Serialize)]
struct Statuses<'a> {
    messaging_product: &'static str,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contacts: Vec<Contact<'a>>,
    statuses: Vec<Element<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    display_phone_number: &'a str,
    phone_number_id: &'a str,
}

#[derive(Serialize)]
struct Contact<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    wa_id: Option<&'a str>,
    user_id: String,
}

/// One of `statuses`.
#[derive(Serialize)]
struct Element<'a> {
    id: &'a str,
    status: &'static str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient_user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    biz_opaque_callback_data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pricing: Option<Pricing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<[Value; 1]>,
}

#[derive(Serialize)]
struct Pricing {
    billable: bool,
    pricing_model: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    category: &'static str,
}

/// The body of one POST.
pub(super) fn body(updates: &[Update]) -> Vec<u8> {
    let mut entry: Vec<Entry<'_>> = Vec::new();
    for update in updates {
        match &update.news {
            News::Change { waba_id, change } => {
                let time = (change["field"] != "messages").then_some(update.at);
                changes_of(&mut entry, waba_id, time).push(Change::Other(change));
            }
            News::Receipt(receipt) => add(
                changes_of(&mut entry, &receipt.number.waba_id, None),
                receipt,
                update.at,
            ),
        }
    }
    serde_json::to_vec(&Body {
        object: "whatsapp_business_account",
        entry,
    })
    .expect("strings and numbers serialise")
}

/// The changes of the account's entry of that time. Neighbours mostly belong together, so the last one is looked at first.
fn changes_of<'b, 'a>(
    entry: &'b mut Vec<Entry<'a>>,
    waba_id: &'a str,
    time: Option<i64>,
) -> &'b mut Vec<Change<'a>> {
    let place = entry
        .iter()
        .rposition(|entry| entry.id == waba_id && entry.time == time)
        .unwrap_or_else(|| {
            entry.push(Entry {
                id: waba_id,
                time,
                changes: Vec::new(),
            });
            entry.len() - 1
        });
    &mut entry[place].changes
}

fn add<'a>(changes: &mut Vec<Change<'a>>, receipt: &'a Receipt, at: i64) {
    let number = &receipt.number.setup;
    let place = changes.iter().rposition(|change| match change {
        Change::Statuses { value, .. } => value.metadata.phone_number_id == number.id,
        Change::Other(_) => false,
    });
    let place = place.unwrap_or_else(|| {
        let metadata = Metadata {
            display_phone_number: &receipt.number.digits,
            phone_number_id: &number.id,
        };
        let (contacts, statuses) = (Vec::new(), Vec::new());
        let value = Statuses {
            messaging_product: "whatsapp",
            metadata,
            contacts,
            statuses,
        };
        changes.push(Change::Statuses {
            field: "messages",
            value,
        });
        changes.len() - 1
    });
    if let Change::Statuses { value, .. } = &mut changes[place] {
        value.statuses.push(receipt.element(at));
        // Failed ones come without contacts.
        value
            .contacts
            .extend((receipt.status != Status::Failed).then(|| receipt.contact()));
    }
}

impl Receipt {
    /// The phone, unless only the business-scoped id is known.
    fn phone(&self) -> Option<&str> {
        (!self.person.contains('.')).then_some(&*self.person)
    }

    fn user_id(&self) -> String {
        self.phone()
            .map_or_else(|| self.person.to_string(), identity::user_id)
    }

    fn contact(&self) -> Contact<'_> {
        Contact {
            wa_id: self.phone(),
            user_id: self.user_id(),
        }
    }

    fn element(&self, at: i64) -> Element<'_> {
        let failed = self.status == Status::Failed;
        Element {
            id: &self.message_id,
            status: self.status.word(),
            timestamp: at.to_string(),
            recipient_id: self.phone(),
            recipient_user_id: (!failed || self.phone().is_none()).then(|| self.user_id()),
            biz_opaque_callback_data: self.callback.as_deref(),
            pricing: matches!(self.status, Status::Sent | Status::Delivered).then_some(Pricing {
                billable: self.category != "service",
                pricing_model: "PMP",
                kind: if self.category == "service" {
                    "free_customer_service"
                } else {
                    "regular"
                },
                category: self.category,
            }),
            errors: failed.then(|| [errors::webhook_error(self.code)]),
        }
    }
}

/// A change of the field `messages` that carries one inbound message.
pub(super) fn inbound(number: &Number, wa_id: &str, message: &Value) -> Value {
    json!({"field": "messages", "value": {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": number.digits, "phone_number_id": number.setup.id},
        "contacts": [{"profile": {"name": "Sandbox"}, "wa_id": wa_id, "user_id": identity::user_id(wa_id)}],
        "messages": [message],
    }})
}

/// The value of `X-Hub-Signature-256`.
pub(super) fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    let mut signature = String::with_capacity(71);
    signature.push_str("sha256=");
    for byte in digest {
        signature.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        signature.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    signature
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_in_hex() {
        // RFC 4231, test case 2.
        assert_eq!(
            signature("Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
