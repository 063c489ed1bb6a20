//! Why there is no answer, or no whole one, and whose doing that is.

use std::error::Error as StdError;
use std::fmt;

/// Whose doing an error is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The upstream, or the way to it.
    Upstream,
    /// A fault: we did it on purpose.
    Injected,
    /// The proxy itself.
    Proxy,
    /// The caller.
    Caller,
}

/// Why there is no answer, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The upstream could not be reached.
    #[error("cannot connect to the upstream")]
    Connect(#[source] std::io::Error),
    /// The upstream is there, and not whom its certificate should say.
    #[error("no trusted connection to the upstream")]
    Tls(#[source] std::io::Error),
    /// The upstream changed the protocol, and nobody had asked for that.
    #[error("the upstream answered with an upgrade that nobody asked for")]
    Unasked,
    /// The upstream took longer than the listener's timeouts allow.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The exchange with the upstream broke.
    #[error("the exchange with the upstream broke")]
    Broken(#[source] hyper::Error),
    /// The connection to the upstream ended before the head of an answer had come.
    #[error("the exchange with the upstream broke")]
    Ended(#[source] std::io::Error),
    /// A body broke off: the upstream's, or the caller's before [`Error::Upload`] says whose it was.
    #[error("the body broke off")]
    Body(#[source] hyper::Error),
    /// The upstream's body broke off without a word.
    #[error("the body broke off")]
    Torn,
    /// The head of the upstream's answer makes no sense.
    #[error("{0}")]
    Nonsense(&'static str),
    /// The caller's body broke off.
    #[error("the body of the request broke off")]
    Upload(#[source] hyper::Error),
    /// The caller's body stood still for longer than the listener's timeouts allow.
    #[error("the body of the request stood still for too long")]
    Stalled(#[source] hyper::Error),
    /// The caller left.
    #[error("the caller is gone")]
    Gone,
    /// A fault ended the exchange.
    #[error("ended by a fault: {0}")]
    Injected(Cut, #[source] h2::Error),
    /// The proxy must not send this request on.
    #[error("{0}")]
    Refused(&'static str),
    /// The target of the request is longer than the listener takes.
    #[error("the target of the request is too long")]
    LongTarget,
    /// The head of the request is larger than the listener takes.
    #[error("the head of the request has too many fields, or too large ones")]
    LargeHead,
    /// The proxy has nowhere to send this request.
    #[error("no route takes this request")]
    NoRoute,
    /// The code of a fault panicked when the request was on its way already.
    #[error("a fault failed, and with it this exchange")]
    Failed,
}

/// How a fault ends an exchange on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// TCP RST; RST_STREAM on HTTP/2.
    Reset,
    /// FIN; RST_STREAM with NO_ERROR's opposite, INTERNAL_ERROR, on HTTP/2.
    Close,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset",
            Self::Close => "close",
        })
    }
}

impl From<Cut> for Error {
    /// The source is an `h2::Error`, because that is where hyper looks for the code of its RST_STREAM.
    fn from(cut: Cut) -> Self {
        let reason = match cut {
            Cut::Reset => h2::Reason::CANCEL,
            Cut::Close => h2::Reason::INTERNAL_ERROR,
        };
        Self::Injected(cut, reason.into())
    }
}

impl Error {
    /// Whose doing it is.
    pub fn origin(&self) -> Origin {
        match self {
            Self::Connect(_) | Self::Tls(_) | Self::Timeout | Self::Broken(_) | Self::Unasked => Origin::Upstream,
            Self::Ended(_) | Self::Body(_) | Self::Torn | Self::Nonsense(_) => Origin::Upstream,
            Self::Upload(_) | Self::Stalled(_) | Self::Gone => Origin::Caller,
            Self::Injected(..) => Origin::Injected,
            Self::Refused(_) | Self::LongTarget | Self::LargeHead | Self::NoRoute | Self::Failed => Origin::Proxy,
        }
    }

    /// The word for it in `x-pratfall: proxy; error=<kind>`, in logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Timeout => "timeout",
            Self::Broken(_) | Self::Ended(_) | Self::Unasked | Self::Nonsense(_) => "broken",
            Self::Body(_) | Self::Torn => "body",
            Self::Upload(_) | Self::Stalled(_) => "upload",
            Self::Gone => "gone",
            Self::Injected(..) => "injected",
            Self::Refused(_) => "refused",
            Self::LongTarget => "target_too_long",
            Self::LargeHead => "head_too_large",
            Self::NoRoute => "no_route",
            Self::Failed => "fault_failed",
        }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
