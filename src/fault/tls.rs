//! Fails the TLS handshake of new connections.
//!
//! ```yaml
//! - tls: { how: expired }
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Sheet;

/// How the handshake fails.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The manner of it.
    pub how: TlsHow,
}

/// For docs/faults.md.
pub(super) const SHEET: Sheet = Sheet {
    examples: &["tls: { how: expired }", "tls: { how: stall }"],
    http1: "no connection",
    http2: Sheet::SAME,
    grpc: Sheet::SAME,
};

/// The manner in which a handshake fails.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsHow {
    /// A certificate that has expired.
    Expired,
    /// A certificate of another host.
    WrongHost,
    /// A certificate that nobody vouches for.
    SelfSigned,
    /// No answer to the greeting.
    Stall,
}
