//! Postrider takes transactional notifications out of a Postgres queue and delivers them through the WhatsApp Business
//! Cloud API.

pub mod app;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod http;
pub mod instance;
pub mod metrics;
pub mod rules;
pub mod sandbox;
pub mod service;
pub mod store;
pub mod telemetry;
