//! Inbound HTTP: the webhook, which the provider calls, and the ops endpoints, which monitoring calls.
//!
//! ```text
//! POST ─ webhook ─ signature ─ payload, message, echo ─ committing ─► receipt, receipt_inbox, inbound, consent, … ─► 200
//!                                                         │    └ linking ─► address
//!                                                         └ rings ─ folding ─► message
//! ```

mod committing;
mod echo;
pub mod folding;
mod lenient;
mod linking;
mod message;
pub mod meters;
pub mod ops;
pub mod payload;
pub mod serving;
pub mod signature;
pub mod webhook;
