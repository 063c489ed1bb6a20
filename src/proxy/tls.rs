//! Certificates and keys, as rustls wants them: for callers, and for upstreams.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::config::{ListenerConfig, ListenerTls, Scheme, UpstreamTls};

/// What HTTP/2 and HTTP/1.1 are called in a handshake (RFC 7301, 6; RFC 9113, 3.2).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where Linux keeps the authorities that it trusts.
const SYSTEM: &str = "/etc/ssl/certs";

/// Why the files of a listener are of no use.
#[derive(Debug, thiserror::Error)]
#[error("{what} `{}` {why}", file.display())]
pub struct TlsError {
    what: &'static str,
    file: PathBuf,
    why: String,
}

/// Both sides of a listener.
#[derive(Clone, Default)]
pub(super) struct Tls {
    pub(super) server: Option<Arc<ServerConfig>>,
    pub(super) client: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys are nobody's business.
        f.debug_struct("Tls").field("server", &self.server.is_some()).field("client", &self.client.is_some()).finish()
    }
}

impl Tls {
    pub(super) fn read(config: &ListenerConfig) -> Result<Self, TlsError> {
        let https = config.targets().any(|target| target.scheme == Scheme::Https);
        let server = config.tls.as_ref().map(server).transpose()?;
        let client = https.then(|| client(config.upstream_tls.as_ref())).transpose()?;
        Ok(Self { server, client })
    }
}

fn wrong(what: &'static str, file: &Path, why: impl Into<String>) -> TlsError {
    TlsError { what, file: file.to_owned(), why: why.into() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server(files: &ListenerTls) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong("certificate", &files.cert, error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(file)?.into(), provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong("client_ca", file, error.to_string()))?)
        }
    };
    let (chain, key) = (certificates("certificate", &files.cert)?, key(&files.key)?);
    let fits = |error| wrong("certificate", &files.cert, format!("cannot be used with its key: {error}"));
    let mut config = builder.with_single_cert(chain, key).map_err(fits)?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    // Tickets that callers keep themselves: the other way remembers 256 of them.
    config.ticketer = ring::Ticketer::new().map_err(|error| wrong("certificate", &files.cert, error.to_string()))?;
    Ok(Arc::new(config))
}

fn client(files: Option<&UpstreamTls>) -> Result<Arc<ClientConfig>, TlsError> {
    let ca = files.and_then(|files| files.ca.as_deref());
    let named = ca.unwrap_or_else(|| Path::new(SYSTEM));
    let roots = ca.map_or_else(system_roots, roots)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider()).build();
    let verifier = verifier.map_err(|error| wrong("ca", named, error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong("ca", named, error.to_string()))?;
    let builder = builder.with_webpki_verifier(verifier);
    let own = files.and_then(|files| files.cert.as_deref().zip(files.key.as_deref()));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, file)) => {
            let fits = |error| wrong("certificate", cert, format!("cannot be used with its key: {error}"));
            builder.with_client_auth_cert(certificates("certificate", cert)?, key(file)?).map_err(fits)?
        }
    };
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |why: String| wrong(what, file, why);
    let read = CertificateDer::pem_file_iter(file).map_err(|error| wrong(unreadable(&error)))?;
    let found = read.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(unreadable(&error)))?;
    if found.is_empty() {
        return Err(wrong("holds no certificate; write PEM, with `-----BEGIN CERTIFICATE-----`".to_owned()));
    }
    Ok(found)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| wrong("key", file, unreadable(&error)))
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", file)? {
        roots.add(certificate).map_err(|error| wrong("ca", file, format!("holds no authority: {error}")))?;
    }
    Ok(roots)
}

/// The authorities that this machine trusts.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = "give none; install `ca-certificates`, or name a `ca` in `upstream_tls`";
        return Err(wrong("the system's authorities in", Path::new(SYSTEM), why));
    }
    Ok(roots)
}

fn unreadable(error: &tokio_rustls::rustls::pki_types::pem::Error) -> String {
    use tokio_rustls::rustls::pki_types::pem::Error as Pem;
    match error {
        Pem::Io(error) => format!("cannot be read: {error}"),
        Pem::NoItemsFound => "holds nothing of the kind in PEM".to_owned(),
        error => format!("is not PEM: {error}"),
    }
}
