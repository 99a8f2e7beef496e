//! Listens for the bell that urgent jobs ring, and passes it on to the workers. Rings carry no more than the lane: the look
//! that follows is the one that polling makes too, so a ring that is missed costs time, never a job.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{crew::Crew, event::Event};
use crate::store::{Store, bell::Bell};

/// The first wait before listening again; doubled up to the longest.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(10);

/// Listens until `stop`, through any number of broken connections.
pub async fn run(store: Store, crew: Crew, stop: CancellationToken) {
    let mut wait = RECONNECT_FIRST;
    while !stop.is_cancelled() {
        let listening = stop
            .run_until_cancelled(listen(&store, &crew, &mut wait))
            .await;
        if let Some(Err(error)) = listening {
            tracing::warn!(%error, "not listening for urgent jobs; they are polled meanwhile");
            stop.run_until_cancelled(tokio::time::sleep(wait)).await;
            wait = (wait * 2).min(RECONNECT_MAX);
        }
    }
}

async fn listen(store: &Store, crew: &Crew, wait: &mut Duration) -> Result<(), sqlx::Error> {
    let mut bell = Bell::listen(store).await?;
    *wait = RECONNECT_FIRST;
    // Whoever rang while nobody listened.
    crew.tell(|| Event::Rang(None));
    loop {
        let rung = bell.ring().await?;
        crew.tell(|| Event::Rang(rung));
    }
}
