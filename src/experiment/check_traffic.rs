//! Traffic of our own: what can be sent, and by whom.

use super::check::help;
use crate::document::Problems;
use crate::load::{self, LoadError, Traffic};

pub(super) fn traffic(traffic: &Traffic, problems: &mut Problems) {
    match &traffic.command {
        Some(_) if traffic.rate.is_some() || !traffic.requests.is_empty() => problems.error(
            "/traffic/command",
            "traffic comes from a command or from `requests` at a `rate`, not from both",
            help("keep one of them"),
        ),
        Some(command) if command.first().is_none_or(String::is_empty) => problems.error(
            "/traffic/command",
            "there is no program to run",
            help("write the program and its arguments, as in `[npm, run, load]`"),
        ),
        Some(_) => {}
        None => {
            for error in load::problems(traffic) {
                match error {
                    LoadError::Template { index, key, problem } => {
                        let (message, way) = split(&problem);
                        problems.error(&format!("/traffic/requests/{index}/{key}"), message, way);
                    }
                    error => {
                        let (message, way) = split(&error.to_string());
                        let key = if error == LoadError::Rate { "rate" } else { "requests" };
                        problems.error(&format!("/traffic/{key}"), message, way);
                    }
                }
            }
            if !traffic.env.is_empty() {
                problems.error("/traffic/env", "`env` is for a `command`, and there is none", help("remove it"));
            }
        }
    }
}

/// What is wrong, and what follows the colon: the way out.
fn split(problem: &str) -> (String, Option<String>) {
    match problem.split_once(": ") {
        Some((message, way)) => (message.to_owned(), Some(way.to_owned())),
        None => (problem.to_owned(), None),
    }
}
