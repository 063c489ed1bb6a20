//! Which requests are meant.

use std::net::IpAddr;

use http::Request;

/// Conditions on a request, compiled: keys are AND, lists are OR.
#[derive(Clone, Debug, Default)]
pub struct Match {}

impl Match {
    /// Whether this request is meant.
    pub fn matches<B>(&self, _request: &Request<B>, _caller: Option<IpAddr>) -> bool {
        true
    }

    /// The conditions in words, for reports and errors: patterns, never a request's own values.
    pub fn describe(&self) -> String {
        String::new()
    }
}
