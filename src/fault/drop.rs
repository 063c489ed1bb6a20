//! Ends the exchange without an answer.
//!
//! ```yaml
//! - drop: { how: reset }
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Span};

/// How the exchange ends, and when.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Drop {
    /// The manner of it.
    pub how: How,
    /// How long a `hang` lasts before the connection is closed; until the caller leaves or the fault ends where nothing is written.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub hold: Option<Span>,
    /// The moment: at the request where nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
}

/// The manner in which an exchange ends.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// A TCP RST; RST_STREAM on HTTP/2.
    Reset,
    /// The connection is closed in good order, without an answer.
    Close,
    /// HTTP/2 GOAWAY.
    Goaway,
    /// No answer, and no end.
    Hang,
    /// New connections are refused.
    Refuse,
}

/// The moment of a drop: a word, or a place in the answer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// As soon as the request is there.
    Request,
    /// After the head of the answer.
    Headers,
    /// After so many bytes of the answer's body.
    Bytes(ByteSize),
    /// After so many chunks.
    Chunks(u64),
    /// After so many server-sent events.
    Events(u64),
    /// After so many WebSocket or gRPC messages.
    Messages(u64),
}
