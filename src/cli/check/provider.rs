//! The provider's side of `check`: credentials, numbers, templates.

use std::collections::BTreeSet;

use super::Report;
use crate::{
    app::configured,
    channel::directory::{Directory, DirectoryError, NumberInfo, TemplateInfo},
    cli::{Context, Exit},
    config::{Account, Config},
};

/// The only status in which a number can send.
const CONNECTED: &str = "CONNECTED";
/// The only status in which a template can be sent.
const APPROVED: &str = "APPROVED";

pub(super) async fn check(config: &Config, context: &Context, report: &mut Report) {
    let directory = match Directory::new(&configured::endpoint(config)) {
        Ok(directory) => directory,
        Err(error) => return report.problem("provider", Exit::Config, error.to_string(), None),
    };
    let mut seen = BTreeSet::new();
    let mut all_answered = true;
    for account in &config.accounts {
        match check_account(&directory, config, account, context, report).await {
            Ok(numbers) => seen.extend(numbers),
            Err(()) => all_answered = false,
        }
    }
    if all_answered && !config.accounts.is_empty() {
        check_senders(config, &seen, report);
    }
}

/// The ids of the account's numbers; what went wrong stands in the report.
async fn check_account(
    directory: &Directory,
    config: &Config,
    account: &Account,
    context: &Context,
    report: &mut Report,
) -> Result<Vec<String>, ()> {
    // A token that cannot be had is reported among the secrets.
    let token = config.token(account, &context.environment).map_err(drop)?;
    let waba_id = account.waba_id.as_str();
    let numbers = directory
        .numbers(waba_id, &token)
        .await
        .map_err(|error| tell(&error, waba_id, report))?;
    let templates = directory
        .templates(waba_id, &token)
        .await
        .map_err(|error| tell(&error, waba_id, report))?;
    tell_templates(waba_id, &templates, report);
    for number in numbers.iter().filter(|number| is_ours(config, number)) {
        tell_number(number, report);
    }
    Ok(numbers
        .into_iter()
        .map(|number| number.phone_number_id)
        .collect())
}

fn tell(error: &DirectoryError, waba_id: &str, report: &mut Report) {
    let what = format!("account {waba_id}: {error}");
    if error.is_credentials() {
        let mend = "make a system user's token with whatsapp_business_messaging and whatsapp_business_management, and give \
                    that user the account";
        return report.problem("provider", Exit::Refused, what, Some(mend));
    }
    let mend = "is base_url right, and does a proxy or firewall stand between?";
    report.problem("provider", Exit::ProviderAway, what, Some(mend));
}

fn tell_templates(waba_id: &str, templates: &[TemplateInfo], report: &mut Report) {
    let approved = templates
        .iter()
        .filter(|template| template.status == APPROVED)
        .count();
    let what = format!(
        "account {waba_id}: {approved} of {} templates are approved",
        templates.len()
    );
    if approved > 0 {
        report.ok("provider", what);
    } else {
        report.warn(
            "provider",
            what,
            "make a template in the provider's console and wait for its approval",
        );
    }
}

fn is_ours(config: &Config, number: &NumberInfo) -> bool {
    config
        .senders
        .values()
        .any(|sender| sender.numbers.contains(&number.phone_number_id))
}

fn tell_number(number: &NumberInfo, report: &mut Report) {
    let id = &number.phone_number_id;
    let shown = number
        .display_phone_number
        .as_deref()
        .unwrap_or("no display number");
    match number.status.as_deref() {
        Some(CONNECTED) | None => report.ok("provider", format!("number {id} ({shown}) can send")),
        Some(status) => {
            let what = format!("number {id} ({shown}) is {status} and cannot send");
            report.problem(
                "provider",
                Exit::Failed,
                what,
                Some("see the provider's console for what it asks for"),
            );
        }
    }
}

/// Numbers that the configuration names and no account has.
fn check_senders(config: &Config, seen: &BTreeSet<String>, report: &mut Report) {
    for (name, sender) in &config.senders {
        for number in sender
            .numbers
            .iter()
            .filter(|number| !seen.contains(*number))
        {
            let what = format!(
                "[senders.{name}] names {number}, which is a number of none of the accounts"
            );
            let mend =
                "give the phone number id that the provider's console shows, not the phone number";
            report.problem("provider", Exit::Config, what, Some(mend));
        }
    }
}
