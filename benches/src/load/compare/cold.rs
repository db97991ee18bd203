//! The long document: given to a server, joined right after a restart, and by a client that missed 1,000 edits.

use crate::{
    clock::{ms_since, now},
    edits::{Base, Edits, Sight},
    history::History,
    load::{
        figure, join,
        peer::Peer,
        process::{Programs, Server},
        target::Target,
        ysync::{EMPTY_STATE, Flavour, YSync},
    },
    report::{Sample, median},
    yjs::{self, End},
};
use anyhow::{Context, ensure};
use bytes::Bytes;
use std::{net::SocketAddr, path::Path, process::Command, time::Duration};
use syncline_protocol::ChangeHash;

const ROOM: &str = "paper";
const BEHIND: usize = 1_000;
const RESYNCS: usize = 10;
/// Longer than the servers wait before they store what has come; Y-Sweet waits longest.
const STORED_S: u32 = 4;
const STORED_BY_Y_SWEET_S: u32 = 13;
/// What a server sends behind the document comes within this.
const SETTLE: Duration = Duration::from_millis(300);

/// The document in the rivals' terms.
pub(super) struct Paper {
    update: Bytes,
    end: End,
    /// What a Yjs replica has that has it all.
    state: Vec<u8>,
    saved: Vec<u8>,
    heads: Vec<ChangeHash>,
}

/// As `yjs-paper.mjs` writes it.
#[derive(serde::Deserialize)]
struct Written {
    client: u64,
    clock: u64,
    next: u64,
}

/// How long, how many bytes, how much of the server's CPU.
struct Timed {
    took_ms: f64,
    bytes: f64,
}

impl Paper {
    pub(super) fn prepare(history: &History, programs: &Programs, out: &Path) -> anyhow::Result<Self> {
        let (trace, paper) = (out.join("paper-trace.json"), out.join("paper"));
        history.write_trace(&trace)?;
        let script = programs.rivals.join("yjs-paper.mjs");
        let made = Command::new("node").arg(script).arg(&trace).arg(&paper).status();
        ensure!(
            made.context("cannot run node")?.success(),
            "Yjs did not make the document"
        );
        let written: Written = serde_json::from_slice(&std::fs::read(paper.with_extension("json"))?)?;
        let (saved, heads) = history.base.saved()?;
        Ok(Self {
            update: std::fs::read(paper.with_extension("update"))?.into(),
            end: End {
                client: written.client,
                clock: written.clock,
            },
            state: yjs::state_vector(written.client, written.next),
            saved,
            heads,
        })
    }
}

/// The whole course for one server.
pub(super) async fn run(
    programs: &Programs,
    target: Target,
    data: &Path,
    history: &History,
    paper: &Paper,
) -> anyhow::Result<Sample> {
    let Some(flavour) = target.yjs() else {
        return match target {
            Target::AutomergeRepo | Target::Samod => repo(programs, target, data, history, paper).await,
            _ => {
                let sample = join::run(programs, data, history).await?;
                let names = [
                    "cold_join_ms",
                    "cold_join_bytes",
                    "resync_1k_ms",
                    "resync_1k_bytes",
                    "resync_1k_cpu_ms",
                ];
                Ok(names.map(|name| (name, figure(&sample, name))).to_vec())
            }
        };
    };
    let base = Base::of_yjs(Some(paper.update.clone()));
    let server = stored(programs, target, data, &base).await?;
    // Less than the whole is what a server sends that has not loaded it yet.
    let whole = paper.update.len() * 9 / 10;
    let cold = join_yjs(server.address, flavour, EMPTY_STATE, whole).await?;

    let (mut socket, speech) = YSync::connect(server.address, flavour, ROOM).await?;
    speech.catch_up(&mut socket, &paper.state).await?;
    let edits = yjs::prepare(Some(paper.end), 1, BEHIND);
    (0..BEHIND)
        .filter_map(|place| edits.edit(0, place))
        .for_each(|edit| speech.queue(&mut socket, edit));
    speech.catch_up(&mut socket, &paper.state).await?;
    let cpu_s = server.cpu_s()?;
    let mut behind = Vec::new();
    for _ in 0..RESYNCS {
        behind.push(join_yjs(server.address, flavour, &paper.state, BEHIND).await?);
    }
    let cpu_ms = (server.cpu_s()? - cpu_s) * 1_000.0 / RESYNCS as f64;
    server.stop().await?;
    Ok(sample(&cold, &behind, cpu_ms))
}

async fn repo(
    programs: &Programs,
    target: Target,
    data: &Path,
    history: &History,
    paper: &Paper,
) -> anyhow::Result<Sample> {
    let server = stored(programs, target, data, &history.base).await?;
    let cold = join_repo(server.address, &[]).await?;
    ensure!(
        cold.bytes * 2.0 > paper.saved.len() as f64,
        "the server sent only {} bytes",
        cold.bytes
    );
    let (mut socket, mut peer) = Peer::connect(server.address, ROOM).await?;
    peer.find_from(&mut socket, &paper.heads).await?;
    let edits = Edits::prepare(&history.base, 1, BEHIND, Sight::Apart);
    let changes: Vec<_> = (0..BEHIND).filter_map(|place| edits.edit(0, place).cloned()).collect();
    peer.store(&mut socket, &changes).await?;
    let cpu_s = server.cpu_s()?;
    let mut behind = Vec::new();
    for _ in 0..RESYNCS {
        behind.push(join_repo(server.address, &paper.heads).await?);
    }
    let cpu_ms = (server.cpu_s()? - cpu_s) * 1_000.0 / RESYNCS as f64;
    server.stop().await?;
    Ok(sample(&cold, &behind, cpu_ms))
}

fn sample(cold: &Timed, behind: &[Timed], cpu_ms: f64) -> Sample {
    let of = |figure: fn(&Timed) -> f64| median(&behind.iter().map(figure).collect::<Vec<_>>());
    vec![
        ("cold_join_ms", cold.took_ms),
        ("cold_join_bytes", cold.bytes),
        ("resync_1k_ms", of(|timed| timed.took_ms)),
        ("resync_1k_bytes", of(|timed| timed.bytes)),
        ("resync_1k_cpu_ms", cpu_ms),
    ]
}

/// The server with the document in its store, freshly started.
async fn stored(programs: &Programs, target: Target, data: &Path, base: &Base) -> anyhow::Result<Server> {
    let server = programs.start(target, data)?;
    target.begin(server.address, ROOM, base).await?;
    server
        .quiet(match target {
            Target::YSweet => STORED_BY_Y_SWEET_S,
            _ => STORED_S,
        })
        .await?;
    server.stop().await?;
    let server = programs.start(target, data)?;
    server.quiet(1).await?;
    Ok(server)
}

async fn join_yjs(address: SocketAddr, flavour: Flavour, state: &[u8], bytes_min: usize) -> anyhow::Result<Timed> {
    // From before the connection: the servers begin to load when they are named the document, which is then.
    let start = now();
    let (mut socket, speech) = YSync::connect(address, flavour, ROOM).await?;
    speech.ask(&mut socket, state);
    speech.large_update(&mut socket, bytes_min).await?;
    let took_ms = ms_since(start);
    // Some send it twice.
    while let Ok(filled) = tokio::time::timeout(SETTLE, socket.fill()).await {
        filled?;
    }
    Ok(Timed {
        took_ms,
        bytes: socket.bytes_in as f64,
    })
}

async fn join_repo(address: SocketAddr, heads: &[ChangeHash]) -> anyhow::Result<Timed> {
    let (mut socket, mut peer) = Peer::connect(address, ROOM).await?;
    let (before, start) = (socket.bytes_in, now());
    if heads.is_empty() {
        peer.find(&mut socket).await?;
    } else {
        peer.catch_up(&mut socket, heads).await?;
    }
    Ok(Timed {
        took_ms: ms_since(start),
        bytes: (socket.bytes_in - before) as f64,
    })
}
