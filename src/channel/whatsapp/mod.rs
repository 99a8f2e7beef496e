//! The WhatsApp Cloud API.

pub mod request;
