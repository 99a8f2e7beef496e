//! The world that the demo plays in: the sandbox with its numbers, templates and mishaps, and the daemon's configuration.

use std::path::Path;

use serde_json::json;

use super::samples::{Planned, Story};
use crate::sandbox::{Delay, Fault, FaultRule, Person, Setup, Template, default_world};

/// What each of the four numbers may send. It is what Meta grants a new number.
pub(super) const PER_SECOND: u32 = 80;
/// Paused at first; the pause is lifted half-way.
pub(super) const PAUSED_TEMPLATE: (&str, &str) = ("delivery_rating", "en_US");
/// How the recipient of [`Story::AnswersStop`] asks to be left alone: one of the Spanish words for it.
pub(super) const STOP: &str = "Darme de baja";
/// How long the provider holds back the message of [`Story::Held`].
const HELD_MS: u64 = 1_500;

/// The sandbox, with what the plan asks of it.
pub(super) fn setup(seed: u64, plan: &[Planned]) -> Setup {
    let mut setup = default_world();
    setup.seed = seed;
    for number in &mut setup.numbers {
        number.messages_per_second = PER_SECOND;
    }
    // Meta's highest limit but unlimited: all numbers of the portfolio are then one shard.
    setup.portfolios[0].messaging_limit = Some(100_000);
    setup.templates.push(paused_template(&setup));
    // As in real life: receipts come in any order, and now and then twice.
    setup.webhooks.shuffled_share = 0.05;
    setup.webhooks.repeated_share = 0.03;
    // Unlike real life: people read at once, so that the demo ends soon.
    setup.webhooks.read_after = Delay::around(700);
    for planned in plan {
        let recipient = planned.text("recipient");
        if let Some(fault) = planned.story.and_then(fault) {
            setup
                .faults
                .push(FaultRule::next(1, fault).recipient(recipient));
        } else if planned.story == Some(Story::NotOnWhatsapp) {
            setup.people.push(Person {
                phone: recipient.to_owned(),
                fail: Some(131_026),
                ..Person::default()
            });
        }
    }
    setup
}

fn paused_template(setup: &Setup) -> Template {
    let (name, language) = PAUSED_TEMPLATE;
    Template {
        waba_id: setup.accounts[0].waba_id.clone(),
        name: name.to_owned(),
        language: language.to_owned(),
        status: "PAUSED".to_owned(),
        category: "UTILITY".to_owned(),
        parameter_format: "POSITIONAL".to_owned(),
        components: json!([{"type": "BODY", "text": "Hello {{1}}, parcel {{2}} has arrived. Was all well?"}]),
    }
}

fn fault(story: Story) -> Option<Fault> {
    Some(match story {
        Story::Error500 => Fault::Refuse {
            code: 131_000,
            http_status: Some(500),
        },
        Story::Throttle => Fault::Refuse {
            code: 130_429,
            http_status: None,
        },
        Story::Reset => Fault::ResetAfterAccepting,
        Story::Edge503 => Fault::NotJson {
            http_status: 503,
            accepted: true,
        },
        Story::NoId => Fault::NoId,
        Story::Held => Fault::Hold {
            for_ms: HELD_MS,
            dropped: false,
        },
        Story::NotOnWhatsapp | Story::AnswersStop => return None,
    })
}

/// Where the parts of the demo find each other.
pub(super) struct Places<'a> {
    /// The daemon's own directory.
    pub(super) state_dir: &'a Path,
    /// The private database.
    pub(super) database_url: &'a str,
    /// The sandbox.
    pub(super) provider_url: &'a str,
    /// Where the daemon takes receipts.
    pub(super) webhook_port: u16,
    /// Where the daemon shows its metrics.
    pub(super) ops_port: u16,
}

/// The daemon's configuration, as a person would write it.
pub(super) fn config(setup: &Setup, places: &Places<'_>) -> String {
    let numbers: Vec<&str> = setup
        .numbers
        .iter()
        .map(|number| number.id.as_str())
        .collect();
    let (app, account) = (&setup.apps[0], &setup.accounts[0]);
    format!(
        r#"# Written by `postrider demo`.
state_dir = {state_dir:?}

[database]
url = {database_url:?}

[whatsapp]
base_url = {provider_url:?}
# So that a template whose pause the provider lifted goes on soon.
sync_every_s = 2

[[apps]]
name = {app_name:?}
app_secrets = [{app_secret:?}]
verify_token = "demo"

[[accounts]]
waba_id = {waba_id:?}
portfolio_id = {portfolio:?}
token = {token:?}

[senders.default]
numbers = {numbers:?}

[templates]
default_language = "en_US"

[pacing]
messages_per_second = {PER_SECOND}

[kinds.order]
# Keeps a marketing template from leaving as an order.
categories = ["UTILITY"]

[webhook]
listen = "127.0.0.1:{webhook_port}"

[ops]
listen = "127.0.0.1:{ops_port}"
"#,
        state_dir = places.state_dir,
        database_url = places.database_url,
        provider_url = places.provider_url,
        app_name = app.name,
        app_secret = app.secret,
        waba_id = account.waba_id,
        portfolio = account.portfolio,
        token = account.token,
        webhook_port = places.webhook_port,
        ops_port = places.ops_port,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::{
        super::samples::{Expect, plan},
        *,
    };
    use crate::{
        config::Config,
        rules::{
            job::FinalReason,
            template::{self, Standing, Whitespace},
        },
    };

    /// The sandbox's template that a job names, where it names a language too.
    fn template(setup: &Setup, planned: &Planned) -> Option<template::Template> {
        let language = planned.text("language").replace('-', "_");
        let named = setup
            .templates
            .iter()
            .find(|t| t.name == planned.text("template") && t.language == language)?;
        Some(template::Template::parse(
            &named.status,
            &named.category,
            &named.parameter_format,
            &named.components,
        ))
    }

    fn fits(planned: &Planned, template: &template::Template) -> bool {
        let content = RawValue::from_string(planned.request["parameters"].to_string()).unwrap();
        template.fill(&content, Whitespace::Collapse).is_ok()
    }

    #[test]
    fn every_sample_fits_its_template_unless_it_is_there_to_be_refused() {
        let plan = plan(100, 1).unwrap();
        let setup = setup(1, &plan);
        let mut checked = 0;
        for planned in &plan {
            let Some(template) = template(&setup, planned) else {
                continue;
            };
            checked += 1;
            match planned.expect {
                Expect::Delivered | Expect::Failed(_) => {
                    assert!(fits(planned, &template), "{}", planned.name);
                    let is_paused = planned.text("template") == PAUSED_TEMPLATE.0;
                    assert_eq!(
                        template.standing() == Standing::Held,
                        is_paused,
                        "{}",
                        planned.name
                    );
                }
                Expect::Kept(_, FinalReason::ParameterMismatch) => {
                    assert!(!fits(planned, &template), "{}", planned.name)
                }
                _ => {}
            }
        }
        assert!(checked > 60, "{checked}");
    }

    #[test]
    fn the_configuration_is_one_that_the_daemon_takes() {
        let places = Places {
            state_dir: Path::new("/tmp/demo"),
            database_url: "postgres://postrider@localhost/postrider?host=/tmp/demo/socket",
            provider_url: "http://127.0.0.1:4000",
            webhook_port: 4001,
            ops_port: 4002,
        };
        let config = Config::parse(&config(&setup(1, &[]), &places), Path::new("demo.toml"));
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.senders["default"].numbers.len(), 4);
        assert_eq!(
            config.kinds["order"].categories.as_deref(),
            Some(["UTILITY".to_owned()].as_slice())
        );
    }
}
