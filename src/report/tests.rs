//! Whole reports, as people get them. `INSTA_UPDATE=always cargo test report` writes them anew; look at the difference.

use super::*;

const CSS: &str = include_str!("../../templates/report.css");
const HOSTILE: &[&str] = &[
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "| pipe | pipe |",
    "``` fence",
    "a\nb\r\n# heading",
    "\u{202e}drawkcab\u{2066}",
    "]]> &amp; \u{0} \u{1b}[31m",
    "</title></style></details>",
    "@everyone [x](javascript:alert(1))",
];

#[test]
fn every_ending_has_its_report_in_every_dress() {
    for (name, report) in samples::all() {
        // The style is in a file of its own; what matters here is what is said.
        let html = html::render(&report);
        assert!(html.contains(CSS.trim_end()), "the style belongs into the page");
        insta::assert_snapshot!(format!("{name}.html"), html.replace(CSS.trim_end(), "(style)"));
        insta::assert_snapshot!(format!("{name}.md"), markdown::render(&report));
    }
    let all: Vec<_> = samples::all().into_iter().map(|(_, report)| report).collect();
    insta::assert_snapshot!("all.junit", junit::render(&all));
}

#[test]
fn the_model_survives_json() {
    for (name, report) in samples::all() {
        let written = serde_json::to_string(&report).unwrap();
        let read: Report = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), written, "{name}");
    }
}

#[test]
fn a_page_runs_nothing_and_loads_nothing() {
    for (name, report) in samples::all() {
        let page = html::render(&report).to_lowercase();
        for forbidden in ["<script", "http://", "https://", "@import", "url(", " src=", "<iframe", "<object", "onclick"]
        {
            assert!(!page.contains(forbidden), "{name} contains {forbidden}");
        }
        assert!(page.contains("default-src 'none'; style-src 'unsafe-inline'; img-src data:"), "{name}");
    }
}

#[test]
fn a_held_run_is_told_briefly_and_an_invalid_one_says_first_what_to_repair() {
    let titles = |report| page::Page::of(&report).sections.into_iter().map(|it| it.title).collect::<Vec<_>>();
    let short = [samples::held(), samples::invalid()].map(|mut report| {
        report.class = Some(Class::Untriaged);
        report.whys = samples::broken().whys;
        report.actions = vec!["more of the same".into()];
        titles(report)
    });
    for long in ["Five whys", "Actions", "Kind of weakness", "Review"] {
        assert!(short.iter().all(|titles| !titles.contains(&long)), "{long}");
        assert!(titles(samples::broken()).contains(&long), "{long}");
    }
    assert_eq!(titles(samples::invalid())[..3], ["What is wrong", "How to repair it", "What reached the fault"]);
}

#[test]
fn what_only_people_know_is_an_empty_line() {
    let mut report = samples::broken();
    report.whys.clear();
    let lines = page::Page::of(&report).sections.into_iter().flat_map(|it| it.blocks).find_map(|block| match block {
        page::Block::Whys(lines) => Some(lines),
        _ => None,
    });
    let answers: Vec<_> = lines.unwrap().into_iter().map(|line| (line.number, line.answer)).collect();
    let numbers: Vec<_> = answers.iter().map(|(number, _)| number.as_str()).collect();
    assert_eq!(numbers, ["1", "1.1", "1.1.1", "1.1.1.1", "1.1.1.1.1"]);
    assert!(answers.iter().all(|(_, answer)| answer.is_none()));
}

/// A report in which every text that a document or a caller can write is the same.
fn poisoned(poison: &str) -> Report {
    let mut json = serde_json::to_value(samples::broken()).unwrap();
    fn walk(value: &mut serde_json::Value, poison: &str) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    let ours = ["started_at", "ended_at", "ending", "arm", "predicted", "sure", "outcome", "class"];
                    let units = ["confidence", "outage", "increase"];
                    if !ours.contains(&key.as_str()) && !units.contains(&key.as_str()) {
                        walk(value, poison);
                    }
                }
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(|value| walk(value, poison)),
            serde_json::Value::String(text) => *text = poison.to_owned(),
            _ => {}
        }
    }
    walk(&mut json, poison);
    serde_json::from_value(json).unwrap()
}

#[test]
fn no_name_breaks_out_of_its_place() {
    // What a harmless word gives is what every other one has to give, in everything but the word.
    let tags = |page: &str| page.matches('<').count();
    let harmless = poisoned("word");
    let (html, markdown) = (html::render(&harmless), markdown::render(&harmless));
    let long = "x".repeat(10_000);
    for poison in HOSTILE.iter().copied().chain([long.as_str()]) {
        let report = poisoned(poison);
        let page = html::render(&report);
        assert_eq!(tags(&page), tags(&html), "{poison:?} made an element");
        assert!(!page.contains("<script") && !page.contains("<img"), "{poison:?}");
        assert!(!page.contains(['\u{202e}', '\u{2066}', '\u{0}', '\u{1b}']), "{poison:?}");
        let text = markdown::render(&report);
        // Within documents the fence protects; elsewhere everything is escaped.
        let open = |text: &str| {
            let mut fence = None::<String>;
            let mut outside = String::new();
            for line in text.lines() {
                let ticks: String = line.chars().take_while(|letter| *letter == '`').collect();
                match &fence {
                    Some(end) if *end == line => fence = None,
                    None if ticks.len() >= 3 => fence = Some(ticks),
                    None => {
                        outside += line;
                        outside.push('\n');
                    }
                    Some(_) => {}
                }
            }
            (fence.is_none(), outside)
        };
        let (closed, outside) = open(&text);
        assert!(closed, "{poison:?} left a fence open");
        assert!(
            !outside.contains("<script") && !outside.contains("<img") && !outside.contains("</title"),
            "{poison:?}"
        );
        let cells = |text: &str| -> Vec<usize> {
            let rows = text.lines().filter(|line| line.starts_with('|'));
            rows.map(|line| line.replace(r"\|", "").matches('|').count()).collect()
        };
        assert_eq!(cells(&outside), cells(&open(&markdown).1), "{poison:?} made a cell");
        let headings = |text: &str| open(text).1.matches("###").count();
        assert_eq!(headings(&text), headings(&markdown), "{poison:?}");
        assert!(page.len() < html.len() + 400_000, "{} bytes", page.len());
        let xml = junit::render(&[report]);
        assert!(!xml.contains("<script") && !xml.contains(['\u{202e}', '\u{2066}', '\u{0}', '\u{1b}']), "{poison:?}");
    }
}

#[test]
fn empty_reports_and_odd_figures_are_rendered_all_the_same() {
    let mut report = samples::broken();
    report.verdict.bounds[1].log_e_broken = f64::INFINITY;
    report.verdict.bounds[1].estimate = f64::NAN;
    report.verdict.bounds[0].needs_held = 0.0;
    report.series.push(Point { second: u64::MAX, arms: Default::default() });
    report.phases[0].millis = u64::MAX;
    report.phases[1].arms.clear();
    assert!(html::render(&report).contains("∞"));
    report.phases.clear();
    assert!(!html::render(&report).contains("NaN"));
    report.series.clear();
    report.verdict.bounds.clear();
    report.follow_up = None;
    report.title = " ".into();
    report.replay.document.clear();
    assert!(markdown::render(&report).starts_with("# slow-inventory\n"));
    assert!(junit::render(&[report]).contains("the run as a whole"));
}

#[test]
fn a_suite_is_never_greener_than_its_run() {
    let mut report = samples::held();
    report.verdict.ending = Ending::Broken;
    assert!(junit::render(&[report.clone()]).contains("failures=\"1\""), "not recovered in time is broken");
    report.verdict.ending = Ending::Inconclusive;
    assert!(junit::render(&[report.clone()]).contains("skipped=\"1\""), "the world was not quiet");
    report.verdict.ending = Ending::Halted;
    assert!(junit::render(&[report]).contains("errors=\"1\""));
}

#[test]
fn names_of_cases_are_unique() {
    let mut report = samples::broken();
    let bound = report.verdict.bounds[0].clone();
    report.verdict.bounds.extend([bound.clone(), bound]);
    let xml = junit::render(&[report.clone(), report]);
    let mut names: Vec<_> =
        xml.lines().filter_map(|line| line.trim().strip_prefix("<testcase name=\"")?.split(" time=").next()).collect();
    assert_eq!(names.len(), 8, "{xml}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 8, "{xml}");
}

#[test]
fn units_that_were_let_go_are_named_wherever_counts_differ_by_them() {
    let mut report = samples::broken();
    for page in [html::render(&report), markdown::render(&report)] {
        assert!(!page.contains("in no verdict"), "nobody was let go");
    }
    report.fidelity.undecided = 1200;
    for page in [html::render(&report), markdown::render(&report)] {
        assert_eq!(page.matches("1,200").count(), 2, "beside the harmed, and in fidelity");
        assert!(page.contains("1,200 treated units are in no verdict"));
    }
}

#[test]
fn what_to_type_is_what_whoever_wrote_the_report_said() {
    let mut report = samples::broken();
    assert!(markdown::render(&report).contains("```sh\npratfall run F-7k2m\n```"));
    let follow_up = report.follow_up.as_mut().unwrap();
    follow_up.command = Some("pratfall run F-7k2m --config shop.yaml".into());
    report.replay.command = Some("pratfall report r-1 --replay --config shop.yaml".into());
    let text = markdown::render(&report);
    for command in ["run F-7k2m --config shop.yaml", "report r-1 --replay --config shop.yaml"] {
        assert!(text.contains(&format!("```sh\npratfall {command}\n```")), "{command}");
    }
    // Reports that were written before there were commands can still be read.
    let mut json = serde_json::to_value(&report).unwrap();
    json["replay"].as_object_mut().unwrap().remove("command");
    json["fidelity"].as_object_mut().unwrap().remove("undecided");
    let old: Report = serde_json::from_value(json).unwrap();
    assert_eq!((old.replay.command, old.fidelity.undecided), (None, 0));
}

#[test]
fn fidelity_says_what_carried_the_arm_and_what_could_not() {
    let mut report = samples::held();
    assert!(!markdown::render(&report).contains("Carried by"));
    report.fidelity.carried_by = vec![("baggage".into(), 1200), ("x-request-id".into(), 7)];
    (report.fidelity.ambiguous, report.fidelity.no_id) = (3, 1);
    let text = markdown::render(&report);
    for said in [
        "baggage (1,200), x-request-id (7)",
        "3 calls with an id that requests of several arms have",
        "Without an id",
        "1 request in no arm",
    ] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
}
