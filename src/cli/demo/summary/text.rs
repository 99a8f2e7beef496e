//! The summary as people read it.

use std::fmt::Write as _;

use super::*;

impl Summary {
    /// For people.
    pub(in crate::cli::demo) fn text(&self, style: Style) -> String {
        let mut text = String::new();
        self.write_kinds(&mut text, style);
        self.write_refusals(&mut text, style);
        self.write_mishaps(&mut text, style);
        self.write_speeds(&mut text, style);
        self.write_verdict(&mut text, style);
        text.truncate(text.trim_end().len());
        text
    }

    fn write_kinds(&self, text: &mut String, style: Style) {
        let heading = format!("What became of {}", counted(self.jobs, "job"));
        let columns: Vec<&str> = columns()
            .filter(|column| self.kinds.iter().any(|row| row.has(column)))
            .collect();
        let headings: Vec<&str> = ["kind", "jobs"]
            .into_iter()
            .chain(columns.iter().copied())
            .collect();
        let total = self.kinds.iter().fold(KindRow::new("all"), KindRow::plus);
        let rows = self.kinds.iter().chain([&total]).map(|row| {
            let numbers = columns
                .iter()
                .map(|column| row.states.get(column).copied().unwrap_or(0));
            let numbers = [row.jobs].into_iter().chain(numbers).map(count);
            [row.kind.clone()].into_iter().chain(numbers).collect()
        });
        section(text, style, &heading, &table(&headings, rows).to_string());
    }

    fn write_refusals(&self, text: &mut String, style: Style) {
        let rows = self.refusals.iter().map(|refusal| {
            vec![
                count(refusal.jobs),
                refusal.reason.clone(),
                refusal.by.to_owned(),
                refusal.meaning.to_owned(),
            ]
        });
        let refusals = table(&["jobs", "reason", "by", "that is"], rows).to_string();
        section(text, style, "What was not delivered, and why", &refusals);
    }

    fn write_mishaps(&self, text: &mut String, style: Style) {
        section(
            text,
            style,
            "What went wrong, on purpose",
            &self.mishaps.join("\n"),
        );
    }

    fn write_speeds(&self, text: &mut String, style: Style) {
        let ms = |ms| duration(Duration::from_millis(ms));
        let rows = self.speeds.iter().map(|speed| {
            vec![
                speed.priority.clone(),
                count(speed.messages),
                ms(speed.p50_ms),
                ms(speed.p99_ms),
            ]
        });
        let mut speeds = table(
            &["priority", "messages", "half within", "99 % within"],
            rows,
        )
        .to_string();
        let _ = write!(
            speeds,
            "\n\nFrom enqueue to the provider's answer. Orders, deliveries and trips were enqueued all at\n\
             once and took their turn; codes came in meanwhile, a few at a time, and went first.\n\
             {:.0} messages a second, of {} that the numbers may send. In the fullest second of a\n\
             number {} arrived; {} may be sent, and the network may bunch them a little.",
            self.messages_per_second,
            self.most_messages_per_second,
            self.fullest_second_of_a_number,
            PER_SECOND
        );
        section(text, style, "How fast it was", &speeds);
    }

    fn write_verdict(&self, text: &mut String, style: Style) {
        let _ = writeln!(text);
        if self.is_well() {
            let jobs = counted(self.jobs, "job");
            let said = format!(
                "All {jobs} are as the samples say they must be, held against the provider's own book:"
            );
            let _ = writeln!(text, "{}", style.good(&said));
            let _ = writeln!(
                text,
                "  each that had to go was taken exactly once, no other left, and every receipt is in."
            );
            return;
        }
        let said = match self.off.len() {
            1 => "1 job is not as it should be:".to_owned(),
            many => format!("{} jobs are not as they should be:", count(many)),
        };
        let _ = writeln!(text, "{}", style.bad(&said));
        for off in self.off.iter().take(OFF_SHOWN) {
            let _ = writeln!(text, "  {off}");
        }
        if let Some(more) = self
            .off
            .len()
            .checked_sub(OFF_SHOWN)
            .filter(|more| *more > 0)
        {
            let _ = writeln!(text, "  … and {} more", count(more));
        }
    }
}

/// A heading, and under it some lines, moved in a little.
fn section(text: &mut String, style: Style, heading: &str, lines: &str) {
    let _ = writeln!(text, "\n{}\n", style.bold(heading));
    for line in lines.lines() {
        let _ = writeln!(text, "{}", format!("  {line}").trim_end());
    }
}
