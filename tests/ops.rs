//! What monitoring asks, and how many may ask at once.

#![expect(
    clippy::unwrap_used,
    reason = "a test that finds nothing there has failed"
)]

use postrider::{
    dispatch,
    http::{
        meters::Meters,
        ops::{Readiness, ops},
        serving::serve,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Serves the ops routes on a port of the loopback until the guard goes.
async fn start(readiness: &Readiness, max_connections: usize) -> (u16, DropGuard) {
    let registry = prometheus::Registry::new();
    let meters = Meters::new(dispatch::meters::Meters::default().finished);
    meters.register(&registry).unwrap();
    meters.receipts.with_label_values(&["sent"]).inc();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    let routes = ops(registry, readiness.clone());
    tokio::spawn(serve(listener, routes, max_connections, stop.clone()));
    (port, stop.drop_guard())
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

async fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    ask(&mut stream, path).await;
    answer(stream).await
}

#[tokio::test]
async fn readyz_names_what_is_not_ready_and_healthz_does_not_care() {
    let readiness = Readiness::new();
    readiness.ready("schema");
    readiness.not_ready("database", "connection refused");
    let (port, _stop) = start(&readiness, 10).await;
    let answer = get(port, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.ends_with("database: connection refused\n"),
        "{answer}"
    );
    assert!(get(port, "/healthz").await.starts_with("HTTP/1.1 200"));
    readiness.ready("database");
    assert!(get(port, "/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn metrics_are_shown_as_prometheus_reads_them() {
    let (port, _stop) = start(&Readiness::new(), 10).await;
    let answer = get(port, "/metrics").await;
    assert!(answer.contains("content-type: text/plain"), "{answer}");
    assert!(
        answer.contains("postrider_receipts_total{status=\"sent\"} 1"),
        "{answer}"
    );
}

#[tokio::test]
async fn whoever_finds_every_place_taken_waits_for_one() {
    let (port, _stop) = start(&Readiness::new(), 1).await;
    let mut first = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    round_trip(&mut first).await;

    let mut second = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    ask(&mut second, "/healthz").await;
    let waiting = tokio::spawn(answer(second));
    for _ in 0..20 {
        // Were there a place, the second would have its answer by one of these.
        round_trip(&mut first).await;
        assert!(!waiting.is_finished());
    }
    drop(first);
    assert!(waiting.await.unwrap().starts_with("HTTP/1.1 200"));
}

/// Asks on a connection that stays, and waits for the answer.
async fn round_trip(stream: &mut TcpStream) {
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
}
