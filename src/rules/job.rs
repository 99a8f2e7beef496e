//! A job and the words for where it is: priority, state, the reasons for waiting and for ending. The same words stand in
//! SQL, metrics and logs.

use std::{fmt, str::FromStr, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

/// An enum whose variants are words that users see: gives `as_str`, `Display`, `FromStr` and `ALL`.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word that users see.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok($name::$variant),)+
                    _ => Err(UnknownWord { word: word.to_owned(), of: stringify!($name) }),
                }
            }
        }
    };
}

/// A word that is none of those it should be one of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a known {of}")]
pub struct UnknownWord {
    word: String,
    of: &'static str,
}

/// A job's id, from one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The small integer that stands for a business phone number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct Lane(pub i32);

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

words! {
    /// How urgent a job is; 0, 1 and 2 in SQL.
    Priority {
        /// Somebody is waiting with the phone in hand.
        Urgent = "urgent",
        /// The usual.
        Normal = "normal",
        /// Whatever room is left.
        Bulk = "bulk",
    }
}

impl Priority {
    /// As stored in `queue.priority`.
    #[must_use]
    pub fn as_i16(self) -> i16 {
        self as i16
    }

    /// From `queue.priority`; the table's check keeps it within 0 to 2.
    #[must_use]
    pub fn from_i16(value: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(value).ok()?).copied()
    }
}

words! {
    /// Where a job is in its life (DESIGN.md, contract 4.2).
    State {
        /// In the queue, due.
        Queued = "queued",
        /// In the queue, held by something that a `WaitReason` names.
        Waiting = "waiting",
        /// An attempt is committed and its answer is not known yet.
        Sending = "sending",
        /// Posted, but no answer was seen.
        Unknown = "unknown",
        /// The provider took it.
        Accepted = "accepted",
        /// The provider took it and holds it back for a quality check.
        Held = "held",
        /// On its way from the provider.
        Sent = "sent",
        /// On the phone.
        Delivered = "delivered",
        /// Opened.
        Read = "read",
        /// Refused, or given up.
        Failed = "failed",
        /// Accepted, but not delivered within the template's time to live.
        Undelivered = "undelivered",
        /// The gate said no.
        Rejected = "rejected",
        /// Its time ran out before it could be sent.
        Expired = "expired",
        /// Withdrawn by the upstream.
        Cancelled = "cancelled",
    }
}

words! {
    /// Why a job is not sent yet.
    WaitReason {
        /// Its `not_before` has not come.
        Scheduled = "scheduled",
        /// The number's messages per second are used up.
        RateLimited = "rate_limited",
        /// The pool's unique recipients per rolling 24 h are used up.
        MessagingLimitReached = "messaging_limit_reached",
        /// Too many messages to this recipient in a short time.
        PairRateLimited = "pair_rate_limited",
        /// The number, account or kind is paused.
        Paused = "paused",
        /// Its template is paused or not approved yet, and may be again.
        TemplatePaused = "template_paused",
        /// It failed for now and is tried again later.
        BackingOff = "backing_off",
        /// Its outcome is not known until a receipt says so.
        AwaitingReceipt = "awaiting_receipt",
        /// No daemon sends for its number.
        NoDispatcher = "no_dispatcher",
    }
}

words! {
    /// Why a job ended without being delivered.
    FinalReason {
        /// The person never opted in.
        NoOptIn = "no_opt_in",
        /// The person opted out.
        OptedOut = "opted_out",
        /// The account has no such template in that language.
        TemplateUnknown = "template_unknown",
        /// The template was rejected, or its approval was withdrawn.
        TemplateNotApproved = "template_not_approved",
        /// The provider disabled the template for good.
        TemplateDisabled = "template_disabled",
        /// The kind does not allow the template's category.
        CategoryNotAllowed = "category_not_allowed",
        /// The parameters do not fit the template.
        ParameterMismatch = "parameter_mismatch",
        /// The provider could not fetch the media.
        MediaFailed = "media_failed",
        /// A free-form message without an open service window.
        ServiceWindowClosed = "service_window_closed",
        /// The address can never be reached.
        RecipientInvalid = "recipient_invalid",
        /// The address is not on WhatsApp.
        NotReachableOnWhatsapp = "not_reachable_on_whatsapp",
        /// The business may not message that country.
        CountryBlocked = "country_blocked",
        /// The provider withheld it for its own reasons.
        WithheldByProvider = "withheld_by_provider",
        /// The account's payment method.
        PaymentProblem = "payment_problem",
        /// The person behind the address may have changed.
        IdentityChanged = "identity_changed",
        /// Any other refusal.
        ProviderRefused = "provider_refused",
        /// It failed too often.
        RetriesExhausted = "retries_exhausted",
        /// Posted, and no receipt ever said what became of it.
        OutcomeUnknown = "outcome_unknown",
        /// Its `expires_at` passed.
        ValidityEnded = "validity_ended",
    }
}

/// One notification to one recipient, as it stands in the queue.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The number's lane.
    pub lane: Lane,
    /// How urgent.
    pub priority: Priority,
    /// Since when it may be looked at.
    pub due_at: DateTime<Utc>,
    /// Attempts answered; the next attempt is number `tries + 1`.
    pub tries: i32,
    /// Attempts that the provider's word spent.
    pub spent: i32,
    /// What it is about.
    pub kind: Arc<str>,
    /// Where it goes: E.164 with `+`, or a business-scoped id.
    pub recipient: String,
    /// The canonical key that stands for the person behind the recipient.
    pub person: String,
    /// Name and language of the template; `None` for a free-form message.
    pub template: Option<TemplateName>,
    /// The template's parameters, or the free-form message, as enqueued.
    pub content: Box<RawValue>,
    /// When it was enqueued.
    pub enqueued_at: DateTime<Utc>,
    /// Not sent after this.
    pub expires_at: DateTime<Utc>,
    /// The upstream's name for a group of jobs.
    pub batch: Option<String>,
}

/// A template as a job names it; the account comes from the number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TemplateName {
    /// Lower case, digits and underscores.
    pub name: String,
    /// Underscore form, for example `en_US`.
    pub language: String,
}

/// What the look brings along about the person, for the gate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PersonFacts {
    /// The newest opt-in in the general scope or the kind's.
    pub opted_in_at: Option<DateTime<Utc>>,
    /// The newest opt-out in the general scope or the kind's.
    pub opted_out_at: Option<DateTime<Utc>>,
    /// Until when the service window of this number is open.
    pub window_until: Option<DateTime<Utc>>,
}

/// What a job is about, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// order, delivery, otp, travel, ...
    pub name: Arc<str>,
    /// The priority of jobs that do not say otherwise.
    pub priority: Priority,
    /// Template categories it may leave as; `None` allows any.
    pub categories: Option<Vec<String>>,
    /// Whether the recipient must have opted in.
    pub requires_opt_in: bool,
    /// The scope whose opt-in counts beside the general one.
    pub consent_scope: Option<String>,
    /// What is kept of the parameters.
    pub keep_parameters: KeepParameters,
}

words! {
    /// How long a job's parameters are kept.
    KeepParameters {
        /// Not even in a dead letter.
        Never = "never",
        /// Until it is sent; a dead letter has them.
        No = "no",
        /// With the message too.
        Yes = "yes",
    }
}
