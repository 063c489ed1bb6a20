//! The whole loop against a stock service from npm, in variants whose truth is known: every verdict must be the true
//! one, for the true reason.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpStream};

use serde_json::Value;

use crate::support::{A_RUN, Home, SOON, Service, alone, free_port, wait_for, warm};

/// What the dependency does to treated calls, as it is written.
const SLOW: (&str, &str) = ("slow", "latency: { delay: 1s }");
const FAILING: (&str, &str) = ("failing", "error: { status: 503 }");
const RESETTING: (&str, &str) = ("resetting", "drop: { how: reset }");

const ORDERS_SUCCEED: &str = "orders succeed";
const ORDERS_ARE_QUICK: &str = "orders are quick";

/// One experiment, and what is true.
struct Cell {
    fault: (&'static str, &'static str),
    /// How many attempts of an operation meet the fault; all, where nothing is said.
    attempts: Option<u32>,
    truth: Truth,
}

enum Truth {
    /// The service copes, and this shows how.
    Held { findings: &'static [&'static str] },
    /// These indicators are broken, and no others, for these reasons.
    Broken { by: &'static [&'static str], findings: &'static [&'static str], class: &'static str },
    /// The run cannot say anything, and says why.
    Invalid { because: &'static str },
}

/// A service, and what is asked of it one after the other.
struct Lane {
    variant: &'static str,
    carries: bool,
    cells: Vec<Cell>,
}

fn cell(fault: (&'static str, &'static str), attempts: Option<u32>, truth: Truth) -> Cell {
    Cell { fault, attempts, truth }
}

fn lanes() -> Vec<Lane> {
    let held = |findings| Truth::Held { findings };
    let broken = |by, findings, class| Truth::Broken { by, findings, class };
    let both: &[&str] = &[ORDERS_SUCCEED, ORDERS_ARE_QUICK];
    let lost = "context was not carried";
    vec![
        Lane {
            variant: "nothing",
            carries: true,
            cells: vec![
                // Slowness passes through; nothing fails.
                cell(SLOW, None, broken(&[ORDERS_ARE_QUICK], &["no_timeout"], "timeout-missing")),
                cell(FAILING, None, broken(&[ORDERS_SUCCEED], &["no_fallback"], "fallback-absent")),
                cell(RESETTING, None, broken(&[ORDERS_SUCCEED], &["no_fallback"], "fallback-absent")),
            ],
        },
        Lane {
            variant: "fallback",
            carries: true,
            cells: vec![
                // 300 ms and then an answer without the stock: within the 800 ms.
                cell(SLOW, None, held(&["timeout_worked", "fallback_worked"])),
                cell(FAILING, None, held(&["fallback_worked"])),
                cell(RESETTING, None, held(&["fallback_worked"])),
            ],
        },
        Lane {
            variant: "retry",
            carries: true,
            cells: vec![
                // Three times 300 ms, and then an error: slow, and failed.
                cell(SLOW, None, broken(both, &["timeout_worked", "no_fallback", "retry_storm"], "retry-storm")),
                cell(FAILING, None, broken(&[ORDERS_SUCCEED], &["no_fallback", "retry_storm"], "retry-storm")),
                cell(RESETTING, None, broken(&[ORDERS_SUCCEED], &["no_fallback", "retry_storm"], "retry-storm")),
                // The second attempt goes through: 300 ms at the most are lost.
                cell(SLOW, Some(1), held(&["timeout_worked", "retry_worked", "retries"])),
                cell(FAILING, Some(1), held(&["retry_worked", "retries"])),
                cell(RESETTING, Some(1), held(&["retry_worked", "retries"])),
            ],
        },
        Lane {
            variant: "nothing",
            carries: false,
            cells: [SLOW, FAILING, RESETTING].map(|fault| cell(fault, None, Truth::Invalid { because: lost })).into(),
        },
    ]
}

#[test]
fn every_verdict_on_a_stock_service_is_the_true_one() {
    let times = if std::env::var_os("PRATFALL_LONG").is_some() { 3 } else { 1 };
    for time in 0..times {
        let _alone = alone();
        let mut wrong = String::new();
        let [nothing, fallback, retry, lost] = lanes().try_into().ok().unwrap();
        // Two at a time: the instrumentation needs several milliseconds a request, and a machine may have two cores.
        let seed = 7 + 1000 * time;
        std::thread::scope(|scope| {
            let lanes = [vec![retry, nothing], vec![fallback, lost]];
            let lanes = lanes.map(|lanes| scope.spawn(move || lanes.iter().map(|lane| drive(lane, seed)).collect()));
            for lane in lanes {
                let told: String = lane.join().unwrap();
                wrong += &told;
            }
        });
        assert!(wrong.is_empty(), "not the truth:\n{wrong}");
    }
}

/// How often a cell is asked where something else kept the machine busy.
const TIMES: u32 = 3;

/// Whether something else kept the machine busy: then those who met no fault were slow too, and the run can say nothing
/// but that. On a quiet machine they take a few milliseconds. What is merely wrong is never asked again.
fn is_disturbed(report: &Value) -> bool {
    let phases = report["phases"].as_array().into_iter().flatten();
    let arms = phases.filter_map(|phase| phase["arms"].as_array()).flatten();
    let mut control = arms.filter(|arm| arm["arm"] == "control");
    control.any(|arm| arm["quantiles"][3].as_f64().is_some_and(|p99| p99 > 250.0))
}

/// Asks one service everything, and tells what was not true.
fn drive(lane: &Lane, seed: u64) -> String {
    let home = Home::new();
    let (front, inventory) = (free_port(), free_port());
    let dependency = Service::dependency();
    let shop = Service::shop(lane.variant, inventory, 0, lane.carries);
    home.write("pratfall.yaml", &system(front, shop.port, inventory, dependency.port));
    let serving = home.start(&["serve"]);
    wait_for("the listener", SOON, || TcpStream::connect((Ipv4Addr::LOCALHOST, front)).ok());
    warm(front);
    serving.signal("TERM");
    serving.end(SOON).exits(0);
    let mut wrong = String::new();
    for (index, cell) in lane.cells.iter().enumerate() {
        let what = format!(
            "{}{} × {}{}",
            lane.variant,
            if lane.carries { "" } else { " (without instrumentation)" },
            cell.fault.0,
            cell.attempts.map(|attempts| format!(" (attempts: {attempts})")).unwrap_or_default(),
        );
        home.write("experiment.yaml", &experiment(cell));
        let seed = (seed + index as u64).to_string();
        let mut asked = 0;
        let (done, report) = loop {
            asked += 1;
            let done = home.start(&["run", "experiment.yaml", "--seed", &seed, "--output", "json"]).end(A_RUN);
            let report = done.reports().pop().unwrap_or_default();
            let disturbed = if is_disturbed(&report) { ", disturbed" } else { "" };
            println!("{what}: {} ({}), {}{disturbed}", ending(&report), done.code, kinds(&report).join(" "));
            if asked == TIMES || disturbed.is_empty() || judge(&cell.truth, done.code, &report).is_empty() {
                break (done, report);
            }
        };
        let mut untrue = judge(&cell.truth, done.code, &report);
        if !untrue.is_empty() {
            write!(untrue, "\n      {}\n      {}", report["verdict"], done.err.replace('\n', "\n      ")).unwrap();
            writeln!(wrong, "  {what}: {untrue}").unwrap();
        }
    }
    wrong
}

fn ending(report: &Value) -> &str {
    report["verdict"]["ending"].as_str().unwrap_or("no report")
}

fn kinds(report: &Value) -> Vec<&str> {
    report["findings"].as_array().into_iter().flatten().filter_map(|finding| finding["kind"].as_str()).collect()
}

/// What is not true of a report.
fn judge(truth: &Truth, code: i32, report: &Value) -> String {
    let mut untrue = String::new();
    let mut expect = |good: bool, what: String| {
        if !good {
            write!(untrue, "{}{what}", if untrue.is_empty() { "" } else { "; " }).unwrap();
        }
    };
    let (word, exit, findings, class) = match truth {
        Truth::Held { findings } => ("held", 0, *findings, None),
        Truth::Broken { findings, class, .. } => ("broken", 3, *findings, Some(*class)),
        Truth::Invalid { .. } => ("invalid", 5, &[] as &[&str], None),
    };
    expect(ending(report) == word, format!("{}, and should be {word}", ending(report)));
    expect(code == exit, format!("exit {code}, and should be {exit}"));
    expect(report["class"].as_str() == class, format!("class {}, and should be {class:?}", report["class"]));
    expect(kinds(report) == findings, format!("found {:?}, and should have found {findings:?}", kinds(report)));
    for bound in report["verdict"]["bounds"].as_array().into_iter().flatten() {
        let name = bound["indicator"].as_str().unwrap();
        let is_broken = bound["ending"] == "broken";
        let should = matches!(truth, Truth::Broken { by, .. } if by.contains(&name));
        expect(is_broken == should, format!("`{name}` {}, and should{} be broken", bound["ending"], not(should)));
        let is_held = bound["ending"] == "held";
        expect(is_held || word != "held", format!("`{name}` {}, and should be held", bound["ending"]));
    }
    if let Truth::Invalid { because } = truth {
        let reason = report["verdict"]["reason"].as_str().unwrap_or_default();
        expect(reason.contains(because), format!("because `{reason}`, and should be because `{because}`"));
    }
    // The fault met the treatment, whatever came of it, unless nobody carried the context.
    let faulted = report["fidelity"]["faulted"].as_u64().unwrap_or_default();
    expect((faulted > 0) == (word != "invalid"), format!("{faulted} calls met the fault"));
    untrue
}

fn not(should: bool) -> &'static str {
    if should { "" } else { " not" }
}

fn system(front: u16, shop: u16, inventory: u16, dependency: u16) -> String {
    format!(
        "version: 1\nsystem: shop\nlisteners:\n  \
         front: {{ bind: 127.0.0.1:{front}, upstream: \"http://127.0.0.1:{shop}\" }}\n  \
         inventory: {{ bind: 127.0.0.1:{inventory}, upstream: \"http://127.0.0.1:{dependency}\" }}\n"
    )
}

/// Short phases, own load, half of it treated. The fault stays for two seconds after a bound is broken, so that the
/// ends of slow requests are seen too.
fn experiment(cell: &Cell) -> String {
    let (name, fault) = cell.fault;
    let attempts = cell.attempts.map(|attempts| format!("attempts: {attempts}, ")).unwrap_or_default();
    format!(
        "version: 1
experiment: {name}-dependency
title: Orders survive a {name} dependency
hypothesis: If the dependency is {name}, then orders succeed and are quick, because the shop copes.
slice: {{ at: front, match: {{ path: /checkout/** }} }}
inject: {{ at: inventory, {attempts}faults: [{{ {fault} }}] }}
steady_state:
  - name: {ORDERS_SUCCEED}
    error_rate: {{ max_increase: 5pp }}
  - name: {ORDERS_ARE_QUICK}
    slow_rate: {{ over: 800ms, max_increase: 5pp }}
phases: {{ baseline: 3s, inject: 9s, recovery: 3s }}
observe: 2s
traffic:
  rate: 50/s
  arrivals: poisson
  requests: [{{ path: \"/checkout/{{1..500}}\" }}]
"
    )
}
