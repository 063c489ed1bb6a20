//! nginx behind the proxy, curl and wrk in front of it: ordinary programs notice nothing, until somebody means it.

use std::process::Command;
use std::time::Duration;

use crate::chain::{ARMED, Chain};
use crate::support::{SOON, alone, beside_others, wait_for};

/// Runs curl; its output is the body, and its failure the test's.
#[track_caller]
fn curl(arguments: &[&str]) -> Vec<u8> {
    let usual = ["--silent", "--show-error", "--fail", "--max-time", "60"];
    let done = Command::new("curl").args(usual).args(arguments).output().expect("curl is installed");
    assert!(done.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

#[track_caller]
fn curl_text(arguments: &[&str]) -> String {
    String::from_utf8(curl(arguments)).unwrap()
}

/// What wrk counted.
#[derive(Debug)]
struct Wrk {
    requests: u64,
    socket_errors: Option<String>,
    not_good: u64,
}

fn wrk(url: &str, seconds: u32) -> Wrk {
    let duration = format!("{seconds}s");
    let done = Command::new("wrk").args(["-t1", "-c8", "-d", &duration, url]).output().expect("wrk is installed");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "wrk: {said}{}", String::from_utf8_lossy(&done.stderr));
    let line = |words: &str| said.lines().map(str::trim).find(|line| line.contains(words)).map(ToOwned::to_owned);
    let requests = line("requests in").and_then(|line| line.split(' ').next()?.parse().ok());
    let not_good = line("Non-2xx").and_then(|line| line.rsplit(' ').next()?.parse().ok());
    Wrk {
        requests: requests.unwrap_or_else(|| panic!("wrk said {said}")),
        socket_errors: line("Socket errors"),
        not_good: not_good.unwrap_or(0),
    }
}

#[test]
fn curl_sees_nginx_and_nothing_else() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(chain.nginx.file("bytes"), &bytes).unwrap();
    let _serving = chain.serve();
    let (through, direct) =
        (format!("http://127.0.0.1:{}", chain.front), format!("http://127.0.0.1:{}", chain.nginx.port));
    for (version, spoken) in [("--http1.0", "1"), ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        assert_eq!(curl_text(&[version, &format!("{through}/hello")]), "hello\n", "{version}");
        assert!(curl(&[version, &format!("{through}/bytes")]) == bytes, "{version}: a file arrives whole");
        let range = curl(&[version, "--range", "1000-1999", &format!("{through}/bytes")]);
        assert!(range == bytes[1000..2000], "{version}: a range is a range");
        let asked = [version, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", &format!("{through}/hello")];
        assert_eq!(curl_text(&asked), format!("200 {spoken}"), "{version}");

        let name = format!("/put/{}", &version[2..]);
        let upload = chain.home.path("upload");
        std::fs::write(&upload, &bytes).unwrap();
        curl(&[version, "-T", upload.to_str().unwrap(), &format!("{through}{name}")]);
        assert!(std::fs::read(chain.nginx.file(&name[1..])).unwrap() == bytes, "{version}: an upload arrives whole");
    }
    // A body whose length nobody says.
    let upload = chain.home.path("upload");
    curl(&["-H", "transfer-encoding: chunked", "-T", upload.to_str().unwrap(), &format!("{through}/put/chunked")]);
    assert!(std::fs::read(chain.nginx.file("put/chunked")).unwrap() == bytes, "chunked");

    for path in ["/hello", "/bytes", "/nothing-here"] {
        let head = |base: &str| {
            headers(&Command::new("curl").args(["-sS", "-I", &format!("{base}{path}")]).output().unwrap().stdout)
        };
        assert_eq!(head(&through), head(&direct), "HEAD {path}");
    }
    // The host that the caller asked for is the host that nginx sees, and no baggage of ours.
    assert_eq!(
        curl_text(&["-H", "host: shop.example.com", &format!("{through}/headers")]),
        "baggage=;host=shop.example.com\n"
    );
    let mine = curl_text(&["-H", "baggage: tenant=acme", &format!("{through}/headers")]);
    assert!(mine.starts_with("baggage=tenant=acme;"), "{mine}");
}

/// Headers without what differs from one answer to the next.
fn headers(head: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(head).to_lowercase();
    let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.retain(|line| !line.starts_with("date:") && !line.starts_with("connection:") && !line.is_empty());
    lines.sort();
    lines
}

#[test]
fn wrk_finds_no_error_in_three_seconds() {
    let _turn = alone();
    let chain = Chain::new(ARMED);
    let serving = chain.serve();
    let wrk = wrk(&format!("http://127.0.0.1:{}/hello", chain.front), 3);
    assert!(wrk.requests > 300, "{wrk:?}");
    assert!(wrk.socket_errors.is_none() && wrk.not_good == 0, "{wrk:?}");
    let metrics = chain.telemetry("/metrics").unwrap().body;
    let counted = |listener: &str| {
        let start = format!("pratfall_requests_total{{listener=\"{listener}\",code_class=\"2xx\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("{start}\n{metrics}")).parse::<u64>().unwrap()
    };
    // wrk does not count what was under way when it stopped.
    for listener in ["front", "inventory"] {
        let counted = counted(listener);
        assert!((wrk.requests..=wrk.requests + 8).contains(&counted), "{listener}: {counted} of {wrk:?}");
    }
    assert!(metrics.contains("pratfall_proxy_errors_total{listener=\"front\"} 0"), "{metrics}");
    serving.signal("TERM");
    serving.end(SOON).exits(0);
}

/// A pure proxy carries the context and has no fallback.
const FAILING: &str = "version: 1
experiment: no-fallback
title: Pages answer although inventory fails
hypothesis: If inventory answers 503, then pages answer, because somebody has a fallback.
slice: { at: front, match: { path: /hello }, treatment: 20%, by: request }
inject: { at: inventory, faults: [{ error: { status: 503 } }] }
steady_state: [{ name: pages answer, error_rate: { max_increase: 2pp } }]
phases: { baseline: 2s, inject: 5s, recovery: 2s }
";

#[test]
fn a_run_in_the_traffic_of_others_breaks_its_slice_and_nobody_else() {
    let _turn = alone();
    let chain = Chain::new(ARMED);
    chain.home.write("failing.yaml", FAILING);
    let url = format!("http://127.0.0.1:{}/hello", chain.front);
    let run = chain.home.start(&["run", "failing.yaml", "--seed", "3", "--output", "json"]);
    wait_for("the listener", SOON, || std::net::TcpStream::connect(("127.0.0.1", chain.front)).ok());
    let traffic = std::thread::spawn(move || wrk(&url, 8));
    let done = run.end(Duration::from_secs(60)).exits(3);
    let report = done.reports().pop().unwrap();
    assert_eq!(report["class"], "fallback-absent", "{}", report["findings"]);
    let bound = &report["verdict"]["bounds"][0];
    assert_eq!(bound["ending"], "broken");
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    assert_eq!(number(&bound["treated"]["bad"]), number(&bound["treated"]["of"]), "{bound}");
    assert!(number(&bound["treated"]["of"]) >= 10.0, "{bound}");
    assert_eq!(number(&bound["control"]["bad"]), 0.0, "control stays well: {bound}");
    let phases = report["phases"].as_array().unwrap();
    for phase in phases {
        for arm in phase["arms"].as_array().unwrap() {
            let treated = arm["arm"] == "treatment" && phase["name"] == "inject";
            assert!(treated || number(&arm["bad"][0]["bad"]) == 0.0, "{}: {arm}", phase["name"]);
        }
    }
    let asked = number(&report["fidelity"]["treatment_asked"]);
    assert!((asked - 0.2).abs() < 1e-9, "{}", report["fidelity"]);
    // The ids of these callers are drawn anew each time, and the run ends when it has seen enough, which may be 800
    // requests: five standard errors.
    let inject = phases.iter().find(|phase| phase["name"] == "inject").unwrap();
    let calls: f64 = inject["arms"].as_array().unwrap().iter().map(|arm| number(&arm["units"])).sum();
    let applied = number(&report["fidelity"]["treatment_applied"]);
    assert!((applied - 0.2).abs() < 5.0 * (0.16 / calls).sqrt(), "of {calls}: {}", report["fidelity"]);
    // A proxy passes baggage on; what was between the listeners when the run ended has not arrived.
    let (enrolled, carried) = (&report["fidelity"]["enrolled"], &report["fidelity"]["carried"]);
    for arm in 0..2 {
        let lost = number(&enrolled[arm]) - number(&carried[arm]);
        assert!((0.0..=8.0).contains(&lost), "{}", report["fidelity"]);
    }
    // wrk outlives the run: its last connections are refused, which is the end of the proxy and not its fault.
    let wrk = traffic.join().unwrap();
    assert!(wrk.requests > 100, "{wrk:?}");
    // The seed, the document and the evidence are enough to say the same again.
    chain.home.pratfall(&["report", "--replay"]).exits(0).says("the same");
}

#[test]
fn an_indicator_where_the_fault_is_measured_the_injected_answer_and_is_refused() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let same = FAILING.replace("at: inventory", "at: front");
    chain.home.write("same.yaml", &same);
    chain.home.pratfall(&["check", "same.yaml"]).exits(2).says("failed_operations");
    chain.home.pratfall(&["run", "same.yaml"]).exits(2).says("nothing was started").says("failed_operations");
    assert!(!chain.home.path("pratfall.db").exists(), "nothing was started");
}
