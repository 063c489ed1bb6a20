//! Ordinary clients and servers of every protocol, with the proxy between them: gRPC, WebSocket, h2load, openssl; and a
//! reader that takes its time over a large body.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    A_RUN, Home, Nginx, Pratfall, SOON, Service, alone, ask, beside_others, free_port, stock, wait_for,
};

/// A proxy with one listener before an upstream, and with what else that listener says.
fn before(upstream: &str, more: &str) -> (Home, Pratfall, u16) {
    let (home, front, admin) = (Home::new(), free_port(), free_port());
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/certificates");
    let more = more.replace("CERTIFICATES", certificates.to_str().unwrap());
    home.write(
        "pratfall.yaml",
        &format!(
            "version: 1\nsystem: clients\nlisteners:\n  front: {{ bind: 127.0.0.1:{front}, upstream: \"{upstream}\"{more} }}\n\
             admin: {{ bind: 127.0.0.1:{admin} }}\n"
        ),
    );
    let serving = home.start(&["serve"]);
    wait_for("ready", SOON, || ask(admin, "GET", "/readyz", &[]).ok().filter(|answer| answer.status == 200));
    (home, serving, front)
}

/// What a stock client saw, asking a port.
fn seen_by(client: &str, port: u16) -> Value {
    let mut command = Command::new("node");
    let done = command.args(["caller.js", client, &port.to_string()]).current_dir(stock()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{client}: {said}{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{client} said `{said}`: {error}"))
}

#[test]
fn a_stock_grpc_client_sees_its_server_in_all_four_kinds_of_calls() {
    let _turn = beside_others();
    let server = Service::peer("grpc");
    let (_home, _serving, front) = before(&format!("h2c://127.0.0.1:{}", server.port), "");
    let seen = seen_by("grpc", front);
    assert_eq!(seen, seen_by("grpc", server.port), "as without a proxy");
    assert_eq!(seen["unary"], json!({ "head": "stock", "text": "HELLO", "trailer": "for hello" }));
    assert_eq!(seen["failed"], json!({ "code": 9, "details": "as asked", "trailer": "for fail" }));
    assert_eq!(seen["serverStream"]["texts"].as_array().map(Vec::len), Some(100));
    assert_eq!(seen["clientStream"], json!({ "text": "abc" }));
    assert_eq!(seen["bidi"]["texts"].as_array().map(Vec::len), Some(20));
}

#[test]
fn a_stock_websocket_client_sees_its_server_to_the_close_code() {
    let _turn = beside_others();
    let server = Service::peer("ws");
    let (_home, _serving, front) = before(&format!("http://127.0.0.1:{}", server.port), "");
    let seen = seen_by("ws", front);
    let messages = json!([[false, 5], [true, 300_000], [false, 0]]);
    assert_eq!(seen, json!({ "messages": messages, "code": 4000, "reason": "as asked" }));
}

#[test]
fn h2load_finds_no_error_in_the_clear_and_over_tls() {
    let _turn = alone();
    let nginx = Nginx::start();
    let tls = ", tls: { cert: CERTIFICATES/one.pem, key: CERTIFICATES/one.key }";
    for (scheme, more) in [("http", ""), ("https", tls)] {
        let (_home, _serving, front) = before(&format!("http://127.0.0.1:{}", nginx.port), more);
        let url = format!("{scheme}://127.0.0.1:{front}/hello");
        let done = Command::new("h2load").args(["-n2000", "-c4", "-m16", &url]).output().expect("h2load is installed");
        let said = String::from_utf8_lossy(&done.stdout);
        let totals = "requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.contains(totals) && said.contains("2000 2xx"), "{scheme}: {said}");
        assert!(scheme == "http" || said.contains("Application protocol: h2"), "{said}");
    }
}

#[test]
fn openssl_agrees_on_a_version_and_a_protocol_and_resumes_its_session() {
    let _turn = beside_others();
    let nginx = Nginx::start();
    let tls = ", tls: { cert: CERTIFICATES/one.pem, key: CERTIFICATES/one.key }";
    let (home, _serving, front) = before(&format!("http://127.0.0.1:{}", nginx.port), tls);
    let connect = format!("127.0.0.1:{front}");
    let session = home.path("session");
    let ask = |arguments: &[&str], protocol: &str| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &connect, "-servername", "localhost", "-ign_eof", "-alpn", protocol]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut openssl = command.spawn().expect("openssl is installed");
        let request: &[u8] = b"GET /hello HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        openssl.stdin.take().unwrap().write_all(request).unwrap();
        String::from_utf8_lossy(&openssl.wait_with_output().unwrap().stdout).into_owned()
    };
    for version in ["1.2", "1.3"] {
        let tls = format!("-tls{}", version.replace('.', "_"));
        let said = ask(&[&tls, "-sess_out", session.to_str().unwrap()], "http/1.1");
        for words in [format!("New, TLSv{version}"), "ALPN protocol: http/1.1".into(), "hello\n".into()] {
            assert!(said.contains(&words), "{version}: `{words}` is not in\n{said}");
        }
        let again = ask(&[&tls, "-sess_in", session.to_str().unwrap()], "http/1.1");
        assert!(again.contains(&format!("Reused, TLSv{version}")) && again.contains("hello\n"), "{version}: {again}");
    }
}

/// The most memory that a process has had, without the pages of its binary.
fn anonymous(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_hundred_mebibytes_through_a_slow_reader_cost_no_memory() {
    const BODY: usize = 100 << 20;
    let _turn = alone();
    let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = origin.local_addr().unwrap();
    let sending = std::thread::spawn(move || {
        let (mut caller, _) = origin.accept().unwrap();
        let mut head = [0; 4096];
        assert!(caller.read(&mut head).unwrap() > 0);
        write!(caller, "HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n").unwrap();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..BODY / piece.len() {
            caller.write_all(&piece).unwrap();
        }
    });
    let (_home, serving, front) = before(&format!("http://{address}"), "");
    let before = anonymous(serving.pid());
    let mut reader = TcpStream::connect((Ipv4Addr::LOCALHOST, front)).unwrap();
    reader.set_read_timeout(Some(A_RUN)).unwrap();
    reader.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let (mut read, mut most, mut piece) = (0, before, vec![0; 256 << 10]);
    while read < BODY {
        let more = reader.read(&mut piece).unwrap();
        assert!(more > 0, "the body ended after {read} bytes");
        read += more;
        most = most.max(anonymous(serving.pid()));
        if read < 20 << 20 {
            // Slow enough for the sender to fill whatever there is to fill.
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    sending.join().unwrap();
    assert!(most <= before + (16 << 20), "from {before} to {most} bytes");
}
