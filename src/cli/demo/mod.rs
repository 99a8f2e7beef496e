//! `postrider demo`: the whole thing on one machine, with no account and no other server.
//!
//! It enqueues the jobs of `examples/` while the daemon sends them to the sandbox, makes a few things go wrong, shows what
//! became of each job, and holds that against the sandbox's own ledger. The samples say what must become of them.

mod check;
mod play;
mod progress;
mod samples;
mod stage;
mod style;
mod summary;
mod world;

use std::{io, time::Duration};

use anyhow::{Context as _, bail};

use self::{stage::Stage, style::Style};
use super::{
    Context, Exit,
    output::{Output, duration},
};

/// Arguments of `postrider demo`.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// How many jobs to enqueue
    #[arg(long, value_name = "N", default_value_t = 3_200, value_parser = clap::value_parser!(u32).range(100..=50_000))]
    jobs: u32,
    /// The same seed draws the same order of jobs, and the same latencies and receipts
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Leave everything running afterwards, to look around in it, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(args: DemoArgs, context: &Context) -> anyhow::Result<Exit> {
    let guide = Guide {
        output: context.output,
        style: Style::of_stdout(),
    };
    guide.hello()?;
    let plan = samples::plan(args.jobs as usize, args.seed)?;
    let mut stage = Stage::set(&plan, args.seed, guide).await?;
    let playing = play::play(&stage.store, &stage.sandbox, &stage.numbers, plan, guide);
    let summary = tokio::select! {
        summary = playing => summary?,
        ended = &mut stage.daemon => {
            ended.context("the daemon ended before the demo")?;
            bail!("interrupted");
        }
    };
    context.output.one(&summary, || summary.text(guide.style))?;
    if args.keep {
        guide.look_around(&stage)?;
        (&mut stage.daemon).await?;
    } else {
        guide.read_on()?;
    }
    let exit = if summary.is_well() {
        Exit::Done
    } else {
        Exit::Failed
    };
    stage.strike().await?;
    Ok(exit)
}

/// Speaks to whoever watches; silent with `--json`.
#[derive(Debug, Clone, Copy)]
struct Guide {
    output: Output,
    style: Style,
}

impl Guide {
    fn hello(self) -> io::Result<()> {
        self.output.say(self.style.bold("Postrider's demo"))?;
        self.output
            .say("Everything runs on this machine, nothing leaves it, and nothing stays behind.\n")
    }

    /// Something is ready.
    fn done(self, what: &str, took: Option<Duration>) -> io::Result<()> {
        let took = took
            .map(|took| self.style.dim(&format!("  {}", duration(took))))
            .unwrap_or_default();
        self.output
            .say(format_args!("  {}{took}", self.style.good(what)))
    }

    /// More about that.
    fn more(self, what: &str) -> io::Result<()> {
        self.output
            .say(format_args!("    {}", self.style.dim(what)))
    }

    fn read_on(self) -> io::Result<()> {
        self.list(
            "Where to look next",
            &[
                (
                    "leave all this running, to look around",
                    &format!("{} demo --keep", binary()),
                ),
                ("the jobs, each with what must become of it", "examples/"),
                ("your first real message in ten minutes", "README.md"),
                ("how it works, and what it promises", "docs/ARCHITECTURE.md"),
                ("what each state and reason means", "docs/STATES.md"),
            ],
        )
    }

    fn look_around(self, stage: &Stage) -> io::Result<()> {
        let postrider = |arguments: &str| format!("{} {arguments}", binary());
        self.list(
            "Everything is still running. In another shell",
            &[
                (
                    "first of all",
                    &format!("export POSTRIDER_CONFIG={}", stage.config_path.display()),
                ),
                ("what it is doing, and what is wrong", &postrider("status")),
                (
                    "what the gate kept back",
                    &postrider("jobs list --state rejected"),
                ),
                (
                    "what became of one job, and why",
                    &postrider("why story-stop-later-1"),
                ),
                ("what may be sent", &postrider("templates")),
                (
                    "what Prometheus sees",
                    &format!("curl {}", stage.metrics_url),
                ),
                (
                    "the tables themselves",
                    &format!("psql '{}'", stage.database_url),
                ),
            ],
        )?;
        self.output.say("\nCtrl-C ends it and removes it all.")
    }

    /// Commands last, because a path may be long.
    fn list(self, heading: &str, places: &[(&str, &str)]) -> io::Result<()> {
        self.output
            .say(format_args!("\n{}\n", self.style.bold(heading)))?;
        let width = places.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
        places
            .iter()
            .try_for_each(|(what, place)| self.output.say(format_args!("  {what:width$}  {place}")))
    }
}

/// As it was called, so that the commands we show can be copied.
fn binary() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "postrider".to_owned())
}
