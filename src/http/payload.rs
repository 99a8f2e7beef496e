//! Reads a webhook's body: statuses, messages of people, and everything else.
//!
//! Every list is read element by element from the untouched text, so a malformed element spoils only itself: it is kept
//! as an event that says what is wrong with it. Keys, types, fields and statuses that we do not know are kept and are no
//! error.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    echo,
    lenient::{Elements, Scalar, Soft},
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

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    entry: Elements<'a>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    id: Scalar<'a>,
    #[serde(borrow, default)]
    time: Scalar<'a>,
    #[serde(borrow, default)]
    changes: Elements<'a>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow, default)]
    field: Scalar<'a>,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// The value of the fields that are about people.
#[derive(Deserialize)]
struct Value<'a> {
    #[serde(borrow, default)]
    metadata: Soft<Metadata<'a>>,
    #[serde(borrow, default)]
    contacts: Soft<Vec<Soft<Pair<'a>>>>,
    #[serde(borrow, default)]
    statuses: Elements<'a>,
    #[serde(borrow, default)]
    messages: Elements<'a>,
    #[serde(borrow, default)]
    errors: Elements<'a>,
    #[serde(borrow, default)]
    user_preferences: Elements<'a>,
    #[serde(borrow, default)]
    user_id_update: Elements<'a>,
    #[serde(borrow, default)]
    message_echoes: Elements<'a>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    phone_number_id: Scalar<'a>,
}

/// The two names of one person.
#[derive(Deserialize)]
struct Pair<'a> {
    #[serde(borrow, default)]
    wa_id: Scalar<'a>,
    #[serde(borrow, default)]
    user_id: Scalar<'a>,
}

#[derive(Deserialize)]
struct StatusElement<'a> {
    #[serde(borrow, default)]
    id: Scalar<'a>,
    #[serde(borrow, default)]
    status: Scalar<'a>,
    #[serde(borrow, default)]
    timestamp: Scalar<'a>,
    #[serde(borrow, default)]
    recipient_type: Scalar<'a>,
    #[serde(borrow, default)]
    recipient_id: Scalar<'a>,
    #[serde(borrow, default)]
    recipient_user_id: Scalar<'a>,
    #[serde(borrow, default)]
    biz_opaque_callback_data: Scalar<'a>,
    #[serde(borrow, default)]
    pricing: Soft<Pricing<'a>>,
    #[serde(borrow, default)]
    errors: Soft<Vec<Soft<ErrorElement<'a>>>>,
}

#[derive(Default, Deserialize)]
struct Pricing<'a> {
    #[serde(borrow, default)]
    category: Scalar<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Scalar<'a>,
}

#[derive(Default, Deserialize)]
struct ErrorElement<'a> {
    #[serde(borrow, default)]
    code: Scalar<'a>,
    #[serde(borrow, default)]
    title: Scalar<'a>,
    #[serde(borrow, default)]
    message: Scalar<'a>,
}

#[derive(Deserialize)]
struct Preference<'a> {
    #[serde(borrow, default)]
    wa_id: Scalar<'a>,
    #[serde(borrow, default)]
    user_id: Scalar<'a>,
    #[serde(borrow, default)]
    category: Scalar<'a>,
    #[serde(borrow, default)]
    value: Scalar<'a>,
    #[serde(borrow, default)]
    timestamp: Scalar<'a>,
}

#[derive(Deserialize)]
struct IdUpdate<'a> {
    #[serde(borrow, default)]
    wa_id: Scalar<'a>,
    #[serde(borrow, default)]
    user_id: Soft<IdChange<'a>>,
    #[serde(borrow, default)]
    parent_user_id: Soft<IdChange<'a>>,
}

#[derive(Deserialize)]
struct IdChange<'a> {
    #[serde(borrow, default)]
    previous: Scalar<'a>,
    #[serde(borrow, default)]
    current: Scalar<'a>,
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
            self.same_person(contact.wa_id, contact.user_id, LinkSource::Webhook);
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
            self.same_person(
                element.recipient_id,
                element.recipient_user_id,
                LinkSource::Webhook,
            );
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

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::rules::job::{JobId, Lane};

    fn read_at(body: &str, now: DateTime<Utc>) -> Notices {
        let keywords = Keywords::default();
        let reading = Reading {
            app: "main",
            installation: "inst",
            keywords: &keywords,
            stop_covers: "all",
            now,
        };
        read(body.as_bytes(), &reading)
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_100, 0).unwrap()
    }

    fn read_value(value: &Json) -> Notices {
        read_change(&json!({ "field": "messages", "value": value }))
    }

    fn read_change(change: &Json) -> Notices {
        let body = json!({
            "object": "whatsapp_business_account",
            "entry": [{ "id": "waba", "time": 1_790_000_000, "changes": [change] }],
        });
        read_at(&body.to_string(), now())
    }

    fn status() -> Json {
        json!({
            "id": "wamid.A", "status": "sent", "timestamp": "1790000000", "recipient_id": "905551231234",
            "biz_opaque_callback_data": "pr1.inst.42.1.7.260921",
            "pricing": { "billable": true, "pricing_model": "PMP", "type": "regular", "category": "utility" },
        })
    }

    fn with(mut element: Json, key: &str, value: Json) -> Json {
        element[key] = value;
        element
    }

    #[test]
    fn a_status_is_read_with_its_job_price_and_number() {
        let value = json!({ "metadata": { "phone_number_id": "106" }, "statuses": [status()] });
        let notices = read_value(&value);
        let [receipt] = notices.receipts.try_into().unwrap();
        assert_eq!(receipt.phone_number_id.as_deref(), Some("106"));
        assert_eq!(
            (receipt.provider_id.as_str(), receipt.status.as_str()),
            ("wamid.A", "sent")
        );
        assert_eq!(receipt.at.timestamp(), 1_790_000_000);
        assert_eq!(receipt.pricing_category.as_deref(), Some("utility"));
        assert_eq!(receipt.pricing_type.as_deref(), Some("regular"));
        let about = receipt.about.unwrap();
        assert_eq!(
            (about.job, about.attempt, about.lane),
            (JobId(42), 1, Lane(7))
        );
        assert_eq!(about.day, NaiveDate::from_ymd_opt(2026, 9, 21).unwrap());
        assert_eq!(receipt.raw, status().to_string());
        assert_eq!(notices.events, []);
    }

    #[test]
    fn a_malformed_element_spoils_only_itself() {
        for bad in [
            json!(7),
            json!("sent"),
            json!(null),
            json!([]),
            json!({}),
            json!({ "id": "x" }),
            json!({ "status": {} , "id": []}),
        ] {
            let notices = read_value(&json!({ "statuses": [status(), bad, status()] }));
            assert_eq!(notices.receipts.len(), 2, "{bad}");
            let [event] = notices.events.try_into().unwrap();
            assert!(event.problem.is_some());
            assert_eq!(event.raw, bad.to_string());
        }
    }

    #[test]
    fn a_lone_surrogate_spoils_only_its_own_element() {
        let body = r#"{"entry":[{"changes":[{"field":"messages","value":{"statuses":[
            {"id":"a","status":"sent","recipient_id":"\ud83d"},{"id":"b","status":"sent"}]}}]}]}"#;
        let notices = read_at(body, now());
        assert_eq!((notices.receipts.len(), notices.events.len()), (1, 1));
    }

    #[test]
    fn odd_parts_of_a_status_are_absent_and_the_status_counts() {
        let mut odd = status();
        for (key, value) in [
            ("pricing", json!("free")),
            ("errors", json!({ "code": 1 })),
            ("conversation", json!([])),
            ("timestamp", json!("soon")),
            ("recipient_id", json!({})),
        ] {
            odd = with(odd, key, value);
        }
        let [receipt] = read_value(&json!({ "statuses": [odd] }))
            .receipts
            .try_into()
            .unwrap();
        assert_eq!(receipt.at, now(), "the time of its coming stands in");
        assert_eq!((receipt.pricing_type, receipt.error_code), (None, None));
        assert!(receipt.about.is_some());
    }

    #[test]
    fn codes_and_times_come_as_numbers_and_as_strings() {
        for (code, time) in [
            (json!(132_015), json!(1_790_000_000)),
            (json!("132015"), json!("1790000000")),
            (json!("132015"), json!("1790000000000")),
            (json!(132_015), json!(1_790_000_000_000_i64)),
        ] {
            let failed = with(
                with(status(), "timestamp", time),
                "errors",
                json!([{ "code": code, "title": "Paused" }]),
            );
            let [receipt] = read_value(&json!({ "statuses": [failed] }))
                .receipts
                .try_into()
                .unwrap();
            assert_eq!(receipt.error_code, Some(132_015));
            assert_eq!(receipt.error_title.as_deref(), Some("Paused"));
            assert_eq!(receipt.at.timestamp(), 1_790_000_000);
        }
    }

    #[test]
    fn only_known_statuses_of_our_own_installation_are_about_a_job() {
        let about = |key, value| {
            let element = with(status(), key, json!(value));
            let [receipt] = read_value(&json!({ "statuses": [element] }))
                .receipts
                .try_into()
                .unwrap();
            receipt.about
        };
        assert!(about("status", "played").is_some());
        assert_eq!(about("status", "warning"), None);
        assert_eq!(
            about("biz_opaque_callback_data", "pr1.other.42.1.7.260921"),
            None
        );
        assert_eq!(about("biz_opaque_callback_data", "order-77"), None);
    }

    #[test]
    fn what_is_not_json_or_not_a_webhook_is_kept_as_an_event() {
        for body in [
            "",
            "{",
            "[]",
            "7",
            r#"{"entry":{}}"#,
            r#"{"entry":[7]}"#,
            r#"{"entry":[{"changes":""}]}"#,
        ] {
            let [event] = read_at(body, now()).events.try_into().unwrap();
            assert!(event.problem.is_some(), "{body}");
        }
        let keywords = Keywords::default();
        let reading = Reading {
            app: "main",
            installation: "inst",
            keywords: &keywords,
            stop_covers: "all",
            now: now(),
        };
        assert_eq!(read(b"\xff\0", &reading).events[0].raw, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn what_changes_a_rule_is_told_with_its_account_and_its_time() {
        let change = json!({ "field": "account_update", "value": { "event": "ACCOUNT_DELETED" } });
        let notices = read_change(&change);
        assert_eq!(notices.events, []);
        let [told] = notices.told.try_into().unwrap();
        assert_eq!(
            (told.account.as_str(), told.at.timestamp()),
            ("waba", 1_790_000_000)
        );
        assert_eq!(told.changes.len(), 1);
        assert_eq!(
            (told.event.app.as_str(), told.event.field.as_str()),
            ("main", "account_update")
        );
    }

    #[test]
    fn a_time_that_is_ahead_of_ours_makes_nothing_later_look_old() {
        let change = json!({ "field": "account_update", "value": { "event": "ACCOUNT_DELETED" } });
        for time in [json!(1_790_003_600), json!("soon"), json!(null)] {
            let body = json!({ "entry": [{ "id": "waba", "time": time, "changes": [change] }] });
            let [told] = read_at(&body.to_string(), now()).told.try_into().unwrap();
            assert_eq!(told.at, now(), "{time}");
        }
    }

    #[test]
    fn other_fields_are_kept_whole_with_the_account_they_are_about() {
        let change = json!({ "field": "smb_message_echoes", "value": { "message_echoes": [] } });
        let [event] = read_change(&change).events.try_into().unwrap();
        assert_eq!(
            (event.field.as_str(), event.problem),
            ("smb_message_echoes", None)
        );
        let raw: Json = serde_json::from_str(&event.raw).unwrap();
        assert_eq!(
            raw,
            json!({ "id": "waba", "time": 1_790_000_000, "changes": [change] })
        );
    }

    #[test]
    fn a_person_with_both_addresses_is_linked_and_a_group_is_nobody() {
        let both = with(status(), "recipient_user_id", json!("US.1349"));
        let links = read_value(&json!({ "statuses": [both] })).links;
        let link = Link {
            known: "+905551231234".into(),
            also: "US.1349".into(),
            source: LinkSource::Webhook,
        };
        assert_eq!(links, std::slice::from_ref(&link));
        assert_eq!(
            read_value(&json!({ "contacts": [{ "wa_id": "905551231234", "user_id": "US.1349" }] }))
                .links,
            [link]
        );
        let group = with(both, "recipient_type", json!("group"));
        assert_eq!(read_value(&json!({ "statuses": [group] })).links, []);
        let empty = with(status(), "recipient_user_id", json!(""));
        assert_eq!(read_value(&json!({ "statuses": [empty] })).links, []);
    }

    #[test]
    fn a_changed_id_links_the_old_with_the_new_and_with_the_number() {
        let update = json!({ "wa_id": "905551231234", "user_id": { "previous": "US.1", "current": "US.2" },
                             "parent_user_id": { "previous": "US.ENT.1", "current": "US.ENT.2" } });
        let links = read_change(
            &json!({ "field": "user_id_update", "value": { "user_id_update": [update] } }),
        )
        .links;
        assert_eq!(
            links
                .iter()
                .map(|l| (l.known.as_str(), l.also.as_str()))
                .collect::<Vec<_>>(),
            [
                ("US.1", "US.2"),
                ("+905551231234", "US.2"),
                ("US.ENT.1", "US.ENT.2"),
                ("+905551231234", "US.ENT.2"),
            ]
        );
    }

    #[test]
    fn stopping_marketing_in_the_app_is_heeded_for_marketing() {
        let preference = |value: &str| {
            let element = json!({ "wa_id": "905551231234", "category": "marketing_messages", "value": value,
                                  "timestamp": 1_790_000_000 });
            let value = json!({ "user_preferences": [element, 7] });
            read_change(&json!({ "field": "user_preferences", "value": value }))
        };
        let notices = preference("stop");
        let [wish] = notices.wishes.try_into().unwrap();
        assert_eq!(
            (wish.key.as_str(), wish.scope.as_str(), wish.given),
            ("+905551231234", "marketing", false)
        );
        assert_eq!(
            notices.events.len(),
            2,
            "the change itself, and the element that is none"
        );
        assert!(preference("resume").wishes[0].given);
        assert_eq!(preference("perhaps").wishes, []);
    }

    #[test]
    fn a_thousand_updates_are_read() {
        let statuses: Vec<Json> = (0..1_000)
            .map(|n| with(status(), "id", json!(format!("wamid.{n}"))))
            .collect();
        assert_eq!(
            read_value(&json!({ "statuses": statuses })).receipts.len(),
            1_000
        );
    }
}
