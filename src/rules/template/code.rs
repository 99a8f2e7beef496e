//! The one-time code of an authentication template.

use super::{
    Problems,
    wire::{ButtonParameter, Component},
};

/// WHATSAPP.md 1.3.
const MAX: usize = 15;

/// An authentication template carries one code, in the body and in the button, and nothing else.
pub(super) fn check(components: &[Component], problems: &mut Problems) {
    let codes: Vec<&str> = components.iter().filter_map(Component::code).collect();
    if codes.windows(2).any(|pair| pair[0] != pair[1]) {
        problems.add("code", "the body and the button have different codes");
    }
    let Some(code) = codes.first() else { return };
    let count = code.chars().count();
    if count > MAX {
        problems.add(
            "code",
            format!("has {count} characters; at most {MAX} are allowed"),
        );
    }
    if looks_like_url(code) {
        problems.add(
            "code",
            "looks like a link, which an authentication template may not carry",
        );
    }
    if code.chars().any(is_emoji) {
        problems.add(
            "code",
            "has an emoji, which an authentication template may not carry",
        );
    }
}

impl Component {
    fn code(&self) -> Option<&str> {
        match self {
            Component::Body { parameters } => {
                parameters.first().map(|parameter| parameter.value.shown())
            }
            Component::Button {
                parameters: Some([ButtonParameter::Text { text }]),
                ..
            } => Some(text),
            _ => None,
        }
    }
}

/// `https://…`, or a name with a dot before letters.
fn looks_like_url(code: &str) -> bool {
    let is_host = |(before, after): (&str, &str)| {
        before.ends_with(char::is_alphanumeric)
            && after.len() > 1
            && after.starts_with(char::is_alphabetic)
    };
    code.contains("://") || code.split_once('.').is_some_and(is_host)
}

/// Pictographs, and what joins or colours them.
fn is_emoji(c: char) -> bool {
    matches!(
        c,
        '\u{1f000}'..='\u{1faff}' | '\u{2600}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}' | '\u{fe0f}' | '\u{200d}' | '\u{20e3}'
    )
}
