//! Logs for the operator, to standard error. What is logged is counts, ids, addresses and reasons: never a token, a query
//! string or anything out of a document.

use crate::{
    engine::document,
    server::config::{LogConfig, LogFormat},
};
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Logging was set up already.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already")]
pub struct TelemetryError;

/// Sends every later event of this process to standard error. Once per process.
pub fn start(config: &LogConfig) -> Result<(), TelemetryError> {
    // What the operator says of the same target comes later, and holds.
    let filter = EnvFilter::new(format!("error,{},{}", document::QUIET, config.filter));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Else a log that cannot be written, on a full disk, say, ends whoever wrote to it in a panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let started = match config.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| TelemetryError)
}
