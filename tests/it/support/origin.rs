//! An upstream that does exactly what a test says, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;

use super::wire::{Message, Wire};
use super::{ok, until};

/// An upstream.
#[derive(Clone, Debug)]
pub struct Origin {
    pub address: SocketAddr,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Log {
    seen: Mutex<Vec<(usize, Message)>>,
    connections: AtomicUsize,
    ended: AtomicUsize,
}

/// One connection that somebody made.
#[derive(Debug)]
pub struct Visit {
    pub wire: Wire,
    /// Its number, from 0 on.
    pub number: usize,
    log: Arc<Log>,
}

impl Visit {
    /// Reads a request to its end and remembers it; nothing where no more come.
    pub async fn request(&mut self) -> Option<Message> {
        let mut message = self.head().await?;
        self.wire.body(&mut message).await;
        self.remember(&message);
        Some(message)
    }

    /// Reads the head of a request only.
    pub async fn head(&mut self) -> Option<Message> {
        self.wire.head().await
    }

    pub fn remember(&self, message: &Message) {
        self.log.seen.lock().expect("no test panics with it").push((self.number, message.clone()));
    }

    /// Waits for the other side to end the connection, and remembers that it did.
    pub async fn ended(mut self) {
        self.wire.rest().await;
        self.log.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Origin {
    /// Gives each connection to `script`.
    pub async fn scripted<F, Fut>(script: F) -> Self
    where
        F: Fn(Visit) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are ports");
        let (address, log) = (listener.local_addr().expect("it is bound"), Arc::new(Log::default()));
        let origin = Self { address, log: log.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = log.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(Visit { wire: Wire::new(stream), number, log: log.clone() }));
            }
        });
        origin
    }

    /// Answers each request with what `reply` makes of it, and keeps the connection.
    pub async fn replying(reply: impl Fn(&Message) -> Vec<u8> + Clone + Send + 'static) -> Self {
        Self::scripted(move |mut visit| {
            let reply = reply.clone();
            async move {
                while let Some(request) = visit.request().await {
                    if visit.wire.try_send(&reply(&request)).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Answers each request with these bytes, and keeps the connection.
    pub async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::replying(move |_| bytes.clone()).await
    }

    /// Answers each request with 200 and `hello`.
    pub async fn well() -> Self {
        Self::answering(ok("hello")).await
    }

    /// An address where nobody listens.
    pub async fn nobody() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are ports");
        listener.local_addr().expect("it is bound")
    }

    /// What was asked so far, in order.
    pub fn seen(&self) -> Vec<Message> {
        self.log.seen.lock().expect("no test panics with it").iter().map(|(_, message)| message.clone()).collect()
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.log.seen.lock().expect("no test panics with it").len()
    }

    /// What was asked last.
    pub fn last(&self) -> Message {
        let seen = self.log.seen.lock().expect("no test panics with it");
        seen.last().map(|(_, message)| message.clone()).expect("it was asked")
    }

    /// Connections that were made.
    pub fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many connections that waited for their end have seen it.
    pub async fn until_ended(&self, count: usize) {
        until("the origin's connections end", || self.log.ended.load(Ordering::SeqCst) >= count).await;
    }

    /// Waits until it was asked so often.
    pub async fn until_asked(&self, count: usize) {
        until("the origin is asked", || self.asked() >= count).await;
    }
}
