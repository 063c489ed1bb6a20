//! A changed system file is taken up while the traffic flows; one with mistakes changes nothing.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::chain::{AN_HOUR, ARMED, Chain, users};
use crate::support::{Answer, SOON, ask, ask_with, beside_others, free_port, hello_on, wait_for};

/// What tells the old system from the new: the host that nginx is told.
const SAYS_NEW: &str = "host: new.example";

/// The same system, with something else behind the front.
fn changed(chain: &Chain, more: &str) -> String {
    let text = chain.system(more);
    let front = format!("front: {{ bind: 127.0.0.1:{}, ", chain.front);
    assert!(text.contains(&front));
    text.replace(&front, &format!("{front}{SAYS_NEW}, "))
}

fn is_new(chain: &Chain) -> bool {
    let answer = chain.ask("/headers", "ada").unwrap();
    assert_eq!(answer.status, 200, "no request is lost");
    answer.body.contains("new.example")
}

fn until_new(chain: &Chain) {
    wait_for("the new system", SOON, || is_new(chain).then_some(()));
}

fn reload(chain: &Chain) -> Answer {
    ask_with(chain.admin, "POST", "/reload", &[("authorization", &chain.token())], "").unwrap()
}

#[test]
fn a_changed_file_is_taken_up_by_itself_by_signal_and_by_the_api() {
    let _turn = beside_others();
    let chain = Chain::new("");
    let serving = chain.serve();
    let mut kept = TcpStream::connect((Ipv4Addr::LOCALHOST, chain.front)).unwrap();
    hello_on(&mut kept).unwrap();
    assert!(!is_new(&chain));
    for way in ["look", "signal", "api"] {
        chain.home.write("pratfall.yaml", &changed(&chain, ""));
        match way {
            "signal" => serving.signal("HUP"),
            "api" => assert_eq!(reload(&chain).status, 200),
            _ => {}
        }
        until_new(&chain);
        chain.home.write("pratfall.yaml", &chain.system(""));
        wait_for("the old system again", SOON, || (!is_new(&chain)).then_some(()));
    }
    hello_on(&mut kept).expect("the connection of the beginning");
    assert_eq!(ask(chain.admin, "POST", "/reload", &[]).unwrap().status, 401, "from this machine too");
    assert!(chain.counts("pratfall_config_last_reload_successful 1"));
    assert!(chain.counts("pratfall_reloads_total{result=\"failure\"} 0"));
}

#[test]
fn a_file_with_mistakes_is_named_and_the_last_good_one_stays() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let mut serving = chain.serve();
    let bad = changed(&chain, ARMED).replace("upstream:", "upstraem:");
    chain.home.write("pratfall.yaml", &bad);
    let refused = reload(&chain);
    assert_eq!(refused.status, 422, "{}", refused.body);
    for words in ["pratfall.yaml:4:", "did you mean `upstream`"] {
        assert!(refused.body.contains(words), "`{words}` is not in {}", refused.body);
        serving.until_it_says(words);
    }
    let verbose = chain.telemetry("/readyz?verbose").unwrap();
    assert!(verbose.status == 200 && verbose.body.contains("pratfall.yaml:4:"), "{}", verbose.body);
    assert!(chain.counts("pratfall_config_last_reload_successful 0") && chain.counts("pratfall_armed 1"));
    assert!(!is_new(&chain), "nothing of it is used");

    // Outside the listeners as well, now that there is a good one; and a port that somebody has.
    chain.home.write("pratfall.yaml", &changed(&chain, "limits: { faults: [latensy] }\n"));
    assert_eq!(reload(&chain).status, 422);
    let taken = changed(&chain, ARMED).replace(&format!(":{},", chain.inventory), &format!(":{},", chain.nginx.port));
    chain.home.write("pratfall.yaml", &taken);
    let refused = reload(&chain);
    assert!(refused.status == 422 && refused.body.contains("inventory"), "{}", refused.body);
    std::fs::remove_file(chain.home.path("pratfall.yaml")).unwrap();
    assert_eq!(reload(&chain).status, 422);
    assert!(!is_new(&chain) && chain.counts("pratfall_armed 1"));

    chain.home.write("pratfall.yaml", &changed(&chain, ARMED));
    until_new(&chain);
    assert!(chain.counts("pratfall_config_last_reload_successful 1"));
    let verbose = chain.telemetry("/readyz?verbose").unwrap().body;
    assert!(!verbose.contains("[-]"), "{verbose}");
}

#[test]
fn what_needs_a_restart_is_said_and_the_rest_is_taken_up() {
    let _turn = beside_others();
    let chain = Chain::new("");
    let _serving = chain.serve();
    chain
        .home
        .write("pratfall.yaml", &changed(&chain, "workers: 2\nledger: other.db\nlimits: { faults: [latency] }\n"));
    let notes = reload(&chain);
    assert_eq!(notes.status, 200, "{}", notes.body);
    for key in ["workers", "ledger"] {
        assert!(notes.body.contains(&format!("`{key}` has changed, which needs a restart")), "{}", notes.body);
    }
    until_new(&chain);
    assert!(chain.counts("pratfall_armed 1"));
}

/// Points a link at something else, as one step.
fn link(target: &str, at: &Path) {
    let beside = at.with_file_name("..data_tmp");
    std::os::unix::fs::symlink(target, &beside).unwrap();
    std::fs::rename(&beside, at).unwrap();
}

#[test]
fn a_mounted_config_map_is_taken_up_when_its_link_is_swapped() {
    let _turn = beside_others();
    let chain = Chain::new("");
    // As Kubernetes lays it out: the file is a link into `..data`, which is a link to a folder of this version.
    let write = |version: &str, text: &str| {
        std::fs::create_dir_all(chain.home.path(&format!("etc/{version}"))).unwrap();
        chain.home.write(&format!("etc/{version}/pratfall.yaml"), text);
        link(version, &chain.home.path("etc/..data"));
    };
    write("..2026_01", &chain.system(""));
    std::os::unix::fs::symlink("..data/pratfall.yaml", chain.home.path("etc/pratfall.yaml")).unwrap();
    let _serving = chain.home.start(&["serve", "--config", "etc/pratfall.yaml"]);
    chain.until_ready();
    assert!(!is_new(&chain));
    write("..2026_02", &changed(&chain, ""));
    std::fs::remove_dir_all(chain.home.path("etc/..2026_01")).unwrap();
    until_new(&chain);
    assert!(chain.counts("pratfall_reloads_total{result=\"success\"} 1"));
}

#[test]
fn a_renewed_certificate_is_shown_to_the_next_caller() {
    let _turn = beside_others();
    let chain = Chain::new("");
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/certificates");
    let put = |name: &str| {
        for (kind, file) in [("key", "front.key"), ("pem", "front.pem")] {
            std::fs::copy(certificates.join(format!("{name}.{kind}")), chain.home.path(file)).unwrap();
        }
    };
    let trusts = |name: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "--cacert"]).arg(certificates.join(format!("{name}.pem")));
        curl.arg(format!("https://localhost:{}/hello", chain.front)).status().unwrap().success()
    };
    put("one");
    let front = format!("front: {{ bind: 127.0.0.1:{}, ", chain.front);
    let text = chain.system("").replace(&front, &format!("{front}tls: {{ cert: front.pem, key: front.key }}, "));
    chain.home.write("pratfall.yaml", &text);
    let _serving = chain.serve();
    assert!(trusts("one") && !trusts("two"));
    put("two");
    wait_for("the new certificate", SOON, || trusts("two").then_some(()));
    assert!(!trusts("one"));
}

#[test]
fn a_run_ends_when_a_reload_takes_the_ground_from_under_it_and_goes_on_otherwise() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let mut serving = chain.serve();
    let _traffic = chain.traffic();
    chain.home.write("an-hour.yaml", AN_HOUR);
    let other = format!("  other: {{ bind: 127.0.0.1:{}, upstream: \"http://127.0.0.1:1\" }}\nadmin:", free_port());
    let tightened = "limits: { faults: [latency, error], max_slice: 10% }\n";
    for (text, why) in [
        (changed(&chain, ARMED), "changed listener `front`"),
        (chain.system(tightened), "above `limits.max_slice` (10 %)"),
        (
            chain.system("limits: { faults: [latency], protect: [{ at: front, path: /x }] }\n"),
            "tightened `limits.protect`",
        ),
        (chain.system("limits: { faults: [error] }\n"), "does not list `latency`"),
    ] {
        let mut run = chain.home.start(&["run", "an-hour.yaml", "--on", &chain.url()]);
        run.until_it_says(": inject");
        // Another listener, and more that is allowed, are nothing to it.
        chain.home.write(
            "pratfall.yaml",
            &chain.system("limits: { faults: [latency, drop, error] }\n").replace("admin:", &other),
        );
        assert_eq!(reload(&chain).status, 200);
        let held = chain.ask_all(users(true, 3));
        wait_for("three held requests", SOON, || chain.counts("pratfall_held_requests 3").then_some(()));
        chain.home.write("pratfall.yaml", &text);
        assert_eq!(reload(&chain).status, 200);
        held.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap().unwrap().status, 200, "{why}"));
        run.end(SOON).exits(6).says("a reload of the system file").says(why);
        chain.home.write("pratfall.yaml", &chain.system(ARMED));
        assert_eq!(reload(&chain).status, 200);
    }
    assert!(serving.lives());
}
