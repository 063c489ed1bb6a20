//! A fault by hand: here and on a serving proxy, what ends it, and what it leaves behind.

use crate::chain::{ARMED, Chain};
use crate::support::{A_RUN, SOON, beside_others, wait_for};

/// The experiment that it offers, after everything else.
fn offered(out: &str) -> String {
    let begin = out.find("version: 1\n").unwrap_or_else(|| panic!("nothing is offered:\n{out}"));
    out[begin..].to_owned()
}

#[test]
fn a_fault_by_hand_is_here_for_its_time_and_offers_the_experiment_that_would_make_it_one() {
    let _turn = beside_others();
    let chain = Chain::new("");
    chain.home.write("busy.txt", "come back later\n");
    let fault = "error: { status: 503, body_file: busy.txt }";
    let mut injecting = chain.home.start(&[
        "inject",
        fault,
        "--at",
        "inventory",
        "--share",
        "100%",
        "--for",
        "4s",
        "--match",
        "{ path: /hello }",
    ]);
    injecting.until_it_says("by hand: answers 503 at inventory");
    let answer =
        wait_for("a faulted answer", SOON, || chain.ask("/hello", "ada").ok().filter(|answer| answer.status == 503));
    assert!(answer.head.to_lowercase().contains("fault=error"), "{}", answer.head);
    assert_eq!(answer.body, "come back later\n");
    let other = chain.ask("/headers", "ada").unwrap();
    assert!(other.status == 200 && other.body.contains("baggage=;"), "nothing travels: {}", other.body);
    let done = injecting.end(A_RUN).exits(0).says("as planned").says("faulted      1 call");
    chain.home.write("offer.yaml", &offered(&done.out));
    chain.home.pratfall(&["check", "offer.yaml", "--config", "pratfall.yaml"]).exits(0).says("ok, the experiment");

    let log = chain.home.log();
    assert_eq!((&log["runs"][0]["by_hand"], &log["runs"][0]["ending"]), (&true.into(), &serde_json::Value::Null));
    assert_eq!(log["failures"].as_array().map(Vec::len), Some(0), "{log}");
    chain.home.pratfall(&["log"]).exits(0).says("explored").says("it ran to its end");

    let inject = |arguments: &[&str]| chain.home.pratfall(&[&["inject"], arguments].concat());
    let bad = inject(&["latency: { delay: 4, jiter: 1ms }", "--at", "inventory", "--match", "{ pth: /a }"]).exits(2);
    for said in ["fault:1:19", "did you mean `jitter`?", "did you mean `path`?", "^^^", "nothing was started"] {
        assert!(bad.err.contains(said), "`{said}` is not in\n{}", bad.err);
    }
    inject(&[fault, "--at", "inventry"]).exits(2).says("did you mean `inventory`?");
    inject(&[fault]).exits(2).says("--at");
    inject(&["latency: { histogram: none.csv }", "--at", "inventory"]).exits(2).says("`none.csv` is not there");
    let elsewhere = [fault, "--at", "inventory", "--on", "http://127.0.0.1:1"];
    inject(&elsewhere).exits(2).says("`body_file`: no file goes");
}

#[test]
fn on_a_serving_proxy_it_lives_as_long_as_it_is_asked_for_within_the_limits() {
    let _turn = beside_others();
    let chain = Chain::new(&format!("{}\n", ARMED.trim_end().replace(" }", ", max_slice: 50% }")));
    let _serving = chain.serve();
    let url = chain.url();
    let arguments = |more: &[&'static str]| {
        let usual = ["inject", "latency: { delay: 1h }", "--at", "inventory", "--for", "10m", "--share", "50%"];
        let mut all: Vec<String> = usual.iter().chain(more).map(|word| (*word).to_owned()).collect();
        all.extend(["--on".to_owned(), url.clone()]);
        all
    };
    let start = |more: &[&'static str]| {
        let all = arguments(more);
        chain.home.start(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let is_on = || wait_for("the fault", SOON, || chain.counts("pratfall_active_faults 1").then_some(()));

    let injecting = start(&[]);
    is_on();
    start(&[]).end(A_RUN).exits(5).says("one at a time");
    let waiting = chain.ask_all((0..20).map(|number| format!("user-{number}")).collect());
    wait_for("held requests", SOON, || {
        let metrics = chain.telemetry("/metrics").ok()?.body;
        let held =
            metrics.lines().find_map(|line| line.strip_prefix("pratfall_held_requests "))?.parse::<u64>().ok()?;
        (held > 0).then_some(())
    });
    chain.home.pratfall(&["halt", "--on", &url]).exits(0);
    for thread in waiting {
        assert_eq!(thread.join().unwrap().unwrap().status, 200, "whoever was held is let go");
    }
    injecting.end(A_RUN).exits(6).says("halted by");
    start(&[]).end(A_RUN).exits(5).says("pratfall resume");
    chain.home.pratfall(&["resume", "--on", &url]).exits(0);

    let interrupted = start(&[]);
    is_on();
    interrupted.signal("INT");
    interrupted.end(A_RUN).exits(130).says("version: 1");
    assert!(chain.counts("pratfall_active_faults 0"));

    start(&["--share", "60%"]).end(A_RUN).exits(2);
    let more = ["inject", "latency: { delay: 1s }", "--at", "inventory", "--share", "60%", "--on", &url];
    chain.home.pratfall(&more).exits(5).says("max_slice");
    let unarmed = ["inject", "throttle: { rate: 1KiB/s }", "--at", "inventory", "--on", &url];
    let refused = chain.home.pratfall(&unarmed);
    assert!([2, 5].contains(&refused.code), "{}", refused.err);
    let few =
        ["inject", "error: { status: 500 }", "--at", "inventory", "--share", "50%", "--budget", "3", "--on", &url];
    let few = chain.home.start(&few);
    is_on();
    wait_for("the budget to be spent", SOON, || {
        let _ = chain.ask("/hello", "ada"); // some of them are faulted
        chain.counts("pratfall_active_faults 0").then_some(())
    });
    few.end(A_RUN).exits(6).says("the budget is spent: 3 calls met the fault");
}
