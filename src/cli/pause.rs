//! `postrider pause` and `postrider resume`: numbers, accounts, templates, or everything. The provider's answers pause them
//! too, some without an end; `resume` ends those as well.

use std::time::Duration;

use super::{Context, Exit};
use crate::{
    clock,
    store::facts::{self, By, Pause, Scope},
};

/// Arguments of `postrider pause`.
#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    what: What,
    /// Why, for whoever asks later
    #[arg(long)]
    reason: String,
    /// End it after so many minutes [default: until `postrider resume`]
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=525_600))]
    minutes: Option<u64>,
}

/// Arguments of `postrider resume`.
#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    what: What,
}

/// What is stopped or goes on.
#[derive(Debug, clap::Args)]
struct What {
    /// What to stop or to let go on
    scope: ScopeWord,
    /// Which: Meta's id of the number or account, or the template as WABA_ID/name/language; nothing for `all`
    target: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ScopeWord {
    All,
    Number,
    Account,
    Template,
}

impl What {
    fn scope(&self) -> Scope {
        match self.scope {
            ScopeWord::All => Scope::All,
            ScopeWord::Number => Scope::Number,
            ScopeWord::Account => Scope::Account,
            ScopeWord::Template => Scope::Template,
        }
    }

    /// The target, in the form that its scope wants.
    fn target(&self) -> anyhow::Result<&str> {
        match (self.scope, self.target.as_deref()) {
            (ScopeWord::All, None) => Ok(""),
            (ScopeWord::All, Some(_)) => Err(usage("`all` takes no target")),
            (_, None) => Err(usage(
                "say which one; `postrider numbers` and `templates` list them",
            )),
            (ScopeWord::Template, Some(target)) if target.split('/').count() != 3 => {
                Err(usage("a template is named as WABA_ID/name/language"))
            }
            (_, Some(target)) => Ok(target),
        }
    }

    fn words(&self) -> String {
        let target = self.target.as_deref().map(|target| format!(" {target}"));
        format!("{}{}", self.scope().as_str(), target.unwrap_or_default())
    }
}

fn usage(sentence: &'static str) -> anyhow::Error {
    anyhow::anyhow!(sentence).context(Exit::Usage)
}

/// Who sits at the shell, for the history.
fn who(context: &Context) -> &str {
    ["SUDO_USER", "USER"]
        .into_iter()
        .find_map(|name| context.environment.get(name))
        .unwrap_or("operator")
}

pub(super) async fn pause(args: PauseArgs, context: &Context) -> anyhow::Result<Exit> {
    let target = args.what.target()?;
    let database = context.database().await?;
    database.check_schema().await?;
    let pause = Pause {
        scope: args.what.scope(),
        target,
        by: By::Operator(who(context)),
        reason: &args.reason,
        error_code: None,
        until: args
            .minutes
            .map(|minutes| clock::now() + Duration::from_secs(60 * minutes)),
    };
    facts::pause(database.store.pool(), &pause).await?;
    let words = args.what.words();
    context.output.say(format!(
        "{words} is paused; daemons heed it within a second"
    ))?;
    Ok(Exit::Done)
}

pub(super) async fn resume(args: ResumeArgs, context: &Context) -> anyhow::Result<Exit> {
    let target = args.what.target()?;
    let database = context.database().await?;
    database.check_schema().await?;
    let scope = args.what.scope();
    let words = args.what.words();
    if facts::resume(
        database.store.pool(),
        scope,
        target,
        By::Operator(who(context)),
    )
    .await?
    {
        context.output.say(format!("{words} goes on"))?;
        return Ok(Exit::Done);
    }
    context.output.say(format!("{words} was not paused"))?;
    Ok(Exit::Failed)
}
