//! A run on the screen: live on a terminal, plain lines elsewhere, a summary at the end.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;

use super::next::typed;
use crate::experiment::Ending;
use crate::lab::Progress;
use crate::report::{Counted, Report, words};

/// How often a line is written where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// What is shown at the beginning of recovery.
const LAST: &str = "waiting for the last who met the fault";

/// Where a run is among several.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) number: usize,
    pub(super) of: usize,
}

impl Place {
    /// Of one that is alone.
    pub(super) const ALONE: Self = Self { number: 1, of: 1 };

    fn text(self) -> String {
        if self.of == 1 { String::new() } else { format!("{}/{}  ", self.number, self.of) }
    }
}

/// Shows a run until it is over.
pub(super) async fn follow(mut progress: watch::Receiver<Progress>, mut screen: Screen) {
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        screen.show(&now);
        if now.phase == "over" {
            return;
        }
    }
}

/// Where a run under way is shown: one line that is drawn again on a terminal, and now and then a line elsewhere.
pub(super) struct Screen {
    place: Place,
    style: Style,
    bar: Option<ProgressBar>,
    phase: &'static str,
    next: Duration,
}

/// How something under way is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// One line that is drawn again and again.
    pub(super) live: fn(&Progress) -> String,
    /// A line that stays.
    pub(super) plain: fn(&Progress) -> String,
}

impl Screen {
    /// For a run.
    pub(super) fn new(place: Place) -> Self {
        Self::with(place, Style { live, plain })
    }

    pub(super) fn with(place: Place, style: Style) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
            bar.with_style(ProgressStyle::with_template("{msg}").expect("the template is sound"))
        });
        Self { place, style, bar, phase: "", next: Duration::ZERO }
    }

    pub(super) fn show(&mut self, now: &Progress) {
        match &self.bar {
            Some(bar) if now.phase == "over" => bar.finish_and_clear(),
            Some(bar) => bar.set_message(format!("{}{}", self.place.text(), (self.style.live)(now))),
            None => {
                if let Some(line) = self.line(now) {
                    anstream::eprintln!("{}{line}", self.place.text());
                }
            }
        }
    }

    /// What is written where lines stay: when a phase begins, and every few seconds of it.
    fn line(&mut self, now: &Progress) -> Option<String> {
        let begins = now.phase != self.phase;
        if now.phase == "over" || !(begins || now.elapsed >= self.next) {
            return None;
        }
        if begins {
            self.phase = now.phase;
            self.next = Duration::ZERO;
        }
        self.next += EVERY;
        Some((self.style.plain)(now))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// One line that is drawn again and again.
fn live(now: &Progress) -> String {
    let phases = ["baseline", "inject", "recovery"];
    let at = phases.iter().position(|phase| *phase == now.phase).unwrap_or(0);
    let mut line = format!("{:<28}", cut(&now.title, 28));
    for (index, phase) in phases.iter().enumerate() {
        line += &match index.cmp(&at) {
            std::cmp::Ordering::Less => format!("  {phase} ✓"),
            std::cmp::Ordering::Equal => {
                let left = now.planned.saturating_sub(now.elapsed).as_secs();
                match now.planned.is_zero() {
                    true => format!("  {phase}: {LAST}"),
                    false => format!("  {phase} {} {left} s left", bar(now.elapsed, now.planned)),
                }
            }
            std::cmp::Ordering::Greater => format!("  {phase}"),
        };
    }
    if let Some(after) = now.broken_after {
        line += &format!("  broken after {:.0} s", after.as_secs_f64());
    }
    line + &figures(now)
}

fn plain(now: &Progress) -> String {
    let (elapsed, planned) = (now.elapsed.as_secs(), now.planned.as_secs());
    let of = match (now.phase, planned) {
        ("recovery", 0) => format!(": {LAST}"),
        (_, 0) => String::new(),
        _ => format!(" {elapsed} s of {planned} s"),
    };
    format!("{}: {}{of}{}", now.experiment, now.phase, figures(now))
}

fn figures(now: &Progress) -> String {
    let measured = now.indicators.iter().filter(|(_, treated, control)| treated.of + control.of > 0);
    let told = measured.map(|(name, treated, control)| {
        let (now, against) = if now.phases_compared { ("now", "in baseline") } else { ("treated", "control") };
        format!("  {name}: {} {now} v {} {against}", percent(*treated), percent(*control))
    });
    told.collect()
}

pub(super) fn bar(elapsed: Duration, planned: Duration) -> String {
    let part = (elapsed.as_secs_f64() / planned.as_secs_f64().max(0.001)).min(1.0);
    let full = (part * 8.0) as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(8 - full))
}

fn percent(counted: Counted) -> String {
    if counted.of == 0 { "–".to_owned() } else { words::share(counted.share()) }
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).chain(['…']).collect() }
}

/// What a stranger should know of a run that is over.
pub(super) fn summary(report: &Report, place: Place) -> String {
    let mut lines = vec![format!("{}{}{}", place.text(), report.title, lasted(report))];
    let indent = " ".repeat(place.text().chars().count().max(5));
    let word = word(report.verdict.ending);
    let measured = report.verdict.bounds.iter().filter(|bound| bound.treated.of + bound.control.of > 0);
    let mut told = measured.map(|bound| {
        let phases = report.fidelity.phases_compared;
        let (now, against) = if phases { ("in inject", "in baseline") } else { ("treated", "control") };
        format!(
            "{}: {} {now} v {} {against} ({})",
            bound.indicator,
            percent(bound.treated),
            percent(bound.control),
            bound.bound
        )
    });
    let verdict_by_figures = matches!(report.verdict.ending, Ending::Held | Ending::Broken);
    let first = if verdict_by_figures { told.next().unwrap_or_default() } else { report.verdict.reason.clone() };
    lines.push(format!("{indent}{word:<13}{first}"));
    let more = |text: String| format!("{indent}{:<13}{text}", "");
    lines.extend(told.map(more));
    if let Some(missing) = &report.verdict.missing {
        lines.push(format!("{indent}{:<13}{missing}", "missing"));
    }
    for (index, finding) in report.findings.iter().enumerate() {
        let label = match (index, report.verdict.ending) {
            (0, Ending::Broken) if finding.is_cause() => "why",
            (0, _) => "found",
            _ => "",
        };
        lines.push(format!("{indent}{label:<13}{}", finding.text));
    }
    if let Some(follow_up) = &report.follow_up {
        let run = follow_up.command.as_deref().map(|run| format!(", then: {}", typed(run))).unwrap_or_default();
        lines.push(format!("{indent}{:<13}{}{run}", "try next", follow_up.first));
    }
    if let Some(failure) = &report.failure {
        lines.push(format!("{indent}{:<13}{failure}", "failure"));
    }
    lines.join("\n")
}

/// How long the phases were, and when a bound broke.
fn lasted(report: &Report) -> String {
    let mut text = String::new();
    for phase in &report.phases {
        let seconds = phase.millis as f64 / 1e3;
        text += &match (phase.name.as_str(), broken_after(report)) {
            ("inject", Some(after)) if report.verdict.ending == Ending::Broken => {
                let watched = seconds - after;
                let more = if watched >= 1.0 { format!(", watched for {watched:.0} s more") } else { String::new() };
                format!("   inject broken after {} s{more}", shortest(after))
            }
            (name, _) => format!("   {name} ✓ {} s", shortest(seconds)),
        };
    }
    text
}

fn broken_after(report: &Report) -> Option<f64> {
    report.verdict.bounds.iter().filter_map(|bound| bound.broken_after_ms).min().map(|ms| ms as f64 / 1e3)
}

fn shortest(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1}") } else { format!("{seconds:.0}") }
}

/// The verdict in its colour; without colour where nobody sees it.
fn word(ending: Ending) -> String {
    use anstyle::{AnsiColor, Style};
    let colour = match ending {
        Ending::Held => AnsiColor::Green,
        Ending::Broken => AnsiColor::Red,
        _ => AnsiColor::Yellow,
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    let word = ending.word().to_uppercase();
    // Padded outside the style: escape codes have no width.
    format!("{style}{word}{style:#}{}", " ".repeat(13usize.saturating_sub(word.len())))
}
