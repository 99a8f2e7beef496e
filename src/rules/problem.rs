//! What is wrong with a job's content, in sentences that its author can act on.

use std::fmt;

/// One thing that is wrong. It never quotes a value: that may be a code or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, for example `body parameter 2`.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Collects problems, so that the author sees all of them at once.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.0.push(Problem {
            place: place.into(),
            what: what.into(),
        });
    }

    /// The result, when there were none.
    pub(super) fn or<T>(self, result: T) -> Result<T, Vec<Problem>> {
        if self.0.is_empty() {
            Ok(result)
        } else {
            Err(self.0)
        }
    }
}
