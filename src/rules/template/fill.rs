//! Holds what a job brings against what the template takes.

use std::mem::take;

use serde_json::value::RawValue;

use super::{
    Action, Header, Problem, Problems, Template, Text, Whitespace, code,
    given::{self, Entry, Given, body_place, quoted},
    values::Reader,
    wire::{ButtonParameter, Component, Components, Parameter, ParameterValue},
};

// After substitution (WHATSAPP.md 5.2 and error 132005), counted in characters.
const HEADER_MAX: usize = 60;
const BODY_MAX: usize = 1024;
const URL_MAX: usize = 2000;
/// Since 2025-12-03; 15 before.
const COUPON_MAX: usize = 20;

pub(super) fn fill(
    template: &Template,
    content: &RawValue,
    whitespace: Whitespace,
) -> Result<Components, Vec<Problem>> {
    let mut reader = Reader::new(whitespace);
    let mut given = given::read(content, &mut reader);
    let mut filler = Filler {
        template,
        problems: reader.problems,
        components: Vec::new(),
    };
    filler.spread_code(&mut given);
    filler.header(take(&mut given.header));
    filler.body(take(&mut given.body));
    filler.buttons(given);
    if template.is_authentication() {
        code::check(&filler.components, &mut filler.problems);
    }
    for part in &template.unsupported {
        filler.problems.add(
            part,
            "this template has one, and Postrider does not send it",
        );
    }
    filler.problems.or(Components(filler.components))
}

/// A value for the body and where it stands; `None` for one whose problem is known already.
type Placed = (String, Option<ParameterValue>);

/// Builds the components and collects what does not fit. A method gives `None` when it has added a problem.
struct Filler<'a> {
    template: &'a Template,
    problems: Problems,
    components: Vec<Component>,
}

impl Filler<'_> {
    fn problem<T>(&mut self, place: impl Into<String>, what: impl Into<String>) -> Option<T> {
        self.problems.add(place, what);
        None
    }

    /// The provider wants the code twice: as the body's parameter and as the button's.
    fn spread_code(&mut self, given: &mut Given) {
        let Some(code) = given.code.take() else {
            return;
        };
        if !self.template.is_authentication() {
            return self
                .problems
                .add("code", "only an authentication template takes one");
        }
        let variable = self
            .template
            .body
            .variables()
            .first()
            .map(|&name| name.to_owned());
        let value = Some(ParameterValue::Text { text: code.clone() });
        given.body = vec![Entry {
            name: variable.filter(|_| self.template.is_named),
            value,
        }];
        if let Some(index) = self
            .template
            .buttons
            .iter()
            .position(|button| button.action == Action::Otp)
        {
            given
                .buttons
                .insert(index, Some(ButtonParameter::Text { text: code }));
        }
    }

    fn header(&mut self, entries: Vec<Entry>) {
        let header = self
            .template
            .header
            .as_ref()
            .filter(|header| header.is_variable());
        let parameter = match header {
            None if entries.is_empty() => return,
            None => self.problem("header", "this template's header takes no parameter"),
            Some(Header::Unsupported(format)) => self.problem(
                "header",
                format!("this template's is a {format}, and Postrider does not send it"),
            ),
            Some(header) => self.header_parameter(header, entries),
        };
        self.components
            .extend(parameter.map(|parameter| Component::Header {
                parameters: [parameter],
            }));
    }

    fn header_parameter(&mut self, header: &Header, entries: Vec<Entry>) -> Option<Parameter> {
        let count = entries.len();
        let Ok([Entry { name, value }]) = <[Entry; 1]>::try_from(entries) else {
            return self.problem(
                "header",
                format!("expected {}, exactly one; received {count}", header.takes()),
            );
        };
        let value = value?;
        if !header.accepts(&value) {
            return self.problem(
                "header",
                format!("expected {}, received {}", header.takes(), value.kind()),
            );
        }
        let Header::Text(text) = header else {
            return Some(Parameter {
                parameter_name: None,
                value,
            });
        };
        let variable = text
            .variables()
            .first()
            .filter(|_| self.template.is_named)
            .map(|&name| name.to_owned());
        if name.is_some() && name != variable {
            return self.problem("header", "its parameter_name is not the template's");
        }
        self.length("header", text, &[value.shown()], HEADER_MAX);
        Some(Parameter {
            parameter_name: variable,
            value,
        })
    }

    fn body(&mut self, entries: Vec<Entry>) {
        let text = &self.template.body;
        let variables = text.variables();
        if entries.is_empty() && variables.is_empty() {
            return;
        }
        let Some(values) = self
            .arranged(&variables, entries)
            .and_then(|entries| self.texts(entries))
        else {
            return;
        };
        let shown: Vec<&str> = values.iter().map(ParameterValue::shown).collect();
        self.length("body", text, &shown, BODY_MAX);
        let name = |name: &str| self.template.is_named.then(|| name.to_owned());
        let names = variables.into_iter().map(name);
        let parameters = names.zip(values).map(|(parameter_name, value)| Parameter {
            parameter_name,
            value,
        });
        self.components.push(Component::Body {
            parameters: parameters.collect(),
        });
    }

    /// The body's entries in the template's order, one for each variable.
    fn arranged(&mut self, variables: &[&str], entries: Vec<Entry>) -> Option<Vec<Placed>> {
        let expected = variables.len();
        let is_named = entries.iter().any(|entry| entry.name.is_some());
        let what = match (self.template.is_named, is_named) {
            (true, false) if !entries.is_empty() => {
                format!(
                    "this template's parameters have names; give an object with {}",
                    variables.join(", ")
                )
            }
            (true, _) => return Some(self.by_name(variables, entries)),
            (false, true) => "this template's parameters have no names; give a list".to_owned(),
            (false, false) if entries.len() != expected => {
                format!(
                    "expected {}, received {}",
                    count_of(expected, "parameter"),
                    entries.len()
                )
            }
            (false, false) => {
                return Some(
                    entries
                        .into_iter()
                        .zip(1..)
                        .map(|(entry, n)| (body_place(&n), entry.value))
                        .collect(),
                );
            }
        };
        self.problem("body", what)
    }

    /// Puts named values in the template's order and tells which names are missing or too many.
    fn by_name(&mut self, variables: &[&str], mut entries: Vec<Entry>) -> Vec<Placed> {
        let mut placed = Vec::with_capacity(variables.len());
        for &variable in variables {
            let place = body_place(&quoted(variable));
            let value = match entries
                .iter()
                .position(|entry| entry.name.as_deref() == Some(variable))
            {
                Some(at) => entries.swap_remove(at).value,
                None => self.problem(&place, "is missing"),
            };
            placed.push((place, value));
        }
        for name in entries.iter().filter_map(|entry| entry.name.as_deref()) {
            let place = body_place(&quoted(name));
            self.problems.add(
                place,
                "the template has no parameter of this name, or it is given twice",
            );
        }
        placed
    }

    /// The values, when all are there and all can stand inside a text.
    fn texts(&mut self, placed: Vec<Placed>) -> Option<Vec<ParameterValue>> {
        for (place, value) in &placed {
            if let Some(value) = value.as_ref().filter(|value| !value.is_text()) {
                let what = format!(
                    "expected a text, currency or date_time, received {}",
                    value.kind()
                );
                self.problems.add(place, what);
            }
        }
        placed.into_iter().map(|(_, value)| value).collect()
    }

    fn buttons(&mut self, mut given: Given) {
        for (index, button) in self.template.buttons.iter().enumerate() {
            let component = match given.buttons.remove(&index) {
                Some(parameter) => {
                    parameter.and_then(|parameter| self.button(index, &button.action, parameter))
                }
                None => self.bare_button(index, &button.action),
            };
            self.components.extend(component);
        }
        let count = self.template.buttons.len();
        for index in given.buttons.into_keys() {
            self.problems.add(
                button_place(index),
                format!(
                    "this template has {}, counted from 0",
                    count_of(count, "button")
                ),
            );
        }
    }

    fn button(
        &mut self,
        index: usize,
        action: &Action,
        parameter: ButtonParameter,
    ) -> Option<Component> {
        let place = button_place(index);
        let sub_type = match action.takes() {
            Some((takes, sub_type)) if takes == parameter.kind() => sub_type,
            Some((takes, _)) => {
                return self.problem(
                    place,
                    format!("expected {takes}, received {}", parameter.kind()),
                );
            }
            None => {
                return self.problem(
                    place,
                    format!("{} and takes no parameter", action.describe()),
                );
            }
        };
        match (action, &parameter) {
            (Action::Url(url), ButtonParameter::Text { text }) => {
                self.length(&place, url, &[text], URL_MAX);
            }
            (_, ButtonParameter::CouponCode { coupon_code }) => self.coupon(&place, coupon_code),
            _ => {}
        }
        let parameters = (!parameter.is_bare()).then_some([parameter]);
        Some(Component::Button {
            sub_type,
            index,
            parameters,
        })
    }

    /// A button for which the job brings nothing.
    fn bare_button(&mut self, index: usize, action: &Action) -> Option<Component> {
        match (action, action.takes()) {
            // Without a payload the tap brings back the label.
            (Action::QuickReply, _) | (_, None) => None,
            // Must be named in the request even when it carries nothing.
            (Action::Flow, Some((_, sub_type))) => Some(Component::Button {
                sub_type,
                index,
                parameters: None,
            }),
            (_, Some((takes, _))) => self.problem(
                button_place(index),
                format!("expected {takes}, received nothing"),
            ),
        }
    }

    fn coupon(&mut self, place: &str, coupon: &str) {
        let count = coupon.chars().count();
        if count > COUPON_MAX {
            self.problems.add(
                place,
                format!("the coupon code has {count} characters; at most {COUPON_MAX} are allowed"),
            );
        }
    }

    fn length(&mut self, place: &str, text: &Text, values: &[&str], max: usize) {
        let count = text.with(values).chars().count();
        if count > max {
            self.problems.add(
                place,
                format!("has {count} characters with its parameters; at most {max} are allowed"),
            );
        }
    }
}

fn count_of(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn button_place(index: usize) -> String {
    format!("button {index}")
}
