//! Postrider takes transactional notifications out of a Postgres queue and delivers them through the WhatsApp Business
//! Cloud API.

pub mod clock;
pub mod rules;
pub mod sandbox;
