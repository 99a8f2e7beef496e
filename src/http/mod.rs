//! Inbound HTTP.

mod lenient;
mod message;
pub mod payload;
pub mod signature;
