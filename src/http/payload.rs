//! Reads a webhook's body: statuses, messages of people, and everything else.
//!
//! Every list is read element by element from the untouched text, so a malformed element spoils only itself: it is kept
//! as an event that says what is wrong with it. Keys, types, fields and statuses that we do not know are kept and are no
//! error.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use self::wire::{Change, Entry, Envelope, IdChange, IdUpdate, Preference, StatusElement, Value};
use super::{
    echo,
    lenient::{Elements, Scalar},
    message,
};
use crate::{
    rules::{
        address::Address,
        change,
        keywords::Keywords,
        receipt::{Callback, Status},
    },
    store::{
        changes::Told,
        echoes::Sent,
        inbound::Inbound,
        people::{Link, LinkSource, Wish},
        receipts::{About, Event, Receipt},
    },
};

/// What the reader needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// The app whose webhook it is.
    pub app: &'a str,
    /// Whose callback data is ours.
    pub installation: &'a str,
    /// What means stop, and what start.
    pub keywords: &'a Keywords,
    /// The scope that a STOP covers.
    pub stop_covers: &'a str,
    /// The time, for elements that do not say theirs.
    pub now: DateTime<Utc>,
}

/// What a body says.
#[derive(Debug, Default, PartialEq)]
pub struct Notices {
    /// Status updates.
    pub receipts: Vec<Receipt>,
    /// Messages of people.
    pub inbound: Vec<Inbound>,
    /// What people want.
    pub wishes: Vec<Wish>,
    /// Messages from phone apps.
    pub echoes: Vec<Sent>,
    /// Addresses that turned out to be one person's.
    pub links: Vec<Link>,
    /// What the provider changed.
    pub told: Vec<Told>,
    /// Everything else.
    pub events: Vec<Event>,
}

impl Notices {
    /// How many rows it makes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.receipts.len()
            + self.inbound.len()
            + self.wishes.len()
            + self.echoes.len()
            + self.told.len()
            + self.events.len()
    }

    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.links.is_empty()
    }

    /// Adds what another body says.
    pub fn append(&mut self, mut other: Notices) {
        self.receipts.append(&mut other.receipts);
        self.inbound.append(&mut other.inbound);
        self.wishes.append(&mut other.wishes);
        self.echoes.append(&mut other.echoes);
        self.links.append(&mut other.links);
        self.told.append(&mut other.told);
        self.events.append(&mut other.events);
    }
}

/// Reads a body. Whatever it holds, it is no error.
#[must_use]
pub fn read(body: &[u8], reading: &Reading<'_>) -> Notices {
    let mut reader = Reader {
        reading,
        notices: Notices::default(),
    };
    match std::str::from_utf8(body) {
        Ok(text) => reader.envelope(text),
        Err(_) => reader.problem("", &String::from_utf8_lossy(body), "is not UTF-8"),
    }
    reader.notices
}

pub(super) struct Reader<'r> {
    pub(super) reading: &'r Reading<'r>,
    pub(super) notices: Notices,
}

impl Reader<'_> {
    fn envelope(&mut self, text: &str) {
        match serde_json::from_str(text) {
            Ok(Envelope {
                entry: Elements::List(entries),
            }) => entries.into_iter().for_each(|entry| self.entry(entry)),
            Ok(_) => self.problem("", text, "has no list of entries"),
            Err(error) => self.problem("", text, &error.to_string()),
        }
    }

    fn entry(&mut self, raw: &RawValue) {
        match serde_json::from_str(raw.get()) {
            Ok(Entry {
                id,
                time,
                changes: Elements::List(changes),
            }) => {
                let (id, time) = (id.owned(), time.number());
                changes
                    .into_iter()
                    .for_each(|change| self.change(id.as_deref(), time, change));
            }
            Ok(_) => self.problem("", raw.get(), "has no list of changes"),
            Err(error) => self.problem("", raw.get(), &error.to_string()),
        }
    }

    fn change(&mut self, entry_id: Option<&str>, time: Option<i64>, raw: &RawValue) {
        let (field, value) = match serde_json::from_str(raw.get()) {
            Ok(Change { field, value }) => (field.owned().unwrap_or_default(), value),
            Err(error) => return self.problem("", raw.get(), &error.to_string()),
        };
        match field.as_str() {
            "messages" => self.messages(raw, value),
            _ => {
                self.provider_changed(&field, entry_id, time, raw, value);
                self.about_people(&field, value);
            }
        }
    }

    /// What the provider changed by itself; kept as an event where it changed nothing that concerns us.
    fn provider_changed(
        &mut self,
        field: &str,
        account: Option<&str>,
        time: Option<i64>,
        change: &RawValue,
        value: &RawValue,
    ) {
        let now = self.reading.now;
        let raw = in_entry(account, time, change);
        let changes = match serde_json::from_str(value.get()) {
            Ok(value) => change::read(field, &value, now),
            Err(error) => return self.problem(field, &raw, &error.to_string()),
        };
        let event = self.as_event(field, None, raw);
        match account.filter(|_| !changes.is_empty()) {
            Some(account) => self.notices.told.push(Told {
                event,
                account: account.to_owned(),
                // A clock that is ahead of ours must not make all that comes later look old.
                at: time.map_or(now, |time| self.time(&Scalar::Number(time)).min(now)),
                changes,
            }),
            None => self.notices.events.push(event),
        }
    }

    fn messages(&mut self, change: &RawValue, raw: &RawValue) {
        let value: Value<'_> = match serde_json::from_str(raw.get()) {
            Ok(value) => value,
            Err(error) => return self.problem("messages", change.get(), &error.to_string()),
        };
        let number = value
            .metadata
            .0
            .and_then(|metadata| metadata.phone_number_id.owned());
        for contact in value
            .contacts
            .0
            .into_iter()
            .flatten()
            .filter_map(|contact| contact.0)
        {
            self.one_person(contact.wa_id, contact.user_id, contact.parent_user_id);
        }
        let is_empty = [&value.statuses, &value.messages]
            .iter()
            .all(|list| matches!(list, Elements::Absent));
        if is_empty || !matches!(value.errors, Elements::Absent) {
            self.event("messages", None, change.get().to_owned());
        }
        for (list, read) in [
            (
                value.statuses,
                Self::status as fn(&mut Self, Option<&str>, &RawValue),
            ),
            (value.messages, Self::message),
        ] {
            match list {
                Elements::List(elements) => elements
                    .into_iter()
                    .for_each(|raw| read(self, number.as_deref(), raw)),
                Elements::Odd => {
                    self.problem("messages", change.get(), "statuses or messages are no list");
                }
                Elements::Absent => {}
            }
        }
    }

    fn status(&mut self, number: Option<&str>, raw: &RawValue) {
        let element: StatusElement<'_> = match serde_json::from_str(raw.get()) {
            Ok(element) => element,
            Err(error) => return self.problem("messages", raw.get(), &error.to_string()),
        };
        let (Some(provider_id), Some(status)) = (element.id.owned(), element.status.owned()) else {
            return self.problem(
                "messages",
                raw.get(),
                "a status without id or without status",
            );
        };
        let callback = element.biz_opaque_callback_data.owned();
        let error = element
            .errors
            .0
            .into_iter()
            .flatten()
            .find_map(|error| error.0)
            .unwrap_or_default();
        let pricing = element.pricing.0.unwrap_or_default();
        self.notices.receipts.push(Receipt {
            phone_number_id: number.map(str::to_owned),
            provider_id,
            about: callback
                .as_deref()
                .and_then(|text| self.about(text, &status)),
            callback,
            status,
            at: self.time(&element.timestamp),
            error_code: error
                .code
                .number()
                .and_then(|code| i32::try_from(code).ok()),
            error_title: error.title.owned().or_else(|| error.message.owned()),
            pricing_category: pricing.category.owned(),
            pricing_type: pricing.kind.owned(),
            raw: raw.get().to_owned(),
        });
        if element.recipient_type != Scalar::Text("group".into()) {
            let parent = element
                .recipient_parent_user_id
                .or(element.parent_recipient_user_id);
            self.one_person(element.recipient_id, element.recipient_user_id, parent);
        }
    }

    /// The job of ours that a status moves.
    fn about(&self, callback: &str, status: &str) -> Option<About> {
        Status::parse(status)?;
        let Callback {
            installation,
            job,
            attempt,
            lane,
            day,
        } = Callback::parse(callback)?;
        (installation == self.reading.installation).then_some(About {
            job,
            attempt,
            lane,
            day,
        })
    }

    fn message(&mut self, number: Option<&str>, raw: &RawValue) {
        if let Err(problem) = message::read(self, number, raw) {
            self.problem("messages", raw.get(), &problem);
        }
    }

    /// What fields other than `messages` say of people.
    fn about_people(&mut self, field: &str, raw: &RawValue) {
        if !matches!(
            field,
            "user_preferences" | "user_id_update" | "smb_message_echoes"
        ) {
            return;
        }
        let value: Value<'_> = match serde_json::from_str(raw.get()) {
            Ok(value) => value,
            Err(error) => return self.problem(field, raw.get(), &error.to_string()),
        };
        let number = value
            .metadata
            .0
            .and_then(|metadata| metadata.phone_number_id.owned());
        let (preferences, updates) = (value.user_preferences, value.user_id_update);
        self.each(field, raw, preferences, Self::preference);
        self.each(field, raw, updates, Self::id_update);
        self.each(field, raw, value.message_echoes, |reader, echo| {
            echo::read(reader, number.as_deref(), echo)
        });
    }

    fn each<'a, T: Deserialize<'a>>(
        &mut self,
        field: &str,
        whole: &RawValue,
        list: Elements<'a>,
        heed: impl Fn(&mut Self, T) -> Result<(), &'static str>,
    ) {
        let elements = match list {
            Elements::List(elements) => elements,
            Elements::Absent => return,
            Elements::Odd => return self.problem(field, whole.get(), "is no list"),
        };
        for raw in elements {
            let heeded = match serde_json::from_str(raw.get()) {
                Ok(element) => heed(self, element).map_err(str::to_owned),
                Err(error) => Err(error.to_string()),
            };
            if let Err(problem) = heeded {
                self.problem(field, raw.get(), &problem);
            }
        }
    }

    /// Somebody stopped or resumed marketing messages in the app's own settings.
    fn preference(&mut self, preference: Preference<'_>) -> Result<(), &'static str> {
        let at = self.time(&preference.timestamp);
        let phone = preference.wa_id.text().and_then(|id| address_key(&id));
        let user = preference.user_id.text().and_then(|id| address_key(&id));
        let is_marketing = preference
            .category
            .text()
            .is_none_or(|category| category.starts_with("marketing"));
        let given = match preference.value.text().as_deref() {
            Some("stop") => false,
            Some("resume") => true,
            _ => return Ok(()),
        };
        if let Some(key) = phone.or(user).filter(|_| is_marketing) {
            let scope = "marketing".to_owned();
            self.notices.wishes.push(Wish {
                key,
                scope,
                given,
                at,
                source: "provider",
                evidence: None,
            });
        }
        Ok(())
    }

    /// The provider calls a person by another id now.
    fn id_update(&mut self, update: IdUpdate<'_>) -> Result<(), &'static str> {
        for ids in [update.user_id, update.parent_user_id] {
            if let Some(IdChange { previous, current }) = ids.0 {
                self.same_person(previous, current.clone(), LinkSource::IdChange);
                self.same_person(update.wa_id.clone(), current, LinkSource::Webhook);
            }
        }
        Ok(())
    }

    /// Notes which of a person's phone number, id and parent's id were named together. They are linked to the phone number,
    /// and to the id of somebody who hides it.
    pub(super) fn one_person(&mut self, phone: Scalar<'_>, user: Scalar<'_>, parent: Scalar<'_>) {
        let known = phone.clone().or(user.clone());
        self.same_person(phone, user, LinkSource::Webhook);
        self.same_person(known, parent, LinkSource::Webhook);
    }

    /// Notes that two ids are one person's, where both are there.
    pub(super) fn same_person(&mut self, known: Scalar<'_>, also: Scalar<'_>, source: LinkSource) {
        let key = |id: Scalar<'_>| id.text().and_then(|id| address_key(&id));
        if let (false, Some(known), Some(also)) = (also == Scalar::Nothing, key(known), key(also)) {
            self.notices.links.push(Link {
                known,
                also,
                source,
            });
        }
    }

    /// A timestamp in seconds or milliseconds; the time of its coming where there is none that can be right.
    pub(super) fn time(&self, timestamp: &Scalar<'_>) -> DateTime<Utc> {
        let now = self.reading.now;
        let read = |number: i64| match number {
            ..100_000_000_000 => DateTime::from_timestamp(number, 0),
            _ => DateTime::from_timestamp_millis(number),
        };
        let is_likely = |at: &DateTime<Utc>| {
            (now - TimeDelta::days(366)..now + TimeDelta::days(1)).contains(at)
        };
        timestamp
            .number()
            .and_then(read)
            .filter(is_likely)
            .unwrap_or(now)
    }

    fn problem(&mut self, field: &str, raw: &str, problem: &str) {
        self.event(field, Some(problem.to_owned()), raw.to_owned());
    }

    fn event(&mut self, field: &str, problem: Option<String>, raw: String) {
        let event = self.as_event(field, problem, raw);
        self.notices.events.push(event);
    }

    fn as_event(&self, field: &str, problem: Option<String>, raw: String) -> Event {
        let raw = if raw.contains('\0') {
            raw.replace('\0', "\u{fffd}")
        } else {
            raw
        };
        Event {
            app: self.reading.app.to_owned(),
            field: field.to_owned(),
            problem,
            raw,
        }
    }
}

/// The change alone in its entry, because the entry says which account it is about.
fn in_entry(id: Option<&str>, time: Option<i64>, change: &RawValue) -> String {
    let (id, time) = (serde_json::json!(id), serde_json::json!(time));
    format!(
        r#"{{"id":{id},"time":{time},"changes":[{}]}}"#,
        change.get()
    )
}

/// The canonical key of an id in a webhook: a phone number without its `+`, or a business-scoped id.
pub(super) fn address_key(id: &str) -> Option<String> {
    let address = match id.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Address::parse(&format!("+{id}")),
        false => Address::parse(id),
    };
    address.ok().map(|address| address.key())
}

mod wire;

#[cfg(test)]
mod tests;
