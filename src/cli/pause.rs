//! `postrider pause` and `postrider resume`: everything, or a kind, a priority, a batch, a number, an account, a template. The
//! provider's answers pause numbers, accounts and templates too, some without an end; `resume` ends those as well.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{
    Context, Exit,
    given::{span, who},
    output::{relative, time},
};
use crate::{
    clock,
    store::facts::{self, By, Pause, PauseFact, Scope},
};

/// Arguments of `postrider pause`.
#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    /// What to stop
    #[arg(required_unless_present = "list")]
    scope: Option<ScopeWord>,
    /// Which: a kind, urgent/normal/bulk, a batch, Meta's id of the number or account, or the template as
    /// WABA_ID/name/language; nothing for `all`
    target: Option<String>,
    /// Why, for whoever asks later
    #[arg(long, required_unless_present = "list")]
    reason: Option<String>,
    /// End it after this time: 90s, 15m, 2h, 1d12h [default: until `postrider resume`]
    #[arg(long = "for", value_name = "SPAN", value_parser = span, conflicts_with = "until")]
    span: Option<Duration>,
    /// End it then, for example 2026-12-01T08:00:00Z
    #[arg(long, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
    /// Also when there is nothing of that name yet
    #[arg(long)]
    anyway: bool,
    /// List what is paused instead
    #[arg(long, conflicts_with_all = ["scope", "reason", "span", "until", "anyway"])]
    list: bool,
}

/// Arguments of `postrider resume`.
#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// What to let go on
    scope: ScopeWord,
    /// Which, as in `postrider pause`
    target: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ScopeWord {
    All,
    Kind,
    Priority,
    Batch,
    Number,
    Account,
    Template,
}

impl From<ScopeWord> for Scope {
    fn from(word: ScopeWord) -> Self {
        match word {
            ScopeWord::All => Self::All,
            ScopeWord::Kind => Self::Kind,
            ScopeWord::Priority => Self::Priority,
            ScopeWord::Batch => Self::Batch,
            ScopeWord::Number => Self::Number,
            ScopeWord::Account => Self::Account,
            ScopeWord::Template => Self::Template,
        }
    }
}

/// What is stopped or goes on.
#[derive(Debug)]
struct What {
    scope: Scope,
    /// In the form that the scope wants.
    target: String,
}

impl What {
    fn new(scope: ScopeWord, target: Option<String>) -> anyhow::Result<Self> {
        let target = match (scope, target) {
            (ScopeWord::All, None) => String::new(),
            (ScopeWord::All, Some(_)) => return Err(usage("`all` takes no target")),
            (_, None) => return Err(usage("say which one")),
            (ScopeWord::Template, Some(target)) if target.split('/').count() != 3 => {
                return Err(usage("a template is named as WABA_ID/name/language"));
            }
            (_, Some(target)) => target,
        };
        Ok(Self {
            scope: scope.into(),
            target,
        })
    }

    fn words(&self) -> String {
        words(self.scope, &self.target)
    }

    /// Refuses what is not there: a pause that stops nothing is worse than none.
    async fn must_be_known(&self, pool: &PgPool) -> anyhow::Result<()> {
        if facts::is_known(pool, self.scope, &self.target).await? {
            return Ok(());
        }
        let hint = match self.scope {
            Scope::Kind => "the configuration names the kinds under [kinds]",
            Scope::Priority => "priorities are urgent, normal and bulk",
            Scope::Batch => "no job of it was enqueued; --anyway pauses it beforehand",
            Scope::Number => "`postrider numbers` lists them",
            Scope::Account => "`postrider numbers --json` names them as waba_id",
            Scope::Template => "`postrider templates` lists them",
            Scope::All => "",
        };
        let sentence = format!("there is no {}; {hint}", self.words());
        Err(anyhow::anyhow!(sentence).context(Exit::Usage))
    }
}

fn words(scope: Scope, target: &str) -> String {
    match scope {
        Scope::All => "everything".to_owned(),
        _ => format!("{} {target}", scope.as_str()),
    }
}

fn usage(sentence: &'static str) -> anyhow::Error {
    anyhow::anyhow!(sentence).context(Exit::Usage)
}

pub(super) async fn pause(args: PauseArgs, context: &Context) -> anyhow::Result<Exit> {
    let (Some(scope), Some(reason)) = (args.scope, &args.reason) else {
        return list(context).await;
    };
    let what = What::new(scope, args.target)?;
    let now = clock::now();
    let until = args.until.or_else(|| args.span.map(|span| now + span));
    if until.is_some_and(|until| until <= now) {
        return Err(usage("--until is over already"));
    }
    let database = context.database().await?;
    database.check_schema().await?;
    let pool = database.store.pool();
    if !args.anyway {
        what.must_be_known(pool).await?;
    }
    let pause = Pause {
        scope: what.scope,
        target: &what.target,
        by: By::Operator(who(context)),
        reason,
        error_code: None,
        since: None,
        until,
    };
    facts::pause(pool, &pause).await?;
    let until = until.map_or_else(
        || "until `postrider resume`".to_owned(),
        |until| format!("until {} UTC ({})", time(until), relative(until, now)),
    );
    context.output.say(format!(
        "{} is paused {until}; daemons heed it within a second",
        what.words()
    ))?;
    Ok(Exit::Done)
}

async fn list(context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    database.check_schema().await?;
    let pauses = facts::pauses(database.store.pool()).await?;
    let headings = ["what", "since (UTC)", "until (UTC)", "by", "reason"];
    context.output.rows(&pauses, &headings, |pause| {
        vec![
            words(pause.scope, &pause.target),
            time(pause.since),
            pause.until.map(time).unwrap_or_default(),
            by(pause),
            pause.reason.clone(),
        ]
    })?;
    Ok(Exit::Done)
}

pub(super) async fn resume(args: ResumeArgs, context: &Context) -> anyhow::Result<Exit> {
    let what = What::new(args.scope, args.target)?;
    let database = context.database().await?;
    database.check_schema().await?;
    let (pool, output) = (database.store.pool(), &context.output);
    let before = facts::pauses(pool).await?;
    let by_us = By::Operator(who(context));
    let is_resumed = facts::resume(pool, what.scope, &what.target, by_us).await?;
    if is_resumed {
        output.say(format!("{} goes on", what.words()))?;
        let ended = before
            .iter()
            .filter(|pause| pause.scope == what.scope && pause.target == what.target);
        for pause in ended {
            output.say(format!(
                "  it was paused by {} {}: {}",
                by(pause),
                relative(pause.since, clock::now()),
                pause.reason
            ))?;
        }
    } else {
        output.say(format!("{} was not paused", what.words()))?;
    }
    for pause in facts::pauses_beside(pool, what.scope, &what.target).await? {
        output.say(format!(
            "  still paused: {}, by {}: {}",
            words(pause.scope, &pause.target),
            by(&pause),
            pause.reason
        ))?;
    }
    Ok(if is_resumed { Exit::Done } else { Exit::Failed })
}

/// Who paused it, for people.
fn by(pause: &PauseFact) -> String {
    match (pause.by_provider, pause.error_code) {
        (false, _) => pause.by.clone(),
        (true, None) => "the provider".to_owned(),
        (true, Some(code)) => format!("the provider ({code})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_the_form_that_its_scope_wants() {
        let is_fine =
            |scope, target: Option<&str>| What::new(scope, target.map(str::to_owned)).is_ok();
        assert!(is_fine(ScopeWord::All, None));
        assert!(!is_fine(ScopeWord::All, Some("order")));
        assert!(is_fine(ScopeWord::Kind, Some("order")));
        assert!(!is_fine(ScopeWord::Batch, None));
        assert!(is_fine(ScopeWord::Template, Some("1/order_shipped/en")));
        assert!(!is_fine(ScopeWord::Template, Some("order_shipped")));
    }
}
