//! Charts of a run: shares of bad units, arrivals, and where an interval lies beside its margin.
//!
//! Only lines are drawn here; letters are set by the page around them, so that they stay legible on a narrow screen.

use std::fmt::Write as _;

use super::evidence::indicators;
use super::words;
use super::{Arm, Point, Report};
use crate::units::Increase;

/// The drawing is so wide and so high; the page stretches it.
pub(super) const WIDTH: f64 = 1000.0;
pub(super) const HEIGHT: f64 = 200.0;
/// At most so many points a line: more than one for every two pixels is noise and weight.
const BINS: u64 = 240;
/// A line is the mean of so many points to either side, never across a change of phase.
const REACH: usize = 2;
/// Letters of a line drawn in text.
const LETTERS: usize = 60;

/// A chart of lines over the time of a run.
#[derive(Debug)]
pub(super) struct Chart {
    pub title: String,
    /// The same in a sentence, for those who cannot see it.
    pub summary: String,
    /// What its dots and lines are.
    pub legend: String,
    pub lines: Vec<Line>,
    pub bands: Vec<Band>,
    /// Values beside the vertical axis, and how far from the top they stand in percent.
    pub ticks: Vec<(String, f64)>,
    pub limits: Vec<Limit>,
    /// When a bound was shown broken: percent from the left, and in words.
    pub mark: Option<(f64, String)>,
}

/// One arm.
#[derive(Debug)]
pub(super) struct Line {
    pub arm: &'static str,
    /// The mean, as the `d` of a path.
    pub path: String,
    /// The points behind it, likewise.
    pub dots: String,
    /// The same line in block letters.
    pub letters: String,
}

/// A phase, in percent of the width.
#[derive(Clone, Debug)]
pub(super) struct Band {
    pub name: String,
    pub length: String,
    pub left: f64,
    pub width: f64,
    /// Whether the fault was on.
    pub inject: bool,
    /// Letters that it takes in a line drawn in text.
    pub letters: usize,
}

/// What is allowed.
#[derive(Debug)]
pub(super) struct Limit {
    pub text: String,
    pub from: f64,
    pub to: f64,
    /// From the top, in the drawing's own measure.
    pub y: f64,
}

/// Where an estimate, its interval and its margin lie, in percent of a common axis that includes zero.
#[derive(Debug)]
pub(super) struct Interval {
    pub zero: f64,
    pub low: f64,
    pub estimate: f64,
    pub high: f64,
    pub margin: f64,
}

impl Interval {
    /// None where a figure is missing.
    pub(super) fn new(estimate: f64, (low, high): (f64, f64), margin: f64) -> Option<Self> {
        let figures = [0.0, low, estimate, high, margin];
        let least = figures.into_iter().fold(f64::INFINITY, f64::min);
        let most = figures.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let spread = most - least;
        if figures.iter().any(|figure| !figure.is_finite()) || spread <= 0.0 {
            return None;
        }
        let place = |figure: f64| round(4.0 + 92.0 * (figure - least) / spread);
        Some(Self {
            zero: place(0.0),
            low: place(low),
            estimate: place(estimate),
            high: place(high),
            margin: place(margin),
        })
    }
}

/// One chart for each indicator, and one of the arrivals; none where nothing arrived.
pub(super) fn of(report: &Report) -> Vec<Chart> {
    if report.series.iter().all(|point| point.arms.iter().all(|arm| arm.units == 0)) {
        return Vec::new();
    }
    let axis = Axis::of(report);
    let mut charts: Vec<_> =
        indicators(report).iter().enumerate().map(|(place, name)| axis.shares(report, place, name)).collect();
    charts.push(axis.arrivals(report));
    charts
}

/// The time of a run, cut into bins.
struct Axis {
    millis: f64,
    bins: usize,
    /// Seconds of a bin.
    width: u64,
    /// The start of each phase, to find the phase of a bin.
    starts: Vec<f64>,
    bands: Vec<Band>,
}

/// What a bin holds: bad and all, or arrivals and seconds.
type Bin = (f64, f64);

impl Axis {
    fn of(report: &Report) -> Self {
        let last = report.series.iter().map(|point| point.second).max().unwrap_or(0);
        let end = report.phases.iter().map(|phase| phase.from_ms.saturating_add(phase.millis)).max().unwrap_or(0);
        let millis = end.max(last.saturating_add(1).saturating_mul(1000));
        let seconds = millis.div_ceil(1000);
        let width = seconds.div_ceil(BINS).max(1);
        let percent = |part: u64| round(part as f64 / millis as f64 * 100.0);
        let bands = report.phases.iter().map(|phase| Band {
            name: words::line(&phase.name, 40),
            length: words::length(phase.millis),
            left: percent(phase.from_ms),
            width: percent(phase.millis),
            inject: phase.name == "inject",
            letters: (phase.millis as f64 / millis as f64 * LETTERS as f64).round().max(1.0) as usize,
        });
        Self {
            millis: millis as f64,
            bins: seconds.div_ceil(width) as usize,
            width,
            starts: report.phases.iter().map(|phase| phase.from_ms as f64).collect(),
            bands: bands.collect(),
        }
    }

    fn shares(&self, report: &Report, place: usize, name: &str) -> Chart {
        let line = |arm: usize| {
            self.fill(report, |point| {
                let arm = &point.arms[arm];
                (arm.bad.get(place).copied().unwrap_or(0.0), arm.units as f64)
            })
        };
        let arms = [(Arm::Treatment, line(0)), (Arm::Control, line(1))];
        let mine = || report.verdict.bounds.iter().filter(|bound| words::line(&bound.indicator, 120) == name);
        let levels: Vec<_> = mine()
            .map(|bound| {
                let control = bound.control.share();
                let against = if report.fidelity.phases_compared { "baseline" } else { "control" };
                match bound.increase {
                    None => (bound.margin, format!("at most {}", words::share(bound.margin)), true),
                    Some(Increase::Points(points)) => {
                        let level = control + points.ratio();
                        (level, format!("{against} + {points:#}: {}", words::share(level)), false)
                    }
                    Some(Increase::Ratio(ratio)) => {
                        let level = control * ratio;
                        (level, format!("{against} × {ratio}: {}", words::share(level)), false)
                    }
                }
            })
            .collect();
        let top = nice_share(levels.iter().map(|level| level.0).fold(self.top(&arms), f64::max));
        let inject = self.bands.iter().find(|band| band.inject);
        let limits = levels.into_iter().filter_map(|(level, text, to_the_end)| {
            let inject = inject?;
            let to = if to_the_end { 100.0 } else { inject.left + inject.width };
            Some(Limit { text, from: inject.left, to, y: self.y(level, top) })
        });
        let limits = limits.collect();
        let first = mine().filter_map(|bound| bound.broken_after_ms).min();
        let mark = first.zip(report.phases.iter().find(|phase| phase.name == "inject")).map(|(after, phase)| {
            let at = (phase.from_ms as f64 + after as f64) / self.millis * 100.0;
            (round(at.min(100.0)), format!("shown broken after {}", words::length(after)))
        });
        let during = |arm: Arm| {
            let phase = report.phases.iter().find(|phase| phase.name == "inject")?;
            let bad = phase.arms.iter().find(|it| it.arm == arm)?.bad.get(place)?;
            (bad.of > 0).then(|| format!("{} {}", arm.word(), words::share(bad.share())))
        };
        let during: Vec<_> = [Arm::Treatment, Arm::Control].into_iter().filter_map(during).collect();
        let summary = match (during.is_empty(), &mark) {
            (true, _) => "Nothing arrived while the fault was on.".to_owned(),
            (false, None) => format!("Bad while the fault was on: {}.", during.join(", ")),
            (false, Some((_, mark))) => format!("Bad while the fault was on: {}; {mark}.", during.join(", ")),
        };
        // Where phases are compared there is no control to draw.
        let drawn = |(arm, _): &&(Arm, _)| !report.fidelity.phases_compared || *arm == Arm::Treatment;
        let let_go = " Whoever was let go early is drawn as it ended, and is in no verdict.";
        let summary = summary + if report.fidelity.undecided > 0 { let_go } else { "" };
        Chart {
            title: format!("{name}: share bad"),
            summary,
            legend: self.legend(),
            lines: arms.iter().filter(drawn).map(|(arm, bins)| self.line(arm.word(), bins, top)).collect(),
            bands: self.bands.clone(),
            ticks: ticks(top, words::share),
            limits,
            mark,
        }
    }

    fn arrivals(&self, report: &Report) -> Chart {
        let arms: Vec<_> = Arm::ALL
            .into_iter()
            .enumerate()
            .map(|(place, arm)| (arm, self.fill(report, |point| (point.arms[place].units as f64, 1.0))))
            .filter(|(_, bins)| bins.iter().any(|bin| bin.0 > 0.0))
            .collect();
        let top = nice(self.top(&arms));
        let total = |arm: Arm| -> u64 {
            report.phases.iter().flat_map(|phase| &phase.arms).filter(|it| it.arm == arm).map(|it| it.units).sum()
        };
        let totals: Vec<_> =
            arms.iter().map(|(arm, _)| format!("{} {}", arm.word(), words::count(total(*arm)))).collect();
        Chart {
            title: "Arrivals per second".to_owned(),
            summary: format!("In all phases: {}.", totals.join(", ")),
            legend: self.legend(),
            lines: arms.iter().map(|(arm, bins)| self.line(arm.word(), bins, top)).collect(),
            bands: self.bands.clone(),
            ticks: ticks(top, |value| words::number(value, 1)),
            limits: Vec::new(),
            mark: None,
        }
    }

    fn legend(&self) -> String {
        let each = words::many(self.width, "second", "seconds");
        format!("Dots are {each} each, lines the mean of {} of them within a phase.", 2 * REACH + 1)
    }

    fn fill(&self, report: &Report, of: impl Fn(&Point) -> Bin) -> Vec<Bin> {
        let mut bins = vec![(0.0, 0.0); self.bins];
        for point in &report.series {
            if let Some(bin) = bins.get_mut((point.second / self.width) as usize) {
                let (part, whole) = of(point);
                *bin = (bin.0 + part, bin.1 + whole);
            }
        }
        bins
    }

    /// The largest value of any point.
    fn top(&self, arms: &[(Arm, Vec<Bin>)]) -> f64 {
        arms.iter().flat_map(|(_, bins)| bins).filter_map(|bin| value(*bin)).fold(0.0, f64::max)
    }

    fn line(&self, arm: &'static str, bins: &[Bin], top: f64) -> Line {
        let (mut path, mut dots) = (String::new(), String::new());
        let (mut begun, mut means) = (None, Vec::with_capacity(bins.len()));
        for (place, bin) in bins.iter().enumerate() {
            let x = round(self.middle(place) / self.millis * WIDTH);
            if let Some(value) = value(*bin) {
                let _ = write!(dots, "M{x} {}h0", self.y(value, top));
            }
            // A second in which nothing arrived is a gap, not a zero; a change of phase is a step, not a slope.
            let mean = value(*bin).and_then(|_| self.mean(bins, place));
            let phase = self.phase(place);
            if let Some(mean) = mean {
                let _ = write!(path, "{}{x} {}", if begun == Some(phase) { "L" } else { "M" }, self.y(mean, top));
            }
            begun = mean.map(|_| phase);
            means.push(mean);
        }
        let letters = self.letters(&means, top);
        Line { arm, path, dots, letters }
    }

    fn mean(&self, bins: &[Bin], place: usize) -> Option<f64> {
        let phase = self.phase(place);
        let reach = place.saturating_sub(REACH)..(place + REACH + 1).min(bins.len());
        let (part, whole) = reach
            .filter(|near| self.phase(*near) == phase)
            .fold((0.0, 0.0), |sum, near| (sum.0 + bins[near].0, sum.1 + bins[near].1));
        value((part, whole))
    }

    /// The middle of a bin in milliseconds.
    fn middle(&self, place: usize) -> f64 {
        (place as f64 + 0.5) * self.width as f64 * 1000.0
    }

    fn phase(&self, place: usize) -> usize {
        let middle = self.middle(place);
        self.starts.iter().filter(|start| **start <= middle).count()
    }

    fn y(&self, value: f64, top: f64) -> f64 {
        round(HEIGHT - (value / top).clamp(0.0, 1.0) * HEIGHT)
    }

    /// The line in block letters, phases apart.
    fn letters(&self, means: &[Option<f64>], top: f64) -> String {
        const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let mut drawn = String::new();
        for (number, band) in self.bands.iter().enumerate() {
            if number > 0 {
                drawn.push('│');
            }
            let mine: Vec<_> =
                (0..means.len()).filter(|place| self.phase(*place) == number + 1).map(|place| means[place]).collect();
            for letter in 0..band.letters {
                let from = letter * mine.len() / band.letters;
                let to = ((letter + 1) * mine.len() / band.letters).max(from + 1).min(mine.len());
                let values: Vec<f64> = mine.get(from..to).unwrap_or_default().iter().flatten().copied().collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let height = (mean / top * 7.0).round().clamp(0.0, 7.0);
                drawn.push(if values.is_empty() { ' ' } else { HEIGHTS[height as usize] });
            }
        }
        drawn
    }
}

fn value((part, whole): Bin) -> Option<f64> {
    let value = part / whole;
    (whole > 0.0 && value.is_finite()).then_some(value)
}

fn ticks(top: f64, text: impl Fn(f64) -> String) -> Vec<(String, f64)> {
    [(top, 0.0), (top / 2.0, 50.0), (0.0, 100.0)].map(|(value, place)| (text(value), place)).into()
}

/// The end of an axis of shares, with a little air above what it shows.
fn nice_share(most: f64) -> f64 {
    let steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8];
    steps.into_iter().find(|step| most <= step * 0.97).unwrap_or(1.0)
}

/// The end of an axis of counts: 1, 2, 4, 5 or 8 times a power of ten.
fn nice(most: f64) -> f64 {
    let power = 10f64.powf(most.max(1.0).log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|end| most <= *end).unwrap_or(most)
}

/// One decimal: enough for a pixel.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
