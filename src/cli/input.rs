//! Files of many lines, JSONL or CSV, read as they come: each line is a JSON object or the reason why it is none.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Map, Value};
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    time::{Instant, timeout_at},
};

use super::csv_row;

/// As many lines make one statement: more would not make it cheaper a line.
const BATCH: usize = 1_000;
/// A batch that is not full goes after this, so that a slow pipe is not kept waiting.
const PATIENCE: Duration = Duration::from_millis(200);

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One JSON object a line.
    Jsonl,
    /// A heading, then one row a line.
    Csv,
}

/// Where lines come from.
#[derive(Debug, clap::Args)]
pub(super) struct Input {
    /// JSONL or CSV, told by the name; - is standard input, JSONL unless --format says otherwise
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// How the file is written
    #[arg(long, requires = "file", value_name = "FORMAT")]
    pub(super) format: Option<Format>,
}

/// A line of the input.
#[derive(Debug)]
pub(super) struct Line {
    /// Its number, from 1, as editors count.
    pub(super) number: u64,
    /// What stands there, or why nothing can be made of it.
    pub(super) object: Result<Map<String, Value>, String>,
}

/// The lines of a file, read by a thread of their own.
#[derive(Debug)]
pub(super) struct Lines {
    receiver: Receiver<anyhow::Result<Line>>,
}

impl Lines {
    /// Opens a file and starts to read.
    pub(super) fn open(path: &Path, format: Option<Format>) -> anyhow::Result<Self> {
        let is_csv = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let format = format.unwrap_or(if is_csv { Format::Csv } else { Format::Jsonl });
        let reader: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
        };
        Ok(Self::read(reader, format))
    }

    fn read(reader: Box<dyn Read + Send>, format: Format) -> Self {
        // Two batches: one is being enqueued, one is being read. Beyond that the pipe waits.
        let (sender, receiver) = mpsc::channel(2 * BATCH);
        std::thread::spawn(move || {
            let result = match format {
                Format::Jsonl => read_jsonl(BufReader::new(reader), &sender),
                Format::Csv => read_csv(reader, &sender),
            };
            if let Err(error) = result {
                // Nobody listens any more when this fails.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Self { receiver }
    }

    /// The next lines: as many as make a batch, or as came within a moment. None at the end.
    pub(super) async fn batch(&mut self) -> anyhow::Result<Vec<Line>> {
        let mut batch = Vec::new();
        let Some(first) = self.receiver.recv().await else {
            return Ok(batch);
        };
        batch.push(first?);
        let deadline = Instant::now() + PATIENCE;
        while batch.len() < BATCH {
            match timeout_at(deadline, self.receiver.recv()).await {
                Ok(Some(line)) => batch.push(line?),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(batch)
    }
}

/// Sends a line on; false when nobody wants more.
fn send(
    sender: &Sender<anyhow::Result<Line>>,
    number: u64,
    object: Result<Map<String, Value>, String>,
) -> bool {
    let object = object.and_then(without_nul);
    sender.blocking_send(Ok(Line { number, object })).is_ok()
}

fn read_jsonl(
    mut reader: impl BufRead,
    sender: &Sender<anyhow::Result<Line>>,
) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        if reader
            .read_until(b'\n', &mut bytes)
            .context("cannot read on")?
            == 0
        {
            break;
        }
        let text = bytes
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&bytes)
            .trim_ascii();
        if !text.is_empty() && !send(sender, number, parse(text)) {
            break;
        }
    }
    Ok(())
}

fn parse(text: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("it is JSON, but not an object".to_owned()),
        Err(error) => Err(format!("it is not JSON: {}", without_line(&error))),
    }
}

/// The parser counts lines from the start of what it was given, which is one line.
fn without_line(error: &serde_json::Error) -> String {
    let (text, column) = (error.to_string(), error.column());
    let words = text.split(" at line ").next().unwrap_or(&text);
    format!("{words} at column {column}")
}

fn read_csv(reader: impl Read, sender: &Sender<anyhow::Result<Line>>) -> anyhow::Result<()> {
    let mut rows = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(reader);
    let headings = rows
        .headers()
        .context("line 1: the heading cannot be read")?
        .clone();
    for row in rows.records() {
        let (number, object) = match row {
            Ok(row) => (
                row.position().map_or(0, csv::Position::line),
                csv_row::object(headings.iter().zip(&row)),
            ),
            Err(error) => {
                let number = error.position().map_or(0, csv::Position::line);
                (number, Err(format!("it is not CSV: {error}")))
            }
        };
        if !send(sender, number, object) {
            break;
        }
    }
    Ok(())
}

/// JSON may hold NUL characters and Postgres may not: found here, one spoils its own line and not its batch.
fn without_nul(object: Map<String, Value>) -> Result<Map<String, Value>, String> {
    fn has_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(values) => values.iter().any(has_nul),
            Value::Object(object) => object
                .iter()
                .any(|(key, value)| key.contains('\0') || has_nul(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    if object
        .iter()
        .any(|(key, value)| key.contains('\0') || has_nul(value))
    {
        return Err("it holds a NUL character (\\u0000), which Postgres cannot keep".to_owned());
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &'static str, format: Format) -> Vec<Line> {
        let mut lines = Lines::read(Box::new(text.as_bytes()), format);
        let mut all = Vec::new();
        loop {
            let batch = lines.batch().await.unwrap();
            if batch.is_empty() {
                return all;
            }
            all.extend(batch);
        }
    }

    #[tokio::test]
    async fn bad_lines_are_told_by_number_and_blank_ones_are_counted_but_skipped() {
        let lines = all(
            "\u{feff}{\"a\": 1}\n\n[1]\n{\"b\": \n{\"c\": \"\\u0000\"}\n{\"d\": 2}",
            Format::Jsonl,
        )
        .await;
        let told: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.object.as_ref().err()))
            .collect();
        assert!(
            matches!(
                told[..],
                [
                    (1, None),
                    (3, Some(_)),
                    (4, Some(_)),
                    (5, Some(_)),
                    (6, None)
                ]
            ),
            "{told:?}"
        );
        assert!(told[1].1.unwrap().contains("not an object"));
        assert!(told[2].1.unwrap().contains("column 5"), "{told:?}");
        assert!(told[3].1.unwrap().contains("NUL"));
    }

    #[tokio::test]
    async fn csv_rows_are_numbered_by_the_lines_they_start_on() {
        let lines = all(
            "recipient,body.1\n+1,\"two\nlines\"\n+2\n+3,x\n",
            Format::Csv,
        )
        .await;
        let told: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.object.is_ok()))
            .collect();
        assert_eq!(told, [(2, true), (4, false), (5, true)]);
    }

    #[tokio::test]
    async fn a_full_batch_does_not_wait_for_more() {
        let text: String = "{}\n".repeat(BATCH + 1);
        let mut lines = Lines::read(Box::new(io::Cursor::new(text)), Format::Jsonl);
        // The reader is a thread, which a busy machine may not run for longer than a batch waits.
        while lines.receiver.len() <= BATCH {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(lines.batch().await.unwrap().len(), BATCH);
        assert_eq!(lines.batch().await.unwrap().len(), 1);
        assert!(lines.batch().await.unwrap().is_empty());
    }
}
