//! What a worker knows of the world beside the queue: one immutable snapshot, replaced whole when anything changes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use super::ids::IdMap;
use crate::{
    channel::whatsapp::Sender,
    rules::{
        breaker::{Stop, Target},
        job::{Lane, TemplateName},
        pace::Rate,
        pair::Allowance,
        pick::Floor,
        template::{Standing, Template, Whitespace},
        tier::Limit,
    },
    store::{echoes::Echo, facts::KindFact, ledger::Released, look::Holds},
};

/// Facts about numbers, kinds and templates.
#[derive(Debug, Default)]
pub struct World {
    /// Names this installation in callback data.
    pub installation: String,
    /// What becomes of line breaks and runs of blanks in parameters.
    pub whitespace: Whitespace,
    /// Every number that the configuration names.
    pub lanes: IdMap<Lane, Arc<LaneFacts>>,
    /// Whether each number has a messaging limit of its own; else all numbers of a portfolio share one.
    pub limit_per_number: bool,
    /// What the provider's word stopped; its time may be over.
    pub stops: Vec<(Target, Stop)>,
    /// How often a number may write to one person.
    pub pair: Allowance,
    /// What normal and bulk jobs keep of a number's posts.
    pub floor: Floor,
    /// Every kind.
    pub kinds: HashMap<Arc<str>, KindFact>,
    /// Templates by account.
    pub templates: HashMap<String, HashMap<TemplateName, Arc<Template>>>,
    /// What a person or the provider's answer paused, beside numbers and templates whose own status says so.
    pub paused: Holds,
    /// Held messages that the provider has sent of late; each comes more than once.
    pub released: Vec<Released>,
    /// What was sent from phone apps since the snapshot before this; each comes once.
    pub echoes: Vec<Echo>,
}

/// A number, as its lane needs it.
#[derive(Debug, Clone)]
pub struct LaneFacts {
    /// Meta's id of it, and what its requests carry.
    pub sender: Sender,
    /// Its account.
    pub account: Arc<str>,
    /// Its shard.
    pub shard: i16,
    /// How fast it may post.
    pub rate: Rate,
    /// What its messaging limit applies to; `None` when it has no limit.
    pub pool: Option<PoolFacts>,
    /// Nothing may be posted for it before this.
    pub free_at: DateTime<Utc>,
    /// When jobs of another number were last moved here: they stand before whatever was read.
    pub refilled_at: DateTime<Utc>,
    /// Why nothing may be posted for it now, for people; `None` when it may.
    pub stopped: Option<Arc<str>>,
}

/// What a messaging limit applies to, and the limit.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolFacts {
    /// The portfolio's id, or the number's where each number has its own limit.
    pub name: Arc<str>,
    /// How much of it may be used.
    pub limit: Limit,
}

impl World {
    /// The template that a job on this account names.
    #[must_use]
    pub fn template(&self, account: &str, name: &TemplateName) -> Option<&Template> {
        self.templates.get(account)?.get(name).map(AsRef::as_ref)
    }

    /// Everything whose jobs stay where they are: paused by somebody, or templates by their own status.
    #[must_use]
    pub fn holds(&self) -> Holds {
        let mut holds = self.paused.clone();
        for (account, templates) in &self.templates {
            let held = templates
                .iter()
                .filter(|(_, template)| template.standing() == Standing::Held)
                .map(|(name, _)| name.clone());
            let mut held = held.peekable();
            if held.peek().is_some() {
                holds
                    .templates
                    .entry(account.clone())
                    .or_default()
                    .extend(held);
            }
        }
        holds
    }
}

/// The shards that this instance may send for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leases {
    /// Epoch by shard.
    pub epochs: HashMap<i16, i64>,
    /// Shards that it may send for no more and gives back as soon as nothing of them is under way.
    pub leaving: HashMap<i16, i64>,
    /// Nothing may be posted after this, on the boot-time clock.
    pub deadline: Duration,
}
