//! The life of the daemon: signals, tasks, stopping in order, and what systemd is told.
//!
//! **It crashes once.** Every long task has a name. When one ends although nobody asked, the rest is stopped in good order
//! and the process exits non-zero; systemd starts it again. Nothing is restarted in here: jobs are in Postgres, and starting
//! is the way to recover that is used every day.
//!
//! **It stops in two steps.** `drain`: no more jobs are taken, what is in flight ends, outcomes are written, leases are handed
//! back. Then `close`: those who listen stop last, because receipts keep coming. Who cannot wait sends a second signal, or
//! the drain limit passes: `abort` breaks off what is still there, and the next start takes it up.
//!
//! **The watchdog tells the truth.** It is fed only while the work itself turns, not because this loop does.

use std::{
    future::Future,
    io,
    panic::{self, AssertUnwindSafe},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often systemd is told that starting goes on.
const START_SAYS_EVERY: Duration = Duration::from_secs(10);
/// What systemd grants with each such word.
const START_EXTENSION: Duration = Duration::from_secs(30);
/// How often the status line is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Listeners have only to answer what they have begun.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// After `abort` nothing may take time; then the process ends under it.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// What tasks watch to know when to end.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Take no more work, finish what is begun.
    pub drain: CancellationToken,
    /// Stop listening; cancelled when everything that drains has ended.
    pub close: CancellationToken,
    /// Break off.
    pub abort: CancellationToken,
}

/// When a task is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// At `drain`.
    Drain,
    /// At `close`.
    Close,
}

/// How a task ended.
#[derive(Debug)]
struct Ended {
    name: &'static str,
    phase: Phase,
    result: anyhow::Result<()>,
}

/// What the process does when asked from outside, and what it shows.
pub trait Duties {
    /// Reads the configuration again; a bad one changes nothing.
    fn reload(&mut self);
    /// Whether the work turns.
    fn is_alive(&self) -> bool;
    /// One line for `systemctl status`.
    fn status(&self) -> String;
}

/// Why the daemon ended without being asked.
#[derive(Debug, thiserror::Error)]
#[error("{name} ended, so everything stopped")]
pub struct Crash {
    /// Which task.
    pub name: &'static str,
    /// Why, where it said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Owns signals, tokens, tasks and every word to systemd.
#[derive(Debug)]
pub struct Service {
    stop: Stop,
    tasks: JoinSet<Ended>,
    draining: usize,
    drain_limit: Duration,
    signals: Signals,
}

/// The signals we heed. Installed when made, so none is missed between start and readiness.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    async fn any(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Event::Stop("SIGINT"),
            _ = self.hangup.recv() => Event::Reload,
        }
    }
}

/// What the loop woke up for.
enum Event {
    Stop(&'static str),
    Ended(Ended),
    Reload,
    Watchdog,
    Status,
}

impl Service {
    /// Installs the signal handlers. A stop takes at most `drain_limit`.
    ///
    /// # Errors
    /// When the system does not let us handle signals.
    pub fn new(drain_limit: Duration) -> io::Result<Self> {
        Ok(Self {
            stop: Stop::default(),
            tasks: JoinSet::new(),
            draining: 0,
            drain_limit,
            signals: Signals::install()?,
        })
    }

    /// What tasks watch to know when to end.
    #[must_use]
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Runs what must come first, for example waiting for the database. `None` when somebody asked us to stop meanwhile.
    pub async fn prepare<T>(
        &mut self,
        what: &str,
        preparing: impl Future<Output = T>,
    ) -> Option<T> {
        tell(&[NotifyState::Status(what)]);
        let mut says = every(START_SAYS_EVERY);
        tokio::pin!(preparing);
        loop {
            tokio::select! {
                done = &mut preparing => return Some(done),
                signal = self.signals.stop() => {
                    tracing::info!(signal, "stopping before the start was done");
                    return None;
                }
                _ = says.tick() => tell(&[NotifyState::ExtendTimeoutUsec(micros(START_EXTENSION))]),
            }
        }
    }

    /// Starts a task of this runtime.
    pub fn spawn(
        &mut self,
        name: &'static str,
        phase: Phase,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.count(phase);
        let task = tokio::spawn(task);
        self.tasks.spawn(async move {
            let result = task.await.unwrap_or_else(|gone| Err(gone.into()));
            Ended {
                name,
                phase,
                result,
            }
        });
    }

    /// Starts a task on a thread and a current-thread runtime of its own. What `make` makes need not be `Send`.
    ///
    /// # Errors
    /// When the system has no thread for us.
    pub fn spawn_thread<F>(
        &mut self,
        name: &'static str,
        phase: Phase,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (ended, end) = oneshot::channel();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let run = AssertUnwindSafe(|| runtime.block_on(make()));
                let result = panic::catch_unwind(run)
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")));
                // Nobody waits for it once the service has given up.
                let _ = ended.send(result);
            })?;
        self.count(phase);
        self.tasks.spawn(async move {
            let result = end
                .await
                .unwrap_or_else(|_| Err(anyhow::anyhow!("its thread vanished")));
            Ended {
                name,
                phase,
                result,
            }
        });
        Ok(())
    }

    fn count(&mut self, phase: Phase) {
        if phase == Phase::Drain {
            self.draining += 1;
        }
    }

    /// Runs until asked to stop, or until a task ends by itself. READY is told when `ready` is done.
    ///
    /// # Errors
    /// When a task ended by itself.
    pub async fn run(
        mut self,
        ready: impl Future<Output = ()>,
        mut duties: impl Duties,
    ) -> Result<(), Crash> {
        let watchdog = sd_notify::watchdog_enabled();
        let mut watchdog_tick = every(watchdog.map_or(Duration::from_secs(60), |limit| limit / 2));
        let mut status_tick = every(STATUS_EVERY);
        let mut is_ready = false;
        tokio::pin!(ready);
        loop {
            let event = tokio::select! {
                event = self.signals.any() => event,
                Some(ended) = self.tasks.join_next() => Event::Ended(ended.expect("the wrapper does not panic")),
                _ = watchdog_tick.tick(), if watchdog.is_some() => Event::Watchdog,
                _ = status_tick.tick() => Event::Status,
                () = &mut ready, if !is_ready => {
                    is_ready = true;
                    tracing::info!("ready");
                    tell(&[NotifyState::Ready, NotifyState::Status(&duties.status())]);
                    continue;
                }
            };
            match event {
                Event::Stop(signal) => {
                    tracing::info!(signal, "stopping; a second signal hurries");
                    self.wind_down().await;
                    return Ok(());
                }
                Event::Ended(ended) => {
                    self.draining -= usize::from(ended.phase == Phase::Drain);
                    let crash = crash(ended);
                    self.wind_down().await;
                    return Err(crash);
                }
                Event::Reload => reload(&mut duties),
                Event::Watchdog if duties.is_alive() => tell(&[NotifyState::Watchdog]),
                Event::Watchdog => {
                    tracing::error!("the work does not turn; the watchdog is not fed")
                }
                Event::Status => tell(&[NotifyState::Status(&duties.status())]),
            }
        }
    }

    /// First no more work, then no more listening, and at most as long as it may take.
    async fn wind_down(&mut self) {
        tell(&[
            NotifyState::Stopping,
            NotifyState::Status("finishing what is in flight"),
        ]);
        self.stop.drain.cancel();
        let in_order = self.wait_for(Phase::Drain, self.drain_limit).await;
        self.stop.close.cancel();
        let in_order = in_order && self.wait_for(Phase::Close, CLOSE_LIMIT).await;
        if in_order {
            return tracing::info!("stopped in good order");
        }
        self.stop.abort.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(ABORT_LIMIT, all).await;
        tracing::warn!("broke off what was still in flight; the next start takes it up");
    }

    /// Waits until the tasks of a phase have ended; false when time or patience ran out.
    async fn wait_for(&mut self, phase: Phase, limit: Duration) -> bool {
        let tasks = &mut self.tasks;
        let draining = &mut self.draining;
        let all = async {
            while phase == Phase::Close || *draining > 0 {
                let Some(ended) = tasks.join_next().await else {
                    return;
                };
                let ended = ended.expect("the wrapper does not panic");
                *draining -= usize::from(ended.phase == Phase::Drain);
                say_how(&ended);
            }
        };
        tokio::select! {
            () = all => true,
            () = tokio::time::sleep(limit) => {
                tracing::warn!(?limit, "stopping takes too long");
                false
            }
            signal = self.signals.stop() => {
                tracing::warn!(signal, "a second signal: hurrying");
                false
            }
        }
    }
}

fn say_how(ended: &Ended) {
    match &ended.result {
        Ok(()) => tracing::debug!(task = ended.name, "{} ended", ended.name),
        Err(error) => tracing::error!(task = ended.name, "{} failed: {error:#}", ended.name),
    }
}

fn crash(ended: Ended) -> Crash {
    match &ended.result {
        Ok(()) => tracing::error!(
            task = ended.name,
            "{} ended by itself; stopping the rest",
            ended.name
        ),
        Err(error) => {
            tracing::error!(
                task = ended.name,
                "{} failed: {error:#}; stopping the rest",
                ended.name
            );
        }
    }
    Crash {
        name: ended.name,
        source: ended.result.err().map(Into::into),
    }
}

fn reload(duties: &mut impl Duties) {
    match NotifyState::monotonic_usec_now() {
        Ok(stamp) => tell(&[NotifyState::Reloading, stamp]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock"),
    }
    duties.reload();
    tell(&[NotifyState::Ready]);
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// Without systemd this does nothing.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd does not listen");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct NoDuties;

    impl Duties for NoDuties {
        fn reload(&mut self) {}
        fn is_alive(&self) -> bool {
            true
        }
        fn status(&self) -> String {
            String::new()
        }
    }

    fn service() -> Service {
        Service::new(Duration::from_secs(20)).unwrap()
    }

    /// A task that takes its time to end when its token is cancelled, and then notes its name.
    fn noting(
        token: CancellationToken,
        takes: Duration,
        name: &'static str,
        seen: &Arc<Mutex<Vec<&'static str>>>,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let seen = Arc::clone(seen);
        async move {
            token.cancelled().await;
            tokio::time::sleep(takes).await;
            seen.lock().unwrap().push(name);
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_by_itself_stops_the_others_in_order_and_is_named() {
        let mut service = service();
        let seen = Arc::default();
        let stop = service.stop().clone();
        service.spawn(
            "listener",
            Phase::Close,
            noting(stop.close, Duration::ZERO, "listener", &seen),
        );
        service.spawn(
            "worker",
            Phase::Drain,
            noting(stop.drain, Duration::from_secs(1), "worker", &seen),
        );
        service.spawn("broken", Phase::Drain, async {
            Err(anyhow::anyhow!("disk full"))
        });
        let started = tokio::time::Instant::now();
        let crash = service
            .run(std::future::pending(), NoDuties)
            .await
            .unwrap_err();
        assert_eq!(started.elapsed(), Duration::from_secs(1));
        assert_eq!(crash.name, "broken");
        assert_eq!(crash.source.unwrap().to_string(), "disk full");
        assert_eq!(*seen.lock().unwrap(), ["worker", "listener"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_crash_of_its_task_on_a_thread_too() {
        let mut service = service();
        service
            .spawn_thread("worker", Phase::Drain, || async { panic!("on purpose") })
            .unwrap();
        // A thread has its own clock; only its end wakes us.
        tokio::time::resume();
        let crash = service
            .run(std::future::pending(), NoDuties)
            .await
            .unwrap_err();
        assert_eq!(crash.name, "worker");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_drain_is_broken_off_after_the_limit() {
        let mut service = service();
        let abort = service.stop().abort.clone();
        let seen = Arc::default();
        service.spawn(
            "stuck",
            Phase::Drain,
            noting(abort, Duration::ZERO, "stuck", &seen),
        );
        service.spawn("broken", Phase::Drain, async { Ok(()) });
        let started = tokio::time::Instant::now();
        service
            .run(std::future::pending(), NoDuties)
            .await
            .unwrap_err();
        assert_eq!(started.elapsed(), Duration::from_secs(20));
        assert_eq!(*seen.lock().unwrap(), ["stuck"]);
    }

    #[tokio::test(start_paused = true)]
    async fn preparing_gives_back_what_was_prepared() {
        assert_eq!(service().prepare("waiting", async { 7 }).await, Some(7));
    }
}
