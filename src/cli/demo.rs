//! `pratfall demo`: a shop with a hidden weakness, one hypothesis that holds, one that breaks.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;

use super::exit::Exit;
use super::run::conduct;
use super::show::Place;
use super::{Output, print, signals};
use crate::app::App;
use crate::config::System;
use crate::demo;
use crate::experiment::{Ending, Experiment};
use crate::lab::Order;
use crate::ledger::new_run_id;
use crate::units::Seed;

const EXAMPLES: &str = "\
Examples:
  pratfall demo
  pratfall demo --reports /tmp/reports
  pratfall log --ledger reports/demo.db     what the demo remembered";

/// Break a small shop on purpose, in about a minute, and see what comes of it.
///
/// Starts a shop and its inventory service on ports of this machine, sends about 300 requests a second through
/// Pratfall, and tests two hypotheses: one is held, one is broken. Needs nothing and leaves only reports.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Demo {
    /// Where reports and the demo's ledger are written.
    #[arg(long, default_value = "reports", value_name = "FOLDER")]
    reports: PathBuf,
    /// Where chance comes from.
    #[arg(long, default_value_t = 2026, value_name = "NUMBER")]
    seed: u64,
}

const LESSONS: [(&str, &str, Ending); 2] = [
    ("fallback.yaml", include_str!("../demo/fallback.yaml"), Ending::Held),
    ("slow.yaml", include_str!("../demo/slow.yaml"), Ending::Broken),
];

/// How often a lesson is given where a busy machine keeps it from telling.
const TRIES: u32 = 3;

impl Demo {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Exit> {
        let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let middle = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let inventory = demo::inventory().await?;
        let shop = demo::shop(middle.local_addr()?).await?;
        let text = format!(
            "version: 1\nsystem: demo\nlisteners:\n  front: {{ bind: {}, upstream: \"http://{}\" }}\n  inventory: {{ bind: {}, upstream: \"http://{}\" }}\nledger: demo.db\nreports: .\n",
            front.local_addr()?,
            shop.address(),
            middle.local_addr()?,
            inventory.address(),
        );
        let (mut system, _) = System::parse("demo", &text, &|_| None)?;
        let listeners = std::mem::take(&mut system.listeners);
        let sockets =
            listeners.into_iter().map(|config| if config.name == "front" { (config, 0) } else { (config, 1) });
        let mut bound = [Some(front), Some(middle)];
        let sockets = sockets.filter_map(|(config, index)| Some((config, bound[index].take()?))).collect();
        std::fs::create_dir_all(&self.reports)?;
        let app = App::on(system, &self.reports, sockets)?;
        let asked = signals::listen(app.control.clone())?;
        let mut as_planned = true;
        for (index, (name, document, expected)) in LESSONS.into_iter().enumerate() {
            let (experiment, _) = Experiment::parse(name, document, &|_| None)?;
            let experiment = Arc::new(experiment);
            let place = Place { number: index + 1, of: LESSONS.len() };
            let mut tries = 0;
            let report = loop {
                tries += 1;
                let order = Order {
                    experiment: experiment.clone(),
                    run: new_run_id(crate::clock::now()),
                    seed: Seed(self.seed),
                    follow_up_of: None,
                    underpowered: false,
                };
                let report = conduct(&app, order, place, output).await?;
                let told = report.verdict.ending != Ending::Inconclusive;
                if told || tries == TRIES || asked.borrow().is_some() {
                    break report;
                }
                anstream::eprintln!("something else keeps this machine busy, so nothing could be told: once more");
            };
            let ending = report.verdict.ending;
            if ending != expected {
                as_planned = false;
                let (was, wanted) = (ending.word(), expected.word());
                anstream::eprintln!("not as planned: {} was {was}, not {wanted}; is the machine busy?", report.title);
            }
            if let Some(signal) = *asked.borrow() {
                return Ok(Exit::Signal(signal));
            }
        }
        app.drain().await;
        if output == Output::Text && as_planned {
            print(next_steps(&self.reports));
        }
        Ok(if as_planned { Exit::Done } else { Exit::Failed })
    }
}

fn next_steps(reports: &Path) -> String {
    format!("\nThe failure is remembered: pratfall log --ledger {}/demo.db", reports.display())
}
