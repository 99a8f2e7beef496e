//! Keeps the workers' picture of the world up to date: reads the facts every second, and at once when somebody says that
//! they changed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    crew::Crew,
    event::Event,
    world::{LaneFacts, PoolFacts, World},
};
use crate::{
    channel::whatsapp::{Client, Credentials, Sender},
    clock,
    rules::{
        breaker::{Stop, Target},
        job::{Priority, TemplateName},
        pace::{Rate, provider_rate},
        pair::Allowance,
        pick::Floor,
        template::{Template, Whitespace},
        tier::Limit,
    },
    store::{
        Store,
        echoes::{self, Echo},
        facts::{self, Facts, NumberFact, PauseFact, Scope, TemplateFact},
        ledger,
        look::Holds,
        within,
    },
};

/// What changes the rules takes effect within a second.
const READ_EVERY: Duration = Duration::from_secs(1);
/// What takes longer is on a connection that hangs.
const READ_MAX: Duration = Duration::from_secs(5);
/// The only status in which a number can send (Meta, phone numbers, 2026-09).
const CONNECTED: &str = "CONNECTED";
/// The status of a number that the provider was never asked about.
const NEVER_SYNCED: &str = "UNKNOWN";

/// What the configuration says of numbers and templates; replaced as a whole by a reload.
#[derive(Debug, Clone)]
pub struct Guide {
    /// What becomes of line breaks and runs of blanks in parameters.
    pub whitespace: Whitespace,
    /// Messages per second of a number that nobody set a rate for; `None`: what the provider says.
    pub rate: Option<Rate>,
    /// How much of the messaging limits may be used.
    pub share: Share,
    /// How often a number may write to one person.
    pub pair: Allowance,
    /// What normal and bulk jobs keep of a number's posts.
    pub floor: Floor,
    /// Tokens by account.
    pub tokens: BTreeMap<String, SecretString>,
}

/// How much of a messaging limit may be used; see [`Limit`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// How many recipients other systems of the same portfolio use.
    pub elsewhere: u32,
    /// The share of the rest that is never used, 0 to 1.
    pub headroom: f64,
    /// The share of the rest that only urgent jobs may use, 0 to 1.
    pub urgent_reserve: f64,
}

/// What keeps the picture.
pub struct Knowing {
    /// Where the facts are.
    pub store: Store,
    /// Who is to be told.
    pub crew: Crew,
    /// Prepares requests.
    pub client: Client,
    /// What the configuration says.
    pub guide: watch::Receiver<Guide>,
    /// Rung when facts changed.
    pub changed: Arc<Notify>,
    /// Who else wants to see the picture.
    pub shown: watch::Sender<Arc<World>>,
}

impl Knowing {
    /// Reads and tells until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut picture = Picture::new(clock::now());
        while !stop.is_cancelled() {
            let mut again_in = READ_EVERY;
            match within(READ_MAX, self.read(&mut picture)).await {
                Ok(next_free) => again_in = next_free.unwrap_or(READ_EVERY).min(READ_EVERY),
                Err(error) => {
                    tracing::warn!(%error, "the facts about numbers and templates could not be read")
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.changed.notified() => {}
                _ = self.guide.changed() => picture.forget_credentials(),
                () = tokio::time::sleep(again_in) => {}
            }
        }
    }

    /// Returns in how long a number may be sent for that may not yet: its workers are told then, not a second later.
    async fn read(&mut self, picture: &mut Picture) -> Result<Option<Duration>, sqlx::Error> {
        let pool = self.store.pool();
        let (facts, templates) = facts::load_with_templates(pool, picture.revision).await?;
        let released = ledger::released_since(pool, picture.released_to).await?;
        let echoes = echoes::since(pool, picture.echoes_to).await?;
        picture.learn(templates);
        let latest = released.last().map(|last| last.noted_at);
        picture.released_to = latest.unwrap_or_default().max(picture.released_to);
        // Also when it changed while the database was asked.
        if self.guide.has_changed().unwrap_or(false) {
            picture.forget_credentials();
        }
        let guide = self.guide.borrow_and_update().clone();
        let echoes = picture.hear(echoes);
        let world = Arc::new(World {
            released,
            echoes,
            ..picture.world(facts, &guide, &self.client)
        });
        self.crew.tell(|| Event::World(Arc::clone(&world)));
        let next_free = next_free(&world, clock::now());
        self.shown.send_replace(world);
        Ok(next_free)
    }
}

fn next_free(world: &World, now: DateTime<Utc>) -> Option<Duration> {
    let times = world.lanes.values().map(|facts| facts.free_at - now);
    times.filter_map(|ahead| ahead.to_std().ok()).min()
}

/// What is remembered between two readings.
struct Picture {
    revision: i64,
    /// Held messages that were sent are known up to here. What was noted before the start is in the ledgers already.
    released_to: DateTime<Utc>,
    /// The same for what was sent from phone apps.
    echoes_to: DateTime<Utc>,
    /// Those that may be read again, so that each counts once.
    heard: HashSet<i64>,
    templates: HashMap<String, HashMap<TemplateName, Arc<Template>>>,
    names: Names,
    /// By account.
    credentials: HashMap<String, Credentials>,
}

impl Picture {
    fn new(now: DateTime<Utc>) -> Self {
        Self {
            revision: 0,
            released_to: now,
            echoes_to: now,
            heard: HashSet::new(),
            templates: HashMap::new(),
            names: Names::default(),
            credentials: HashMap::new(),
        }
    }

    fn learn(&mut self, templates: Vec<TemplateFact>) {
        for fact in templates {
            self.revision = self.revision.max(fact.revision);
            let template = Template::parse(
                &fact.status,
                &fact.category,
                &fact.parameter_format,
                &fact.components,
            );
            let name = TemplateName {
                name: fact.name,
                language: fact.language,
            };
            self.templates
                .entry(fact.waba_id)
                .or_default()
                .insert(name, Arc::new(template));
        }
    }

    /// Those that are new.
    fn hear(&mut self, mut echoes: Vec<Echo>) -> Vec<Echo> {
        let latest = echoes.last().map(|last| last.noted_at);
        self.echoes_to = latest.unwrap_or_default().max(self.echoes_to);
        let all = echoes.iter().map(|echo| echo.message_hash).collect();
        let heard = std::mem::replace(&mut self.heard, all);
        echoes.retain(|echo| !heard.contains(&echo.message_hash));
        echoes
    }

    fn world(&mut self, facts: Facts, guide: &Guide, client: &Client) -> World {
        let limit_per_number =
            facts.settings.get("limit_scope").and_then(Value::as_str) == Some("number");
        let lanes = facts
            .numbers
            .iter()
            .filter_map(|number| {
                let credentials = self.credentials(number, guide, client)?;
                let facts = LaneFacts {
                    pool: self.pool(number, limit_per_number, guide.share),
                    ..self.lane_facts(number, credentials, &facts.pauses, guide)
                };
                Some((number.lane, Arc::new(facts)))
            })
            .collect();
        World {
            installation: facts.settings.installation().to_owned(),
            whitespace: guide.whitespace,
            limit_per_number,
            pair: guide.pair,
            floor: guide.floor,
            lanes,
            paused: paused(&facts.pauses),
            stops: stops(&facts),
            kinds: facts.kinds,
            templates: self.templates.clone(),
            released: Vec::new(),
            echoes: Vec::new(),
        }
    }

    /// Tokens may have changed.
    fn forget_credentials(&mut self) {
        self.credentials.clear();
    }

    /// What the number's requests carry; made once an account. Without a token none can be made.
    fn credentials(
        &mut self,
        number: &NumberFact,
        guide: &Guide,
        client: &Client,
    ) -> Option<Credentials> {
        if let Some(known) = self.credentials.get(&number.waba_id) {
            return Some(known.clone());
        }
        match client.credentials(guide.tokens.get(&number.waba_id)?) {
            Ok(credentials) => {
                self.credentials
                    .insert(number.waba_id.clone(), credentials.clone());
                Some(credentials)
            }
            Err(error) => {
                tracing::error!(%error, number = number.phone_number_id, "no request can be made for this number");
                None
            }
        }
    }

    fn lane_facts(
        &mut self,
        number: &NumberFact,
        credentials: Credentials,
        pauses: &[PauseFact],
        guide: &Guide,
    ) -> LaneFacts {
        let set = number
            .messages_per_second
            .and_then(|rate| Rate::new(rate).ok());
        let provider = || provider_rate(number.throughput_level.as_deref(), number.is_on_biz_app);
        LaneFacts {
            sender: Sender {
                phone_number_id: self.names.one(&number.phone_number_id),
                credentials,
            },
            account: self.names.one(&number.waba_id),
            shard: number.shard,
            rate: set.or(guide.rate).unwrap_or_else(provider),
            free_at: number.free_at,
            refilled_at: number.refilled_at,
            stopped: stopped(number, pauses).map(Into::into),
            pool: None,
        }
    }

    /// What the number's messaging limit applies to, if it has one.
    fn pool(
        &mut self,
        number: &NumberFact,
        limit_per_number: bool,
        share: Share,
    ) -> Option<PoolFacts> {
        let name = match limit_per_number {
            true => &number.phone_number_id,
            false => &number.portfolio_id,
        };
        Some(PoolFacts {
            name: self.names.one(name),
            limit: Limit {
                recipients: Some(u32::try_from(number.messaging_limit?).unwrap_or(0)),
                elsewhere: share.elsewhere,
                headroom: share.headroom,
                urgent_reserve: share.urgent_reserve,
            },
        })
    }
}

/// Names that many numbers have, and each picture again: each is kept once.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn one(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// Why the number may not send, for people.
fn stopped(number: &NumberFact, pauses: &[PauseFact]) -> Option<String> {
    let pause = pauses.iter().find(|pause| match pause.scope {
        Scope::All => true,
        Scope::Number => pause.target == number.phone_number_id,
        Scope::Account => pause.target == number.waba_id,
        _ => false,
    });
    if let Some(pause) = pause {
        return Some(format!("{} paused: {}", pause.scope.as_str(), pause.reason));
    }
    match number.status.as_str() {
        CONNECTED => None,
        // Without its templates every job would be refused for having none.
        NEVER_SYNCED => Some("the provider was not asked about it yet".to_owned()),
        status => Some(format!("the provider says that it is {status}")),
    }
}

/// What is paused without a number being stopped.
fn paused(pauses: &[PauseFact]) -> Holds {
    let mut holds = Holds::default();
    for PauseFact { scope, target, .. } in pauses {
        match scope {
            Scope::Kind => _ = holds.kinds.insert(target.as_str().into()),
            Scope::Batch => _ = holds.batches.insert(target.clone()),
            Scope::Priority => holds.priorities.extend(target.parse::<Priority>()),
            Scope::Template => {
                if let Some((account, template)) = template_of(target) {
                    holds.templates.entry(account).or_default().insert(template);
                }
            }
            Scope::All | Scope::Number | Scope::Account => {}
        }
    }
    holds
}

/// What the provider's word stopped.
fn stops(facts: &Facts) -> Vec<(Target, Stop)> {
    let by_provider = facts.pauses.iter().filter(|pause| pause.by_provider);
    by_provider
        .chain(&facts.ended)
        .filter_map(|pause| {
            let target = match pause.scope {
                Scope::Number => {
                    let is_meant = |number: &&NumberFact| number.phone_number_id == pause.target;
                    Target::Number(facts.numbers.iter().find(is_meant)?.lane)
                }
                Scope::Account => Target::Account(pause.target.as_str().into()),
                Scope::Template => {
                    let (account, name) = template_of(&pause.target)?;
                    Target::Template {
                        account: account.into(),
                        name,
                    }
                }
                Scope::All | Scope::Kind | Scope::Priority | Scope::Batch => return None,
            };
            let stop = Stop {
                reason: pause.reason.clone(),
                code: pause.error_code,
                since: pause.since,
                until: pause.until,
            };
            Some((target, stop))
        })
        .collect()
}

/// Account and template of a pause's target.
fn template_of(target: &str) -> Option<(String, TemplateName)> {
    let (account, template) = target.split_once('/')?;
    let (name, language) = template.split_once('/')?;
    let template = TemplateName {
        name: name.to_owned(),
        language: language.to_owned(),
    };
    Some((account.to_owned(), template))
}
