//! Whatever is wrong outside the listeners: the traffic flows, nothing is injected, and it is said.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::chain::{AN_HOUR, ARMED, Chain};
use crate::support::{Home, Nginx, SOON, ask, beside_others, free_port, wait_for};

#[test]
fn a_document_with_mistakes_outside_its_listeners_is_served_disarmed() {
    let _turn = beside_others();
    for (more, line) in [
        ("limits: { faults: [latency], max_slice: many }\n", "pratfall.yaml:7:"),
        ("limits: { faults: [latency], hours: sometimes }\n", "pratfall.yaml:7:"),
        ("limits: { faults: [latency], protect: [{ at: nowhere, path: /x }] }\n", "`nowhere`"),
        ("limits: { faults: [latency] }\nnotify: [{ on: [broken] }]\n", "pratfall.yaml:8:"),
        ("limits: { faults: [latency] }\nnotify: 7\nlegder: x\n", "pratfall.yaml:9:"),
        ("limits: { faults: [latency] }\nworkers: 0\nreports: \"${NOWHERE}\"\n", "NOWHERE"),
        ("limits: { faults: [latency] }\nledger: [a, b]\n", "pratfall.yaml:8:"),
    ] {
        let chain = Chain::new(more);
        chain.home.write("an-hour.yaml", AN_HOUR);
        chain.home.pratfall(&["check", "pratfall.yaml"]).exits(2);
        chain.home.pratfall(&["run", "an-hour.yaml"]).exits(2);
        let mut serving = chain.serve();
        assert_eq!(chain.ask("/hello", "ada").unwrap().body, "hello\n", "{more}");
        let verbose = chain.telemetry("/readyz?verbose").unwrap();
        assert_eq!(verbose.status, 200);
        assert!(verbose.body.contains(line), "`{line}` is not in\n{}", verbose.body);
        assert!(chain.counts("pratfall_armed 0") && chain.counts("pratfall_config_last_reload_successful 0"), "{more}");
        serving.until_it_says(line);
        serving.until_it_says("armed for nothing");
        let run =
            chain.home.pratfall(&["run", "an-hour.yaml", "--on", &chain.url(), "--token-file", "pratfall.db.token"]);
        assert_ne!(run.code, 0, "{more}");
        if !more.contains("ledger") {
            // Put right, it is armed without a restart.
            chain.home.write("pratfall.yaml", &chain.system(ARMED));
            wait_for("armed", SOON, || chain.counts("pratfall_armed 1").then_some(()));
        }
    }
}

#[test]
fn mistakes_in_the_listeners_start_nothing() {
    let _turn = beside_others();
    let home = Home::new();
    for (text, why) in [
        ("version: 1\nsystem: s\nlisteners: { front: { bind: here, upstream: \"http://a:1\" } }\n", "not an address"),
        ("version: 1\nsystem: s\nadmin: { bind: 127.0.0.1:0 }\n", "listeners"),
        ("version: 1\nsystem: [\n", "pratfall.yaml:"),
        ("version: 1\nlisteners: { front: { bind: 127.0.0.1:0, upstream: \"http://a:1\", tls: {} } }\n", "cert"),
    ] {
        home.write("pratfall.yaml", text);
        home.pratfall(&["serve"]).exits(2).says(why);
    }
    std::fs::remove_file(home.path("pratfall.yaml")).unwrap();
    home.pratfall(&["serve"]).exits(2).says("--config");
}

#[test]
fn an_operators_door_that_cannot_be_opened_disarms_and_the_traffic_flows() {
    let _turn = beside_others();
    let nginx = Nginx::start();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for (name, token) in [("admin", ""), ("telemetry", ""), ("token", ", token_file: nowhere.token")] {
        let home = Home::new();
        let (front, admin, telemetry) = (free_port(), free_port(), free_port());
        let port = |key: &str, port: u16| if key == name { taken.local_addr().unwrap().port() } else { port };
        let text = format!(
            "version: 1\nsystem: doors\nlisteners: {{ front: {{ bind: 127.0.0.1:{front}, upstream: \"http://127.0.0.1:{}\" }} }}\n\
             admin: {{ bind: 127.0.0.1:{}{token} }}\ntelemetry: {{ bind: 127.0.0.1:{} }}\n{ARMED}",
            nginx.port,
            port("admin", admin),
            port("telemetry", telemetry),
        );
        home.write("pratfall.yaml", &text);
        let mut serving = home.start(&["serve"]);
        serving.until_it_says("armed for nothing");
        assert_eq!(ask(front, "GET", "/hello", &[]).unwrap().body, "hello\n", "{name}");
        let shown = if name == "telemetry" { admin } else { telemetry };
        let verbose = ask(shown, "GET", "/readyz?verbose", &[]).unwrap();
        let said = if name == "token" { "[-]admin: no token" } else { &format!("[-]{name}: cannot listen on") };
        assert!(verbose.status == 200 && verbose.body.contains(said), "{}", verbose.body);
        assert!(ask(shown, "GET", "/metrics", &[]).unwrap().body.contains("pratfall_armed 0"), "{name}");
    }
}

#[test]
fn whoever_stands_at_the_doors_takes_nothing_from_the_traffic_and_keeps_nobody_out() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let mut serving = chain.home.start_with_descriptors(256, &["serve"]);
    chain.until_ready();
    let mut standing = Vec::new();
    for door in [chain.admin; 400] {
        standing.extend(TcpStream::connect((Ipv4Addr::LOCALHOST, door)));
    }
    assert_eq!(chain.ask("/hello", "ada").unwrap().body, "hello\n");
    assert_eq!(chain.telemetry("/livez").unwrap().status, 200);
    assert_eq!(ask(chain.admin, "POST", "/halt", &[]).unwrap().status, 200);
    assert!(serving.lives());
}

#[test]
fn a_ledger_that_goes_while_it_is_in_use_is_missed() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let _serving = chain.serve();
    assert!(chain.telemetry("/readyz?verbose").unwrap().body.contains("[+]ledger"));
    std::fs::remove_file(chain.home.path("pratfall.db")).unwrap();
    let inject = ["inject", "latency: { delay: 1ms }", "--at", "front", "--for", "1s", "--on", &chain.url()];
    let refused = chain.home.pratfall(&inject);
    assert_ne!(refused.code, 0);
    refused.says("deleted or moved");
    let verbose = chain.telemetry("/readyz?verbose").unwrap().body;
    assert!(verbose.contains("[-]ledger: the ledger at") && verbose.contains("deleted or moved"), "{verbose}");
    assert_eq!(chain.ask("/hello", "ada").unwrap().body, "hello\n");
}
