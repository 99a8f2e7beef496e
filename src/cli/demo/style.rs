//! Colours and signs, where somebody looks at them.

use std::io::IsTerminal as _;

use indicatif::HumanCount;

/// How text is set off. Without a terminal, or with `$NO_COLOR`, it is not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Style {
    has_colours: bool,
}

impl Style {
    /// What standard output can show.
    pub(super) fn of_stdout() -> Self {
        let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            has_colours: is_wanted && std::io::stdout().is_terminal(),
        }
    }

    /// Headings.
    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters less.
    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// All is well.
    pub(super) fn good(self, text: &str) -> String {
        format!("{} {text}", self.paint("32", "✓"))
    }

    /// Something is wrong.
    pub(super) fn bad(self, text: &str) -> String {
        format!("{} {text}", self.paint("31;1", "✗"))
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.has_colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// 3204 as `3,204`.
pub(super) fn count(number: usize) -> String {
    HumanCount(number as u64).to_string()
}

/// `1 job`, `2 jobs`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        count(number),
        if number == 1 { "" } else { "s" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_nouns_follow_them() {
        assert_eq!(counted(3_204, "job"), "3,204 jobs");
        assert_eq!(counted(1, "job"), "1 job");
    }

    #[test]
    fn without_colours_only_the_sign_is_added() {
        assert_eq!(Style::default().good("done"), "✓ done");
        assert_eq!(Style { has_colours: true }.bold("x"), "\x1b[1mx\x1b[0m");
    }
}
