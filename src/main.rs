//! Parses the arguments, runs a command, prints an error chain, gives the exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use cloudtrail_tls_exporter::cli::Arguments;
use cloudtrail_tls_exporter::commands::{self, Failure};
use cloudtrail_tls_exporter::worker::chain;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match commands::run(arguments, &mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (error, code) = match &failure {
                Failure::Usage(error) => (error, 2),
                Failure::Failed(error) => (error, 1),
            };
            // With stderr closed, nothing is left to tell it to.
            writeln!(io::stderr(), "error: {}", chain(error.as_ref())).ok();
            ExitCode::from(code)
        }
    }
}
