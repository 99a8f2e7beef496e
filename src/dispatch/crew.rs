//! The workers of this process, as everybody else sees them: somebody to tell things to, and a pulse to feel.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    event::{Event, Learned},
    holdings::Quiet,
    meters::Meters,
    shell::{COUNTS_MAX, Pulse, Shell, boot_time},
    worker::{Load, Report, Settings, Worker},
};
use crate::{
    channel::whatsapp::{Client, Endpoint},
    store::{ConnectOptions, Store},
};

/// Connections of one worker: a look for room and one for the bell, two batches of attempts and of outcomes, and some for
/// urgent attempts beside them.
const CONNECTIONS: u32 = 8;

/// A worker that has not turned for this long is stuck: it turns four times a second when nothing happens at all.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// All workers of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Crew {
    seats: Vec<(mpsc::UnboundedSender<Event>, Arc<Pulse>)>,
}

/// A worker's place, until its thread takes it.
#[derive(Debug)]
pub struct Seat {
    index: usize,
    events: mpsc::UnboundedSender<Event>,
    heard: mpsc::UnboundedReceiver<Event>,
    pulse: Arc<Pulse>,
}

/// What every worker needs.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Where the database is.
    pub store: Store,
    /// How to connect; the number of connections is the worker's own.
    pub connect: ConnectOptions,
    /// Where the provider is.
    pub endpoint: Endpoint,
    /// Where what answers mean beyond their job is written down.
    pub learned: mpsc::UnboundedSender<Learned>,
    /// Where the workers tell which shards can be given back.
    pub quiet: mpsc::UnboundedSender<Quiet>,
    /// What is counted.
    pub meters: Meters,
}

impl Crew {
    /// A crew of `workers`, and a seat for each.
    #[must_use]
    pub fn new(workers: usize) -> (Self, Vec<Seat>) {
        let seats: Vec<Seat> = (0..workers)
            .map(|index| {
                let (events, heard) = mpsc::unbounded_channel();
                Seat {
                    index,
                    events,
                    heard,
                    pulse: Arc::default(),
                }
            })
            .collect();
        let seen = seats
            .iter()
            .map(|seat| (seat.events.clone(), Arc::clone(&seat.pulse)))
            .collect();
        (Self { seats: seen }, seats)
    }

    /// Tells every worker. One that has ended is not there to be told.
    pub fn tell(&self, event: impl Fn() -> Event) {
        for (worker, _) in &self.seats {
            _ = worker.send(event());
        }
    }

    /// Whether every worker has turned lately.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let now = boot_time();
        self.seats
            .iter()
            .all(|(_, pulse)| pulse.turned_at() + STUCK_AFTER > now)
    }

    /// What they are doing together.
    #[must_use]
    pub fn load(&self) -> Load {
        self.seats
            .iter()
            .map(|(_, pulse)| pulse.load())
            .fold(Load::default(), |sum, load| Load {
                in_flight: sum.in_flight + load.in_flight,
                buffered: sum.buffered + load.buffered,
                unsettled: sum.unsettled + load.unsettled,
                oldest_open: sum.oldest_open.into_iter().chain(load.oldest_open).min(),
            })
    }

    /// What holds them back together. A pool is counted by one of them.
    #[must_use]
    pub fn report(&self) -> Report {
        self.seats.iter().map(|(_, pulse)| pulse.report()).fold(
            Report::default(),
            |mut sum, report| {
                sum.rooms.extend(report.rooms);
                sum.posted += report.posted;
                sum.allowed += report.allowed;
                sum
            },
        )
    }
}

impl Seat {
    /// Which of the workers it is.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Works on this thread until `drain`, and then until everything it has begun is settled; or until `abort`.
    ///
    /// # Errors
    /// When it cannot begin: the endpoint cannot be used.
    pub async fn work(
        self,
        tools: Tools,
        settings: Settings,
        drain: CancellationToken,
        abort: CancellationToken,
    ) -> anyhow::Result<()> {
        let connect = ConnectOptions {
            max_connections: CONNECTIONS,
            generic_plans: true,
            application_name: format!("{} dispatch {}", tools.connect.application_name, self.index),
            ..tools.connect
        };
        let shell = Shell {
            store: tools.store.beside(connect),
            client: Client::new(&tools.endpoint)?,
            events: self.events.clone(),
            learned: tools.learned,
            quiet: tools.quiet,
            meters: tools.meters,
            pulse: self.pulse,
            counting: Semaphore::new(COUNTS_MAX),
            start: tokio::time::Instant::now(),
        };
        let tell_drain = async move {
            drain.cancelled().await;
            _ = self.events.send(Event::Drain);
        };
        let work = shell.run(Worker::new(settings), self.heard, abort);
        tokio::pin!(work);
        tokio::select! {
            () = &mut work => return Ok(()),
            () = tell_drain => {}
        }
        work.await;
        Ok(())
    }
}
