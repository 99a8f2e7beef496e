//! Posts what is due to the apps' callbacks: one task gathers, several POSTs are in flight, and what is not answered 200
//! is posted again, byte for byte.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    schedule::Status,
    traffic::Shared,
    webhook::{self, News, Update},
};

/// A callback has nothing to say; more than this is taken for a failure.
const ANSWER_MAX: usize = 64 * 1024;

/// Takes what is due and posts it until `shutdown`.
pub(super) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let poster = Arc::new(Poster::new(shared));
    let posts = TaskTracker::new();
    // Retries sleep for long; `shutdown` ends them where they are.
    shutdown
        .run_until_cancelled(gather(&poster, &posts, &shutdown))
        .await;
    posts.close();
    posts.wait().await;
}

async fn gather(poster: &Arc<Poster>, posts: &TaskTracker, shutdown: &CancellationToken) {
    let hooks = &poster.shared.setup.webhooks;
    loop {
        if poster.shared.traffic().schedule.is_empty() {
            poster.shared.due.notified().await;
        }
        sleep(Duration::from_millis(hooks.tick_ms.max(1))).await;
        loop {
            let due = poster.take_due(hooks.batch_max.max(1) * hooks.in_flight.max(1));
            if due.is_empty() {
                break;
            }
            for post in poster.posts(due) {
                let slots = poster.slots.clone();
                let slot = slots
                    .acquire_owned()
                    .await
                    .expect("the semaphore is never closed");
                let (poster, shutdown) = (poster.clone(), shutdown.clone());
                posts.spawn(async move {
                    shutdown
                        .run_until_cancelled(poster.deliver(post, slot))
                        .await
                });
            }
        }
    }
}

/// One POST: bytes and what they tell.
struct Post {
    url: Option<String>,
    signature: String,
    body: Bytes,
    receipts: Vec<(u64, Status)>,
    updates: usize,
}

struct Poster {
    shared: Arc<Shared>,
    client: Client<HttpConnector, Full<Bytes>>,
    slots: Arc<Semaphore>,
}

impl Poster {
    fn new(shared: Arc<Shared>) -> Poster {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let slots = Arc::new(Semaphore::new(shared.setup.webhooks.in_flight.max(1)));
        Poster {
            shared,
            client: Client::builder(TokioExecutor::new()).build(connector),
            slots,
        }
    }

    fn take_due(&self, most: usize) -> Vec<Update> {
        let world = self.shared.world();
        let mut traffic = self.shared.traffic();
        let now = self.shared.now();
        let due = traffic.schedule.take_due(now, most);
        let taken = due.len();
        let updates: Vec<_> = due
            .into_iter()
            .filter_map(|event| webhook::resolve(&self.shared, &world, &traffic, event))
            .collect();
        if updates.len() < taken {
            // What the ledger forgot is not coming any more.
            traffic.schedule.outstanding -= taken - updates.len();
            self.shared.posted.notify_waiters();
        }
        updates
    }

    /// Splits updates by app and into batches, and signs them.
    fn posts(&self, updates: Vec<Update>) -> Vec<Post> {
        let mut by_app: Vec<(usize, Vec<Update>)> = Vec::new();
        for update in updates {
            match by_app.iter_mut().find(|(app, _)| *app == update.app) {
                Some((_, batch)) => batch.push(update),
                None => by_app.push((update.app, vec![update])),
            }
        }
        let world = self.shared.world();
        let most = self.shared.setup.webhooks.batch_max.max(1);
        let batches = by_app
            .iter()
            .flat_map(|(app, updates)| updates.chunks(most).map(move |batch| (*app, batch)));
        batches
            .map(|(app, batch)| {
                let body = webhook::body(batch);
                let receipts = batch.iter().filter_map(|update| match &update.news {
                    News::Receipt(receipt) => Some((receipt.serial, receipt.status)),
                    News::Change { .. } => None,
                });
                Post {
                    url: world.apps[app].callback_url.clone(),
                    signature: webhook::signature(&world.apps[app].secret, &body),
                    body: body.into(),
                    receipts: receipts.collect(),
                    updates: batch.len(),
                }
            })
            .collect()
    }

    /// Posts until it is answered 200 or the attempts are used up. A slot is held only while a POST is under way.
    async fn deliver(&self, post: Post, slot: OwnedSemaphorePermit) {
        let hooks = &self.shared.setup.webhooks;
        let (mut slot, mut pause) = (Some(slot), Duration::from_millis(hooks.retry_ms));
        for attempt in 1..=hooks.attempts.max(1) {
            let is_received = self.post(&post).await;
            drop(slot.take());
            if is_received || attempt == hooks.attempts.max(1) || post.url.is_none() {
                self.settle(&post, is_received);
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(hooks.retry_max_ms));
            slot = self.slots.clone().acquire_owned().await.ok();
        }
    }

    /// Whether it was answered 200 in time.
    async fn post(&self, post: &Post) -> bool {
        let Some(url) = &post.url else { return false };
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "postrider-sandbox")
            .header("X-Hub-Signature-256", &post.signature)
            .body(Full::new(post.body.clone()));
        let Ok(request) = request else {
            tracing::warn!(url, "the callback URL is no URL");
            return false;
        };
        let limit = Duration::from_millis(self.shared.setup.webhooks.timeout_ms);
        let answered = timeout(limit, async {
            let response = self.client.request(request).await.ok()?;
            let status = response.status();
            // Read to its end, so that the connection can be used again.
            Limited::new(response.into_body(), ANSWER_MAX)
                .collect()
                .await
                .ok()?;
            Some(status)
        });
        answered.await == Ok(Some(StatusCode::OK))
    }

    fn settle(&self, post: &Post, is_received: bool) {
        let mut traffic = self.shared.traffic();
        traffic.schedule.outstanding -= post.updates;
        if is_received {
            for (serial, status) in &post.receipts {
                traffic.ledger.received(*serial, *status);
            }
        }
        drop(traffic);
        self.shared.posted.notify_waiters();
    }
}
