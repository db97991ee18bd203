//! The command line of Syncline. `syncline --help` is its manual.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
