//! How a serving process ends, and what it says about itself while it lives.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use serde_json::Value;

use crate::chain::{ARMED, Chain};
use crate::support::{Home, Nginx, SOON, ask, beside_others, free_port, hello_on, wait_for};

#[test]
fn told_to_end_it_is_not_ready_at_once_and_serves_on_for_the_delay() {
    let _turn = beside_others();
    let chain = Chain::new(&format!("{ARMED}drain: {{ delay: 1h, grace: 5s }}\n"));
    let serving = chain.serve();
    let mut kept = TcpStream::connect((Ipv4Addr::LOCALHOST, chain.front)).unwrap();
    assert!(!hello_on(&mut kept).unwrap().contains("connection: close"));
    serving.signal("TERM");
    let readyz = wait_for("not ready", SOON, || chain.telemetry("/readyz").ok().filter(|answer| answer.status == 503));
    assert_eq!(readyz.body, "draining\n");
    wait_for("a last answer", SOON, || {
        let answer = hello_on(&mut kept).expect("it is answered");
        let last = answer.contains("connection: close");
        if !last {
            return None;
        }
        kept = TcpStream::connect((Ipv4Addr::LOCALHOST, chain.front)).unwrap();
        Some(())
    });
    for port in [chain.front, chain.inventory] {
        assert_eq!(ask(port, "GET", "/hello", &[]).unwrap().body, "hello\n", "new connections are taken");
    }
    let refused = crate::support::ask_with(
        chain.admin,
        "POST",
        "/runs",
        &[("authorization", &chain.token())],
        crate::chain::AN_HOUR,
    );
    assert_eq!(refused.unwrap().status, 409, "and no run begins");
    // A second signal ends it at once, and its ports are free.
    serving.signal("TERM");
    serving.end(SOON).exits(143);
    let again = chain.serve();
    assert_eq!(chain.ask("/hello", "ada").unwrap().status, 200);
    // A person at the keyboard does not wait for load balancers.
    again.signal("INT");
    again.end(SOON).exits(0);
}

#[test]
fn an_idle_connection_holds_nothing_up_and_the_port_is_free_at_once() {
    let _turn = beside_others();
    let chain = Chain::new("drain: { grace: 1h }\n");
    for _ in 0..3 {
        let serving = chain.serve();
        let mut idle = TcpStream::connect((Ipv4Addr::LOCALHOST, chain.front)).unwrap();
        hello_on(&mut idle).unwrap();
        serving.signal("TERM");
        serving.end(SOON).exits(0);
    }
}

#[test]
fn half_an_answer_to_http_1_0_ends_with_an_rst_even_if_it_is_the_process_that_ends() {
    let _turn = beside_others();
    for signal in ["TERM", "KILL"] {
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let (home, front) = (Home::new(), free_port());
        let listener = format!("bind: \"127.0.0.1:{front}\", upstream: \"http://{}\"", upstream.local_addr().unwrap());
        let system =
            format!("version: 1\nsystem: half\nlisteners: {{ front: {{ {listener} }} }}\ndrain: {{ grace: 100ms }}\n");
        home.write("pratfall.yaml", &system);
        let serving = home.start(&["serve"]);
        let mut caller = wait_for("the proxy", SOON, || TcpStream::connect((Ipv4Addr::LOCALHOST, front)).ok());
        caller.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let (mut asked, _) = upstream.accept().unwrap();
        asked.read_exact(&mut [0; 16]).unwrap();
        asked.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").unwrap();
        let mut came = Vec::new();
        while !came.ends_with(b"half") {
            let mut byte = [0];
            caller.read_exact(&mut byte).unwrap();
            came.extend(byte);
        }
        serving.signal(signal);
        let end = caller.read(&mut [0; 9]).map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::ConnectionReset), "{signal}");
    }
}

#[test]
fn every_line_of_the_log_is_json_where_that_is_asked_for() {
    let _turn = beside_others();
    let chain = Chain::new("limits: { faults: [latensy] }\n");
    let serving = chain.home.start(&["serve", "--log-format", "json"]);
    chain.until_ready();
    chain.ask("/hello", "ada").unwrap();
    chain.home.write("pratfall.yaml", "nothing");
    serving.signal("HUP");
    wait_for("a reload", SOON, || chain.counts("pratfall_reloads_total{result=\"failure\"} 1").then_some(()));
    serving.signal("TERM");
    let done = serving.end(SOON).exits(0);
    let lines: Vec<Value> = done.err.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().any(|line| line["level"] == "ERROR"), "{}", done.err);
    assert!(!done.err.contains("\"route\""), "no requests are logged: {}", done.err);
}

#[test]
fn the_access_log_names_routes_and_nothing_of_the_caller() {
    let _turn = beside_others();
    let chain = Chain::new("access_log: { sample: 100% }\n");
    let other = Nginx::start();
    let routes = format!("routes: [{{ path: \"/he*\", upstream: \"http://127.0.0.1:{}\" }}]", other.port);
    let front = format!("front: {{ bind: 127.0.0.1:{}, ", chain.front);
    chain.home.write(
        "pratfall.yaml",
        &chain.system("access_log: { sample: 100% }\n").replace(&front, &format!("{front}{routes}, ")),
    );
    let mut serving = chain.home.start(&["serve", "--log", "error", "--log-format", "json"]);
    chain.until_ready();
    let secret = [("authorization", "Bearer secret"), ("cookie", "id=secret")];
    assert_eq!(ask(chain.front, "GET", "/hello?q=secret", &secret).unwrap().status, 200);
    assert_eq!(ask(chain.front, "GET", "/secret", &secret).unwrap().status, 404);
    serving.until_it_says("\"status\":404");
    serving.signal("TERM");
    let done = serving.end(SOON).exits(0);
    assert!(!done.err.contains("secret"), "{}", done.err);
    let lines: Vec<Value> = done.err.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let found = |status: u64| {
        lines.iter().map(|line| &line["fields"]).find(|it| it["status"] == status && it["listener"] == "front")
    };
    let good = found(200).expect("the first request");
    assert_eq!(
        (good["method"].as_str(), good["route"].as_str(), good["bytes"].as_u64()),
        (Some("GET"), Some("/he*"), Some(6))
    );
    assert_eq!(good["error"], "");
    assert_eq!(found(404).expect("the second")["route"], "*");
}
