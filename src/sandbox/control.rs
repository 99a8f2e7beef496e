//! The levers of a running sandbox, for tests, the demo and, by `control_http`, for people.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    FaultRule, Ledger, Person, Template, identity,
    schedule::What,
    traffic::{Shared, listen},
    webhook,
    world::Number,
};

/// Sets the ids of inbound messages apart from those of sent ones.
const INBOUND: u64 = 1 << 63;

/// There is no number or template of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the sandbox has no {0}")]
pub struct Unknown(String);

/// The levers. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

/// A message from a person.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Inbound {
    /// Something written.
    Text {
        /// What.
        body: String,
        /// The id of the message that it answers.
        #[serde(default)]
        context: Option<String>,
    },
    /// A tap on a template's quick reply.
    Button {
        /// The button's payload.
        payload: String,
        /// The button's label.
        text: String,
        /// The id of the template message.
        context: String,
    },
    /// A tap on a button of an interactive message.
    ButtonReply {
        /// The button's id.
        id: String,
        /// The button's label.
        title: String,
        /// The id of the interactive message.
        context: String,
    },
    /// Any other: an object with `type` and what belongs to it.
    Other(Value),
}

/// What is to change about a number; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NumberChange {
    /// `CONNECTED` sends; anything else answers 133010.
    pub status: Option<String>,
    /// GREEN, YELLOW, RED or UNKNOWN.
    pub quality_rating: Option<String>,
    /// More than this in any second (and the slack) is 130429.
    pub messages_per_second: Option<u32>,
}

/// The state in a few figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Requests that arrived.
    pub arrived: u64,
    /// Messages that were accepted.
    pub accepted: u64,
    /// Updates that wait for their time.
    pub updates_waiting: usize,
    /// Updates that were posted, or tried to, and are not answered 200 yet.
    pub updates_unanswered: usize,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>) -> Control {
        Control { shared }
    }

    /// What arrived so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger {
            shared: self.shared.clone(),
        }
    }

    /// The state in a few figures.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let traffic = self.shared.traffic();
        Summary {
            arrived: traffic.ledger.next_serial(),
            accepted: traffic.ledger.accepted,
            updates_waiting: traffic.schedule.len(),
            updates_unanswered: traffic.schedule.outstanding,
        }
    }

    /// Adds a fault, behind those that are there already.
    pub fn fault(&self, rule: FaultRule) {
        self.shared.traffic().faults.add(rule);
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.shared.traffic().faults.clear();
    }

    /// Somebody writes to a number; opens the service window. Gives the message's id.
    pub fn inbound_text(&self, from: &str, number: &str, body: &str) -> Result<String, Unknown> {
        self.inbound(
            from,
            number,
            &Inbound::Text {
                body: body.to_owned(),
                context: None,
            },
        )
    }

    /// Somebody taps a quick reply of the template message `context`.
    pub fn inbound_button(
        &self,
        from: &str,
        number: &str,
        payload: &str,
        context: &str,
    ) -> Result<String, Unknown> {
        let (payload, context) = (payload.to_owned(), context.to_owned());
        self.inbound(
            from,
            number,
            &Inbound::Button {
                text: payload.clone(),
                payload,
                context,
            },
        )
    }

    /// Somebody (a phone with `+`) sends a message to a number; opens the service window. Gives the message's id.
    pub fn inbound(&self, from: &str, number: &str, message: &Inbound) -> Result<String, Unknown> {
        let number = self.number(number)?;
        let digits: String = from.chars().filter(char::is_ascii_digit).collect();
        let wa_id = identity::wa_id(&digits);
        self.shared.open_window(&number, &wa_id);
        let mut id = String::new();
        self.push(number.app, &number.waba_id, |shared, order| {
            id = identity::message_id(&wa_id, INBOUND | order, shared.seed());
            let message = element(
                message,
                &number,
                &wa_id,
                &id,
                shared.unix_seconds(shared.now()),
            );
            webhook::inbound(&number, &wa_id, &message)
        });
        Ok(id)
    }

    /// Posts any webhook: one element of `changes`, on behalf of a number's account.
    pub fn webhook(&self, number: &str, field: &str, value: &Value) -> Result<(), Unknown> {
        let number = self.number(number)?;
        self.push(
            number.app,
            &number.waba_id,
            |_, _| json!({"field": field, "value": value}),
        );
        Ok(())
    }

    /// Changes a template's status in every account that has it, and tells the apps.
    pub fn template_status(&self, name: &str, language: &str, status: &str) -> Result<(), Unknown> {
        let mut changed = Vec::new();
        for listed in self.shared.world_mut().templates_named(name, language) {
            listed.status = status.to_owned();
            changed.push((listed.setup.waba_id.clone(), listed.id));
        }
        if changed.is_empty() {
            return Err(Unknown(format!("template {name} in {language}")));
        }
        for (waba_id, id) in changed {
            let app = self
                .shared
                .world()
                .account(&waba_id)
                .map_or(0, |account| account.app);
            // Webhooks spell languages with a hyphen, unlike the listing.
            let language = language.replace('_', "-");
            self.push(app, &waba_id, |_, _| {
                json!({"field": "message_template_status_update", "value": {
                    "event": status, "message_template_id": id, "message_template_name": name,
                    "message_template_language": language, "reason": "NONE"
                }})
            });
        }
        Ok(())
    }

    /// Adds a template, or replaces the one of the same account, name and language.
    pub fn set_template(&self, template: &Template) {
        self.shared.world_mut().add_template(template);
    }

    /// Changes a number.
    pub fn set_number(&self, id: &str, change: NumberChange) -> Result<(), Unknown> {
        let mut world = self.shared.world_mut();
        let number = world.number_mut(id).ok_or_else(|| unknown_number(id))?;
        let setup = &mut number.setup;
        setup.status = change.status.unwrap_or_else(|| setup.status.clone());
        setup.quality_rating = change
            .quality_rating
            .unwrap_or_else(|| setup.quality_rating.clone());
        setup.messages_per_second = change
            .messages_per_second
            .unwrap_or(setup.messages_per_second);
        Ok(())
    }

    /// Changes what a token must be: requests with the old one answer 190.
    pub fn set_token(&self, waba_id: &str, token: &str) {
        self.shared.world_mut().set_token(waba_id, token);
    }

    /// Changes a portfolio's messaging limit; none means unlimited.
    pub fn set_messaging_limit(&self, portfolio: &str, limit: Option<u32>) {
        let mut world = self.shared.world_mut();
        for known in world
            .portfolios
            .iter_mut()
            .filter(|known| known.id == portfolio)
        {
            known.messaging_limit = limit;
        }
    }

    /// Says what is special about a person.
    pub fn set_person(&self, person: Person) {
        self.shared.world_mut().set_person(person);
    }

    /// From now on, webhooks of every app go to `url`. Messages that were accepted without any have no receipts.
    pub fn callback(&self, url: &str) {
        for app in &mut self.shared.world_mut().apps {
            app.callback_url = Some(url.to_owned());
        }
    }

    /// Holds webhooks back, or lets them go again.
    pub fn pause_webhooks(&self, pause: bool) {
        self.shared.traffic().schedule.is_paused = pause;
    }

    /// Whether every update so far was answered 200 or given up.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let summary = self.summary();
        summary.updates_waiting == 0 && summary.updates_unanswered == 0
    }

    /// Waits until every update was answered 200 or given up.
    pub async fn quiet(&self) {
        listen(&self.shared.posted, || self.is_quiet()).await;
    }

    fn number(&self, id: &str) -> Result<Arc<Number>, Unknown> {
        self.shared
            .world()
            .number(id)
            .cloned()
            .ok_or_else(|| unknown_number(id))
    }

    /// Puts a change into the schedule, due now; it is given its place in the order.
    fn push(&self, app: usize, waba_id: &str, change: impl FnOnce(&Shared, u64) -> Value) {
        let mut traffic = self.shared.traffic();
        let change = change(&self.shared, traffic.schedule.pushed());
        let what = What::Change {
            app,
            waba_id: waba_id.to_owned(),
            change,
        };
        traffic.schedule.push(self.shared.now(), what);
        self.shared.due.notify_one();
    }
}

fn unknown_number(id: &str) -> Unknown {
    Unknown(format!("number {id}"))
}

/// One element of an inbound webhook's `messages`.
fn element(message: &Inbound, number: &Number, wa_id: &str, id: &str, at: i64) -> Value {
    let (kind, object, context) = match message {
        Inbound::Text { body, context } => ("text", json!({"body": body}), context.as_ref()),
        Inbound::Button {
            payload,
            text,
            context,
        } => (
            "button",
            json!({"payload": payload, "text": text}),
            Some(context),
        ),
        Inbound::ButtonReply { id, title, context } => {
            let reply = json!({"type": "button_reply", "button_reply": {"id": id, "title": title}});
            ("interactive", reply, Some(context))
        }
        Inbound::Other(value) => {
            let kind = value["type"].as_str().unwrap_or("unsupported");
            (kind, value[kind].clone(), None)
        }
    };
    let mut element = json!({
        "from": wa_id, "from_user_id": identity::user_id(wa_id), "id": id, "timestamp": at.to_string(), "type": kind
    });
    element[kind] = object;
    if let Some(context) = context {
        element["context"] = json!({"from": number.digits, "id": context});
    }
    element
}
