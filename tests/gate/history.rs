//! Honest histories: a few writers with replicas of their own edit everything Automerge has, and meet at a server.

use crate::rng::Rng;
use automerge::{
    ActorId, AutoCommit, Automerge, Change, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value,
    marks::{ExpandMark, Mark},
    transaction::{CommitOptions, Transactable},
};

/// What the writers do.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) writers: usize,
    pub(crate) steps: usize,
    pub(crate) marks: bool,
}

/// One writer.
struct Writer {
    replica: Automerge,
    /// How much of the server's log the replica has.
    pulled: usize,
    unsent: Vec<Change>,
}

/// The changes of a session, in an order in which a server may have received them.
pub(crate) fn history(rng: &mut Rng, style: Style) -> Vec<Change> {
    let mut log: Vec<Change> = Vec::new();
    let mut writers: Vec<Writer> = Vec::new();
    while writers.len() < style.writers {
        // Short ids collide now and then, and two replicas never share an actor.
        let writer = Writer::new(rng);
        if writers
            .iter()
            .all(|other| other.replica.get_actor() != writer.replica.get_actor())
        {
            writers.push(writer);
        }
    }
    for _ in 0..style.steps {
        let writer = rng.below(writers.len());
        let writer = &mut writers[writer];
        match rng.below(5) {
            0 => writer.pull(&log),
            1 => log.append(&mut writer.unsent),
            _ => writer.edit(rng, style.marks),
        }
    }
    for writer in &mut writers {
        log.append(&mut writer.unsent);
    }
    log
}

/// The document that holds these changes.
pub(crate) fn document(changes: &[Change]) -> Automerge {
    let mut document = Automerge::new();
    document.apply_changes(changes.to_vec()).expect("honest changes apply");
    document
}

impl Writer {
    fn new(rng: &mut Rng) -> Self {
        let length = *rng.pick(&[1, 4, 16, 16, 16, 32]).expect("lengths");
        let id: Vec<u8> = (0..length).map(|_| rng.next() as u8).collect();
        Self {
            replica: Automerge::new().with_actor(ActorId::from(id)),
            pulled: 0,
            unsent: Vec::new(),
        }
    }

    fn pull(&mut self, log: &[Change]) {
        self.replica
            .apply_changes(log[self.pulled..].iter().cloned())
            .expect("honest changes apply");
        self.pulled = log.len();
    }

    fn edit(&mut self, rng: &mut Rng, marks: bool) {
        let before = self.replica.get_heads();
        edit(&mut self.replica, rng, marks);
        self.unsent.extend(self.replica.get_changes(&before));
    }
}

/// One honest change, now and then an empty one.
///
/// Not with `transaction_at`: when the replica holds changes beside the heads named, Automerge 0.12 makes changes with it
/// that name operations outside their own past, or do not stand on their actor's last change. Peers panic on those.
pub(crate) fn edit(replica: &mut Automerge, rng: &mut Rng, marks: bool) {
    let options = CommitOptions::default().with_time(rng.below(1 << 40) as i64);
    if rng.one_in(20) {
        replica.empty_commit(options.with_message("nothing"));
        return;
    }
    let ops = 1 + rng.below(5);
    let mut transaction = replica.transaction();
    let objects = objects(&transaction);
    for _ in 0..ops {
        edit_once(&mut transaction, rng, marks, &objects);
    }
    transaction.commit_with(options);
}

fn edit_once<T: Transactable + ReadDoc>(doc: &mut T, rng: &mut Rng, marks: bool, objects: &[(ObjId, ObjType)]) {
    let (object, object_type) = rng.pick(objects).cloned().expect("the root is always there");
    // What Automerge itself refuses (no counter there, say) is not an edit.
    let _ = match object_type {
        ObjType::Map | ObjType::Table => edit_map(doc, rng, &object),
        ObjType::List => edit_list(doc, rng, &object),
        ObjType::Text => edit_text(doc, rng, &object, marks),
    };
}

fn edit_map<T: Transactable + ReadDoc>(
    doc: &mut T,
    rng: &mut Rng,
    object: &ObjId,
) -> Result<(), automerge::AutomergeError> {
    let key = *rng
        .pick(&[
            "a",
            "b",
            "c",
            "title",
            "über",
            "a key that is longer than most keys are",
        ])
        .expect("keys");
    match rng.below(8) {
        0 | 1 => doc.put_object(object, key, object_type(rng)).map(|_| ()),
        2 => doc.delete(object, key),
        3 => doc.put(object, key, ScalarValue::counter(rng.below(100) as i64)),
        4 => doc.increment(object, key, rng.below(10) as i64 - 5),
        _ => doc.put(object, key, scalar(rng)),
    }
}

fn edit_list<T: Transactable + ReadDoc>(
    doc: &mut T,
    rng: &mut Rng,
    object: &ObjId,
) -> Result<(), automerge::AutomergeError> {
    let length = doc.length(object);
    let (at, end) = (rng.below(length), rng.below(length + 1));
    match rng.below(9) {
        0 => doc.insert_object(object, end, object_type(rng)).map(|_| ()),
        1 => doc.delete(object, at),
        2 => doc.put(object, at, ScalarValue::counter(rng.below(100) as i64)),
        3 => doc.increment(object, at, rng.below(10) as i64 - 5),
        4 => doc.put(object, at, scalar(rng)),
        5 => doc.put_object(object, at, object_type(rng)).map(|_| ()),
        6 => doc.insert(object, end, ScalarValue::counter(1)),
        _ => doc.insert(object, end, scalar(rng)),
    }
}

fn edit_text<T: Transactable + ReadDoc>(
    doc: &mut T,
    rng: &mut Rng,
    object: &ObjId,
    marks: bool,
) -> Result<(), automerge::AutomergeError> {
    let length = doc.length(object);
    let at = rng.below(length + 1);
    match rng.below(if marks { 10 } else { 7 }) {
        0 => doc.splice_text(object, at, rng.below(length - at + 1).min(4) as isize, ""),
        1 => doc.splice_text(object, at, rng.below(length - at + 1).min(2) as isize, "xyz"),
        2 if rng.one_in(3) => doc.split_block(object, at).map(|_| ()),
        // A counter is welcome in a text; only counting is not.
        3 => doc.insert(object, at, ScalarValue::counter(1)),
        7..=9 => {
            let end = at + rng.below(length - at + 1);
            let name = *rng.pick(&["bold", "link"]).expect("names");
            let expand = *rng
                .pick(&[
                    ExpandMark::Both,
                    ExpandMark::None,
                    ExpandMark::After,
                    ExpandMark::Before,
                ])
                .expect("expands");
            if rng.one_in(4) {
                doc.unmark(object, name, at, end, expand)
            } else {
                doc.mark(object, Mark::new(name.to_owned(), true, at, end), expand)
            }
        }
        _ => doc.splice_text(object, at, 0, rng.pick(&["a", "hello", "ü", "😀", " "]).expect("texts")),
    }
}

/// Every visible object.
pub(crate) fn objects<T: ReadDoc>(doc: &T) -> Vec<(ObjId, ObjType)> {
    let mut found = vec![(ROOT, ObjType::Map)];
    let mut next = 0;
    while next < found.len() {
        let (object, object_type) = found[next].clone();
        next += 1;
        let mut children = Vec::new();
        if object_type.is_sequence() {
            for at in 0..doc.length(&object) {
                children.extend(doc.get_all(&object, at).unwrap_or_default());
            }
        } else {
            for key in doc.keys(&object) {
                children.extend(doc.get_all(&object, key).unwrap_or_default());
            }
        }
        found.extend(children.into_iter().filter_map(|(value, id)| match value {
            Value::Object(object_type) => Some((id, object_type)),
            Value::Scalar(_) => None,
        }));
    }
    found
}

fn object_type(rng: &mut Rng) -> ObjType {
    *rng.pick(&[ObjType::Map, ObjType::List, ObjType::Text]).expect("types")
}

fn scalar(rng: &mut Rng) -> ScalarValue {
    match rng.below(10) {
        0 => ScalarValue::Null,
        1 => ScalarValue::Boolean(rng.one_in(2)),
        2 => ScalarValue::Uint(rng.next()),
        3 => ScalarValue::Int(rng.next() as i64),
        4 => ScalarValue::F64(rng.below(1000) as f64 / 8.0),
        5 => ScalarValue::Bytes(vec![rng.next() as u8; rng.below(40)]),
        6 => ScalarValue::Timestamp(rng.below(1 << 40) as i64),
        _ => ScalarValue::Str(
            (*rng
                .pick(&["", "short", "a string that is not so short"])
                .expect("strings"))
            .into(),
        ),
    }
}

/// A replica that commits by itself, for tests that write by hand.
pub(crate) fn replica(actor: u8) -> AutoCommit {
    AutoCommit::new().with_actor(ActorId::from([actor; 16]))
}
