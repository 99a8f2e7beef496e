//! Faults on demand: what goes wrong, and with which requests.

use rand::{RngExt, rngs::StdRng};
use serde::Deserialize;

/// What goes wrong. Except for [`Fault::ResetBeforeBody`], only requests that would be accepted are struck.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// A coded error; the message is not accepted.
    Refuse {
        /// The provider's code.
        code: i32,
        /// The HTTP status, if another than the code's usual one.
        #[serde(default)]
        http_status: Option<u16>,
    },
    /// A body that is no JSON and has no code, as from a proxy at the edge: with 500 and 503, but also with 200.
    NotJson {
        /// The HTTP status.
        http_status: u16,
        /// Whether the message was accepted nevertheless.
        accepted: bool,
    },
    /// The connection is reset when only the request's head was read; nothing is accepted. With `recipient` or
    /// `template` in the rule the body has to be read to know. On HTTP/2 the whole connection goes, here and below.
    ResetBeforeBody,
    /// The message is accepted, then the connection is reset instead of an answer.
    ResetAfterAccepting,
    /// The message is accepted, and no answer ever comes.
    SilenceAfterAccepting,
    /// The message is accepted, and the answer's body trickles in.
    SlowBody {
        /// From its first byte to its last.
        over_ms: u64,
    },
    /// The message is accepted, but the answer has no message id.
    NoId,
    /// The message is accepted and held back for a quality assessment.
    Hold {
        /// Until it is released, or dropped.
        for_ms: u64,
        /// Whether it is dropped in the end (132015) rather than released.
        dropped: bool,
    },
    /// The message is accepted, and a `failed` receipt with this code follows.
    FailLater {
        /// The provider's code.
        code: i32,
    },
    /// The message is accepted, and nothing is heard of it again.
    NoReceipts,
}

/// How often a rule strikes.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The next so many requests that match.
    Next(u32),
    /// This share of the requests that match, drawn from the seed.
    Share(f64),
    /// Every request that matches.
    Always,
}

/// A fault and the requests that it strikes; the first rule that strikes wins.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// What goes wrong.
    pub fault: Fault,
    /// How often.
    pub when: When,
    /// Only for this number's id.
    #[serde(default)]
    pub number: Option<String>,
    /// Only for this recipient, as written in the request.
    #[serde(default)]
    pub recipient: Option<String>,
    /// Only for this template's name.
    #[serde(default)]
    pub template: Option<String>,
}

impl FaultRule {
    /// Strikes the next `count` requests.
    #[must_use]
    pub fn next(count: u32, fault: Fault) -> FaultRule {
        FaultRule {
            fault,
            when: When::Next(count),
            number: None,
            recipient: None,
            template: None,
        }
    }

    /// Strikes this share of requests.
    #[must_use]
    pub fn share(share: f64, fault: Fault) -> FaultRule {
        FaultRule {
            when: When::Share(share),
            ..FaultRule::next(0, fault)
        }
    }

    /// Strikes every request.
    #[must_use]
    pub fn always(fault: Fault) -> FaultRule {
        FaultRule {
            when: When::Always,
            ..FaultRule::next(0, fault)
        }
    }

    /// Only requests of this number's id.
    #[must_use]
    pub fn number(self, id: &str) -> FaultRule {
        FaultRule {
            number: Some(id.to_owned()),
            ..self
        }
    }

    /// Only requests to this recipient, as written in the request.
    #[must_use]
    pub fn recipient(self, recipient: &str) -> FaultRule {
        FaultRule {
            recipient: Some(recipient.to_owned()),
            ..self
        }
    }

    /// Only requests with this template.
    #[must_use]
    pub fn template(self, name: &str) -> FaultRule {
        FaultRule {
            template: Some(name.to_owned()),
            ..self
        }
    }

    /// Whether the head of a request is enough to know that it strikes.
    fn is_early(&self) -> bool {
        self.fault == Fault::ResetBeforeBody && self.recipient.is_none() && self.template.is_none()
    }

    fn matches(&self, request: &Target<'_>) -> bool {
        let fits =
            |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        fits(&self.number, request.number)
            && fits(&self.recipient, request.recipient)
            && fits(&self.template, request.template)
    }
}

/// What rules look at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Target<'a> {
    pub(super) number: &'a str,
    pub(super) recipient: &'a str,
    pub(super) template: &'a str,
}

/// The rules in force.
#[derive(Default)]
pub(super) struct Faults(Vec<FaultRule>);

impl Faults {
    pub(super) fn new(rules: Vec<FaultRule>) -> Faults {
        Faults(rules)
    }

    pub(super) fn add(&mut self, rule: FaultRule) {
        self.0.push(rule);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether the connection is to be reset before the body is read.
    pub(super) fn strikes_early(&mut self, number: &str, rng: &mut StdRng) -> bool {
        self.strike(
            Target {
                number,
                ..Target::default()
            },
            true,
            rng,
        )
        .is_some()
    }

    /// The fault that strikes a request whose body was read.
    pub(super) fn pick(&mut self, target: Target<'_>, rng: &mut StdRng) -> Option<Fault> {
        self.strike(target, false, rng)
    }

    fn strike(&mut self, target: Target<'_>, early: bool, rng: &mut StdRng) -> Option<Fault> {
        let rules = self
            .0
            .iter_mut()
            .filter(|rule| rule.is_early() == early && rule.matches(&target));
        for rule in rules {
            let strikes = match &mut rule.when {
                When::Next(left) => std::mem::replace(left, left.saturating_sub(1)) > 0,
                When::Share(share) => rng.random_bool(share.clamp(0.0, 1.0)),
                When::Always => true,
            };
            if strikes {
                return Some(rule.fault.clone());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_rule_strikes_only_what_it_names_and_as_often_as_it_says() {
        let rng = &mut StdRng::seed_from_u64(1);
        let refuse = Fault::Refuse {
            code: 131_000,
            http_status: None,
        };
        let mut faults = Faults::new(vec![
            FaultRule::next(2, refuse.clone())
                .number("1")
                .recipient("+49"),
        ]);
        let target = Target {
            number: "1",
            recipient: "+49",
            template: "any",
        };
        assert_eq!(
            faults.pick(
                Target {
                    number: "2",
                    ..target
                },
                rng
            ),
            None
        );
        assert_eq!(
            faults.pick(
                Target {
                    recipient: "+44",
                    ..target
                },
                rng
            ),
            None
        );
        assert_eq!(faults.pick(target, rng), Some(refuse.clone()));
        assert_eq!(faults.pick(target, rng), Some(refuse));
        assert_eq!(faults.pick(target, rng), None);
    }

    #[test]
    fn a_share_is_about_that_share_and_the_same_for_the_same_seed() {
        let draw = |seed| {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut faults = Faults::new(vec![FaultRule::share(0.1, Fault::NoId)]);
            (0..10_000)
                .map(|_| faults.pick(Target::default(), rng).is_some())
                .collect::<Vec<_>>()
        };
        let struck = draw(5).into_iter().filter(|struck| *struck).count();
        assert!((900..1_100).contains(&struck), "{struck}");
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn rules_read_as_json_and_as_toml() {
        let rule: FaultRule = serde_json::from_str(
            r#"{"fault":{"refuse":{"code":2}},"when":{"next":3},"number":"1"}"#,
        )
        .unwrap();
        assert_eq!(
            rule,
            FaultRule::next(
                3,
                Fault::Refuse {
                    code: 2,
                    http_status: None
                }
            )
            .number("1")
        );
        let rule: FaultRule =
            toml::from_str("fault = \"reset_before_body\"\nwhen = { share = 0.5 }").unwrap();
        assert_eq!(rule, FaultRule::share(0.5, Fault::ResetBeforeBody));
    }
}
