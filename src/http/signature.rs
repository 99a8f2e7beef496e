//! Whether a webhook is the provider's: `X-Hub-Signature-256` is an HMAC-SHA256 of the body's bytes as they came, keyed
//! with the app's secret. Comparisons take the same time whatever they compare.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// The header that carries it.
pub const HEADER: &str = "x-hub-signature-256";

/// Whether `header` signs `body` under any of the secrets; there are two while a secret is being changed.
#[must_use]
pub fn is_signed(header: &str, body: &[u8], secrets: &[SecretString]) -> bool {
    let Some(signature) = header.strip_prefix("sha256=").and_then(unhex) else {
        return false;
    };
    secrets.iter().any(|secret| {
        keyed(secret)
            .chain_update(body)
            .verify_slice(&signature)
            .is_ok()
    })
}

/// The header's value for a body; what the provider does, for tests and the sandbox.
#[must_use]
pub fn sign(body: &[u8], secret: &SecretString) -> String {
    let tag = keyed(secret).chain_update(body).finalize().into_bytes();
    tag.iter().fold("sha256=".to_owned(), |header, byte| {
        format!("{header}{byte:02x}")
    })
}

/// Whether a token is the expected one, without telling by the time how much of it is right.
#[must_use]
pub fn is_same(token: &str, expected: &SecretString) -> bool {
    let tag = keyed(expected)
        .chain_update(expected.expose_secret())
        .finalize()
        .into_bytes();
    keyed(expected)
        .chain_update(token)
        .verify_slice(&tag)
        .is_ok()
}

fn keyed(secret: &SecretString) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes keys of any length")
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let (digits, mut bytes) = (text.as_bytes(), [0; 32]);
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(list: &[&str]) -> Vec<SecretString> {
        list.iter()
            .map(|secret| SecretString::from(*secret))
            .collect()
    }

    #[test]
    fn the_signature_is_the_one_that_others_compute() {
        // RFC 4231, test case 2.
        let header = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert!(is_signed(
            header,
            b"what do ya want for nothing?",
            &secrets(&["Jefe"])
        ));
    }

    #[test]
    fn the_old_and_the_new_secret_are_both_good() {
        let both = secrets(&["new", "old"]);
        for secret in &both {
            assert!(is_signed(&sign(b"{}", secret), b"{}", &both));
        }
        assert!(!is_signed(&sign(b"{}", &"other".into()), b"{}", &both));
    }

    #[test]
    fn one_bit_elsewhere_or_one_digit_less_is_no_signature() {
        let secrets = secrets(&["s"]);
        let good = sign(b"{}", &secrets[0]);
        assert!(
            is_signed(&good.to_uppercase().replace("SHA", "sha"), b"{}", &secrets),
            "hex of either case"
        );
        assert!(!is_signed(&good, b"{} ", &secrets));
        assert!(!is_signed(&good[..good.len() - 1], b"{}", &secrets));
        assert!(!is_signed(&good.replace("sha256=", ""), b"{}", &secrets));
        assert!(!is_signed(
            &format!("sha256={}", "g".repeat(64)),
            b"{}",
            &secrets
        ));
        assert!(!is_signed("", b"{}", &secrets));
        assert!(!is_signed(&good, b"{}", &[]));
    }

    #[test]
    fn tokens_are_compared_whole() {
        let expected = SecretString::from("verify-me");
        assert!(is_same("verify-me", &expected));
        for wrong in ["", "verify-m", "verify-me ", "verify-ME"] {
            assert!(!is_same(wrong, &expected), "{wrong}");
        }
    }
}
