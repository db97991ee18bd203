//! What was acknowledged is there after the process dies, however it dies.

use crate::{
    peer::{Peer, counted},
    process::Process,
};
use syncline_protocol::native::Base;

#[test]
fn e4_what_was_acknowledged_survives_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let (document, changes) = counted(1, 60);
    let mut cursor = None;
    for (round, piece) in changes.chunks(20).enumerate() {
        let process = Process::serve(directory.path());
        let mut anna = Peer::connect(process.address, None);
        let joined = anna.open("notes", cursor);
        let expected = if round == 0 { Base::Nothing } else { Base::Replica };
        assert_eq!(joined.opened.base, expected, "the epoch lasts over restarts");
        for (number, change) in piece.iter().enumerate() {
            let edit = number as u64;
            anna.edit(joined.opened.room, edit, vec![change.clone()]);
            cursor = Some(anna.hear_answer(edit).expect("acknowledged"));
        }
        process.kill();
    }
    let process = Process::serve(directory.path());
    let joined = Peer::connect(process.address, None).open("notes", None);
    assert_eq!(joined.document().get_heads(), document.get_heads());
    assert!(process.terminate().success());
}

#[test]
fn c9_a_restart_tells_the_members_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::serve(directory.path());
    let mut anna = Peer::connect(process.address, None);
    let room = anna.open("notes", None).opened.room;
    let (document, changes) = counted(1, 10);
    for (edit, change) in changes.iter().enumerate() {
        anna.edit(room, edit as u64, vec![change.clone()]);
    }
    anna.hear_answer(9).expect("acknowledged");
    let address = process.address;
    let ended = std::thread::scope(|scope| {
        let ended = scope.spawn(|| anna.hear_end());
        assert!(process.terminate().success(), "a drain is a success");
        ended.join().expect("the connection ends")
    });
    assert_eq!(ended.code, Some(1012), "the server at {address} restarts");
    let process = Process::serve(directory.path());
    let joined = Peer::connect(process.address, None).open("notes", None);
    assert_eq!(joined.document().get_heads(), document.get_heads());
}
