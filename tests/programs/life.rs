//! However a process or a run comes to its end, no fault stays behind.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use tokio::time::Instant;

use crate::chain::{AN_HOUR, ARMED, Chain, users};
use crate::support::{A_RUN, Done, Home, Pratfall, SOON, ask, ask_with, beside_others, free_port, wait_for};

/// Within this, a fault is off after a halt.
const OFF_WITHIN: Duration = Duration::from_millis(100);

/// Starts the hour's delay on a serving proxy, and waits until the fault is on.
fn inject_on(chain: &Chain) -> Pratfall {
    chain.home.write("an-hour.yaml", AN_HOUR);
    let mut run = chain.home.start(&["run", "an-hour.yaml", "--on", &chain.url()]);
    run.until_it_says(": inject");
    run
}

/// Asserts that a treated user meets nothing any more.
#[track_caller]
fn plain(chain: &Chain, user: &str) {
    let began = Instant::now();
    let answer = chain.ask("/headers", user).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("baggage=;"), "nothing of ours goes on: {}", answer.body);
    let head = answer.head.to_lowercase();
    assert!(!head.contains("x-pratfall"), "{head}");
    let again = chain.ask("/hello", user).unwrap();
    assert_eq!((again.status, again.body.as_str()), (200, "hello\n"));
    assert!(began.elapsed() < Duration::from_secs(5), "an hour would have been longer");
}

#[test]
fn killed_while_it_injects_it_comes_back_as_a_plain_proxy_and_the_ledger_says_interrupted() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    chain.home.write("an-hour.yaml", AN_HOUR);
    let _traffic = chain.traffic();
    let mut run = chain.home.start(&["run", "an-hour.yaml"]);
    run.until_it_says(": inject");
    let held = chain.ask_all(users(true, 3));
    run.signal("KILL");
    assert_eq!(run.end(SOON).code, 137);
    held.into_iter().for_each(|thread| assert!(thread.join().unwrap().is_err(), "their connections died with it"));

    let _serving = chain.serve();
    users(true, 3).iter().for_each(|user| plain(&chain, user));
    assert_eq!(chain.status()["runs"].as_array().map(Vec::len), Some(0), "nothing is resumed by itself");
    let row = &chain.home.log()["runs"][0];
    assert_eq!((row["experiment"].as_str(), row["state"].as_str()), (Some("an-hour"), Some("interrupted")), "{row}");
    chain.home.pratfall(&["log"]).exits(0).says("interrupted");
    chain.home.pratfall(&["report", "latest"]).exits(1).says("its process was gone");
    chain.home.pratfall(&["log", "--audit"]).exits(0).says("the chain is whole");
}

#[test]
fn a_halt_by_whatever_way_lets_a_hundred_held_requests_go_and_forbids_runs_until_resume() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let mut serving = chain.serve();
    let _traffic = chain.traffic();
    for way in ["command", "address", "api", "signal"] {
        let run = inject_on(&chain);
        // As many who are not treated: one arm alone would make the run invalid.
        let others = chain.ask_all(users(false, 100));
        let held = chain.ask_all(users(true, 100));
        wait_for("a hundred requests held", SOON, || {
            let live = chain.status()["runs"].as_array().unwrap().last().unwrap()["progress"]["held"].clone();
            (live == 100).then_some(())
        });
        let metrics = chain.telemetry("/metrics").unwrap().body;
        assert!(metrics.contains("pratfall_held_requests 100"), "{metrics}");
        match way {
            "command" => drop(chain.home.pratfall(&["halt"]).exits(0)),
            "address" => drop(chain.home.pratfall(&["halt", "--on", &chain.url()]).exits(0)),
            "api" => assert_eq!(ask(chain.admin, "POST", "/halt", &[]).unwrap().status, 200),
            _ => serving.signal("USR1"),
        }
        let halted = Instant::now();
        wait_for("a tenth of a second", SOON, || (halted.elapsed() > OFF_WITHIN).then_some(()));
        users(true, 110)[100..].iter().for_each(|user| plain(&chain, user));
        for thread in held {
            let answer = thread.join().unwrap().unwrap();
            assert_eq!((answer.status, answer.body.as_str()), (200, "hello\n"), "{way}");
        }
        others.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap().unwrap().status, 200));
        assert!(halted.elapsed() < Duration::from_secs(10), "{way}: they were let go after {:?}", halted.elapsed());
        let halted = run.end(SOON).exits(6);
        assert!(halted.out.contains("HALTED") && halted.out.contains("halted by"), "{way}: {}", halted.out);

        let refused = |done: Done| drop(done.exits(5).says("refused: an-hour: halted by").says("pratfall resume"));
        refused(chain.home.pratfall(&["run", "an-hour.yaml", "--on", &chain.url()]));
        assert!(chain.telemetry("/metrics").unwrap().body.contains("pratfall_halted 1"));
        if way == "signal" {
            // Across restarts, and for every process on the ledger.
            serving.signal("TERM");
            serving.end(SOON).exits(0);
            refused(chain.home.pratfall(&["run", "an-hour.yaml"]));
            serving = chain.serve();
            refused(chain.home.pratfall(&["run", "an-hour.yaml", "--on", &chain.url()]));
            // By the `admin` of the system file, which is where it is usually or named.
            for status in [&["status"][..], &["status", "--config", "pratfall.yaml"]] {
                chain.home.pratfall(status).exits(0).says("halted by SIGUSR1").says(" UTC");
            }
            chain.home.write(
                "without.yaml",
                "version: 1\nsystem: x\nlisteners: { a: { bind: 127.0.0.1:1, upstream: \"http://a\" } }\n",
            );
            chain.home.pratfall(&["status", "--config", "without.yaml"]).exits(2).says("no `admin`");
        }
        let resume: &[&str] = if way == "address" { &["resume", "--on", &chain.url()] } else { &["resume"] };
        chain.home.pratfall(resume).exits(0);
    }
    let run = inject_on(&chain);
    run.signal("INT");
    run.end(SOON).exits(130);
    assert!(serving.lives());
}

#[test]
fn signals_end_a_run_in_good_order() {
    let _turn = beside_others();
    let chain = Chain::new("");
    chain.home.write("an-hour.yaml", AN_HOUR);
    let _traffic = chain.traffic();
    for (signal, code, why) in
        [("INT", 130, "interrupted (SIGINT)"), ("TERM", 143, "terminated (SIGTERM)"), ("USR1", 6, "halted by SIGUSR1")]
    {
        let mut run = chain.home.start(&["run", "an-hour.yaml", "--output", "json"]);
        run.until_it_says(": inject");
        let held = chain.ask_all(users(true, 20));
        // Sockets are accepted in order: whoever comes after them has been answered only when all were taken in.
        wait_for("the held ones to be in", SOON, || chain.ask("/hello", &users(false, 1)[0]).ok());
        run.signal(signal);
        let done = run.end(SOON).exits(code);
        let report = done.reports().pop().unwrap();
        assert_eq!(report["verdict"]["ending"], "halted", "{signal}");
        assert!(report["verdict"]["reason"].as_str().unwrap().contains(why), "{signal}: {}", report["verdict"]);
        let name = format!("reports/{}/report.json", report["run"].as_str().unwrap());
        assert!(chain.home.read(&name).contains(why), "the report is written");
        assert_eq!(chain.home.log()["runs"][0]["ending"], "halted", "and in the ledger");
        let answers = held.into_iter().filter_map(|thread| thread.join().unwrap().ok());
        let whole = answers.filter(|answer| (answer.status, answer.body.as_str()) == (200, "hello\n")).count();
        assert_eq!(whole, 20, "{signal}: all who were held are answered");
        chain.home.pratfall(&["resume"]).exits(0);
    }
}

#[test]
fn a_run_whose_client_is_gone_ends_with_its_lease() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let _serving = chain.serve();
    let _traffic = chain.traffic();
    let run = inject_on(&chain);
    let held = chain.ask_all(users(true, 3));
    run.signal("KILL");
    let killed = Instant::now();
    let over = wait_for("the end of the run", A_RUN, || {
        let run = chain.status()["runs"][0].clone();
        run["ending"].is_string().then_some(run)
    });
    assert!(killed.elapsed() < Duration::from_secs(14), "after {:?}", killed.elapsed());
    assert_eq!(over["ending"], "halted");
    assert!(over["reason"].as_str().unwrap().contains("the lease ran out"), "{over}");
    held.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap().unwrap().status, 200));
    plain(&chain, &users(true, 1)[0]);
    assert_eq!(chain.home.log()["runs"][0]["ending"], "halted");
    inject_on(&chain); // nothing forbids the next
}

#[test]
fn sigterm_finishes_what_is_under_way_and_closes_the_run() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let body: Vec<u8> = (0..48_000_000u32).map(|number| number as u8).collect();
    std::fs::write(chain.nginx.file("large"), &body).unwrap();
    let serving = chain.serve();
    let _traffic = chain.traffic();
    let run = inject_on(&chain);
    let held = chain.ask_all(users(true, 1));
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, chain.front)).unwrap();
    socket.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = vec![0; 16 << 10];
    socket.read_exact(&mut answer).unwrap();

    serving.signal("TERM");
    wait_for("the listener to be closed", SOON, || TcpStream::connect((Ipv4Addr::LOCALHOST, chain.front)).err());
    assert_eq!(held.into_iter().next().unwrap().join().unwrap().unwrap().status, 200, "faults are off first");
    socket.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(answer[head..] == body[..], "{} of {} bytes", answer.len() - head, body.len());
    serving.end(SOON).exits(0);
    drop(run.end(SOON)); // what it says depends on what it saw last
    let row = &chain.home.log()["runs"][0];
    assert_eq!((row["state"].as_str(), row["ending"].as_str()), (Some("closed"), Some("halted")), "{row}");
}

#[test]
fn a_ledger_that_cannot_be_written_disarms_and_the_traffic_flows() {
    let _turn = beside_others();
    let chain = Chain::new(&format!("{ARMED}ledger: blocked/pratfall.db\n"));
    chain.home.write("blocked", "a file, where a folder should be");
    let _serving = chain.serve();
    assert_eq!(chain.ask("/hello", "ada").unwrap().body, "hello\n");
    let verbose = chain.telemetry("/readyz?verbose").unwrap();
    assert_eq!(verbose.status, 200, "{}", verbose.body);
    for line in ["[+]listeners serving", "[-]ledger", "armed for nothing", "[-]ledger: "] {
        assert!(verbose.body.contains(line), "`{line}` is not in\n{}", verbose.body);
    }
    assert!(chain.telemetry("/metrics").unwrap().body.contains("pratfall_armed 0"));
    chain.home.write("an-hour.yaml", AN_HOUR);
    let done = chain.home.pratfall(&["run", "an-hour.yaml", "--on", &chain.url()]);
    assert_ne!(done.code, 0, "nothing is injected without a memory");
    // And `run` does not begin at all.
    chain.home.pratfall(&["run", "an-hour.yaml"]).exits(1).says("blocked");
}

#[test]
fn what_the_limits_forbid_is_refused_and_says_so() {
    let _turn = beside_others();
    for (limits, why) in [
        ("", "not armed: `limits.faults` does not list `latency`"),
        ("limits: { faults: none }\n", "not armed"),
        ("limits: { faults: [error] }\n", "not armed"),
        ("limits: { faults: [latency], max_slice: 10% }\n", "above `limits.max_slice` (10 %)"),
        ("limits: { faults: [latency], max_duration: 1m }\n", "longer than `limits.max_duration` (1 m)"),
    ] {
        let chain = Chain::new(limits);
        chain.home.write("an-hour.yaml", AN_HOUR);
        let _serving = chain.serve();
        let run = chain.home.pratfall(&["run", "an-hour.yaml", "--on", &chain.url()]);
        run.exits(5).says("refused: ").says(why);
        assert_eq!(chain.home.log()["runs"].as_array().map(Vec::len), Some(0), "it never was a run");
        plain(&chain, &users(true, 1)[0]);
    }
}

#[test]
fn changes_over_the_api_need_the_token_and_bring_no_files() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let _serving = chain.serve();
    let post =
        |path: &str, headers: &[(&str, &str)], body: &str| ask_with(chain.admin, "POST", path, headers, body).unwrap();
    assert_eq!(post("/runs", &[], AN_HOUR).status, 401);
    assert_eq!(post("/resume", &[], "").status, 401);
    assert_eq!(post("/runs", &[("authorization", "Bearer guessed")], AN_HOUR).status, 401);
    let token = format!("Bearer {}", chain.home.read("pratfall.db.token").trim());
    let with = [("authorization", token.as_str())];
    let reads_a_file = AN_HOUR.replace("latency: { delay: 1h }", "error: { status: 503, body_file: pratfall.yaml }");
    let answer = post("/runs", &with, &reads_a_file);
    assert!(
        answer.status == 422 && answer.body.contains("<body>:6:") && answer.body.contains("no file"),
        "{}",
        answer.body
    );
    let runs_a_program = format!("{AN_HOUR}traffic: {{ command: [touch, here] }}\n");
    let answer = post("/runs", &with, &runs_a_program);
    assert!(answer.status == 422 && answer.body.contains("no program"), "{}", answer.body);
    assert_eq!(post("/runs", &with, "version: 1\n").status, 422);
    assert_eq!(post("/resume", &with, "").status, 204);
    // A page in a browser on this machine is somebody else, and whatever is refused is refused in JSON.
    assert_eq!(post("/halt", &[("origin", "http://elsewhere.example")], "").status, 401);
    for (host, status) in [("localhost:1", 200), ("[::1]:1", 200), ("127.0.0.1", 200), ("elsewhere.example", 421)] {
        let asked = |headers: &[(&str, &str)]| ask_with(chain.admin, "GET", "/status", headers, "").unwrap().status;
        assert_eq!((asked(&[("host", host)]), asked(&[with[0], ("host", host)])), (status, 200), "{host}");
    }
    for (method, path, status) in [
        ("GET", "/nowhere", 404),
        ("GET", "/halt", 405),
        ("POST", "/runs?seed=x", 400),
        ("POST", "/runs?for=10s", 400),
        ("POST", "/inject?share=1%25", 400),
        ("POST", "/rehearse?for=0s", 422),
    ] {
        let answer = ask_with(chain.admin, method, path, &with, AN_HOUR).unwrap();
        let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert!(answer.status == status && said["error"].is_string(), "{path}: {}", answer.body);
    }
    assert_eq!(chain.status()["runs"].as_array().map(Vec::len), Some(0));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(chain.home.path("pratfall.db.token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else reads the token");
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_else_starts() {
    let _turn = beside_others();
    let chain = Chain::new(ARMED);
    let mut serving = chain.serve();
    let taken = format!("127.0.0.1:{}", chain.front);
    chain.home.pratfall(&["serve"]).exits(1).says("front").says(&taken);
    chain.home.write("an-hour.yaml", AN_HOUR);
    chain.home.pratfall(&["run", "an-hour.yaml"]).exits(5).says("front").says(&taken);
    assert!(serving.lives());
    assert_eq!(chain.ask("/hello", "ada").unwrap().status, 200);
    assert_eq!(chain.home.log()["runs"].as_array().map(Vec::len), Some(0));
    // An upstream that is not there refuses the run, not the traffic of others.
    let home = Home::new();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (front, inventory) = (free_port(), free_port());
    home.write(
        "pratfall.yaml",
        &format!(
            "version: 1\nsystem: alone\nlisteners:\n  front: {{ bind: 127.0.0.1:{front}, upstream: \"{nobody}\" }}\n  \
             inventory: {{ bind: 127.0.0.1:{inventory}, upstream: \"{nobody}\" }}\n"
        ),
    );
    home.write("an-hour.yaml", AN_HOUR);
    home.pratfall(&["run", "an-hour.yaml"]).exits(5).says("cannot be reached");
}

/// How much of the program's code is in memory for a process, and how much there is, in KiB.
fn code_of(serving: &Pratfall) -> (u64, u64) {
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps", serving.pid())).unwrap();
    let of_code = maps.lines().skip_while(|line| !(line.contains(" r-xp ") && line.ends_with("/pratfall")));
    let figure = |name: &str| {
        let line = of_code.clone().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (figure("Rss:"), figure("Size:"))
}

#[test]
fn code_that_only_the_start_and_reloads_need_does_not_stay_in_memory() {
    let _turn = beside_others();
    let chain = Chain::new("");
    let serving = chain.serve();
    assert_eq!(chain.ask("/hello", "ada").unwrap().status, 200);
    let (resident, all) = code_of(&serving);
    // Three fifths in a build for tests, with what the asking brought back; nine tenths where all of it stays.
    assert!(resident < all / 4 * 3, "{resident} KiB of {all} KiB");
    serving.signal("HUP");
    // No page goes by itself.
    wait_for("less than before the reload", SOON, || (code_of(&serving).0 < resident).then_some(()));
    assert_eq!(chain.ask("/hello", "ada").unwrap().status, 200);
}
