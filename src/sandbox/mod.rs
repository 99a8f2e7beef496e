//! A stand-in for the WhatsApp Business Cloud API: strict where the provider is strict, with its limits, its error
//! bodies, its signed webhooks, and faults on demand.
//!
//! One request takes this way: `server` accepts the connection, `messages` reads the body, `request` parses it, `check`
//! holds it against the `world` (tokens, numbers, templates), and `traffic` decides under one lock: limits, faults,
//! acceptance. Whatever was decided stands in the `ledger` before the answer's latency begins, so a client that goes
//! away meanwhile changes nothing. Accepted messages put their receipts into the `schedule`, from which one task
//! (`delivery`) posts them in batches.
//!
//! What it does not promise: who is charged what, media uploads, template review, and anything on other edges of the
//! graph. Chance comes from one seeded generator, so a run is reproducible as far as its requests arrive in the same
//! order.

mod chance;
mod check;
mod control;
mod control_http;
mod default_world;
mod delivery;
mod directory;
mod errors;
mod faults;
mod identity;
mod ledger;
mod limits;
mod messages;
mod request;
mod schedule;
mod server;
mod setup;
mod template;
mod traffic;
mod webhook;
mod world;

use std::{io, net::SocketAddr, sync::Arc, thread};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use chance::Delay;
pub use control::{Control, Inbound, NumberChange, Summary, Unknown};
pub use default_world::default_world;
pub use faults::{Fault, FaultRule, When};
pub use ledger::{Entry, Ledger, Statuses};
pub use setup::{
    Account, App, AtLimit, Number, PairLimit, Person, Portfolio, Setup, Template, Webhooks,
};

/// Why the sandbox could not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The address could not be bound, or a thread or runtime not started.
    #[error("the sandbox cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// The setup contradicts itself.
    #[error("the sandbox's setup is wrong: {0}")]
    Setup(String),
}

/// A running sandbox.
pub struct Sandbox {
    address: SocketAddr,
    control: Control,
    shutdown: CancellationToken,
    running: Running,
}

/// What is to be waited for when the sandbox stops.
enum Running {
    Tasks(TaskTracker),
    Threads(Vec<thread::JoinHandle<()>>),
}

impl Sandbox {
    /// Starts on the current runtime, on a free loopback port unless the setup names one.
    pub async fn start(setup: Setup) -> Result<Sandbox, SandboxError> {
        let listener = TcpListener::bind(setup.listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(traffic::Shared::new(setup)?);
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(server::run(listener, shared.clone(), shutdown.clone()));
        tasks.spawn(delivery::run(shared.clone(), shutdown.clone()));
        tasks.close();
        Ok(Sandbox {
            address,
            control: Control::new(shared),
            shutdown,
            running: Running::Tasks(tasks),
        })
    }

    /// Starts on `threads` threads of its own, each with a runtime of one thread; for benches, where the sandbox must
    /// not share a runtime with what it measures. Webhooks are posted from the first thread.
    pub fn start_apart(setup: Setup, threads: usize) -> Result<Sandbox, SandboxError> {
        let listener = std::net::TcpListener::bind(setup.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(traffic::Shared::new(setup)?);
        let shutdown = CancellationToken::new();
        let threads = (0..threads.max(1))
            .map(|index| {
                let (listener, shared, shutdown) =
                    (listener.try_clone()?, shared.clone(), shutdown.clone());
                thread::Builder::new()
                    .name(format!("sandbox-{index}"))
                    .spawn(move || {
                        run_apart(listener, &shared, &shutdown, index == 0);
                    })
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Sandbox {
            address,
            control: Control::new(shared),
            shutdown,
            running: Running::Threads(threads),
        })
    }

    /// Where it listens, as a base URL without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The levers: faults, inbound messages, statuses of templates and numbers.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// What arrived so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.control.ledger()
    }

    /// Closes every connection and waits until nothing of it runs.
    pub async fn stop(self) {
        self.shutdown.cancel();
        match self.running {
            Running::Tasks(tasks) => tasks.wait().await,
            Running::Threads(threads) => {
                let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
                // Joining blocks for a moment; it may be the caller's only thread.
                drop(tokio::task::spawn_blocking(join).await);
            }
        }
    }
}

/// One thread of `Sandbox::start_apart`.
fn run_apart(
    listener: std::net::TcpListener,
    shared: &Arc<traffic::Shared>,
    shutdown: &CancellationToken,
    delivers: bool,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("the kernel gives an epoll instance and a few file descriptors");
    runtime.block_on(async {
        let listener =
            TcpListener::from_std(listener).expect("a listener that was just bound can be polled");
        if delivers {
            tokio::spawn(delivery::run(shared.clone(), shutdown.clone()));
        }
        server::run(listener, shared.clone(), shutdown.clone()).await;
    });
}

/// Runs a sandbox in the foreground until `shutdown` is cancelled; `ready` is told the address once it listens.
pub async fn serve(
    mut setup: Setup,
    addr: SocketAddr,
    shutdown: CancellationToken,
    ready: impl FnOnce(&Sandbox),
) -> Result<(), SandboxError> {
    setup.listen = addr;
    let sandbox = Sandbox::start(setup).await?;
    ready(&sandbox);
    shutdown.cancelled().await;
    sandbox.stop().await;
    Ok(())
}
