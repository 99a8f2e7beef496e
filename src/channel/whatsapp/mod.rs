//! Sending messages over the WhatsApp Business Cloud API.

mod answer;
mod client;
mod letter;
pub mod request;
mod usage;

pub use super::endpoint::{ClientError, Endpoint};
pub(super) use answer::coded_error;
pub use client::{Client, Credentials, Reply, Sender};
pub use usage::Usage;
