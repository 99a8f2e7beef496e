//! From the queue to the provider and back.
//!
//! The process has one [`Worker`](worker::Worker) per core, each on a thread and a runtime of its own; shards, and with
//! them numbers, are dealt out over the workers, so that no lock and no other thread stands between a look and a post.
//! A worker is a plain state machine: what happens to it is an [`Event`](event::Event), what it wants done an
//! [`Action`](event::Action). [`shell`] turns actions into statements and requests and brings their ends back as events.
//!
//! Beside the workers three small tasks tell all of them what is the same for all: [`leasing`] which shards this instance
//! may send for, [`knowing`] the facts about numbers, kinds and templates, [`ringing`] that an urgent job was committed.
//!
//! Two more write: [`applying`] what answers mean beyond their job, [`moving`] jobs over to another number of their pool when
//! theirs cannot send. And [`showing`] tells everybody what is left of the messaging limits.
//!
//! What this does not promise: an order between two jobs (the provider keeps none either), or that a job whose request was
//! not answered is sent again at once (it may have been taken; see `docs/STATES.md`).

pub mod applying;
pub mod crew;
pub mod event;
pub mod holdings;
pub mod ids;
pub mod knowing;
pub mod lane;
pub mod leasing;
pub mod limits;
pub mod meters;
pub mod moving;
pub mod outbox;
pub mod resolving;
pub mod ringing;
pub mod settlement;
pub mod shell;
pub mod showing;
pub mod worker;
pub mod world;
