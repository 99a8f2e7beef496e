//! The watch over the database: where it is, whether it answers, and whether it is older than what this host saw last.
//!
//! **The restore guard.** Each second this host's number grows in the database, and after that commit in the state directory. A
//! database that has less than the state directory has lost commits: it was restored from a backup, or a fail-over went to a
//! standby that was behind. What it believes unsent may have been sent, so everything is paused until somebody who knows
//! says `postrider resume all`. It is noticed at the start, and while running before any connection to it is used.
//!
//! What this does not promise: to notice what was lost within the last second before the number grew.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::{
    http::ops::Readiness,
    store::{
        ConnectOptions, Store, StoreError,
        route::Watch,
        within,
        witness::{self, Noted, Seen},
    },
};

/// How often the database is asked.
const EVERY: Duration = Duration::from_secs(1);
/// A database that has not answered for this long is away.
const AWAY_AFTER: Duration = Duration::from_secs(10);
/// What is asked takes no time; on a connection that hangs it takes for ever.
const STATEMENT_MAX: Duration = Duration::from_secs(5);
/// The file in the state directory.
const FILE: &str = "seen";

/// What watches.
#[derive(Debug)]
pub(super) struct Watching {
    watch: Watch,
    store: Store,
    instance: String,
    memory: Memory,
    /// What is wrong, as it was last said.
    said: String,
}

impl Watching {
    /// Over this database, for the instance whose state directory this is.
    pub(super) fn new(
        store: &Store,
        connect: ConnectOptions,
        instance: &str,
        state_dir: &Path,
    ) -> Self {
        Self {
            watch: Watch::new(store.clone(), connect),
            store: store.clone(),
            instance: instance.to_owned(),
            memory: Memory::of(state_dir),
            said: String::new(),
        }
    }

    /// Readiness goes by whether the database answers now.
    pub(super) async fn run(
        mut self,
        readiness: Readiness,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            match stop.run_until_cancelled(self.turn()).await {
                Some(Ok(())) => {
                    self.said.clear();
                    readiness.ready_for("database", AWAY_AFTER);
                }
                Some(Err(error)) => {
                    self.say(format!("{:#}", anyhow::Error::new(error)), &readiness);
                }
                None => break,
            }
        }
        Ok(())
    }

    fn say(&mut self, problem: String, readiness: &Readiness) {
        if problem != self.said {
            tracing::warn!("{problem}");
            self.said.clone_from(&problem);
        }
        readiness.not_ready("database", problem);
    }

    /// Asks once. When this has returned, a database that is older is paused.
    pub(super) async fn turn(&mut self) -> Result<(), StoreError> {
        let connection = self.watch.look().await?;
        let noting = note(connection, &self.instance, &mut self.memory);
        let seen = within(STATEMENT_MAX, noting).await?;
        self.store.expect(&self.instance, seen);
        Ok(())
    }
}

/// Lets the number grow, there and then here; pauses everything where there is less than here.
async fn note(
    connection: &mut PgConnection,
    instance: &str,
    memory: &mut Memory,
) -> Result<Seen, sqlx::Error> {
    let noted = witness::note(connection, instance).await?;
    let mut seen = noted.now.clone();
    match judge(memory.seen.as_ref(), &noted) {
        Verdict::Expected => {}
        Verdict::Older(before) => {
            seen.number = before.number + 1;
            let reason = reason(before, &noted);
            witness::pause(connection, instance, seen.number, &reason).await?;
            tracing::error!("everything is paused: {reason}; `postrider resume all` lets it go on");
        }
        Verdict::Another(before) => tracing::warn!(
            "this is another database (installation {}) than the one that this host saw last (installation {before})",
            seen.installation
        ),
    }
    memory.keep(&seen);
    Ok(seen)
}

/// What a number in the database means to a host.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    /// At least what it saw, or it saw none.
    Expected,
    /// Less than this.
    Older(&'a Seen),
    /// What it saw was of this installation.
    Another(&'a str),
}

fn judge<'a>(before: Option<&'a Seen>, noted: &Noted) -> Verdict<'a> {
    match before {
        None => Verdict::Expected,
        Some(before) if before.installation != noted.now.installation => {
            Verdict::Another(&before.installation)
        }
        // It has grown by one just now.
        Some(before) if noted.now.number <= before.number => Verdict::Older(before),
        Some(_) => Verdict::Expected,
    }
}

fn reason(before: &Seen, noted: &Noted) -> String {
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S UTC");
    let known = match noted.before {
        Some(at) => format!("it ends at {}", time(at)),
        None => "it does not know this host".to_owned(),
    };
    format!(
        "the database is older than what this host saw at {} ({known}): it was restored, or a fail-over lost commits, and \
         what was sent since may be sent again",
        time(before.at)
    )
}

/// What this host saw last, on its own disk.
#[derive(Debug)]
struct Memory {
    path: PathBuf,
    seen: Option<Seen>,
    complained: bool,
}

impl Memory {
    fn of(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let seen = match fs::read_to_string(&path) {
            Ok(text) => read(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, "what this host saw of the database last cannot be read");
                None
            }
        };
        Self {
            path,
            seen,
            complained: false,
        }
    }

    /// Written anew and put in its place, so that it is whole whenever we end. Not synced: after a crash of the machine an
    /// older number does no harm.
    fn keep(&mut self, seen: &Seen) {
        let unfinished = self.path.with_extension("new");
        let written =
            fs::write(&unfinished, write(seen)).and_then(|()| fs::rename(&unfinished, &self.path));
        if let Err(error) = &written
            && !self.complained
        {
            tracing::error!(%error, "what this host saw of the database cannot be kept, so a restored backup would not be noticed");
        }
        self.complained = written.is_err();
        self.seen = Some(seen.clone());
    }
}

fn write(seen: &Seen) -> String {
    format!(
        "{} {} {}\n",
        seen.installation,
        seen.number,
        seen.at.to_rfc3339()
    )
}

/// Nothing where it makes no sense: a crash of the machine may leave an empty file.
fn read(text: &str) -> Option<Seen> {
    let mut words = text.split_whitespace();
    Some(Seen {
        installation: words.next()?.to_owned(),
        number: words.next()?.parse().ok()?,
        at: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(installation: &str, number: i64) -> Seen {
        Seen {
            installation: installation.to_owned(),
            number,
            at: DateTime::UNIX_EPOCH,
        }
    }

    fn noted(installation: &str, number: i64) -> Noted {
        Noted {
            before: None,
            now: seen(installation, number),
        }
    }

    #[test]
    fn a_database_with_a_smaller_number_is_older_and_one_of_another_installation_is_not() {
        let before = seen("a", 7);
        assert_eq!(judge(None, &noted("a", 1)), Verdict::Expected);
        assert_eq!(judge(Some(&before), &noted("a", 8)), Verdict::Expected);
        // A number that was committed although we were not told.
        assert_eq!(judge(Some(&before), &noted("a", 9)), Verdict::Expected);
        for number in [1, 6, 7] {
            assert_eq!(
                judge(Some(&before), &noted("a", number)),
                Verdict::Older(&before)
            );
        }
        assert_eq!(judge(Some(&before), &noted("b", 1)), Verdict::Another("a"));
    }

    #[test]
    fn what_was_seen_is_kept_and_half_a_file_says_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(Memory::of(directory.path()).seen, None);
        Memory::of(directory.path()).keep(&seen("a", 7));
        assert_eq!(Memory::of(directory.path()).seen, Some(seen("a", 7)));
        for half in ["", "a", "a 7", "a x 1970-01-01T00:00:00Z"] {
            assert_eq!(read(half), None, "{half}");
        }
    }
}
