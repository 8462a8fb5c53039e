//! The gRPC face of [`CallbackStream`]: service `mlnode.poc.v1.PoCCallbackStream`, which a newer Network Node dials.
//!
//! Names and field numbers are those of the network's own generated stubs
//! (`gonka-ai/gonka:mlnode/packages/api/src/api/pocstream/gen`). The messages are four small structs, written by hand, so
//! that building needs no protobuf compiler. The port is not encrypted and knows no token, as theirs: bind it to the
//! private side.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Response};
use futures_util::Stream;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::proof::CallbackStream;

/// A consumer that does not answer for so long is gone, and the next one is not kept waiting for it.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// `StreamCallbacksRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StreamCallbacksRequest {
    /// Everything up to this callback has arrived; empty at the first time.
    #[prost(string, tag = "1")]
    pub resume_after_id: String,
}

/// `Callback`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CallbackMessage {
    /// Names it in an acknowledgement.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The path it would have been posted to.
    #[prost(string, tag = "2")]
    pub path: String,
    /// The JSON that would have been posted.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
}

/// `AckCallbacksRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AckCallbacksRequest {
    /// Callbacks that were dealt with.
    #[prost(string, repeated, tag = "1")]
    pub ids: Vec<String>,
}

/// `AckCallbacksResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AckCallbacksResponse {}

/// The path of `StreamCallbacks`.
pub const STREAM_PATH: &str = "/mlnode.poc.v1.PoCCallbackStream/StreamCallbacks";
/// The path of `AckCallbacks`.
pub const ACK_PATH: &str = "/mlnode.poc.v1.PoCCallbackStream/AckCallbacks";

/// Serves the stream until told to stop.
///
/// # Errors
/// The listener failed.
pub async fn serve_callbacks(
    listener: TcpListener,
    stream: CallbackStream,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .serve_with_incoming_shutdown(
            Methods { stream },
            TcpIncoming::from(listener),
            stop.cancelled_owned(),
        )
        .await
}

#[derive(Clone)]
struct Methods {
    stream: CallbackStream,
}

impl Service<Request<Body>> for Methods {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let stream = self.stream.clone();
        match request.uri().path() {
            STREAM_PATH => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::default());
                Ok(grpc.server_streaming(StreamCallbacks(stream), request).await)
            }),
            ACK_PATH => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::default());
                Ok(grpc.unary(AckCallbacks(stream), request).await)
            }),
            path => {
                let status = Status::unimplemented(format!("no such method: {path}"));
                Box::pin(ready(Ok(status.into_http())))
            }
        }
    }
}

struct StreamCallbacks(CallbackStream);

type Callbacks = Pin<Box<dyn Stream<Item = Result<CallbackMessage, Status>> + Send>>;

impl ServerStreamingService<StreamCallbacksRequest> for StreamCallbacks {
    type Response = CallbackMessage;
    type ResponseStream = Callbacks;
    type Future = Ready<Result<tonic::Response<Callbacks>, Status>>;

    fn call(&mut self, request: tonic::Request<StreamCallbacksRequest>) -> Self::Future {
        let resume_after_id = request.into_inner().resume_after_id;
        tracing::info!(resume_after_id, "a Network Node fetches callbacks");
        let feed = self.0.open(&resume_after_id);
        let callbacks = futures_util::stream::unfold(feed, |mut feed| async move {
            let callback = feed.next().await?;
            let (id, path, body) = (callback.id, callback.path, callback.body);
            Some((Ok(CallbackMessage { id, path, body }), feed))
        });
        let callbacks: Callbacks = Box::pin(callbacks);
        ready(Ok(tonic::Response::new(callbacks)))
    }
}

struct AckCallbacks(CallbackStream);

impl UnaryService<AckCallbacksRequest> for AckCallbacks {
    type Response = AckCallbacksResponse;
    type Future = Ready<Result<tonic::Response<AckCallbacksResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<AckCallbacksRequest>) -> Self::Future {
        self.0.acknowledge(&request.into_inner().ids);
        ready(Ok(tonic::Response::new(AckCallbacksResponse {})))
    }
}
