//! Ids in the provider's style: message ids that embed the phone, `wa_id`s, business-scoped user ids, trace ids.

use base64::{Engine, engine::general_purpose::STANDARD};

/// An odd factor and its inverse modulo 2^64, so that ids look random and can be read back without a table.
const SCRAMBLE: u64 = 0x9E37_79B9_7F4A_7C15;
const UNSCRAMBLE: u64 = 0xF1DE_83E1_9937_733D;

const PREFIX: &str = "wamid.";

/// The id of the message with this place in the ledger: opaque, but like the provider's with the phone inside.
pub(super) fn message_id(phone: &str, serial: u64, seed: u64) -> String {
    let mut raw = Vec::with_capacity(64);
    raw.extend([0x1c, 0x18, phone.len() as u8]);
    raw.extend(phone.as_bytes());
    raw.extend([0x15, 0x02, 0x00, 0x11, 0x18, 0x12]);
    raw.extend(
        format!(
            "{:016X}{:02X}",
            (serial ^ seed).wrapping_mul(SCRAMBLE),
            seed as u8
        )
        .as_bytes(),
    );
    raw.push(0);
    let mut id = String::with_capacity(PREFIX.len() + raw.len().div_ceil(3) * 4);
    id.push_str(PREFIX);
    STANDARD.encode_string(&raw, &mut id);
    id
}

/// The place in the ledger that a message id stands for.
pub(super) fn serial(message_id: &str, seed: u64) -> Option<u64> {
    let raw = STANDARD.decode(message_id.strip_prefix(PREFIX)?).ok()?;
    let hex = raw.len().checked_sub(19)?;
    let hex = std::str::from_utf8(raw.get(hex..hex + 16)?).ok()?;
    Some(u64::from_str_radix(hex, 16).ok()?.wrapping_mul(UNSCRAMBLE) ^ seed)
}

/// The `wa_id` of a phone (digits only). It differs from the phone in Mexico, Argentina and for Brazil's older mobiles,
/// as it does at the provider.
pub(super) fn wa_id(digits: &str) -> String {
    if let Some(rest) = digits.strip_prefix("52").filter(|rest| rest.len() == 10) {
        return format!("521{rest}");
    }
    if let Some(rest) = digits.strip_prefix("54").filter(|rest| rest.len() == 10) {
        return format!("549{rest}");
    }
    if let Some(rest) = digits.strip_prefix("55").filter(|rest| rest.len() == 11) {
        let (area, mobile) = rest.split_at(2);
        if mobile.starts_with('9') && mobile[1..].starts_with(['6', '7', '8', '9']) {
            return format!("55{area}{}", &mobile[1..]);
        }
    }
    digits.to_owned()
}

/// Calling codes of the countries that the examples are about; others are filed under the unassigned `ZZ`.
const COUNTRIES: &[(&str, &str)] = &[
    ("1", "US"),
    ("20", "EG"),
    ("33", "FR"),
    ("34", "ES"),
    ("351", "PT"),
    ("374", "AM"),
    ("44", "GB"),
    ("49", "DE"),
    ("52", "MX"),
    ("54", "AR"),
    ("55", "BR"),
    ("7", "RU"),
    ("90", "TR"),
    ("966", "SA"),
];

/// The business-scoped user id of a `wa_id`.
pub(super) fn user_id(wa_id: &str) -> String {
    let country = COUNTRIES
        .iter()
        .find(|(code, _)| wa_id.starts_with(code))
        .map_or("ZZ", |(_, country)| country);
    let number = wa_id.parse::<u64>().unwrap_or_default();
    format!("{country}.{}", number.wrapping_mul(SCRAMBLE))
}

/// The `wa_id` behind a business-scoped user id of ours.
pub(super) fn wa_id_of_user(candidate: &str) -> Option<String> {
    let number: u64 = candidate.split_once('.')?.1.parse().ok()?;
    let wa_id = number.wrapping_mul(UNSCRAMBLE).to_string();
    ((8..=15).contains(&wa_id.len()) && user_id(&wa_id) == candidate).then_some(wa_id)
}

/// The `fbtrace_id` of an answer.
pub(super) fn trace_id(serial: u64) -> String {
    format!("A{:016x}", serial.wrapping_mul(SCRAMBLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_embeds_the_phone_and_tells_its_place() {
        let id = message_id("16505551234", 41, 7);
        let raw = STANDARD.decode(id.strip_prefix("wamid.").unwrap()).unwrap();
        assert!(raw.windows(11).any(|part| part == b"16505551234"));
        assert_eq!(serial(&id, 7), Some(41));
        assert_eq!(serial("wamid.nonsense", 7), None);
    }

    #[test]
    fn a_user_id_leads_back_to_its_phone_and_a_foreign_one_does_not() {
        assert_eq!(
            wa_id_of_user(&user_id("905321112233")).as_deref(),
            Some("905321112233")
        );
        assert!(user_id("905321112233").starts_with("TR."));
        assert_eq!(wa_id_of_user("US.13491208655302741918"), None);
    }

    #[test]
    fn phones_of_three_countries_have_another_wa_id() {
        for (phone, expected) in [
            ("525512345678", "5215512345678"),
            ("541123456789", "5491123456789"),
            ("5531987654321", "553187654321"),
            ("553187654321", "553187654321"),
            ("905321112233", "905321112233"),
        ] {
            assert_eq!(wa_id(phone), expected);
        }
    }
}
