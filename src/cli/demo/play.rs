//! The demo's play: enqueue, watch, interfere half-way, wait for the last receipt, and hold it all against the ledger.

use std::{
    cell::Cell,
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    Guide,
    check::{self, Job, Off, Outcome},
    progress::{Counts, Progress, Rate},
    samples::{Expect, Planned, Story},
    style::{count, counted},
    summary::{Facts, Summary},
    world::{PAUSED_TEMPLATE, PER_SECOND, STOP},
};
use crate::{
    clock,
    rules::{
        address::mask,
        job::{JobId, State},
    },
    sandbox::{Entry, Sandbox},
    store::{
        Store, consent,
        enqueue::enqueue_many,
        jobs::{self, JobStatus},
        overview,
    },
};

/// Jobs enqueued in one statement.
const AT_ONCE: usize = 500;
/// How often a few codes come in.
const CODES_EVERY: Duration = Duration::from_millis(50);
/// How often the figures are renewed, and how often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What everything but sending at full speed may take at most; then whatever is not done is off.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the last receipts may take from the webhook to their messages.
const FOLD_PATIENCE: Duration = Duration::from_secs(10);

/// Enqueues the plan and follows every job to its end.
pub(super) async fn play(
    store: &Store,
    sandbox: &Sandbox,
    numbers: &[String],
    plan: Vec<Planned>,
    guide: Guide,
) -> anyhow::Result<Summary> {
    until_ready(store, numbers.len(), guide).await?;
    let progress = Progress::new(plan.len(), guide.output.json);
    guide.output.say("")?;
    progress.tell(&format!(
        "enqueueing {} out of examples/",
        counted(plan.len(), "job")
    ));
    let full_speed =
        Duration::from_secs_f64(plan.len() as f64 / f64::from(PER_SECOND * numbers.len() as u32));
    let play = Play {
        store,
        sandbox,
        progress: &progress,
        enqueued: Cell::new(0),
        full_speed,
    };

    let acting = play.act(plan);
    tokio::pin!(acting);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rate = Rate::default();
    let (jobs, statuses, off) = loop {
        tokio::select! {
            done = &mut acting => break done?,
            _ = looks.tick() => progress.show(&play.counts().await?, &mut rate),
        }
    };
    progress.finish();
    let ledger = sandbox.ledger();
    let fullest_second = numbers
        .iter()
        .map(|number| ledger.max_in_any_second(number))
        .max()
        .unwrap_or(0);
    Ok(Summary::new(Facts {
        jobs: &jobs,
        statuses: &statuses,
        entries: &ledger.entries(),
        fullest_second,
        numbers: numbers.len(),
        took: progress.elapsed(),
        off,
    }))
}

/// Waits until the daemon holds the lease of every number.
async fn until_ready(store: &Store, numbers: usize, guide: Guide) -> anyhow::Result<()> {
    let started = Instant::now();
    while overview::numbers(store.pool())
        .await?
        .iter()
        .filter(|number| number.sent_by.is_some())
        .count()
        < numbers
    {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let all = count(numbers * PER_SECOND as usize);
    let said = format!(
        "The daemon, sending at most {PER_SECOND} messages a second from each number: {all} in all"
    );
    guide.done(&said, Some(started.elapsed()))?;
    Ok(guide.more("80 is what Meta grants a new number; a configuration of yours begins at 10")?)
}

/// What the acts share.
struct Play<'a> {
    store: &'a Store,
    sandbox: &'a Sandbox,
    progress: &'a Progress,
    enqueued: Cell<usize>,
    /// How long sending everything takes at full speed.
    full_speed: Duration,
}

/// Every job, where it is, and those that are off.
type Ending = (Vec<Job>, HashMap<JobId, JobStatus>, Vec<Off>);

impl Play<'_> {
    async fn act(&self, plan: Vec<Planned>) -> anyhow::Result<Ending> {
        // People wait for codes with the phone in hand, so these come in while the rest is being sent.
        let (codes, rest): (Vec<_>, Vec<_>) = plan
            .into_iter()
            .partition(|planned| planned.text("kind") == "otp");
        let mut jobs = Vec::new();
        for some in rest.chunks(AT_ONCE) {
            jobs.extend(self.enqueue(some).await?);
        }
        let mut later = Vec::new();
        let limit = self.full_speed * 3 + PATIENCE;
        let quiet = timeout(limit, async {
            tokio::try_join!(self.trickle(codes, &mut later), self.interfere(&jobs))?;
            self.quiet().await
        });
        if let Ok(done) = quiet.await {
            done?;
        }
        jobs.append(&mut later);
        self.end(jobs).await
    }

    async fn enqueue(&self, planned: &[Planned]) -> anyhow::Result<Vec<Job>> {
        let now = clock::now();
        let requests: Vec<Value> = planned.iter().map(|planned| planned.request(now)).collect();
        let taken = enqueue_many(self.store.pool(), &requests).await?;
        self.enqueued.set(self.enqueued.get() + planned.len());
        let job = |(planned, taken): (&Planned, crate::store::enqueue::Enqueued)| Job {
            name: planned.name.clone(),
            kind: planned.text("kind").to_owned(),
            recipient: planned.text("recipient").to_owned(),
            expect: planned.expect.clone(),
            story: planned.story,
            taken: taken
                .job_id
                .map(JobId)
                .ok_or(taken.error_code.unwrap_or_default()),
        };
        Ok(planned.iter().zip(taken).map(job).collect())
    }

    /// A few codes at a time, spread over most of the time that everything takes.
    async fn trickle(&self, codes: Vec<Planned>, jobs: &mut Vec<Job>) -> anyhow::Result<()> {
        self.sandbox.ledger().until_accepted(1).await;
        let times = self.full_speed.as_secs_f64() * 0.8 / CODES_EVERY.as_secs_f64();
        let some = (codes.len() as f64 / times).ceil().max(1.0) as usize;
        let mut every = interval(CODES_EVERY);
        for codes in codes.chunks(some) {
            every.tick().await;
            jobs.extend(self.enqueue(codes).await?);
        }
        Ok(())
    }

    /// Half-way, somebody asks to be left alone, and then the provider lifts the pause of a template. In this order the
    /// jobs to that person which waited for the template are kept back, and the others go.
    async fn interfere(&self, jobs: &[Job]) -> anyhow::Result<()> {
        let must_go = jobs
            .iter()
            .filter(|job| job.expect == Expect::Delivered)
            .count();
        self.sandbox
            .ledger()
            .until_accepted(must_go as u64 / 2)
            .await;
        if let Some(job) = jobs
            .iter()
            .find(|job| job.story == Some(Story::AnswersStop))
        {
            let message = self.arrival(job).await;
            self.sandbox
                .control()
                .inbound_text(&job.recipient, &message.number, STOP)?;
            self.progress.tell(&format!(
                "{} writes “{STOP}”: no more messages, please",
                mask(&job.recipient)
            ));
            while !self.has_opted_out(&job.recipient).await? {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        let (name, language) = PAUSED_TEMPLATE;
        self.sandbox
            .control()
            .template_status(name, language, "APPROVED")?;
        self.progress.tell(&format!(
            "the provider lifts the pause of the template {name}"
        ));
        Ok(())
    }

    /// The job's message at the provider, as soon as it was accepted.
    async fn arrival(&self, job: &Job) -> Entry {
        let ledger = self.sandbox.ledger();
        loop {
            let posts = job
                .taken
                .as_ref()
                .map(|id| ledger.of_job(id.0))
                .unwrap_or_default();
            if let Some(message) = posts.into_iter().find(|post| post.accepted) {
                return message;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn has_opted_out(&self, recipient: &str) -> anyhow::Result<bool> {
        let consents = consent::show(self.store.pool(), recipient).await?;
        Ok(consents
            .iter()
            .any(|consent| consent.opted_out_at.is_some()))
    }

    /// Waits until nothing is in the queue, and every receipt was taken.
    async fn quiet(&self) -> anyhow::Result<()> {
        while self.waiting().await? > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.sandbox.control().quiet().await;
        Ok(())
    }

    /// Checks everything, again and again until all is well or the last receipts have had time enough.
    async fn end(&self, jobs: Vec<Job>) -> anyhow::Result<Ending> {
        let ids: Vec<i64> = jobs
            .iter()
            .filter_map(|job| job.taken.as_ref().ok())
            .map(|id| id.0)
            .collect();
        let started = Instant::now();
        loop {
            let statuses = jobs::show(self.store.pool(), &ids).await?;
            let statuses: HashMap<JobId, JobStatus> = statuses
                .into_iter()
                .map(|job| (JobId(job.id), job))
                .collect();
            let off = check::check(&jobs, &outcomes(&statuses)?, &self.sandbox.ledger().jobs());
            if off.is_empty() || started.elapsed() > FOLD_PATIENCE {
                return Ok((jobs, statuses, off));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn waiting(&self) -> anyhow::Result<usize> {
        let backlog = overview::backlog(self.store.pool()).await?;
        Ok(backlog
            .iter()
            .map(|backlog| number(backlog.due + backlog.later + backlog.unknown))
            .sum())
    }

    async fn counts(&self) -> anyhow::Result<Counts> {
        let results = overview::results(self.store.pool()).await?;
        let of = |states: &[State]| {
            let counted = results
                .iter()
                .filter(|result| states.iter().any(|state| state.as_str() == result.state));
            counted.map(|result| number(result.jobs)).sum()
        };
        Ok(Counts {
            enqueued: self.enqueued.get(),
            sent: usize::try_from(self.sandbox.ledger().accepted())?,
            delivered: of(&[State::Delivered, State::Read]),
            refused: of(&[State::Failed, State::Rejected, State::Expired]),
            waiting: self.waiting().await?,
        })
    }
}

fn number(of_jobs: i64) -> usize {
    usize::try_from(of_jobs).unwrap_or(0)
}

fn outcomes(statuses: &HashMap<JobId, JobStatus>) -> anyhow::Result<HashMap<JobId, Outcome>> {
    let outcome = |(id, status): (&JobId, &JobStatus)| {
        Ok((
            *id,
            Outcome {
                state: status.state.parse()?,
                reason: status.reason.clone(),
            },
        ))
    };
    statuses.iter().map(outcome).collect()
}
