//! Reports as JUnit XML, for build servers: a suite for each experiment, a case for each bound.
//!
//! Broken is a failure; invalid and halted are errors, since the question was not answered; inconclusive is skipped. A
//! suite is never greener than its run.

use std::collections::HashMap;
use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::evidence;
use super::words;
use super::{Ending, Report};

/// The longest name of a case.
const NAME: usize = 200;

/// All reports of one command in one file.
pub fn render(reports: &[Report]) -> String {
    let mut file = quick_junit::Report::new("pratfall");
    let mut names = Names::default();
    file.add_test_suites(reports.iter().map(|report| suite(report, &names.unique(&report.experiment))));
    let millis = reports.iter().map(millis).sum();
    file.set_time(Duration::from_millis(millis));
    file.to_string().expect("names and texts have been through XmlString, which keeps what XML allows")
}

fn suite(report: &Report, name: &str) -> TestSuite {
    let mut suite = TestSuite::new(name);
    // The type that quick-junit wants for a date is another crate's; it can be read from text.
    suite.timestamp = report.started_at.to_string().parse().ok();
    suite.set_time(Duration::from_millis(millis(report)));
    for (key, value) in [
        ("run", report.run.clone()),
        ("seed", report.replay.seed.to_string()),
        ("engine", report.replay.engine.clone()),
        ("verdict", report.verdict.ending.word().to_owned()),
    ] {
        suite.add_property((key, words::line(&value, NAME).as_str()));
    }
    for (key, value) in [("owner", &report.owner), ("failure", &report.failure)] {
        if let Some(value) = value {
            suite.add_property((key, words::line(value, NAME).as_str()));
        }
    }
    let mut names = Names::default();
    let mut shown = false;
    for bound in &report.verdict.bounds {
        let ending = evidence::ending(report, bound);
        shown |= ending == report.verdict.ending;
        let title = format!("{} at {}: {}", bound.indicator, bound.at, bound.bound);
        let mut status = status(ending);
        // A bound's own reason is about evidence; what ends a whole run is the run's.
        let why = if ending == bound.ending { &bound.why } else { &report.verdict.reason };
        tell(&mut status, ending, why, report);
        suite.add_test_case(case(&names.unique(&title), name, status, report));
    }
    if !shown {
        let mut status = status(report.verdict.ending);
        tell(&mut status, report.verdict.ending, &report.verdict.reason, report);
        suite.add_test_case(case(&names.unique("the run as a whole"), name, status, report));
    }
    let (expected, seen) = (words::line(&report.expected, 1000), words::line(&report.seen, 1000));
    suite.set_system_out(format!("We expected: {expected}\nWe saw: {seen}"));
    suite
}

fn status(ending: Ending) -> TestCaseStatus {
    match ending {
        Ending::Held => TestCaseStatus::success(),
        Ending::Broken => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Ending::Invalid | Ending::Halted => TestCaseStatus::non_success(NonSuccessKind::Error),
        Ending::Inconclusive => TestCaseStatus::skipped(),
    }
}

fn tell(status: &mut TestCaseStatus, ending: Ending, why: &str, report: &Report) {
    if ending == Ending::Held {
        return;
    }
    status.set_type(ending.word());
    status.set_message(words::line(why, 1000));
    if ending != report.verdict.ending {
        return;
    }
    let mut text = Vec::new();
    text.extend(report.verdict.ended_by.iter().map(|by| format!("Ended by: {by}")));
    text.extend(report.verdict.missing.iter().map(|missing| format!("Missing: {missing}")));
    text.extend(report.follow_up.iter().map(|it| format!("Try first: {}", it.first)));
    if !text.is_empty() {
        status.set_description(words::lines(&text.join("\n")));
    }
}

fn case(name: &str, class: &str, status: TestCaseStatus, report: &Report) -> TestCase {
    let mut case = TestCase::new(name, status);
    case.set_classname(class);
    case.set_time(Duration::from_millis(millis(report)));
    case
}

fn millis(report: &Report) -> u64 {
    u64::try_from(report.ended_at.duration_since(report.started_at).as_millis()).unwrap_or_default()
}

/// Names that were given; build servers drop all but one of a name.
#[derive(Default)]
struct Names(HashMap<String, u32>);

impl Names {
    fn unique(&mut self, name: &str) -> String {
        let name = words::line(name, NAME);
        let mut unique = name.clone();
        while self.0.contains_key(&unique) {
            let number = self.0.entry(name.clone()).or_insert(1);
            *number += 1;
            unique = format!("{name} ({number})");
        }
        self.0.insert(unique.clone(), 1);
        unique
    }
}
