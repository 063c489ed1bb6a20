//! Faults that meet connections: sent away, refused, or without a handshake that can be trusted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use pratfall::experiment::by_hand::ByHand;
use pratfall::experiment::glob::PathGlob;
use pratfall::experiment::limits::{Limits, Protected};
use pratfall::experiment::{By, Experiment, Guard};
use pratfall::measure::Note;
use pratfall::proxy::ListenerConfig;
use pratfall::proxy::config::ListenerTls;
use pratfall::units::Percent;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, RootCertStore, SignatureScheme,
};

use crate::support::stage::{callers, limits, matching};
use crate::support::tls::{Authority, BOTH, Secret, call};
use crate::support::{End, Origin, Stage, Wire, everybody, get, listener, ok, until, within};

/// Everybody's connections meet a fault.
fn connections(fault: &str) -> Experiment {
    let mut experiment = everybody("latency: { delay: 1s }");
    experiment.slice.by = By::ClientIp;
    experiment.inject.faults = serde_yaml::from_str(&format!("[{{ {fault} }}]")).expect("faults");
    experiment
}

/// A listener with a certificate for `shop.example`.
fn secret(authority: &Authority, origin: &Origin) -> ListenerConfig {
    let files = authority.vouch(&["shop.example"]);
    let tls = Some(ListenerTls { cert: files.cert, key: files.key, client_ca: None });
    ListenerConfig { tls, ..listener("front", origin.address) }
}

#[tokio::test]
async fn a_new_connection_is_refused_with_an_rst_and_an_old_one_lives() {
    let origin = Origin::well().await;
    for workers in [1, 2] {
        let stage = Stage::start(vec![listener("front", origin.address)], workers).await;
        let mut run = stage.enroll(connections("drop: { how: refuse }"));
        let mut old = stage.front().await;
        assert_eq!(old.ask(get("/", "")).await.text(), "hello");
        let injection = run.inject();
        for said in [&b""[..], &get("/", "")] {
            let mut refused = stage.front().await;
            // It may be gone before anything can be said.
            let _ = refused.try_send(said).await;
            assert_eq!(refused.rest().await, (vec![], End::Reset));
        }
        assert_eq!(old.ask(get("/", "")).await.text(), "hello");
        assert_eq!(run.trial.met(), [("drop", 2)]);
        drop(injection);
        assert_eq!(stage.front().await.ask(get("/", "")).await.text(), "hello", "off at once");
        run.tally("both are counted", |tally| (tally.noted(Note::Eligible), tally.noted(Note::Faulted)) == (2, 2))
            .await;
        until("no connection is left over", || stage.proxy.connections() <= 2).await;
    }
}

#[tokio::test]
async fn a_connection_is_in_the_arm_of_its_callers_requests() {
    let origin = Origin::well().await;
    let front = ListenerConfig { proxy_protocol: true, ..listener("front", origin.address) };
    let stage = Stage::start(vec![front], 1).await;
    let mut experiment = connections("drop: { how: refuse }");
    experiment.slice.treatment = vec![Percent::from_ratio(0.4).unwrap()];
    experiment.slice.control = Percent::from_ratio(0.4).unwrap();
    let run = stage.enroll(experiment);
    let announced = |n: u32| format!("PROXY TCP4 192.0.2.{n} 198.51.100.1 1 2\r\n").into_bytes();
    let mut treated = Vec::new();
    for n in 1..=60 {
        stage.front().await.ask([announced(n), get("/", "")].concat()).await;
        treated.push(origin.last().field("baggage").is_some_and(|baggage| baggage.contains(".t.")));
    }
    assert!((10..40).contains(&treated.iter().filter(|treated| **treated).count()));
    let _injection = run.inject();
    for (n, treated) in (1..=60).zip(treated) {
        let mut caller = stage.front().await;
        caller.send([announced(n), get("/", "")].concat()).await;
        assert_eq!(!caller.is_answered_well().await, treated, "192.0.2.{n}");
    }
}

#[tokio::test]
async fn by_hand_each_new_connection_is_drawn_for_itself() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    for (share, refused) in [("40%", 25..=55), ("100%", 100..=100)] {
        let text = format!("at: front\nfaults: [{{ drop: {{ how: refuse }} }}]\nshare: {share}\nseed: 7");
        let by_hand = ByHand::parse("<by hand>", &text).unwrap_or_else(|problems| panic!("{problems}"));
        let run = stage.enroll(by_hand.experiment(&[]).unwrap_or_else(|problems| panic!("{problems}")));
        let _injection = run.inject();
        let mut lost = 0;
        for _ in 0..100 {
            let mut caller = stage.front().await;
            let _ = caller.try_send(&get("/", "")).await;
            lost += u32::from(!caller.is_answered_well().await);
        }
        assert!(refused.contains(&lost), "{share}: {lost} of one caller's connections");
    }
}

#[tokio::test]
async fn connections_are_spared_for_the_reasons_that_calls_are_and_counted() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let refuse = || connections("drop: { how: refuse }");
    let mut of_share = refuse();
    of_share.inject.share = Percent::from_ratio(0.0).unwrap();
    let mut first = refuse();
    first.inject.attempts = Some(1);
    let mut elsewhere = refuse();
    elsewhere.inject.matches = callers("192.0.2.0/24");
    let mut one = refuse();
    one.guards = vec![Guard::Faulted { max: None, rate: None, per_caller: Some(1) }];
    let protect = vec![Protected { at: "front".to_owned(), path: PathGlob::new("/pay").unwrap() }];
    let protected = Limits { protect, ..limits() };
    for (experiment, limits, why, refused) in [
        (of_share, limits(), Note::SparedShare, [false, false]),
        (first, limits(), Note::SparedAttempts, [true, false]),
        (elsewhere, limits(), Note::SparedNoMatch, [false, false]),
        (one, limits(), Note::SparedBudget, [true, false]),
        (refuse(), protected, Note::SparedProtected, [false, false]),
    ] {
        let mut run = stage.enroll_with(experiment, |terms| terms.limits = Arc::new(limits));
        let _injection = run.inject();
        for refused in refused {
            let mut caller = stage.front().await;
            let _ = caller.try_send(&get("/", "")).await;
            assert_eq!(!caller.is_answered_well().await, refused, "{why:?}");
        }
        let spared = refused.iter().filter(|refused| !**refused).count() as u64;
        run.tally("they are counted", |tally| tally.noted(why) == spared).await;
    }
}

#[tokio::test]
async fn what_cannot_be_told_of_a_connection_leaves_it_alone() {
    let origin = Origin::well().await;
    let trusting =
        ListenerConfig { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..listener("front", origin.address) };
    let mut paths = connections("drop: { how: refuse }");
    paths.slice.matches = matching("/**");
    let somebody = connections("drop: { how: refuse }");
    for (front, experiment) in [(trusting, somebody), (listener("front", origin.address), paths)] {
        let stage = Stage::start(vec![front], 1).await;
        let run = stage.enroll(experiment);
        let _injection = run.inject();
        assert_eq!(stage.front().await.ask(get("/", "")).await.text(), "hello");
    }
}

/// Reads one frame of HTTP/2: its type, flags, stream and payload.
async fn frame(caller: &mut Wire) -> (u8, u8, u32, Vec<u8>) {
    let head = caller.exactly(9).await;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let payload = if length == 0 { Vec::new() } else { caller.exactly(length).await };
    (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload)
}

/// HEADERS with END_STREAM of a GET: its static names, a path, and an authority.
fn headers(stream: u8, path: &str) -> Vec<u8> {
    let block = [&[0x82, 0x86, 0x04, path.len() as u8], path.as_bytes(), b"\x01\x01a"].concat();
    [&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, stream][..], &block].concat()
}

const GOAWAY: u8 = 7;
const HEADERS: u8 = 1;
const PING: u8 = 6;

#[tokio::test]
async fn on_h2_goaway_is_no_error_and_what_is_under_way_is_finished() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            while let Some(request) = visit.request().await {
                if request.start().contains("/slow") {
                    gone.wait_for(|go| *go).await.expect("the test waits");
                }
                visit.wire.send(ok("hello")).await;
            }
        }
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut experiment = connections("drop: { how: goaway }");
    experiment.inject.matches = matching("/treated");
    let mut run = stage.enroll(experiment);
    let _injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
    caller.send(headers(1, "/slow")).await;
    origin.until_asked(1).await;
    caller.send(headers(3, "/treated")).await;
    let (mut answered, mut sent_away) = (Vec::new(), false);
    while !sent_away || answered != [3] {
        let (kind, flags, stream, payload) = frame(&mut caller).await;
        match kind {
            HEADERS => answered.push(stream),
            GOAWAY => {
                assert_eq!(payload[4..8], [0; 4], "NO_ERROR");
                sent_away = true;
            }
            PING if flags == 0 => caller.send([&b"\x00\x00\x08\x06\x01\x00\x00\x00\x00"[..], &payload].concat()).await,
            _ => {}
        }
    }
    go.send(true).expect("the origin waits");
    while answered != [3, 1] {
        let (kind, flags, stream, payload) = frame(&mut caller).await;
        match kind {
            HEADERS => answered.push(stream),
            PING if flags == 0 => caller.send([&b"\x00\x00\x08\x06\x01\x00\x00\x00\x00"[..], &payload].concat()).await,
            _ => {}
        }
    }
    assert_eq!(caller.rest().await.1, End::Fin, "then it ends in good order");
    assert_eq!(run.trial.met(), [("drop", 1)]);
    run.tally("one is counted", |tally| (tally.noted(Note::Faulted), tally.noted(Note::SparedNoMatch)) == (1, 1)).await;
}

#[tokio::test]
async fn a_client_of_h2_hears_goaway_and_comes_back_on_another_connection() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(connections("drop: { how: goaway }"));
    let injection = run.inject();
    let client = async || {
        let stream = TcpStream::connect(stage.address("front")).await.expect("the listener listens");
        let (client, connection) = h2::client::handshake(stream).await.expect("h2");
        tokio::spawn(connection);
        client
    };
    let ask = async |client: &mut h2::client::SendRequest<bytes::Bytes>| {
        let mut client = client.clone().ready().await?;
        let request = http::Request::get("http://shop.example/").body(()).expect("a request");
        client.send_request(request, true)?.0.await.map(|answer| answer.status())
    };
    let mut sent_away = client().await;
    assert_eq!(within("an answer", ask(&mut sent_away)).await.expect("an answer"), 200);
    let told = within("GOAWAY", async {
        loop {
            if let Err(error) = ask(&mut sent_away).await {
                return error;
            }
        }
    });
    let told = told.await;
    assert!(told.is_go_away() && told.is_remote() && told.reason() == Some(h2::Reason::NO_ERROR), "{told:?}");
    drop(injection);
    let mut again = client().await;
    for _ in 0..3 {
        assert_eq!(within("an answer", ask(&mut again)).await.expect("an answer"), 200);
    }
}

#[tokio::test]
async fn on_http1_goaway_is_connection_close_behind_a_whole_answer() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(connections("drop: { how: goaway }"));
    let injection = run.inject();
    let mut caller = stage.front().await;
    let answer = caller.ask(get("/", "")).await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    assert_eq!((answer.field("connection").as_deref(), answer.field("x-pratfall")), (Some("close"), None));
    assert_eq!(caller.rest().await, (vec![], End::Fin));
    drop(injection);
    let mut caller = stage.front().await;
    assert_eq!(caller.ask(get("/", "")).await.field("connection"), None);
    assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
}

/// A caller that trusts everybody, and remembers whom.
#[derive(Debug)]
struct Credulous(Mutex<Option<CertificateDer<'static>>>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().expect("nobody panics with it") = Some(certificate.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Connects without looking at the certificate, which comes with the connection.
async fn credulous(address: SocketAddr, name: &'static str) -> (Secret, CertificateDer<'static>) {
    let verifier = Arc::new(Credulous(Mutex::default()));
    let builder = ClientConfig::builder_with_provider(default_provider().into());
    let builder = builder.with_protocol_versions(BOTH).expect("versions").dangerous();
    let config = builder.with_custom_certificate_verifier(verifier.clone()).with_no_client_auth();
    let stream = TcpStream::connect(address).await.expect("the listener listens");
    let name = ServerName::try_from(name).expect("a name");
    let shaken = within("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    let certificate = verifier.0.lock().expect("nobody panics with it").take().expect("it was shown one");
    (Wire::over(shaken.expect("it trusts everybody")), certificate)
}

fn why(error: &std::io::Error) -> &CertificateError {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::InvalidCertificate(why)) => why,
        _ => panic!("not about a certificate: {error}"),
    }
}

#[tokio::test]
async fn a_handshake_shows_the_certificate_that_is_asked_for_and_the_listeners_own_afterwards() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let stage = Stage::start(vec![secret(&authority, &origin)], 1).await;
    let trusting = authority.caller(BOTH, &[], None);
    let mut old = call(stage.address("front"), &trusting).await.unwrap();
    // With a ticket, as callers come back; a session that is taken up again would show no certificate.
    assert_eq!(old.ask(get("/", "")).await.text(), "hello");
    for how in ["expired", "wrong_host", "self_signed"] {
        let mut run = stage.enroll(connections(&format!("tls: {{ how: {how} }}")));
        let injection = run.inject();
        let refused = call(stage.address("front"), &trusting).await.expect_err("it is not to be trusted");
        let expired = matches!(why(&refused), CertificateError::Expired | CertificateError::ExpiredContext { .. });
        assert_eq!(expired, how == "expired", "{how}: {refused}");

        let (mut caller, certificate) = credulous(stage.address("front"), "shop.example").await;
        assert_eq!(caller.ask(get("/", "")).await.text(), "hello", "who does not look is served");
        let parsed = ParsedCertificate::try_from(&certificate).unwrap();
        let named = verify_server_name(&parsed, &ServerName::try_from("shop.example").unwrap());
        assert_eq!(named.is_err(), how == "wrong_host", "{how}: {named:?}");
        let mut itself = RootCertStore::empty();
        itself.add(certificate.clone()).unwrap();
        let algorithms = default_provider().signature_verification_algorithms;
        let vouched = verify_server_cert_signed_by_trust_anchor(&parsed, &itself, &[], UnixTime::now(), algorithms.all);
        assert_eq!(vouched.is_ok(), how == "self_signed", "{how}: {vouched:?}");

        assert_eq!(old.ask(get("/", "")).await.text(), "hello", "old connections live");
        run.tally("both are counted", |tally| tally.noted(Note::Faulted) == 2).await;
        assert_eq!(run.trial.met(), [("tls", 2)]);
        drop(injection);
        let mut new = call(stage.address("front"), &trusting).await.expect("it is well again");
        assert_eq!(new.ask(get("/", "")).await.text(), "hello");
    }
    let again = call(stage.address("front"), &trusting).await.unwrap();
    let mut again = again;
    assert_eq!(again.stream().get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "tickets are still good");
    // Who asks for an address gets a certificate for it.
    let run = stage.enroll(connections("tls: { how: self_signed }"));
    let _injection = run.inject();
    let (_, certificate) = credulous(stage.address("front"), "127.0.0.1").await;
    let parsed = ParsedCertificate::try_from(&certificate).unwrap();
    assert!(verify_server_name(&parsed, &ServerName::try_from("127.0.0.1").unwrap()).is_ok());
}

#[tokio::test]
async fn callers_must_still_show_their_certificate_where_they_must() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let mut front = secret(&authority, &origin);
    front.tls.as_mut().unwrap().client_ca = Some(authority.file());
    let stage = Stage::start(vec![front], 1).await;
    let run = stage.enroll(connections("tls: { how: expired }"));
    let _injection = run.inject();
    let (mut caller, _) = credulous(stage.address("front"), "shop.example").await;
    let served = caller.try_send(&get("/", "")).await.is_ok() && caller.is_answered_well().await;
    assert!(!served && origin.seen().is_empty());
}

#[tokio::test]
async fn a_stalled_handshake_goes_on_when_the_fault_goes() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let stage = Stage::start(vec![secret(&authority, &origin)], 1).await;
    let mut run = stage.enroll(connections("tls: { how: stall }"));
    let injection = run.inject();
    let (address, config) = (stage.address("front"), authority.caller(BOTH, &[], None));
    let shaking = tokio::spawn(async move { call(address, &config).await });
    let gone = stage.front().await;
    until("both are held", || run.trial.held() == 2).await;
    drop(gone);
    until("who leaves is held no more", || run.trial.held() == 1).await;
    assert!(!shaking.is_finished());
    drop(injection);
    let mut caller = shaking.await.unwrap().expect("a handshake");
    assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
    assert_eq!(run.trial.held(), 0);
    run.tally("both are counted", |tally| tally.noted(Note::Faulted) == 2).await;
}

#[tokio::test]
async fn no_more_handshakes_are_stalled_than_may_be_held() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let stage = Stage::start(vec![secret(&authority, &origin)], 1).await;
    let few = Limits { max_held: 1, ..limits() };
    let mut run = stage.enroll_with(connections("tls: { how: stall }"), |terms| terms.limits = Arc::new(few));
    let _injection = run.inject();
    let _stalled = stage.front().await;
    until("one is held", || run.trial.held() == 1).await;
    let mut caller = call(stage.address("front"), &authority.caller(BOTH, &[], None)).await.expect("a handshake");
    assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
    run.tally("one is spared", |tally| tally.noted(Note::SparedLimit) == 1).await;
}

#[tokio::test]
async fn a_stall_for_a_while_ends_with_a_fin() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let stage = Stage::start(vec![secret(&authority, &origin)], 1).await;
    let run = stage.enroll(connections("tls: { how: stall, for: 20ms }"));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(b"\x16\x03\x01").await;
    assert_eq!(caller.rest().await, (vec![], End::Fin));
    until("nobody is held", || run.trial.held() == 0).await;
}

#[tokio::test]
async fn of_several_faults_each_connection_meets_one_and_all_are_met() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let stage = Stage::start(vec![secret(&authority, &origin)], 1).await;
    let run = stage.enroll(connections("drop: { how: refuse } }, { tls: { how: expired }"));
    let _injection = run.inject();
    let trusting = authority.caller(BOTH, &[], None);
    for _ in 0..30 {
        assert!(call(stage.address("front"), &trusting).await.is_err());
    }
    let met = run.trial.met();
    let [("drop", refused), ("tls", expired)] = met[..] else { panic!("{met:?}") };
    assert!(refused + expired == 30 && refused > 5 && expired > 5, "{met:?}");
}
