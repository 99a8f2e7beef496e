//! A wire that can be cut: a TCP proxy in this process, for tests of what a bad network does.
//!
//! It listens on a port of the loopback and leads to a TCP address or to a unix socket. It can be told, at any moment and
//! for the connections that are open as well as for new ones, to cut, refuse, delay, swallow, or lead elsewhere. It runs on a
//! thread of its own, so that a test may block while its processes talk through it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UnixStream},
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::rig::Rig;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// Chunks of one direction that are under way while bytes are delayed; more are not read, as on a real wire.
const UNDER_WAY_MAX: usize = 256;

/// Where a proxy leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Target {
    /// The server of a database URL, whichever way it names it.
    pub(crate) fn of_database(url: &str) -> Self {
        let options = PgConnectOptions::from_str(url).unwrap();
        let port = options.get_port();
        match options.get_socket() {
            Some(directory) => Self::Unix(directory.join(format!(".s.PGSQL.{port}"))),
            None => Self::tcp(options.get_host(), port),
        }
    }

    /// The server of an `http://host:port` URL.
    pub(crate) fn of_http(url: &str) -> Self {
        let authority = url.strip_prefix("http://").expect("a plain http URL");
        let authority = authority.split('/').next().unwrap();
        let (host, port) = authority.rsplit_once(':').expect("a URL with a port");
        Self::tcp(host, port.parse().unwrap())
    }

    fn tcp(host: &str, port: u16) -> Self {
        let host = host.replace("localhost", "127.0.0.1");
        Self::Tcp(SocketAddr::new(host.parse().unwrap(), port))
    }
}

/// What the wire does to bytes. The default carries them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    /// How much later each byte arrives, in either direction. It costs latency, not throughput.
    pub(crate) delay: Duration,
    /// Bytes from the client vanish, and the client is not told. A connection that lost bytes never carries again in that
    /// direction, whatever the weather is later: nobody could make sense of the rest.
    pub(crate) swallow_requests: bool,
    /// Bytes from the server vanish, likewise.
    pub(crate) swallow_answers: bool,
}

/// The proxy. Its connections end when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    orders: watch::Sender<Orders>,
    counts: Arc<Counts>,
    _stop: tokio_util::sync::DropGuard,
}

/// What the proxy was told last.
#[derive(Debug, Clone)]
struct Orders {
    target: Target,
    refuse: bool,
    weather: Weather,
    /// Cancelled by a cut; those who connect later get another one.
    alive: CancellationToken,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    accepted: AtomicUsize,
}

impl Proxy {
    /// Leads there, on a free port of the loopback.
    pub(crate) async fn to(target: Target) -> Self {
        let (orders, heard) = watch::channel(Orders {
            target,
            refuse: false,
            weather: Weather::default(),
            alive: CancellationToken::new(),
        });
        let counts = Arc::new(Counts::default());
        let stop = CancellationToken::new();
        let (bound, port) = oneshot::channel();
        let serving = serve(heard, Arc::clone(&counts), bound);
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            // Its tasks, and with them all connections, end with the runtime.
            runtime.block_on(stopped.run_until_cancelled(serving));
        });
        Self {
            port: port.await.expect("the proxy listens"),
            orders,
            counts,
            _stop: stop.drop_guard(),
        }
    }

    /// The port of the loopback that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Resets every connection that is open now, on both sides.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| {
            std::mem::take(&mut orders.alive).cancel();
        });
    }

    /// From now on new connections are refused (`true`: nobody listens), or taken again. Open ones stay.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.orders.send_modify(|orders| orders.refuse = refuse);
    }

    /// Nobody gets through: what is open is cut, what comes is refused.
    pub(crate) fn unplug(&self) {
        self.refuse(true);
        self.cut();
    }

    /// The end of [`Proxy::unplug`].
    pub(crate) fn plug_in(&self) {
        self.refuse(false);
    }

    /// What happens to bytes from now on, those of open connections too.
    pub(crate) fn weather(&self, weather: Weather) {
        self.orders.send_modify(|orders| orders.weather = weather);
    }

    /// Each byte arrives this much later.
    pub(crate) fn delay(&self, delay: Duration) {
        self.orders
            .send_modify(|orders| orders.weather.delay = delay);
    }

    /// Open connections, and new ones, swallow every byte in both directions: they look alive, and nothing comes. In fair
    /// weather new connections carry again; those that lost bytes stay dead until they are cut or given up.
    pub(crate) fn half_open(&self) {
        self.weather(Weather {
            swallow_requests: true,
            swallow_answers: true,
            ..Weather::default()
        });
    }

    /// New connections lead there; open ones stay where they are (`cut` moves them).
    pub(crate) fn move_to(&self, target: Target) {
        self.orders.send_modify(|orders| orders.target = target);
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Connections that were ever taken.
    pub(crate) fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }
}

/// A socket on the port. Several may be bound to it, so that one can keep the port while nobody listens.
fn socket(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

/// Listens while it is to, for as long as somebody gives orders.
async fn serve(
    mut heard: watch::Receiver<Orders>,
    counts: Arc<Counts>,
    bound: oneshot::Sender<u16>,
) {
    // Bound but not listening: while nobody listens the kernel refuses, and gives the port to nobody else.
    let holder = socket(0).unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut listener = Some(socket(port).unwrap().listen(1024).unwrap());
    bound.send(port).expect("somebody waits for the port");
    loop {
        tokio::select! {
            changed = heard.changed() => if changed.is_err() { return },
            accepted = accept(listener.as_ref()) => {
                let orders = heard.clone();
                tokio::spawn(carry(accepted, orders, Arc::clone(&counts)));
            }
        }
        let refuse = heard.borrow_and_update().refuse;
        if refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(socket(port).unwrap().listen(1024).unwrap());
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.expect("accepting works").0,
        None => std::future::pending().await,
    }
}

/// One connection, until a side closes it or it is cut.
async fn carry(client: TcpStream, orders: watch::Receiver<Orders>, counts: Arc<Counts>) {
    counts.accepted.fetch_add(1, Ordering::Relaxed);
    counts.open.fetch_add(1, Ordering::Relaxed);
    let target = orders.borrow().target.clone();
    // Nobody behind the proxy: the client learns it by the end of its connection, as through any other.
    let _ = match target {
        Target::Tcp(address) => carry_to_tcp(client, address, orders).await,
        Target::Unix(path) => carry_to_unix(client, path, orders).await,
    };
    counts.open.fetch_sub(1, Ordering::Relaxed);
}

async fn carry_to_tcp(
    mut client: TcpStream,
    address: SocketAddr,
    orders: watch::Receiver<Orders>,
) -> io::Result<()> {
    let alive = orders.borrow().alive.clone();
    let mut server = TcpStream::connect(address).await?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let carrying = between(client.split(), server.split(), orders);
    if alive.run_until_cancelled(carrying).await.is_none() {
        reset(client)?;
        reset(server)?;
    }
    Ok(())
}

async fn carry_to_unix(
    mut client: TcpStream,
    path: PathBuf,
    orders: watch::Receiver<Orders>,
) -> io::Result<()> {
    let alive = orders.borrow().alive.clone();
    let mut server = UnixStream::connect(path).await?;
    client.set_nodelay(true)?;
    let carrying = between(client.split(), server.split(), orders);
    if alive.run_until_cancelled(carrying).await.is_none() {
        reset(client)?;
    }
    Ok(())
}

/// Closes so that the other side sees a broken connection and not an end.
fn reset(stream: TcpStream) -> io::Result<()> {
    stream.set_zero_linger()
}

/// Both directions, until one of them has no more to say and it has been said: a side that closed does not want to hear the
/// rest, as far as our servers and clients go.
async fn between(
    client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    server: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    orders: watch::Receiver<Orders>,
) {
    let requests = pump(client.0, server.1, orders.clone(), |weather| {
        weather.swallow_requests
    });
    let answers = pump(server.0, client.1, orders, |weather| {
        weather.swallow_answers
    });
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}

/// One direction: a reader that stamps each chunk with the time it may arrive, and a writer that waits for that.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    orders: watch::Receiver<Orders>,
    swallows: impl Fn(&Weather) -> bool,
) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY_MAX);
    let reading = async {
        let mut is_lost = false;
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk).await.unwrap_or(0);
            let weather = orders.borrow().weather.clone();
            is_lost |= swallows(&weather);
            match length {
                // An end is swallowed like everything else: the other side never learns of it.
                0 if is_lost => std::future::pending().await,
                0 => return drop(sender),
                _ if is_lost => {}
                _ => {
                    let chunk = (Instant::now() + weather.delay, chunk[..length].to_vec());
                    if sender.send(chunk).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let writing = async {
        while let Some((at, chunk)) = under_way.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    // What was read before the end still arrives.
    tokio::pin!(writing);
    tokio::select! {
        () = reading => writing.await,
        () = &mut writing => {}
    }
}

/// A proxy on each of the daemon's two wires.
#[derive(Debug)]
pub(crate) struct Wires {
    pub(crate) database: Proxy,
    pub(crate) provider: Proxy,
    /// What stands in the configuration, and what is to stand there instead.
    instead: [(String, String); 2],
}

impl Wires {
    /// Proxies to the rig's database and sandbox. A daemon goes through them when its configuration says so.
    pub(crate) async fn of(rig: &Rig) -> Self {
        let (database_url, sandbox_url) = (rig.database.url(), rig.sandbox.url());
        let database = Proxy::to(Target::of_database(database_url)).await;
        let provider = Proxy::to(Target::of_http(&sandbox_url)).await;
        let options = PgConnectOptions::from_str(database_url).unwrap();
        let through = format!(
            "postgres://{}@127.0.0.1:{}/{}",
            options.get_username(),
            database.port(),
            options
                .get_database()
                .expect("a test's URL names its database"),
        );
        let instead = [
            (format!("{database_url:?}"), format!("{through:?}")),
            (
                format!("{sandbox_url:?}"),
                format!("\"http://127.0.0.1:{}\"", provider.port()),
            ),
        ];
        Self {
            database,
            provider,
            instead,
        }
    }

    /// The same configuration, through the proxies.
    pub(crate) fn config(&self, config: &str) -> String {
        self.instead
            .iter()
            .fold(config.to_owned(), |config, (direct, through)| {
                assert!(
                    config.contains(direct),
                    "{direct} stands in the configuration"
                );
                config.replace(direct, through)
            })
    }
}

impl Rig {
    /// Puts a proxy on each wire of the daemons that are started from now on. The rig's own questions go past them.
    pub(crate) async fn wires(&mut self) -> Wires {
        let wires = Wires::of(self).await;
        self.config = wires.config(&self.config);
        self.postrider.rewrite(&self.config);
        wires
    }
}
