//! Many stored documents, of which some are in use: how long the server takes to start, and whether its memory stays once the store's
//! cache is warm.

use super::{
    process::{Programs, Server},
    target::{Link, Target},
};
use crate::{
    clock::{ms_since, now},
    edits::{Base, Edits, Sight},
    report::{Sample, median, percentile},
};
use anyhow::{anyhow, ensure};
use std::{
    cell::{Cell, RefCell},
    path::Path,
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};
use syncline::server::store::{
    LogEntry, LogRecord, Store, layout,
    sled::{SledKv, SledOptions},
    writer::{Work, Writer},
};
use syncline_protocol::{DocumentId, Epoch, Position};

/// Documents opened per second.
const OPENS_PER_S: u32 = 1_000;
/// Before memory is looked at, one in so many documents is opened. Eight or more share a page of the store, so its cache has what it will
/// have. At the same pace: more rooms at once would leave freed memory behind them, in which it would not show what grows later.
const WARM_ONE_IN: usize = 4;
/// Opens that may be under way before the run is given up: the server does not keep up.
const UNDER_WAY_MAX: u32 = 10_000;
/// Edits of every stored document, besides the change that makes its text.
const EDITS: usize = 5;
/// Small rooms that are held open at once to see what one takes.
const ROOMS: usize = 1_000;
/// Documents that are written to before the kill.
const WRITTEN: usize = 2_000;
/// Rooms close soon, so that a short run comes to the number of rooms at which it stays.
const ENVIRONMENT: [(&str, &str); 1] = [("SYNCLINE_ROOMS_IDLE_TIMEOUT_MS", "2000")];

/// The whole course, on a store of so many documents made in `data`; documents are opened for so long.
pub(crate) async fn run(programs: &Programs, data: &Path, documents: usize, seconds: u32) -> anyhow::Result<Sample> {
    ensure!(documents >= WRITTEN, "at least {WRITTEN} documents are needed");
    // The second writer is another subject: an actor belongs to whoever wrote with it first.
    let edits = Edits::prepare(&Base::empty_text()?, 2, EDITS, Sight::Apart);
    let start = now();
    fill(data, documents, &edits)?;
    let mut sample = vec![("filled_per_s", documents as f64 / (ms_since(start) / 1_000.0))];
    programs.start(Target::Syncline, data)?.stop().await?;

    let (server, start_ms) = started(programs, data)?;
    sample.extend([("start_ms", start_ms), ("start_rss_mib", server.rss_kib()? / 1_024.0)]);
    sample.push(("kib_per_small_room", small_rooms(&server).await?));
    open_many(&server, documents, seconds, &mut sample).await?;
    write_some(&server, &edits).await?;
    server.kill()?;

    let (server, start_ms) = started(programs, data)?;
    sample.push(("killed_start_ms", start_ms));
    let joined = Link::greet(server.address, Vec::new())
        .await?
        .open(&id(WRITTEN - 1), None, Vec::new())
        .await?;
    ensure!(
        !joined.heads.is_empty() && joined.cursor.position == Position::new(EDITS as u64 + 2),
        "the last acknowledged edit is not there after the kill: {:?}",
        joined.cursor
    );
    server.stop().await?;
    Ok(sample)
}

fn id(number: usize) -> String {
    format!("many/{number}")
}

fn started(programs: &Programs, data: &Path) -> anyhow::Result<(Server, f64)> {
    let start = now();
    let server = programs.start_with(Target::Syncline, data, &ENVIRONMENT)?;
    Ok((server, ms_since(start)))
}

/// Writes the documents as the server would, but without a server.
fn fill(data: &Path, documents: usize, edits: &Edits) -> anyhow::Result<()> {
    let kv = Arc::new(SledKv::open(data, SledOptions::default())?);
    Store::open(kv.clone())?;
    let writer = Writer::start(kv)?;
    let base = Base::empty_text()?;
    let changes = base
        .changes
        .iter()
        .chain((0..EDITS).filter_map(|place| edits.edit(0, place)));
    let entries: Vec<_> = changes
        .map(|change| LogEntry {
            subject: "bench".to_owned(),
            change: change.clone(),
        })
        .collect();
    let (tell, told) = mpsc::sync_channel(documents);
    for number in 0..documents {
        let document: DocumentId = id(number).parse()?;
        let record = LogRecord {
            position: Position::new(0),
            bytes_before: 0,
            entries: entries.clone(),
        };
        let tell = tell.clone();
        let work = Work {
            batch: layout::append(&document, Epoch::new(1), &record, true),
            // The receiver waits below for each of them.
            done: Box::new(move |result| drop(tell.send(result))),
        };
        writer
            .submit(work)
            .map_err(|refused| anyhow!("the writer is {refused:?}"))?;
    }
    for _ in 0..documents {
        told.recv()??;
    }
    writer.close();
    Ok(())
}

/// KiB of resident memory for each of many rooms of one connection.
async fn small_rooms(server: &Server) -> anyhow::Result<f64> {
    let mut link = Link::greet(server.address, Vec::new()).await?;
    link.open(&id(0), None, Vec::new()).await?;
    let before_kib = server.rss_kib()?;
    for number in 1..=ROOMS {
        link.open(&id(number), None, Vec::new()).await?;
    }
    Ok((server.rss_kib()? - before_kib) / ROOMS as f64)
}

/// Opens documents at an even pace, each over a connection of its own that then leaves. The first ones warm the store's cache.
async fn open_many(server: &Server, documents: usize, seconds: u32, sample: &mut Sample) -> anyhow::Result<()> {
    let (took_ms, failed) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0_u32)));
    let (start, cpu_s, mut rss_kib) = (now(), server.cpu_s()?, Vec::new());
    let mut opens = tokio::task::JoinSet::new();
    let warm = u32::try_from(documents / WARM_ONE_IN)?;
    let count = OPENS_PER_S * seconds;
    for number in 0..warm + count {
        let due = start + Duration::from_secs(1) * number / OPENS_PER_S;
        tokio::time::sleep_until(due.into()).await;
        let (address, took_ms, failed) = (server.address, took_ms.clone(), failed.clone());
        // All over the store, none twice.
        let document = id((number as usize).wrapping_mul(7_919) % documents);
        opens.spawn_local(async move {
            let start = now();
            let opened = async {
                Link::greet(address, Vec::new())
                    .await?
                    .open(&document, None, Vec::new())
                    .await
            };
            match opened.await {
                Ok(_) => took_ms.borrow_mut().push(ms_since(start)),
                Err(_) => failed.set(failed.get() + 1),
            }
        });
        while opens.try_join_next().is_some() {}
        ensure!(
            opens.len() < UNDER_WAY_MAX as usize,
            "the server does not keep up with {OPENS_PER_S} opens/s"
        );
        if number >= warm && number % (OPENS_PER_S / 4) == 0 {
            rss_kib.push(server.rss_kib()?);
        }
    }
    while opens.join_next().await.is_some() {}
    let took_s = ms_since(start) / 1_000.0;
    let mut took_ms = took_ms.take();
    let quarter = rss_kib.len() / 4;
    let (second, last) = (&rss_kib[quarter..2 * quarter], &rss_kib[3 * quarter..]);
    sample.extend([
        ("opened_per_s", took_ms.len() as f64 / took_s),
        ("opens_failed", f64::from(failed.get())),
        ("open_p50_ms", percentile(&mut took_ms, 50.0)),
        ("open_p99_ms", percentile(&mut took_ms, 99.0)),
        ("cpu_share", (server.cpu_s()? - cpu_s) / took_s),
        ("rss_mib", median(last) / 1_024.0),
        ("rss_last_quarter_over_second", median(last) / median(second)),
    ]);
    Ok(())
}

/// One more edit in each of the first documents, acknowledged.
async fn write_some(server: &Server, edits: &Edits) -> anyhow::Result<()> {
    let mut link = Link::greet(server.address, Vec::new()).await?;
    let edit = edits.edit(1, 0).cloned();
    for number in 0..WRITTEN {
        link.open(&id(number), None, Vec::new()).await?;
        link.store(number as u64, edit.as_slice()).await?;
    }
    Ok(())
}
