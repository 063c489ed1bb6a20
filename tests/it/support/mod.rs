//! What the wire tests stand on: both ends of a connection, byte by byte, and a proxy between them.

pub mod h2;
pub mod origin;
pub mod stage;
pub mod tls;
pub mod wire;

use std::time::Duration;

pub use self::h2::H2Origin;
pub use self::origin::Origin;
pub use self::stage::{Run, Stage, everybody, experiment, listener};
pub use self::wire::{End, Message, Wire};

/// Longer than anything here takes, shorter than a person's patience: whatever waits so long would wait for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fails a test that waits for what never comes.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    within(what, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A whole answer of status 200.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A GET with some more fields, each with its line end.
pub fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n").into_bytes()
}

/// Waits until nobody listens there any more.
pub async fn closed(address: std::net::SocketAddr) {
    within("a listener to be closed", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
