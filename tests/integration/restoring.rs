//! A backup that is put back: positions from before mean nothing, and clients bring back what it lacks.

use crate::{
    peer::{Peer, counted},
    process::Process,
};
use std::{path::Path, process::Command};
use syncline_protocol::native::Base;

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-rT").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

#[test]
fn o6_o17_o27_after_a_restore_clients_get_everything_and_bring_theirs_back() {
    let root = tempfile::tempdir().expect("a directory");
    let (data, backup) = (root.path().join("data"), root.path().join("backup"));
    let (document, changes) = counted(1, 30);
    let write = |piece: std::ops::Range<usize>| {
        let process = Process::serve(&data);
        let mut anna = Peer::connect(process.address, None);
        let room = anna.open("notes", None).opened.room;
        let mut cursors = Vec::new();
        for (number, change) in piece.clone().zip(&changes[piece]) {
            anna.edit(room, number as u64, vec![change.clone()]);
            cursors.push(anna.hear_answer(number as u64).expect("acknowledged"));
        }
        assert!(process.terminate().success());
        cursors
    };
    let first = write(0..10);
    copy(&data, &backup);
    let second = write(10..30);
    assert_eq!(first[0].epoch, second[0].epoch, "a restart, and no more");
    copy(&backup, &data);

    let process = Process::serve(&data);
    let mut anna = Peer::connect(process.address, None);
    for cursor in [first[4], second[0], second[19]] {
        let joined = anna.open("notes", Some(cursor));
        assert_eq!(joined.opened.base, Base::Nothing, "from {cursor:?}");
        assert_ne!(joined.cursor.epoch, cursor.epoch);
        assert_eq!(joined.document().get_changes(&[]).len(), 10);
    }
    let joined = anna.open("notes", Some(second[19]));
    anna.edit(joined.opened.room, 99, changes[10..].to_vec());
    let now = anna.hear_answer(99).expect("acknowledged");
    process.kill();
    let process = Process::serve(&data);
    let mut bert = Peer::connect(process.address, None);
    assert_eq!(bert.open("notes", None).document().get_heads(), document.get_heads());
    assert_eq!(
        bert.open("notes", Some(now)).opened.base,
        Base::Replica,
        "the new epoch lasts"
    );
}
