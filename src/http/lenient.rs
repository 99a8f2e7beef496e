//! JSON read with good will: the provider writes the same thing as a number here and as a string there, and adds and
//! renames keys as it likes. What does not fit is absent; it never spoils what stands beside it.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// A string, a number or nothing. Objects, lists and booleans are nothing.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    #[default]
    Nothing,
    Text(Cow<'a, str>),
    Number(i64),
}

impl<'a> Scalar<'a> {
    /// As text; the provider means the same by an empty text as by none. Postgres keeps no NUL in a text.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Scalar::Text(text) if text.is_empty() => None,
            Scalar::Text(text) if text.contains('\0') => {
                Some(text.replace('\0', "\u{fffd}").into())
            }
            Scalar::Text(text) => Some(text),
            Scalar::Number(number) => Some(number.to_string().into()),
            Scalar::Nothing => None,
        }
    }

    /// This one, or the other when this says nothing.
    pub(super) fn or(self, other: Self) -> Self {
        match self {
            Scalar::Nothing => other,
            Scalar::Text(text) if text.is_empty() => other,
            said => said,
        }
    }

    /// As text of its own.
    pub(super) fn owned(self) -> Option<String> {
        self.text().map(Cow::into_owned)
    }

    /// As a number.
    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Scalar::Text(text) => text.trim().parse().ok(),
            Scalar::Number(number) => Some(*number),
            Scalar::Nothing => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Scalar::Nothing, Scalar::Number))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "times and codes are far below 2^53, and a cast saturates"
    )]
    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number as i64))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }
}

/// A part that is there when it has the expected shape, and absent when not.
#[derive(Debug)]
pub(super) struct Soft<T>(pub(super) Option<T>);

impl<T> Default for Soft<T> {
    fn default() -> Self {
        Soft(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Soft<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?;
        Ok(Soft(serde_json::from_str(raw.get()).ok()))
    }
}

/// A list of elements that are read one by one, so that each can only spoil itself.
#[derive(Debug, Default)]
pub(super) enum Elements<'a> {
    #[default]
    Absent,
    List(Vec<&'a RawValue>),
    /// Something is there, but it is no list.
    Odd,
}

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementsVisitor)
    }
}

struct ElementsVisitor;

impl<'de> Visitor<'de> for ElementsVisitor {
    type Value = Elements<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Elements::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Elements::Odd)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Elements::Absent)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Elements::Odd)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Elements::Odd)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Elements::Odd)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Elements::Odd)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Elements::Odd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(json: &str) -> Scalar<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn numbers_and_strings_are_read_alike() {
        for json in ["132015", "\"132015\"", "\" 132015 \"", "132015.0"] {
            assert_eq!(scalar(json).number(), Some(132_015), "{json}");
        }
        assert_eq!(scalar("106").owned().as_deref(), Some("106"));
    }

    #[test]
    fn what_is_neither_is_nothing() {
        for json in [
            "null",
            "true",
            "{\"a\":[1]}",
            "[1,{}]",
            "\"\"",
            "18446744073709551615",
        ] {
            assert_eq!(scalar(json).text(), None, "{json}");
        }
    }

    #[test]
    fn a_nul_does_not_reach_the_database() {
        assert_eq!(
            scalar("\"a\\u0000b\"").owned().as_deref(),
            Some("a\u{fffd}b")
        );
    }

    #[test]
    fn a_part_of_another_shape_is_absent() {
        assert_eq!(
            serde_json::from_str::<Soft<Vec<u8>>>("{\"a\":1}")
                .unwrap()
                .0,
            None
        );
        assert!(matches!(
            serde_json::from_str("\"oops\"").unwrap(),
            Elements::Odd
        ));
        assert!(matches!(
            serde_json::from_str("null").unwrap(),
            Elements::Absent
        ));
    }
}
