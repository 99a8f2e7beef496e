//! Where in the file something stands, for messages that people act on.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// A line and a column, both from 1, as editors count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The position of a byte offset.
pub(super) fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// Where the value of a dotted key stands (`kinds.otp.resolve_after_s`, `accounts.0.app`), or as much of it as the file has:
/// a key that was left to its default is told by its section. `None` when not even that is there.
pub(super) fn of_key(text: &str, key: &str) -> Option<Position> {
    let table = DeTable::parse(text).ok()?;
    let mut parts = key.split('.');
    let first = table.get_ref().get(parts.next()?)?;
    let deepest = parts.try_fold(first, |value, part| {
        let inner = match value.get_ref() {
            DeValue::Table(table) => table.get(part),
            DeValue::Array(array) => part
                .parse::<usize>()
                .ok()
                .and_then(|index| array.get(index)),
            _ => None,
        };
        inner.ok_or(value)
    });
    let (Ok(value) | Err(value)) = deepest;
    Some(position(text, value.span().start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "state_dir = \"/x\"\n[kinds.otp]\npriority = \"urgent\"\n[[accounts]]\nwaba_id = \"1\"\n";

    #[test]
    fn a_key_is_found_by_its_dotted_name() {
        assert_eq!(
            of_key(TEXT, "kinds.otp.priority"),
            Some(Position {
                line: 3,
                column: 12
            })
        );
        assert_eq!(
            of_key(TEXT, "accounts.0.waba_id"),
            Some(Position {
                line: 5,
                column: 11
            })
        );
    }

    #[test]
    fn a_key_left_to_its_default_is_told_by_its_section_and_an_absent_section_not_at_all() {
        assert_eq!(
            of_key(TEXT, "kinds.otp.valid_for_s").map(|found| found.line),
            Some(2)
        );
        assert_eq!(of_key(TEXT, "pacing.bulk_floor"), None);
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        assert_eq!(
            position("a = \"çok\" x", "a = \"çok\" ".len()),
            Position {
                line: 1,
                column: 11
            }
        );
    }
}
