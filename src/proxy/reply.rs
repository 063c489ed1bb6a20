//! The head of an upstream's answer: what makes no sense is no answer, and what goes on has one framing.

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{Response, StatusCode, Version};
use http_body::Body as _;

use super::hop::{self, KEEP_ALIVE, PROXY_CONNECTION};
use crate::service::{Body, Error};

/// Looks at a head once, and brings it into the form in which it goes on.
pub(super) fn examine(response: &mut Response<Body>) -> Result<(), Error> {
    let (mut hop, mut codings, mut lengths, mut listed) = (false, 0, 0, false);
    for (name, value) in response.headers() {
        if name == CONTENT_LENGTH {
            lengths += 1;
            listed |= value.as_bytes().contains(&b',');
        } else if name == TRANSFER_ENCODING {
            codings += 1;
            // RFC 9112, 6.1 and 7.4: no coding goes over a body twice, and none that nobody asked for.
            if codings > 1 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(Error::Nonsense("the upstream answered in a transfer coding other than `chunked`"));
            }
        } else if name == CONNECTION
            || name == TE
            || name == UPGRADE
            || *name == KEEP_ALIVE
            || *name == PROXY_CONNECTION
        {
            hop = true;
        }
    }
    let headers = response.headers_mut();
    if hop {
        hop::strip(headers);
    }
    if codings > 0 && lengths > 0 {
        // RFC 9112, 6.3: the coding is what counts.
        headers.remove(CONTENT_LENGTH);
    } else if lengths > 1 || listed {
        hop::one_length(headers).map_err(|()| Error::Nonsense("the upstream told different lengths of its answer"))?;
    }
    match response.status() {
        // RFC 9110, 8.6: it has no length to tell.
        StatusCode::NO_CONTENT => {
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        StatusCode::NOT_MODIFIED => {}
        _ => return Ok(()),
    }
    // HTTP/2 can bring a body where there is none (RFC 9110, 6.4.1).
    if response.version() == Version::HTTP_2 && !response.body().is_end_stream() {
        *response.body_mut() = Body::empty();
    }
    Ok(())
}
