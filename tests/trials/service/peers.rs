//! Nobody is told of what is not on disk, in the repo dialect: neither an author by heads, nor a watcher by heads or changes.

use super::alarm::{DELAY_MS, UNSYNCED_BITES, with_slow_fsyncs};
use crate::{
    client::{Client, Heard},
    clock,
    journal::missing,
    load::Author,
    peer::{Peer, chunks, heads},
    trial::{Figure, Outcome, Row, Trial, ensure, needs},
};
use automerge::{Change, ChangeHash};
use std::{collections::BTreeSet, time::Duration};
use syncline_protocol::repo::RepoMessage;

pub(crate) const UNSYNCED: Row = Row {
    number: "E5",
    name: "nobody sees an edit that is not on disk (repo dialect)",
    target: "neither heads nor changes before the fsync has returned; 0 named lost",
    ci: 4,
    soak: 200,
    run: unsynced,
    bites: UNSYNCED_BITES,
};

const DOCUMENT: &str = "slow";

fn unsynced(trial: &Trial) -> Outcome {
    needs("strace")?;
    let mut earliest = f64::MAX;
    let count = trial.rounds(|round, rng| {
        let data = trial.directory(&format!("store-{round}"));
        let process = with_slow_fsyncs(trial.setup(&data)).start()?;
        let join = |id| Peer::join(process.address, id, None);
        let (mut anna, mut ben) = (join("anna")?, join("ben")?);
        ensure!(ben.read(DOCUMENT)?.is_none(), "the document is there already");
        let mut author = Author::new(b"slow");
        for _ in 0..2 {
            let (head, change) = author.next();
            let begun = clock::now();
            anna.offer(DOCUMENT, head, &[change])?;
            anna.acked(DOCUMENT, head)?;
            let acked = begun.ms();
            ensure!(
                acked >= DELAY_MS as f64,
                "told after {acked:.0} ms, before the fsync of {DELAY_MS} ms"
            );
            earliest = earliest.min(acked);
        }
        // Killed while the fsync is under way: by then nobody may have heard of it.
        let (head, change) = author.next();
        let begun = clock::now();
        anna.offer(DOCUMENT, head, &[change])?;
        let wait = Duration::from_millis(rng.below(DELAY_MS as usize / 2) as u64);
        let mut named = named_within(&mut ben, wait)?;
        named.extend(named_within(&mut anna, Duration::from_millis(1))?);
        let early = named.contains(&head) && begun.ms() < DELAY_MS as f64;
        process.kill();
        for peer in [&mut anna, &mut ben] {
            named.extend(named_within(peer, Duration::from_secs(1))?);
        }
        ensure!(!early, "named before the fsync");
        let process = trial.setup(&data).start()?;
        let replica = Client::connect(process.address)?.open(DOCUMENT)?.document()?;
        let lost = missing(&replica, &named);
        ensure!(lost == 0, "{lost} changes that were named are lost");
        process.kill();
        Ok(())
    })?;
    let text = format!("with fsyncs of {DELAY_MS} ms no heads before {earliest:.0} ms; nothing named was lost");
    Ok(Figure { count, text })
}

/// The changes that a peer is sent within so long, and the heads that it is told.
fn named_within(peer: &mut Peer, limit: Duration) -> Result<BTreeSet<ChangeHash>, String> {
    let (begun, mut named) = (clock::now(), BTreeSet::new());
    loop {
        let left = limit.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
        match peer.hear_within(left) {
            Heard::Message(RepoMessage::Sync(sync)) => {
                named.extend(heads(&sync.data)?);
                let changes = chunks(&sync.data)?;
                named.extend(
                    changes
                        .iter()
                        .filter_map(|chunk| Some(Change::try_from(&chunk[..]).ok()?.hash())),
                );
            }
            Heard::Message(_) => {}
            Heard::Ended(_) | Heard::Silence => return Ok(named),
        }
    }
}
