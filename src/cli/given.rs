//! What people give on the command line, and who they are.

use std::time::Duration;

use super::Context;

/// The longest span of time.
const SPAN_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Reads `90s`, `15m`, `2h` or `1d12h`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "say it as 90s, 15m, 2h or 1d12h".to_owned();
    let (mut total, mut number) = (0_u64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let count: u64 = std::mem::take(&mut number).parse().map_err(|_| wrong())?;
        total = count
            .checked_mul(unit)
            .and_then(|more| total.checked_add(more))
            .ok_or_else(wrong)?;
    }
    match Duration::from_secs(total) {
        _ if !number.is_empty() => Err(wrong()),
        Duration::ZERO => Err(wrong()),
        longer if longer > SPAN_MAX => Err("that is more than a year".to_owned()),
        span => Ok(span),
    }
}

/// Who sits at the shell, for the history.
pub(super) fn who(context: &Context) -> &str {
    ["SUDO_USER", "USER"]
        .into_iter()
        .find_map(|name| context.environment.get(name))
        .unwrap_or("operator")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_in_seconds_minutes_hours_and_days() {
        for (text, secs) in [
            ("90s", 90),
            ("15m", 900),
            ("2h", 7_200),
            ("1d12h", 129_600),
            ("365d", 31_536_000),
        ] {
            assert_eq!(span(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for text in [
            "",
            "2",
            "h",
            "0s",
            "2h30",
            "2 h",
            "-1h",
            "2w",
            "366d",
            "99999999999999999999d",
        ] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
