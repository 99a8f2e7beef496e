//! What a process does beside its workers and leases: it tells the workers the facts (`dispatch/knowing.rs`), moves jobs of numbers that cannot send, folds receipts, and looks after what is over.

use std::{collections::HashMap, sync::Arc, time::Duration};

use postrider::{
    channel::whatsapp::{Client, Credentials, Endpoint, Sender},
    dispatch::{
        event::Event,
        world::{LaneFacts, PoolFacts, World},
    },
    rules::{
        job::{KeepParameters, Kind, Lane, TemplateName},
        pace::Rate,
        template::Template,
        tier::Limit,
    },
    store::{facts::KindFact, ledger::Released},
};
use secrecy::SecretString;
use serde_json::json;

use super::{
    database::{Number, clock},
    hands::{STATEMENT_MAX, Who},
    plan::{KINDS, LanePlan, Plan, ms, secs},
    receipts::INSTALLATION,
    sending::TEMPLATE,
    sim::Sim,
};

const EVERY: Duration = secs(1);

/// What stays the same in every picture of the world.
pub(crate) struct Backdrop {
    credentials: Credentials,
    kinds: HashMap<Arc<str>, KindFact>,
    templates: HashMap<String, HashMap<TemplateName, Arc<Template>>>,
}

impl Backdrop {
    pub(crate) fn new() -> Self {
        let template = Template::parse(
            "APPROVED",
            "UTILITY",
            "POSITIONAL",
            &json!([{"type": "BODY", "text": "Hello {{1}}!"}]),
        );
        let name = TemplateName {
            name: TEMPLATE.0.to_owned(),
            language: TEMPLATE.1.to_owned(),
        };
        let templates = HashMap::from([(name, Arc::new(template))]);
        Self {
            credentials: credentials(),
            kinds: KINDS
                .iter()
                .map(|kind| (kind.name.into(), kind_fact(kind)))
                .collect(),
            templates: HashMap::from([(ACCOUNT.to_owned(), templates)]),
        }
    }
}

const ACCOUNT: &str = "waba";

fn kind_fact(plan: &super::plan::KindPlan) -> KindFact {
    KindFact {
        kind: Kind {
            name: plan.name.into(),
            priority: plan.priority,
            categories: None,
            requires_opt_in: true,
            consent_scope: None,
            keep_parameters: KeepParameters::No,
        },
        resolve_after: plan.resolve_after,
        resend: plan.resend,
    }
}

/// Nothing is ever sent there: requests of the simulation do not leave it.
fn credentials() -> Credentials {
    let endpoint = Endpoint {
        base_url: "http://127.0.0.1:1".into(),
        api_version: "v25.0".into(),
        auth_header: "Authorization".into(),
        request_timeout: secs(10),
        connect_timeout: secs(1),
        tcp_user_timeout: secs(10),
        http2_prior_knowledge: false,
        clients: 1,
    };
    let client = Client::new(&endpoint).expect("a client");
    let credentials = client.credentials(&SecretString::from("token"));
    credentials.expect("credentials")
}

impl Sim {
    /// Tells the workers the facts, once a second.
    pub(crate) fn read_facts(&mut self, who: Who) {
        self.ask(
            who,
            STATEMENT_MAX,
            |sim, _| Some(Arc::new(sim.picture())),
            move |sim, world| {
                if let Some(world) = world {
                    sim.tell_all(who, || Event::World(Arc::clone(&world)));
                }
                let again =
                    move |sim: &mut Sim| sim.when_awake(who, move |sim| sim.read_facts(who));
                sim.agenda.tick(sim.now + EVERY, again);
            },
        );
    }

    fn picture(&self) -> World {
        let now = clock(self.now);
        let lanes = self.plan.lanes.iter();
        let recently = self.database.released.iter().rev().take(100);
        let released = recently.filter(|(.., noted_at)| *noted_at > now - secs(30));
        World {
            installation: INSTALLATION.to_owned(),
            lanes: lanes
                .map(|lane| (lane.lane, Arc::new(self.lane_facts(lane))))
                .collect(),
            pair: self.plan.pair,
            kinds: self.backdrop.kinds.clone(),
            templates: self.backdrop.templates.clone(),
            released: released
                .map(|(lane, person, at, noted_at)| Released {
                    lane: *lane,
                    recipient_hash: *person,
                    at: *at,
                    noted_at: *noted_at,
                })
                .collect(),
            ..World::default()
        }
    }

    fn lane_facts(&self, lane: &LanePlan) -> LaneFacts {
        let number = &self.database.numbers[&lane.lane];
        LaneFacts {
            sender: Sender {
                phone_number_id: lane.lane.to_string().into(),
                credentials: self.backdrop.credentials.clone(),
            },
            account: ACCOUNT.into(),
            shard: number.shard,
            rate: Rate::new(lane.rate).expect("a rate"),
            pool: lane.pool.map(|pool| pool_facts(pool, &self.plan)),
            // With attempts of its former shard's holder to be seen to, it is not free whatever the time.
            free_at: match number.open_since {
                None => number.free_at,
                Some(_) => clock(secs(1_000_000_000)),
            },
            refilled_at: number.refilled_at,
            stopped: number.is_paused.then(|| "paused".into()),
        }
    }

    /// What is done now and then, by everybody, because it does not matter who does it.
    pub(crate) fn chores(&mut self, who: Who) {
        self.chore(who, |sim| sim.database.fold(clock(sim.now)));
        self.chore(who, |sim| sim.database.expire(clock(sim.now)));
        self.chore(who, |sim| sim.database.resolve(clock(sim.now)));
        self.chore(who, move |sim| sim.move_jobs(who.instance));
        let wait = self.dice.within(ms(200), EVERY);
        let again = move |sim: &mut Sim| sim.when_awake(who, move |sim| sim.chores(who));
        self.agenda.tick(self.now + wait, again);
    }

    fn chore(&mut self, who: Who, mut what: impl FnMut(&mut Sim) + 'static) {
        if self.database.queue.is_empty() && self.database.inbox.is_empty() {
            return;
        }
        let done = move |sim: &mut Sim, _| {
            what(sim);
            Some(())
        };
        self.ask(who, STATEMENT_MAX, done, |_, _| {});
    }

    /// Jobs of a paused number go to another, as all numbers are of one pool of senders.
    fn move_jobs(&mut self, instance: usize) {
        let is_paused = |number: &Number| number.is_paused;
        let numbers = &self.database.numbers;
        let Some(to) = numbers
            .iter()
            .find(|(_, n)| !is_paused(n))
            .map(|(lane, _)| *lane)
        else {
            return;
        };
        let paused = numbers.iter().filter(|(_, n)| is_paused(n));
        let paused: Vec<Lane> = paused.map(|(lane, _)| *lane).collect();
        for lane in paused {
            self.database.move_away(instance, lane, to, clock(self.now));
        }
    }
}

fn pool_facts(pool: usize, plan: &Plan) -> PoolFacts {
    PoolFacts {
        name: format!("pool {pool}").into(),
        limit: Limit {
            recipients: Some(plan.limits[pool]),
            elsewhere: 0,
            headroom: 0.05,
            urgent_reserve: 0.1,
        },
    }
}
