//! What the command line promises: exit codes, formats, and help that teaches.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::chain::{ARMED, Chain};
use crate::support::{A_RUN, Home, SOON, Service, alone, beside_others, free_port, wait_for};

/// An experiment on a chain without any fallback, with load of its own, as short as it can be.
fn experiment(name: &str, inject: &str, more: &str) -> String {
    let usual = if more.contains("phases:") { "" } else { "phases: { baseline: 1s, inject: 3s, recovery: 1s }\n" };
    format!(
        "version: 1
experiment: {name}
title: Pages and {name}
hypothesis: If inventory misbehaves, then pages answer, because somebody copes.
slice: {{ at: front, match: {{ path: /hello }} }}
inject: {{ at: inventory, {inject} }}
steady_state: [{{ name: pages answer, error_rate: {{ max_increase: 5pp }} }}]
traffic: {{ rate: 150/s, requests: [{{ path: /hello }}] }}
seed: 5
{usual}{more}"
    )
}

/// A chain with an experiment for every ending, each in a file of its name.
fn every_ending() -> Chain {
    let chain = Chain::new(ARMED);
    let late = "faults: [{ latency: { delay: 5ms } }]";
    let failing = "faults: [{ error: { status: 503 } }]";
    let write = |name: &str, inject: &str, more: &str| {
        chain.home.write(&format!("{name}.yaml"), &experiment(name, inject, more));
    };
    write("held", late, "");
    write("broken", failing, "");
    write("inconclusive", late, "phases: { baseline: 1s, inject: 1s, recovery: 1s }\n");
    // So little time is not enough for one point in a hundred.
    chain.home.write("inconclusive.yaml", &chain.home.read("inconclusive.yaml").replace("5pp", "1pp"));
    write("invalid", "match: { path: /never/** }, faults: [{ error: { status: 503 } }]", "");
    // Two treated units are harmed, and that is enough: too little evidence to call it broken.
    write("halted", "share: 5%, faults: [{ error: { status: 503 } }]", "halt_when: [{ harmed: { max: 2 } }]\n");
    chain.home.write("bad.yaml", "version: 1\nexperiment: bad\nhypothesys: typed in haste\n");
    chain
}

#[test]
fn a_run_exits_with_what_came_of_it() {
    let _turn = beside_others();
    let chain = every_ending();
    let run = |arguments: &[&str]| chain.home.pratfall(&[&["run", "--underpowered"], arguments].concat());

    // Files are read before anything starts: one that is bad is the end of all.
    let bad = run(&["held.yaml", "bad.yaml"]).exits(2).says("nothing was started").says("bad.yaml:3:1");
    assert!(bad.err.contains("did you mean `hypothesis`"), "{}", bad.err);
    assert!(!chain.home.path("pratfall.db").exists() && !chain.home.path("reports").exists());
    run(&["missing.yaml"]).exits(2).says("missing.yaml");
    chain.home.pratfall(&["run"]).exits(2).says("Usage");
    chain.home.pratfall(&["run", "held.yaml", "--config", "missing.yaml"]).exits(2).says("missing.yaml");

    run(&["halted.yaml"]).exits(6).says("HALTED").says("the failure budget is spent");
    run(&["inconclusive.yaml"]).exits(4).says("INCONCLUSIVE").says("more treated requests");
    run(&["invalid.yaml"]).exits(5).says("INVALID").says("none matched what is to be faulted");
    run(&["held.yaml", "inconclusive.yaml"]).exits(4).says("1/2").says("2/2");
    run(&["inconclusive.yaml", "invalid.yaml", "held.yaml"]).exits(5);

    // All five at once: broken speaks for them. Reports go to stdout, one a line; JUnit to its file.
    let all = ["broken.yaml", "halted.yaml", "invalid.yaml", "inconclusive.yaml", "held.yaml"];
    let options = ["--output", "json", "--junit", "junit.xml"];
    let done = run(&[&all[..], &options[..]].concat()).exits(3);
    let reports = done.reports();
    let endings: Vec<&str> = reports.iter().map(|report| report["verdict"]["ending"].as_str().unwrap()).collect();
    assert_eq!(endings, ["broken", "halted", "invalid", "inconclusive", "held"]);
    let junit = chain.home.read("junit.xml");
    assert_eq!(junit.matches("<testsuite ").count(), 5, "{junit}");
    for part in ["<failure", "type=\"broken\"", "<error", "type=\"halted\"", "type=\"invalid\"", "<skipped"] {
        assert!(junit.contains(part), "`{part}` is not in {junit}");
    }

    // Each of them can be judged again from what was stored, by its id and from its file.
    for report in &reports {
        let id = report["run"].as_str().unwrap();
        let ending = report["verdict"]["ending"].as_str().unwrap();
        let words = format!("{ending} then");
        chain.home.pratfall(&["report", id, "--replay"]).exits(0).says("the same").says(&words);
        let file = format!("reports/{id}/report.json");
        chain.home.pratfall(&["report", &file, "--replay"]).exits(0).says("the same");
        for name in ["report.md", "report.html"] {
            assert!(chain.home.path(&format!("reports/{id}/{name}")).exists(), "{name}");
        }
    }
    // Evidence that was tampered with does not give the same verdict.
    let id = reports[0]["run"].as_str().unwrap();
    let mut tampered: Value = serde_json::from_str(&chain.home.read(&format!("reports/{id}/report.json"))).unwrap();
    tampered["verdict"]["ending"] = "held".into();
    chain.home.write("tampered.json", &tampered.to_string());
    chain.home.pratfall(&["report", "tampered.json", "--replay"]).exits(1).says("NOT the same");

    shown(&chain.home, &reports);
}

/// The same runs through `report` and `log`.
fn shown(home: &Home, reports: &[Value]) {
    let last = reports.last().unwrap()["run"].as_str().unwrap();
    let markdown = home.pratfall(&["report", "latest"]).exits(0);
    assert!(markdown.out.starts_with("# ") && markdown.out.contains(last), "{}", markdown.out);
    assert_eq!(home.pratfall(&["report"]).exits(0).out, markdown.out);
    let html = home.pratfall(&["report", last, "--format", "html"]).exits(0).out;
    assert!(html.starts_with("<!doctype html>") || html.starts_with("<!DOCTYPE html>"), "{}", &html[..80]);
    let json: Value = serde_json::from_str(&home.pratfall(&["report", last, "--format", "json"]).exits(0).out).unwrap();
    assert_eq!(json["run"], last);
    assert!(home.pratfall(&["report", last, "--format", "junit"]).exits(0).out.contains("<testsuite "));
    home.pratfall(&["report", "no-such-run"]).exits(1).says("no-such-run");

    let log = home.log();
    let runs = log["runs"].as_array().unwrap();
    assert_eq!(runs[0]["id"], last, "the newest first");
    assert_eq!(log["failures"].as_array().map(Vec::len), Some(1), "{log}");
    let failure = log["failures"][0]["id"].as_str().unwrap();
    home.pratfall(&["log"]).exits(0).says("broken").says(failure).says("failures");
    assert_eq!(
        home.pratfall(&["log", "--last", "1"]).exits(0).out.lines().next().unwrap().split(' ').next(),
        Some(last)
    );
    let found = home.pratfall(&["log", "budget", "spent"]).exits(0).out;
    assert!(found.lines().count() >= 1 && found.lines().all(|line| line.contains("halted")), "{found}");
    home.pratfall(&["log", "zebra"]).exits(0).says("nothing");
    home.pratfall(&["log", "--failures"]).exits(0).says(failure);
    home.pratfall(&["log", "--audit"]).exits(0).says("the chain is whole");
}

#[test]
fn fail_on_turns_other_endings_into_warnings() {
    let _turn = beside_others();
    let chain = every_ending();
    let run = |arguments: &[&str]| chain.home.pratfall(&[&["run", "--underpowered"], arguments].concat());
    run(&["inconclusive.yaml", "--fail-on", "broken,invalid"]).exits(0).says("warning: inconclusive is inconclusive");
    run(&["broken.yaml", "--fail-on", "invalid"]).exits(0).says("warning: broken is broken");
    run(&["broken.yaml", "--fail-on", "broken"]).exits(3);
    run(&["held.yaml", "--fail-on", "brokn"]).exits(2).says("`brokn` is no ending");
    // The same on a serving proxy, with a JUnit report and the same words.
    let _serving = chain.serve();
    let url = chain.url();
    let on = |arguments: &[&str]| run(&[arguments, &["--on", &url]].concat());
    on(&["inconclusive.yaml", "--fail-on", "broken"]).exits(0).says("warning: inconclusive is inconclusive");
    let done = on(&["broken.yaml", "held.yaml", "--junit", "on.xml", "--output", "json"]).exits(3);
    let endings: Vec<Value> = done.reports().iter().map(|report| report["verdict"]["ending"].clone()).collect();
    assert_eq!(endings, ["broken", "held"]);
    assert_eq!(chain.home.read("on.xml").matches("<testsuite ").count(), 2);
}

#[test]
fn a_failure_is_closed_by_the_follow_up_that_holds_after_the_fix() {
    let _turn = alone();
    let home = Home::new();
    let (front, inventory, shop) = (free_port(), free_port(), free_port());
    let dependency = Service::dependency();
    home.write(
        "pratfall.yaml",
        &format!(
            "version: 1\nsystem: shop\nlisteners:\n  front: {{ bind: 127.0.0.1:{front}, upstream: \"http://127.0.0.1:{shop}\" }}\n  \
             inventory: {{ bind: 127.0.0.1:{inventory}, upstream: \"http://127.0.0.1:{}\" }}\n",
            dependency.port
        ),
    );
    let document = experiment("failing", "faults: [{ error: { status: 503 } }]", "");
    let document = document.replace("/hello", "/checkout/7").replace("rate: 150/s", "rate: 80/s");
    home.write("failing.yaml", &document.replace("inject: 3s", "inject: 6s"));
    let state = || home.log()["failures"][0].clone();

    let weak = Service::shop("nothing", inventory, shop, true);
    let broken = home.pratfall(&["run", "failing.yaml", "--output", "json"]).exits(3);
    let failure = broken.reports()[0]["failure"].as_str().unwrap().to_owned();
    assert_eq!((state()["id"].as_str(), state()["state"].as_str()), (Some(&*failure), Some("failed")));
    // The weakness is still there: the follow-up finds it again, and it is the same failure.
    home.pratfall(&["run", &failure]).exits(3).says(&failure);
    let again = home.log();
    assert_eq!(again["failures"].as_array().map(Vec::len), Some(1), "{again}");
    assert_eq!((again["failures"][0]["occurrences"].as_u64(), state()["state"].as_str()), (Some(2), Some("testing")));
    drop(weak);

    let _mended = Service::shop("fallback", inventory, shop, true);
    home.pratfall(&["run", &failure]).exits(0).says("HELD");
    assert_eq!(state()["state"], "iterated", "{}", state());
    assert!(state()["closed_by"].is_string());
    home.pratfall(&["log"]).exits(0).says("iterated");
    // As a file it is the same follow-up.
    let run = broken.reports()[0]["run"].as_str().unwrap().to_owned();
    let file = format!("reports/{run}/follow-up.yaml");
    assert!(home.read(&file).starts_with(&format!("# follow-up of {failure}\n")));
    home.pratfall(&["check", &file]).exits(0);
    home.pratfall(&["run", "F-none"]).exits(1).says("F-none");
}

#[test]
fn check_says_of_every_document_whether_it_is_good() {
    let _turn = beside_others();
    let home = Home::new();
    let project = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let valid = [documents(&project("tests/documents/valid")), documents(&project("experiments"))].concat();
    let invalid = documents(&project("tests/documents/invalid"));
    assert!(valid.len() > 15 && invalid.len() > 40);
    for file in valid {
        let done = home.pratfall(&["check", file.to_str().unwrap(), "--set", "PORT=8080"]).exits(0);
        assert!(done.out.contains(": ok, the "), "{}", done.out);
    }
    for file in &invalid {
        // With a variable that the documents' own test sets too.
        let name = file.to_str().unwrap();
        let done = home.pratfall(&["check", name, "--set", "PORT=8080"]);
        let expected = std::fs::read_to_string(file.with_extension("txt")).unwrap();
        let is_error = expected.contains("error");
        assert_eq!(done.code, if is_error { 2 } else { 0 }, "{name}:\n{}{}", done.out, done.err);
        assert!(done.err.contains(name), "the place is named: {}", done.err);
    }
    let all: Vec<&str> = invalid.iter().map(|file| file.to_str().unwrap()).collect();
    let json = home.pratfall(&[&["check", "--output", "json"], &all[..]].concat()).exits(2).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().map(Vec::len), Some(all.len()), "every file is told of");
    std::fs::write(home.path("latin.yaml"), b"version: 1\nname: caf\xe9\n").unwrap();
    let good = project("tests/documents/valid/shortest.yaml");
    let both = ["check", "latin.yaml", "missing.yaml", good.to_str().unwrap()];
    let done = home.pratfall(&both).exits(2).says("latin.yaml: line 2, column 10").says("missing.yaml: ");
    assert!(done.out.contains("ok, the experiment inventory-fails"), "the others are looked at: {}", done.out);
    let json = home.pratfall(&[&both[..], &["--output", "json"]].concat()).exits(2).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json.as_array().map(Vec::len), &json[1]["problems"][0]["severity"]), (Some(3), &"error".into()));
}

fn documents(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|file| file.extension().is_some_and(|kind| kind == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn check_explains_who_would_be_hit_and_one_request() {
    let _turn = beside_others();
    let chain = Chain::new(&format!("{ARMED}\n"));
    chain.home.write(
        "slow.yaml",
        &experiment("slow", "faults: [{ latency: { delay: 1s } }]", "").replace("traffic:", "# traffic:"),
    );
    let check = |arguments: &[&str]| chain.home.pratfall(&[&["check", "slow.yaml"], arguments].concat());
    assert!(!check(&[]).exits(0).out.contains("listeners"), "without a system nothing is known of it");
    let system = check(&["--config", "pratfall.yaml"]).exits(0);
    let system = system.says("5 % of everybody's requests at front: path /hello").says("latency of 1 s");
    system.says("the fault waits").says(&format!("127.0.0.1:{}", chain.inventory)).says("`serve` is armed for latency");

    let ask = |request: &str, more: &[&str]| check(&[&["--request", request], more].concat());
    ask("GET /other", &[]).exits(0).says("does not match: the path /other is not /hello");
    ask("GET /hello", &["-H", "x-request-id: a", "--seed", "3"]).exits(0).says("under seed 3").says("arm ");
    ask("GET /hello", &[]).exits(0).says("drawn anew for each request");
    ask("GET hello", &[]).exits(2).says("'GET /checkout/7'");
    ask("GET /hello", &["-H", "nothing"]).exits(2).says("name: value");
    check(&["--seed", "3"]).exits(2).says("--request");
    let json = ask("GET /hello", &["--config", "pratfall.yaml", "--output", "json"]).exits(0).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["request"][0]["label"], "request");
    assert!(json[0]["explained"].as_array().is_some_and(|lines| lines.len() > 6), "{json}");
}

#[test]
fn the_help_of_every_verb_teaches() {
    let _turn = beside_others();
    let home = Home::new();
    let first = home.pratfall(&["--help"]).exits(0).out;
    let verbs = [
        "demo",
        "check",
        "rehearse",
        "run",
        "serve",
        "status",
        "halt",
        "resume",
        "inject",
        "report",
        "log",
        "schema",
        "completions",
        "man",
    ];
    for verb in verbs {
        assert!(first.lines().any(|line| line.trim_start().starts_with(verb)), "{verb} is not in\n{first}");
        let help = home.pratfall(&[verb, "--help"]).exits(0).out;
        assert!(help.contains(&format!("Usage: pratfall {verb}")), "{help}");
        // What every verb takes stands after what is the verb's own, and not at all in the short help.
        let (own, everywhere) = help.split_once("\nWith every verb:\n").unwrap();
        assert!(everywhere.contains("--log ") && !own.contains("--log "), "{help}");
        assert!(!home.pratfall(&[verb, "-h"]).exits(0).out.contains("--log "));
        // Every option and argument says what it is for.
        let lines: Vec<&str> = help.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let option = line.trim_start();
            if line.starts_with("  ")
                && (option.starts_with("--") || option.starts_with('<') || option.starts_with("-h,"))
            {
                let same_line = option.split("  ").count() > 1;
                let next =
                    lines.get(index + 1).is_some_and(|next| next.starts_with("      ") && !next.trim().is_empty());
                assert!(same_line || next, "`{option}` of {verb} is not explained:\n{help}");
            }
        }
    }
    for verb in
        ["demo", "check", "rehearse", "run", "serve", "status", "halt", "resume", "inject", "report", "log", "schema"]
    {
        let help = home.pratfall(&[verb, "--help"]).exits(0).out;
        assert!(help.contains(&format!("  pratfall {verb}")), "an example of {verb} is not in\n{help}");
    }
    home.pratfall(&[]).exits(2).says("Usage: pratfall");
    home.pratfall(&["serv"]).exits(2).says("'serve'");
    assert!(home.pratfall(&["--version"]).exits(0).out.starts_with("pratfall "));
}

#[test]
fn schema_completions_and_man_print_what_they_say() {
    let _turn = beside_others();
    let home = Home::new();
    let all: Value = serde_json::from_str(&home.pratfall(&["schema"]).exits(0).out).unwrap();
    for kind in ["experiment", "system", "game_day"] {
        let one: Value = serde_json::from_str(&home.pratfall(&["schema", kind]).exits(0).out).unwrap();
        assert_eq!(one, all[kind]);
        assert!(one["$schema"].is_string());
    }
    home.pratfall(&["schema", "sistem"]).exits(2).says("write experiment, system or game_day");
    assert!(home.pratfall(&["completions", "bash"]).exits(0).out.contains("complete -F _pratfall"));
    assert!(home.pratfall(&["completions", "zsh"]).exits(0).out.starts_with("#compdef pratfall"));
    assert!(home.pratfall(&["man"]).exits(0).out.contains(".TH pratfall"));
    for verb in [&["log"][..], &["report"], &["report", "--replay"]] {
        let missing = home.pratfall(&[verb, &["--ledger", "new.db"]].concat()).exits(1);
        missing.says("there is no ledger at new.db (as --ledger says)");
        home.pratfall(verb)
            .exits(1)
            .says("there is no ledger at pratfall.db (its usual place; there is no pratfall.yaml");
    }
    assert!(!home.path("new.db").exists() && !home.path("pratfall.db").exists(), "reading makes nothing");
    home.pratfall(&["status", "--on", &format!("http://127.0.0.1:{}", free_port())]).exits(1).says("cannot be reached");
    home.pratfall(&["status", "--on", "localhost"]).exits(2).says("is no admin address");
}

#[test]
fn the_demo_is_as_planned_and_leaves_its_reports() {
    let _turn = alone();
    let home = Home::new();
    let began = Instant::now();
    let done = home.start(&["demo", "--reports", "out"]).end(2 * A_RUN).exits(0);
    let quiet = !done.err.contains("once more");
    assert!(began.elapsed() < Duration::from_secs(90) || !quiet, "{:?}", began.elapsed());
    for words in ["HELD", "BROKEN", "no timeout", "pratfall log --ledger out/demo.db"] {
        assert!(done.out.contains(words), "`{words}` is not in\n{}", done.out);
    }
    let entries = std::fs::read_dir(home.path("out")).unwrap().map(|entry| entry.unwrap().path().join("report.json"));
    let reports: Vec<PathBuf> = entries.filter(|report| report.exists()).collect();
    // More than one a lesson only where a busy machine made it try again.
    assert!(reports.len() >= 2 && reports.len() - 2 == done.err.matches("once more").count(), "{reports:?}");
    for report in reports {
        for name in ["report.md", "report.html"] {
            let text = std::fs::read_to_string(report.with_file_name(name)).unwrap();
            assert!(text.len() > 1000, "{name}");
        }
    }
    home.pratfall(&["log", "--ledger", "out/demo.db"]).exits(0).says("broken").says("held");
    // What it says to type next closes the loop, typed as it stands.
    let next = done.out.lines().find_map(|line| line.split_once(", then: ")).unwrap().1;
    assert!(next.ends_with("pratfall demo --fixed --reports out"), "{next}");
    let mended = home.start(&next.split(' ').skip(1).collect::<Vec<_>>()).end(2 * A_RUN).exits(0);
    assert!(mended.out.contains("HELD") && mended.out.contains("is closed: its follow-up held"), "{}", mended.out);
    home.pratfall(&["log", "--ledger", "out/demo.db"]).exits(0).says("iterated");
    // So does what its report says, rendered again from the ledger.
    let written = done.out.lines().rfind(|line| line.ends_with("report.html")).unwrap();
    let run = written.split_once("out/").unwrap().1.split('/').next().unwrap();
    let report = home.pratfall(&["report", run, "--ledger", "out/demo.db"]).exits(0).out;
    assert!(report.contains("\npratfall demo --fixed --reports out\n"), "{report}");
    let replay = report.lines().find(|line| line.contains(" --replay")).unwrap();
    home.pratfall(&replay.split(' ').skip(1).collect::<Vec<_>>()).exits(0).says("the same");
}

#[test]
fn metrics_are_prometheus_text_while_a_run_is_live_and_before() {
    let _turn = beside_others();
    let chain = every_ending();
    let _serving = chain.serve();
    sound(&chain.telemetry("/metrics").unwrap().body);
    let run = chain.home.start(&["run", "held.yaml", "--on", &chain.url()]);
    let live = wait_for("faults to be counted", SOON, || {
        let text = chain.telemetry("/metrics").unwrap().body;
        let counted = text.lines().find_map(|line| {
            let labels = line.strip_prefix("pratfall_faults_injected_total{listener=\"")?;
            labels.split_once("experiment=\"held\",fault=\"").map(|(_, rest)| rest.split(' ').nth(1).unwrap_or("0"))
        });
        counted.is_some_and(|count| count != "0").then_some(text)
    });
    sound(&live);
    for line in ["pratfall_experiment_active{experiment=\"held\"} 1", "pratfall_armed 1", "pratfall_halted 0"] {
        assert!(live.contains(line), "`{line}` is not in\n{live}");
    }
    run.end(A_RUN).exits(0);
    let after = chain.telemetry("/metrics").unwrap().body;
    assert!(after.contains("pratfall_active_faults 0") && after.contains("pratfall_held_requests 0"), "{after}");
    assert_eq!(chain.telemetry("/livez").unwrap().body, "ok\n");
}

/// Asks promtool where it is installed; looks by hand everywhere.
#[track_caller]
fn sound(text: &str) {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for sample in samples {
        let name = sample.split(['{', ' ']).next().unwrap();
        assert!(name.starts_with("pratfall_"), "{sample}");
        for kind in ["HELP", "TYPE"] {
            assert!(text.contains(&format!("# {kind} {name} ")), "{name} has no {kind}:\n{text}");
        }
        assert!(sample.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{sample}");
    }
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else { return };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = promtool.wait_with_output().unwrap();
    assert!(done.status.success(), "promtool: {}", String::from_utf8_lossy(&done.stderr));
}
