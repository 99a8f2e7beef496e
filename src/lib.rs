//! Postrider takes transactional notifications out of a Postgres queue and delivers them through the WhatsApp Business
//! Cloud API.

pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http;
pub mod instance;
pub mod rules;
pub mod store;
pub mod telemetry;
