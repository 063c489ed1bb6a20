//! Changes a share of the bytes of a body. Its length stays, and so does what the head says of it: a coded body is no
//! longer what its `content-encoding` says, for the coded bytes are what is changed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::stream::Setting;
use crate::service::{Body, Error};

/// A body of which some bytes are changed: which, and to what, depends on the call's draw and the byte's place alone.
pub(super) struct Corrupt {
    body: Body,
    share: f64,
    setting: Setting,
    at: u64,
}

impl Corrupt {
    pub(super) fn new(body: Body, share: f64, setting: Setting) -> Self {
        Self { body, share, setting, at: 0 }
    }

    fn change(&mut self, piece: Bytes) -> Bytes {
        let mut bytes = piece.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let mut changed = false;
        for byte in bytes.iter_mut() {
            let bits = self.setting.draw.bits(self.at);
            self.at += 1;
            if crate::chance::unit(bits) < self.share {
                // The lowest bits are not part of the share's draw. Anything but zero makes another byte.
                *byte ^= 1 + ((bits & 0x7ff) % 255) as u8;
                changed = true;
            }
        }
        if changed {
            self.setting.tell(|testimony| testimony.changed = true);
        }
        bytes.freeze()
    }
}

impl HttpBody for Corrupt {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = frame?;
        if this.setting.stop.is_cancelled() {
            return Poll::Ready(Some(Ok(frame)));
        }
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(piece) => Frame::data(this.change(piece)),
            Err(frame) => frame,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::Version;
    use tokio_util::sync::CancellationToken;

    use super::super::stream::stage::{Pieces, through};

    async fn corrupted(share: &str, pieces: &[&str]) -> (Vec<u8>, bool) {
        let fault = format!(r#"{{"body":{{"corrupt":"{share}"}}}}"#);
        let came = through(&fault, Pieces::of(pieces), Version::HTTP_11, CancellationToken::new()).await;
        assert!(came.end.is_ok());
        (came.bytes(), came.testimony.changed)
    }

    #[tokio::test]
    async fn a_share_of_the_bytes_is_another_and_the_same_ones_each_time() {
        let text = "x".repeat(100_000);
        let (whole, changed) = corrupted("1%", &[&text]).await;
        let others = whole.iter().filter(|byte| **byte != b'x').count();
        // A binomial count of 1,000 is within five standard deviations but for one draw in a million.
        assert!(changed && whole.len() == text.len() && others.abs_diff(1000) < 158, "{others}");
        let (again, _) = corrupted("1%", &[&text[..1], &text[1..777], &text[777..]]).await;
        assert!(whole == again, "where the pieces end does not matter");
    }

    #[tokio::test]
    async fn every_byte_that_is_meant_becomes_another() {
        let (all, _) = corrupted("100%", &[&"x".repeat(10_000)]).await;
        assert!(all.iter().all(|byte| *byte != b'x'));
        let kinds: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert!(kinds.len() > 200, "{}", kinds.len());
    }

    #[tokio::test]
    async fn a_body_of_which_no_byte_was_drawn_met_nothing() {
        assert_eq!(corrupted("0.0001%", &["hello"]).await, (b"hello".to_vec(), false));
    }
}
