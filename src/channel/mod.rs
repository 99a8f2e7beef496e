//! Outbound HTTP: the only place that speaks to the provider.

pub mod directory;
pub mod endpoint;
pub mod whatsapp;
