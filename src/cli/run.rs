//! `pratfall run`: conducts experiments, one after the other, and exits with what came of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::documents::{self, Variables};
use super::exit::{Exit, Usage};
use super::next::Door;
use super::show::{Place, Screen, follow, summary};
use super::{Output, print, remote, signals, system};
use crate::app::{App, AppError};
use crate::config::schema::Kind;
use crate::document::Problems;
use crate::experiment::{Ending, Experiment};
use crate::lab::{Order, Refusal, follow_up};
use crate::ledger::{Ledger, new_run_id};
use crate::report::{Report, files, junit, markdown};
use crate::units::Seed;

const EXAMPLES: &str = "\
Examples:
  pratfall run experiments/slow-inventory.yaml
  pratfall run experiments --junit junit.xml --fail-on broken,invalid
  pratfall run slow.yaml --on http://127.0.0.1:9900   on a serving proxy, for as long as this command lives
  pratfall run F-7k2m                                 is the failure gone?

Exit codes: 0 held, 1 internal error, 2 usage or bad file, 3 broken, 4 inconclusive, 5 invalid or refused,
6 halted, 130 and 143 by signal, after cleaning up. Of several: signal, 1, 3, 6, 5, 4, 0, the first that occurred.";

/// Conduct experiments and write their reports.
///
/// Binds the listeners of the system file, runs each experiment through baseline, inject and recovery, and writes
/// reports/<run>/report.{json,md,html}. All files are read before anything starts.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    /// Experiments: files, folders, `-`, or failures of the ledger (`F-7k2m` runs its follow-up).
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The system file.
    #[arg(long, env = "PRATFALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Conduct them on a serving proxy, by its admin address.
    #[arg(long, env = "PRATFALL_ON", value_name = "URL")]
    on: Option<String>,
    /// The file with the admin token, for --on.
    #[arg(long, env = "PRATFALL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Write a JUnit report of all runs.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Endings that fail the command; the others become warnings. All but `held` unless said.
    #[arg(long, value_delimiter = ',', value_name = "ENDING,…")]
    fail_on: Option<Vec<String>>,
    /// Where chance comes from, over what the documents say.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Conduct runs whose declared rate cannot answer.
    #[arg(long)]
    underpowered: bool,
    #[command(flatten)]
    variables: Variables,
}

/// An experiment that is about to be conducted.
pub(super) struct Planned {
    pub(super) experiment: Arc<Experiment>,
    pub(super) follow_up_of: Option<String>,
}

impl Run {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Exit> {
        let fail_on = self.fail_on()?;
        if let Some(url) = &self.on {
            let planned = self.plan(None)?;
            let remote = remote::named(url, self.token_file.as_deref(), None, self.config.as_deref())?;
            let (seed, underpowered, fail_on) = (self.seed, self.underpowered, fail_on.as_deref());
            let reports = system::reports(self.config.as_deref());
            let asked = remote::Asked { seed, underpowered, fail_on, reports: &reports, output };
            let (exits, reports) = remote::run(&remote, &planned, &asked).await?;
            self.for_ci(&reports)?;
            return Ok(Exit::worst(exits));
        }
        let (system, folder) = system::read(self.config.as_deref(), &self.variables)?;
        let planned = self.plan(Some((&system, &folder)))?;
        let app = match App::conduct(system, &folder).await {
            Err(AppError::Proxy(taken)) => {
                anstream::eprintln!("refused: {taken}");
                return Ok(Exit::Invalid);
            }
            app => app?,
        };
        let asked = signals::listen(app.control.clone())?;
        let mut exits = Vec::new();
        let mut reports = Vec::new();
        for (index, one) in planned.iter().enumerate() {
            if asked.borrow().is_some() {
                break;
            }
            let place = Place { number: index + 1, of: planned.len() };
            let order = Order {
                seed: self.seed.map(Seed).or(one.experiment.seed).unwrap_or_else(|| Seed(rand::random())),
                run: new_run_id(crate::clock::now()),
                follow_up_of: one.follow_up_of.clone(),
                underpowered: self.underpowered,
                experiment: one.experiment.clone(),
            };
            match conduct(&app, order, place, Door::File(self.config.as_deref()), output).await {
                Ok(report) => {
                    let wanted = fail_on.as_ref().or(one.experiment.fail_on.as_ref());
                    exits.push(Exit::of_report(&report, wanted.map(Vec::as_slice)));
                    reports.push(report);
                }
                Err(error) => {
                    let word = if error.is::<Refusal>() { "refused" } else { "error" };
                    anstream::eprintln!("{word}: {}: {error:#}", one.experiment.name);
                    exits.push(Exit::of(&error));
                }
            }
        }
        self.for_ci(&reports)?;
        let signal = *asked.borrow();
        app.drain().await;
        Ok(signal.map_or_else(|| Exit::worst(exits), Exit::Signal))
    }

    /// What a pipeline asked for.
    fn for_ci(&self, reports: &[Report]) -> anyhow::Result<()> {
        if let Err(error) = job_summary(reports) {
            anstream::eprintln!("warning: the job summary cannot be written: {error}");
        }
        let Some(path) = &self.junit else { return Ok(()) };
        std::fs::write(path, junit::render(reports))
            .map_err(|error| anyhow::anyhow!("{}: {error}; the reports themselves are written", path.display()))
    }

    fn fail_on(&self) -> anyhow::Result<Option<Vec<Ending>>> {
        let Some(words) = &self.fail_on else { return Ok(None) };
        let all = [Ending::Held, Ending::Broken, Ending::Inconclusive, Ending::Invalid, Ending::Halted];
        let find = |word: &String| {
            let found = all.into_iter().find(|ending| ending.word() == word);
            found.ok_or_else(|| Usage(format!("--fail-on: `{word}` is no ending; write broken, invalid, …")).into())
        };
        words.iter().map(find).collect::<anyhow::Result<Vec<_>>>().map(Some)
    }

    /// Reads everything, and names everything that is wrong, before anything starts.
    fn plan(&self, system: Option<(&crate::config::System, &Path)>) -> anyhow::Result<Vec<Planned>> {
        let mut planned = Vec::new();
        let mut wrong: Vec<Problems> = Vec::new();
        let (failures, files): (Vec<_>, Vec<_>) = self.files.iter().cloned().partition(|path| is_failure(path));
        let mut found = Vec::new();
        for failure in &failures {
            let (ledger, _) = system::open(None, self.config.as_deref())?;
            found.push(follow_up_of(&ledger, &failure.to_string_lossy())?);
        }
        for document in documents::read(&files)? {
            let follows = follow_up::failure_of(&document.text).map(ToOwned::to_owned);
            found.push((document, follows));
        }
        for (document, follow_up_of) in found {
            let kind = match Kind::of(&document.name, &document.text) {
                Ok(kind) => kind,
                Err(problems) => {
                    wrong.push(problems);
                    continue;
                }
            };
            if kind != Kind::Experiment {
                let what = if kind == Kind::System {
                    "a system file; name it with --config"
                } else {
                    "a game day, which is read but not conducted by this version; run its experiments one by one"
                };
                return Err(Usage(format!("{}: this is {what}", document.name)).into());
            }
            match Experiment::parse(&document.name, &document.text, &self.variables.get()) {
                Ok((mut experiment, mut problems)) => {
                    for (pointer, why) in experiment.read_files(&crate::app::folder(Path::new(&document.name))) {
                        problems.error(&pointer, why, Some(documents::BESIDE.to_owned()));
                    }
                    if let Some((system, _)) = system {
                        experiment.check_names(&mut problems, &system.listener_names(), &system.probe_names());
                    }
                    if problems.has_errors() {
                        wrong.push(problems);
                        continue;
                    }
                    if !problems.is_empty() {
                        anstream::eprintln!("{problems}\n");
                    }
                    planned.push(Planned { experiment: Arc::new(experiment), follow_up_of });
                }
                Err(problems) => wrong.push(problems),
            }
        }
        if wrong.is_empty() {
            return Ok(planned);
        }
        let told: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        Err(Usage(format!("nothing was started\n\n{}", told.join("\n\n"))).into())
    }
}

fn is_failure(path: &Path) -> bool {
    !path.exists() && path.to_str().is_some_and(|text| text.len() > 2 && text[..2].eq_ignore_ascii_case("F-"))
}

/// The follow-up that the latest broken run of a failure proposed.
pub(super) fn follow_up_of(ledger: &Ledger, failure: &str) -> anyhow::Result<(documents::Document, Option<String>)> {
    let row = ledger.failure(failure)?;
    let runs = ledger.runs(usize::MAX >> 1)?;
    let run = runs.iter().find(|run| run.failure.as_deref() == Some(row.id.as_str()));
    let run = run.ok_or_else(|| Usage(format!("{}: no run of this failure is in the ledger", row.id)))?;
    let report = ledger.report(&run.id)?;
    let follow_up = report.follow_up.ok_or_else(|| Usage(format!("{}: its report proposes no follow-up", row.id)))?;
    Ok((documents::Document { name: format!("{} (follow-up)", row.id), text: follow_up.document }, Some(row.id)))
}

/// Conducts one experiment, shows it, and writes its report.
pub(super) async fn conduct(
    app: &App,
    order: Order,
    place: Place,
    door: Door<'_>,
    output: Output,
) -> anyhow::Result<Report> {
    known_before(app, &order.experiment);
    let started = app.control.start(order, false)?;
    follow(started.progress, Screen::new(place)).await;
    let mut report = started.result.await??;
    let saved = save(&mut report, &app.reports, door);
    tell(&report, place, saved.as_deref().ok(), output);
    let unsaved = saved.err();
    let ledger = app.ledger.clone().filter(|_| unsaved.is_some());
    if let Some(why) = unsaved {
        // Whoever cannot be written to a file here has likely found no room in the ledger either.
        let kept = ledger.is_some_and(|ledger| ledger.report(&report.run).is_ok());
        let where_it_is = if kept { "the ledger has it" } else { "the ledger did not take it either: it is lost" };
        return Err(why.context(where_it_is));
    }
    Ok(report)
}

/// Writes the files of a report, with what to type next in them. What cannot be written leaves nothing behind.
pub(super) fn save(report: &mut Report, reports: &Path, door: Door<'_>) -> anyhow::Result<PathBuf> {
    door.show(report, Some(&reports.join(&report.run)));
    files::save(report, reports).map_err(|error| {
        let folder = reports.display();
        anyhow::anyhow!("the report of {} cannot be written to {folder}: {error}", report.run)
    })
}

/// Prints what came of a run, and where its report is, if it could be written.
pub(super) fn tell(report: &Report, place: Place, folder: Option<&Path>, output: Output) {
    match output {
        Output::Text => {
            print(summary(report, place));
            let end = if place.number == place.of { "" } else { "\n" };
            if let Some(folder) = folder {
                print(format!("{:<18}{}{end}", "report", folder.join("report.html").display()));
            }
        }
        Output::Json => print(json!({ "report": report, "folder": folder })),
    }
}

/// Failures of the same experiment, fault or place: who runs it again should know what it broke before.
fn known_before(app: &App, experiment: &Experiment) {
    let kind = experiment.inject.faults.first().map_or("", |fault| fault.kind());
    let similar =
        app.ledger.as_ref().and_then(|ledger| ledger.similar(&experiment.name, kind, &experiment.inject.at).ok());
    for failure in similar.unwrap_or_default() {
        anstream::eprintln!("seen before: {}  {}  ({})", failure.id, failure.title, failure.state.word());
    }
}

/// GitHub shows what is appended to this file beside the job; it takes 1 MiB a step.
fn job_summary(reports: &[Report]) -> std::io::Result<()> {
    const MOST: usize = 900 << 10;
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else { return Ok(()) };
    let mut file = std::fs::File::options().create(true).append(true).open(path)?;
    let mut written = 0;
    for text in reports.iter().map(markdown::render) {
        written += text.len();
        if written > MOST {
            break;
        }
        std::io::Write::write_all(&mut file, format!("{text}\n").as_bytes())?;
    }
    Ok(())
}
