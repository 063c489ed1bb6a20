//! The experiment that would show that a weakness is gone: the same question again, after the change.

use crate::experiment::Experiment;
use crate::report::{Finding, FollowUp};

/// What the first line of a follow-up says, so that a run of the file is known as one.
const MARK: &str = "# follow-up of ";

/// The same experiment under a name of its own, with what should be changed first.
pub(super) fn follow_up(experiment: &Experiment, findings: &[Finding]) -> FollowUp {
    let advice = findings.iter().find_map(|finding| finding.advice.clone());
    let first = advice.unwrap_or_else(|| "find out why, and change it".to_owned());
    let name = &experiment.name;
    let name = if name.ends_with(SUFFIX) {
        name.clone()
    } else {
        format!("{}{SUFFIX}", &name[..name.len().min(63 - SUFFIX.len())])
    };
    let mut renamed = false;
    let lines: Vec<String> = experiment
        .document
        .lines()
        .filter(|line| !line.starts_with(MARK) && !line.starts_with(FIRST))
        .map(|line| {
            if !renamed && line.starts_with("experiment:") {
                renamed = true;
                return format!("experiment: {name}");
            }
            line.to_owned()
        })
        .collect();
    let first_line = first.replace(['\n', '\r'], " ");
    FollowUp { document: format!("{FIRST}{first_line}\n{}\n", lines.join("\n").trim_end()), first, command: None }
}

const SUFFIX: &str = "-follow-up";
const FIRST: &str = "# First: ";

/// A follow-up's document with the failure that it follows.
pub fn marked(document: &str, failure: &str) -> String {
    format!("{MARK}{failure}\n{document}")
}

/// The failure that a document says it follows.
pub fn failure_of(document: &str) -> Option<&str> {
    document.lines().next()?.strip_prefix(MARK).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follow_up_is_the_same_question_under_its_own_name_and_can_be_followed_again() {
        let document = "# Teaches.\nversion: 1\nexperiment: slow   # name\nhypothesis: If it is slow, then it is quick, because of a timeout.\nslice: { at: front }\ninject: { at: inventory, faults: [{ drop: { how: reset } }] }\nsteady_state: [{ error_rate: { max_increase: 1pp } }]\n";
        let parse = |document: &str| Experiment::parse("x.yaml", document, &|_| None).unwrap().0;
        let finding = Finding {
            kind: "no_timeout".into(),
            text: String::new(),
            evidence: String::new(),
            advice: Some("give the inventory call a timeout".into()),
        };
        let follow = follow_up(&parse(document), &[finding]);
        let marked = marked(&follow.document, "F-7k2m");
        assert_eq!(failure_of(&marked), Some("F-7k2m"));
        assert_eq!(failure_of(document), None);
        let again = parse(&marked);
        assert_eq!(again.name, "slow-follow-up");
        assert!(marked.contains("# First: give the inventory call a timeout\n# Teaches."));
        let twice = follow_up(&again, &[]);
        assert_eq!(parse(&twice.document).name, "slow-follow-up");
        assert_eq!(twice.document.matches(FIRST).count(), 1);
    }
}
