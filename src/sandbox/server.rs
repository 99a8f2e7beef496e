//! Connections: HTTP/1.1 and HTTP/2 (prior knowledge) on one port, each of which a handler can reset.
//!
//! The way of a message is short on purpose: its path is taken apart by hand, everything else goes to axum's router.

use std::{
    convert::Infallible,
    future::pending,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    select,
    sync::Notify,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    control_http, directory,
    messages::{self, Version},
    traffic::Shared,
};

/// As the provider's edge has it.
const STREAMS_PER_CONNECTION: u32 = 100;
/// After a failed accept (out of file descriptors, mostly), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts and serves until `shutdown`, then drops every connection.
pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let router = directory::router(shared.clone()).merge(control_http::router(shared.clone()));
    loop {
        let accepted = select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(
                    stream,
                    shared.clone(),
                    router.clone(),
                    shutdown.clone(),
                ));
            }
            Err(error) => {
                tracing::warn!(%error, "the sandbox could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    shared: Arc<Shared>,
    router: Router,
    shutdown: CancellationToken,
) {
    // Small answers must not wait for the acknowledgement of earlier ones; without it, only slower.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(ResetSwitch::default());
    let wire = Wire {
        stream,
        reset: reset.clone(),
    };
    let service = {
        let (router, reset) = (TowerToHyperService::new(router), reset.clone());
        service_fn(move |request| answer(shared.clone(), reset.clone(), router.clone(), request))
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    select! {
        // A client that breaks off is no news.
        _ = builder.serve_connection(TokioIo::new(wire), service) => {}
        () = reset.pulled.notified() => {}
        () = shutdown.cancelled() => {}
    }
}

async fn answer(
    shared: Arc<Shared>,
    reset: Arc<ResetSwitch>,
    router: TowerToHyperService<Router>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.method() == Method::POST && request.uri().path().ends_with("/messages") {
        let (head, body) = request.into_parts();
        if let Some((version, number)) = messages_path(head.uri.path()) {
            return Ok(messages::post(&shared, &reset, number, version, &head.headers, body).await);
        }
        return router.call(Request::from_parts(head, body)).await;
    }
    router.call(request).await
}

/// `/{version}/{phone_number_id}/messages`, where the version may be missing.
fn messages_path(path: &str) -> Option<(Version, &str)> {
    let rest = path.strip_prefix('/')?.strip_suffix("/messages")?;
    match rest.split_once('/') {
        None => Some((Version::DEFAULT, rest)),
        Some((version, number)) if !number.contains('/') => {
            Some((Version::parse(version)?, number))
        }
        Some(_) => None,
    }
}

/// Lets a handler reset the connection under it.
#[derive(Default)]
pub(super) struct ResetSwitch {
    is_pulled: AtomicBool,
    pulled: Notify,
}

impl ResetSwitch {
    /// Resets the connection; never returns, as the connection takes the caller with it.
    pub(super) async fn pull<T>(&self) -> T {
        self.is_pulled.store(true, Ordering::Release);
        self.pulled.notify_one();
        pending().await
    }
}

/// A TCP stream that is reset rather than closed when its switch was pulled.
struct Wire {
    stream: TcpStream,
    reset: Arc<ResetSwitch>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.is_pulled.load(Ordering::Acquire) {
            // With a linger time of zero, close sends RST.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_messages_path_has_a_number_and_maybe_a_version() {
        assert_eq!(
            messages_path("/v23.0/1065/messages"),
            Some((Version::parse("v23.0").unwrap(), "1065"))
        );
        assert_eq!(
            messages_path("/1065/messages"),
            Some((Version::DEFAULT, "1065"))
        );
        assert_eq!(messages_path("/v23.0/1065/more/messages"), None);
        assert_eq!(messages_path("/messages"), None);
    }
}
