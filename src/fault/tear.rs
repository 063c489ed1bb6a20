//! Tears a body at a moment: it breaks off there, or stands still for a while first, or only stands still.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::hold::{Held, Hold};
use super::moment::Moment;
use super::stream::Setting;
use crate::service::{Body, Cut, Error};

/// When, how long it stands still, and how it ends.
#[derive(Clone, Debug)]
pub(super) struct Tear {
    pub(super) at: Moment,
    /// Stands still: for a while, or until the injection ends.
    pub(super) hang: Option<Option<Duration>>,
    /// The end; without one it goes on.
    pub(super) cut: Option<Cut>,
}

/// How often we look whether what was given has left.
const LOOK: Duration = Duration::from_millis(2);

/// Where others keep a connection busy all the time, we wait no longer for ours to have left.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body that tears.
pub(super) struct Torn {
    body: Body,
    moment: Moment,
    hang: Option<Option<Duration>>,
    cut: Option<Cut>,
    setting: Setting,
    state: State,
    /// What came with the last piece and is behind the moment.
    rest: Bytes,
}

enum State {
    /// The moment is still to come.
    Open,
    /// The last byte before the moment.
    Last(Bytes),
    Hangs(Pin<Box<Hold>>),
    /// Waits for what was given to leave: an error overtakes it.
    Leaves(Leaving),
    /// Nothing happens any more.
    Passes,
    Over,
}

struct Leaving {
    since: Instant,
    yielded: bool,
    look: Option<Pin<Box<Sleep>>>,
}

impl Torn {
    pub(super) fn new(body: Body, tear: Tear, headers: &HeaderMap, setting: Setting) -> Self {
        let Tear { at, hang, cut } = tear;
        Self { body, moment: at.of(headers), hang, cut, setting, state: State::Open, rest: Bytes::new() }
    }

    /// The moment is there.
    fn reached(&self) -> State {
        match self.hang {
            Some(span) => {
                let (stop, witness) = (self.setting.stop.clone(), self.setting.witness.clone());
                State::Hangs(Box::pin(Hold::new(Instant::now(), span, stop, witness)))
            }
            None => State::leave(),
        }
    }

    /// Gives what passes of a piece, and keeps the rest of it.
    fn split(&mut self, mut piece: Bytes) -> Bytes {
        let Some(at) = self.moment.find(&piece) else { return piece };
        self.rest = piece.split_off(at);
        if self.rest.is_empty() && self.body.is_end_stream() {
            self.state = State::Passes; // that was all of it
            return piece;
        }
        // Flow control: the last byte is asked for when the others have their share, and it gets its own at once.
        if self.setting.shared && self.cut.is_some() && piece.len() > 1 {
            self.state = State::Last(piece.split_off(piece.len() - 1));
        } else {
            self.state = self.reached();
        }
        piece
    }
}

impl State {
    fn leave() -> Self {
        Self::Leaves(Leaving { since: Instant::now(), yielded: false, look: None })
    }
}

impl Leaving {
    /// Waits until what was given has left. The first time we are asked again, hyper has tried to flush.
    fn poll(&mut self, cx: &mut Context<'_>, setting: &Setting) -> Poll<()> {
        if !std::mem::replace(&mut self.yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let left = setting.outlet.as_ref().is_none_or(super::Outlet::is_empty);
            if left || (setting.shared && self.since.elapsed() > PATIENCE) || setting.stop.is_cancelled() {
                return Poll::Ready(());
            }
            ready!(self.look.get_or_insert_with(|| Box::pin(sleep(LOOK))).as_mut().poll(cx));
            self.look = None;
        }
    }
}

impl HttpBody for Torn {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Open => {
                    if this.setting.stop.is_cancelled() {
                        this.state = State::Passes;
                        continue;
                    }
                    if this.moment.is_now() {
                        this.state = this.reached();
                        continue;
                    }
                    let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else { return Poll::Ready(None) };
                    let piece = match frame?.into_data() {
                        Ok(piece) => this.split(piece),
                        Err(frame) => return Poll::Ready(Some(Ok(frame))),
                    };
                    if !piece.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                }
                State::Last(byte) => {
                    let byte = std::mem::take(byte);
                    this.state = this.reached();
                    return Poll::Ready(Some(Ok(Frame::data(byte))));
                }
                State::Hangs(hold) => {
                    this.state = match ready!(hold.as_mut().poll(cx)) {
                        Held::ToTheEnd if this.cut.is_some() => State::leave(),
                        Held::ToTheEnd | Held::Released => State::Passes,
                    };
                }
                State::Leaves(leaving) => {
                    ready!(leaving.poll(cx, &this.setting));
                    let Some(cut) = this.cut.filter(|_| !this.setting.stop.is_cancelled()) else {
                        this.state = State::Passes;
                        continue;
                    };
                    this.setting.tell(|testimony| testimony.torn = true);
                    this.state = State::Over;
                    return Poll::Ready(Some(Err(cut.into())));
                }
                State::Passes if this.rest.is_empty() => return Pin::new(&mut this.body).poll_frame(cx),
                State::Passes => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest))))),
                State::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            State::Open | State::Passes => self.rest.is_empty() && self.body.is_end_stream(),
            State::Over => true,
            State::Last(_) | State::Hangs(_) | State::Leaves(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let last = if let State::Last(byte) = &self.state { byte.len() } else { 0 };
        with(self.rest.len() + last, self.body.size_hint())
    }
}

/// What is still to come, with what was kept of it.
pub(super) fn with(kept: usize, hint: SizeHint) -> SizeHint {
    match hint.exact() {
        Some(exact) => SizeHint::with_exact(exact + kept as u64),
        None => hint,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use http::Version;
    use http_body_util::BodyExt;
    use tokio_util::sync::CancellationToken;

    use super::super::stream::stage::{Came, Pieces, through, through_typed};
    use super::super::{Draw, Outlet};
    use super::*;

    const CUT: &str = r#"{"body":{"cut_after":"4B"}}"#;

    async fn torn(fault: &str, pieces: &[&str]) -> Came {
        through(fault, Pieces::of(pieces), Version::HTTP_11, CancellationToken::new()).await
    }

    fn ended(came: &Came) -> Option<Cut> {
        match came.end {
            Err((_, Error::Injected(cut, _))) => Some(cut),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_breaks_off_after_exactly_so_many_bytes_however_they_come() {
        for pieces in [&["abcdef"][..], &["abcd", "ef"], &["ab", "", "c", "def"], &["abc", "d"]] {
            let came = torn(CUT, pieces).await;
            assert_eq!((came.text().as_str(), ended(&came), came.testimony.torn), ("abcd", Some(Cut::Close), true));
        }
        let came = torn(CUT, &["abc"]).await;
        assert!(came.text() == "abc" && came.end.is_ok() && !came.testimony.torn && came.testimony.awaited);
        let whole = Pieces { exact: true, ..Pieces::of(&["ab", "cd"]) };
        let came = through(CUT, whole, Version::HTTP_2, CancellationToken::new()).await;
        assert!(came.text() == "abcd" && came.end.is_ok() && !came.testimony.torn, "there was nothing to cut off");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drop_comes_at_its_moment_in_its_manner() {
        let long = &["data: a\n", "\n: c\n\ndata: b\n\nda", "ta: c\n\n"];
        for (at, how, text, cut) in [
            (r#""headers""#, "reset", "", Cut::Reset),
            (r#"{"bytes":"9B"}"#, "close", "data: a\n\n", Cut::Close),
            (r#"{"chunks":1}"#, "reset", "data: a\n", Cut::Reset),
            (r#"{"events":2}"#, "reset", "data: a\n\n: c\n\ndata: b\n\n", Cut::Reset),
        ] {
            let came = torn(&format!(r#"{{"drop":{{"how":"{how}","at":{at}}}}}"#), long).await;
            assert_eq!((came.text().as_str(), ended(&came)), (text, Some(cut)), "{at}");
        }
        let messages = Pieces::of(&["\0\0\0\0\x02ab\0\0", "\0\0\x01c\0\0\0\0\x01d"]);
        let fault = r#"{"drop":{"how":"reset","at":{"messages":2}}}"#;
        let came = through_typed(fault, messages, Version::HTTP_2, CancellationToken::new(), "application/grpc").await;
        assert_eq!((came.text().as_str(), ended(&came)), ("\0\0\0\0\x02ab\0\0\0\0\x01c", Some(Cut::Reset)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_lasts_as_long_as_was_written_and_the_rest_comes_whole() {
        let mut pieces = Pieces::of(&["abcd", "ef"]);
        pieces.trailers = Some(HeaderMap::new());
        let stall = r#"{"body":{"stall_after":"3B","for":"10s"}}"#;
        let came = through(stall, pieces, Version::HTTP_11, CancellationToken::new()).await;
        let at: Vec<_> = came.pieces.iter().map(|(at, piece)| (at.as_secs(), piece.len())).collect();
        assert_eq!((at, came.text().as_str()), (vec![(0, 3), (10, 1), (10, 2)], "abcdef"));
        assert!(came.end.is_ok() && came.trailers.is_some());
        assert_eq!(came.testimony.waited, Some(Duration::from_secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hang_ends_after_its_time_with_a_cut_and_at_once_without_one_when_the_injection_ends() {
        let hang = r#"{"drop":{"how":"hang","for":"20s","at":{"bytes":"2B"}}}"#;
        let came = torn(hang, &["abcd"]).await;
        assert!(matches!(came.end, Err((after, Error::Injected(Cut::Close, _))) if after.as_secs() == 20));
        for fault in [hang, r#"{"body":{"stall_after":"2B"}}"#, r#"{"drop":{"how":"hang","at":"headers"}}"#] {
            let stop = CancellationToken::new();
            let held = through(fault, Pieces::of(&["abcd", "ef"]), Version::HTTP_11, stop.clone());
            let (came, ()) = tokio::join!(held, async {
                sleep(Duration::from_secs(3)).await;
                stop.cancel();
            });
            assert_eq!((came.text().as_str(), came.testimony.released), ("abcdef", true), "{fault}");
            assert_eq!(came.end.ok(), Some(Duration::from_secs(3)), "{fault}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_cut_when_the_injection_ends_passes_whole() {
        let stop = CancellationToken::new();
        stop.cancel();
        let came = through(CUT, Pieces::of(&["abc", "def"]), Version::HTTP_11, stop).await;
        assert!(came.text() == "abcdef" && came.end.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_waits_for_what_was_given_to_leave_and_not_for_ever_where_others_keep_the_way_full() {
        for (shared, leaves, end) in [(false, 60, 60), (true, 3, 3), (true, 60, 5)] {
            let left = Arc::new(AtomicBool::new(false));
            let seen = left.clone();
            let setting = Setting {
                stop: CancellationToken::new(),
                witness: None,
                outlet: Some(Outlet::new(move || seen.load(Relaxed))),
                shared,
                draw: Draw(0),
            };
            let tear = Tear { at: Moment::bytes(1), hang: None, cut: Some(Cut::Reset) };
            let mut body = Torn::new(Body::faulted(Pieces::of(&["abc"])), tear, &HeaderMap::new(), setting);
            assert!(body.frame().await.is_some_and(|frame| frame.is_ok_and(|frame| frame.is_data())));
            let start = Instant::now();
            let cut = async { (body.frame().await.is_some_and(|frame| frame.is_err()), start.elapsed().as_secs()) };
            let (cut, ()) = tokio::join!(cut, async {
                sleep(Duration::from_secs(leaves)).await;
                left.store(true, Relaxed);
            });
            assert_eq!(cut, (true, end), "{shared} {leaves}");
        }
    }
}
