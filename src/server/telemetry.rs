//! Logs for the operator, to standard error. What is logged is counts, ids, addresses and reasons: never a token, a query
//! string or anything out of a document.

use crate::{
    engine::document,
    server::config::{LogConfig, LogFormat},
};
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Keeps out what TLS warns of in the bytes of clients, which would let anybody fill the log.
const QUIET: &str = "rustls=error";

/// Logging was set up already.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already")]
pub struct TelemetryError;

/// Sends every later event of this process to standard error. Once per process.
pub fn start(config: &LogConfig) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.filter))
        // Else a log that cannot be written, on a full disk, say, ends whoever wrote to it in a panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let started = match config.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| TelemetryError)
}

/// What the operator says of the same target comes later, and holds.
fn filter(configured: &str) -> EnvFilter {
    EnvFilter::new(format!("error,{},{QUIET},{configured}", document::QUIET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(configured: &str) -> String {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(configured))
            .with_ansi(false)
            .with_writer(lines.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "automerge::storage::document", "mismatching heads");
            tracing::warn!(target: "rustls::msgs::handshake", "illegal SNI");
            tracing::info!(target: "syncline::server", "started");
            tracing::debug!(target: "syncline::server", "connected");
        });
        let lines = lines.0.lock().unwrap();
        String::from_utf8(lines.clone()).unwrap()
    }

    #[test]
    fn what_a_client_can_make_a_library_say_does_not_fill_the_log() {
        let lines = logged("info");
        assert!(lines.contains("started"), "{lines}");
        assert_eq!(lines.lines().count(), 1, "{lines}");
    }

    #[test]
    fn who_asks_for_a_library_by_name_hears_it() {
        let lines = logged("info,automerge=warn,rustls=warn");
        assert!(
            lines.contains("mismatching heads") && lines.contains("illegal SNI"),
            "{lines}"
        );
        assert_eq!(lines.lines().count(), 3, "{lines}");
    }
}
