//! TLS on both sides of the proxy, with certificates of the test's own making.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version::TLS12, version::TLS13,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::wire::Wire;
use super::within;

pub const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

/// Who vouches for the certificates of a test.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), cert.pem()).expect("a file");
        let root = cert.der().clone();
        Self { folder, issuer: Issuer::new(params, key), root }
    }

    /// Its own certificate, as a file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for these names.
    pub fn vouch(&self, names: &[&str]) -> Files {
        self.vouch_until(names, 2999)
    }

    /// The same, as it was until the end of a year.
    pub fn vouch_until(&self, names: &[&str], year: i32) -> Files {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("names");
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(year, 12, 31));
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |what: &str| self.folder.path().join(format!("{}-{year}-{what}.pem", names.join("-")));
        let files = Files { cert: path("cert"), key: path("key") };
        std::fs::write(&files.cert, cert.pem()).expect("a file");
        std::fs::write(&files.key, key.serialize_pem()).expect("a file");
        files
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("an authority");
        roots
    }

    /// A caller that trusts it, and shows a certificate where it has one.
    pub fn caller(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
        own: Option<&Files>,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(default_provider().into());
        let builder = builder.with_protocol_versions(versions).expect("versions").with_root_certificates(self.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(files) => builder.with_client_auth_cert(files.chain(), files.key()).expect("they fit"),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// An upstream with a certificate, that wants one of its callers where `wants` says whose.
    pub fn upstream(files: &Files, alpn: &[&str], wants: Option<&Self>) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(default_provider().into());
        let builder = builder.with_protocol_versions(BOTH).expect("versions");
        let builder = match wants {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(authority.roots().into(), default_provider().into());
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let mut config = builder.with_single_cert(files.chain(), files.key()).expect("they fit");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Files {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_file(&self.cert).expect("a certificate")]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).expect("a key")
    }
}

pub type Secret = Wire<client::TlsStream<TcpStream>>;
pub type SecretVisit = Wire<server::TlsStream<TcpStream>>;

/// A handshake for `shop.example` on a socket.
pub async fn shake(stream: TcpStream, config: Arc<ClientConfig>) -> std::io::Result<Secret> {
    let name = ServerName::try_from("shop.example").expect("a name");
    within("a handshake", TlsConnector::from(config).connect(name, stream)).await.map(Wire::over)
}

pub async fn call(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<Secret> {
    shake(TcpStream::connect(address).await?, config.clone()).await
}

/// An upstream that gives each connection whose handshake went well to `script`.
pub async fn upstream<F, Fut>(config: Arc<ServerConfig>, script: F) -> SocketAddr
where
    F: Fn(SecretVisit) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are ports");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, script) = (TlsAcceptor::from(config.clone()), script.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    script(Wire::over(stream)).await;
                }
            });
        }
    });
    address
}

/// Answers each request with 200 and `hello`, and keeps the connection.
pub async fn well(mut visit: SecretVisit) {
    while let Some(mut request) = visit.head().await {
        visit.body(&mut request).await;
        visit.send(super::ok("hello")).await;
    }
}
