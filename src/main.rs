//! The binary: arguments → configuration → run → exit status; nothing else.

use std::process::ExitCode;

use darkport_exporter::args::Args;

fn main() -> ExitCode {
    match darkport_exporter::command::execute(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!(
                "darkport_exporter: {}",
                darkport_exporter::log::Chain(&error)
            );
            ExitCode::FAILURE
        }
    }
}
