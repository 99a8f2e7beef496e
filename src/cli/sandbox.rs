//! `postrider sandbox`: a stand-in for the provider, in the foreground.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Context, Exit, Output};
use crate::sandbox::{self, Sandbox, Setup};

/// Arguments of `postrider sandbox`.
#[derive(Debug, clap::Args)]
pub(super) struct SandboxArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8900")]
    listen: SocketAddr,
    /// A world of your own (TOML); what it leaves out is the default world's
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
    /// Where receipts and inbound messages are posted
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080/webhooks/whatsapp"
    )]
    callback: String,
    /// The same seed draws the same latencies and orders
    #[arg(long)]
    seed: Option<u64>,
    /// Write a configuration for `postrider run` that fits this sandbox; its database is a private one
    #[arg(long, value_name = "FILE")]
    write_config: Option<PathBuf>,
}

pub(super) async fn run(args: SandboxArgs, context: &Context) -> anyhow::Result<Exit> {
    let mut setup = world(args.world.as_deref())?.callback(&args.callback);
    if let Some(seed) = args.seed {
        setup.seed = seed;
    }
    if let Some(path) = &args.write_config {
        let text = configuration(&setup, args.listen);
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let welcome = Welcome::new(&setup, &args);
    let output = context.output;
    let mut said = Ok(());
    sandbox::serve(setup, args.listen, stopped()?, |sandbox| {
        said = welcome.say(output, sandbox)
    })
    .await?;
    said?;
    Ok(Exit::Done)
}

fn world(path: Option<&Path>) -> anyhow::Result<Setup> {
    let Some(path) = path else {
        return Ok(Setup::default());
    };
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("{} is no world", path.display()))
        .context(Exit::Config)
}

/// Cancelled by Ctrl-C or SIGTERM.
fn stopped() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let stop = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    Ok(token)
}

/// What somebody needs to know to use it.
#[derive(Debug, Serialize)]
struct Welcome {
    url: String,
    callback: String,
    accounts: Vec<String>,
    numbers: Vec<String>,
    templates: usize,
    config: Option<PathBuf>,
}

impl Welcome {
    fn new(setup: &Setup, args: &SandboxArgs) -> Self {
        Self {
            url: String::new(),
            callback: args.callback.clone(),
            accounts: setup
                .accounts
                .iter()
                .map(|account| account.waba_id.clone())
                .collect(),
            numbers: setup
                .numbers
                .iter()
                .map(|number| number.id.clone())
                .collect(),
            templates: setup.templates.len(),
            config: args.write_config.clone(),
        }
    }

    fn say(mut self, output: Output, sandbox: &Sandbox) -> std::io::Result<()> {
        self.url = sandbox.url();
        output.one(&self, || {
            let next = match &self.config {
                Some(path) => format!("next: postrider run --config {}", path.display()),
                None => "--write-config FILE writes a configuration that fits".to_owned(),
            };
            format!(
                "the sandbox listens on {}\nit posts receipts to {}\naccounts: {}\nnumbers: {}\n{} templates\n{next}",
                self.url,
                self.callback,
                self.accounts.join(", "),
                self.numbers.join(", "),
                self.templates,
            )
        })
    }
}

/// A configuration that fits the sandbox. Its secrets are made up, so they stand in the file.
fn configuration(setup: &Setup, listen: SocketAddr) -> String {
    let mut text = format!(
        "# Written by `postrider sandbox`.\nstate_dir = \"postrider-sandbox\"\n\n[database]\nurl = \"embedded\"\n\n\
         [whatsapp]\nbase_url = \"http://{listen}\"\n"
    );
    for app in &setup.apps {
        text += &format!(
            "\n[[apps]]\nname = {:?}\napp_secrets = [{:?}]\nverify_token = \"sandbox\"\n",
            app.name, app.secret
        );
    }
    for account in &setup.accounts {
        text += &format!(
            "\n[[accounts]]\nwaba_id = {:?}\nportfolio_id = {:?}\napp = {:?}\ntoken = {:?}\n",
            account.waba_id, account.portfolio, account.app, account.token
        );
    }
    let numbers: Vec<&str> = setup
        .numbers
        .iter()
        .map(|number| number.id.as_str())
        .collect();
    text += &format!("\n[senders.default]\nnumbers = {numbers:?}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_written_configuration_fits_the_sandbox() {
        let setup = Setup::default();
        let listen = SocketAddr::from(([127, 0, 0, 1], 8900));
        let config =
            Config::parse(&configuration(&setup, listen), Path::new("sandbox.toml")).unwrap();
        assert_eq!(config.whatsapp.base_url, "http://127.0.0.1:8900");
        assert_eq!(config.accounts[0].waba_id, setup.accounts[0].waba_id);
        assert_eq!(config.senders["default"].numbers.len(), setup.numbers.len());
    }
}
