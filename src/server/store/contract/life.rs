//! What a store notices of its being put back from a copy, moved, or emptied.

use super::{super::journal::Content, *};
use std::path::Path;

const NEXT: Life = Life {
    number: 77,
    began_unix_ms: 5,
};

fn begin(directory: &Path) -> Result<Life, StoreError> {
    let options = SledOptions {
        cache_bytes: 4 << 20,
        reserve_bytes: 64 << 10,
    };
    let kv = SledKv::open(directory, options)?;
    Ok(Store::begin(Arc::new(kv), NEXT)?.life())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let (path, to) = (
            file.as_ref().unwrap().path(),
            to.join(file.as_ref().unwrap().file_name()),
        );
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(path, to).unwrap();
        }
    }
}

#[test]
fn o27_a_store_that_was_put_back_from_a_copy_leads_another_life() {
    let root = TempDir::new().unwrap();
    let (data, backup) = (root.path().join("data"), root.path().join("backup"));
    assert_eq!(begin(&data), Ok(Life::default()));
    assert_eq!(begin(&data), Ok(Life::default()), "a restart");
    copy(&data, &backup);
    assert_eq!(begin(&data), Ok(Life::default()), "a copy was made, and nothing more");
    if std::fs::metadata(&data).unwrap().created().is_ok() {
        for file in std::fs::read_dir(&data).unwrap() {
            let file = file.unwrap();
            std::fs::set_permissions(file.path(), file.metadata().unwrap().permissions()).unwrap();
        }
        assert_eq!(
            begin(&data),
            Ok(Life::default()),
            "permissions were set again, as some do at every start"
        );
    }

    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    assert_eq!(begin(&data), Ok(NEXT), "the copy lies in its place");
    assert_eq!(begin(&data), Ok(NEXT), "once");

    // The files that are there are written over, and stay the same files; what the copy lacks goes.
    for file in std::fs::read_dir(&data).unwrap() {
        let file = file.unwrap();
        if !backup.join(file.file_name()).exists() {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    copy(&backup, &data);
    assert_eq!(begin(&data), Ok(NEXT));

    // Nothing tells a snapshot of the disk: the operator does.
    std::fs::remove_dir_all(&data).unwrap();
    assert_eq!(begin(&data), Ok(Life::default()));
    std::fs::remove_file(data.join("origin")).unwrap();
    assert_eq!(begin(&data), Ok(NEXT));
}

#[test]
fn looking_at_a_copy_does_not_begin_a_life() {
    let root = TempDir::new().unwrap();
    let (data, backup) = (root.path().join("data"), root.path().join("backup"));
    begin(&data).unwrap();
    copy(&data, &backup);
    let kv = SledKv::open(&backup, SledOptions::default()).unwrap();
    assert_eq!(Store::open(Arc::new(kv)).unwrap().life(), Life::default());
    assert_eq!(begin(&backup), Ok(NEXT));
}

#[test]
fn an_emptied_directory_is_not_begun_anew() {
    let root = TempDir::new().unwrap();
    let data = root.path().join("data");
    begin(&data).unwrap();
    std::fs::remove_file(data.join("db")).unwrap();
    assert!(matches!(begin(&data), Err(StoreError::NotAStore(_))));

    // sled begins a new log when it finds an empty one.
    std::fs::remove_dir_all(&data).unwrap();
    begin(&data).unwrap();
    for file in std::fs::read_dir(&data).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() && !path.ends_with("origin") {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::write(data.join("db"), b"").unwrap();
    assert_eq!(begin(&data), Err(StoreError::Emptied));

    let other = root.path().join("other");
    std::fs::create_dir_all(other.join("lost+found")).unwrap();
    assert_eq!(begin(&other), Ok(Life::default()), "a new disk");
    let home = root.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join("letter"), b"dear").unwrap();
    assert_eq!(begin(&home), Err(StoreError::NotAStore("letter".into())));
    let letter = home.join("letter");
    let path = letter.display().to_string();
    assert_eq!(begin(&letter), Err(StoreError::NotADirectory(path)));
}

#[test]
fn the_format_is_not_left_to_the_journal() {
    let directory = TempDir::new().unwrap();
    let waits = || match Content::read(directory.path()).unwrap() {
        Content::Records(records) => records.batches.iter().any(writes_version),
        other => panic!("{other:?}"),
    };
    let options = SledOptions {
        cache_bytes: 4 << 20,
        reserve_bytes: 64 << 10,
    };
    let kv = Arc::new(SledKv::open(directory.path(), options).unwrap());
    let store = Store::begin(kv.clone(), NEXT).unwrap();
    assert!(!waits(), "of a new store");

    let mut former = Batch::default();
    former.put(b"v".to_vec(), super::super::record::seal(b"v", &1u64.to_be_bytes()));
    kv.commit(&former).unwrap();
    assert!(waits(), "the journal is looked at");
    drop((store, kv));
    let kv = Arc::new(SledKv::open(directory.path(), options).unwrap());
    assert_eq!(version(&*kv), Ok(Version::Is(1)));
    let _store = Store::begin(kv.clone(), NEXT).unwrap();
    assert_eq!(version(&*kv), Ok(Version::Is(2)));
    assert!(!waits(), "of one that was taken over");
}

fn writes_version(batch: &Batch) -> bool {
    batch.writes().iter().any(|write| write.key() == b"v")
}
