//! A message template: what the provider approved, and how a job's parameters fill it.
//!
//! Templates come from the provider as JSON ([`parse`]), jobs bring parameters in one of two forms ([`given`]), and
//! [`fill`] holds them against each other before anything is sent: the provider would refuse what does not fit, and would
//! count it against the template. [`wire`] is the filled template as it goes out, [`render`] what the recipient reads.

mod code;
mod fill;
mod given;
mod kinds;
mod parse;
mod render;
#[cfg(test)]
mod tests;
mod values;
mod wire;

use serde_json::value::RawValue;

pub(super) use values::{is_https, name_of};
pub use wire::Components;

use super::{
    job::FinalReason,
    problem::{Problem, Problems},
};

/// A template in one language, as the provider last showed it.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// APPROVED, PAUSED, PENDING, ...
    pub status: String,
    /// MARKETING, UTILITY or AUTHENTICATION.
    pub category: String,
    is_named: bool,
    header: Option<Header>,
    body: Text,
    footer: Option<String>,
    buttons: Vec<Button>,
    /// Parts that need parameters of a kind we do not send; they are marketing's.
    unsupported: Vec<String>,
}

/// What is above the body.
#[derive(Debug, Clone, PartialEq)]
enum Header {
    Text(Text),
    Media(MediaKind),
    Location,
    Unsupported(String),
}

/// Files that a header can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MediaKind {
    Image,
    Video,
    Document,
    Gif,
}

/// A text with places for parameters.
#[derive(Debug, Clone, Default, PartialEq)]
struct Text {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(String),
    /// The name between the braces; a number where the parameters are positional.
    Variable(String),
}

#[derive(Debug, Clone, PartialEq)]
struct Button {
    label: String,
    action: Action,
}

/// What a button does.
#[derive(Debug, Clone, PartialEq)]
enum Action {
    QuickReply,
    /// Opens a page; a variable at its end is the job's.
    Url(Text),
    Call(String),
    CopyCode,
    /// Copies or fills in the code of an authentication template.
    Otp,
    Flow,
    /// Something newer than this program, or marketing's.
    Unsupported(String),
}

/// Whether a template can be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Approved.
    Sendable,
    /// Paused for its quality; it comes back by itself.
    Held,
    /// Not approved, or no longer.
    Gone(FinalReason),
}

/// What to do with line breaks, tabs and long runs of blanks in parameters, which the provider refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Whitespace {
    /// Make one blank of them.
    #[default]
    Collapse,
    /// Refuse the job.
    Refuse,
}

impl Template {
    /// Reads the provider's listing. It never fails: parts that this program does not know are kept by name and matter only
    /// when a job needs them.
    #[must_use]
    pub fn parse(
        status: &str,
        category: &str,
        parameter_format: &str,
        components: &serde_json::Value,
    ) -> Template {
        parse::template(status, category, parameter_format, components)
    }

    /// Whether it can be sent. Only APPROVED can; a status that this program does not know cannot.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.status.as_str() {
            "APPROVED" => Standing::Sendable,
            "PAUSED" => Standing::Held,
            "DISABLED" => Standing::Gone(FinalReason::TemplateDisabled),
            _ => Standing::Gone(FinalReason::TemplateNotApproved),
        }
    }

    /// Whether it carries a one-time code.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        self.category == "AUTHENTICATION"
    }

    /// Holds a job's parameters against the template and gives the provider's components, or everything that is wrong.
    pub fn fill(
        &self,
        content: &RawValue,
        whitespace: Whitespace,
    ) -> Result<Components, Vec<Problem>> {
        fill::fill(self, content, whitespace)
    }

    /// What the recipient reads: header, body, footer and buttons, a line each.
    #[must_use]
    pub fn text(&self, components: &Components) -> String {
        render::text(self, components)
    }
}

impl MediaKind {
    const ALL: [MediaKind; 4] = [
        MediaKind::Image,
        MediaKind::Video,
        MediaKind::Document,
        MediaKind::Gif,
    ];

    /// As it is written in parameters and requests.
    fn as_str(self) -> &'static str {
        match self {
            MediaKind::Image => "image",
            MediaKind::Video => "video",
            MediaKind::Document => "document",
            MediaKind::Gif => "gif",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(word))
    }
}

impl Text {
    /// The names of its variables in the order in which parameters are counted: numbers by value, names by appearance,
    /// each once.
    fn variables(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for piece in &self.pieces {
            if let Piece::Variable(name) = piece
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        // Stable, and names that are not numbers are all equal here: they stay as they appear.
        names.sort_by_key(|name| name.parse().unwrap_or(u32::MAX));
        names
    }
}
