//! Pure decisions. Nothing in here reads a clock, draws a chance, awaits or touches the network or the database: what a
//! function needs, it is given, so that a test is a table of cases.

pub mod address;
pub mod breaker;
pub mod change;
pub mod consent;
pub mod conservation;
pub mod free_form;
pub mod gate;
pub mod job;
pub mod keywords;
pub mod messaging_limit;
pub mod moment;
pub mod outcome;
pub mod pace;
pub mod pair;
pub mod pick;
pub mod problem;
pub mod receipt;
pub mod retry;
pub mod spread;
pub mod template;
pub mod tempo;
pub mod tier;
pub mod unknown;
