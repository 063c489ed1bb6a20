//! The `pratfall` command.

use std::process::ExitCode;

/// A request costs 3 % fewer instructions than with the system's allocator. Huge pages would cost 13 MiB at rest.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pratfall::cli::main()
}
