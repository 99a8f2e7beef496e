//! The sample files in `examples/`, and how a few dozen lines become thousands of jobs: each copy goes to other people.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    cli::csv_row,
    rules::job::{FinalReason, State},
    store::consent::Statement,
};

/// Copied as often as it takes. They are compiled in, so that the demo needs nothing but the binary.
const COPIED: [(&str, &str); 4] = [
    ("order.jsonl", include_str!("../../../examples/order.jsonl")),
    (
        "delivery.csv",
        include_str!("../../../examples/delivery.csv"),
    ),
    ("otp.csv", include_str!("../../../examples/otp.csv")),
    (
        "travel.jsonl",
        include_str!("../../../examples/travel.jsonl"),
    ),
];
/// Enqueued once: each line is a story of its own.
const ONCE: (&str, &str) = (
    "special.jsonl",
    include_str!("../../../examples/special.jsonl"),
);
const CONSENTS: &str = include_str!("../../../examples/consents.csv");

/// The next copy's numbers are this much higher: the samples tell people apart by the last two digits.
const NEXT_PERSON: u64 = 100;

/// What must become of a job: the label `expect` in the sample files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expect {
    /// Accepted exactly once, then as far as its receipts say.
    Delivered,
    /// Accepted exactly once, then given up by the provider.
    Failed(FinalReason),
    /// Never sent: `rejected` or `expired`, with the reason.
    Kept(State, FinalReason),
    /// Not even enqueued, with this SQLSTATE.
    Refused(String),
}

impl FromStr for Expect {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (word, detail) = text.split_once(':').unwrap_or((text, ""));
        Ok(match word {
            "delivered" => Self::Delivered,
            "failed" => Self::Failed(detail.parse()?),
            "rejected" | "expired" => Self::Kept(word.parse()?, detail.parse()?),
            "refused" => Self::Refused(detail.to_owned()),
            _ => bail!("`{text}` is nothing that can be expected of a job"),
        })
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered => f.write_str("delivered"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
            Self::Kept(state, reason) => write!(f, "{state}: {reason}"),
            Self::Refused(code) => write!(f, "refused at enqueue: {code}"),
        }
    }
}

/// What the sandbox does about a job: the label `provider` in the sample files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Story {
    /// Answers 500 with a coded error the first time.
    #[serde(rename = "error_500")]
    Error500,
    /// Answers 130429 the first time: too many messages from this number.
    Throttle,
    /// Accepts, then breaks the connection instead of answering.
    Reset,
    /// Accepts, but something at the edge answers 503 in HTML.
    #[serde(rename = "edge_503")]
    Edge503,
    /// Accepts, but the answer has no message id.
    NoId,
    /// Accepts and holds back for a quality check.
    Held,
    /// Accepts, and says later that the person is not on WhatsApp.
    NotOnWhatsapp,
    /// The recipient asks to be left alone.
    AnswersStop,
}

/// The labels that the demo understands.
#[derive(Deserialize)]
struct Labels {
    expect: String,
    provider: Option<Story>,
    expires_in_s: Option<u64>,
}

/// A job that is going to be enqueued.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// File, line and copy.
    pub(super) name: String,
    /// As `enqueue_many` takes it.
    pub(super) request: Map<String, Value>,
    /// What must become of it.
    pub(super) expect: Expect,
    /// What the sandbox does about it.
    pub(super) story: Option<Story>,
    /// Its validity from now, where the kind's own would outlast the demo.
    expires_in: Option<Duration>,
}

impl Planned {
    /// A text field of the request; empty when it is not there.
    pub(super) fn text(&self, key: &str) -> &str {
        self.request
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// What is given to `enqueue_many`.
    pub(super) fn request(&self, now: DateTime<Utc>) -> Value {
        let mut request = self.request.clone();
        if let Some(expires_in) = self.expires_in {
            request.insert(
                "expires_at".to_owned(),
                (now + expires_in).to_rfc3339().into(),
            );
        }
        Value::Object(request)
    }

    fn read(name: String, request: Map<String, Value>) -> anyhow::Result<Self> {
        let labels = request.get("labels").cloned().unwrap_or_default();
        let labels: Labels =
            serde_json::from_value(labels).with_context(|| format!("the labels of {name}"))?;
        Ok(Self {
            expect: labels.expect.parse().with_context(|| name.clone())?,
            story: labels.provider,
            expires_in: labels.expires_in_s.map(Duration::from_secs),
            name,
            request,
        })
    }

    /// The same job to somebody else.
    fn copy(&self, copy: u64) -> Self {
        let mut planned = self.clone();
        planned.name = format!("{}, copy {copy}", self.name);
        for (key, change) in [
            ("recipient", other_person as fn(&str, u64) -> String),
            ("reference", other_reference),
        ] {
            if let Some(Value::String(text)) = planned.request.get_mut(key) {
                *text = change(text, copy);
            }
        }
        planned
    }
}

/// The person of another copy; what is no phone number stays wrong.
fn other_person(recipient: &str, copy: u64) -> String {
    match recipient.strip_prefix('+').map(str::parse::<u64>) {
        Some(Ok(number)) => format!("+{}", number + NEXT_PERSON * copy),
        _ => recipient.to_owned(),
    }
}

fn other_reference(reference: &str, copy: u64) -> String {
    format!("{reference}-{copy}")
}

/// As many jobs as asked for, in an order that the seed decides.
pub(super) fn plan(jobs: usize, seed: u64) -> anyhow::Result<Vec<Planned>> {
    let mut plan = read(ONCE)?;
    let mut lines = Vec::new();
    for file in COPIED {
        lines.extend(read(file)?);
    }
    let copies = (0..).flat_map(|copy| lines.iter().map(move |line| line.copy(copy)));
    plan.extend(copies.take(jobs.saturating_sub(plan.len())));
    plan.shuffle(&mut StdRng::seed_from_u64(seed));
    Ok(plan)
}

/// What everybody that `plan` may write to has said.
pub(super) fn consents(jobs: usize) -> anyhow::Result<Vec<Statement>> {
    let mut lines = 0;
    for file in COPIED {
        lines += read(file)?.len();
    }
    let copies = jobs.div_ceil(lines) as u64;
    let statement = |row| Ok(serde_json::from_value::<Statement>(Value::Object(row))?);
    let people: Vec<_> = read_csv(CONSENTS)?
        .into_iter()
        .map(statement)
        .collect::<anyhow::Result<_>>()?;
    let copied = (0..copies).flat_map(|copy| {
        people.iter().map(move |one| Statement {
            recipient: other_person(&one.recipient, copy),
            ..one.clone()
        })
    });
    Ok(copied.collect())
}

fn read((file, text): (&str, &str)) -> anyhow::Result<Vec<Planned>> {
    let requests = if file.ends_with(".csv") {
        read_csv(text)
    } else {
        read_jsonl(text)
    };
    let requests = requests.with_context(|| file.to_owned())?;
    // An editor counts the heading too.
    let first = if file.ends_with(".csv") { 2 } else { 1 };
    let named = requests
        .into_iter()
        .zip(first..)
        .map(|(request, line)| (format!("{file}:{line}"), request));
    named
        .map(|(name, request)| Planned::read(name, request))
        .collect()
}

fn read_jsonl(text: &str) -> anyhow::Result<Vec<Map<String, Value>>> {
    text.lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

fn read_csv(text: &str) -> anyhow::Result<Vec<Map<String, Value>>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headings = reader.headers()?.clone();
    reader
        .records()
        .map(|row| csv_row::object(headings.iter().zip(&row?)).map_err(anyhow::Error::msg))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn the_plan_has_as_many_jobs_as_asked_for_and_the_same_ones_for_the_same_seed() {
        let names = |seed| {
            plan(3_200, seed)
                .unwrap()
                .into_iter()
                .map(|planned| planned.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(1).len(), 3_200);
        assert_eq!(names(1), names(1));
        assert_ne!(names(1), names(2));
        let different: HashSet<_> = names(1).into_iter().collect();
        assert_eq!(different.len(), 3_200);
    }

    #[test]
    fn the_plan_has_every_kind_in_several_languages_and_every_story() {
        let plan = plan(3_200, 1).unwrap();
        let kinds: BTreeSet<_> = plan.iter().map(|planned| planned.text("kind")).collect();
        for kind in ["order", "delivery", "otp", "travel"] {
            assert!(kinds.contains(kind), "{kind}");
        }
        let languages: BTreeSet<_> = plan
            .iter()
            .map(|planned| planned.text("language"))
            .collect();
        for language in ["en_US", "tr", "ru", "es", "de", "ar", "pt_BR", "fr", "hy"] {
            assert!(languages.contains(language), "{language}");
        }
        let stories: HashSet<_> = plan.iter().filter_map(|planned| planned.story).collect();
        assert_eq!(stories.len(), 8);
    }

    #[test]
    fn no_two_copies_go_to_one_person() {
        let plan = plan(20_000, 1).unwrap();
        let order: Vec<_> = plan
            .iter()
            .filter(|planned| planned.name.starts_with("order.jsonl:1,"))
            .collect();
        let people: HashSet<_> = order
            .iter()
            .map(|planned| planned.text("recipient"))
            .collect();
        assert!(order.len() > 300);
        assert_eq!(people.len(), order.len());
    }

    #[test]
    fn whoever_is_to_get_something_has_opted_in_and_nobody_else() {
        let (withdrawn, given): (Vec<_>, Vec<_>) = consents(3_200)
            .unwrap()
            .into_iter()
            .partition(|said| said.opt_out);
        let people = |said: Vec<Statement>| {
            said.into_iter()
                .map(|said| said.recipient)
                .collect::<HashSet<_>>()
        };
        let (given, withdrawn) = (people(given), people(withdrawn));
        for planned in plan(3_200, 1).unwrap() {
            let person = planned.text("recipient");
            let may = given.contains(person) && !withdrawn.contains(person);
            match &planned.expect {
                Expect::Delivered | Expect::Failed(_) => {
                    assert!(may || planned.text("reference") == "story-spelling")
                }
                Expect::Kept(_, FinalReason::NoOptIn) => {
                    assert!(!given.contains(person), "{}", planned.name)
                }
                Expect::Kept(_, FinalReason::OptedOut) => {
                    assert!(given.contains(person), "{}", planned.name)
                }
                _ => {}
            }
        }
    }

    #[test]
    fn an_expectation_is_read_as_it_is_written_in_the_samples() {
        let kept = Expect::Kept(State::Rejected, FinalReason::NoOptIn);
        assert_eq!("rejected:no_opt_in".parse::<Expect>().unwrap(), kept);
        assert_eq!(
            "refused:PR001".parse::<Expect>().unwrap(),
            Expect::Refused("PR001".to_owned())
        );
        for nonsense in ["", "sent", "rejected", "rejected:because", "failed:"] {
            assert!(nonsense.parse::<Expect>().is_err(), "{nonsense}");
        }
    }
}
