//! A long document: taken in through edits, joined cold after a restart, resynced by a client that missed 1,000 edits.

use super::{
    process::{Programs, Server},
    store_base,
    target::{Joined, Link, Target},
};
use crate::{
    clock::{ms_since, now},
    edits::{Edits, Sight},
    history::History,
    report::{Sample, median},
};
use anyhow::{Context, ensure};
use automerge::{Automerge, ObjId, ROOT, ReadDoc};
use bytes::BytesMut;
use flate2::read::DeflateDecoder;
use std::{io::Read, net::SocketAddr, path::Path, time::Duration};
use syncline_protocol::{
    ChangeHash, Cursor,
    native::{Capability, Packing},
};

const DOCUMENT: &str = "paper";
const BEHIND: usize = 1_000;
const RESYNCS: usize = 20;
/// Clients who join at the same moment.
const STORM: usize = 500;
/// A joiner that is sent no more than this is sent a snapshot and little else.
const COMPACTED_BYTES_MAX: u64 = 1 << 20;
const COMPACTED_WITHIN_S: f64 = 120.0;
/// The metric that counts what is read and encoded for joiners.
const READS: &str = "syncline_pieces_read_total";
const COMPACTED_PROBE: Duration = Duration::from_secs(5);

/// One join, timed from the `open` to the part with `end`.
struct Timed {
    joined: Joined,
    took_ms: f64,
    bytes: u64,
}

/// The whole course, on a store of its own in `data`.
pub(crate) async fn run(programs: &Programs, data: &Path, history: &History) -> anyhow::Result<Sample> {
    let mut sample = take_in(programs, data, history).await?;
    let start = now();
    let server = programs.start(Target::Syncline, data)?;
    sample.push(("start_ms", ms_since(start)));
    let joined = join_cold(&server, history, &mut sample).await?;
    resync(&server, history, &joined, &mut sample).await?;
    server.stop().await?;

    let server = programs.start(Target::Syncline, data)?;
    storm(&server, &mut sample).await?;
    server.stop().await?;

    let server = programs.start(Target::Syncline, data)?;
    let cpu_ms = server.cpu_of_threads_ms()?;
    let resync = join(server.address, Some(&joined)).await?;
    sample.extend([
        ("cold_resync_1k_ms", resync.took_ms),
        ("cold_resync_1k_bytes", resync.bytes as f64),
        ("cold_resync_1k_cpu_ms", server.cpu_of_threads_ms()? - cpu_ms),
        ("disk_kib", disk_bytes(data)? as f64 / 1_024.0),
    ]);
    server.stop().await?;

    let server = programs.start(Target::Syncline, data)?;
    cold_edit(&server, history, &resync.joined, &mut sample).await?;
    server.stop().await?;
    Ok(sample)
}

async fn take_in(programs: &Programs, data: &Path, history: &History) -> anyhow::Result<Sample> {
    let server = programs.start(Target::Syncline, data)?;
    let start = now();
    store_base(server.address, DOCUMENT, &history.base).await?;
    let load_s = ms_since(start) / 1_000.0;
    let mut compacted = 0.0;
    while compacted == 0.0 && ms_since(start) / 1_000.0 < load_s + COMPACTED_WITHIN_S {
        tokio::time::sleep(COMPACTED_PROBE).await;
        if join(server.address, None).await?.bytes <= COMPACTED_BYTES_MAX {
            compacted = 1.0;
        }
    }
    let sample = vec![
        ("load_s", load_s),
        ("load_changes_per_s", history.base.changes.len() as f64 / load_s),
        ("compacted", compacted),
        ("load_until_compacted_s", ms_since(start) / 1_000.0),
        ("load_until_compacted_cpu_s", server.cpu_s()?),
    ];
    server.stop().await?;
    Ok(sample)
}

/// The first join after the start, then one that finds the room open.
async fn join_cold(server: &Server, history: &History, sample: &mut Sample) -> anyhow::Result<Joined> {
    let (rss_kib, cpu_ms) = (server.rss_kib()?, server.cpu_of_threads_ms()?);
    let cold = join(server.address, None).await?;
    sample.extend([
        ("cold_join_ms", cold.took_ms),
        ("cold_join_bytes", cold.bytes as f64),
        ("cold_join_cpu_ms", server.cpu_of_threads_ms()? - cpu_ms),
        ("cold_join_rss_mib", (server.rss_kib()? - rss_kib) / 1_024.0),
    ]);
    let saved_bytes = checked(&cold.joined, history)?.save().len();
    sample.push(("cold_join_bytes_over_saved", cold.bytes as f64 / saved_bytes as f64));
    let warm = join(server.address, None).await?;
    sample.extend([("warm_join_ms", warm.took_ms), ("warm_join_bytes", warm.bytes as f64)]);
    Ok(cold.joined)
}

/// A writer goes on for 1,000 edits, one after another; then clients come back that stand where `joined` ends.
async fn resync(server: &Server, history: &History, joined: &Joined, sample: &mut Sample) -> anyhow::Result<()> {
    let mut writer = Link::greet(server.address, Vec::new()).await?;
    writer.open(DOCUMENT, Some(joined.cursor), joined.heads.clone()).await?;
    let edits = Edits::prepare(&history.base, 1, BEHIND, Sight::Apart);
    let start = now();
    for place in 0..BEHIND {
        let edit = edits.edit(0, place).cloned();
        writer.store(place as u64, edit.as_slice()).await?;
    }
    sample.push(("one_edit_acked_ms", ms_since(start) / BEHIND as f64));
    // Until the edits are merged, they are sent one by one.
    server.quiet(3).await?;
    let cpu_s = server.cpu_s()?;
    let (mut took_ms, mut bytes, mut last) = (Vec::new(), 0, None);
    for _ in 0..RESYNCS {
        let resync = join(server.address, Some(joined)).await?;
        took_ms.push(resync.took_ms);
        bytes = resync.bytes;
        last = Some(resync.joined);
    }
    let last = last.context("no resync")?;
    let mut document = Automerge::new();
    document.load_incremental(&inflated(joined)?)?;
    document.load_incremental(&inflated(&last)?)?;
    let heads = document.get_heads().into_iter().map(|head| ChangeHash(head.0));
    ensure!(
        heads.eq(last.heads.iter().copied()),
        "a resync did not bring what was missing"
    );
    sample.extend([
        ("resync_1k_ms", median(&took_ms)),
        ("resync_1k_bytes", bytes as f64),
        ("resync_1k_cpu_ms", (server.cpu_s()? - cpu_s) * 1_000.0 / RESYNCS as f64),
    ]);
    let all = all_at_once(server, Some(joined)).await?;
    sample.extend([
        ("resync_of_500_ms", all.took_ms),
        ("resync_of_500_cpu_ms", all.cpu_ms),
        ("resync_of_500_reads", all.reads),
    ]);
    Ok(())
}

/// What it took to bring everybody to the present.
struct Storm {
    took_ms: f64,
    cpu_ms: f64,
    rss_mib: f64,
    /// Pieces of the document that the server read and encoded for it.
    reads: f64,
}

/// All join right after a restart, and then one alone, for whom nothing is kept any more.
async fn storm(server: &Server, sample: &mut Sample) -> anyhow::Result<()> {
    let storm = all_at_once(server, None).await?;
    let before = server.metric(READS).await?;
    join(server.address, None).await?;
    let of_one = server.metric(READS).await? - before;
    sample.extend([
        ("storm_of_500_ms", storm.took_ms),
        ("storm_of_500_cpu_ms", storm.cpu_ms),
        ("storm_of_500_rss_mib", storm.rss_mib),
        ("storm_of_500_reads", storm.reads),
        ("storm_reads_over_one_join", storm.reads / of_one),
    ]);
    Ok(())
}

async fn all_at_once(server: &Server, from: Option<&Joined>) -> anyhow::Result<Storm> {
    let mut links = Vec::with_capacity(STORM);
    for _ in 0..STORM {
        links.push(Link::greet(server.address, vec![Capability::Deflate, Capability::Bundle]).await?);
    }
    let reads = server.metric(READS).await?;
    let (rss_kib, cpu_s, start) = (server.rss_kib()?, server.cpu_s()?, now());
    let joins = links.into_iter().map(|mut link| {
        let (cursor, heads) = standing(from);
        tokio::task::spawn_local(async move { link.open(DOCUMENT, cursor, heads).await.map(drop) })
    });
    for join in joins.collect::<Vec<_>>() {
        join.await??;
    }
    Ok(Storm {
        took_ms: ms_since(start),
        cpu_ms: (server.cpu_s()? - cpu_s) * 1_000.0,
        rss_mib: (server.rss_kib()? - rss_kib) / 1_024.0,
        reads: server.metric(READS).await? - reads,
    })
}

/// Right after a restart: what the room takes that a member opens who has everything, and when its first edit is stored.
async fn cold_edit(server: &Server, history: &History, joined: &Joined, sample: &mut Sample) -> anyhow::Result<()> {
    let edits = Edits::prepare(&history.base, 1, BEHIND + 1, Sight::Apart);
    let mut link = Link::greet(server.address, vec![Capability::Deflate, Capability::Bundle]).await?;
    // What the first room makes the server set up is not what this one costs.
    link.open("first", None, Vec::new()).await?;
    let (rss_kib, start) = (server.rss_kib()?, now());
    link.open(DOCUMENT, Some(joined.cursor), joined.heads.clone()).await?;
    let open_ms = ms_since(start);
    let room_kib = server.rss_kib()? - rss_kib;
    let start = now();
    link.store(0, edits.edit(0, BEHIND).cloned().as_slice()).await?;
    sample.extend([
        ("cold_room_kib", room_kib),
        ("cold_open_ms", open_ms),
        ("cold_edit_ms", open_ms + ms_since(start)),
    ]);
    Ok(())
}

/// What a client names who stands where `from` ends.
fn standing(from: Option<&Joined>) -> (Option<Cursor>, Vec<ChangeHash>) {
    let cursor = from.map(|joined| joined.cursor);
    (cursor, from.map(|joined| joined.heads.clone()).unwrap_or_default())
}

async fn join(address: SocketAddr, from: Option<&Joined>) -> anyhow::Result<Timed> {
    let mut link = Link::greet(address, vec![Capability::Deflate, Capability::Bundle]).await?;
    let (before, start) = (link.socket.bytes_in, now());
    let (cursor, heads) = standing(from);
    let joined = link.open(DOCUMENT, cursor, heads).await?;
    Ok(Timed {
        joined,
        took_ms: ms_since(start),
        bytes: link.socket.bytes_in - before,
    })
}

fn inflated(joined: &Joined) -> anyhow::Result<BytesMut> {
    let mut whole = Vec::new();
    for part in &joined.parts {
        match part.packing {
            Packing::Plain => whole.extend_from_slice(&part.bytes),
            Packing::Deflate => {
                DeflateDecoder::new(&part.bytes[..]).read_to_end(&mut whole)?;
            }
        }
    }
    Ok(whole.as_slice().into())
}

/// The joined document, if its text is the history's.
fn checked(joined: &Joined, history: &History) -> anyhow::Result<Automerge> {
    let mut document = Automerge::new();
    document.load_incremental(&inflated(joined)?)?;
    let (_, text): (_, ObjId) = document.get(ROOT, "text")?.context("the joined document has no text")?;
    ensure!(
        document.text(&text)? == history.text,
        "the joined document has another text"
    );
    Ok(document)
}

fn disk_bytes(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            disk_bytes(&entry.path())?
        } else if entry.file_name() == "reserve" {
            0
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(bytes)
}
