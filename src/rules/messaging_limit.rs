//! The provider's words for a messaging limit (WHATSAPP.md 4.2).

/// How many unique recipients a rolling 24 hours may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// As many.
    Recipients(u32),
    /// Any number.
    Unlimited,
    /// The provider has not decided yet.
    NotSet,
}

impl Tier {
    /// Reads `TIER_250`, `TIER_2K`, `TIER_UNLIMITED`, `TIER_NOT_SET` and the bare numbers that some webhooks carry, where
    /// -1 is unlimited. Tiers have come and gone, so any number is understood.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let bare = word.trim().to_ascii_uppercase();
        let bare = bare.strip_prefix("TIER_").unwrap_or(&bare);
        match bare {
            "UNLIMITED" | "-1" => return Some(Self::Unlimited),
            "NOT_SET" => return Some(Self::NotSet),
            _ => {}
        }
        let (digits, unit) = match bare.as_bytes().last()? {
            b'K' => (&bare[..bare.len() - 1], 1_000),
            b'M' => (&bare[..bare.len() - 1], 1_000_000),
            _ => (bare, 1),
        };
        digits
            .parse::<u32>()
            .ok()?
            .checked_mul(unit)
            .map(Self::Recipients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_that_was_ever_seen_is_understood() {
        for (word, recipients) in [
            ("TIER_50", 50),
            ("TIER_250", 250),
            ("TIER_1K", 1_000),
            ("TIER_2K", 2_000),
            ("TIER_10K", 10_000),
            ("TIER_100K", 100_000),
            ("tier_1m", 1_000_000),
            ("2000", 2_000),
        ] {
            assert_eq!(
                Tier::parse(word),
                Some(Tier::Recipients(recipients)),
                "{word}"
            );
        }
        assert_eq!(Tier::parse("TIER_UNLIMITED"), Some(Tier::Unlimited));
        assert_eq!(Tier::parse("-1"), Some(Tier::Unlimited));
        assert_eq!(Tier::parse("TIER_NOT_SET"), Some(Tier::NotSet));
        for odd in ["", "TIER_", "K", "TIER_MANY", "9999999K"] {
            assert_eq!(Tier::parse(odd), None, "{odd}");
        }
    }
}
