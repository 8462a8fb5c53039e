//! A body on its way from a rig to a client: piece by piece as it comes, cut off when nothing comes for too long.
//!
//! Dropping it, because the client has gone, closes the connection to the rig; so does its end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::rig::Visit;

/// See the module head.
pub(super) struct Passage {
    body: Body,
    wait: Duration,
    silence: Pin<Box<Sleep>>,
    _visit: Visit,
}

impl Passage {
    /// The body of a visit; no two pieces further apart than `wait`.
    pub(super) fn new(body: Body, wait: Duration, visit: Visit) -> Self {
        Self { body, wait, silence: Box::pin(tokio::time::sleep(wait)), _visit: visit }
    }
}

impl HttpBody for Passage {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(piece) => {
                let until = Instant::now() + this.wait;
                this.silence.as_mut().reset(until);
                Poll::Ready(piece)
            }
            Poll::Pending => match this.silence.as_mut().poll(context) {
                Poll::Ready(()) => {
                    let reason = io::Error::new(io::ErrorKind::TimedOut, "the rig fell silent");
                    Poll::Ready(Some(Err(axum::Error::new(reason))))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
