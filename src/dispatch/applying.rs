//! Writes down what an answer means beyond its job: a number, an account or a template is paused, an opt-out noted, a
//! window closed, two addresses made one person's. It is written rather than kept in memory, so that every instance heeds it, a restart does not forget it,
//! and operators see who stopped what.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::event::{About, Learned};
use crate::{
    clock,
    rules::{
        breaker::{Due, Opened, Target},
        outcome::Effect,
    },
    store::{
        Store,
        facts::{self, By, Pause, Scope},
        is_away,
        people::{self, Link},
        sync, within,
    },
};

/// What takes longer is on a connection that hangs.
const STATEMENT_MAX: Duration = Duration::from_secs(10);
/// While the database is away it is tried again after this: a withdrawn consent must not be forgotten over it.
const AGAIN: Duration = Duration::from_millis(500);
/// How often, and how far apart, addresses are tried to be made one person's.
const LINK_TRIES: u32 = 5;
const LINK_AGAIN: Duration = Duration::from_millis(500);

/// What writes it down.
pub struct Applying {
    /// Where to.
    pub store: Store,
    /// Where it comes from.
    pub learned: mpsc::UnboundedReceiver<Learned>,
    /// Rung when facts changed.
    pub changed: Arc<Notify>,
}

impl Applying {
    /// Writes until `stop`, and then what is still waiting.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let next = tokio::select! {
                biased;
                next = self.learned.recv() => next,
                () = stop.cancelled() => None,
            };
            let Some(learned) = next else { return };
            let mut written = within(STATEMENT_MAX, self.write(&learned)).await;
            while written.as_ref().is_err_and(is_away)
                && stop.run_until_cancelled(sleep(AGAIN)).await.is_some()
            {
                written = within(STATEMENT_MAX, self.write(&learned)).await;
            }
            match written {
                Ok(()) => self.changed.notify_one(),
                Err(error) => {
                    tracing::error!(%error, "what the provider's answer means beyond its job could not be written");
                }
            }
        }
    }

    async fn write(&self, learned: &Learned) -> Result<(), sqlx::Error> {
        match learned {
            Learned::Stopped(opened, about) => self.stop(opened, about).await,
            Learned::Closed(due, about) => self.close(due, about).await,
            Learned::Effect(effect, about) => self.apply(*effect, about).await,
            Learned::SamePerson(link) => self.link(link).await,
        }
    }

    /// Links give up rather than wait behind a long transaction, so they are tried again.
    async fn link(&self, link: &Link) -> Result<(), sqlx::Error> {
        let link = std::slice::from_ref(link);
        for _ in 1..LINK_TRIES {
            if people::link(self.store.pool(), link).await.is_ok() {
                return Ok(());
            }
            sleep(LINK_AGAIN).await;
        }
        people::link(self.store.pool(), link).await.map(|_| ())
    }

    /// A stop of a template also asks what the provider says of it now; after it is written, since that may wait for others.
    async fn stop(&self, opened: &Opened, about: &About) -> Result<(), sqlx::Error> {
        let (scope, target) = written(&opened.target, &about.phone_number_id);
        let pause = Pause {
            scope,
            target: &target,
            by: By::Provider,
            reason: &opened.stop.reason,
            error_code: opened.stop.code,
            since: None,
            until: opened.stop.until,
        };
        if facts::pause(self.store.pool(), &pause).await? {
            let (what, code) = (scope.as_str(), about.code.unwrap_or(0));
            tracing::warn!(
                target,
                code,
                reason = opened.stop.reason,
                "the provider's answer pauses the {what} {target}"
            );
        }
        if let Target::Template { account, .. } = &opened.target {
            sync::ask(self.store.pool(), account).await?;
        }
        Ok(())
    }

    async fn close(&self, due: &Due, about: &About) -> Result<(), sqlx::Error> {
        let (scope, target) = written(&due.target, &about.phone_number_id);
        if facts::close(self.store.pool(), scope, &target, due.until).await? {
            let what = scope.as_str();
            tracing::info!(
                target,
                "the {what} {target} goes again: a message was taken"
            );
        }
        Ok(())
    }

    async fn apply(&self, effect: Effect, about: &About) -> Result<(), sqlx::Error> {
        match effect {
            Effect::OptOutMarketing => {
                people::opt_out_of_marketing(self.store.pool(), &about.person, clock::now()).await
            }
            Effect::CloseWindow => {
                people::close_window(self.store.pool(), &about.person, about.lane).await
            }
            // The rest is done in the worker's memory, or concerns the job alone.
            _ => Ok(()),
        }
    }
}

/// What stands among the pauses for a target; a number is named by Meta's id there.
pub(super) fn written(target: &Target, phone_number_id: &str) -> (Scope, String) {
    match target {
        Target::Number(_) => (Scope::Number, phone_number_id.to_owned()),
        Target::Account(account) => (Scope::Account, account.to_string()),
        Target::Template { account, name } => {
            let template = format!("{account}/{}/{}", name.name, name.language);
            (Scope::Template, template)
        }
    }
}
