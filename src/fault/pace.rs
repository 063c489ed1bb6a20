//! Slows a body: no faster than a rate, one byte at a time, or a delay before each chunk.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::hold::{Held, Hold};
use super::stream::Setting;
use super::tear::with;
use crate::service::{Body, Error};

/// How slowly a body goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// So many bytes per second.
    Rate(u64),
    /// One byte each time this has passed.
    Drip(Duration),
    /// A delay, plus or minus, before each chunk.
    Chunk { delay: Duration, jitter: Duration },
}

/// A throttled body goes in pieces of so much time. Who was slower than the rate may make up for this much.
const PIECE: Duration = Duration::from_millis(50);

/// A body that is slowed. Nothing is read from it before what was read has gone, so that its sender feels the pace.
pub(super) struct Paced {
    body: Body,
    pace: Pace,
    setting: Setting,
    /// What was read, and waits.
    rest: Bytes,
    /// The next bytes of it, and how long they are to wait.
    next: Option<(usize, Duration, Pin<Box<Hold>>)>,
    /// When the last piece was due.
    due: Option<Instant>,
    chunks: u64,
}

impl Paced {
    pub(super) fn new(body: Body, pace: Pace, setting: Setting) -> Self {
        Self { body, pace, setting, rest: Bytes::new(), next: None, due: None, chunks: 0 }
    }

    /// How many bytes go next, from when on they wait, and how long.
    fn plan(&mut self) -> (usize, Instant, Duration) {
        let now = Instant::now();
        match self.pace {
            Pace::Rate(rate) => {
                let piece = (u128::from(rate) * PIECE.as_nanos() / 1_000_000_000).max(1);
                let length = self.rest.len().min(usize::try_from(piece).unwrap_or(usize::MAX));
                let nanos = (length as u128 * 1_000_000_000).div_ceil(u128::from(rate.max(1)));
                // A timer that comes late must not make the whole slower.
                let since = self.due.map_or(now, |due| due.max(now.checked_sub(PIECE).unwrap_or(now)));
                (length, since, Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
            }
            Pace::Drip(gap) => (1, self.due.map_or(now, |due| due.max(now.checked_sub(gap).unwrap_or(now))), gap),
            Pace::Chunk { delay, jitter } => {
                let drawn = jitter.mul_f64(2.0 * self.setting.draw.uniform(self.chunks));
                self.chunks += 1;
                (self.rest.len(), now, (delay + drawn).saturating_sub(jitter))
            }
        }
    }

    /// Tells that bytes waited.
    fn told(&self, asked: Duration, since: Instant) {
        let per_chunk = matches!(self.pace, Pace::Chunk { .. });
        self.setting.tell(|testimony| {
            testimony.changed = true;
            if per_chunk {
                // All that the chunks of one call waited, as it was asked and as it was.
                let (before, start) = testimony.asked.unwrap_or((Duration::ZERO, since));
                testimony.asked = Some((before + asked, start));
                testimony.waited = Some(testimony.waited.unwrap_or_default() + since.elapsed());
            }
        });
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        loop {
            if let Some((length, asked, hold)) = &mut this.next {
                let held = ready!(hold.as_mut().poll(cx));
                let (length, asked) = (*length, *asked);
                this.next = None;
                let piece = match held {
                    Held::ToTheEnd => {
                        let since = this.due.map_or_else(Instant::now, |due| due - asked);
                        this.told(asked, since);
                        this.rest.split_to(length)
                    }
                    Held::Released => {
                        this.setting.tell(|testimony| testimony.changed = true);
                        std::mem::take(&mut this.rest)
                    }
                };
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if !this.rest.is_empty() {
                let (length, since, span) = this.plan();
                this.due = Some(since + span);
                let hold = Hold::new(since, Some(span), this.setting.stop.clone(), None);
                this.next = Some((length, span, Box::pin(hold)));
                continue;
            }
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else { return Poll::Ready(None) };
            match frame?.into_data() {
                Ok(piece) if this.setting.stop.is_cancelled() => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(piece) => this.rest = piece,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        with(self.rest.len(), self.body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Version};
    use tokio_util::sync::CancellationToken;

    use super::super::stream::stage::{Came, Pieces, through};
    use super::*;

    async fn paced(fault: &str, pieces: Pieces) -> Came {
        through(fault, pieces, Version::HTTP_11, CancellationToken::new()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_body_keeps_to_its_rate_from_the_first_byte_to_the_last() {
        for (rate, rates, sizes) in [
            ("32KiB/s", 32_768.0, &[100_000, 7, 31_061][..]),
            ("1000B/s", 1000.0, &[1, 2999]),
            ("10B/s", 10.0, &[25]),
            ("3MB/s", 3e6, &[65_536, 65_536, 65_536, 900_000]),
        ] {
            let texts: Vec<_> = sizes.iter().map(|size| "x".repeat(*size)).collect();
            let pieces = Pieces::of(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let came = paced(&format!(r#"{{"throttle":{{"rate":"{rate}"}}}}"#), pieces).await;
            let mut passed = 0;
            for (at, piece) in &came.pieces {
                passed += piece.len();
                let right = passed as f64 / rates;
                // Tokio's clock counts whole milliseconds and rounds up.
                let late = at.as_secs_f64() - right;
                assert!((-1e-6..=0.002).contains(&late), "{rate}: {passed} bytes {late} s late");
                assert!(piece.len() as f64 <= (rates * 0.05).max(1.0), "{rate}: a piece of {}", piece.len());
            }
            assert_eq!(passed, sizes.iter().sum::<usize>());
            assert!(came.end.is_ok() && came.testimony.changed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripping_body_comes_a_byte_at_a_time_with_its_trailers() {
        let pieces = Pieces { trailers: Some(HeaderMap::new()), ..Pieces::of(&["abc", "de"]) };
        let came = paced(r#"{"body":{"drip":"100ms"}}"#, pieces).await;
        let at: Vec<_> = came.pieces.iter().map(|(at, piece)| (at.as_millis(), piece.len())).collect();
        assert_eq!(at, [(100, 1), (200, 1), (300, 1), (400, 1), (500, 1)]);
        assert!(came.text() == "abcde" && came.trailers.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn each_chunk_waits_with_a_jitter_of_its_own() {
        let fault = r#"{"latency":{"delay":"100ms","jitter":"50ms","per":"chunk"}}"#;
        let came = paced(fault, Pieces::of(&["a"; 40])).await;
        let mut last = Duration::ZERO;
        let gaps: Vec<_> =
            came.pieces.iter().map(|(at, _)| (*at - std::mem::replace(&mut last, *at)).as_millis()).collect();
        assert!(gaps.len() == 40 && gaps.iter().all(|gap| (50..=151).contains(gap)), "{gaps:?}");
        assert!(gaps.iter().any(|gap| *gap < 70) && gaps.iter().any(|gap| *gap > 130), "{gaps:?}");
        let (asked, waited) = (came.testimony.asked.unwrap().0, came.testimony.waited.unwrap());
        assert!(waited >= asked && waited < asked + Duration::from_millis(80), "{asked:?} {waited:?}");
        assert_eq!(came.end.unwrap(), last);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_comes_at_once_when_the_injection_ends() {
        for fault in [
            r#"{"throttle":{"rate":"1B/s"}}"#,
            r#"{"body":{"drip":"1h"}}"#,
            r#"{"latency":{"delay":"1h","per":"chunk"}}"#,
        ] {
            let stop = CancellationToken::new();
            let slow = through(fault, Pieces::of(&["abcdefgh", "ij"]), Version::HTTP_11, stop.clone());
            let (came, ()) = tokio::join!(slow, async {
                tokio::time::sleep(Duration::from_millis(4500)).await;
                stop.cancel();
            });
            assert_eq!(
                (came.text().as_str(), came.end.ok()),
                ("abcdefghij", Some(Duration::from_millis(4500))),
                "{fault}"
            );
        }
    }
}
