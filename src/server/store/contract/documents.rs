//! Documents: appending, loading, reading slices, compaction step by step, pruning, quarantine, deletion.

use super::{
    super::{
        check::check_kv,
        key::{Key, Kind},
    },
    *,
};

#[test]
fn what_is_appended_is_loaded() {
    on_every_store(|floor| {
        let mut authors = ["a", "a/b", "a-b", "b"].map(Author::new);
        assert_eq!(floor.store().load(&id("a")), Ok(None));
        for round in 0..6 {
            let kv = floor.kv();
            authors
                .iter_mut()
                .for_each(|author| author.append_some(&*kv, round + 1));
        }
        floor.reopen();
        let store = floor.store();
        for author in &authors {
            let meta = author.check(&store);
            assert_eq!(
                (meta.epoch, meta.log_start, meta.snapshot),
                (Epoch::new(7), at(0), None)
            );
        }
        assert_eq!(store.documents(None, 10).unwrap(), ["a", "a-b", "a/b", "b"].map(id));
        assert_eq!(store.documents(Some(&id("a")), 2).unwrap(), ["a-b", "a/b"].map(id));
        assert_eq!(store.documents(Some(&id("b")), 2).unwrap(), []);
        assert_eq!(store.documents(None, 0).unwrap(), []);
    });
}

/// The stored index, the records behind the snapshot in their order, and nothing of a log that does not go on from there.
#[test]
fn a_replay_is_given_what_a_load_holds() {
    on_every_store(|floor| {
        let (kv, store) = (floor.kv(), floor.store());
        let replay = |author: &Author| {
            let (mut begun, mut given) = (Vec::new(), 0);
            let mut begin = |index| {
                begun.push(index);
                Vec::new()
            };
            let mut take = |records: &mut Vec<LogRecord>, record| {
                given += 1;
                records.push(record);
            };
            let replayed = store.replay(&author.document, &mut begin, &mut take);
            (begun, replayed, given)
        };
        let mut author = Author::new("replayed");
        let (begun, replayed, _) = replay(&author);
        assert!(begun.is_empty() && replayed.unwrap().is_none(), "nobody has written it");
        author.append_some(&*kv, 20);
        let (bytes, index) = (author.snapshot(), b"index".to_vec());
        layout::snapshot(&author.document, 1, &bytes, &index).for_each(|batch| write(&*kv, &batch));
        let snapshot = author.describe(1, &bytes, &index);
        let meta = store.meta(&author.document).unwrap().unwrap();
        write(&*kv, &layout::flip(&author.document, &meta, snapshot.clone()).1);
        author.append_some(&*kv, 7);
        author.check(&store);
        let stored = store.load(&author.document).unwrap().unwrap();
        let (begun, replayed, given) = replay(&author);
        let replayed = replayed.unwrap().unwrap();
        assert_eq!((begun, given), (vec![stored.index], 7));
        assert_eq!(replayed.made, stored.records);
        assert_eq!(
            (replayed.meta, replayed.end, replayed.bytes),
            (stored.meta, stored.end, stored.bytes)
        );

        let elsewhere = SnapshotMeta {
            bytes_before: snapshot.bytes_before + 1,
            ..snapshot
        };
        write(&*kv, &layout::flip(&author.document, &meta, elsewhere).1);
        let (_, replayed, given) = replay(&author);
        assert!(matches!(replayed, Err(StoreError::Damaged { .. })), "{replayed:?}");
        assert_eq!(given, 0);
    });
}

/// What was made on top of an index that is not current any more is not what a room opens with.
#[test]
fn a_replay_begins_anew_when_the_snapshot_changes_meanwhile() {
    on_every_store(|floor| {
        let (kv, store) = (floor.kv(), floor.store());
        let mut author = Author::new("replayed-anew");
        author.append_some(&*kv, 7);
        let (bytes, index) = (author.snapshot(), b"index".to_vec());
        layout::snapshot(&author.document, 1, &bytes, &index).for_each(|batch| write(&*kv, &batch));
        let meta = store.meta(&author.document).unwrap().unwrap();
        let flip = layout::flip(&author.document, &meta, author.describe(1, &bytes, &index)).1;
        let mut begun = Vec::new();
        let mut begin = |index: bytes::Bytes| {
            begun.push(index);
            0
        };
        let mut given = 0;
        let mut take = |taken: &mut usize, _| {
            if given == 0 {
                write(&*kv, &flip);
            }
            given += 1;
            *taken += 1;
        };
        let replayed = store.replay(&author.document, &mut begin, &mut take).unwrap().unwrap();
        assert_eq!((begun, given), (vec![bytes::Bytes::new(), index.into()], 7));
        assert_eq!(replayed.made, 0, "all is in the snapshot now");
        assert_eq!(replayed.meta.snapshot.map(|snapshot| snapshot.generation), Some(1));
    });
}

#[test]
fn big_edits_stay_in_the_log_file() {
    on_every_store(|floor| {
        let mut author = Author::new("big");
        for n in 0..8 {
            let change: Vec<u8> = (0..1u32 << 20)
                .map(|byte| (byte.wrapping_mul(2_654_435_761) >> (8 + n)) as u8)
                .collect();
            author.append(&*floor.kv(), vec![entry("ann", change)]);
        }
        floor.reopen();
        author.check(&floor.store());
        let slice = floor.store().read_log(&author.document, at(3), at(8), 1).unwrap();
        assert_eq!(
            (slice.entries.len(), slice.next, slice.bytes_before),
            (1, at(4), 3 << 20)
        );
        floor.check();
    });
}

#[test]
fn the_log_is_read_in_slices() {
    on_every_store(|floor| {
        let mut author = Author::new("slices");
        author.append_some(&*floor.kv(), 40);
        let store = floor.store();
        let end = author.entries.len() as u64;
        // Every pair of ends, also inside records.
        for from in 0..=end {
            for to in [from, from + 1, from + 2, from + 7, end].map(|to| to.min(end)) {
                let slice = store.read_log(&author.document, at(from), at(to), u64::MAX).unwrap();
                assert_eq!(
                    slice.entries,
                    author.entries[from as usize..to.max(from) as usize],
                    "{from}..{to}"
                );
                assert_eq!(
                    (slice.next, slice.bytes_before),
                    (at(to.max(from)), author.bytes_to(from as usize))
                );
            }
        }
        // In parts of about 100 bytes.
        let mut next = at(0);
        let mut parts = Vec::new();
        while next < at(end) {
            let slice = store.read_log(&author.document, next, at(end), 100).unwrap();
            let bytes: Vec<_> = slice.entries.iter().map(|entry| entry.change.len()).collect();
            assert!(bytes[..bytes.len() - 1].iter().sum::<usize>() < 100, "{bytes:?}");
            parts.extend(slice.entries);
            next = slice.next;
        }
        assert_eq!(parts, author.entries);
        // At least one change, and never more than the log has.
        assert_eq!(
            store.read_log(&author.document, at(0), at(end), 0).unwrap().entries,
            author.entries[..1]
        );
        let beyond = store.read_log(&author.document, at(end - 1), at(end + 1), u64::MAX);
        assert!(matches!(beyond, Err(StoreError::Damaged { .. })), "{beyond:?}");
        let none = store.read_log(&id("none"), at(0), at(1), 1);
        assert_eq!(none, Err(StoreError::NoDocument(id("none"))));
    });
}

/// One step of a compaction, durable when it returns: each batch of chunks, the flip, the drop, the pruning.
fn compaction_step(author: &Author, store: &Store, kv: &dyn Kv, step: usize) {
    let document = &author.document;
    let meta = store.meta(document).unwrap().unwrap();
    let (bytes, index) = (author.snapshot(), vec![9; 10_000]);
    let current = meta.snapshot.as_ref().map_or(0, |snapshot| snapshot.generation);
    let chunks: Vec<_> = layout::snapshot(document, current + 1, &bytes, &index).collect();
    match step {
        step if step < chunks.len() => write(kv, &chunks[step]),
        step if step == chunks.len() => {
            let snapshot = author.describe(current + 1, &bytes, &index);
            assert_eq!(
                store.read_back(document, &snapshot).unwrap(),
                (bytes.into(), index.into())
            );
            write(kv, &layout::flip(document, &meta, snapshot).1);
        }
        step if step == chunks.len() + 1 => {
            store
                .drop_generation(document, current - 1)
                .unwrap()
                .iter()
                .for_each(|batch| write(kv, batch));
        }
        step if step == chunks.len() + 2 => {
            if let Some((_, batches)) = store
                .prune(
                    document,
                    &meta,
                    LogKept {
                        changes: 30,
                        bytes: u64::MAX,
                    },
                )
                .unwrap()
            {
                batches.iter().for_each(|batch| write(kv, batch));
            }
        }
        _ => {}
    }
}

#[test]
fn a_compaction_may_end_after_every_step() {
    on_every_store(|floor| {
        // 270 KB of snapshot, so two batches of it and one of the index. Stop after each number of steps, reopen, look, tidy up, compact wholly.
        for steps in 0..7 {
            let mut author = Author::new(&format!("stopped-after-{steps}"));
            author.append(&*floor.kv(), vec![entry("ann", vec![1; 270_000])]);
            author.append_some(&*floor.kv(), 20);
            (0..6).for_each(|step| compaction_step(&author, &floor.store(), &*floor.kv(), step));
            author.append_some(&*floor.kv(), 20);

            (0..steps).for_each(|step| compaction_step(&author, &floor.store(), &*floor.kv(), step));
            floor.reopen();
            author.check(&floor.store());
            let left = floor.store().leftovers(&author.document, &[]).unwrap();
            assert_eq!(
                left.is_empty(),
                matches!(steps, 0 | 5..),
                "{steps} steps left {} batches",
                left.len()
            );
            left.iter().for_each(|batch| write(&*floor.kv(), batch));
            assert_eq!(floor.store().leftovers(&author.document, &[]).unwrap(), []);

            author.append_some(&*floor.kv(), 5);
            (0..6).for_each(|step| compaction_step(&author, &floor.store(), &*floor.kv(), step));
            let meta = author.check(&floor.store());
            assert_eq!(meta.snapshot_end(), at(author.entries.len() as u64));
            assert_eq!(floor.store().leftovers(&author.document, &[]).unwrap(), []);
        }
    });
}

#[test]
fn a_pinned_generation_stays() {
    on_every_store(|floor| {
        let mut author = Author::new("pinned");
        author.append_some(&*floor.kv(), 30);
        let compact = |author: &Author, store: &Store, kv: &dyn Kv| {
            let meta = store.meta(&author.document).unwrap().unwrap();
            let (bytes, index) = (author.snapshot(), b"index".to_vec());
            layout::snapshot(&author.document, meta.next_generation(), &bytes, &index)
                .for_each(|batch| write(kv, &batch));
            let snapshot = author.describe(meta.next_generation(), &bytes, &index);
            let (meta, batch) = layout::flip(&author.document, &meta, snapshot);
            write(kv, &batch);
            meta.snapshot.unwrap()
        };
        let (kv, store) = (floor.kv(), floor.store());
        let first = compact(&author, &store, &*kv);
        let bytes = author.snapshot();
        author.append_some(&*kv, 3);
        let second = compact(&author, &store, &*kv);
        assert_eq!((first.generation, second.generation), (1, 2));
        assert_eq!(store.leftovers(&author.document, &[1]).unwrap(), []);
        assert_eq!(
            store.read_snapshot(&author.document, &first, 0, u64::MAX).unwrap(),
            bytes
        );
        store
            .leftovers(&author.document, &[])
            .unwrap()
            .iter()
            .for_each(|batch| write(&*kv, batch));
        assert!(store.read_snapshot(&author.document, &first, 0, u64::MAX).is_err());
        author.check(&store);
    });
}

#[test]
fn snapshots_are_read_from_any_offset() {
    on_every_store(|floor| {
        let (kv, store) = (floor.kv(), floor.store());
        let document = id("offsets");
        let bytes: Vec<u8> = (0..20_000u32).map(|byte| (byte % 251) as u8).collect();
        for length in [0, 1, 4_091, 4_092, 4_093, 8_184, 20_000] {
            let snapshot = SnapshotMeta::new(length as u64 + 1, (at(0), 0), vec![], &bytes[..length], &[]);
            layout::snapshot(&document, snapshot.generation, &bytes[..length], &[])
                .for_each(|batch| write(&*kv, &batch));
            for offset in [0, 1, 4_000, 4_091, 4_092, 4_093, 8_183, 8_184, 19_999, 20_000, 30_000] {
                for most in [0, 1, 92, 93, 4_092, 50_000] {
                    let part = store
                        .read_snapshot(&document, &snapshot, offset as u64, most as u64)
                        .unwrap();
                    let expected = &bytes[offset.min(length)..(offset + most).min(length).max(offset.min(length))];
                    assert_eq!(part, expected, "{offset} + {most} of {length}");
                }
            }
        }
    });
}

#[test]
fn pruning_keeps_what_is_asked() {
    on_every_store(|floor| {
        let mut author = Author::new("pruned");
        author.append_some(&*floor.kv(), 60);
        let (kv, store) = (floor.kv(), floor.store());
        let before = store.meta(&author.document).unwrap().unwrap();
        let generous = LogKept {
            changes: 10,
            bytes: u64::MAX,
        };
        assert_eq!(
            store.prune(&author.document, &before, generous).unwrap(),
            None,
            "nothing is covered yet"
        );
        (0..3).for_each(|step| compaction_step(&author, &store, &*kv, step));
        let covered = author.entries.len();
        author.append_some(&*kv, 3);
        let check = |kept: LogKept| {
            let meta = store.meta(&author.document).unwrap().unwrap();
            if let Some((pruned, batches)) = store.prune(&author.document, &meta, kept).unwrap() {
                batches.iter().for_each(|batch| write(&*kv, batch));
                assert_eq!(author.check(&store), pruned);
            }
            let enough = |start: &&usize| {
                let bytes = author.bytes_to(covered) - author.bytes_to(**start);
                (covered - **start) as u64 >= kept.changes || bytes >= kept.bytes
            };
            let covered_starts = author.starts.iter().filter(|start| **start < covered);
            let log_start = covered_starts.rev().find(enough).copied().unwrap_or(0);
            assert_eq!(author.check(&store).log_start, at(log_start as u64), "{kept:?}");
            let read = |from: usize| store.read_log(&author.document, at(from as u64), at(covered as u64), u64::MAX);
            assert_eq!(read(log_start).unwrap().entries, author.entries[log_start..covered]);
            let gone = StoreError::NotInLog {
                asked: at(0),
                log_start: at(log_start as u64),
            };
            assert!(log_start == 0 || read(0) == Err(gone));
            log_start
        };
        assert_eq!(
            check(LogKept {
                changes: 1_000,
                bytes: u64::MAX
            }),
            0
        );
        let of_changes = check(LogKept {
            changes: 100,
            bytes: u64::MAX,
        });
        assert!(
            (covered - 103..=covered - 100).contains(&of_changes),
            "{of_changes} of {covered}"
        );
        assert_eq!(
            check(LogKept {
                changes: 100,
                bytes: u64::MAX
            }),
            of_changes
        );
        let of_bytes = check(LogKept {
            changes: u64::MAX,
            bytes: 500,
        });
        assert!(of_bytes > of_changes);
        assert!(check(LogKept { changes: 1, bytes: 500 }) > of_bytes);
        check(LogKept { changes: 0, bytes: 0 });
    });
}

#[test]
fn a_pruning_may_end_after_every_batch() {
    on_every_store(|floor| {
        let mut author = Author::new("pruned");
        // Every third record has three chunks.
        let mut log = Batch::default();
        for number in 0..1_600 {
            let length = if number % 3 == 0 { 9_000 } else { 20 };
            let change = vec![number as u8; length];
            let record = LogRecord {
                position: at(author.entries.len() as u64),
                bytes_before: author.bytes(),
                entries: vec![entry("ann", change.clone())],
            };
            log.extend(layout::append(&author.document, Epoch::new(7), &record, number == 0));
            author.append_unwritten(vec![entry("ann", change)]);
        }
        let (kv, store) = (floor.kv(), floor.store());
        write(&*kv, &log);
        let (bytes, meta) = (author.snapshot(), store.meta(&author.document).unwrap().unwrap());
        layout::snapshot(&author.document, 1, &bytes, &[]).for_each(|batch| write(&*kv, &batch));
        write(
            &*kv,
            &layout::flip(&author.document, &meta, author.describe(1, &bytes, &[])).1,
        );
        author.append_some(&*kv, 3);
        let kept = |changes| LogKept {
            changes,
            bytes: u64::MAX,
        };
        let check = |meta: &Meta| {
            assert_eq!(author.check(&store), *meta);
            let start = meta.log_start.number() as usize;
            let read = store.read_log(&author.document, meta.log_start, at(1_600), u64::MAX);
            assert_eq!(read.unwrap().entries, author.entries[start..1_600]);
            let report = check_kv(kv.clone(), &mut |_, _, _| Ok(())).unwrap();
            assert!(report.is_sound(), "{:?}", report.findings);
        };
        let prune = |changes| {
            let meta = store.meta(&author.document).unwrap().unwrap();
            store.prune(&author.document, &meta, kept(changes)).unwrap().unwrap()
        };
        let (meta, batches) = prune(100);
        assert!(batches.len() >= 3, "{} batches", batches.len());
        assert!(batches.iter().all(|batch| batch.deletes() < 1_010));
        for batch in &batches[..batches.len() - 1] {
            write(&*kv, batch);
            check(&meta);
        }
        // It ended here.
        let (meta, batches) = prune(50);
        for batch in &batches {
            write(&*kv, batch);
            check(&meta);
        }
        let mut first = None;
        let all = Kind::Log.all(&author.document);
        kv.scan(&all.start..&all.end, &mut |key, _| {
            first = Some(Key::parse(key));
            ControlFlow::Break(())
        })
        .unwrap();
        let document = author.document.clone();
        let position = meta.log_start;
        let log_start = Key::Log {
            document,
            position,
            chunk: 0,
        };
        assert_eq!(first, Some(Some(log_start)), "nothing is left before it");
    });
}

#[test]
fn quarantine_is_one_batch() {
    on_every_store(|floor| {
        // From inside a record and from its beginning, with something in its place and with nothing.
        for (keep_from, replaced) in [(0, 0), (0, 2), (11, 0), (11, 3), (12, 1), (13, 1), (40, 1)] {
            let mut author = Author::new(&format!("quarantine-{keep_from}-{replaced}"));
            author.append_some(&*floor.kv(), 15);
            let (kv, store) = (floor.kv(), floor.store());
            let keep_from = keep_from.min(author.entries.len());
            let culprits: Vec<_> = author.entries[keep_from..]
                .iter()
                .enumerate()
                .map(|(n, entry)| Culprit {
                    hash: ChangeHash([n as u8; 32]),
                    entry: entry.clone(),
                })
                .collect();
            let records = vec![vec![entry("cy", "instead"), entry("cy", "of them")]; replaced];
            author.entries.truncate(keep_from);
            author.entries.extend(records.iter().flatten().cloned());
            let (meta, batch) = store
                .quarantine(
                    &author.document,
                    Epoch::new(8),
                    at(keep_from as u64),
                    records,
                    &culprits,
                )
                .unwrap();
            write(&*kv, &batch);
            drop((kv, store));
            floor.reopen();
            let store = floor.store();
            assert_eq!(author.check(&store), meta);
            assert_eq!(meta.epoch, Epoch::new(8));
            assert_eq!(store.culprits(&author.document).unwrap(), culprits);
            assert_eq!(store.quarantined(&author.document).unwrap().len(), culprits.len());
            author.append_some(&*floor.kv(), 5);
            author.check(&store);
        }
    });
}

#[test]
fn many_heads_take_several_chunks() {
    on_every_store(|floor| {
        let mut author = Author::new("heads");
        author.append_some(&*floor.kv(), 3);
        let (kv, store) = (floor.kv(), floor.store());
        for heads in [1_000, 1, 500] {
            let meta = store.meta(&author.document).unwrap().unwrap();
            let bytes = author.snapshot();
            let mut snapshot = author.describe(meta.next_generation(), &bytes, b"index");
            snapshot.heads = (0..heads).map(|n| ChangeHash([n as u8; 32])).collect();
            let generation = meta.next_generation();
            layout::snapshot(&author.document, generation, &bytes, b"index").for_each(|batch| write(&*kv, &batch));
            let (meta, batch) = layout::flip(&author.document, &meta, snapshot);
            write(&*kv, &batch);
            assert_eq!(author.check(&store), meta);
            assert_eq!(store.documents(None, 9).unwrap(), [author.document.clone()]);
        }
    });
}
