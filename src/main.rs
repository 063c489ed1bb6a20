//! The `pratfall` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    pratfall::cli::main()
}
