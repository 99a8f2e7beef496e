//! Writes down what an answer means beyond its job: a number, an account or a template is paused, an opt-out noted, a
//! window closed, two addresses made one person's. It is written rather than kept in memory, so that every instance heeds it, a restart does not forget it,
//! and operators see who stopped what.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::event::{About, Learned};
use crate::{
    clock,
    rules::outcome::Effect,
    store::{
        Store,
        facts::{self, By, Pause, Scope},
        people::{self, Link},
    },
};

/// A template whose parameters were refused so often in a row is not what we believe it to be.
const SUSPICIONS_MAX: u32 = 5;
/// A template that we suspect, or that the provider does not know, rests until it was read again.
const TEMPLATE_REST: Duration = Duration::from_secs(15 * 60);

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
    /// Rung when the provider's lists should be read again.
    pub resync: Arc<Notify>,
}

impl Applying {
    /// Writes until `stop`, and then what is still waiting.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut suspicions = HashMap::new();
        loop {
            let next = tokio::select! {
                biased;
                next = self.learned.recv() => next,
                () = stop.cancelled() => None,
            };
            let Some(learned) = next else { return };
            let written = match &learned {
                Learned::Effect(effect, about) => self.apply(*effect, about, &mut suspicions).await,
                Learned::SamePerson(link) => self.link(link).await,
            };
            match written {
                Ok(()) => self.changed.notify_one(),
                Err(error) => {
                    tracing::error!(%error, "what the provider's answer means beyond its job could not be written");
                }
            }
        }
    }

    /// Links give up rather than wait behind a long transaction, so they are tried again.
    async fn link(&self, link: &Link) -> Result<(), sqlx::Error> {
        let link = std::slice::from_ref(link);
        for _ in 1..LINK_TRIES {
            if people::link(self.store.pool(), link).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(LINK_AGAIN).await;
        }
        people::link(self.store.pool(), link).await.map(|_| ())
    }

    async fn apply(
        &self,
        effect: Effect,
        about: &About,
        suspicions: &mut HashMap<String, u32>,
    ) -> Result<(), sqlx::Error> {
        let template = about
            .template
            .as_ref()
            .map(|t| format!("{}/{}/{}", about.account, t.name, t.language));
        match (effect, template) {
            (Effect::PauseNumber { for_ }, _) => {
                self.pause(Scope::Number, &about.phone_number_id, for_, about)
                    .await
            }
            (Effect::PauseAccount { for_ }, _) => {
                self.pause(Scope::Account, &about.account, for_, about)
                    .await
            }
            (Effect::PauseTemplate { for_ }, Some(template)) => {
                self.pause(Scope::Template, &template, for_, about).await?;
                self.resync.notify_one();
                Ok(())
            }
            (Effect::StopTemplate, Some(template)) => {
                self.pause(Scope::Template, &template, Some(TEMPLATE_REST), about)
                    .await?;
                self.resync.notify_one();
                Ok(())
            }
            (Effect::SuspectTemplate, Some(template)) => {
                let times = suspicions.entry(template.clone()).or_default();
                *times += 1;
                if *times < SUSPICIONS_MAX {
                    return Ok(());
                }
                suspicions.remove(&template);
                self.pause(Scope::Template, &template, Some(TEMPLATE_REST), about)
                    .await?;
                self.resync.notify_one();
                Ok(())
            }
            (Effect::OptOutMarketing, _) => {
                people::opt_out_of_marketing(self.store.pool(), &about.person, clock::now()).await
            }
            (Effect::CloseWindow, _) => {
                people::close_window(self.store.pool(), &about.person, about.lane).await
            }
            // The rest is done in the worker's memory, or concerns the job alone.
            _ => Ok(()),
        }
    }

    async fn pause(
        &self,
        scope: Scope,
        target: &str,
        lasts: Option<Duration>,
        about: &About,
    ) -> Result<(), sqlx::Error> {
        let pause = Pause {
            scope,
            target,
            by: By::Provider,
            reason: &about.title,
            error_code: about.code,
            until: lasts.map(|lasts| clock::now() + lasts),
        };
        if facts::pause(self.store.pool(), &pause).await? {
            let (what, code) = (scope.as_str(), about.code.unwrap_or(0));
            tracing::warn!(
                target,
                code,
                reason = about.title,
                "the provider's answer pauses the {what} {target}"
            );
        }
        Ok(())
    }
}
