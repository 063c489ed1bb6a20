//! One end of a connection: what is sent and what is read are bytes, not what a library makes of them.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// How the other side ended what it said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// As its framing says.
    Whole,
    /// With a FIN.
    Fin,
    /// With an RST.
    Reset,
}

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Message {
    /// The head, byte for byte, with the empty line.
    pub head: Vec<u8>,
    /// Everything behind the head, byte for byte, framing included.
    pub rest: Vec<u8>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The trailer section.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// How it ended.
    pub end: End,
}

impl Message {
    /// The first line.
    pub fn start(&self) -> String {
        String::from_utf8_lossy(self.head.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned()
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.start().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status")
    }

    /// All fields, in order.
    pub fn fields(&self) -> Vec<(String, Vec<u8>)> {
        fields(&self.head)
    }

    /// All values of a field, in order, as text.
    pub fn all(&self, name: &str) -> Vec<String> {
        let fields = self.fields().into_iter().filter(|(other, _)| other == name);
        fields.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()).collect()
    }

    /// The only value of a field.
    pub fn field(&self, name: &str) -> Option<String> {
        let all = self.all(name);
        assert!(all.len() < 2, "`{name}` came more than once: {all:?}");
        all.into_iter().next()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn fields(lines: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = lines.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    text.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = String::from_utf8(line[..colon].to_vec()).ok().filter(|name| !name.contains(' '))?;
        Some((name.to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_vec()))
    })
    .collect()
}

/// One end of a connection.
#[derive(Debug)]
pub struct Wire<S = TcpStream> {
    stream: S,
    ahead: BytesMut,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket that is open");
        Self::over(stream)
    }

    pub async fn connect(address: SocketAddr) -> Self {
        Self::new(within("connecting", TcpStream::connect(address)).await.expect("the listener listens"))
    }

    /// Whether there is anything to read at this moment, an end included.
    pub fn is_silent(&self) -> bool {
        let mut one = [0];
        match self.stream.try_read(&mut one) {
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock && self.ahead.is_empty(),
            Ok(_) => false,
        }
    }

    /// Ends the connection with an RST.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("the socket is open");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Over something that is no bare socket.
    pub fn over(stream: S) -> Self {
        Self { stream, ahead: BytesMut::new() }
    }

    /// Gives back what it goes over.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Whether an answer of 200 comes, and nothing else in its place.
    pub async fn is_answered_well(&mut self) -> bool {
        loop {
            if self.ahead.starts_with(b"HTTP/1.1 200") {
                return true;
            }
            if self.more().await.is_err() {
                return false;
            }
        }
    }

    /// What it goes over.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", self.stream.write_all(bytes.as_ref())).await.expect("the other side takes it");
    }

    /// Sends as much as the other side takes: it may stop reading for good.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        within("sending", self.stream.write_all(bytes)).await
    }

    /// Sends a request and reads its whole answer.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request).await;
        self.answer(false).await
    }

    /// Reads an answer; one to a HEAD has no body.
    pub async fn answer(&mut self, to_head: bool) -> Message {
        let mut message = self.head().await.expect("there is an answer");
        let status = message.status();
        if to_head || status == 204 || status == 304 {
            return message;
        }
        let framed = message.field("content-length").is_some() || message.field("transfer-encoding").is_some();
        if framed {
            self.body(&mut message).await;
        } else {
            (message.rest, message.end) = self.rest().await;
            message.body = message.rest.clone();
        }
        message
    }

    /// Reads a head; nothing where the other side says no more.
    pub async fn head(&mut self) -> Option<Message> {
        loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.ahead.split_to(at + 4).to_vec();
                return Some(Message { head, rest: vec![], body: vec![], trailers: vec![], end: End::Whole });
            }
            if self.more().await.is_err() {
                assert!(self.ahead.is_empty(), "half a head: {}", String::from_utf8_lossy(&self.ahead));
                return None;
            }
        }
    }

    /// Reads a body by the framing that its head says; without any there is none.
    pub async fn body(&mut self, message: &mut Message) {
        if message.field("transfer-encoding").is_some() {
            self.chunks(message).await;
        } else if let Some(length) = message.field("content-length") {
            let length = length.parse().expect("a length");
            message.end = self.fill(length).await;
            message.rest = self.ahead.split_to(length.min(self.ahead.len())).to_vec();
            message.body = message.rest.clone();
        }
    }

    async fn chunks(&mut self, message: &mut Message) {
        loop {
            let Some(line) = self.line(message).await else { return };
            let size = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).expect("a size");
            if size == 0 {
                break;
            }
            message.end = self.fill(size + 2).await;
            let chunk = self.ahead.split_to((size + 2).min(self.ahead.len()));
            message.rest.extend_from_slice(&chunk);
            message.body.extend_from_slice(&chunk[..size.min(chunk.len())]);
            if message.end != End::Whole {
                return;
            }
        }
        loop {
            let Some(line) = self.line(message).await else { return };
            if line.is_empty() {
                return;
            }
            message.trailers.extend(fields(&line));
        }
    }

    async fn line(&mut self, message: &mut Message) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.windows(2).position(|two| two == b"\r\n") {
                let line = self.ahead.split_to(at + 2);
                message.rest.extend_from_slice(&line);
                return Some(line[..at].to_vec());
            }
            if let Err(end) = self.more().await {
                message.end = end;
                return None;
            }
        }
    }

    /// Reads exactly so many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let end = self.fill(count).await;
        assert_eq!(end, End::Whole, "only {} of {count} bytes came", self.ahead.len());
        self.ahead.split_to(count).to_vec()
    }

    /// Reads what there is, at least one byte; nothing where no more comes.
    pub async fn some(&mut self) -> Option<Vec<u8>> {
        if self.ahead.is_empty() {
            self.more().await.ok()?;
        }
        Some(std::mem::take(&mut self.ahead).to_vec())
    }

    /// Reads everything to the end.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.more().await {
                return (std::mem::take(&mut self.ahead).to_vec(), end);
            }
        }
    }

    /// Reads one answer, or the end in its place.
    pub async fn rest_of_one(&mut self) {
        if let Some(mut message) = self.head().await {
            self.body(&mut message).await;
        }
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("the socket is open");
    }

    async fn fill(&mut self, count: usize) -> End {
        while self.ahead.len() < count {
            if let Err(end) = self.more().await {
                return end;
            }
        }
        End::Whole
    }

    async fn more(&mut self) -> Result<(), End> {
        match within("reading", self.stream.read_buf(&mut self.ahead)).await {
            Ok(0) => Err(End::Fin),
            Ok(_) => Ok(()),
            Err(_) => Err(End::Reset),
        }
    }
}
