//! What Syncline is measured with: a bare relay as the yardstick, a load generator for both, and micro benches.

mod clock;
mod edits;
mod goals;
mod history;
mod load;
mod micro;
mod relay;
mod report;
mod yjs;

use clap::Parser;
use std::net::SocketAddr;

/// Measures Syncline against a bare relay
#[derive(Debug, clap::Parser)]
#[command(name = "syncline-bench")]
enum Command {
    /// Loads the relay and Syncline in turn, and prints the figures and their ratios
    Load(load::Load),
    /// Loads the relay, Syncline and its rivals in turn, and writes a table
    Compare(load::Compare),
    /// Appends to a file and syncs it, alone, and prints how long each append took
    Appends(load::Appends),
    /// Times codec, gate, index, merge and store one by one
    Micro(micro::Micro),
    /// Serves the bare relay: every message goes to all members of its room, nothing is merged or stored
    Relay {
        /// The address and port; port 0 picks a free one
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Load(load) => load.run(),
        Command::Compare(compare) => compare.run(),
        Command::Micro(micro) => micro.run(),
        Command::Appends(appends) => appends.run(),
        Command::Relay { listen } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(relay::serve(listen))
        }
    }
}
