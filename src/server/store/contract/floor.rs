//! What every floor owes: order, ranges, atomic batches, durability across a reopening.

use super::*;

fn keys(kv: &dyn Kv, range: std::ops::Range<&str>) -> Vec<String> {
    let mut keys = Vec::new();
    kv.scan(range.start.as_bytes()..range.end.as_bytes(), &mut |key, _| {
        keys.push(String::from_utf8(key.to_vec()).unwrap());
        ControlFlow::Continue(())
    })
    .unwrap();
    keys
}

fn batch(writes: &[(&str, Option<&str>)]) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in writes {
        match value {
            Some(value) => batch.put(key.as_bytes().to_vec(), value.as_bytes().to_vec()),
            None => batch.delete(key.as_bytes().to_vec()),
        }
    }
    batch
}

#[test]
fn scans_are_ordered_and_half_open() {
    on_every_floor(|floor| {
        let kv = floor.kv();
        kv.commit(&batch(&[
            ("b", Some("2")),
            ("a", Some("1")),
            ("ab", Some("3")),
            ("c", Some("4")),
        ]))
        .unwrap();
        assert_eq!(keys(&*kv, "a".."c"), ["a", "ab", "b"]);
        assert_eq!(keys(&*kv, "aa".."b"), ["ab"]);
        assert_eq!(keys(&*kv, "c".."a"), [""; 0]);
        assert_eq!(keys(&*kv, "b".."b"), [""; 0]);
        let last = |from: &str, to: &str| kv.last(from.as_bytes()..to.as_bytes()).unwrap().map(|(key, _)| key);
        assert_eq!(last("a", "b"), Some(b"ab".to_vec()));
        assert_eq!(last("d", "e"), None);
        assert_eq!(last("c", "a"), None);

        let mut seen = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            seen += 1;
            if seen == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        kv.scan(b"a"..b"z", &mut visit).unwrap();
        assert_eq!(seen, 2);
    });
}

#[test]
fn the_later_write_of_a_batch_wins() {
    on_every_floor(|floor| {
        let kv = floor.kv();
        kv.commit(&batch(&[
            ("a", Some("1")),
            ("a", Some("2")),
            ("b", Some("1")),
            ("b", None),
            ("c", None),
        ]))
        .unwrap();
        kv.commit(&batch(&[("d", Some("1"))])).unwrap();
        kv.commit(&batch(&[("d", None), ("d", Some("3"))])).unwrap();
        assert_eq!(keys(&*kv, "a".."z"), ["a", "d"]);
        assert_eq!(kv.get(b"a").unwrap(), Some(b"2".to_vec()));
        assert_eq!(kv.get(b"d").unwrap(), Some(b"3".to_vec()));
        assert_eq!(kv.get(b"b").unwrap(), None);
    });
}

#[test]
fn what_is_synced_is_there_after_reopening() {
    on_every_floor(|floor| {
        let many: Vec<_> = (0..2_000).map(|n| format!("{n:05}")).collect();
        let writes: Vec<_> = many.iter().map(|key| (key.as_str(), Some("value"))).collect();
        write(&*floor.kv(), &batch(&writes));
        floor.reopen();
        assert_eq!(keys(&*floor.kv(), "0".."9"), many);
        let deletes: Vec<_> = many[..1_500].iter().map(|key| (key.as_str(), None)).collect();
        write(&*floor.kv(), &batch(&deletes));
        floor.reopen();
        assert_eq!(keys(&*floor.kv(), "0".."9"), many[1_500..]);
    });
}

#[test]
fn a_reader_never_gets_half_a_batch() {
    on_every_floor(|floor| {
        let kv = floor.kv();
        let pair = |n: u32| {
            let mut batch = Batch::default();
            batch.put(b"a".to_vec(), n.to_be_bytes().to_vec());
            (0..200u32).for_each(|filler| batch.put(format!("f{filler}").into(), n.to_be_bytes().to_vec()));
            batch.put(b"z".to_vec(), n.to_be_bytes().to_vec());
            batch
        };
        kv.commit(&pair(0)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..200).for_each(|n| kv.commit(&pair(n)).unwrap()));
            // Whichever is written first within a batch, a `get` of one and then of the other never goes back in time.
            for (first, second) in [(b"a", b"z"), (b"z", b"a")].repeat(200) {
                let [first, second] = [first, second].map(|key| kv.get(key).unwrap().unwrap());
                assert!(first <= second, "{first:?} was read before {second:?}");
            }
        });
    });
}

#[test]
fn a_directory_is_served_by_one() {
    let directory = TempDir::new().unwrap();
    let options = SledOptions {
        cache_bytes: 1 << 20,
        reserve_bytes: 1 << 16,
    };
    let first = SledKv::open(directory.path(), options).unwrap();
    let second = SledKv::open(directory.path(), options).err().unwrap();
    assert!(
        matches!(&second, StoreError::InUse(path) if *path == directory.path().display().to_string()),
        "{second}"
    );
    drop(first);
    SledKv::open(directory.path(), options).unwrap();
}

#[test]
fn another_format_is_refused() {
    on_every_floor(|floor| {
        floor.store();
        floor.reopen();
        floor.store();
        let kv = floor.kv();
        let mut later = Batch::default();
        later.put(b"v".to_vec(), super::super::record::seal(b"v", &3u64.to_be_bytes()));
        write(&*kv, &later);
        assert_eq!(
            Store::open(kv.clone()).err(),
            Some(StoreError::Version {
                found: "3".into(),
                known: 2
            })
        );
        write(&*kv, &batch(&[("v", None), ("a", Some("somebody else's"))]));
        assert_eq!(
            Store::open(kv).err(),
            Some(StoreError::Version {
                found: "none".into(),
                known: 2
            })
        );
    });
}
