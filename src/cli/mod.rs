//! The command line. One verb is one file; results go to stdout, everything else to stderr.

mod check;
mod demo;
mod documents;
mod exit;
mod explain;
mod halt;
mod inject;
mod log;
mod next;
mod rehearse;
mod remote;
mod report;
mod run;
mod schema;
mod serve;
mod show;
mod signals;
mod status;
mod system;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use self::exit::Exit;

/// Takes falls on purpose: adds faults to a slice of a proxy's traffic, measures treatment and control, and tells
/// honestly whether your hypothesis held.
#[derive(Debug, Parser)]
#[command(name = "pratfall", version, max_term_width = 100, after_help = AFTER, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// How results are written: text for people, json for programs.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "PRATFALL_OUTPUT",
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = EVERYWHERE
    )]
    output: Output,
    /// What is logged, to stderr: error, warn, info, debug, or a filter such as `pratfall=debug`; `warn` unless said, and
    /// `info` for `serve`.
    #[arg(
        long,
        global = true,
        env = "PRATFALL_LOG",
        value_name = "LEVEL",
        hide_short_help = true,
        help_heading = EVERYWHERE
    )]
    log: Option<String>,
    /// How the log is written: text or json.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "PRATFALL_LOG_FORMAT",
        value_name = "FORMAT",
        hide_possible_values = true,
        hide_short_help = true,
        help_heading = EVERYWHERE
    )]
    log_format: LogFormat,
}

/// The heading of options that every verb takes, after the verb's own.
const EVERYWHERE: &str = "With every verb";

const AFTER: &str = "\
Begin with `pratfall demo`, then `pratfall check FILE`, then `pratfall run FILE`.

Exit codes of `run`: 0 held, 1 internal error, 2 usage or bad file, 3 broken, 4 inconclusive,
5 invalid or refused, 6 halted, 130 and 143 by signal, after cleaning up.";

/// How results are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Demo),
    Check(check::Check),
    Rehearse(rehearse::Rehearse),
    Run(run::Run),
    Serve(serve::Serve),
    Status(status::Show),
    Halt(halt::Halt),
    Resume(halt::Resume),
    Inject(inject::Inject),
    Report(report::Show),
    Log(log::Log),
    Schema(schema::Schema),
    /// Print completions for a shell.
    #[command(hide_possible_values = true)]
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// Parses the arguments, runs the verb, and tells how it went.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli);
    let exit = match run(cli) {
        Ok(exit) => exit,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            Exit::of(&error)
        }
    };
    exit.into()
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let output = cli.output;
    match cli.verb {
        Verb::Check(verb) => return verb.run(output),
        Verb::Log(verb) => return verb.run(output),
        Verb::Report(verb) => return verb.run(output),
        Verb::Schema(verb) => return verb.run(),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "pratfall", &mut std::io::stdout());
            return Ok(Exit::Done);
        }
        Verb::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?;
            return Ok(Exit::Done);
        }
        _ => {}
    }
    // The control plane: workers have threads and runtimes of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let exit = runtime.block_on(async {
        match cli.verb {
            Verb::Demo(verb) => verb.run(output).await,
            Verb::Run(verb) => verb.run(output).await,
            Verb::Rehearse(verb) => verb.run(output).await,
            Verb::Inject(verb) => verb.run(output).await,
            Verb::Serve(verb) => verb.run().await,
            Verb::Status(verb) => verb.run(output).await,
            Verb::Halt(verb) => verb.run().await,
            Verb::Resume(verb) => verb.run().await,
            _ => unreachable!("the others were run above"),
        }
    });
    runtime.shutdown_background();
    exit
}

fn start_log(cli: &Cli) {
    let usual = if matches!(cli.verb, Verb::Serve(_)) { "info" } else { "warn" };
    let log = cli.log.as_deref().unwrap_or(usual);
    // Migrations of the ledger log every statement at info. Requests are logged where the system file asks for it.
    let filter = format!("{log},refinery_core=warn,refinery=warn,pratfall::access=info");
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new(usual));
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_target(false);
    // A second start, in tests that call `main` twice, changes nothing.
    let _ = match cli.log_format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

/// Prints a result.
fn print(text: impl std::fmt::Display) {
    use std::io::Write;
    // A reader that went away has seen enough.
    let _ = writeln!(anstream::stdout(), "{text}");
}
