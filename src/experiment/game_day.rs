//! A game day: several experiments in order, with rehearsals, pauses and notes.
//!
//! ```yaml
//! version: 1
//! game_day: spring
//! steps:
//!   - rehearse: slow-inventory.yaml
//!   - run: slow-inventory.yaml
//!     stop_on: [broken, halted]
//! ```

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Ending;
use super::check::{MISSING, check_name, help, words};
use super::written::Version;
use crate::document::{self, Problems};
use crate::units::Span;

/// A game day as it was written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Pratfall game day")]
pub struct GameDayDraft {
    /// The version of the grammar.
    #[schemars(required)]
    pub version: Option<Version>,
    /// The name: small letters, digits and hyphens.
    #[schemars(example = &"spring")]
    #[schemars(required)]
    pub game_day: Option<String>,
    /// What people call it.
    pub title: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What is done, in this order.
    #[schemars(required, extend("x-expected" = "a list of steps, as in `- run: slow-inventory.yaml`"))]
    pub steps: Option<Vec<StepDraft>>,
}

/// One step: exactly one of `note`, `rehearse`, `run`, `pause` or `wait`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepDraft {
    /// Something for the timeline.
    pub note: Option<String>,
    /// An experiment, with everything but its fault.
    pub rehearse: Option<String>,
    /// An experiment.
    pub run: Option<String>,
    /// Which endings of this run end the day; `halted` where nothing is written.
    pub stop_on: Option<Vec<Ending>>,
    /// Waits for people, who are told this.
    pub pause: Option<String>,
    /// Waits for so long.
    pub wait: Option<Span>,
}

/// A game day as it was meant.
#[derive(Clone, Debug)]
pub struct GameDay {
    /// Its name.
    pub name: String,
    /// What people call it; its name where nothing else was written.
    pub title: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What is done, in this order.
    pub steps: Vec<Step>,
}

/// One step of a game day.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Something for the timeline.
    Note(String),
    /// An experiment, with everything but its fault; the path is relative to the game day's own.
    Rehearse(PathBuf),
    /// An experiment.
    Run {
        /// Its file, relative to the game day's own.
        file: PathBuf,
        /// Which endings of it end the day.
        stop_on: Vec<Ending>,
    },
    /// Waits for people.
    Pause(String),
    /// Waits for so long.
    Wait(Span),
}

impl GameDay {
    /// Reads a game day. With it come the warnings; without it, everything that is wrong.
    pub fn parse(
        name: &str,
        text: &str,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Problems), Problems> {
        let reading = document::read::<GameDayDraft>(name, text, variables);
        let mut problems = reading.problems;
        match reading.value.map(|draft| meant(draft, &mut problems)) {
            Some(day) if !problems.has_errors() => Ok((day, problems)),
            _ => Err(problems),
        }
    }
}

fn meant(draft: GameDayDraft, problems: &mut Problems) -> GameDay {
    let name = draft.game_day.unwrap_or_else(|| MISSING.to_owned());
    check_name(problems, "/game_day", "a game day", &name);
    let steps = draft.steps.unwrap_or_default();
    if steps.is_empty() {
        problems.error("/steps", "nothing happens on this day", help("add a step, as in `- run: slow-inventory.yaml`"));
    } else if !steps.iter().any(|step| step.run.is_some() || step.rehearse.is_some()) {
        problems.warn(
            "/steps",
            "no experiment is run or rehearsed on this day",
            help("add `- run: slow-inventory.yaml`"),
        );
    }
    let steps = steps.into_iter().enumerate();
    let steps = steps.filter_map(|(index, step)| self::step(step, &format!("/steps/{index}"), problems)).collect();
    GameDay { title: draft.title.unwrap_or_else(|| name.clone()), name, owner: draft.owner, steps }
}

fn step(draft: StepDraft, pointer: &str, problems: &mut Problems) -> Option<Step> {
    let keys = [
        ("note", draft.note.is_some()),
        ("rehearse", draft.rehearse.is_some()),
        ("run", draft.run.is_some()),
        ("pause", draft.pause.is_some()),
        ("wait", draft.wait.is_some()),
    ];
    let mut written = keys.iter().filter(|(_, written)| *written).map(|(key, _)| *key);
    match (written.next(), written.next()) {
        (None, _) => {
            let way = help(format!("add {}", words(keys.iter().map(|(key, _)| *key))));
            problems.error(pointer, "nothing happens in this step", way);
            return None;
        }
        (Some(first), Some(second)) => {
            problems.error_at_key(
                &format!("{pointer}/{second}"),
                format!("one thing happens in a step, and this has `{first}` and `{second}`"),
                help("make two steps of it"),
            );
            return None;
        }
        _ => {}
    }
    if draft.stop_on.is_some() && draft.run.is_none() {
        problems.error_at_key(
            &format!("{pointer}/stop_on"),
            "`stop_on` belongs to `run`: only a run ends in one of these words",
            help("remove it, or write it at the run that it is about"),
        );
    }
    for (key, file) in [("run", &draft.run), ("rehearse", &draft.rehearse)] {
        if file.as_deref().is_some_and(|file| file.trim().is_empty()) {
            problems.error(
                &format!("{pointer}/{key}"),
                "no file is named",
                help("write it as in `slow-inventory.yaml`"),
            );
        }
    }
    if draft.wait == Some(Span::default()) {
        problems.error(&format!("{pointer}/wait"), "a wait of `0s` is none", help("remove the step, or write `60s`"));
    }
    Some(match draft {
        StepDraft { note: Some(note), .. } => Step::Note(note),
        StepDraft { rehearse: Some(file), .. } => Step::Rehearse(file.into()),
        StepDraft { run: Some(file), stop_on, .. } => {
            Step::Run { file: file.into(), stop_on: stop_on.unwrap_or_else(|| vec![Ending::Halted]) }
        }
        StepDraft { pause: Some(pause), .. } => Step::Pause(pause),
        StepDraft { wait, .. } => Step::Wait(wait?),
    })
}
