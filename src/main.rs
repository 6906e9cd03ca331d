//! `mrpo`: one binary, one role per subcommand.

mod commands;
mod config;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use config::ServeArgs;

// glibc gives every big tensor back to the kernel and takes it anew: several times slower on element-wise operations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fine-tunes language models on human preferences against several reference models, behind a REST API.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the API and works on its jobs.
    Serve(ServeArgs),
    /// Executes one run in its directory; what the server starts for each job.
    Run {
        /// The run's directory, with its spec.json.
        directory: PathBuf,
        /// What to compute on: `cpu`, `cuda` or `cuda:N`.
        #[arg(long, default_value = "cpu")]
        device: String,
        /// Prints at the end where the seconds went, operation by operation.
        #[arg(long)]
        op_times: bool,
    },
    /// Checks that a GPU computes what the processor does, and measures how fast it is.
    CheckDevice {
        /// `cpu`, `cuda` or `cuda:N`.
        #[arg(default_value = "cuda")]
        device: String,
        /// Prints a line of JSON for each finding instead of text.
        #[arg(long)]
        json: bool,
        /// Measures nothing.
        #[arg(long)]
        only_accuracy: bool,
    },
    /// Fine-tunes a small model with DPO, then MRPO, and shows what has changed.
    Demo(mrpo::demo::DemoArgs),
    /// Tells how a server would be configured, without starting it.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Looks for what is wrong with a data directory and this machine, without changing anything, also while a server works.
    Doctor {
        #[command(flatten)]
        serve: ServeArgs,
        /// Prints one JSON object instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Writes a data directory into one file, while a server works on it.
    Backup(commands::backup::BackupArgs),
    /// Makes a data directory of a backup.
    Restore(commands::backup::RestoreArgs),
    /// Makes, lists and revokes the keys that people show to the server.
    Keys(commands::keys::KeysArgs),
    /// Adds, lists and removes a running server's models.
    Models(commands::models::ModelsArgs),
    /// Writes a model, adapters merged in, for other programs.
    Export(commands::export::ExportArgs),
    /// Prints the API's description (OpenAPI 3.1).
    Openapi,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Checks file, environment and flags as `mrpo serve` does, and prints what it would use.
    Check(ServeArgs),
}

fn main() -> ExitCode {
    let typed = config::with_file(std::env::args_os().collect(), |name| std::env::var_os(name));
    match typed.and_then(|typed| execute(Cli::parse_from(typed).command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => commands::serve::serve(args),
        Command::Run { directory, device, op_times } => commands::run::run(&directory, &device, op_times),
        Command::CheckDevice { device, json, only_accuracy } => {
            commands::check_device::check_device(&device, json, only_accuracy)
        }
        Command::Demo(args) => mrpo::demo::run(args),
        Command::Config { command: ConfigCommand::Check(args) } => commands::config::check(args),
        Command::Doctor { serve, json } => commands::doctor::doctor(serve, json),
        Command::Backup(args) => commands::backup::backup(&args),
        Command::Restore(args) => commands::backup::restore(&args),
        Command::Keys(args) => commands::keys::keys(args),
        Command::Models(args) => commands::models::models(&args),
        Command::Export(args) => commands::export::export(args),
        Command::Openapi => {
            print!("{}", mrpo::http::document());
            Ok(())
        }
    }
}
