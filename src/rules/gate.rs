//! May this job go now? A pure function over what the look brought along, asked again at every look, so that a consent
//! withdrawn or a template paused in between counts.
//!
//! Waits that hold a whole lane (pauses, limits) are the dispatcher's: it does not ask for jobs it could not send.

use std::fmt::Write;

use chrono::{DateTime, Utc};

use super::{
    address::Address,
    consent::{Consent, consent},
    free_form::FreeForm,
    job::{FinalReason, Job, Kind, PersonFacts, TemplateName, WaitReason},
    problem::Problem,
    template::{Components, Standing, Template, Whitespace},
};

/// What the gate needs to know beside the job and its person.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The job's kind, as configured.
    pub kind: &'a Kind,
    /// The template that the job names, in its language, of the number's account; `None` where there is none.
    pub template: Option<&'a Template>,
    /// What to do with blanks that the provider refuses.
    pub whitespace: Whitespace,
}

/// What the gate says.
#[derive(Debug)]
pub enum Verdict {
    /// It may go, with this.
    Send(Payload),
    /// Not now.
    Wait(WaitReason),
    /// Never, with a sentence for whoever asks why.
    Reject(FinalReason, String),
}

/// What a request carries.
#[derive(Debug, Clone)]
pub enum Payload {
    /// A template's parameters.
    Template(Components),
    /// A message of our own words.
    FreeForm(FreeForm),
}

/// Why a job may not go.
enum No {
    Wait(WaitReason),
    Reject(FinalReason, String),
}

/// Asks every question in turn; the first no is the answer. The order is from what ends the job whatever else is true to
/// what costs most to find out.
#[must_use]
pub fn gate(job: &Job, person: &PersonFacts, world: &World<'_>, now: DateTime<Utc>) -> Verdict {
    match ask(job, person, world, now) {
        Ok(payload) => Verdict::Send(payload),
        Err(No::Wait(reason)) => Verdict::Wait(reason),
        Err(No::Reject(reason, sentence)) => Verdict::Reject(reason, sentence),
    }
}

fn ask(
    job: &Job,
    person: &PersonFacts,
    world: &World<'_>,
    now: DateTime<Utc>,
) -> Result<Payload, No> {
    validity(job, now)?;
    let address = address(job)?;
    permission(person, world.kind)?;
    match &job.template {
        Some(name) => {
            let template = standing(name, world.template)?;
            category(template, world.kind)?;
            reachable(template, &address)?;
            let filled = template.fill(&job.content, world.whitespace);
            filled
                .map(Payload::Template)
                .map_err(|problems| mismatch(&problems))
        }
        None => {
            let message = FreeForm::check(&job.content).map_err(|problems| mismatch(&problems))?;
            window(person, now)?;
            Ok(Payload::FreeForm(message))
        }
    }
}

fn reject<T>(reason: FinalReason, sentence: impl Into<String>) -> Result<T, No> {
    Err(No::Reject(reason, sentence.into()))
}

fn validity(job: &Job, now: DateTime<Utc>) -> Result<(), No> {
    if now > job.expires_at {
        let at = job.expires_at.format("%Y-%m-%d %H:%M:%S UTC");
        return reject(
            FinalReason::ValidityEnded,
            format!("it was valid until {at}"),
        );
    }
    Ok(())
}

fn address(job: &Job) -> Result<Address, No> {
    Address::parse(&job.recipient)
        .or_else(|error| reject(FinalReason::RecipientInvalid, error.to_string()))
}

/// An opt-out counts for every kind, also for one that asks for no opt-in.
fn permission(person: &PersonFacts, kind: &Kind) -> Result<(), No> {
    match consent(person) {
        Consent::Given => Ok(()),
        Consent::Never if !kind.requires_opt_in => Ok(()),
        Consent::Never => reject(FinalReason::NoOptIn, "the recipient has not opted in"),
        Consent::Withdrawn => reject(FinalReason::OptedOut, "the recipient has opted out"),
    }
}

fn standing<'a>(name: &TemplateName, template: Option<&'a Template>) -> Result<&'a Template, No> {
    let TemplateName { name, language } = name;
    let Some(template) = template else {
        let sentence = format!(
            "the account has no template {name} in {language}; `postrider sync` reads them again"
        );
        return reject(FinalReason::TemplateUnknown, sentence);
    };
    match template.standing() {
        Standing::Sendable => Ok(template),
        Standing::Held => Err(No::Wait(WaitReason::TemplatePaused)),
        Standing::Gone(reason) => {
            let status = &template.status;
            reject(
                reason,
                format!("template {name} in {language} is {status}; only an approved one is sent"),
            )
        }
    }
}

/// Keeps a marketing template from leaving as an order.
fn category(template: &Template, kind: &Kind) -> Result<(), No> {
    match &kind.categories {
        Some(allowed)
            if !allowed
                .iter()
                .any(|category| category.eq_ignore_ascii_case(&template.category)) =>
        {
            let (category, name) = (&template.category, &kind.name);
            let sentence = format!(
                "the template's category is {category}; kind {name} allows {}",
                allowed.join(", ")
            );
            reject(FinalReason::CategoryNotAllowed, sentence)
        }
        _ => Ok(()),
    }
}

/// The provider refuses codes to a business-scoped id (131062).
fn reachable(template: &Template, address: &Address) -> Result<(), No> {
    if template.is_authentication() && address.is_business_scoped() {
        let sentence =
            "an authentication template cannot go to a business-scoped id; use the phone number";
        return reject(FinalReason::RecipientInvalid, sentence);
    }
    Ok(())
}

fn window(person: &PersonFacts, now: DateTime<Utc>) -> Result<(), No> {
    match person.window_until {
        Some(until) if until > now => Ok(()),
        _ => reject(
            FinalReason::ServiceWindowClosed,
            "a free-form message goes only within 24 hours of the recipient's last message; send a template",
        ),
    }
}

fn mismatch(problems: &[Problem]) -> No {
    let mut sentence = String::new();
    for (problem, n) in problems.iter().zip(0..) {
        let separator = if n == 0 { "" } else { "; " };
        write!(sentence, "{separator}{problem}")
            .expect("a String takes everything that is written to it");
    }
    No::Reject(FinalReason::ParameterMismatch, sentence)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::TimeDelta;
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::job::{JobId, KeepParameters, Lane, Priority};

    /// A job, its person and its world in which everything is well; each test spoils one thing.
    struct Case {
        job: Job,
        person: PersonFacts,
        kind: Kind,
        template: Option<Template>,
        now: DateTime<Utc>,
    }

    fn good() -> Case {
        let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        Case {
            job: Job {
                id: JobId(1),
                lane: Lane(1),
                priority: Priority::Normal,
                due_at: now,
                tries: 0,
                spent: 0,
                kind: Arc::from("order"),
                recipient: "+905551231234".to_owned(),
                person: "+905551231234".to_owned(),
                template: Some(TemplateName {
                    name: "order_shipped".to_owned(),
                    language: "en".to_owned(),
                }),
                content: raw(&json!({"body": ["Ada"]})),
                enqueued_at: now,
                expires_at: now + TimeDelta::hours(1),
                batch: None,
            },
            person: PersonFacts {
                opted_in_at: Some(now - TimeDelta::days(1)),
                opted_out_at: None,
                window_until: Some(now + TimeDelta::minutes(1)),
            },
            kind: Kind {
                name: Arc::from("order"),
                priority: Priority::Normal,
                categories: Some(vec!["UTILITY".to_owned()]),
                requires_opt_in: true,
                consent_scope: None,
                keep_parameters: KeepParameters::No,
            },
            template: Some(template("APPROVED", "UTILITY")),
            now,
        }
    }

    fn template(status: &str, category: &str) -> Template {
        Template::parse(
            status,
            category,
            "POSITIONAL",
            &json!([{"type": "BODY", "text": "Hi {{1}}!"}]),
        )
    }

    fn free_form() -> Case {
        let mut case = good();
        case.job.template = None;
        case.template = None;
        case.job.content = raw(&json!({"type": "text", "text": {"body": "On its way"}}));
        case
    }

    fn raw(value: &Value) -> Box<serde_json::value::RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    impl Case {
        fn verdict(&self) -> Verdict {
            let template = self.template.as_ref();
            let world = World {
                kind: &self.kind,
                template,
                whitespace: Whitespace::Collapse,
            };
            gate(&self.job, &self.person, &world, self.now)
        }

        #[track_caller]
        fn is_rejected(&self, reason: FinalReason, sentence: &str) {
            match self.verdict() {
                Verdict::Reject(given, text) => {
                    assert_eq!((given, text.as_str()), (reason, sentence));
                }
                other => panic!("expected {reason}, received {other:?}"),
            }
        }

        #[track_caller]
        fn is_sent(&self) -> Payload {
            match self.verdict() {
                Verdict::Send(payload) => payload,
                other => panic!("expected to be sent, received {other:?}"),
            }
        }
    }

    #[test]
    fn a_job_with_everything_in_order_goes_with_its_parameters() {
        let Payload::Template(components) = good().is_sent() else {
            panic!("expected a template")
        };
        let expected = json!([{"type": "body", "parameters": [{"type": "text", "text": "Ada"}]}]);
        assert_eq!(json!(components), expected);
    }

    #[test]
    fn a_free_form_message_goes_in_an_open_window() {
        let Payload::FreeForm(message) = free_form().is_sent() else {
            panic!("expected a free-form message")
        };
        assert_eq!(
            (message.kind(), message.object().get()),
            ("text", r#"{"body":"On its way"}"#)
        );
    }

    #[test]
    fn a_job_goes_until_its_validity_ends_and_never_after() {
        let mut case = good();
        case.job.expires_at = case.now;
        case.is_sent();
        case.job.expires_at = case.now - TimeDelta::milliseconds(1);
        case.is_rejected(
            FinalReason::ValidityEnded,
            "it was valid until 2026-09-21 14:13:19 UTC",
        );
    }

    #[test]
    fn a_recipient_that_is_no_address_is_rejected_without_showing_it() {
        let mut case = good();
        case.job.recipient = "05551231234".to_owned();
        let sentence =
            "the phone number does not start with +; write it in E.164, for example +905551231234";
        case.is_rejected(FinalReason::RecipientInvalid, sentence);
    }

    #[test]
    fn nobody_who_never_agreed_is_written_to() {
        let mut case = good();
        case.person.opted_in_at = None;
        case.is_rejected(FinalReason::NoOptIn, "the recipient has not opted in");
        case.kind.requires_opt_in = false;
        case.is_sent();
    }

    #[test]
    fn nobody_who_withdrew_is_written_to_whatever_the_kind() {
        let mut case = good();
        case.person.opted_out_at = case.person.opted_in_at;
        case.is_rejected(FinalReason::OptedOut, "the recipient has opted out");
        case.kind.requires_opt_in = false;
        case.is_rejected(FinalReason::OptedOut, "the recipient has opted out");
        case.person.opted_in_at = Some(case.now);
        case.is_sent();
    }

    #[test]
    fn a_template_that_the_account_does_not_have_is_rejected() {
        let mut case = good();
        case.template = None;
        let sentence =
            "the account has no template order_shipped in en; `postrider sync` reads them again";
        case.is_rejected(FinalReason::TemplateUnknown, sentence);
    }

    #[test]
    fn a_paused_template_is_waited_for() {
        let mut case = good();
        case.template = Some(template("PAUSED", "UTILITY"));
        assert!(matches!(
            case.verdict(),
            Verdict::Wait(WaitReason::TemplatePaused)
        ));
    }

    #[test]
    fn a_template_that_is_not_approved_is_rejected() {
        let mut case = good();
        case.template = Some(template("PENDING", "UTILITY"));
        let sentence = "template order_shipped in en is PENDING; only an approved one is sent";
        case.is_rejected(FinalReason::TemplateNotApproved, sentence);
    }

    #[test]
    fn a_disabled_template_is_rejected() {
        let mut case = good();
        case.template = Some(template("DISABLED", "UTILITY"));
        let sentence = "template order_shipped in en is DISABLED; only an approved one is sent";
        case.is_rejected(FinalReason::TemplateDisabled, sentence);
    }

    #[test]
    fn a_marketing_template_does_not_leave_as_an_order() {
        let mut case = good();
        case.template = Some(template("APPROVED", "MARKETING"));
        let sentence = "the template's category is MARKETING; kind order allows UTILITY";
        case.is_rejected(FinalReason::CategoryNotAllowed, sentence);
        case.kind.categories = None;
        case.is_sent();
    }

    #[test]
    fn a_code_does_not_go_to_a_business_scoped_id() {
        let mut case = good();
        case.kind.categories = None;
        case.template = Some(template("APPROVED", "AUTHENTICATION"));
        case.is_sent();
        case.job.recipient = "TR.13491208655302741918".to_owned();
        let sentence =
            "an authentication template cannot go to a business-scoped id; use the phone number";
        case.is_rejected(FinalReason::RecipientInvalid, sentence);
        case.template = Some(template("APPROVED", "UTILITY"));
        case.is_sent();
    }

    #[test]
    fn parameters_that_do_not_fit_are_rejected_with_every_problem() {
        let mut case = good();
        case.job.content = raw(&json!({"body": ["Ada", ""], "x": 1}));
        let sentence = "body parameter 2: is empty, which the provider refuses; parameters: `x` is not known here; \
                        body: expected 1 parameter, received 2";
        case.is_rejected(FinalReason::ParameterMismatch, sentence);
    }

    #[test]
    fn a_free_form_message_of_the_wrong_form_is_rejected() {
        let mut case = free_form();
        case.job.content = raw(&json!({"type": "text", "text": {}}));
        case.is_rejected(FinalReason::ParameterMismatch, "text: `body` is missing");
    }

    #[test]
    fn a_free_form_message_waits_for_no_window() {
        let sentence = "a free-form message goes only within 24 hours of the recipient's last message; send a template";
        let mut case = free_form();
        case.person.window_until = Some(case.now);
        case.is_rejected(FinalReason::ServiceWindowClosed, sentence);
        case.person.window_until = None;
        case.is_rejected(FinalReason::ServiceWindowClosed, sentence);
    }

    #[test]
    fn the_first_no_is_the_answer() {
        // Everything is wrong; mending one thing after the other shows the order of the questions.
        let mut case = good();
        case.job.expires_at = case.now - TimeDelta::seconds(1);
        case.job.recipient = "x".to_owned();
        case.person.opted_in_at = None;
        case.template = None;
        case.job.content = raw(&json!({}));
        let mut reasons = Vec::new();
        let mends: [fn(&mut Case); 6] = [
            |case| case.job.expires_at = case.now,
            |case| case.job.recipient = "+905551231234".to_owned(),
            |case| case.person.opted_in_at = Some(case.now),
            |case| case.template = Some(template("REJECTED", "MARKETING")),
            |case| case.template = Some(template("APPROVED", "MARKETING")),
            |case| case.template = Some(template("APPROVED", "UTILITY")),
        ];
        for mend in mends {
            if let Verdict::Reject(reason, _) = case.verdict() {
                reasons.push(reason);
            }
            mend(&mut case);
        }
        assert!(matches!(
            case.verdict(),
            Verdict::Reject(FinalReason::ParameterMismatch, _)
        ));
        let expected = [
            FinalReason::ValidityEnded,
            FinalReason::RecipientInvalid,
            FinalReason::NoOptIn,
            FinalReason::TemplateUnknown,
            FinalReason::TemplateNotApproved,
            FinalReason::CategoryNotAllowed,
        ];
        assert_eq!(reasons, expected);
    }
}
