//! The moment in a stream at which something happens to it: so many bytes, pieces, events or messages have passed.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, UPGRADE};

/// What is counted, and how much of it is still to pass.
#[derive(Clone, Debug)]
pub(super) enum Moment {
    Bytes(u64),
    Chunks(u64),
    Events(Events),
    Messages(Messages),
    Frames(Frames),
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

    /// The same for what follows these fields: where there are no events or messages, none can be counted.
    pub(super) fn of(self, headers: &HeaderMap) -> Self {
        let grpc = || {
            let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            kind.get(..16).is_some_and(|kind| kind.eq_ignore_ascii_case("application/grpc"))
        };
        let protocol = headers.get(UPGRADE);
        let websocket = protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
        match self {
            Self::Messages(Messages { left, .. }) if websocket => Self::Frames(Frames { left, ..Frames::default() }),
            Self::Messages(_) if !grpc() => Self::Never,
            Self::Messages(_) | Self::Events(_) if protocol.is_some() => Self::Never,
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
                *left = left.saturating_sub(u64::from(!piece.is_empty()));
                (*left == 0).then_some(piece.len())
            }
            Self::Events(events) => events.find(piece),
            Self::Messages(messages) => messages.find(piece),
            Self::Frames(frames) => frames.find(piece),
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
        self.left = self.left.saturating_sub(1);
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
                self.left = self.left.saturating_sub(1);
                if self.left == 0 {
                    return Some(at);
                }
            }
        }
        None
    }
}

/// Messages of WebSocket (RFC 6455, 5.2): one is over with the frame that says FIN. Pings, pongs and closes are none.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    left: u64,
    head: [u8; 14],
    known: usize,
    length: u64,
}

impl Frames {
    fn find(&mut self, piece: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < piece.len() {
            if self.known < self.head_length() {
                self.head[self.known] = piece[at];
                self.known += 1;
                at += 1;
                if self.known < self.head_length() {
                    continue;
                }
                self.length = match self.head[1] & 0x7f {
                    126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
                    127 => self.head[2..10].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
                    short => u64::from(short),
                };
            } else {
                let some = self.length.min((piece.len() - at) as u64);
                self.length -= some;
                at += some as usize;
            }
            if self.length == 0 {
                self.known = 0;
                let (last, control) = (self.head[0] & 0x80 != 0, self.head[0] & 0x08 != 0);
                if last && !control {
                    self.left = self.left.saturating_sub(1);
                    if self.left == 0 {
                        return Some(at);
                    }
                }
            }
        }
        None
    }

    /// How long the head of the frame is, as far as is known.
    fn head_length(&self) -> usize {
        let length = match self.head[1] & 0x7f {
            _ if self.known < 2 => return 2,
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.head[1] & 0x80 == 0 { 0 } else { 4 }
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

    #[test]
    fn messages_of_websocket_are_counted_by_their_last_frames_and_pings_are_none() {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, http::HeaderValue::from_static("WebSocket"));
        let messages = |count| Moment::messages(count).of(&headers);
        assert!(matches!(Moment::events(1).of(&headers), Moment::Never));
        // A message, a ping between the two frames of another, a masked one, and empty ones.
        let short = b"\x81\x02hi\x01\x01a\x89\x01p\x80\x01b\x82\x82mask\x01\x02\x81\x00\x81\x00";
        for (count, end) in [(1, Some(4)), (2, Some(13)), (3, Some(21)), (4, Some(23)), (5, Some(25)), (6, None)] {
            assert_eq!(pass(&messages(count), short), [end], "{count}");
        }
        let medium = [&b"\x82\x7e\x01\x00"[..], &[7; 256], b"\x82\x7f\0\0\0\0\0\x01\0\0"].concat();
        let mut long = messages(2);
        assert_eq!((long.find(&medium), long.find(&vec![7; 65_540])), (None, Some(65_536)));
    }
}
