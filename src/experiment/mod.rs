//! What we believe, whom we ask, what we break and for how long: pure data, valid by construction.
//!
//! A document is read in two steps: [`draft`] is what was written, [`Experiment`] is what was meant.

pub mod by_hand;
pub mod check;
mod check_faults;
mod check_indicators;
pub mod check_slice;
mod check_traffic;
pub mod draft;
pub mod game_day;
pub mod glob;
pub mod health;
pub mod indicator;
pub mod limits;
pub mod matcher;
mod plausible;
pub mod slice;
pub mod written;

use serde::{Deserialize, Serialize};

pub use self::by_hand::ByHand;
pub use self::indicator::{Bounds, Count, Guard, Indicator, Measure, Of, Threshold, Until};
pub use self::matcher::Match;
pub use self::slice::{Arm, By, Carry, Slice};
use crate::fault::Fault;
use crate::units::{Percent, Seed, Span};

/// One hypothesis about one system, with everything that is needed to test it.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its name: part of the failure's fingerprint, of metrics and of file names.
    pub name: String,
    /// What people call it; its name where nothing else was written.
    pub title: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Free words to find it by.
    pub tags: Vec<String>,
    /// What we believe.
    pub hypothesis: Hypothesis,
    /// Who takes part.
    pub slice: Slice,
    /// What the treatment meets.
    pub inject: Inject,
    /// The hypothesis in numbers: one to three indicators.
    pub steady_state: Vec<Indicator>,
    /// Conditions that halt the run.
    pub guards: Vec<Guard>,
    /// How long.
    pub phases: Phases,
    /// How long the fault stays after the hypothesis has been shown broken.
    pub observe: Span,
    /// How sure a verdict must be: 1 - alpha.
    pub confidence: Percent,
    /// Where chance comes from; drawn at the start of the run where none is written.
    pub seed: Option<Seed>,
    /// Which verdicts fail the command; all that are not `held` where none are written.
    pub fail_on: Option<Vec<Ending>>,
    /// What a failure would cost.
    pub impact: Impact,
    /// Traffic of our own.
    pub traffic: Option<crate::load::Traffic>,
    /// A failure that is known and tolerated until a day.
    pub known: Option<Known>,
    /// A search for the dose at which the hypothesis breaks.
    pub search: Option<Search>,
    /// The document as it was read, for the ledger and for replays.
    pub document: String,
}

impl Experiment {
    /// Whether inject is compared with baseline, because nothing carries the arm.
    pub fn compares_phases(&self) -> bool {
        // A fault by hand has nothing to compare.
        self.slice.carry == Carry::None && !self.steady_state.is_empty()
    }

    /// What makes an operation of requests, and by when it must be answered well, where operations are the units.
    pub fn operations(&self) -> Option<(&By, Span)> {
        self.steady_state.iter().find_map(|indicator| match &indicator.measure {
            Measure::FailedOperations { by, deadline, .. } => Some((by, *deadline)),
            _ => None,
        })
    }
}

/// What we believe, in words.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Hypothesis {
    /// One sentence: if …, then …, because ….
    Sentence(String),
    /// In three steps, with a prediction where somebody dared one.
    Steps {
        /// The state of the world before.
        given: String,
        /// What we do to it.
        when: String,
        /// What we expect to see.
        then: String,
        /// How the run will end, written before it began.
        predict: Option<Prediction>,
    },
}

impl Hypothesis {
    /// What is expected, in one sentence.
    pub fn sentence(&self) -> String {
        match self {
            Self::Sentence(sentence) => sentence.clone(),
            Self::Steps { given, when, then, .. } => format!("Given that {given}, when {when}, then {then}."),
        }
    }

    /// The prediction that was written before the run.
    pub fn prediction(&self) -> Option<Prediction> {
        match self {
            Self::Sentence(_) => None,
            Self::Steps { predict, .. } => *predict,
        }
    }
}

/// How somebody thought that the run would end.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// The verdict that was expected: held or broken.
    pub outcome: Ending,
    /// How sure they were.
    pub sure: Percent,
}

/// How a run can end.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The hypothesis stands: every bound was shown to be kept.
    Held,
    /// The hypothesis is wrong: a bound was shown to be crossed.
    Broken,
    /// The run cannot tell.
    Inconclusive,
    /// The set-up was wrong, so that the run says nothing about the hypothesis.
    Invalid,
    /// Ended before its plan.
    Halted,
}

impl Ending {
    /// The word for it in reports, metrics and on screens.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Broken => "broken",
            Self::Inconclusive => "inconclusive",
            Self::Invalid => "invalid",
            Self::Halted => "halted",
        }
    }
}

/// What the treatment meets, and where.
#[derive(Clone, Debug)]
pub struct Inject {
    /// The listener whose calls meet the fault.
    pub at: String,
    /// Which of the calls.
    pub matches: Match,
    /// The share of the treated calls that meet it.
    pub share: Percent,
    /// Only the first so many attempts of an operation meet it.
    pub attempts: Option<u32>,
    /// The first written is the outermost.
    pub faults: Vec<Fault>,
}

/// How long each phase is.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    /// Both arms, no fault.
    pub baseline: Length,
    /// Both arms, treatment meets the fault.
    pub inject: Length,
    /// Both arms, no fault any more.
    pub recovery: Length,
}

/// How long one phase is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Length {
    /// As long as was written.
    Fixed(Span),
    /// As long as the plan needs, up to a bound.
    Auto {
        /// The bound, where one is written.
        at_most: Option<Span>,
    },
}

/// A search for the dose at which the hypothesis breaks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Search {
    /// A key of the only fault of its kind: `latency.delay`.
    pub vary: String,
    /// Its values, from the mildest on, each fit for the key.
    pub through: Vec<String>,
    /// Further steps between the last held and the first broken value.
    pub bisect: u32,
}

/// What a failure would cost.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Impact {
    /// How much the journey matters, 1 to 10.
    #[schemars(range(min = 1, max = 10))]
    pub weight: u8,
    /// What one request is worth.
    pub value_per_request: Option<f64>,
    /// How long an outage of this dependency would last.
    pub outage: Span,
}

impl Default for Impact {
    fn default() -> Self {
        // decisions.md 2.21: weight 5, projected over an outage of half an hour.
        Self { weight: 5, value_per_request: None, outage: Span::secs(1800) }
    }
}

/// A failure that is known: broken is a warning until that day.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The failure's id in the ledger.
    pub failure: String,
    /// The last day on which it is tolerated.
    #[schemars(with = "String")]
    pub until: jiff::civil::Date,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Experiment {
        Experiment::parse("test.yaml", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).0
    }

    fn example(name: &str) -> Experiment {
        let file = format!("{}/tests/documents/valid/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        parsed(&std::fs::read_to_string(file).expect("the example is there"))
    }

    #[test]
    fn the_shortest_experiment_has_the_defaults_that_the_design_promises() {
        let shortest = example("shortest");
        assert_eq!(shortest.title, "inventory-fails");
        assert_eq!((shortest.slice.at.as_str(), shortest.inject.at.as_str()), ("front", "inventory"));
        assert_eq!(shortest.slice.treatment, ["5%".parse().unwrap()]);
        assert_eq!(shortest.slice.control, "5%".parse().unwrap());
        assert_eq!((&shortest.slice.by, &shortest.slice.carry), (&By::Trace, &Carry::Auto));
        assert_eq!(shortest.slice.unit_window, Span::secs(10));
        assert_eq!((shortest.inject.share.ratio(), shortest.inject.attempts), (1.0, None));
        assert_eq!(
            shortest.guards,
            [
                Guard::ErrorRate { max: "50%".parse().unwrap(), window: Span::secs(5), of: Of::All },
                Guard::Harmed { max: 1000 },
            ]
        );
        let auto = Length::Auto { at_most: None };
        let phases = shortest.phases;
        assert_eq!([phases.baseline, phases.inject, phases.recovery], [auto; 3]);
        assert_eq!((shortest.observe, shortest.confidence.ratio()), (Span::default(), 0.95));
        assert_eq!(
            (shortest.steady_state[0].name.as_str(), shortest.steady_state[0].at.as_str()),
            ("error rate", "front")
        );
        let Measure::ErrorRate { count, .. } = &shortest.steady_state[0].measure else { panic!("an error rate") };
        assert_eq!(count.as_slice(), Count::DEFAULT);
        assert_eq!((shortest.impact.weight, shortest.impact.outage), (5, Span::secs(1800)));
        assert!(shortest.seed.is_none() && shortest.fail_on.is_none() && shortest.traffic.is_none());
    }

    #[test]
    fn a_written_guard_replaces_the_default_of_its_kind_only() {
        let guards = |written: &str| {
            let text = include_str!("../../tests/documents/valid/shortest.yaml");
            parsed(&format!("{text}{written}")).guards
        };
        let (all, five) =
            (Guard::ErrorRate { max: "50%".parse().unwrap(), window: Span::secs(5), of: Of::All }, Span::secs(5));
        let rest = Guard::ErrorRate { max: "20%".parse().unwrap(), window: five, of: Of::Rest };
        assert_eq!(guards("halt_when: [{ harmed: { max: 7 } }]"), [Guard::Harmed { max: 7 }, all]);
        assert_eq!(guards("halt_when: [{ error_rate: { max: 20% } }]"), [rest, Guard::Harmed { max: 1000 }]);
        assert_eq!(guards("halt_when: none"), []);
    }

    #[test]
    fn a_ramp_and_own_traffic_change_the_size_of_the_arms() {
        let ratios = |slice: &Slice| slice.treatment.iter().map(|share| share.ratio()).collect::<Vec<_>>();
        let ramp = example("failing-inventory").slice;
        assert_eq!((ratios(&ramp), ramp.control.ratio()), (vec![0.01, 0.05, 0.2], 0.2));
        let own = example("breaking-point").slice;
        assert_eq!((ratios(&own), own.control.ratio()), (vec![0.5], 0.5));
        let most = parsed(
            &include_str!("../../tests/documents/valid/shortest.yaml").replace("/** }", "/** }, treatment: 80%"),
        );
        assert!((most.slice.control.ratio() - 0.2).abs() < 1e-12);
    }

    #[test]
    fn what_comes_from_elsewhere_has_no_files_and_runs_no_programs() {
        let shortest = include_str!("../../tests/documents/valid/shortest.yaml");
        let with = |old: &str, new: &str| {
            assert!(shortest.contains(old), "{shortest}");
            let (experiment, mut problems) =
                Experiment::parse("<body>", &shortest.replace(old, new), &|_| None).unwrap();
            experiment.check_travelled(&mut problems);
            problems.errors().map(|problem| problem.line()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(with("503", "503"), "");
        let body = with("status: 503", "status: 503, body_file: /etc/passwd");
        assert!(body.starts_with("<body>:6:") && body.contains("no file"), "{body}");
        let histogram = with("error: { status: 503 }", "latency: { histogram: /etc/passwd }");
        assert!(histogram.starts_with("<body>:6:") && histogram.contains("no file"), "{histogram}");
        let command = with("steady_state:", "traffic: { command: [rm, -rf, /] }\nsteady_state:");
        assert!(command.starts_with("<body>:7:") && command.contains("no program"), "{command}");
    }

    #[test]
    fn names_are_compared_with_those_of_a_system() {
        let text = include_str!("../../tests/documents/valid/hanging-inventory.yaml");
        let (experiment, mut problems) = Experiment::parse("hanging.yaml", text, &|_| None).unwrap();
        let probes = ["busy-workers", "shop-status", "checkout-alert"];
        experiment.check_names(&mut problems, &["front", "inventory"], &probes);
        assert!(problems.is_empty(), "{problems}");
        experiment.check_names(&mut problems, &["font", "stock"], &["busy-worker"]);
        let said: Vec<_> = problems.list().iter().map(|problem| (problem.line, problem.message.as_str())).collect();
        assert_eq!(
            said,
            [
                (9, "the system has no listener `front`"),
                (11, "the system has no listener `inventory`"),
                (18, "the system has no probe `busy-workers`"),
                (20, "the system has no probe `shop-status`"),
                (23, "the system has no probe `busy-workers`"),
                (24, "the system has no probe `checkout-alert`"),
            ]
        );
        assert_eq!(problems.list()[0].help.as_deref(), Some("did you mean `font`?"));
    }
}
