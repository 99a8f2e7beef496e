//! How commands speak: tables and sentences for people, JSON for programs, progress on standard error.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::rules::address;

/// How often progress is said where there is no terminal to draw on.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// What somebody asked to see, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Output {
    /// JSON instead of tables and sentences.
    pub json: bool,
    /// Whole phone numbers.
    pub reveal: bool,
}

impl Output {
    /// A phone number or business-scoped id as it may be shown: `+90•••••1234`, unless `--reveal` was given.
    #[must_use]
    pub fn recipient(&self, recipient: &str) -> String {
        if self.reveal {
            recipient.to_owned()
        } else {
            address::mask(recipient)
        }
    }

    /// Prints rows: with `--json` one object a line, else as a table.
    ///
    /// # Errors
    /// When standard output does not take it, though somebody reads it.
    pub fn rows<T: Serialize>(
        &self,
        rows: &[T],
        headings: &[&str],
        cells: impl Fn(&T) -> Vec<String>,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        even_unread(if self.json {
            rows.iter().try_for_each(|row| json_line(&mut out, row))
        } else {
            table(headings, rows.iter().map(cells))
                .lines()
                .try_for_each(|line| writeln!(out, "{}", line.trim_end()))
        })
    }

    /// Prints one thing: with `--json` as an object, else as its text.
    ///
    /// # Errors
    /// When standard output does not take it, though somebody reads it.
    pub fn one<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> io::Result<()> {
        let mut out = io::stdout().lock();
        even_unread(if self.json {
            json_line(&mut out, value)
        } else {
            writeln!(out, "{}", text())
        })
    }

    /// Prints a sentence for people; nothing with `--json`.
    ///
    /// # Errors
    /// When standard output does not take it, though somebody reads it.
    pub fn say(&self, text: impl fmt::Display) -> io::Result<()> {
        if self.json {
            Ok(())
        } else {
            even_unread(writeln!(io::stdout().lock(), "{text}"))
        }
    }
}

/// A reader that has seen enough (`postrider jobs list | head`) neither stops what is being done nor changes how it ends.
fn even_unread(printed: io::Result<()>) -> io::Result<()> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

fn json_line<T: Serialize>(out: &mut impl Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)
}

/// A table without lines, which can be read, copied and cut by columns. Columns of numbers are set to the right.
#[must_use]
pub fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    let mut is_number = vec![true; headings.len()];
    for row in rows {
        for (column, cell) in is_number.iter_mut().zip(&row) {
            *column &= cell
                .chars()
                .all(|c| c.is_ascii_digit() || ".,%-".contains(c));
        }
        table.add_row(row);
    }
    for (column, is_number) in table.column_iter_mut().zip(is_number) {
        column.set_padding((0, 2));
        if is_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// How far long work has come: a bar on a terminal, a plain line now and then elsewhere. On standard error, so that what
/// is printed stays clean.
#[derive(Debug)]
pub struct Progress {
    noun: &'static str,
    total: Option<u64>,
    done: u64,
    started: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts. The noun is what is counted, in the plural; no total means nobody knows yet.
    #[must_use]
    pub fn new(noun: &'static str, total: Option<u64>) -> Self {
        let now = Instant::now();
        let bar = io::stderr().is_terminal().then(|| bar(noun, total));
        Self {
            noun,
            total,
            done: 0,
            started: now,
            said: now,
            bar,
        }
    }

    /// So many more are done.
    pub fn add(&mut self, more: u64) {
        self.done += more;
        if let Some(bar) = &self.bar {
            bar.inc(more);
        } else if self.said.elapsed() >= PLAIN_EVERY {
            self.said = Instant::now();
            self.say();
        }
    }

    /// All is done: takes the bar away, or says the last line.
    pub fn finish(self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None if self.started.elapsed() >= PLAIN_EVERY => self.say(),
            None => {}
        }
    }

    /// Prints a line without tearing the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| complain(text)),
            None => complain(text),
        }
    }

    fn say(&self) {
        let of = self
            .total
            .map(|total| format!(" of {total}"))
            .unwrap_or_default();
        let rate = self
            .done
            .checked_div(self.started.elapsed().as_secs().max(1))
            .unwrap_or(0);
        complain(&format!("{}{of} {}, {rate} a second", self.done, self.noun));
    }
}

/// Standard error is where we would complain about standard error, so nothing is done when it is gone.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn bar(noun: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            format!(
                "{{wide_bar}} {{human_pos}} of {{human_len}} {noun}, {{per_sec}}, {{eta}} to go"
            ),
        ),
        None => (
            ProgressBar::new_spinner(),
            format!("{{spinner}} {{human_pos}} {noun}, {{per_sec}}"),
        ),
    };
    bar.with_style(
        ProgressStyle::with_template(&template).expect("the template is ours and a test draws it"),
    )
}

/// A duration as people say it, in its two largest units: `3 d 4 h`, `12 min`, `1.5 s`, `80 ms`.
#[must_use]
pub fn duration(span: Duration) -> String {
    let (seconds, millis) = (span.as_secs(), span.subsec_millis());
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds {
        0 => format!("{millis} ms"),
        1..60 if millis >= 100 => format!("{seconds}.{} s", millis / 100),
        1..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// How long ago or how far ahead a time is: `12 min ago`, `in 3 h`, `now`.
#[must_use]
pub fn relative(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match (now - then).num_seconds() {
        0 => "now".to_owned(),
        past @ 1.. => format!("{} ago", duration(Duration::from_secs(past.unsigned_abs()))),
        ahead => format!("in {}", duration(Duration::from_secs(ahead.unsigned_abs()))),
    }
}

/// A time as it stands in tables, in UTC.
#[must_use]
pub fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_in_their_two_largest_units() {
        for (millis, said) in [
            (0, "0 ms"),
            (80, "80 ms"),
            (1_000, "1 s"),
            (1_540, "1.5 s"),
            (60_000, "1 min"),
            (754_000, "12 min 34 s"),
            (3 * 3_600_000 + 60_000, "3 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), said);
        }
    }

    #[test]
    fn times_are_told_from_now() {
        let now = DateTime::UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(relative(now, now), "now");
        assert_eq!(
            relative(now - Duration::from_secs(90), now),
            "1 min 30 s ago"
        );
        assert_eq!(relative(now + Duration::from_secs(7_200), now), "in 2 h");
    }

    #[test]
    fn a_recipient_is_masked_unless_revealed() {
        let masked = Output::default().recipient("+905551231234");
        assert!(
            !masked.contains("555123") && masked.ends_with("1234"),
            "{masked}"
        );
        assert_eq!(
            Output {
                reveal: true,
                ..Output::default()
            }
            .recipient("+905551231234"),
            "+905551231234"
        );
    }

    #[test]
    fn a_table_has_headings_and_numbers_to_the_right() {
        let rows = [("order", 5), ("otp", 1200)];
        let table = table(
            &["kind", "jobs"],
            rows.iter()
                .map(|(kind, jobs)| vec![(*kind).to_owned(), jobs.to_string()]),
        );
        let lines: Vec<String> = table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        assert_eq!(lines, ["KIND   JOBS", "order     5", "otp    1200"]);
    }

    #[test]
    fn progress_draws_with_and_without_a_total() {
        bar("jobs", Some(10)).finish_and_clear();
        bar("jobs", None).finish_and_clear();
    }
}
