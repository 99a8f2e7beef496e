//! A request's body that knows when it leaves.
//!
//! Between the decision to post and the bytes on the wire there may be a connection to be made, a handshake, a busy
//! thread. Limits are about the wire, so the body asks at the last moment, when its connection takes it, whether it may
//! still go, and tells that it went.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Asked once, on the thread that writes, immediately before the bytes are written; false keeps them back.
type Leave = Box<dyn FnOnce() -> bool + Send + Sync>;

/// The body of one request.
pub(super) struct Letter {
    bytes: Bytes,
    leave: Option<Leave>,
    has_left: Arc<AtomicBool>,
}

/// Whether a letter has left, for who sent it.
#[derive(Debug, Clone)]
pub(super) struct Trace(Arc<AtomicBool>);

impl Trace {
    /// Whether any byte of the body may be on the wire. A request without its body is nothing that a server acts on.
    pub(super) fn has_left(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Letter {
    pub(super) fn new(
        bytes: Bytes,
        leave: impl FnOnce() -> bool + Send + Sync + 'static,
    ) -> (Self, Trace) {
        let has_left = Arc::new(AtomicBool::new(false));
        let letter = Self {
            bytes,
            leave: Some(Box::new(leave)),
            has_left: Arc::clone(&has_left),
        };
        (letter, Trace(has_left))
    }
}

/// It was too late to send it.
#[derive(Debug)]
pub(super) struct KeptBack;

impl fmt::Display for KeptBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was too late to send it when a connection was free")
    }
}

impl std::error::Error for KeptBack {}

impl Body for Letter {
    type Data = Bytes;
    type Error = KeptBack;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, KeptBack>>> {
        let Some(leave) = self.leave.take() else {
            return Poll::Ready(None);
        };
        if !leave() {
            return Poll::Ready(Some(Err(KeptBack)));
        }
        self.has_left.store(true, Ordering::Release);
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.leave.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}
