//! An upstream that misbehaves by plan, comes and goes, and keeps account of what it did.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use pratfall::chance::Chance;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// The listener's timeouts for head and body; a machine that is slow for so long would be taken for a stalled upstream.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// An answer that takes as long as this is late by the upstream's own account.
const LATE: Duration = Duration::from_secs(2);

/// After the upstream has come back, as long as a busy machine may need to notice that old connections are gone.
const AFTERMATH: Duration = Duration::from_millis(250);

/// What the upstream does with a request, by its number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Deed {
    Answer,
    AnswerWithError,
    ResetBeforeHead,
    ResetMidBody,
    CloseMidBody,
    StallBeforeHead,
    StallMidBody,
}

impl Deed {
    pub(crate) fn of(chance: &Chance, id: u64) -> Self {
        match chance.draw("deed", &id.to_be_bytes()) {
            draw if draw < 0.03 => Self::AnswerWithError,
            draw if draw < 0.05 => Self::ResetBeforeHead,
            draw if draw < 0.08 => Self::ResetMidBody,
            draw if draw < 0.10 => Self::CloseMidBody,
            draw if draw < 0.103 => Self::StallBeforeHead,
            draw if draw < 0.106 => Self::StallMidBody,
            _ => Self::Answer,
        }
    }
}

pub(crate) fn pattern(id: u64, length: usize) -> Bytes {
    (0..length as u64).map(|at| (id.wrapping_mul(31).wrapping_add(at) % 251) as u8).collect()
}

/// How long the answer to a request is: mostly short, sometimes longer than every buffer on the way.
pub(crate) fn length(chance: &Chance, id: u64) -> usize {
    let draw = chance.draw("length", &id.to_be_bytes());
    if draw < 0.1 { (draw * 3_000_000.0) as usize } else { (draw * 4000.0) as usize }
}

/// What the upstream did, so that nobody else has to answer for it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Requests that it did not answer well, or late.
    pub(crate) misdeeds: HashMap<u64, &'static str>,
    /// When it was away; the last one may go on.
    pub(crate) away: Vec<(Instant, Option<Instant>)>,
}

impl Account {
    pub(crate) fn was_away(&self, from: Instant, to: Instant) -> bool {
        self.away.iter().any(|(left, back)| *left <= to && back.is_none_or(|back| from <= back + AFTERMATH))
    }
}

/// An upstream that flaps.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) chance: Chance,
    pub(crate) account: Arc<Mutex<Account>>,
    /// Whether its callers are to stop.
    pub(crate) over: Arc<AtomicBool>,
}

impl Upstream {
    pub(crate) async fn flap(self) {
        for turn in 0u64.. {
            let listener = TcpListener::bind(self.address).await.unwrap();
            if let Some((_, back)) = self.account.lock().unwrap().away.last_mut() {
                *back = Some(Instant::now());
            }
            let draw = |what| self.chance.draw(what, &turn.to_be_bytes());
            let up = sleep(Duration::from_secs_f64(3.0 + 4.0 * draw("up")));
            tokio::pin!(up);
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => drop(connections.spawn(self.clone().serve(stream))),
                    Some(_) = connections.join_next() => {}
                    () = &mut up => break,
                }
            }
            self.account.lock().unwrap().away.push((Instant::now(), None));
            drop((listener, connections));
            sleep(Duration::from_secs_f64(0.2 + 0.8 * draw("away"))).await;
        }
    }

    async fn serve(self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut seen = Vec::new();
        loop {
            let Some(end) = head_end(&seen) else {
                if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                    return;
                }
                continue;
            };
            let came = Instant::now();
            let head = String::from_utf8_lossy(&seen[..end]).into_owned();
            let id: u64 = head.split(['/', ' ']).nth(3).and_then(|id| id.parse().ok()).unwrap();
            let mut upload: usize = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            seen.drain(..end);
            while upload > seen.len() {
                upload -= seen.len();
                seen.clear();
                // A caller that leaves in the middle of its upload ends this exchange.
                if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            seen.drain(..upload);
            if self.answer(&mut stream, id, came).await.is_none() {
                return;
            }
        }
    }

    /// Does to a request what it is in for; nothing when the connection is over.
    async fn answer(&self, stream: &mut TcpStream, id: u64, came: Instant) -> Option<()> {
        let confess = |what| {
            self.account.lock().unwrap().misdeeds.insert(id, what);
        };
        let (deed, body) = (Deed::of(&self.chance, id), pattern(id, length(&self.chance, id)));
        let status = if deed == Deed::AnswerWithError { "503 Service Unavailable" } else { "200 OK" };
        let (first, second) = body.split_at(body.len() / 2);
        let (half, rest) = if self.chance.draw("chunked", &id.to_be_bytes()) < 0.5 {
            // A cut falls between two chunks, where only the missing last one tells.
            let chunk = |data: &[u8]| match data {
                [] => Vec::new(),
                data => [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat(),
            };
            let head = format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n");
            ([head.into_bytes(), chunk(first)].concat(), [chunk(second), b"0\r\n\r\n".to_vec()].concat())
        } else {
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
            ([head.as_bytes(), first].concat(), second.to_vec())
        };
        match deed {
            Deed::Answer | Deed::AnswerWithError => {
                stream.write_all(&[half, rest].concat()).await.ok()?;
                if came.elapsed() > LATE {
                    confess("was late");
                }
                return Some(());
            }
            Deed::ResetBeforeHead => confess("reset before the head"),
            Deed::ResetMidBody => {
                confess("reset in the body");
                stream.write_all(&half).await.ok()?;
            }
            Deed::CloseMidBody => {
                confess("closed in the body");
                stream.write_all(&half).await.ok()?;
                return None;
            }
            Deed::StallBeforeHead => {
                confess("stalled before the head");
                sleep(PATIENCE + LATE).await;
            }
            Deed::StallMidBody => {
                confess("stalled in the body");
                stream.write_all(&half).await.ok()?;
                sleep(PATIENCE + LATE).await;
            }
        }
        let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)); // a reset, not an end
        None
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.into_iter().find_map(|(other, value)| other.eq_ignore_ascii_case(name).then_some(value))
}
