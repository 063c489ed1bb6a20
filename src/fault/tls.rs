//! Fails the TLS handshake of new connections.
//!
//! ```yaml
//! - tls: { how: expired }
//! ```
//!
//! The certificates are made when they are needed, for the name that the caller asks for, and signed by an authority that
//! is thrown away with the run: nobody trusts it. A caller that does not verify gets through, and is served.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::sign::any_ecdsa_type;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey};
use tokio_util::sync::CancellationToken;

use super::Witness;
use super::hold::{Held, Hold};
use crate::clock;
use crate::units::Span;

/// How the handshake fails.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The manner of it.
    pub how: TlsHow,
    /// How long a `stall` lasts before the connection is closed; until the caller leaves or the fault ends where nothing is written.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub hold: Option<Span>,
}

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

impl Tls {
    /// Says nothing to a new connection for a while. Whether it is to be greeted after that: `stop` was cancelled.
    pub async fn stall(&self, stop: CancellationToken, witness: Witness) -> bool {
        Hold::new(Instant::now(), self.hold.map(Span::get), stop, Some(witness)).await == Held::Released
    }
}

/// The host of certificates that are of another host (RFC 2606: nobody's).
const ELSEWHERE: &str = "another-host.invalid";

/// Makes certificates that fail, with a key and an authority of its own.
#[derive(Clone)]
pub struct Forger(Arc<Tools>);

struct Tools {
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    authority: Issuer<'static, KeyPair>,
}

impl Forger {
    /// A key and an authority that nobody knows.
    ///
    /// # Panics
    ///
    /// Where the system has no randomness.
    #[expect(clippy::new_without_default, reason = "it is not cheap, and never the same")]
    pub fn new() -> Self {
        let key = || KeyPair::generate().expect("a system has randomness");
        let own = key();
        let pkcs8 = PrivateKeyDer::try_from(own.serialize_der()).expect("it was written just now");
        let signing = any_ecdsa_type(&pkcs8).expect("keys are ECDSA unless somebody says otherwise");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        name(&mut params, "Pratfall's fault: an authority that nobody trusts");
        Self(Arc::new(Tools { key: own, signing, authority: Issuer::new(params, key()) }))
    }

    /// What a listener does, but for its certificate. `address` is where the caller came to: its name where it says none.
    pub fn config(&self, how: TlsHow, real: &ServerConfig, address: IpAddr) -> Arc<ServerConfig> {
        let mut config = real.clone();
        config.cert_resolver = Arc::new(Forged { tools: self.0.clone(), how, address });
        // A session that is taken up again shows no certificate; and none that was begun here is taken up elsewhere.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(NoTickets);
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }
}

impl fmt::Debug for Forger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forger(..)")
    }
}

fn name(params: &mut CertificateParams, name: &str) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
}

impl Tools {
    /// Nothing where no certificate can be made for this name.
    fn certificate(&self, how: TlsHow, host: &str) -> Option<CertificateDer<'static>> {
        let host = if how == TlsHow::WrongHost { ELSEWHERE } else { host };
        let mut params = CertificateParams::new([host.to_owned()]).ok()?;
        name(&mut params, host);
        let day = |from_now: i64| {
            let date = (clock::now() + jiff::SignedDuration::from_hours(24 * from_now))
                .to_zoned(jiff::tz::TimeZone::UTC)
                .date();
            date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
        };
        let (from, to) = if how == TlsHow::Expired { (-97, -7) } else { (-7, 83) };
        (params.not_before, params.not_after) = (day(from), day(to));
        let made = match how {
            TlsHow::SelfSigned => params.self_signed(&self.key),
            _ => params.signed_by(&self.key, &self.authority),
        };
        Some(made.ok()?.der().clone())
    }
}

struct Forged {
    tools: Arc<Tools>,
    how: TlsHow,
    address: IpAddr,
}

impl fmt::Debug for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forged").field("how", &self.how).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Forged {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let address = self.address.to_string();
        let certificate = self.tools.certificate(self.how, hello.server_name().unwrap_or(&address))?;
        Some(Arc::new(CertifiedKey::new(vec![certificate], self.tools.signing.clone())))
    }
}

#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_stall_ends_with_its_time_or_with_the_injection() {
        let (stop, start) = (CancellationToken::new(), Instant::now());
        let stall = |hold| Tls { how: TlsHow::Stall, hold };
        assert!(!stall(Some(Span::secs(20))).stall(stop.clone(), Witness::default()).await, "then it is closed");
        assert_eq!(start.elapsed(), Duration::from_secs(20));
        let token = stop.clone();
        let stalled = tokio::spawn(async move { stall(None).stall(token, Witness::default()).await });
        tokio::time::sleep(Duration::from_secs(3600)).await;
        stop.cancel();
        assert!(stalled.await.unwrap(), "then it is greeted");
    }

    #[test]
    fn certificates_are_made_for_names_and_addresses_and_for_nothing_else() {
        let tools = Forger::new().0;
        for how in [TlsHow::Expired, TlsHow::WrongHost, TlsHow::SelfSigned] {
            assert!(tools.certificate(how, "shop.example").is_some() && tools.certificate(how, "::1").is_some());
        }
        assert!(tools.certificate(TlsHow::Expired, "caf\u{e9}").is_none());
    }
}
