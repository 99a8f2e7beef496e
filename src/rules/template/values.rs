//! Reads single values of a job's parameters and checks what can be told without the template: kind, blanks, links, numbers.
//!
//! A method that gives `None` has added its problem already; the caller still counts the place as given.

use serde_json::{Map, Value};

use super::{
    MediaKind, Problems, Whitespace,
    wire::{Currency, DateTime, Location, Media, ParameterValue, Source},
};

const AUDIO: &str = "WhatsApp templates cannot carry audio; send it as a free-form message in an open service window, or link to it";

/// Reads values, and collects what is wrong with them.
pub(super) struct Reader {
    whitespace: Whitespace,
    pub(super) problems: Problems,
}

impl Reader {
    pub(super) fn new(whitespace: Whitespace) -> Self {
        Reader {
            whitespace,
            problems: Problems::default(),
        }
    }

    /// Adds a problem, and is the `None` of whoever found it.
    pub(super) fn problem<T>(&mut self, place: &str, what: impl Into<String>) -> Option<T> {
        self.problems.add(place, what);
        None
    }

    /// A text that the recipient reads, or a whole number, which reads the same in every language.
    pub(super) fn text(&mut self, place: &str, value: Value) -> Option<String> {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            Value::Number(_) => {
                return self.problem(
                    place,
                    "is a fraction; give it as text, the way the recipient should read it",
                );
            }
            other => {
                return self.problem(
                    place,
                    format!("expected a text, received {}", name_of(&other)),
                );
            }
        };
        let text = match self.whitespace {
            _ if !has_refused_blanks(&text) => text,
            Whitespace::Collapse => collapse(&text),
            Whitespace::Refuse => {
                return self.problem(place, "has a line break, a tab or more than four blanks in a row, which the provider refuses");
            }
        };
        if text.trim().is_empty() {
            self.problem(place, "is empty, which the provider refuses")
        } else {
            Some(text)
        }
    }

    pub(super) fn object(&mut self, place: &str, value: Value) -> Option<Map<String, Value>> {
        match value {
            Value::Object(fields) => Some(fields),
            other => self.problem(
                place,
                format!("expected an object, received {}", name_of(&other)),
            ),
        }
    }

    pub(super) fn list(&mut self, place: &str, value: Value) -> Option<Vec<Value>> {
        match value {
            Value::Array(items) => Some(items),
            other => self.problem(
                place,
                format!("expected a list, received {}", name_of(&other)),
            ),
        }
    }

    /// Whatever is left of an object after its known fields were taken is a mistake somebody wants to hear of.
    pub(super) fn nothing_else(&mut self, place: &str, rest: &Map<String, Value>) {
        for key in rest.keys() {
            let what = if key == "audio" {
                AUDIO.to_owned()
            } else {
                format!("`{key}` is not known here")
            };
            self.problems.add(place, what);
        }
    }

    /// A value whose kind is named: `"text"`, `"currency"`, `"image"`, ...
    pub(super) fn of_kind(
        &mut self,
        place: &str,
        kind: &str,
        value: Value,
    ) -> Option<ParameterValue> {
        match kind {
            "text" => self
                .text(place, value)
                .map(|text| ParameterValue::Text { text }),
            "currency" => self
                .currency(place, value)
                .map(|currency| ParameterValue::Currency { currency }),
            "date_time" => self
                .date_time(place, value)
                .map(|date_time| ParameterValue::DateTime { date_time }),
            "location" => self
                .location(place, value)
                .map(|location| ParameterValue::Location { location }),
            "audio" => self.problem(place, AUDIO),
            other => match MediaKind::ALL
                .into_iter()
                .find(|media| media.as_str() == other)
            {
                Some(media) => self
                    .media(place, media, value)
                    .map(|file| ParameterValue::media(media, file)),
                None => self.problem(
                    place,
                    format!("`{other}` is not a kind of parameter that Postrider sends"),
                ),
            },
        }
    }

    fn currency(&mut self, place: &str, value: Value) -> Option<Currency> {
        let mut fields = self.object(place, value)?;
        let fallback_value = self.fallback(place, &mut fields);
        let code = match fields.remove("code") {
            Some(Value::String(code))
                if code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()) =>
            {
                Some(code)
            }
            _ => self.problem(
                place,
                "`code` must be a currency in three capital letters, for example TRY",
            ),
        };
        let amount = match fields
            .remove("amount_1000")
            .as_ref()
            .and_then(Value::as_i64)
        {
            None => self.problem(
                place,
                "`amount_1000` must be a whole number: the amount times 1000",
            ),
            amount => amount,
        };
        self.nothing_else(place, &fields);
        Some(Currency {
            fallback_value: fallback_value?,
            code: code?,
            amount_1000: amount?,
        })
    }

    fn date_time(&mut self, place: &str, value: Value) -> Option<DateTime> {
        let mut fields = self.object(place, value)?;
        let fallback_value = self.fallback(place, &mut fields);
        self.nothing_else(place, &fields);
        Some(DateTime {
            fallback_value: fallback_value?,
        })
    }

    /// `fallback` in our form, `fallback_value` in the provider's.
    fn fallback(&mut self, place: &str, fields: &mut Map<String, Value>) -> Option<String> {
        match fields
            .remove("fallback")
            .or_else(|| fields.remove("fallback_value"))
        {
            Some(value) => self.text(place, value),
            None => self.problem(
                place,
                "`fallback` is missing: the text that the recipient reads",
            ),
        }
    }

    fn media(&mut self, place: &str, kind: MediaKind, value: Value) -> Option<Media> {
        let mut fields = self.object(place, value)?;
        let source = self.source(place, fields.remove("id"), fields.remove("link"));
        let filename = match fields.remove("filename") {
            None | Some(Value::Null) => None,
            Some(_) if kind != MediaKind::Document => {
                self.problem(place, "only a document has a `filename`")
            }
            Some(value) => self.text(place, value),
        };
        self.nothing_else(place, &fields);
        Some(Media {
            source: source?,
            filename,
        })
    }

    fn source(&mut self, place: &str, id: Option<Value>, link: Option<Value>) -> Option<Source> {
        match (
            id.filter(|id| !id.is_null()),
            link.filter(|link| !link.is_null()),
        ) {
            (Some(id), None) => self.text(place, id).map(Source::Id),
            (None, Some(Value::String(link))) if is_https(&link) => Some(Source::Link(link)),
            (None, Some(_)) => {
                self.problem(place, "`link` must be an https:// address without blanks")
            }
            (None, None) => self.problem(place, "has neither `id` nor `link`"),
            (Some(_), Some(_)) => self.problem(place, "has both `id` and `link`; give one"),
        }
    }

    fn location(&mut self, place: &str, value: Value) -> Option<Location> {
        let mut fields = self.object(place, value)?;
        let latitude = self.degrees(place, "latitude", 90.0, fields.remove("latitude"));
        let longitude = self.degrees(place, "longitude", 180.0, fields.remove("longitude"));
        let mut optional = |key: &str| {
            let value = fields.remove(key).filter(|value| !value.is_null());
            value.and_then(|value| self.text(place, value))
        };
        let (name, address) = (optional("name"), optional("address"));
        self.nothing_else(place, &fields);
        Some(Location {
            latitude: latitude?,
            longitude: longitude?,
            name,
            address,
        })
    }

    /// A number, or a number in quotes, as the provider's own examples have it.
    fn degrees(&mut self, place: &str, key: &str, limit: f64, value: Option<Value>) -> Option<f64> {
        let number = match value {
            Some(Value::String(text)) => text.parse().ok(),
            other => other.and_then(|value| value.as_f64()),
        };
        match number.filter(|number| (-limit..=limit).contains(number)) {
            None => self.problem(
                place,
                format!("`{key}` must be a number from -{limit} to {limit}"),
            ),
            number => number,
        }
    }
}

impl ParameterValue {
    fn media(kind: MediaKind, file: Media) -> Self {
        match kind {
            MediaKind::Image => ParameterValue::Image { image: file },
            MediaKind::Video => ParameterValue::Video { video: file },
            MediaKind::Document => ParameterValue::Document { document: file },
            MediaKind::Gif => ParameterValue::Gif { gif: file },
        }
    }
}

/// What a JSON value is, for sentences; never the value itself.
pub(in crate::rules) fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

pub(in crate::rules) fn is_https(link: &str) -> bool {
    let host = link
        .strip_prefix("https://")
        .and_then(|rest| rest.split(['/', '?', '#']).next());
    host.is_some_and(|host| !host.is_empty())
        && !link.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_break(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Newlines, tabs and more than four blanks in a row (Meta, error 132018 and its threads).
fn has_refused_blanks(text: &str) -> bool {
    let mut blanks = 0;
    text.chars().any(|c| {
        blanks = if c.is_whitespace() { blanks + 1 } else { 0 };
        is_break(c) || blanks > 4
    })
}

/// Makes one blank of every refused run, and nothing of one at an end.
fn collapse(text: &str) -> String {
    let mut collapsed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(char::is_whitespace) {
        let (word, blanks_on) = rest.split_at(start);
        let end = blanks_on
            .find(|c: char| !c.is_whitespace())
            .unwrap_or(blanks_on.len());
        let (blanks, after) = blanks_on.split_at(end);
        collapsed.push_str(word);
        if !has_refused_blanks(blanks) {
            collapsed.push_str(blanks);
        } else if !collapsed.is_empty() && !after.is_empty() {
            collapsed.push(' ');
        }
        rest = after;
    }
    collapsed.push_str(rest);
    collapsed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refused_blanks_become_one() {
        let cases = [
            ("Ada\nLovelace", "Ada Lovelace"),
            ("a\t b\r\n\r\nc", "a b c"),
            ("a     b", "a b"),
            ("a    b", "a    b"),
            ("\n a \n", "a"),
            (" a ", " a "),
            ("a\u{2028}b", "a b"),
        ];
        for (text, expected) in cases {
            assert_eq!(collapse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_link_is_https_and_in_one_piece() {
        assert!(is_https("https://example.com/a.pdf?b=1"));
        for link in [
            "http://example.com/a",
            "https://",
            "https:///a",
            "https://example.com/a b",
            "ftp://x",
            "example.com",
        ] {
            assert!(!is_https(link), "{link}");
        }
    }

    proptest! {
        #[test]
        fn what_was_collapsed_is_not_refused(text in "[a-c \\n\\t\u{2028}]{0,24}") {
            let collapsed = collapse(&text);
            prop_assert!(!has_refused_blanks(&collapsed));
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&collapsed), letters(&text));
        }
    }
}
