//! The real program as a child process: started on a free port, killed without warning or asked to stop.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// `syncline serve --dev` on `data`, ready.
    pub(crate) fn serve(data: &Path) -> Self {
        Self::serve_with(data, &[])
    }

    /// The same with further environment variables.
    pub(crate) fn serve_with(data: &Path, environment: &[(&str, &str)]) -> Self {
        Self::serve_at(data, "127.0.0.1:0", environment)
    }

    /// The same at a fixed address, where clients look for it again.
    pub(crate) fn serve_at(data: &Path, listen: &str, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_syncline"))
            .args(["serve", "--dev", "--listen", listen, "--log-filter", "warn", "--data"])
            .arg(data)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("a line");
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .expect("the ready line");
        let address = address.parse().expect("an address");
        Self { child, address }
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM; how it ended.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .expect("kill runs")
                .success()
        );
        self.child.wait().expect("it ends")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
