//! Reads one message of a person: what they wrote, what it answers, and whether it is a STOP.

use std::borrow::Cow;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    lenient::{Scalar, Soft},
    payload::{Reader, address_key},
};
use crate::{
    rules::keywords::Meaning,
    store::{
        inbound::Inbound,
        people::{LinkSource, Wish},
    },
};

#[derive(Deserialize)]
struct Element<'a> {
    #[serde(borrow, default)]
    id: Scalar<'a>,
    #[serde(borrow, default)]
    from: Scalar<'a>,
    #[serde(borrow, default)]
    from_user_id: Scalar<'a>,
    #[serde(borrow, default)]
    from_parent_user_id: Scalar<'a>,
    #[serde(borrow, default)]
    timestamp: Scalar<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Scalar<'a>,
    #[serde(borrow, default)]
    group_id: Scalar<'a>,
    #[serde(borrow, default)]
    context: Soft<Context<'a>>,
    #[serde(borrow, default)]
    referral: Option<&'a RawValue>,
    #[serde(borrow, default)]
    system: Soft<System<'a>>,
    #[serde(borrow, default)]
    text: Soft<Part<'a>>,
    #[serde(borrow, default)]
    button: Soft<Part<'a>>,
    #[serde(borrow, default)]
    interactive: Soft<Interactive<'a>>,
    #[serde(borrow, default)]
    reaction: Soft<Part<'a>>,
    #[serde(borrow, default)]
    image: Soft<Part<'a>>,
    #[serde(borrow, default)]
    video: Soft<Part<'a>>,
    #[serde(borrow, default)]
    document: Soft<Part<'a>>,
}

#[derive(Deserialize)]
struct Context<'a> {
    #[serde(borrow, default)]
    id: Scalar<'a>,
}

#[derive(Deserialize)]
struct System<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Scalar<'a>,
    #[serde(borrow, default)]
    wa_id: Scalar<'a>,
    #[serde(borrow, default)]
    user_id: Scalar<'a>,
}

#[derive(Deserialize)]
struct Interactive<'a> {
    #[serde(borrow, default)]
    button_reply: Soft<Part<'a>>,
    #[serde(borrow, default)]
    list_reply: Soft<Part<'a>>,
    #[serde(borrow, default)]
    nfm_reply: Soft<Part<'a>>,
}

/// The words of a message stand under different keys, by its type.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Part<'a> {
    #[serde(borrow)]
    body: Scalar<'a>,
    #[serde(borrow)]
    text: Scalar<'a>,
    #[serde(borrow)]
    title: Scalar<'a>,
    #[serde(borrow)]
    caption: Scalar<'a>,
    #[serde(borrow)]
    emoji: Scalar<'a>,
    #[serde(borrow)]
    payload: Scalar<'a>,
    #[serde(borrow)]
    id: Scalar<'a>,
    #[serde(borrow)]
    response_json: Scalar<'a>,
    #[serde(borrow)]
    message_id: Scalar<'a>,
}

impl Part<'_> {
    fn words(&mut self) -> Option<String> {
        let places = [
            &mut self.body,
            &mut self.text,
            &mut self.title,
            &mut self.caption,
            &mut self.emoji,
        ];
        places
            .into_iter()
            .find_map(|place| std::mem::take(place).owned())
    }

    /// What the business put behind a button, or what a form was filled in with.
    fn payload(&mut self) -> Option<String> {
        let places = [&mut self.payload, &mut self.response_json, &mut self.id];
        places
            .into_iter()
            .find_map(|place| std::mem::take(place).owned())
    }
}

/// Adds a message, what it wants and whom it links to what `reader` has. Says what is wrong with one that cannot be kept.
pub(super) fn read(
    reader: &mut Reader<'_>,
    number: Option<&str>,
    raw: &RawValue,
) -> Result<(), String> {
    let mut element: Element<'_> =
        serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    let provider_id = std::mem::take(&mut element.id)
        .owned()
        .ok_or("a message without id")?;
    let sender_key = writer(&element).ok_or("a message without a writer")?;
    let at = reader.time(&element.timestamp);
    let kind = element
        .kind
        .clone()
        .owned()
        .unwrap_or_else(|| "unknown".to_owned());
    link(reader, &element);
    let opens_window = opens_window(&kind, &element);
    let referral = element.referral.and_then(storable);
    let context_id = element
        .context
        .0
        .take()
        .and_then(|context| context.id.owned());
    let mut part = part(element);
    let message = Inbound {
        provider_id,
        at,
        phone_number_id: number.unwrap_or_default().to_owned(),
        sender_key,
        kind,
        body: part.words(),
        payload: part.payload(),
        context_id: context_id.or_else(|| part.message_id.owned()),
        referral,
        raw: raw.get().to_owned(),
        opens_window,
    };
    reader.notices.wishes.extend(wish(reader, &message));
    reader.notices.inbound.push(message);
    Ok(())
}

/// The phone number, unless they hide it; an id in a form that we do not know is kept as it is.
fn writer(element: &Element<'_>) -> Option<String> {
    let user = element.from_user_id.clone();
    let id = element.from.clone().or(user).text()?;
    Some(address_key(&id).unwrap_or_else(|| id.into_owned()))
}

fn link(reader: &mut Reader<'_>, element: &Element<'_>) {
    let (from, user) = (&element.from, &element.from_user_id);
    let parent = &element.from_parent_user_id;
    reader.one_person(from.clone(), user.clone(), parent.clone());
    let Some(system) = &element.system.0 else {
        return;
    };
    match system.kind.clone().text().as_deref() {
        // Older ones say `user_changed_number` in the words only, but always name the new number.
        Some("user_changed_number" | "customer_changed_number") => {
            reader.same_person(from.clone(), system.wa_id.clone(), LinkSource::NumberChange);
        }
        Some("user_changed_user_id") => {
            reader.same_person(user.clone(), system.user_id.clone(), LinkSource::IdChange);
        }
        _ => {}
    }
}

/// What a person writes to the number opens its window. A reaction or a change to an earlier message may not, so it does
/// not: to think a window shut that is open costs less than the opposite.
fn opens_window(kind: &str, element: &Element<'_>) -> bool {
    let is_writing = !matches!(
        kind,
        "system" | "reaction" | "edit" | "revoke" | "request_welcome"
    );
    is_writing && element.group_id == Scalar::Nothing
}

fn part(element: Element<'_>) -> Part<'_> {
    let Element {
        text,
        button,
        interactive,
        reaction,
        image,
        video,
        document,
        ..
    } = element;
    let interactive = interactive
        .0
        .and_then(|i| i.button_reply.0.or(i.list_reply.0).or(i.nfm_reply.0));
    let media = image.0.or(video.0).or(document.0).map(|media| Part {
        id: Scalar::Nothing,
        ..media
    });
    text.0
        .or(button.0)
        .or(interactive)
        .or(reaction.0)
        .or(media)
        .unwrap_or_default()
}

/// Postgres refuses in JSON what it refuses in text; the raw element has it anyway.
fn storable(raw: &RawValue) -> Option<serde_json::Value> {
    serde_json::from_str(raw.get())
        .ok()
        .filter(|_| !raw.get().contains("\\u0000"))
}

/// Whether they want no more, or want it again.
fn wish(reader: &Reader<'_>, message: &Inbound) -> Option<Wish> {
    let keywords = reader.reading.keywords;
    let tapped = message
        .payload
        .as_deref()
        .and_then(|payload| keywords.button_meaning(payload));
    let meaning = tapped.or_else(|| keywords.meaning(message.body.as_deref()?))?;
    let (given, scope, at) = match meaning {
        Meaning::Stop => (false, reader.reading.stop_covers, end_of_second(message.at)),
        Meaning::Start => (true, "all", message.at),
    };
    let said = message
        .body
        .as_deref()
        .or(message.payload.as_deref())
        .map(Cow::from);
    let evidence = Some(json!({ "message": message.provider_id, "text": said }));
    let (key, scope) = (message.sender_key.clone(), scope.to_owned());
    Some(Wish {
        key,
        scope,
        given,
        at,
        source: "whatsapp",
        evidence,
    })
}

/// The provider tells whole seconds. Within one second the opt-out is taken to be the last word.
fn end_of_second(at: DateTime<Utc>) -> DateTime<Utc> {
    at + TimeDelta::microseconds(999_999)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        http::payload::{Notices, Reading, read},
        rules::keywords::Keywords,
    };

    fn heard(message: &Value) -> Notices {
        heard_with(message, "all", &[])
    }

    fn heard_with(message: &Value, stop_covers: &str, opt_out_payloads: &[&str]) -> Notices {
        let payloads: Vec<String> = opt_out_payloads.iter().map(ToString::to_string).collect();
        let reading = Reading {
            app: "main",
            installation: "inst",
            keywords: &Keywords::new(&crate::rules::keywords::default_words(), &payloads),
            stop_covers,
            now: DateTime::from_timestamp(1_790_000_100, 0).unwrap(),
        };
        let mut whole =
            json!({ "from": "905551231234", "id": "wamid.I", "timestamp": "1790000000" });
        whole
            .as_object_mut()
            .unwrap()
            .extend(message.as_object().unwrap().clone());
        let value = json!({ "metadata": { "phone_number_id": "106" }, "messages": [whole] });
        let body = json!({ "entry": [{ "changes": [{ "field": "messages", "value": value }] }] });
        read(body.to_string().as_bytes(), &reading)
    }

    fn only(message: &Value) -> Inbound {
        let notices = heard(message);
        assert_eq!(notices.events, []);
        let [inbound] = notices.inbound.try_into().unwrap();
        inbound
    }

    #[test]
    fn words_are_found_wherever_the_type_puts_them() {
        for (message, words, payload) in [
            (
                json!({ "type": "text", "text": { "body": "hi" } }),
                Some("hi"),
                None,
            ),
            (
                json!({ "type": "button", "button": { "text": "Yes", "payload": "yes-1" } }),
                Some("Yes"),
                Some("yes-1"),
            ),
            (
                json!({ "type": "interactive", "interactive": { "type": "button_reply", "button_reply": { "id": "b1", "title": "One" } } }),
                Some("One"),
                Some("b1"),
            ),
            (
                json!({ "type": "interactive", "interactive": { "list_reply": { "id": "l1", "title": "Two", "description": "x" } } }),
                Some("Two"),
                Some("l1"),
            ),
            (
                json!({ "type": "interactive", "interactive": { "nfm_reply": { "name": "flow", "body": "Sent", "response_json": "{}" } } }),
                Some("Sent"),
                Some("{}"),
            ),
            (
                json!({ "type": "image", "image": { "id": "m1", "caption": "look" } }),
                Some("look"),
                None,
            ),
            (json!({ "type": "image", "image": "odd" }), None, None),
            (
                json!({ "type": "unsupported", "errors": [{ "code": 131_051 }] }),
                None,
                None,
            ),
        ] {
            let inbound = only(&message);
            assert_eq!(
                (inbound.body.as_deref(), inbound.payload.as_deref()),
                (words, payload),
                "{message}"
            );
            assert!(inbound.opens_window);
        }
    }

    #[test]
    fn what_it_answers_is_in_the_context_or_in_the_reaction() {
        let answer =
            json!({ "type": "text", "text": { "body": "ok" }, "context": { "id": "wamid.O" } });
        assert_eq!(only(&answer).context_id.as_deref(), Some("wamid.O"));
        let reaction =
            json!({ "type": "reaction", "reaction": { "message_id": "wamid.O", "emoji": "👍" } });
        let inbound = only(&reaction);
        assert_eq!(
            (inbound.context_id.as_deref(), inbound.body.as_deref()),
            (Some("wamid.O"), Some("👍"))
        );
        assert!(!inbound.opens_window);
    }

    #[test]
    fn who_hides_the_number_is_known_by_the_id() {
        let hidden = json!({ "from": "", "from_user_id": "US.1349", "type": "text", "text": { "body": "hi" } });
        assert_eq!(only(&hidden).sender_key, "US.1349");
        let nobody = json!({ "from": "", "type": "text" });
        assert_eq!(heard(&nobody).events.len(), 1);
    }

    #[test]
    fn the_writers_key_is_canonical() {
        assert_eq!(
            only(&json!({ "from": "5511987654321" })).sender_key,
            "+551187654321"
        );
        assert_eq!(
            only(&json!({ "from": "5215512345678" })).sender_key,
            "+525512345678"
        );
    }

    #[test]
    fn stop_opts_out_of_what_it_covers_and_start_opts_in() {
        let stop = json!({ "type": "text", "text": { "body": "Stop!" } });
        let [wish] = heard_with(&stop, "marketing", &[])
            .wishes
            .try_into()
            .unwrap();
        assert_eq!(
            (wish.given, wish.scope.as_str(), wish.key.as_str()),
            (false, "marketing", "+905551231234")
        );
        assert!(
            wish.at > DateTime::from_timestamp(1_790_000_000, 0).unwrap(),
            "the whole second is theirs"
        );
        let start = json!({ "type": "text", "text": { "body": "start" } });
        let [wish] = heard(&start).wishes.try_into().unwrap();
        assert_eq!((wish.given, wish.scope.as_str()), (true, "all"));
    }

    #[test]
    fn a_tapped_button_stops_by_its_payload_or_by_its_label() {
        let tap = |text: &str, payload: &str| json!({ "type": "button", "button": { "text": text, "payload": payload } });
        assert_eq!(
            heard_with(&tap("No thanks", "BYE-7"), "all", &["BYE-7"])
                .wishes
                .len(),
            1
        );
        assert_eq!(heard_with(&tap("STOP", "STOP"), "all", &[]).wishes.len(), 1);
        assert_eq!(
            heard_with(&tap("No thanks", "BYE-7"), "all", &[]).wishes,
            []
        );
    }

    #[test]
    fn a_changed_number_links_the_new_to_the_old() {
        let system =
            json!({ "type": "user_changed_number", "wa_id": "905559990000", "body": "changed" });
        let notices = heard(&json!({ "type": "system", "system": system }));
        let [link] = notices.links.try_into().unwrap();
        assert_eq!(
            (link.known.as_str(), link.also.as_str()),
            ("+905551231234", "+905559990000")
        );
        assert_eq!(link.source, LinkSource::NumberChange);
        assert!(!notices.inbound[0].opens_window);
    }

    #[test]
    fn what_json_columns_refuse_is_left_to_the_raw_text() {
        let referral =
            |headline: &str| only(&json!({ "referral": { "headline": headline } })).referral;
        assert!(referral("Sale").is_some());
        assert_eq!(referral("a\0b"), None);
    }
}
