//! The measured parts of a page: bounds, impact, fidelity, latency, findings, timeline, recovery.

use super::chart::Interval;
use super::page::{Block, Cell, Figure, Head, Look, Note, Row, Table, Term, line, sentence, term};
use super::words;
use super::{BoundVerdict, Counted, Ending, Fidelity, Finding, ImpactReport, Moment, Report};
use crate::units::Increase;

/// The longest name in a cell.
const NAME: usize = 120;
/// Moments of a timeline that are shown; the model keeps the rest.
const MOMENTS: usize = 200;

/// The names of the indicators, in the order of their counters.
pub(super) fn indicators(report: &Report) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for bound in &report.verdict.bounds {
        let name = line(&bound.indicator, NAME);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

pub(super) fn bounds(report: &Report) -> Vec<Block> {
    if report.verdict.bounds.is_empty() {
        return Vec::new();
    }
    let confidence = words::share(report.verdict.confidence.ratio());
    let small = format!(
        "Confidence {confidence}. ln E is the natural logarithm of the evidence: 0 is none, \
         each 2.3 more is ten times as much, and below 0 it speaks against. A bound is shown broken as soon as ln E reaches what it needs, and shown \
         kept only at the planned end. The interval is a 95 % interval at one look; it describes and does not decide."
    );
    let caveat = match report.verdict.ending {
        Ending::Invalid => {
            Some("The set-up was wrong, so that none of these figures speaks for or against the hypothesis.")
        }
        Ending::Halted => Some("The run ended before its plan: what was not broken by then is open, not kept."),
        _ => None,
    };
    let (now, against) = if report.fidelity.phases_compared { ("Inject", "Baseline") } else { ("Treated", "Control") };
    let head = [
        ("Bound", false),
        ("Verdict", false),
        (now, true),
        (against, true),
        ("Estimate", true),
        ("Allowed", true),
        ("Evidence, ln E", true),
    ];
    let table = Table {
        caption: "The verdict on each bound of each indicator",
        head: heads(&head),
        rows: report.verdict.bounds.iter().map(|it| bound(it, ending(report, it))).collect(),
        notes: "Why",
    };
    let mut blocks: Vec<_> = caveat.map(|text| Block::Text(text.to_owned())).into_iter().collect();
    blocks.push(Block::Table(table));
    blocks.push(Block::Small(small));
    blocks
}

/// A bound is no better off than its run: nothing is kept in a run that says nothing.
pub(super) fn ending(report: &Report, bound: &BoundVerdict) -> Ending {
    match report.verdict.ending {
        Ending::Invalid | Ending::Halted => report.verdict.ending,
        Ending::Inconclusive if report.verdict.bounds.iter().all(|it| it.ending != Ending::Inconclusive) => {
            Ending::Inconclusive
        }
        Ending::Held | Ending::Broken | Ending::Inconclusive => bound.ending,
    }
}

fn bound(bound: &BoundVerdict, shown: Ending) -> Row {
    let figure = |value| if bound.increase.is_some() { words::points(value) } else { words::share(value) };
    let (low, high) = bound.interval;
    let allowed = match bound.increase {
        Some(Increase::Ratio(ratio)) => format!("{} ×", words::number(ratio, 2)),
        Some(Increase::Points(_)) => words::points(bound.margin),
        None => words::share(bound.margin),
    };
    let held = (bound.log_e_held, bound.needs_held, "held");
    let broken = (bound.log_e_broken, bound.needs_broken, "broken");
    // What decided stands first; where nothing did, how far it is to "held".
    let (first, second) = if bound.ending == Ending::Broken { (broken, held) } else { (held, broken) };
    let of = |(log_e, needs, word): (f64, f64, &str)| {
        format!("{} of {} for {word}", words::number(log_e, 1), words::number(needs, 1))
    };
    let meter = (first.0 / first.1 * 100.0).clamp(0.0, 100.0);
    let interval = Interval::new(bound.estimate, bound.interval, bound.margin);
    let cells = vec![
        Cell::text(line(&bound.indicator, NAME)).below(format!(
            "{}, at {}",
            line(&bound.bound, NAME),
            line(&bound.at, NAME)
        )),
        Cell { text: shown.word().to_owned(), look: Look::Verdict(shown), ..Cell::default() },
        counted(bound.treated),
        counted(bound.control),
        Cell {
            text: figure(bound.estimate),
            below: format!("{} to {}", figure(low), figure(high)),
            // A ratio has no place on an axis of differences.
            look: match (bound.increase, interval) {
                (Some(Increase::Ratio(_)), _) | (_, None) => Look::Plain,
                (_, Some(interval)) => Look::Interval(interval),
            },
        },
        Cell::text(allowed),
        Cell { text: of(first), below: of(second), look: Look::Meter(if meter.is_nan() { 0.0 } else { meter }) },
    ];
    Row { cells, note: sentence(&bound.why) }
}

fn counted(counted: Counted) -> Cell {
    if counted.of == 0 {
        return Cell::text("none".to_owned());
    }
    let below = format!("{} of {}", words::number(counted.bad, 1), words::count(counted.of));
    Cell::text(words::share(counted.share())).below(below)
}

pub(super) fn impact(impact: &ImpactReport, undecided: u64) -> Vec<Block> {
    let open = format!("; {} of them are in no verdict", words::count(undecided));
    let mut figures = vec![
        Figure {
            name: "Harmed",
            value: words::count(impact.harmed),
            note: format!(
                "of {} treated, while the fault was on{}",
                words::count(impact.treated),
                if undecided > 0 { &open } else { "" }
            ),
        },
        Figure {
            name: "Of the treated",
            value: words::share(impact.share_of_treated),
            note: format!("{} of all matching traffic", words::share(impact.share_of_traffic)),
        },
        Figure {
            name: "At 100 %",
            value: format!("{}/min", words::number(impact.projected_per_minute, 0)),
            note: "would be harmed if everybody had been treated".to_owned(),
        },
    ];
    if let Some(loss) = impact.projected_loss {
        figures.push(Figure {
            name: "Projected loss",
            value: words::number(loss, 0),
            note: format!(
                "at 100 %, for an outage of {}, by the value per request",
                words::length(impact.outage.get().as_millis() as u64)
            ),
        });
    }
    if let Some(score) = impact.score {
        figures.push(Figure {
            name: "Impact score",
            value: format!("{} / 100", words::count(score.into())),
            note: sentence(&impact.score_parts),
        });
    }
    vec![Block::Figures(figures)]
}

pub(super) fn fidelity(fidelity: &Fidelity) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !fidelity.faults.is_empty() {
        let faults: Vec<_> = fidelity.faults.iter().map(|fault| line(fault, NAME)).collect();
        blocks.push(Block::Terms(vec![term("Fault", &faults.join("; ")), term("Where", &fidelity.at)]));
    }
    let [treatment, control, bystander] = fidelity.enrolled;
    let figure = |name, value, note: &str| Figure { name, value: words::count(value), note: note.to_owned() };
    let (enrolled, carried) = if fidelity.phases_compared {
        let measured = figure("Measured", treatment, "requests where the indicators are, all phases");
        (measured, figure("Drawn", fidelity.carried[0], "calls, while the fault was on"))
    } else {
        let carried = figure("Carried", fidelity.carried[0], "of their calls arrived with the mark");
        (figure("Treated", treatment, "requests at the slice, all phases"), carried)
    };
    blocks.push(Block::Figures(vec![
        enrolled,
        carried,
        figure("Eligible", fidelity.eligible, "matched while the fault was on"),
        figure("Faulted", fidelity.faulted, "met the fault"),
        figure("Units exposed", fidelity.exposed_units, "treated units that met it"),
    ]));
    let asked = asked_and_applied(fidelity);
    blocks.push(Block::Table(Table {
        caption: "What was asked and what was applied",
        head: heads(&[("Measure", false), ("Asked", true), ("Applied", true)]),
        rows: asked.into_iter().map(|cells| plain(cells.map(Cell::text).into())).collect(),
        notes: "",
    }));
    let mut rest = Vec::new();
    if fidelity.phases_compared {
        let text = format!("{} while the fault was on", words::many(fidelity.carried[1], "call", "calls"));
        rest.push(Term { name: "Not drawn", text });
    }
    rest.extend((!fidelity.phases_compared).then(|| Term {
        name: "In the other arms",
        text: format!(
            "{}, {}; {} of control with the mark",
            words::many(control, "request in control", "requests in control"),
            words::many(bystander, "bystander", "bystanders"),
            words::many(fidelity.carried[1], "call", "calls"),
        ),
    }));
    if !fidelity.carried_by.is_empty() {
        let by = |(carrier, calls): &(String, u64)| format!("{} ({})", line(carrier, NAME), words::count(*calls));
        let text = fidelity.carried_by.iter().map(by).collect::<Vec<_>>().join(", ");
        rest.push(Term { name: "Carried by", text });
    }
    rest.extend((!fidelity.phases_compared).then(|| Term {
        name: "Without the mark",
        text: format!("{} at the fault's listener", words::many(fidelity.uncarried, "call", "calls")),
    }));
    if fidelity.ambiguous > 0 {
        let calls = words::many(fidelity.ambiguous, "call", "calls");
        rest.push(Term {
            name: "Of several arms",
            text: format!("{calls} with an id that requests of several arms have"),
        });
    }
    let spared: Vec<_> = fidelity.spared.iter().map(|(reason, number)| spared(reason, *number)).collect();
    rest.push(Term {
        name: "Let through",
        text: if spared.is_empty() { "no call of the treatment".to_owned() } else { spared.join("; ") },
    });
    if fidelity.undecided > 0 {
        let many = words::many(fidelity.undecided, "treated unit is", "treated units are");
        let text = format!(
            "{many} in no verdict: the fault was taken off early, and how those under way would have ended nobody knows"
        );
        rest.push(Term { name: "Undecided", text });
    }
    if fidelity.unkeyed > 0 {
        rest.push(Term {
            name: "Without a key",
            text: words::many(fidelity.unkeyed, "request in no arm", "requests in no arm"),
        });
    }
    if fidelity.no_id > 0 {
        let text = words::many(fidelity.no_id, "request in no arm", "requests in no arm");
        rest.push(Term { name: "Without an id", text });
    }
    if fidelity.no_room > 0 {
        let text = words::many(fidelity.no_room, "request in no arm", "requests in no arm");
        rest.push(Term { name: "Baggage full", text });
    }
    if let Some(load) = fidelity.load {
        let text = format!("{} shed, {} failed", words::count(load.shed), words::count(load.failed));
        rest.push(Term { name: "Of the own load", text });
    }
    blocks.push(Block::Terms(rest));
    blocks
}

/// Why calls of the treatment did not meet the fault.
fn spared(reason: &str, number: u64) -> String {
    let why = match reason {
        "ended" => "came when the fault was off again, for a request that had arrived before",
        "no_match" => "not a call that the fault is for",
        "protected" => "on a protected route",
        "probe" => "health probes, which nothing named",
        "share" => "not in the share of calls that was asked for",
        "attempts" => "a later attempt than those that were asked for",
        "limit" => "as many were held as may be",
        "budget" => "the budget of faults was spent",
        "not_repeatable" => "not to be sent twice",
        "too_large" => "too large to be sent twice",
        "below_limit" => "within what the overload takes",
        "no_body" => "had no body for the fault to meet, or a shorter one",
        other => other,
    };
    format!("{} ({})", words::count(number), line(why, NAME))
}

fn asked_and_applied(fidelity: &Fidelity) -> Vec<[String; 3]> {
    let row = |name: &str, asked, applied| [name.to_owned(), asked, applied];
    let mut rows = vec![row(
        if fidelity.phases_compared {
            "Share of the calls that were drawn"
        } else {
            "Treatment, share of matching traffic"
        },
        words::share(fidelity.treatment_asked),
        words::share(fidelity.treatment_applied),
    )];
    if let Some(delay) = fidelity.delay {
        let ms = |value| format!("{} ms", words::millis(value));
        rows.push(row(
            &format!("Delay, median of {}", words::count(delay.n)),
            ms(delay.asked_p50),
            ms(delay.applied_p50),
        ));
        rows.push(row("Delay, 99th percentile", ms(delay.asked_p99), ms(delay.applied_p99)));
    }
    if let Some(load) = fidelity.load {
        rows.push(row(
            "Own load",
            format!("{}/s", words::number(load.asked_rate, 1)),
            format!("{} sent", words::count(load.sent)),
        ));
    }
    rows
}

pub(super) fn latency(report: &Report) -> Vec<Block> {
    let names = indicators(report);
    let mut head = heads(&[("Phase", false), ("Arm", false), ("Units", true)]);
    head.extend(names.iter().map(|name| Head { text: format!("Bad: {}", line(name, 40)), figures: true }));
    head.extend(heads(&[("p50 ms", true), ("p90 ms", true), ("p95 ms", true), ("p99 ms", true)]));
    let mut rows = Vec::new();
    // An arm in which nobody was in any phase says nothing.
    let came = |arm| report.phases.iter().flat_map(|phase| &phase.arms).any(|it| it.arm == arm && it.units > 0);
    for phase in &report.phases {
        for arm in phase.arms.iter().filter(|it| came(it.arm)) {
            let mut cells = vec![
                Cell::text(line(&phase.name, NAME)),
                Cell::text(arm.arm.word().to_owned()),
                Cell::text(words::count(arm.units)),
            ];
            cells.extend((0..names.len()).map(|place| match arm.bad.get(place) {
                Some(bad) if bad.of > 0 => Cell::text(words::share(bad.share())),
                _ => Cell::text("–".to_owned()),
            }));
            match arm.quantiles {
                Some(quantiles) => cells.extend(quantiles.map(|value| Cell::text(words::millis(value)))),
                None => cells.extend((0..4).map(|_| Cell::text("–".to_owned()))),
            }
            rows.push(plain(cells));
        }
    }
    if rows.is_empty() {
        return Vec::new();
    }
    let mut blocks =
        vec![Block::Table(Table { caption: "What was measured in each phase and arm", head, rows, notes: "" })];
    if report.fidelity.undecided > 0 {
        blocks.push(Block::Small(
            "Units are those that arrived. The verdict leaves out whoever was let go undecided; latencies have them."
                .to_owned(),
        ));
    }
    blocks
}

pub(super) fn findings(findings: &[Finding]) -> Vec<Block> {
    let note = |finding: &Finding| Note {
        text: sentence(&finding.text),
        kind: line(&finding.kind, NAME),
        evidence: sentence(&finding.evidence),
        advice: finding.advice.as_deref().map(sentence).unwrap_or_default(),
    };
    if findings.is_empty() { Vec::new() } else { vec![Block::Notes(findings.iter().map(note).collect())] }
}

pub(super) fn timeline(moments: &[Moment]) -> Vec<Block> {
    if moments.is_empty() {
        return Vec::new();
    }
    let row = |moment: &Moment| {
        plain(vec![
            Cell::text(words::place(moment.at_ms)),
            Cell::text(line(&moment.source, NAME)),
            Cell::text(sentence(&moment.text)),
        ])
    };
    let mut blocks = vec![Block::Table(Table {
        caption: "What happened when, and who says so",
        head: heads(&[("Time", true), ("Source", false), ("What happened", false)]),
        rows: moments.iter().take(MOMENTS).map(row).collect(),
        notes: "",
    })];
    if moments.len() > MOMENTS {
        let left = words::count((moments.len() - MOMENTS) as u64);
        blocks.push(Block::Small(format!("{left} more are in the JSON report.")));
    }
    blocks
}

pub(super) fn recovery(report: &Report) -> Vec<Block> {
    let Some(recovery) = &report.recovery else { return Vec::new() };
    let text = match (recovery.recovered, recovery.after_ms) {
        (true, Some(0)) => "Well again as soon as the fault had ended.".to_owned(),
        (true, Some(after)) => format!("Well again {} after the fault had ended.", words::length(after)),
        (true, None) => "No sign of lasting harm; the moment of recovery was not seen.".to_owned(),
        (false, Some(after)) => {
            format!("Not well again in time; the first quiet moment came after {}.", words::length(after))
        }
        (false, None) => "Not well again before the run ended.".to_owned(),
    };
    let mut blocks = vec![Block::Lead(text)];
    let judged: Vec<_> = report.verdict.bounds.iter().filter_map(|it| Some((it, it.log_e_not_recovered?))).collect();
    if !judged.is_empty() {
        let rows = judged.into_iter().map(|(bound, log_e)| {
            plain(vec![
                Cell::text(line(&bound.indicator, NAME)).below(line(&bound.bound, NAME)),
                Cell::text(words::number(log_e, 1)),
                Cell::text(words::number(bound.needs_broken, 1)),
            ])
        });
        blocks.push(Block::Table(Table {
            caption: "Evidence that the system was not well again",
            head: heads(&[("Bound", false), ("ln E for not recovered", true), ("Needed", true)]),
            rows: rows.collect(),
            notes: "",
        }));
    }
    blocks
}

fn heads(heads: &[(&str, bool)]) -> Vec<Head> {
    heads.iter().map(|(text, figures)| Head { text: (*text).to_owned(), figures: *figures }).collect()
}

fn plain(cells: Vec<Cell>) -> Row {
    Row { cells, note: String::new() }
}
