//! `pratfall demo`: a shop with a hidden weakness, one hypothesis that holds, one that breaks; and the shop mended.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::exit::Exit;
use super::next::{DEMO_FOLDER, DEMO_LEDGER, DEMO_SYSTEM, Door, typed};
use super::run::{conduct, follow_up_of};
use super::show::Place;
use super::{Output, print, signals};
use crate::app::App;
use crate::config::System;
use crate::demo;
use crate::experiment::{Ending, Experiment};
use crate::lab::Order;
use crate::ledger::{Ledger, new_run_id};
use crate::units::Seed;

const EXAMPLES: &str = "\
Examples:
  pratfall demo
  pratfall demo --fixed                     the shop has a timeout now: does the failure close?
  pratfall demo --reports /tmp/reports
  pratfall log --ledger reports/demo.db     what the demo remembered";

/// Break a small shop on purpose, in about a minute, and see what comes of it.
///
/// Starts a shop and its inventory service on ports of this machine, sends about 300 requests a second through
/// Pratfall, and tests two hypotheses: one is held, one is broken. Needs nothing and leaves only reports.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Demo {
    /// Mend the shop first, and run the follow-up of the failure that the demo found.
    #[arg(long)]
    fixed: bool,
    /// Where reports and the demo's ledger are written.
    #[arg(long, default_value = DEMO_FOLDER, value_name = "FOLDER")]
    reports: PathBuf,
    /// Where chance comes from.
    #[arg(long, default_value_t = 2026, value_name = "NUMBER")]
    seed: u64,
}

/// What the demo teaches, and how it should end.
struct Lesson {
    name: String,
    document: String,
    follow_up_of: Option<String>,
    expected: Ending,
}

const FALLBACK: &str = include_str!("../demo/fallback.yaml");
const SLOW: &str = include_str!("../demo/slow.yaml");
/// The experiment of the second.
const SLOW_NAME: &str = "demo-inventory-slow";

/// How long the mended shop waits: below the 500 ms that the report advises, and well above what a busy machine takes. A
/// call that is given up costs a connection, and too many of these make a slow machine slower.
const PATIENCE: Duration = Duration::from_millis(450);

/// How often a lesson is given where a busy machine keeps it from telling.
const TRIES: u32 = 3;

impl Demo {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Exit> {
        let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let middle = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let inventory = demo::inventory().await?;
        let shop = match self.fixed {
            true => demo::shop_with_timeout(middle.local_addr()?, PATIENCE).await?,
            false => demo::shop(middle.local_addr()?).await?,
        };
        let addresses = [front.local_addr()?, shop.address(), middle.local_addr()?, inventory.address()];
        let mut system = system(addresses)?;
        let sockets = std::mem::take(&mut system.listeners).into_iter().zip([front, middle]).collect();
        std::fs::create_dir_all(&self.reports)?;
        let app = App::on(system, &self.reports, sockets)?;
        let asked = signals::listen(app.control.clone())?;
        let lessons = if self.fixed { vec![mended(app.ledger.as_deref())?] } else { both() };
        let mut as_planned = true;
        for (index, lesson) in lessons.iter().enumerate() {
            let (experiment, _) = Experiment::parse(&lesson.name, &lesson.document, &|_| None)?;
            let experiment = Arc::new(experiment);
            let place = Place { number: index + 1, of: lessons.len() };
            let mut tries = 0;
            let report = loop {
                tries += 1;
                let order = Order {
                    experiment: experiment.clone(),
                    run: new_run_id(crate::clock::now()),
                    seed: Seed(self.seed),
                    follow_up_of: lesson.follow_up_of.clone(),
                    underpowered: false,
                };
                let report = conduct(&app, order, place, Door::Demo(&self.reports), output).await?;
                let told = matches!(report.verdict.ending, Ending::Held | Ending::Broken | Ending::Halted);
                if told || tries == TRIES || asked.borrow().is_some() {
                    break report;
                }
                anstream::eprintln!("something else keeps this machine busy, so nothing could be told: once more");
            };
            let ending = report.verdict.ending;
            if ending != lesson.expected {
                as_planned = false;
                let (was, wanted) = (ending.word(), lesson.expected.word());
                anstream::eprintln!("not as planned: {} was {was}, not {wanted}; is the machine busy?", report.title);
            }
            if let Some(signal) = *asked.borrow() {
                return Ok(Exit::Signal(signal));
            }
        }
        app.drain().await;
        if output == Output::Text && as_planned {
            print(self.last_words(&lessons));
        }
        Ok(if as_planned { Exit::Done } else { Exit::Failed })
    }

    fn last_words(&self, lessons: &[Lesson]) -> String {
        let log = typed(&format!("pratfall log --ledger {}", self.reports.join(DEMO_LEDGER).display()));
        match lessons.last() {
            Some(lesson) if lesson.follow_up_of.is_some() => format!("\nThe loop is closed, and remembered: {log}"),
            Some(_) if self.fixed => {
                let folder = self.reports.display();
                format!("\nNo failure was waiting in {folder}: `pratfall demo` finds the one that this closes.")
            }
            _ => format!("\nThe failure is remembered: {log}"),
        }
    }
}

/// Both listeners, with where they listen and where what comes to them goes.
fn system([front, shop, middle, inventory]: [SocketAddr; 4]) -> anyhow::Result<System> {
    let text = format!(
        "version: 1\nsystem: {DEMO_SYSTEM}\nlisteners:\n  front: {{ bind: {front}, upstream: \"http://{shop}\" }}\n  \
         inventory: {{ bind: {middle}, upstream: \"http://{inventory}\" }}\nledger: {DEMO_LEDGER}\nreports: .\n"
    );
    Ok(System::parse("demo", &text, &|_| None)?.0)
}

fn both() -> Vec<Lesson> {
    let lesson = |name: &str, document: &str, expected| Lesson {
        name: name.to_owned(),
        document: document.to_owned(),
        follow_up_of: None,
        expected,
    };
    vec![lesson("fallback.yaml", FALLBACK, Ending::Held), lesson("slow.yaml", SLOW, Ending::Broken)]
}

/// The follow-up of the failure that the demo found; the same question where it has found none yet.
fn mended(ledger: Option<&Ledger>) -> anyhow::Result<Lesson> {
    let failures = ledger.map(Ledger::failures).transpose()?.unwrap_or_default();
    let found = failures.iter().find(|failure| failure.fingerprint.experiment == SLOW_NAME);
    let (Some(ledger), Some(failure)) = (ledger, found) else {
        let (name, document) = ("slow.yaml".to_owned(), SLOW.to_owned());
        return Ok(Lesson { name, document, follow_up_of: None, expected: Ending::Held });
    };
    let (document, follow_up_of) = follow_up_of(ledger, &failure.id)?;
    Ok(Lesson { name: document.name, document: document.text, follow_up_of, expected: Ending::Held })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lesson_that_is_followed_up_is_the_slow_one() {
        let [.., slow] = &both()[..] else { panic!("there are two") };
        let (experiment, _) = Experiment::parse(&slow.name, &slow.document, &|_| None).unwrap();
        assert_eq!(experiment.name, SLOW_NAME);
    }
}
