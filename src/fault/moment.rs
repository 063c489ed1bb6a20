//! The moment in a stream at which something happens to it: so many bytes, pieces, events or messages have passed.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// What is counted, and how much of it is still to pass.
#[derive(Clone, Debug)]
pub(super) enum Moment {
    Bytes(u64),
    Chunks(u64),
    Events(Events),
    Messages(Messages),
    /// There is nothing to count.
    Never,
}

impl Moment {
    pub(super) fn bytes(count: u64) -> Self {
        Self::Bytes(count)
    }

    pub(super) fn chunks(count: u64) -> Self {
        Self::Chunks(count)
    }

    pub(super) fn events(count: u64) -> Self {
        Self::Events(Events { left: count, ..Events::default() })
    }

    pub(super) fn messages(count: u64) -> Self {
        Self::Messages(Messages { left: count, ..Messages::default() })
    }

    /// The same for a body with these fields: where there are no messages, none can be counted.
    pub(super) fn of(self, headers: &HeaderMap) -> Self {
        let grpc = || {
            let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            kind.get(..16).is_some_and(|kind| kind.eq_ignore_ascii_case("application/grpc"))
        };
        match self {
            Self::Messages(_) if !grpc() => Self::Never,
            moment => moment,
        }
    }

    /// Whether it is there before anything passes.
    pub(super) fn is_now(&self) -> bool {
        matches!(self, Self::Bytes(0))
    }

    /// How many bytes of the next piece pass before the moment comes; nothing where all of it passes, and more.
    pub(super) fn find(&mut self, piece: &[u8]) -> Option<usize> {
        match self {
            Self::Bytes(left) => {
                if piece.len() as u64 >= *left {
                    return Some(*left as usize);
                }
                *left -= piece.len() as u64;
                None
            }
            Self::Chunks(left) => {
                *left -= u64::from(!piece.is_empty());
                (*left == 0).then_some(piece.len())
            }
            Self::Events(events) => events.find(piece),
            Self::Messages(messages) => messages.find(piece),
            Self::Never => None,
        }
    }
}

/// Server-sent events (HTML, 9.2.6): lines end with CR LF, LF or CR, an event with an empty line. A block of comments
/// alone is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    left: u64,
    /// The line has begun.
    line: bool,
    /// The block has a line that is no comment.
    event: bool,
    /// The last byte was a CR: an LF belongs to it.
    cr: bool,
    /// Lines end with CR LF.
    crlf: bool,
    /// The last piece ended in the middle of the CR LF that ends an event.
    ending: bool,
}

impl Events {
    fn find(&mut self, piece: &[u8]) -> Option<usize> {
        for (at, byte) in piece.iter().enumerate() {
            if std::mem::take(&mut self.ending) {
                let end = at + usize::from(*byte == b'\n');
                if self.ends() {
                    return Some(end);
                }
            }
            match byte {
                b'\n' if self.cr => (self.cr, self.crlf) = (false, true),
                b'\r' | b'\n' => {
                    self.cr = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    if line || !self.event {
                        continue;
                    }
                    let next = piece.get(at + 1);
                    if self.cr && self.crlf && next.is_none() {
                        self.ending = true;
                    } else if self.ends() {
                        return Some(at + 1 + usize::from(self.cr && next == Some(&b'\n')));
                    }
                }
                byte => {
                    self.event |= !self.line && *byte != b':';
                    (self.line, self.cr) = (true, false);
                }
            }
        }
        None
    }

    /// An event is over; whether it was the last to pass.
    fn ends(&mut self) -> bool {
        self.event = false;
        self.left -= 1;
        self.left == 0
    }
}

/// Messages of gRPC: one byte that says whether it is compressed, four for its length, and the message.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages {
    left: u64,
    prefix: [u8; 5],
    known: usize,
    length: u64,
}

impl Messages {
    fn find(&mut self, piece: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < piece.len() {
            if self.known < self.prefix.len() {
                self.prefix[self.known] = piece[at];
                self.known += 1;
                at += 1;
                if self.known < self.prefix.len() {
                    continue;
                }
                let [_, length @ ..] = self.prefix;
                self.length = u64::from(u32::from_be_bytes(length));
            } else {
                let some = self.length.min((piece.len() - at) as u64);
                self.length -= some;
                at += some as usize;
            }
            if self.length == 0 {
                self.known = 0;
                self.left -= 1;
                if self.left == 0 {
                    return Some(at);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes pass, however the text is cut into two pieces.
    fn pass(moment: &Moment, text: &[u8]) -> Vec<Option<usize>> {
        let mut all: Vec<_> = (0..=text.len())
            .map(|cut| {
                let mut moment = moment.clone();
                let first = if cut > 0 { moment.find(&text[..cut]) } else { None };
                first.or_else(|| moment.find(&text[cut..]).map(|at| cut + at))
            })
            .collect();
        all.dedup();
        all
    }

    #[test]
    fn bytes_are_counted_across_pieces() {
        assert_eq!(pass(&Moment::bytes(4), b"abcdef"), [Some(4)]);
        assert_eq!(pass(&Moment::bytes(6), b"abcdef"), [Some(6)]);
        assert_eq!(pass(&Moment::bytes(7), b"abcdef"), [None]);
        assert!(Moment::bytes(0).is_now() && !Moment::bytes(1).is_now());
    }

    #[test]
    fn an_event_ends_with_an_empty_line_however_lines_end_and_pieces_fall() {
        for (text, ends) in [
            ("data: a\n\ndata: b\n\ndata: c\n\n", [Some(9), Some(18), None]),
            ("data: a\r\n\r\ndata: b\r\n\r\nx", [Some(11), Some(22), None]),
            (": hello\n\n\n\nid: 1\ndata: a\n\n:\n\ndata: b\n\n", [Some(26), Some(38), None]),
            ("data: a\n\ndata: b\n", [Some(9), None, None]),
        ] {
            for (count, end) in [1, 2, 9].into_iter().zip(ends) {
                assert_eq!(pass(&Moment::events(count), text.as_bytes()), [end], "{count} of {text:?}");
            }
        }
        let mut bare = Moment::events(2);
        assert_eq!((bare.find(b"data: a\r\rdata: b\r"), bare.find(b"\rdata: c")), (None, Some(1)));
    }

    #[test]
    fn messages_of_grpc_are_counted_by_their_lengths() {
        let text = b"\0\0\0\0\x03abc\x01\0\0\0\0\0\0\0\0\x01z";
        for (count, end) in [(1, Some(8)), (2, Some(13)), (3, Some(19)), (4, None)] {
            assert_eq!(pass(&Moment::messages(count), text), [end]);
        }
        let mut headers = HeaderMap::new();
        assert!(matches!(Moment::messages(1).of(&headers), Moment::Never));
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/grpc+proto"));
        assert!(matches!(Moment::messages(1).of(&headers), Moment::Messages(_)));
    }
}
