//! The log of requests: a sampled line each, written by a thread that the traffic never waits for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body::Body as _;
use tokio::time::Instant;

use super::config::ListenerConfig;
use super::route;
use crate::service::{Body, Error, Watch};
use crate::units::Percent;

/// Lines that may wait for whoever reads the log; more are lost, and counted.
const WAITING: usize = 1024;

/// Where the lines of all listeners go.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The share of requests that is written down, of `u32::MAX`.
    share: AtomicU32,
    lines: OnceLock<SyncSender<Line>>,
    lost: AtomicU64,
}

impl Log {
    /// From now on this share is written down.
    pub(super) fn sample(&self, share: Option<Percent>) -> std::io::Result<()> {
        let share = share.map_or(0.0, Percent::ratio);
        if share > 0.0 && self.lines.get().is_none() {
            let (lines, written) = sync_channel(WAITING);
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&written))?;
            // Somebody else's thread ends at once, as nobody sends to it.
            let _ = self.lines.set(lines);
        }
        self.share.store((share * f64::from(u32::MAX)) as u32, Relaxed);
        Ok(())
    }

    /// What is to be written about a request, if it is drawn.
    #[inline]
    pub(super) fn draw<B>(self: &Arc<Self>, config: &ListenerConfig, request: &Request<B>) -> Option<Box<Entry>> {
        let share = self.share.load(Relaxed);
        if share == 0 || rand::random::<u32>() > share {
            return None;
        }
        let line = Line {
            listener: config.name.clone(),
            method: known(request.method()),
            route: pattern(config, request),
            status: 0,
            error: "",
            bytes: 0,
            took: Duration::ZERO,
            lost: self.lost.swap(0, Relaxed),
        };
        Some(Box::new(Entry { line, since: Instant::now(), log: self.clone() }))
    }
}

/// Methods are words of the caller's: only those that everybody knows are repeated.
fn known(method: &Method) -> &'static str {
    const ALL: [Method; 9] = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::CONNECT,
        Method::PATCH,
        Method::TRACE,
    ];
    const NAMES: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "PATCH", "TRACE"];
    ALL.iter().position(|one| one == method).map_or("other", |index| NAMES[index])
}

/// The route by its pattern, as paths can name people.
fn pattern<B>(config: &ListenerConfig, request: &Request<B>) -> String {
    let Some(route) = route::taken(&config.routes, request).map(|index| &config.routes[index]) else {
        return "*".to_owned();
    };
    let path = route.path.as_ref().map_or_else(|| "/**".to_owned(), ToString::to_string);
    format!("{}{path}", route.host.as_deref().unwrap_or_default())
}

#[derive(Debug)]
struct Line {
    listener: String,
    method: &'static str,
    route: String,
    status: u16,
    error: &'static str,
    bytes: u64,
    took: Duration,
    lost: u64,
}

/// A request whose line is not written yet.
#[derive(Debug)]
pub(super) struct Entry {
    line: Line,
    since: Instant,
    log: Arc<Log>,
}

impl Entry {
    /// There is no answer of the upstream's, because of an error.
    pub(super) fn because(&mut self, error: &Error) {
        self.line.error = error.kind();
    }

    /// There is an answer, of which the last byte is to be seen.
    pub(super) fn watch(mut self: Box<Self>, response: &mut Response<Body>) {
        self.line.status = response.status().as_u16();
        if response.body().is_end_stream() {
            self.write();
        } else {
            response.body_mut().watch(Counted(Some(self)));
        }
    }

    /// Hands the line over, if somebody takes it.
    pub(super) fn write(mut self) {
        self.line.took = self.since.elapsed();
        let lost = self.line.lost + 1;
        let sent = self.log.lines.get().is_some_and(|lines| lines.try_send(self.line).is_ok());
        if !sent {
            self.log.lost.fetch_add(lost, Relaxed);
        }
    }
}

struct Counted(Option<Box<Entry>>);

impl Watch for Counted {
    fn piece(&mut self, piece: &[u8]) {
        if let Some(entry) = &mut self.0 {
            entry.line.bytes += piece.len() as u64;
        }
    }

    fn end(&mut self, result: Result<(), &Error>) {
        if let Some(mut entry) = self.0.take() {
            if let Err(error) = result {
                entry.because(error);
            }
            entry.write();
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Nobody waited for the end.
        if let Some(mut entry) = self.0.take() {
            entry.because(&Error::Gone);
            entry.write();
        }
    }
}

/// Writes until nobody sends any more. Whoever reads the log may be slow.
fn write(lines: &Receiver<Line>) {
    while let Ok(line) = lines.recv() {
        let Line { listener, method, route, status, error, bytes, took, lost } = line;
        let took_ms = took.as_secs_f64() * 1e3;
        if lost > 0 {
            tracing::warn!(target: "pratfall::access", lost, "the access log is read too slowly: lines were left out");
        }
        tracing::info!(target: "pratfall::access", listener, method, route, status, error, bytes, took_ms, "request");
    }
}
