//! The names and numbers of gRPC statuses, and how a status alone is answered.

use std::fmt::Write;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

/// The names, each at the place of its number.
pub const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The number of a status, by its name.
pub fn code(name: &str) -> Option<u8> {
    NAMES.iter().position(|known| *known == name).map(|index| index as u8)
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a request is a gRPC call.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Makes fields those of a trailers-only answer: the status stands in the head, and nothing comes behind it.
pub(super) fn trailers_only(headers: &mut HeaderMap, asked: &HeaderMap, code: u8, message: Option<&str>) {
    // Clients of gRPC-Web and of `+proto` look for the content type that they sent.
    let kind = asked.get(CONTENT_TYPE).filter(|_| is_call(asked)).cloned();
    headers.entry(CONTENT_TYPE).or_insert(kind.unwrap_or(HeaderValue::from_static("application/grpc")));
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(code)));
    if let Some(message) = message.and_then(|message| HeaderValue::try_from(percent_encoded(message)).ok()) {
        headers.insert(GRPC_MESSAGE, message);
    }
}

/// A message as it may stand in `grpc-message`: all but printable ASCII without `%` is percent-encoded (gRPC over HTTP2,
/// Responses). Spaces at the ends are as well: RFC 9113, 8.2.1 takes none there.
fn percent_encoded(message: &str) -> String {
    let ends = message.len() - message.trim_start_matches(' ').len()..message.trim_end_matches(' ').len();
    let mut encoded = String::with_capacity(message.len());
    for (place, byte) in message.bytes().enumerate() {
        match byte {
            b' ' if !ends.contains(&place) => encoded.push_str("%20"),
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("a string takes whatever is written"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_percent_encoded_byte_for_byte() {
        for (message, encoded) in [
            ("ranker is asleep", "ranker is asleep"),
            ("100% caf\u{e9}\n", "100%25 caf%C3%A9%0A"),
            (" at both ends ", "%20at both ends%20"),
            ("~\u{7f}", "~%7F"),
            ("  ", "%20%20"),
            ("", ""),
        ] {
            assert_eq!(percent_encoded(message), encoded);
        }
    }
}
