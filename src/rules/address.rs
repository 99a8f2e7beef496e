//! Where a message goes: a phone number in E.164, or a business-scoped id. Two spellings of one line share a canonical
//! key, so that consent, windows and limits follow the person and not the string.

use std::fmt;

/// A recipient as it is sent to the provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    text: String,
    is_business_scoped: bool,
}

/// Why a text is not an address. The text itself is left out: it may be somebody's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("the recipient is empty")]
    Empty,
    /// Digits, but no `+`: the provider would put the business's own country code in front.
    #[error("the phone number does not start with +; write it in E.164, for example +905551231234")]
    NoPlus,
    /// Blanks, brackets, dashes, letters.
    #[error("the phone number has something other than digits after the +")]
    NotDigits,
    /// No country code starts with 0.
    #[error("the phone number starts with 0 after the +; a country code never does")]
    LeadingZero,
    /// Too short or too long.
    #[error("the phone number has {0} digits; E.164 has 8 to 15")]
    Length(usize),
    /// Neither of the two forms.
    #[error(
        "the recipient is neither a phone number in E.164 (+905551231234) nor a business-scoped id (US.13491208655302741918)"
    )]
    Unrecognised,
}

impl Address {
    /// Takes E.164 with `+`, or a business-scoped id; nothing is guessed or repaired, because a repaired number may be
    /// somebody else's.
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        let is_business_scoped = match text.strip_prefix('+') {
            Some(digits) => check_digits(digits).map(|()| false)?,
            None if is_business_scoped_id(text) => true,
            None => return Err(unrecognised(text)),
        };
        Ok(Address {
            text: text.to_owned(),
            is_business_scoped,
        })
    }

    /// As it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The canonical key; equal for all spellings of one line. `postrider.address_key` computes the same in SQL.
    #[must_use]
    pub fn key(&self) -> String {
        // A business-scoped id has no `+`, so no rule for phone numbers touches it.
        canonical(&self.text).unwrap_or_else(|| self.text.clone())
    }

    /// Whether it is the provider's id for a person rather than a phone number; it goes out as `recipient`, not `to`.
    #[must_use]
    pub fn is_business_scoped(&self) -> bool {
        self.is_business_scoped
    }
}

impl fmt::Display for Address {
    /// Masked: an address that slips into a log line does not show whose it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(&self.text))
    }
}

/// How a recipient is shown in logs and tables: `+90•••••1234`. Works on any text, also on one that is no address.
#[must_use]
pub fn mask(recipient: &str) -> String {
    let chars: Vec<char> = recipient.chars().collect();
    let head = if chars.first() == Some(&'+') { 3 } else { 2 };
    // A short number keeps fewer of its last digits: four of eight would say too much.
    let tail = match chars.len() {
        11.. => 4,
        8.. => 2,
        _ => return "•••••".to_owned(),
    };
    let (start, end) = (&chars[..head], &chars[chars.len() - tail..]);
    start.iter().chain(&['•'; 5]).chain(end).collect()
}

fn check_digits(digits: &str) -> Result<(), AddressError> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::NotDigits);
    }
    if digits.starts_with('0') {
        return Err(AddressError::LeadingZero);
    }
    if !(8..=15).contains(&digits.len()) {
        return Err(AddressError::Length(digits.len()));
    }
    Ok(())
}

/// `US.1349…`, or with a parent business `US.ENT.1349…`: two capital letters, then up to 128 letters and digits.
fn is_business_scoped_id(text: &str) -> bool {
    let Some((country, rest)) = text.split_once('.') else {
        return false;
    };
    let id = rest.strip_prefix("ENT.").unwrap_or(rest);
    country.len() == 2
        && country.bytes().all(|b| b.is_ascii_uppercase())
        && (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn unrecognised(text: &str) -> AddressError {
    if text.is_empty() {
        AddressError::Empty
    } else if text.bytes().all(|b| b.is_ascii_digit()) {
        AddressError::NoPlus
    } else {
        AddressError::Unrecognised
    }
}

/// The canonical spelling of a line that is written in two ways; `None` where there is only one.
fn canonical(text: &str) -> Option<String> {
    brazil(text)
        .or_else(|| mobile_digit(text, "+521", "+52"))
        .or_else(|| mobile_digit(text, "+549", "+54"))
}

/// Brazil put a 9 before its eight-digit mobile numbers, which begin with 6 to 9; the provider answers with either form.
fn brazil(text: &str) -> Option<String> {
    let national = text
        .strip_prefix("+55")
        .filter(|national| national.len() == 11)?;
    let (area, line) = national.split_at(2);
    let line = line
        .strip_prefix('9')
        .filter(|line| line.starts_with(['6', '7', '8', '9']))?;
    Some(format!("+55{area}{line}"))
}

/// Mexico's 1 and Argentina's 9 stand between the country code and the ten digits of a mobile number, or are left out.
fn mobile_digit(text: &str, with: &str, without: &str) -> Option<String> {
    let line = text.strip_prefix(with).filter(|line| line.len() == 10)?;
    Some(format!("{without}{line}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> String {
        Address::parse(text).unwrap().key()
    }

    #[test]
    fn e164_with_a_plus_is_an_address() {
        for text in ["+905551231234", "+12345678", "+123456789012345"] {
            let address = Address::parse(text).unwrap();
            assert_eq!(
                (address.as_str(), address.is_business_scoped()),
                (text, false)
            );
        }
    }

    #[test]
    fn a_business_scoped_id_is_an_address() {
        let longest = format!("BR.{}", "a".repeat(128));
        for text in [
            "US.13491208655302741918",
            "US.ENT.11815799212886844830",
            "TR.a",
            &longest,
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(
                (address.as_str(), address.is_business_scoped()),
                (text, true)
            );
            assert_eq!(address.key(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        use AddressError::*;
        let too_long = format!("US.{}", "1".repeat(129));
        let cases = [
            ("", Empty),
            ("905551231234", NoPlus),
            ("+90 555 123 12 34", NotDigits),
            ("+90(555)1231234", NotDigits),
            ("+٩٠٥٥٥١٢٣١٢٣٤", NotDigits),
            ("+0905551231234", LeadingZero),
            ("+1234567", Length(7)),
            ("+1234567890123456", Length(16)),
            ("+", Length(0)),
            ("us.1349", Unrecognised),
            ("USA.1349", Unrecognised),
            ("US.", Unrecognised),
            ("US.ENT.", Unrecognised),
            ("US.13-49", Unrecognised),
            ("user.1a2b", Unrecognised),
            (too_long.as_str(), Unrecognised),
            ("ada@example.com", Unrecognised),
        ];
        for (text, reason) in cases {
            assert_eq!(Address::parse(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn the_spellings_of_one_line_share_a_key() {
        let cases = [
            ("+5511987654321", "+551187654321"),
            ("+5511968765432", "+551168765432"),
            ("+5215512345678", "+525512345678"),
            ("+5491123456789", "+541123456789"),
        ];
        for (long, short) in cases {
            assert_eq!(key(long), short);
            assert_eq!(key(short), short);
        }
    }

    #[test]
    fn a_number_that_only_looks_like_a_variant_keeps_its_key() {
        // A Brazilian landline has no ninth digit; the others have too few or too many digits to be a mobile's long form.
        for text in [
            "+5511912345678",
            "+551132345678",
            "+521551234567",
            "+52155123456789",
            "+549112345678",
            "+905551231234",
        ] {
            assert_eq!(key(text), text);
        }
    }

    #[test]
    fn a_mask_shows_the_country_and_the_last_digits() {
        assert_eq!(mask("+905551231234"), "+90•••••1234");
        assert_eq!(mask("905551231234"), "90•••••1234");
        assert_eq!(mask("US.13491208655302741918"), "US•••••1918");
        assert_eq!(mask("+12345678"), "+12•••••78");
        assert_eq!(mask("+1234"), "•••••");
        assert_eq!(mask(""), "•••••");
        assert_eq!(mask("ünïcödé@ëxämplé"), "ün•••••mplé");
    }

    #[test]
    fn an_address_prints_itself_masked() {
        assert_eq!(
            Address::parse("+905551231234").unwrap().to_string(),
            "+90•••••1234"
        );
    }

    proptest! {
        #[test]
        fn a_key_is_an_address_whose_key_is_itself(text in r"\+(55|521|549|90|1)[0-9]{7,11}|[A-Z]{2}\.(ENT\.)?[0-9A-Za-z]{1,40}") {
            if let Ok(address) = Address::parse(&text) {
                let once = address.key();
                prop_assert_eq!(key(&once), once);
            }
        }

        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in ".{0,40}") {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(address.as_str(), text);
            }
        }

        #[test]
        fn a_mask_hides_at_least_four_digits_of_a_number(digits in "[1-9][0-9]{7,14}") {
            let shown = mask(&format!("+{digits}")).chars().filter(char::is_ascii_digit).count();
            prop_assert!(digits.len() - shown >= 4, "{} of {}", shown, digits.len());
        }
    }
}
