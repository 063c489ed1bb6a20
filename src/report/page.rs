//! What a report says and in which order, before it is Markdown or HTML: both say the same, each in its own dress.
//!
//! Every text in a page has been through [`words`], so that it is one line (or a document) without hidden characters;
//! a dress escapes it for its own language and does nothing else.

use super::chart::{self, Chart};
use super::evidence;
use super::people;
use super::playbook::play;
use super::words;
use super::{Class, Ending, Hypothesis, Report};

/// The longest title that is shown; names beyond it are cut, the model keeps them.
const TITLE: usize = 160;
/// The longest sentence that is shown.
const SENTENCE: usize = 1200;

/// A report, ready to be dressed.
#[derive(Debug)]
pub(super) struct Page {
    pub title: String,
    pub ending: Ending,
    /// What the ending means, in one sentence.
    pub meaning: &'static str,
    pub expected: String,
    pub seen: String,
    /// Who, when, how long.
    pub facts: Vec<Term>,
    pub sections: Vec<Section>,
}

/// A part of a page.
#[derive(Debug)]
pub(super) struct Section {
    pub id: &'static str,
    pub title: &'static str,
    pub blocks: Vec<Block>,
}

/// What a section consists of.
#[derive(Debug)]
pub(super) enum Block {
    /// A paragraph.
    Text(String),
    /// A paragraph in small print.
    Small(String),
    /// The sentence that a section is about.
    Lead(String),
    /// Names and what they stand for.
    Terms(Vec<Term>),
    /// Figures to be seen at once.
    Figures(Vec<Figure>),
    Table(Table),
    List(Vec<String>),
    Notes(Vec<Note>),
    /// What to type.
    Command(String),
    /// A document to unfold.
    Document {
        summary: &'static str,
        text: String,
    },
    Chart(Chart),
    Whys(Vec<WhyLine>),
    /// A question that only people can answer, and room for it.
    Blank(&'static str),
}

/// A name and what it stands for.
#[derive(Debug)]
pub(super) struct Term {
    pub name: &'static str,
    pub text: String,
}

/// A figure, what it counts, and what it should be seen beside.
#[derive(Debug)]
pub(super) struct Figure {
    pub name: &'static str,
    pub value: String,
    pub note: String,
}

#[derive(Debug)]
pub(super) struct Table {
    /// What the table shows, for those who cannot see it.
    pub caption: &'static str,
    pub head: Vec<Head>,
    pub rows: Vec<Row>,
    /// What the notes of its rows are called; empty where rows have none.
    pub notes: &'static str,
}

#[derive(Debug)]
pub(super) struct Head {
    pub text: String,
    /// Whether its cells are figures, which stand at the right.
    pub figures: bool,
}

#[derive(Debug)]
pub(super) struct Row {
    pub cells: Vec<Cell>,
    pub note: String,
}

#[derive(Debug, Default)]
pub(super) struct Cell {
    pub text: String,
    /// In small print below it.
    pub below: String,
    pub look: Look,
}

/// How a cell is shown where there is more than text.
#[derive(Debug, Default)]
pub(super) enum Look {
    #[default]
    Plain,
    Verdict(Ending),
    Interval(chart::Interval),
    /// How much of what is needed there is, 0 to 100.
    Meter(f64),
    /// Room for people to write.
    Blank,
}

/// Something that was seen.
#[derive(Debug)]
pub(super) struct Note {
    pub text: String,
    pub kind: String,
    pub evidence: String,
    pub advice: String,
}

/// One line of the tree of whys.
#[derive(Debug)]
pub(super) struct WhyLine {
    /// Its place in the tree: `1.2`.
    pub number: String,
    /// 0 for the first level.
    pub depth: usize,
    pub question: String,
    /// None where people have to find it.
    pub answer: Option<String>,
    pub evidence: String,
}

impl Page {
    /// What a report has to say to a stranger, from top to bottom.
    pub(super) fn of(report: &Report) -> Self {
        let mut sections = Vec::new();
        let mut add = |id, title, blocks: Vec<Block>| {
            if !blocks.is_empty() {
                sections.push(Section { id, title, blocks });
            }
        };
        let ending = report.verdict.ending;
        if ending == Ending::Invalid {
            add("why", "What is wrong", why(report));
            add("next", "How to repair it", repair(report));
            add("fidelity", "What reached the fault", evidence::fidelity(&report.fidelity));
            add("hypothesis", "Hypothesis", hypothesis(&report.hypothesis));
            add("bounds", "What was measured all the same", evidence::bounds(report));
        } else {
            add("why", "Why", why(report));
            add("next", "What to try next", next(report));
            add("hypothesis", "Hypothesis", hypothesis(&report.hypothesis));
            add("bounds", "Verdict by bound", evidence::bounds(report));
        }
        add("charts", "Second by second", chart::of(report).into_iter().map(Block::Chart).collect());
        add("impact", "Impact", evidence::impact(&report.impact, report.fidelity.undecided));
        if ending != Ending::Invalid {
            add("fidelity", "Fidelity: asked and applied", evidence::fidelity(&report.fidelity));
        }
        add("latency", "Phases and latency", evidence::latency(report));
        add("findings", "Findings", evidence::findings(&report.findings));
        add("timeline", "Timeline", evidence::timeline(&report.timeline));
        add("recovery", "Recovery", evidence::recovery(report));
        let analysed = !matches!(ending, Ending::Held | Ending::Invalid);
        if let Some(kind) = report.class.filter(|_| analysed) {
            add("class", "Kind of weakness", class(kind));
        }
        add("surprise", "Surprise", surprise(report));
        add("questions", "Open questions", list(&report.questions));
        if analysed && (ending == Ending::Broken || !report.whys.is_empty()) {
            add("whys", "Five whys", people::whys(&report.whys));
        }
        if analysed && (ending == Ending::Broken || !report.actions.is_empty()) {
            add("actions", "Actions", people::actions(&report.actions));
        }
        if ending == Ending::Broken {
            add("review", "Review", people::review(report.ended_at));
        }
        add("similar", "Similar failures", list(&report.similar));
        add("replay", "Replay", replay(report));
        Self {
            title: line(if report.title.trim().is_empty() { &report.experiment } else { &report.title }, TITLE),
            ending,
            meaning: meaning(ending),
            expected: sentence(&report.expected),
            seen: sentence(&report.seen),
            facts: facts(report),
            sections,
        }
    }
}

/// What an ending means to somebody who has never seen one.
fn meaning(ending: Ending) -> &'static str {
    match ending {
        Ending::Held => "The hypothesis stands: every bound was shown to be kept.",
        Ending::Broken => "The hypothesis is wrong: the system does not do what we believed.",
        Ending::Inconclusive => "The run cannot tell: there is not enough evidence either way.",
        Ending::Invalid => "The set-up was wrong: this run says nothing about the hypothesis.",
        Ending::Halted => "Ended before its plan, and before a verdict.",
    }
}

fn facts(report: &Report) -> Vec<Term> {
    let fact = |name, text: &str| Term { name, text: line(text, TITLE) };
    let millis = report.ended_at.duration_since(report.started_at).as_millis().max(0);
    let mut facts = vec![
        fact("Experiment", &report.experiment),
        fact("Run", &report.run),
        Term { name: "Began", text: words::moment(report.started_at) },
        Term { name: "Took", text: words::length(u64::try_from(millis).unwrap_or_default()) },
    ];
    if let Some(owner) = &report.owner {
        facts.insert(2, fact("Owner", owner));
    }
    if let Some(failure) = &report.failure {
        facts.push(fact("Failure", failure));
    }
    if !report.tags.is_empty() {
        facts.push(fact("Tags", &report.tags.join(", ")));
    }
    facts
}

fn why(report: &Report) -> Vec<Block> {
    let mut blocks = vec![Block::Lead(sentence(&report.verdict.reason))];
    let mut terms = Vec::new();
    let causes = || report.findings.iter().filter(|it| report.verdict.ending == Ending::Broken && it.is_cause());
    if let Some(cause) = causes().find(|finding| finding.advice.is_some()).or_else(|| causes().next()) {
        terms.push(term("Seen beside it", &cause.text));
    }
    if let Some(by) = &report.verdict.ended_by {
        terms.push(term("Ended by", by));
    }
    if let Some(missing) = report.verdict.missing.as_ref().filter(|_| report.verdict.ending != Ending::Invalid) {
        terms.push(term("What would settle it", missing));
    }
    if !terms.is_empty() {
        blocks.push(Block::Terms(terms));
    }
    blocks
}

/// For a run whose set-up was wrong: what to put right before anything can be learned.
fn repair(report: &Report) -> Vec<Block> {
    let mut steps: Vec<String> = report.verdict.missing.iter().map(|missing| sentence(missing)).collect();
    steps.extend(report.follow_up.iter().map(|follow_up| sentence(&follow_up.first)));
    steps.extend(report.findings.iter().filter_map(|finding| finding.advice.as_deref()).map(sentence));
    steps.dedup();
    let mut blocks = if steps.is_empty() { Vec::new() } else { vec![Block::List(steps)] };
    if report.fidelity.uncarried > 0 && report.fidelity.faulted == 0 {
        const BY_HAND: &str = "To see without any fault who passes the context on: send a request with the header \
             `baggage: who=me`, and look for it on the calls that the application makes.";
        blocks.push(Block::Text(BY_HAND.to_owned()));
    }
    if let Some(follow_up) = report.follow_up.as_ref().filter(|it| !it.document.trim().is_empty()) {
        blocks.push(Block::Document { summary: "The experiment, repaired", text: words::lines(&follow_up.document) });
    }
    blocks
}

fn next(report: &Report) -> Vec<Block> {
    let Some(follow_up) = &report.follow_up else { return Vec::new() };
    let mut first = sentence(&follow_up.first);
    if let Some(letter) = first.get_mut(..1) {
        letter.make_ascii_uppercase();
    }
    let mut blocks = vec![Block::Lead(first)];
    const CLOSES: &str = "Then run the follow-up; the failure closes when it holds:";
    let (text, command) = match (&follow_up.command, &report.failure) {
        (Some(command), _) => (CLOSES, sentence(command)),
        (None, Some(failure)) => {
            let command = format!("pratfall run {}", words::shell(&line(failure, TITLE)));
            (CLOSES, command)
        }
        (None, None) => {
            let text = "Then save the document below as follow-up.yaml and run it:";
            (text, "pratfall run follow-up.yaml".to_owned())
        }
    };
    if !follow_up.document.trim().is_empty() {
        blocks.push(Block::Text(text.to_owned()));
        blocks.push(Block::Command(command));
        blocks.push(Block::Document { summary: "The follow-up experiment", text: words::lines(&follow_up.document) });
    }
    blocks
}

fn hypothesis(hypothesis: &Hypothesis) -> Vec<Block> {
    match hypothesis {
        Hypothesis::Sentence(text) if text.trim().is_empty() => Vec::new(),
        Hypothesis::Sentence(text) => vec![Block::Text(sentence(text))],
        Hypothesis::Steps { given, when, then, predict } => {
            let mut terms = vec![term("Given", given), term("When", when), term("Then", then)];
            if let Some(predict) = predict {
                let text = format!("{}, {} sure", predict.outcome.word(), words::share(predict.sure.ratio()));
                terms.push(Term { name: "Predicted", text });
            }
            vec![Block::Terms(terms)]
        }
    }
}

fn class(class: Class) -> Vec<Block> {
    let play = play(class);
    let mut text = play.word.replace('-', " ");
    text[..1].make_ascii_uppercase();
    let advice = |name, text: &str| Term { name, text: text.to_owned() };
    vec![
        Block::Lead(format!("{text}. {}", play.meaning)),
        Block::Terms(vec![
            advice("Look first at", play.look),
            advice("Helps at once", play.relief),
            advice("Helps for good", play.repair),
        ]),
        Block::Small("From the playbook of this kind; the evidence of this run is above.".to_owned()),
    ]
}

fn surprise(report: &Report) -> Vec<Block> {
    let Some(surprise) = &report.surprise else { return Vec::new() };
    let note = |text: &str| text.to_owned();
    vec![
        Block::Lead(sentence(&surprise.text)),
        Block::Figures(vec![
            Figure {
                name: "Predicted",
                value: surprise.predicted.word().to_owned(),
                note: format!("{} sure", words::share(surprise.sure.ratio())),
            },
            Figure { name: "Happened", value: report.verdict.ending.word().to_owned(), note: String::new() },
            Figure {
                name: "Brier score",
                value: words::number(surprise.brier, 2),
                note: note("0 is perfect, 0.25 a coin, 1 as wrong as can be"),
            },
        ]),
    ]
}

fn replay(report: &Report) -> Vec<Block> {
    let replay = &report.replay;
    let blocks: usize = replay.blocks.iter().map(|it| it.inject.len() + it.recovery.len()).sum();
    let usual = || format!("pratfall report {} --replay", words::shell(&line(&report.run, TITLE)));
    let mut shown = vec![
        Block::Text("The same verdict again, from the ledger's counts and without any traffic:".to_owned()),
        Block::Command(replay.command.as_deref().map_or_else(usual, sentence)),
        Block::Terms(vec![
            Term { name: "Seed", text: replay.seed.to_string() },
            term("Engine", &replay.engine),
            Term { name: "Blocks", text: words::count(blocks as u64) },
            Term { name: "Model", text: report.schema.to_string() },
        ]),
    ];
    if !replay.document.trim().is_empty() {
        shown.push(Block::Document { summary: "The experiment's document", text: words::lines(&replay.document) });
    }
    shown
}

fn list(texts: &[String]) -> Vec<Block> {
    if texts.is_empty() { Vec::new() } else { vec![Block::List(texts.iter().map(|text| sentence(text)).collect())] }
}

impl Cell {
    pub(super) fn text(text: String) -> Self {
        Self { text, ..Self::default() }
    }

    pub(super) fn below(mut self, below: String) -> Self {
        self.below = below;
        self
    }
}

pub(super) fn line(text: &str, at_most: usize) -> String {
    words::line(text, at_most)
}

pub(super) fn sentence(text: &str) -> String {
    words::line(text, SENTENCE)
}

pub(super) fn term(name: &'static str, text: &str) -> Term {
    Term { name, text: sentence(text) }
}
