//! The commands: arguments in, an exit code out. Results go to standard output; an error is one line on standard error that
//! says what to do, and ends with 2 for wrong usage or configuration and 1 for anything else.

#[cfg(unix)]
mod backup;
mod check;
mod key;
mod salvage;
mod serve;
mod token;
mod watch;

use clap::{Parser, Subcommand};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};
use syncline::server::config::{Config, ConfigError, Flag};

/// A self-hosted server for real-time collaboration on Automerge documents.
///
/// To try it out: `syncline serve --dev`, and open http://127.0.0.1:4400. To serve others:
/// `syncline key --alg HS256 >> syncline.toml`, then `syncline serve`, and `syncline token` makes tokens for clients.
///
/// Every setting can be given as a flag, as an environment variable (`SYNCLINE_LISTEN`, `SYNCLINE_LIMITS_FRAME_BYTES_MAX`,
/// ...) or in syncline.toml; a flag wins over a variable, a variable over the file. syncline.example.toml lists them all. A variable
/// that looks like one of these and is none is refused.
#[derive(Debug, Parser)]
#[command(name = "syncline", version, verbatim_doc_comment, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Token(token::Token),
    Key(key::Key),
    Watch(watch::Watch),
    #[cfg(unix)]
    Backup(backup::Backup),
    Check(check::Check),
    Salvage(salvage::Salvage),
}

/// The configuration file, for the commands that read it.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file [env: SYNCLINE_CONFIG] [default: syncline.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why a command failed, and so its exit code.
#[derive(Debug)]
enum Failure {
    /// Arguments, environment or configuration are wrong: 2.
    Usage(String),
    /// Everything else: 1.
    Error(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Error(error.into())
    }
}

/// Of every thread that loads or merges documents; what is not used takes no memory. Automerge goes back along a chain of changes by
/// recursion, with 6 bytes of stack for each change that another chain lies beside: this is enough for more changes than fit a budget.
const STACK_BYTES: usize = 128 << 20;

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    match thread.spawn(run).map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        // The panic has been printed.
        Ok(Err(_)) => ExitCode::from(101),
        Err(error) => fail(&Failure::Error(error.into())),
    }
}

fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return manual_or_usage(&error),
    };
    exit(match arguments.command {
        Command::Serve(serve) => serve.run(),
        Command::Token(token) => token.run(),
        Command::Key(key) => key.run(),
        Command::Watch(watch) => watch.run(),
        #[cfg(unix)]
        Command::Backup(backup) => backup.run(),
        Command::Check(check) => check.run(),
        Command::Salvage(salvage) => salvage.run(),
    })
}

/// clap's answer: the manual if it was asked for, the manual as an error if there was no command at all, or one line.
fn manual_or_usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion => exit(error.print().map_err(Failure::from)),
        DisplayHelpOnMissingArgumentOrSubcommand => {
            // There is nobody to tell if standard error is closed.
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => fail(&Failure::Usage(usage_line(error))),
    }
}

/// The first paragraph of clap's text, in one line.
fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.lines().take_while(|line| !line.trim().is_empty());
    let line = paragraph.map(str::trim).collect::<Vec<_>>().join(" ");
    format!("{}; see syncline --help", line.trim_start_matches("error: "))
}

fn exit(result: Result<(), Failure>) -> ExitCode {
    result.map_or_else(|failure| fail(&failure), |()| ExitCode::SUCCESS)
}

fn fail(failure: &Failure) -> ExitCode {
    let (text, code) = match failure {
        Failure::Usage(text) => (text.clone(), 2),
        Failure::Error(error) => (format!("{error:#}"), 1),
    };
    say(&text);
    ExitCode::from(code)
}

/// One line to the person at the terminal. There is nobody to tell if standard error is closed.
fn say(text: &str) {
    let line = text.lines().collect::<Vec<_>>().join(" ");
    let _ = writeln!(io::stderr(), "syncline: {line}");
}

/// One line of result, at once.
fn print(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Reads the configuration with this process's environment.
fn load_config(path: Option<&Path>, flags: &[Flag]) -> Result<Config, Failure> {
    let text = |name: std::ffi::OsString| name.into_string().ok();
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
        .filter(|(name, _)| name.starts_with("SYNCLINE_"))
        .collect();
    Ok(Config::load(path, &environment, flags)?)
}

/// Says so where there is no store, before anything is done to the directory.
fn find_store(data: &Path) -> anyhow::Result<()> {
    if data.join("db").is_file() {
        return Ok(());
    }
    anyhow::bail!("{} holds no store: name the directory given to `serve`", data.display())
}

/// A runtime for the commands that do more than one thing at a time.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build()
}
