//! `postrider why`: where a job is, what holds it, and when it can go.

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use super::{
    Context, Exit,
    jobs::{hide, traced},
    output::{relative, time},
};
use crate::{
    rules::{
        address::Address,
        job::{FinalReason, State, WaitReason},
    },
    store::{
        dead::{self, Trace},
        jobs::{self, Answer, Filter, JobStatus},
    },
};

/// As many of a recipient's or reference's jobs are explained.
const NEWEST: i64 = 5;

/// Arguments of `postrider why`.
#[derive(Debug, clap::Args)]
pub(super) struct WhyArgs {
    /// A job's id, a reference, or a recipient (the newest 5 jobs of these)
    what: String,
}

/// A job with its explanation.
#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    job: JobStatus,
    sentence: String,
    answers: Vec<Answer>,
    traces: Vec<Trace>,
}

pub(super) async fn run(args: WhyArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    let (pool, now) = (database.store.pool(), crate::clock::now());
    let jobs = find(pool, &args.what)
        .await
        .context("looking for the job")?;
    if jobs.is_empty() {
        context.output.say(gone(pool, &args.what).await?)?;
        return Ok(Exit::Failed);
    }
    for mut job in jobs {
        hide(&mut job, &context.output);
        let answers = jobs::answers(pool, job.id).await?;
        let traces = dead::traces(pool, &[job.id]).await?;
        let explained = Explained {
            sentence: sentence(&job, now),
            job,
            answers,
            traces,
        };
        context.output.one(&explained, || text(&explained))?;
    }
    Ok(Exit::Done)
}

/// By id, else by recipient, else by reference: a number may be both an id and a reference, so an id that finds nothing is
/// tried as one.
async fn find(pool: &PgPool, what: &str) -> Result<Vec<JobStatus>, sqlx::Error> {
    if let Ok(id) = what.parse() {
        let jobs = jobs::show(pool, &[id]).await?;
        if !jobs.is_empty() {
            return Ok(jobs);
        }
    }
    let newest = Filter {
        limit: NEWEST,
        ..Filter::default()
    };
    let filter = match Address::parse(what) {
        Ok(address) => Filter {
            recipient_key: Some(address.key()),
            ..newest
        },
        Err(_) => Filter {
            reference: Some(what.to_owned()),
            ..newest
        },
    };
    jobs::list(pool, &filter).await
}

fn text(explained: &Explained) -> String {
    let job = &explained.job;
    let of = job
        .reference
        .as_ref()
        .map(|reference| format!(" ({reference})"))
        .unwrap_or_default();
    let head = format!(
        "job {}{of}, {} to {}: {}",
        job.id, job.kind, job.recipient, explained.sentence
    );
    let answers = explained.answers.iter().map(|answer| {
        let code = answer
            .code
            .map(|code| format!(" {code}"))
            .unwrap_or_default();
        let detail = answer.detail.as_deref().unwrap_or_default();
        let line = format!(
            "attempt {}: {}{code} {detail}",
            answer.attempt, answer.outcome
        );
        (answer.at, line)
    });
    let traces = explained
        .traces
        .iter()
        .map(|trace| (trace.at, traced(trace)));
    let mut lines: Vec<_> = answers.chain(traces).collect();
    lines.sort_by_key(|(at, _)| *at);
    lines.into_iter().fold(head, |text, (at, line)| {
        format!("{text}\n  {}  {}", time(at), line.trim_end())
    })
}

/// What to say of a job that is not there.
async fn gone(pool: &PgPool, what: &str) -> Result<String, sqlx::Error> {
    let id = what.parse().unwrap_or(0);
    let traces = dead::traces(pool, &[id]).await?;
    Ok(match traces.last() {
        Some(trace) => format!(
            "job {id} is gone: at {} UTC it was {}",
            time(trace.at),
            traced(trace)
        ),
        None => "there is no job of that id, reference or recipient".to_owned(),
    })
}

/// Where the job is and why, and when it can go, in a sentence.
fn sentence(job: &JobStatus, now: DateTime<Utc>) -> String {
    let when = |at: Option<DateTime<Utc>>| {
        at.map(|at| format!(" {}", relative(at, now)))
            .unwrap_or_default()
    };
    let reason = job.reason.as_deref().unwrap_or_default();
    let detail = job
        .detail
        .as_ref()
        .map(|detail| format!(" ({detail})"))
        .unwrap_or_default();
    match job.state.parse() {
        Ok(State::Queued) => "due, and on its way to a free slot of its number".to_owned(),
        Ok(State::Waiting) => {
            let because = reason.parse().map(waits_for).unwrap_or(reason);
            let due = job.due_at.filter(|at| *at > now);
            format!(
                "waits: {because}{detail}; it can go{}",
                if due.is_some() {
                    when(due)
                } else {
                    " when that ends".to_owned()
                }
            )
        }
        Ok(State::Sending) => {
            "is being sent: the request is out and the answer is not here yet".to_owned()
        }
        Ok(State::Unknown) if job.r#final => format!(
            "perhaps sent, and given up{}{detail}; a late receipt still settles it",
            when(job.ended_at)
        ),
        Ok(State::Unknown) => format!("perhaps sent; it waits for its receipt{detail}"),
        Ok(State::Accepted) => format!(
            "accepted by the provider{}, no receipt yet",
            when(job.accepted_at)
        ),
        Ok(State::Held) => format!(
            "accepted{}, and held by the provider for a quality check",
            when(job.accepted_at)
        ),
        Ok(State::Sent) => format!(
            "sent by the provider{}, not on the phone yet",
            when(job.sent_at)
        ),
        Ok(State::Delivered) => format!("delivered{}", when(job.delivered_at)),
        Ok(State::Read) => format!("read{}", when(job.read_at)),
        Ok(State::Cancelled) => format!("cancelled{}", when(job.ended_at)),
        Ok(state) => {
            let because = reason.parse().map(ended_by).unwrap_or(reason);
            format!(
                "{state}{}: {because}{detail}",
                when(job.ended_at.or(job.failed_at))
            )
        }
        Err(_) => format!("{}{detail}", job.state),
    }
}

/// What a waiting job waits for.
fn waits_for(reason: WaitReason) -> &'static str {
    match reason {
        WaitReason::Scheduled => "its time has not come",
        WaitReason::RateLimited => "the number's messages per second are used up",
        WaitReason::MessagingLimitReached => {
            "the unique recipients of the last 24 hours are used up"
        }
        WaitReason::PairRateLimited => "this recipient had too many messages in a short time",
        WaitReason::Paused => "something is paused",
        WaitReason::TemplatePaused => "its template is paused",
        WaitReason::BackingOff => "it failed for now and is tried again",
        WaitReason::AwaitingReceipt => "nobody knows yet whether it was sent",
        WaitReason::NoDispatcher => "no daemon sends for its number; is `postrider run` running?",
    }
}

/// What ended a job, and what to do about it.
fn ended_by(reason: FinalReason) -> &'static str {
    match reason {
        FinalReason::NoOptIn => {
            "the recipient never opted in; note it with `postrider consent opt-in` when they did"
        }
        FinalReason::OptedOut => "the recipient opted out",
        FinalReason::TemplateUnknown => {
            "the account has no such template in that language; `postrider templates` lists them"
        }
        FinalReason::TemplateNotApproved => "the provider has not approved the template",
        FinalReason::TemplateDisabled => "the provider disabled the template for good",
        FinalReason::CategoryNotAllowed => "its kind may not leave as a template of that category",
        FinalReason::ParameterMismatch => {
            "the parameters do not fit the template; `postrider preview` shows what it needs"
        }
        FinalReason::MediaFailed => "the provider could not fetch the media",
        FinalReason::ServiceWindowClosed => {
            "a free-form message needs that the recipient wrote within the last 24 hours"
        }
        FinalReason::RecipientInvalid => "the address can never be reached",
        FinalReason::NotReachableOnWhatsapp => {
            "the address is not on WhatsApp, or cannot be reached there"
        }
        FinalReason::CountryBlocked => "the business may not message that country",
        FinalReason::WithheldByProvider => "the provider withheld it for its own reasons",
        FinalReason::PaymentProblem => "something is wrong with the account's payment method",
        FinalReason::IdentityChanged => "the person behind the address may have changed",
        FinalReason::ProviderRefused => "the provider refused it",
        FinalReason::RetriesExhausted => "it failed too often",
        FinalReason::OutcomeUnknown => "it may have been sent; no receipt ever said",
        FinalReason::ValidityEnded => "its time ran out before it could be sent",
    }
}
