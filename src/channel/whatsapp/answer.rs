//! Reads the answer to a send. Shapes drift (WHATSAPP.md 2.1), so all but the message's id and the error's code may be
//! missing or of another type; a message that was taken must not become unknown over a field that we only note down.

use std::{borrow::Cow, time::Duration};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::rules::outcome::{Answer, ProviderError};

/// The provider's words are kept, but not whole essays of them.
const LONGEST_TEXT: usize = 1000;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    contacts: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    message_status: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Contact<'a> {
    #[serde(borrow)]
    wa_id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
}

/// What the provider said. `retry_after` comes from the headers.
pub(super) fn read(http_status: u16, body: &[u8], retry_after: Option<Duration>) -> Answer {
    let no_answer = |detail: &str| Answer::NoAnswer {
        http_status: Some(http_status),
        detail: detail.to_owned(),
    };
    let Ok(body) = serde_json::from_slice::<Body<'_>>(body) else {
        return no_answer("the answer is not JSON of the expected shape");
    };
    if let Some(error) = body
        .error
        .and_then(|error| coded_error(error, http_status, retry_after))
    {
        return Answer::Error(error);
    }
    if !(200..300).contains(&http_status) {
        return no_answer("an error without a code");
    }
    accepted(&body).unwrap_or_else(|| no_answer("the answer has no message id"))
}

fn accepted(body: &Body<'_>) -> Option<Answer> {
    let message = first::<Message<'_>>(body.messages).filter(|message| !message.id.is_empty())?;
    let contact = first::<Contact<'_>>(body.contacts);
    Some(Answer::Accepted {
        provider_id: storable(&message.id),
        held: message.message_status.is_some_and(is_held),
        wa_id: contact.as_ref().and_then(|contact| text(contact.wa_id)),
        user_id: contact.as_ref().and_then(|contact| text(contact.user_id)),
    })
}

/// Taken, and released or dropped later.
fn is_held(status: &RawValue) -> bool {
    matches!(
        status.get(),
        r#""held_for_quality_assessment""# | r#""paused""#
    )
}

fn first<'a, T: Deserialize<'a>>(list: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str::<Vec<T>>(list?.get())
        .ok()?
        .into_iter()
        .next()
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str::<String>(raw?.get())
        .ok()
        .filter(|text| !text.is_empty())
        .map(|text| storable(&text))
}

/// The error, if it has a code. Errors are rare enough to be read the slow and patient way.
pub(in crate::channel) fn coded_error(
    raw: &RawValue,
    http_status: u16,
    retry_after: Option<Duration>,
) -> Option<ProviderError> {
    let error: Value = serde_json::from_str(raw.get()).ok()?;
    let details = match &error["error_data"] {
        Value::String(text) => Some(text.as_str()),
        data => data["details"].as_str(),
    };
    let words = |key: &str| error[key].as_str();
    Some(ProviderError {
        code: integer(&error["code"])?,
        subcode: integer(&error["error_subcode"]),
        http_status,
        title: clip(
            words("message")
                .or(words("error_user_title"))
                .unwrap_or_default(),
        ),
        detail: clip(details.or(words("error_user_msg")).unwrap_or_default()),
        is_transient: error["is_transient"].as_bool().unwrap_or(false),
        retry_after,
    })
}

/// An integer, also one that is printed as a string.
fn integer(value: &Value) -> Option<i32> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        value => i32::try_from(value.as_i64()?).ok(),
    }
}

fn clip(text: &str) -> String {
    storable(text).chars().take(LONGEST_TEXT).collect()
}

/// Postgres keeps no NUL in a text, and an outcome that cannot be written would keep all others of its batch from it.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(http_status: u16, body: &str) -> Answer {
        read(http_status, body.as_bytes(), None)
    }

    #[test]
    fn what_postgres_cannot_keep_is_replaced() {
        let taken = of(200, r#"{"messages": [{"id": "wamid.\u0000"}]}"#);
        assert!(
            matches!(&taken, Answer::Accepted { provider_id, .. } if provider_id == "wamid.\u{fffd}"),
            "{taken:?}"
        );
        let refused = error_of(r#"{"error": {"code": 131000, "message": "a\u0000b"}}"#);
        assert_eq!(refused.title, "a\u{fffd}b");
    }

    fn error_of(body: &str) -> ProviderError {
        match of(400, body) {
            Answer::Error(error) => error,
            other => panic!("{other:?}"),
        }
    }

    fn is_silence(answer: &Answer, status: u16) -> bool {
        matches!(answer, Answer::NoAnswer { http_status: Some(it), .. } if *it == status)
    }

    #[test]
    fn an_accepted_message_brings_its_id_and_the_address_that_was_meant() {
        let answer = of(
            200,
            r#"{"messaging_product":"whatsapp","contacts":[{"input":"+16505551234","wa_id":"16505551234"}],
                "messages":[{"id":"wamid.HBg=","message_status":"accepted"}]}"#,
        );
        let expected = Answer::Accepted {
            provider_id: "wamid.HBg=".into(),
            held: false,
            wa_id: Some("16505551234".into()),
            user_id: None,
        };
        assert_eq!(answer, expected);
    }

    #[test]
    fn a_held_message_is_held_and_a_missing_status_is_not() {
        let held = |message: &str| {
            matches!(
                of(200, &format!(r#"{{"messages":[{message}]}}"#)),
                Answer::Accepted { held: true, .. }
            )
        };
        assert!(held(
            r#"{"id":"w","message_status":"held_for_quality_assessment"}"#
        ));
        assert!(held(r#"{"id":"w","message_status":"paused"}"#));
        assert!(!held(r#"{"id":"w"}"#));
        assert!(!held(r#"{"id":"w","message_status":7}"#));
    }

    #[test]
    fn odd_contacts_do_not_make_a_taken_message_unknown() {
        for contacts in [
            "null",
            "{}",
            "[]",
            "7",
            r#"[{"wa_id":16505551234}]"#,
            r#"[{"wa_id":""}]"#,
        ] {
            let answer = of(
                200,
                &format!(r#"{{"contacts":{contacts},"messages":[{{"id":"w"}}]}}"#),
            );
            assert!(
                matches!(answer, Answer::Accepted { wa_id: None, .. }),
                "{contacts}: {answer:?}"
            );
        }
    }

    #[test]
    fn a_message_to_a_business_scoped_id_brings_it_back() {
        let answer = of(
            200,
            r#"{"contacts":[{"input":"US.1","user_id":"US.1"}],"messages":[{"id":"w\u002f"}]}"#,
        );
        let Answer::Accepted {
            provider_id,
            user_id,
            ..
        } = answer
        else {
            panic!("{answer:?}")
        };
        assert_eq!(
            (provider_id.as_str(), user_id.as_deref()),
            ("w/", Some("US.1"))
        );
    }

    #[test]
    fn a_200_without_an_id_is_no_answer() {
        for body in [
            "",
            "{}",
            r#"{"messages":[]}"#,
            r#"{"messages":[{}]}"#,
            r#"{"messages":[{"id":""}]}"#,
            "<html>",
        ] {
            assert!(is_silence(&of(200, body), 200), "{body}");
        }
    }

    #[test]
    fn an_error_keeps_code_subcode_and_words() {
        let error = error_of(
            r#"{"error":{"message":"(#131056) pair","type":"OAuthException","code":131056,"error_subcode":2494055,
                "error_data":{"messaging_product":"whatsapp","details":"Too many"},"is_transient":true}}"#,
        );
        assert_eq!(
            (error.code, error.subcode, error.is_transient),
            (131_056, Some(2_494_055), true)
        );
        assert_eq!(
            (error.title.as_str(), error.detail.as_str()),
            ("(#131056) pair", "Too many")
        );
    }

    #[test]
    fn error_data_may_be_a_string_or_missing_and_codes_may_be_strings() {
        let error =
            error_of(r#"{"error":{"code":"132015","error_data":"paused","error_subcode":"33"}}"#);
        assert_eq!(
            (error.code, error.subcode, error.detail.as_str()),
            (132_015, Some(33), "paused")
        );
        let bare = error_of(r#"{"error":{"code":1}}"#);
        assert_eq!((bare.title.as_str(), bare.detail.as_str()), ("", ""));
    }

    #[test]
    fn errors_without_a_usable_code_are_no_answer() {
        for body in [
            r#"{"error":{"message":"x"}}"#,
            r#"{"error":"x"}"#,
            r#"{"error":{"code":99999999999}}"#,
            "Bad Gateway",
        ] {
            assert!(is_silence(&of(500, body), 500), "{body}");
        }
    }

    #[test]
    fn an_error_is_an_error_whatever_the_status() {
        for status in [200, 400, 500] {
            assert!(
                matches!(of(status, r#"{"error":{"code":131000}}"#), Answer::Error(_)),
                "{status}"
            );
        }
    }

    #[test]
    fn long_words_are_clipped_between_characters() {
        let body = format!(
            r#"{{"error":{{"code":1,"message":"{}"}}}}"#,
            "é".repeat(5000)
        );
        assert_eq!(error_of(&body).title.chars().count(), LONGEST_TEXT);
    }
}
