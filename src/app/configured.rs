//! The configuration in the words of the parts that go by it.

use serde_json::Value;

use crate::{
    channel::whatsapp::Endpoint,
    config::{Config, ConfigError, Environment, LimitScope},
    http::webhook,
    rules::{keywords::Keywords, unknown::OnUnknown},
    store::{
        ConnectOptions,
        facts::{MirroredAccount, MirroredConfig, MirroredKind, MirroredSender},
    },
};

/// How to connect to the database.
#[must_use]
pub fn connect_options(config: &Config) -> ConnectOptions {
    ConnectOptions {
        max_connections: config.database.max_connections,
        acquire_timeout: config.database.acquire_timeout(),
        pooler: config.database.pooler,
        ..ConnectOptions::default()
    }
}

/// Where the provider is.
#[must_use]
pub fn endpoint(config: &Config) -> Endpoint {
    let whatsapp = &config.whatsapp;
    Endpoint {
        base_url: whatsapp.base_url.clone(),
        api_version: whatsapp.api_version.clone(),
        auth_header: whatsapp.auth_header.clone(),
        request_timeout: whatsapp.request_timeout(),
        connect_timeout: whatsapp.connect_timeout(),
        // Bytes that nobody confirmed for so long were not answered either.
        tcp_user_timeout: whatsapp.request_timeout(),
        http2_prior_knowledge: whatsapp.http2_prior_knowledge,
        clients: whatsapp.connections,
    }
}

/// What SQL functions and other instances must know.
#[must_use]
pub fn mirrored(config: &Config) -> MirroredConfig {
    MirroredConfig {
        kinds: mirrored_kinds(config),
        senders: config
            .senders
            .iter()
            .map(|(name, sender)| MirroredSender {
                name: name.clone(),
                phone_number_ids: sender.numbers.clone(),
                strict: sender.sticky,
            })
            .collect(),
        accounts: config
            .accounts
            .iter()
            .map(|account| MirroredAccount {
                waba_id: account.waba_id.clone(),
                portfolio_id: account.portfolio().to_owned(),
                app: config.app_of(account).to_owned(),
            })
            .collect(),
        settings: vec![
            (
                "default_kind".to_owned(),
                Value::from(config.enqueue.default_kind.as_str()),
            ),
            (
                "default_sender".to_owned(),
                Value::from(config.enqueue.default_sender.as_str()),
            ),
            (
                "default_language".to_owned(),
                Value::from(config.templates.default_language.replace('-', "_")),
            ),
            ("ring".to_owned(), Value::from(config.enqueue.ring)),
            (
                "lease_ttl_ms".to_owned(),
                Value::from(config.dispatch.lease_ttl_ms),
            ),
            (
                "on_recategorised".to_owned(),
                Value::from(config.templates.on_recategorised.as_str()),
            ),
        ],
        default_messaging_limit: i32::try_from(config.limits.default_messaging_limit)
            .unwrap_or(i32::MAX),
        limit_per_number: config.limits.limit_scope == LimitScope::Number,
    }
}

fn mirrored_kinds(config: &Config) -> Vec<MirroredKind> {
    let mirrored = config.kinds.iter().map(|(name, kind)| MirroredKind {
        kind: kind.to_rule(name),
        valid_for: kind.valid_for(),
        resolve_after: kind.resolve_after(),
        resend: kind.on_unknown == OnUnknown::Resend,
    });
    mirrored.collect()
}

/// What the webhook goes by.
///
/// # Errors
/// When an app's secret is not where the configuration says.
pub fn webhook_settings(
    config: &Config,
    environment: &Environment,
    installation: &str,
) -> Result<webhook::WebhookSettings, ConfigError> {
    let apps = config.apps.iter().map(|app| {
        Ok(webhook::App {
            name: app.name.clone(),
            secrets: app.resolve_secrets(environment)?,
            verify_token: app.resolve_verify_token(environment)?,
        })
    });
    Ok(webhook::WebhookSettings {
        apps: apps.collect::<Result<_, ConfigError>>()?,
        keywords: Keywords::new(&config.consent.keywords, &config.consent.opt_out_payloads),
        stop_covers: config.consent.stop_covers.scope().to_owned(),
        installation: installation.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnRecategorised;

    #[test]
    fn what_is_to_become_of_recategorised_templates_is_told_to_the_database() {
        let mut config = Config::default();
        for (choice, word) in [
            (OnRecategorised::Pause, "pause"),
            (OnRecategorised::Warn, "warn"),
        ] {
            config.templates.on_recategorised = choice;
            let setting = ("on_recategorised".to_owned(), Value::from(word));
            assert!(mirrored(&config).settings.contains(&setting), "{word}");
        }
    }
}
