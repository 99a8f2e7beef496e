//! What is going on now: a bar and a line of figures on a terminal, a line now and then elsewhere.

use std::{
    cell::Cell,
    collections::VecDeque,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::style::count;
use crate::cli::output::duration;

/// How often a line is said where there is no terminal to draw on.
const PLAIN_EVERY: Duration = Duration::from_secs(2);
/// The rate shown is that of the last so many looks.
const LOOKS: usize = 8;

/// How far the jobs are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Jobs that were given to `enqueue`.
    pub(super) enqueued: usize,
    /// Messages that the provider accepted.
    pub(super) sent: usize,
    /// Messages that reached the phone.
    pub(super) delivered: usize,
    /// Jobs that will not be sent, and messages that failed.
    pub(super) refused: usize,
    /// Jobs in the queue.
    pub(super) waiting: usize,
}

impl Counts {
    fn line(&self) -> String {
        let Self {
            enqueued,
            sent,
            delivered,
            refused,
            waiting,
        } = self;
        [
            ("enqueued", enqueued),
            ("sent", sent),
            ("delivered", delivered),
            ("refused", refused),
            ("waiting", waiting),
        ]
        .map(|(word, number)| format!("{word} {:>5}", count(*number)))
        .join("  ")
    }
}

/// Says how far the jobs are. Nothing is said with `--json`.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    said: Cell<Instant>,
    is_silent: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts, with so many jobs ahead.
    pub(super) fn new(jobs: usize, is_silent: bool) -> Self {
        let now = Instant::now();
        let bar = (!is_silent && io::stderr().is_terminal()).then(|| bar(jobs));
        Self {
            started: now,
            said: Cell::new(now),
            is_silent,
            bar,
        }
    }

    /// Since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows the present figures.
    pub(super) fn show(&self, counts: &Counts, rate: &mut Rate) {
        let per_second = rate.after(self.elapsed(), counts.sent);
        if let Some(bar) = &self.bar {
            bar.set_position((counts.delivered + counts.refused) as u64);
            bar.set_prefix(per_second.to_string());
            bar.set_message(counts.line());
        } else if self.said.get().elapsed() >= PLAIN_EVERY {
            self.said.set(Instant::now());
            self.tell(&format!("{}  {per_second:>4}/s", counts.line()));
        }
    }

    /// Tells of something that happened, without tearing the bar.
    pub(super) fn tell(&self, text: &str) {
        let line = format!("  {:>6}  {text}", duration(self.elapsed()));
        let print = || {
            // Nothing can be done when nobody reads.
            let _ = writeln!(io::stdout().lock(), "{line}");
        };
        match &self.bar {
            _ if self.is_silent => {}
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(jobs: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "\n  {bar:58.green/dim} {percent:>3} % {prefix:>5}/s\n  {msg}",
    );
    let style = style
        .expect("the template is ours and a test draws it")
        .progress_chars("━╸─");
    let bar = ProgressBar::new(jobs as u64)
        .with_style(style)
        .with_prefix("0");
    bar.with_message(Counts::default().line())
}

/// How fast a number grows.
#[derive(Debug, Default)]
pub(super) struct Rate {
    looks: VecDeque<(Duration, usize)>,
}

impl Rate {
    /// Per second over the last few looks, this one included.
    fn after(&mut self, at: Duration, number: usize) -> usize {
        self.looks.push_back((at, number));
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        let (since, before) = self.looks[0];
        let seconds = (at - since).as_secs_f64();
        if seconds > 0.0 {
            ((number - before) as f64 / seconds).round() as usize
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_looks() {
        let mut rate = Rate::default();
        assert_eq!(rate.after(Duration::ZERO, 0), 0);
        assert_eq!(rate.after(Duration::from_millis(500), 100), 200);
        for look in 2..12 {
            rate.after(Duration::from_millis(500 * look), 100);
        }
        assert_eq!(rate.after(Duration::from_secs(6), 100), 0);
    }

    #[test]
    fn the_bar_can_be_drawn_and_its_line_fits_eighty_columns() {
        bar(10).finish_and_clear();
        let counts = Counts {
            enqueued: 3_200,
            sent: 3_000,
            delivered: 2_900,
            refused: 200,
            waiting: 1_000,
        };
        let line = counts.line();
        assert_eq!(
            line,
            "enqueued 3,200  sent 3,000  delivered 2,900  refused   200  waiting 1,000"
        );
        assert!(line.len() + 2 <= 80);
    }
}
