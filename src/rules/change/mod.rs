//! What the provider changes by itself, told by webhooks that are neither statuses nor messages: templates that it approves,
//! pauses or moves to another category, limits that it raises, accounts that it restricts.
//!
//! [`read()`] says what such a webhook does. It is made for a provider that writes the same thing in several ways and adds to
//! it without notice (WHATSAPP.md 3.6): what it does not know does nothing, and is never an error. People's own wishes and
//! addresses come the same way, but are read with their messages.

mod read;
#[cfg(test)]
mod tests;

use std::fmt;

use chrono::{DateTime, Utc};
use serde_json::Value;

pub use read::read;

/// One thing that a webhook does, to the account that it is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A template has another status. Only APPROVED sends.
    TemplateStatus {
        /// Which.
        template: TemplateRef,
        /// In the words of the provider's lists: APPROVED, PAUSED, DISABLED, ...
        status: String,
        /// The provider's reasons.
        why: Option<String>,
    },
    /// A template has another quality.
    TemplateQuality {
        /// Which.
        template: TemplateRef,
        /// GREEN, YELLOW, RED or UNKNOWN.
        quality: String,
    },
    /// A template is in this category now.
    TemplateCategory {
        /// Which.
        template: TemplateRef,
        /// MARKETING, UTILITY or AUTHENTICATION.
        category: String,
    },
    /// None of the account's templates of a category may be sent.
    StopCategory {
        /// Which category.
        category: &'static str,
        /// Why, for people.
        reason: String,
        /// When it ends by itself.
        until: Option<DateTime<Utc>>,
    },
    /// The portfolio has this messaging limit, or, where each number has its own, the number that it names.
    MessagingLimit {
        /// As people see it; `None` when the webhook names none.
        number: Option<String>,
        /// The provider's word, for example `TIER_2K`.
        word: String,
        /// Unique recipients per rolling 24 h; `None` when unlimited.
        recipients: Option<u32>,
    },
    /// A number has this throughput level.
    NumberThroughput {
        /// As people see it.
        number: String,
        /// STANDARD or HIGH.
        level: &'static str,
    },
    /// A number shows this name.
    NumberName {
        /// As people see it.
        number: String,
        /// The name that recipients see.
        name: String,
    },
    /// The account cannot send.
    PauseAccount {
        /// What is at stake; of two words about the same, the later counts.
        matter: Matter,
        /// Why, for people.
        reason: String,
        /// When it ends by itself; `None` when somebody must end it.
        until: Option<DateTime<Utc>>,
    },
    /// The account can send again.
    ResumeAccount {
        /// What was at stake.
        matter: Matter,
    },
    /// Something is not as we know it; the provider's lists say how it is.
    Resync,
    /// Nothing that changes what is sent, but people want to know of it.
    Note {
        /// What it is about.
        about: About,
        /// The word for it in the history.
        action: &'static str,
        /// What the provider said.
        detail: Value,
    },
}

/// A template in one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRef {
    /// Lower case, digits and underscores.
    pub name: String,
    /// Underscore form; webhooks print a hyphen.
    pub language: String,
    /// Meta's id. One that was deleted and made anew has the same name and another id.
    pub provider_id: Option<String>,
}

/// What an account's right to send can hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matter {
    /// It is disabled for breaking the rules, or reinstated.
    Ban,
    /// Something is forbidden to it for some time.
    Restriction,
    /// It broke a rule.
    Violation,
    /// It left the Cloud API, or came back.
    Connection,
    /// It was deleted.
    Existence,
}

impl Matter {
    /// The word in `told.aspect`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Restriction => "restriction",
            Self::Violation => "violation",
            Self::Connection => "connection",
            Self::Existence => "existence",
        }
    }
}

/// What a note is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// The account itself.
    Account,
    /// A number, as people see it.
    Number(String),
    /// A template.
    Template(TemplateRef),
}

impl Change {
    /// Whether it keeps something from being sent, or may.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        match self {
            Self::TemplateStatus { status, .. } => status != "APPROVED",
            Self::TemplateQuality { quality, .. } => quality == "RED",
            Self::TemplateCategory { .. }
            | Self::StopCategory { .. }
            | Self::PauseAccount { .. }
            | Self::Note { .. } => true,
            Self::MessagingLimit { .. }
            | Self::NumberThroughput { .. }
            | Self::NumberName { .. }
            | Self::ResumeAccount { .. }
            | Self::Resync => false,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TemplateStatus {
                template,
                status,
                why,
            } => {
                write!(f, "template {template} is {status}")?;
                why.iter().try_for_each(|why| write!(f, ": {why}"))
            }
            Self::TemplateQuality { template, quality } => {
                write!(f, "the quality of template {template} is {quality}")
            }
            Self::TemplateCategory { template, category } => {
                write!(f, "template {template} is in the category {category}")
            }
            Self::StopCategory {
                category, reason, ..
            } => write!(f, "no {category} template may be sent: {reason}"),
            Self::MessagingLimit { word, .. } => write!(f, "the messaging limit is {word}"),
            Self::NumberThroughput { number, level } => {
                write!(f, "the throughput of {number} is {level}")
            }
            Self::NumberName { number, name } => write!(f, "{number} is shown as {name}"),
            Self::PauseAccount { reason, .. } => write!(f, "the account cannot send: {reason}"),
            Self::ResumeAccount { .. } => f.write_str("the account can send again"),
            Self::Resync => f.write_str("something changed; the lists are read again"),
            Self::Note { about, detail, .. } => write!(f, "{about}: {detail}"),
        }
    }
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.language)
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account => f.write_str("the account"),
            Self::Number(number) => write!(f, "number {number}"),
            Self::Template(template) => write!(f, "template {template}"),
        }
    }
}
