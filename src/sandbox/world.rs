//! The facts that requests are held against: accounts, numbers, templates, people. They change only by the control.

use std::{collections::HashMap, sync::Arc};

use axum::http::HeaderValue;
use serde_json::json;

use super::{
    SandboxError,
    errors::ApiError,
    identity,
    setup::{self, Setup},
    template::Shape,
};

/// All facts.
pub(super) struct World {
    pub(super) apps: Vec<setup::App>,
    pub(super) portfolios: Vec<setup::Portfolio>,
    pub(super) accounts: Vec<Account>,
    pub(super) templates: Vec<Listed>,
    numbers: HashMap<String, Arc<Number>>,
    /// Account → name → language → place in `templates`; nested, so that a lookup needs no key of its own.
    by_name: HashMap<String, HashMap<String, HashMap<String, usize>>>,
    /// By `wa_id`.
    people: HashMap<String, setup::Person>,
}

/// An account with the places of what it belongs to.
pub(super) struct Account {
    pub(super) setup: setup::Account,
    pub(super) app: usize,
    pub(super) portfolio: usize,
    /// What `Authorization` must say.
    pub(super) authorization: String,
    /// The usage header of quiet times.
    usage: HeaderValue,
}

impl Account {
    fn new(setup: setup::Account, app: usize, portfolio: usize) -> Account {
        let authorization = format!("Bearer {}", setup.token);
        let usage = usage(&setup.waba_id, 1, 0);
        Account {
            setup,
            app,
            portfolio,
            authorization,
            usage,
        }
    }

    /// The usage header that goes with an answer: after a call limit it says when to come back.
    pub(super) fn usage(&self, code: i32) -> HeaderValue {
        match code {
            4 | 80_007 => usage(&self.setup.waba_id, 100, 1),
            _ => self.usage.clone(),
        }
    }
}

fn usage(waba_id: &str, percent: u32, minutes: u32) -> HeaderValue {
    let usage = json!({waba_id: [{
        "type": "whatsapp", "call_count": percent, "total_cputime": percent, "total_time": percent,
        "estimated_time_to_regain_access": minutes
    }]});
    HeaderValue::from_str(&usage.to_string()).unwrap_or(HeaderValue::from_static("{}"))
}

/// A number with what requests need of its account.
#[derive(Debug, Clone)]
pub(super) struct Number {
    /// Its place in the order of the setup.
    pub(super) place: u32,
    pub(super) setup: setup::Number,
    /// The display number's digits.
    pub(super) digits: String,
    pub(super) waba_id: String,
    pub(super) account: usize,
    pub(super) app: usize,
    pub(super) portfolio: usize,
}

/// A template as listed.
pub(super) struct Listed {
    pub(super) id: u64,
    pub(super) status: String,
    pub(super) category: String,
    pub(super) setup: setup::Template,
    pub(super) shape: Shape,
}

impl World {
    /// Puts the setup's parts together; what refers to something that is not there is an error.
    pub(super) fn new(setup: &Setup) -> Result<World, SandboxError> {
        let mut world = World {
            apps: setup.apps.clone(),
            portfolios: setup.portfolios.clone(),
            accounts: Vec::new(),
            templates: Vec::new(),
            numbers: HashMap::new(),
            by_name: HashMap::new(),
            people: HashMap::new(),
        };
        for account in &setup.accounts {
            world.add_account(account)?;
        }
        for (place, number) in (0..).zip(&setup.numbers) {
            world.add_number(place, number)?;
        }
        for template in &setup.templates {
            world.add_template(template);
        }
        for person in &setup.people {
            world.set_person(person.clone());
        }
        Ok(world)
    }

    fn add_account(&mut self, account: &setup::Account) -> Result<(), SandboxError> {
        let app = self.apps.iter().position(|app| app.name == account.app);
        let portfolio = self
            .portfolios
            .iter()
            .position(|portfolio| portfolio.id == account.portfolio);
        let absent = |what, name: &str| {
            SandboxError::Setup(format!("account {}: no {what} {name}", account.waba_id))
        };
        let app = app.ok_or_else(|| absent("app", &account.app))?;
        let portfolio = portfolio.ok_or_else(|| absent("portfolio", &account.portfolio))?;
        self.accounts
            .push(Account::new(account.clone(), app, portfolio));
        Ok(())
    }

    fn add_number(&mut self, place: u32, number: &setup::Number) -> Result<(), SandboxError> {
        let account = self
            .accounts
            .iter()
            .position(|account| account.setup.waba_id == number.waba_id);
        let account = account.ok_or_else(|| {
            SandboxError::Setup(format!(
                "number {}: no account {}",
                number.id, number.waba_id
            ))
        })?;
        let known = Number {
            place,
            digits: number
                .display_phone_number
                .chars()
                .filter(char::is_ascii_digit)
                .collect(),
            waba_id: number.waba_id.clone(),
            account,
            app: self.accounts[account].app,
            portfolio: self.accounts[account].portfolio,
            setup: number.clone(),
        };
        self.numbers.insert(number.id.clone(), Arc::new(known));
        Ok(())
    }

    /// Adds a template, or replaces the one of the same account, name and language.
    pub(super) fn add_template(&mut self, template: &setup::Template) {
        let listed = Listed {
            id: 700_000_000_000_001 + self.templates.len() as u64,
            status: template.status.clone(),
            category: template.category.clone(),
            shape: Shape::of(
                &template.category,
                &template.parameter_format,
                &template.components,
            ),
            setup: template.clone(),
        };
        let names = self.by_name.entry(template.waba_id.clone()).or_default();
        let languages = names.entry(template.name.clone()).or_default();
        match languages.get(&template.language) {
            Some(place) => {
                self.templates[*place] = Listed {
                    id: self.templates[*place].id,
                    ..listed
                }
            }
            None => {
                languages.insert(template.language.clone(), self.templates.len());
                self.templates.push(listed);
            }
        }
    }

    /// Replaces what is special about a person.
    pub(super) fn set_person(&mut self, person: setup::Person) {
        let digits: String = person.phone.chars().filter(char::is_ascii_digit).collect();
        self.people.insert(identity::wa_id(&digits), person);
    }

    /// What is special about the person with this `wa_id`.
    pub(super) fn person(&self, wa_id: &str) -> Option<&setup::Person> {
        if self.people.is_empty() {
            None
        } else {
            self.people.get(wa_id)
        }
    }

    /// The number with this id.
    pub(super) fn number(&self, id: &str) -> Option<&Arc<Number>> {
        self.numbers.get(id)
    }

    /// A number to change; the changed one is seen from the next request on.
    pub(super) fn number_mut(&mut self, id: &str) -> Option<&mut Number> {
        self.numbers.get_mut(id).map(Arc::make_mut)
    }

    /// All numbers of an account, in the order of the setup.
    pub(super) fn numbers_of(&self, waba_id: &str) -> Vec<&Arc<Number>> {
        let mut numbers: Vec<_> = self
            .numbers
            .values()
            .filter(|number| number.waba_id == waba_id)
            .collect();
        numbers.sort_by_key(|number| number.place);
        numbers
    }

    /// The template of this name and language.
    pub(super) fn template(&self, waba_id: &str, name: &str, language: &str) -> Option<&Listed> {
        let place = self.by_name.get(waba_id)?.get(name)?.get(language)?;
        Some(&self.templates[*place])
    }

    /// Every account's template of this name and language.
    pub(super) fn templates_named(
        &mut self,
        name: &str,
        language: &str,
    ) -> impl Iterator<Item = &mut Listed> {
        self.templates
            .iter_mut()
            .filter(move |listed| listed.setup.name == name && listed.setup.language == language)
    }

    /// The account with this id.
    pub(super) fn account(&self, waba_id: &str) -> Option<&Account> {
        self.accounts
            .iter()
            .find(|account| account.setup.waba_id == waba_id)
    }

    /// Gives an account another token.
    pub(super) fn set_token(&mut self, waba_id: &str, token: &str) {
        for account in self
            .accounts
            .iter_mut()
            .filter(|account| account.setup.waba_id == waba_id)
        {
            account.setup.token = token.to_owned();
            account.authorization = format!("Bearer {token}");
        }
    }

    /// Whether some account knows this `Authorization`.
    pub(super) fn knows(&self, authorization: &str) -> bool {
        self.accounts
            .iter()
            .any(|account| account.authorization == authorization)
    }

    /// The number that a request may send from: the token first, then the object, then its registration.
    pub(super) fn sender(&self, id: &str, authorization: &str) -> Result<&Arc<Number>, ApiError> {
        let number = self.number(id);
        match number {
            Some(number) if self.accounts[number.account].authorization == authorization => {
                if number.setup.status != "CONNECTED" {
                    let details = "Account does not exist in Cloud API, please use /register API to create an account first";
                    return Err(ApiError::new(133_010, details));
                }
                Ok(number)
            }
            _ if !self.knows(authorization) => Err(ApiError::token()),
            _ => Err(ApiError::missing("POST", id)),
        }
    }
}
