//! The provider's error codes and what each means, as data: the table of the Cloud API's fact sheet (September 2026).
//!
//! A test compares codes and classes with a copy of that table, row by row.

use std::time::Duration;

use super::{Consequence, Effect, Few, Outcome};
use crate::rules::job::FinalReason::{
    self, CountryBlocked, IdentityChanged, MediaFailed, NotReachableOnWhatsapp, OptedOut,
    ParameterMismatch, PaymentProblem, ProviderRefused, RecipientInvalid, ServiceWindowClosed,
    TemplateDisabled, TemplateNotApproved, TemplateUnknown, WithheldByProvider,
};

/// A code, or a range of codes, and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The first code.
    pub first: i32,
    /// The last code, the same for a single one.
    pub last: i32,
    /// The class in the words of the fact sheet: R retry; TN, TP, TA throttle of number, pair, account; PN, PA, PT pause of
    /// number, account, template; AU credentials; XQ bad request; XR bad recipient; XM this message only.
    pub class: &'static str,
    /// The reason of a job that ends with this code.
    pub reason: FinalReason,
    meaning: Meaning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// No answer to a send. If it comes as one, the rule for codes that we do not know decides.
    Elsewhere,
    /// What follows.
    Clear(Consequence),
}

impl Row {
    /// What follows when this is the answer to a send; `None` when it should not be one.
    #[must_use]
    pub fn consequence(&self) -> Option<Consequence> {
        match self.meaning {
            Meaning::Elsewhere => None,
            Meaning::Clear(consequence) => Some(consequence),
        }
    }

    const fn then(mut self, outcome: Outcome) -> Self {
        self.meaning = Meaning::Clear(Consequence::of(outcome));
        self
    }

    /// Changes what follows; a row that says nothing yet is a free retry.
    const fn with(
        mut self,
        effect: Option<Effect>,
        wait: Option<Duration>,
        few: Option<Few>,
    ) -> Self {
        if let Meaning::Clear(consequence) = &mut self.meaning {
            consequence.effect = effect;
            consequence.wait_at_least = wait;
            consequence.few = few;
        }
        self
    }

    const fn ends_as(mut self, reason: FinalReason) -> Self {
        self.reason = reason;
        self
    }

    /// The job failed for now, and that costs it an attempt.
    const fn retry(self) -> Self {
        self.then(Outcome::Retry { spends: true })
    }

    const fn retry_after(self, wait: Duration) -> Self {
        self.retry().with(None, Some(wait), None)
    }

    const fn retry_few(self, attempts: i32, reason: FinalReason) -> Self {
        self.retry()
            .with(
                None,
                None,
                Some(Few {
                    attempts,
                    then: reason,
                }),
            )
            .ends_as(reason)
    }

    /// It is not about the job: that costs it nothing. Its own wait is short, because what is stopped or slowed holds it
    /// anyway, and may be let go sooner than expected: a template is approved again by webhook, a person resumes a number.
    const fn hold(self, effect: Effect) -> Self {
        let wait = match effect {
            Effect::SlowAccount { for_ } => Some(for_),
            Effect::PauseNumber { for_: Some(_) }
            | Effect::PauseAccount { for_: Some(_) }
            | Effect::PauseTemplate { for_: Some(_) } => Some(HELD_WAIT),
            _ => None,
        };
        self.then(Outcome::Retry { spends: false })
            .with(Some(effect), wait, None)
    }

    const fn refuse(self, reason: FinalReason) -> Self {
        self.then(Outcome::Refused(reason)).ends_as(reason)
    }

    const fn refuse_and(self, reason: FinalReason, effect: Effect) -> Self {
        self.refuse(reason).with(Some(effect), None, None)
    }
}

const fn codes(first: i32, last: i32, class: &'static str) -> Row {
    Row {
        first,
        last,
        class,
        reason: ProviderRefused,
        meaning: Meaning::Elsewhere,
    }
}

const fn code(code: i32, class: &'static str) -> Row {
    codes(code, code, class)
}

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// Long enough that whoever reads the queue next knows what is held.
const HELD_WAIT: Duration = Duration::from_secs(1);

const STOP_ACCOUNT: Effect = Effect::PauseAccount { for_: None };
const STOP_NUMBER: Effect = Effect::PauseNumber { for_: None };
/// When the usage headers do not say how long: the provider counts by the hour, so a minute costs little.
const SLOW_ACCOUNT: Effect = Effect::SlowAccount { for_: minutes(1) };
/// Lifts by itself or by a webhook, nobody says when: one probe an hour.
const PROBE_TEMPLATE: Effect = Effect::PauseTemplate {
    for_: Some(minutes(60)),
};

/// The row of a code.
#[must_use]
pub fn row_of(code: i32) -> Option<&'static Row> {
    TABLE
        .iter()
        .find(|row| (row.first..=row.last).contains(&code))
}

/// Every code that the fact sheet has, in its order.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    code(0, "AU, PA").hold(STOP_ACCOUNT),
    code(190, "AU, PA").hold(STOP_ACCOUNT),
    code(3, "AU, PA").hold(STOP_ACCOUNT),
    code(10, "AU, PA").hold(STOP_ACCOUNT),
    codes(200, 299, "AU, PA").hold(STOP_ACCOUNT),
    code(368, "PA").hold(STOP_ACCOUNT).ends_as(WithheldByProvider),
    code(131_031, "PA").hold(STOP_ACCOUNT).ends_as(WithheldByProvider),
    code(130_497, "XR (by country)").refuse(CountryBlocked),
    // The cap is on one category, and the template is what we have of that: each is held at its first such answer.
    code(131_064, "PA for the category, long backoff").hold(PROBE_TEMPLATE).ends_as(WithheldByProvider),
    code(4, "TA").hold(SLOW_ACCOUNT),
    code(80_007, "TA").hold(SLOW_ACCOUNT),
    code(613, "TA").hold(SLOW_ACCOUNT),
    code(130_429, "TN").hold(Effect::SlowNumber),
    code(131_048, "TN hard: PN and alert").hold(STOP_NUMBER).ends_as(WithheldByProvider),
    code(131_056, "TP").hold(Effect::StopPair),
    code(133_016, "R long (admin only)").hold(Effect::PauseNumber { for_: Some(minutes(60)) }),
    code(1, "R few times, then XQ").retry_few(3, ProviderRefused),
    code(2, "R").retry(),
    code(33, "PN").hold(STOP_NUMBER),
    code(100, "XQ; subcode 33 = PN/PA").refuse(ProviderRefused),
    code(130_403, "XR").refuse(ProviderRefused),
    code(130_472, "XM (marketing only), do not retry").refuse(WithheldByProvider),
    code(131_000, "R").retry(),
    code(131_005, "AU").hold(STOP_NUMBER),
    code(131_008, "XQ").refuse(ParameterMismatch),
    code(131_009, "XQ / XR").refuse(ParameterMismatch),
    code(131_014, "XM").refuse(MediaFailed),
    code(131_016, "R").retry(),
    code(131_021, "XR").refuse(RecipientInvalid),
    code(131_026, "XR, suppress after N").refuse_and(NotReachableOnWhatsapp, Effect::SuppressRecipient),
    code(131_030, "XQ (configuration)").refuse(ProviderRefused),
    code(131_035, "log"),
    code(131_036, "XM").refuse(ProviderRefused),
    code(131_037, "PN").hold(STOP_NUMBER),
    code(131_041, "n/a"),
    code(131_042, "PA").hold(STOP_ACCOUNT).ends_as(PaymentProblem),
    code(131_044, "PA").hold(STOP_ACCOUNT).ends_as(PaymentProblem),
    code(131_045, "PN").hold(STOP_NUMBER),
    code(131_047, "XM; close local window").refuse_and(ServiceWindowClosed, Effect::CloseWindow),
    code(131_049, "XM; retry no sooner than 24 h, marketing only").refuse(WithheldByProvider),
    code(131_050, "XR for marketing: record opt-out").refuse_and(OptedOut, Effect::OptOutMarketing),
    code(131_051, "XQ").refuse(ProviderRefused),
    code(131_052, "inbound only"),
    code(131_053, "R few (COU treats as retryable), then XM").retry_few(3, MediaFailed),
    code(131_055, "XQ").refuse(ProviderRefused),
    // The number's throughput is being raised: nothing it sends will pass for about a minute.
    code(131_057, "R ~1 min").hold(Effect::PauseNumber { for_: Some(minutes(1)) }),
    code(131_058, "XQ").refuse(ProviderRefused),
    code(131_059, "restart listing"),
    code(131_060, "XM").refuse(ProviderRefused),
    code(131_062, "XR: use phone").refuse(RecipientInvalid),
    code(131_063, "XQ").refuse(ProviderRefused),
    code(132_000, "XQ; PT after repeats").refuse_and(ParameterMismatch, Effect::SuspectTemplate),
    code(132_001, "XQ and PT; refresh template").refuse_and(TemplateUnknown, Effect::StopTemplate),
    code(132_005, "XQ").refuse(ParameterMismatch),
    // The wording itself: this job can never pass, and neither may its siblings.
    code(132_007, "PT").refuse_and(ProviderRefused, Effect::PauseTemplate { for_: None }),
    code(132_008, "XQ").refuse(ParameterMismatch),
    code(132_012, "XQ").refuse_and(ParameterMismatch, Effect::SuspectTemplate),
    // The first pause for quality lasts three hours, the second six; then it is disabled.
    code(132_015, "PT until unpaused").hold(Effect::PauseTemplate { for_: Some(minutes(180)) }).ends_as(TemplateNotApproved),
    code(132_016, "PT permanent").refuse_and(TemplateDisabled, Effect::StopTemplate),
    code(132_018, "XQ").refuse_and(ParameterMismatch, Effect::SuspectTemplate),
    code(132_021, "XQ").refuse(ProviderRefused),
    code(132_068, "PT").hold(PROBE_TEMPLATE),
    // Ten messages an hour.
    code(132_069, "TN for that template").hold(Effect::PauseTemplate { for_: Some(minutes(6)) }),
    code(133_000, "PN").hold(STOP_NUMBER),
    code(133_004, "R").retry(),
    code(133_005, "admin"),
    code(133_006, "admin"),
    code(133_008, "admin"),
    code(133_009, "admin"),
    code(133_010, "PN").hold(STOP_NUMBER),
    code(133_015, "PN").hold(Effect::PauseNumber { for_: Some(minutes(5)) }),
    code(134_011, "n/a"),
    code(134_100, "XQ").refuse(ProviderRefused),
    code(134_101, "R").retry_after(minutes(10)),
    code(134_102, "PT").hold(PROBE_TEMPLATE).ends_as(TemplateNotApproved),
    code(135_000, "XQ, log fully").refuse(ProviderRefused),
    code(136_024, "admin"),
    code(136_025, "admin"),
    code(137_000, "XR until acknowledged").refuse(IdentityChanged),
    codes(138_000, 138_025, "n/a"),
    codes(139_000, 139_004, "n/a"),
    codes(139_100, 139_103, "n/a"),
    code(141_000, "PN").hold(STOP_NUMBER),
    code(141_002, "PT").hold(PROBE_TEMPLATE).ends_as(TemplateNotApproved),
    codes(147_001, 147_005, "n/a"),
    code(1_752_041, "treat as unknown outcome").then(Outcome::Unknown),
    code(200_005, "analytics"),
    code(200_006, "analytics"),
    code(200_007, "analytics"),
    code(2_388_019, "admin"),
    code(2_388_039, "admin"),
    code(2_388_040, "admin"),
    code(2_388_047, "admin"),
    code(2_388_072, "admin"),
    code(2_388_073, "admin"),
    code(2_388_293, "admin"),
    code(2_388_299, "admin"),
    code(2_388_001, "admin"),
    code(2_388_012, "admin"),
    code(2_388_091, "admin"),
    code(2_388_093, "admin"),
    code(2_388_103, "admin"),
    code(2_494_100, "admin"),
    code(2_593_079, "admin"),
    code(2_593_085, "admin"),
    code(2_593_107, "admin"),
    code(2_593_108, "admin"),
    codes(2_494_164, 2_494_179, "admin"),
];
