//! One writer, then two, in documents of ever longer history: whether an edit costs more, and what its merging does to others.

use super::{
    figure, paced, paced_plan,
    process::{Programs, Server},
    store_base,
    target::{Link, Target},
};
use crate::{
    clock::{ms_since, now},
    edits::{Base, Edits, Sight},
    history::History,
    report::Sample,
};
use anyhow::{Context, ensure};
use bytes::Bytes;
use std::{
    cell::Cell,
    convert::Infallible,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

const ROOM: &str = "long";
/// Edits per second, of one writer or of two together.
const EDITS_PER_S: u32 = 200;
/// How many of the other's edits a concurrent writer has not seen. At first it has not seen the former phase's, either.
const UNSEEN: usize = 250;
/// What comes all at once, to be merged, while the other room is looked at; so many in one message.
const BURST: usize = 5_000;
const BURST_EDIT: usize = 100;
/// How long the other room is looked at. Merging, and the rest behind it, should be over by then: without edits nothing rests.
const BESIDE_S: u32 = 20;
/// How often it is looked whether something is merged.
const LOOK: Duration = Duration::from_millis(200);
const UNDER_WAY: &str = "syncline_merges_under_way";
const MERGING: &str = "syncline_merging_seconds_total";
/// A million changes take more than the default.
const ENVIRONMENT: [(&str, &str); 1] = [("SYNCLINE_ROOMS_MEMORY_BYTES_MAX", "4294967296")];

/// What an edit took in the shortest document.
#[derive(Clone, Copy)]
pub(crate) struct Shortest {
    alone_us: f64,
    concurrent_us: f64,
}

/// The whole course for one length, on a store of its own in `data`.
pub(crate) async fn run(
    programs: &Programs,
    data: &Path,
    history: &History,
    seconds: u32,
    shortest: &mut Option<Shortest>,
) -> anyhow::Result<Sample> {
    let server = programs.start_with(Target::Syncline, data, &ENVIRONMENT)?;
    let start = now();
    store_base(server.address, ROOM, &history.base).await?;
    let load_s = ms_since(start) / 1_000.0;
    server.quiet(6).await?;

    let count = (EDITS_PER_S * seconds) as usize;
    let alone = Edits::prepare(&history.base, 1, count, Sight::Apart);
    let alone_us = us_per_edit(&server, history, alone, count).await?;
    let each = count / 2;
    let concurrent = Edits::prepare_from(1, &history.base, 2, each, Sight::Behind(UNSEEN));
    let concurrent_us = us_per_edit(&server, history, concurrent, each).await?;
    let first = *shortest.get_or_insert(Shortest {
        alone_us,
        concurrent_us,
    });
    let mut sample = vec![
        ("load_s", load_s),
        ("alone_us_per_edit", alone_us),
        ("alone_us_over_shortest", alone_us / first.alone_us),
        ("concurrent_us_per_edit", concurrent_us),
        ("concurrent_us_over_shortest", concurrent_us / first.concurrent_us),
    ];
    server.quiet(3).await?;
    sample.extend(beside(&server, history).await?);
    sample.push(("rss_mib", server.rss_kib()? / 1_024.0));
    server.stop().await?;
    Ok(sample)
}

/// Microseconds of the server's CPU for each edit, with one member who reads and is no writer.
async fn us_per_edit(server: &Server, history: &History, edits: Edits, count: usize) -> anyhow::Result<f64> {
    let writers = edits.writers();
    let plan = Rc::new(paced::Plan {
        members: writers + 1,
        per_second: EDITS_PER_S / writers as u32,
        count,
        base: history.base.clone(),
        edits,
    });
    let sample = paced::run_in(Target::Syncline, server, ROOM, &plan).await?;
    // Every edit is delivered to all but its writer.
    let us_per_delivery = figure(&sample, "cpu_s_per_100k_deliveries") * 10.0;
    Ok(us_per_delivery * writers as f64)
}

/// A moment, with what the server had used by then.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    cpu_s: f64,
    merging_s: f64,
}

impl Moment {
    /// What was used until `end`, by all and by merging, as shares of a core.
    fn shares_until(&self, end: &Self) -> [f64; 2] {
        let span_s = (end.at - self.at).as_secs_f64();
        [
            (end.cpu_s - self.cpu_s) / span_s,
            (end.merging_s - self.merging_s) / span_s,
        ]
    }
}

/// How another room fares while many edits come to the long document, and are merged.
async fn beside(server: &Server, history: &History) -> anyhow::Result<Sample> {
    let plan = paced_plan(Base::empty_text()?, 2, 1, 25, BESIDE_S);
    store_base(server.address, "beside", &plan.base).await?;
    let edits = Edits::prepare_from(3, &history.base, 1, BURST, Sight::Apart);
    let changes: Vec<_> = (0..BURST).filter_map(|place| edits.edit(0, place).cloned()).collect();
    let (plan, merged) = (Rc::new(plan), Cell::new(None));
    let course = async {
        tokio::try_join!(
            paced::run_in(Target::Syncline, server, "beside", &plan),
            burst(server, &changes)
        )
    };
    let (other, (begin, burst_ms)) = tokio::select! {
        ended = course => ended?,
        Err(error) = follow_merging(server, &merged) => return Err(error),
    };
    ensure!(
        server.metric(UNDER_WAY).await? == 0.0,
        "merging outlasts the {BESIDE_S} s for which it is looked at"
    );
    let after_s = server.cpu_s()?;
    server.quiet(3).await?;
    let end = merged.take().filter(|end| end.at > begin.at);
    let [all, merging] = begin.shares_until(&end.context("the edits that came at once were not merged")?);
    Ok(vec![
        ("burst_of_5000_ms", burst_ms),
        ("beside_p50_ms", figure(&other, "p50_ms")),
        ("beside_p99_ms", figure(&other, "p99_ms")),
        ("beside_max_ms", figure(&other, "max_ms")),
        ("merging_share", merging),
        ("behind_cpu_share", all),
        ("behind_cpu_after_s", server.cpu_s()? - after_s),
    ])
}

/// Sends the changes to the long document at once; when that begins, and the milliseconds until they are stored.
async fn burst(server: &Server, changes: &[Bytes]) -> anyhow::Result<(Moment, f64)> {
    let mut link = Link::greet(server.address, Vec::new()).await?;
    link.open(ROOM, None, Vec::new()).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // What was typed before is merged by itself.
    while server.metric(UNDER_WAY).await? > 0.0 {
        tokio::time::sleep(LOOK).await;
    }
    let begin = Moment {
        cpu_s: server.cpu_s()?,
        merging_s: server.metric(MERGING).await?,
        at: now(),
    };
    for (id, changes) in changes.chunks(BURST_EDIT).enumerate() {
        link.store(id as u64, changes).await?;
    }
    Ok((begin, ms_since(begin.at)))
}

/// Notes, for as long as it is polled, when something was last seen to be merged or to rest behind that.
async fn follow_merging(server: &Server, last: &Cell<Option<Moment>>) -> anyhow::Result<Infallible> {
    let mut before_s = server.metric(MERGING).await?;
    loop {
        tokio::time::sleep(LOOK).await;
        let [under_way, merging_s] = server.metrics([UNDER_WAY, MERGING]).await?;
        if under_way > 0.0 || merging_s > before_s {
            before_s = merging_s;
            let (at, cpu_s) = (now(), server.cpu_s()?);
            last.set(Some(Moment { at, cpu_s, merging_s }));
        }
    }
}
