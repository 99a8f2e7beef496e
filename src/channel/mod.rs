//! Outbound HTTP to the provider.

pub mod whatsapp;
