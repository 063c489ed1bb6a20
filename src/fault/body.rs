//! Damages the body on its way: cuts it off, stalls it, drips it, corrupts it or replaces it.
//!
//! ```yaml
//! - body: { cut_after: 10KiB }
//! ```

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::moment::Moment;
use super::pace::Pace;
use super::stream::Treatment;
use super::tear::Tear;
use super::{Direction, Sheet};
use crate::service::Cut;
use crate::units::{ByteSize, Percent, Span};

/// What happens to the body: exactly one of `cut_after`, `stall_after`, `corrupt`, `replace` or `drip` is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Body {
    /// Breaks the message off after so many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_after: Option<ByteSize>,
    /// Sends nothing more after so many bytes, and keeps the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_after: Option<ByteSize>,
    /// How long a stall lasts; until the caller leaves or the fault ends where nothing is written.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub hold: Option<Span>,
    /// The share of bytes that are changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Percent>,
    /// Another body in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace: Option<String>,
    /// Whether the length that is announced is that of the replacement; it is where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub honest_length: Option<bool>,
    /// Sends one byte each time this has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drip: Option<Span>,
    /// The body of the request, or of the response; the response's where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
}

/// For docs/faults.md.
pub(super) const SHEET: Sheet = Sheet {
    examples: &[
        "body: { cut_after: 10KiB }",
        "body: { stall_after: 1KiB, for: 10s }",
        "body: { corrupt: 1% }",
        "body: { replace: \"{}\", honest_length: false }",
        "body: { drip: 100ms }",
    ],
    http1: "the body, damaged",
    http2: Sheet::SAME,
    grpc: "its messages, damaged",
};

impl Body {
    /// Whose body it is.
    pub fn direction(&self) -> Direction {
        self.direction.unwrap_or(Direction::Response)
    }

    /// What it does to a body; nothing where nothing is written, which was refused with the document.
    pub(super) fn treatment(&self) -> Option<Treatment> {
        let direction = self.direction();
        if let Some(size) = self.cut_after {
            let tear = Tear { at: Moment::bytes(size.get()), hang: None, cut: Some(Cut::Close) };
            return Some(Treatment::tear(direction, tear));
        }
        if let Some(size) = self.stall_after {
            let tear = Tear { at: Moment::bytes(size.get()), hang: Some(self.hold.map(Span::get)), cut: None };
            return Some(Treatment::tear(direction, tear));
        }
        if let Some(share) = self.corrupt {
            return Some(Treatment::corrupt(direction, share.ratio()));
        }
        if let Some(gap) = self.drip {
            return Some(Treatment::pace(direction, Pace::Drip(gap.get())));
        }
        let text = self.replace.clone()?;
        Some(Treatment::replace(direction, Bytes::from(text), self.honest_length.unwrap_or(true)))
    }
}
