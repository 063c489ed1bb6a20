//! Both ends of HTTP/2 without TLS, as hyper speaks it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::within;

pub type Broken = std::io::Error;
pub type Sent = BoxBody<Bytes, Broken>;

/// A body of its own pieces, sent when the test says; dropping the sender ends it, sending an error breaks it.
pub fn pieces() -> (mpsc::UnboundedSender<Result<Frame<Bytes>, Broken>>, Sent) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<_>| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    (sender, BodyExt::boxed(StreamBody::new(SyncStream(Box::pin(stream)))))
}

/// A stream that one task at a time polls, and that may be sent and shared: [`BoxBody`] wants that.
struct SyncStream<S>(std::pin::Pin<Box<S>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

pub fn whole(bytes: impl Into<Bytes>) -> Sent {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

pub fn nothing() -> Sent {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A caller that speaks HTTP/2 by prior knowledge.
#[derive(Clone, Debug)]
pub struct H2Client(SendRequest<Sent>);

impl H2Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(within("connecting", TcpStream::connect(address)).await.expect("the listener listens")).await
    }

    /// One that takes a little of each body at a time.
    pub async fn narrow(address: SocketAddr, window: u32) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("the listener listens");
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let handshake = builder.initial_stream_window_size(window).handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("h2");
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("h2");
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&self, request: Request<Sent>) -> Result<Response<Incoming>, hyper::Error> {
        let mut sender = self.0.clone();
        within("an answer over h2", async move {
            sender.ready().await?;
            sender.send_request(request).await
        })
        .await
    }

    /// A GET and its whole answer.
    pub async fn get(&self, uri: &str) -> Result<(Response<()>, Bytes), hyper::Error> {
        let request = Request::get(format!("http://shop.example{uri}")).body(nothing()).expect("a request");
        let (head, body) = self.send(request).await?.into_parts();
        let body = within("a body over h2", body.collect()).await?.to_bytes();
        Ok((Response::from_parts(head, ()), body))
    }
}

/// The code of an RST_STREAM, wherever it is among the causes.
pub fn reset_code(error: &(dyn std::error::Error + 'static)) -> Option<h2::Reason> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.reason();
        }
        cause = error.source();
    }
    None
}

/// What an HTTP/2 upstream was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// An upstream that speaks HTTP/2 without TLS.
#[derive(Clone, Debug)]
pub struct H2Origin {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    pub connections: Arc<AtomicUsize>,
    serving: Arc<Mutex<Vec<AbortHandle>>>,
}

impl H2Origin {
    pub async fn replying<F, Fut>(reply: F) -> Self
    where
        F: Fn(Asked) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Sent>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are ports");
        let address = listener.local_addr().expect("it is bound");
        let origin = Self { address, asked: Arc::default(), connections: Arc::default(), serving: Arc::default() };
        let (asked, connections, serving) = (origin.asked.clone(), origin.connections.clone(), origin.serving.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (asked, reply) = (asked.clone(), reply.clone());
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (asked, reply) = (asked.clone(), reply.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let collected = body.collect().await?;
                        let trailers = collected.trailers().cloned();
                        let body = collected.to_bytes();
                        let one = Asked { uri: head.uri.to_string(), headers: head.headers, body, trailers };
                        asked.lock().expect("no test panics with it").push(one.clone());
                        Ok::<_, hyper::Error>(reply(one).await)
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let task = tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
                serving.lock().expect("no test panics with it").push(task.abort_handle());
            }
        });
        origin
    }

    /// Ends all connections without a word.
    pub fn end_connections(&self) {
        self.serving.lock().expect("no test panics with it").drain(..).for_each(|task| task.abort());
    }

    pub fn last(&self) -> Asked {
        self.asked.lock().expect("no test panics with it").last().cloned().expect("it was asked")
    }
}
