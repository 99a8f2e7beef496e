//! Whether a person agreed to be written to: their newest word counts.

use super::job::PersonFacts;

/// What a person's words come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// They agreed, and have not withdrawn since.
    Given,
    /// They never said anything.
    Never,
    /// They said stop, and have not agreed since.
    Withdrawn,
}

/// The newest word wins; when both were said at the same time, the opt-out does, because a message that somebody did not
/// want is worse than one that was missed.
#[must_use]
pub fn consent(facts: &PersonFacts) -> Consent {
    match (facts.opted_in_at, facts.opted_out_at) {
        (None, None) => Consent::Never,
        (Some(_), None) => Consent::Given,
        (Some(opted_in), Some(opted_out)) if opted_in > opted_out => Consent::Given,
        (_, Some(_)) => Consent::Withdrawn,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn after(opted_in: Option<i64>, opted_out: Option<i64>) -> Consent {
        let at = |seconds: Option<i64>| seconds.and_then(|s| DateTime::from_timestamp(s, 0));
        consent(&PersonFacts {
            opted_in_at: at(opted_in),
            opted_out_at: at(opted_out),
            window_until: None,
        })
    }

    #[test]
    fn silence_is_no_consent() {
        assert_eq!(after(None, None), Consent::Never);
    }

    #[test]
    fn the_newest_word_wins() {
        assert_eq!(after(Some(1), None), Consent::Given);
        assert_eq!(after(None, Some(1)), Consent::Withdrawn);
        assert_eq!(after(Some(2), Some(1)), Consent::Given);
        assert_eq!(after(Some(1), Some(2)), Consent::Withdrawn);
    }

    #[test]
    fn a_tie_goes_to_the_opt_out() {
        assert_eq!(after(Some(1), Some(1)), Consent::Withdrawn);
    }
}
