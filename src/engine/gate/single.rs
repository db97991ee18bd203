//! The second step of the gate for a change of one plain operation, as typing makes them: read here, without Automerge.
//!
//! A column that holds one value has one canonical form, so reading it strictly proves it. What is rarer (objects, counters,
//! numbers, marks, several predecessors, messages, extra bytes) is left to [`super::decoded`], and so is every refusal: what is
//! not read here is not judged here.

use super::{
    Action, Key, OpId,
    columns::column,
    header::{Header, read_actor},
    reader::Reader,
};

/// One for each of object, element and predecessor.
const OTHER_ACTORS_MAX: u64 = 3;

/// What begins a column that holds one value: a literal run of one.
const ONE_VALUE: u8 = 0x7f;

/// The kinds of values, in the lower four bits of a value's metadata; its length stands above.
mod value {
    pub(super) const NULL: u64 = 0;
    pub(super) const FALSE: u64 = 1;
    pub(super) const TRUE: u64 = 2;
    pub(super) const STRING: u64 = 6;
    pub(super) const BYTES: u64 = 7;
}

/// The only operation of a change, and what it names.
pub(super) struct Single {
    pub(super) object: Option<OpId>,
    pub(super) key: Key,
    /// What [`Key::Map`] speaks of.
    pub(super) map_key: Option<Box<str>>,
    pub(super) action: Action,
    pub(super) insert: bool,
    pub(super) pred: Option<OpId>,
}

/// The columns of one operation; those that it does not have are empty.
struct Columns<'a>([&'a [u8]; column::COUNT]);

impl Single {
    /// Reads the change if it is of this kind and canonical. The sums and ranges in `header` were checked before.
    pub(super) fn read(header: &Header) -> Option<Self> {
        if header.ops != 1 || header.has_extra_bytes {
            return None;
        }
        let mut reader = Reader::new(&header.raw[header.message_at..]);
        if reader.unsigned().ok()? > 0 {
            return None;
        }
        let others = count_others(header, &mut reader)?;
        let single = Columns::read(&mut reader)?.single()?;
        single.names_all(others).then_some(single)
    }

    /// Whether it names each of so many actors besides its own.
    fn names_all(&self, others: usize) -> bool {
        let element = match self.key {
            Key::Element(element) => Some(element),
            Key::Head | Key::Map(_) => None,
        };
        let named = [self.object, element, self.pred];
        (1..=others).all(|other| named.iter().flatten().any(|id| id.actor as usize == other))
    }
}

/// How many actors the change names besides its own, each once and in ascending order.
fn count_others(header: &Header, reader: &mut Reader<'_>) -> Option<usize> {
    let count = reader.unsigned().ok().filter(|count| *count <= OTHER_ACTORS_MAX)?;
    let mut before: Option<&[u8]> = None;
    for _ in 0..count {
        let other = read_actor(reader).ok()?;
        if other == header.actor() || before.is_some_and(|before| before >= other) {
            return None;
        }
        before = Some(other);
    }
    Some(count as usize)
}

impl<'a> Columns<'a> {
    /// The columns, of which [`super::columns`] has seen that they are known and in order.
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let mut lengths = [0; column::COUNT];
        let mut places = column::ALL.iter().zip(&mut lengths);
        for _ in 0..reader.unsigned().ok()? {
            let spec = reader.unsigned().ok()?;
            let (_, length) = places.find(|(known, _)| **known == spec)?;
            *length = reader.unsigned().ok()?;
        }
        let mut columns = [&[][..]; column::COUNT];
        for (column, length) in columns.iter_mut().zip(lengths) {
            *column = reader.take(length).ok()?;
        }
        Some(Self(columns))
    }

    fn single(self) -> Option<Single> {
        let [
            object_actor,
            object_counter,
            key_actor,
            key_counter,
            key_string,
            insert,
            action,
            value_metadata,
            value,
            pred_count,
            pred_actor,
            pred_counter,
            expand,
            mark_name,
        ] = self.0;
        let (key, map_key) = match (key_string, key_actor, key_counter) {
            ([], [], counter) if only_signed(counter)? == Some(0) => (Key::Head, None),
            ([], actor, counter) => (Key::Element(op_id(only(actor)?, only_signed(counter)?)??), None),
            (name, [], []) => (Key::Map(0), Some(only_string(name)?)),
            _ => return None,
        };
        let pred = op_id(only(pred_actor)?, only_signed(pred_counter)?)?;
        let metadata = only(value_metadata)??;
        let action = match only(action)?? {
            1 if is_plain_value(metadata, value) => Action::Put,
            3 if metadata == value::NULL && value.is_empty() => Action::Delete,
            _ => return None,
        };
        let insert = match insert {
            [1] => false,
            [0, 1] => true,
            _ => return None,
        };
        let is_whole = only(pred_count)?? == u64::from(pred.is_some()) && expand.is_empty() && mark_name.is_empty();
        is_whole.then_some(Single {
            object: op_id(only(object_actor)?, only(object_counter)?)?,
            key,
            map_key,
            action,
            insert,
            pred,
        })
    }
}

/// The one value of a column, behind which nothing comes; nothing inside if the column is left out, as where it is null.
fn only_by<'a, T>(column: &'a [u8], read: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Option<Option<T>> {
    let Some((first, rest)) = column.split_first() else {
        return Some(None);
    };
    let mut reader = Reader::new(rest);
    let value = read(&mut reader)?;
    (*first == ONE_VALUE && reader.is_empty()).then_some(Some(value))
}

fn only(column: &[u8]) -> Option<Option<u64>> {
    only_by(column, |reader| reader.unsigned().ok())
}

/// The same for a column of differences.
fn only_signed(column: &[u8]) -> Option<Option<u64>> {
    only_by(column, |reader| reader.signed().ok()?.try_into().ok())
}

fn only_string(column: &[u8]) -> Option<Box<str>> {
    let bytes = only_by(column, |reader| {
        let length = reader.unsigned().ok()?;
        reader.take(length).ok()
    })??;
    let is_named = !bytes.is_empty();
    std::str::from_utf8(bytes).ok().filter(|_| is_named).map(Into::into)
}

/// An operation's name out of its two columns, both of which have a value or neither.
fn op_id(actor: Option<u64>, counter: Option<u64>) -> Option<Option<OpId>> {
    match (actor, counter) {
        (None, None) => Some(None),
        (Some(actor), Some(counter @ 1..)) => Some(Some(OpId {
            counter: counter.try_into().ok()?,
            actor: actor.try_into().ok()?,
        })),
        _ => None,
    }
}

fn is_plain_value(metadata: u64, bytes: &[u8]) -> bool {
    let has_length = metadata >> 4 == bytes.len() as u64;
    has_length
        && match metadata & 0xf {
            value::NULL | value::FALSE | value::TRUE => bytes.is_empty(),
            value::STRING => std::str::from_utf8(bytes).is_ok(),
            value::BYTES => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gate::{decode, read};
    use automerge::{
        ActorId, Automerge, ObjType, ROOT, ReadDoc, ScalarValue,
        transaction::{CommitOptions, Transactable, Transaction},
    };
    use bytes::Bytes;
    use sha2::{Digest, Sha256};
    use syncline_protocol::Limits;

    fn document(actor: u8) -> Automerge {
        Automerge::new().with_actor(ActorId::from([actor; 16]))
    }

    /// The change that `edit` makes.
    fn change(document: &mut Automerge, edit: impl FnOnce(&mut Transaction<'_>)) -> Bytes {
        let mut transaction = document.transaction();
        edit(&mut transaction);
        let (hash, _) = transaction.commit();
        let change = document.get_change_by_hash(&hash.expect("it changes something"));
        Bytes::copy_from_slice(change.expect("it was just made").raw_bytes())
    }

    fn header(bytes: &Bytes) -> Header {
        read(bytes.clone(), &Limits::default()).expect("an honest change")
    }

    /// What writers do, one operation a change, in a text that another actor made.
    fn plain() -> Vec<Bytes> {
        let mut first = document(7);
        let mut made = first.transaction();
        let text = made.put_object(ROOT, "text", ObjType::Text).expect("a text");
        made.splice_text(&text, 0, 0, "of two").expect("a text");
        made.put(ROOT, "title", "old").expect("a value");
        made.commit();
        let mut second = first.fork().with_actor(ActorId::from([3; 16]));
        vec![
            change(&mut second, |edit| {
                edit.splice_text(&text, 0, 0, "A").expect("a keystroke");
            }),
            change(&mut second, |edit| {
                edit.splice_text(&text, 1, 0, "\u{1f600}").expect("behind one's own");
            }),
            change(&mut second, |edit| {
                edit.splice_text(&text, 4, 0, "b").expect("behind another's");
            }),
            change(&mut second, |edit| {
                edit.splice_text(&text, 0, 1, "").expect("a deletion of one's own");
            }),
            change(&mut second, |edit| {
                edit.splice_text(&text, 3, 1, "").expect("a deletion of another's");
            }),
            change(&mut second, |edit| {
                edit.put(ROOT, "title", "new").expect("a value over a value");
            }),
            change(&mut second, |edit| {
                edit.put(ROOT, "done", true).expect("a value at a new key");
            }),
            change(&mut second, |edit| {
                edit.put(ROOT, "nothing", ScalarValue::Null).expect("nothing");
            }),
            change(&mut second, |edit| {
                edit.put(ROOT, "bytes", vec![1, 2, 3]).expect("bytes");
            }),
            change(&mut second, |edit| {
                edit.delete(ROOT, "done").expect("a deletion of a key");
            }),
        ]
    }

    #[test]
    fn what_typing_makes_is_read_here() {
        for (number, bytes) in plain().iter().enumerate() {
            assert!(Single::read(&header(bytes)).is_some(), "{number}");
            // Held against Automerge's word in there.
            assert!(decode(header(bytes)).is_ok(), "{number}");
        }
    }

    #[test]
    fn what_is_rarer_is_left_to_automerge() {
        let mut document = document(7);
        let rare = [
            change(&mut document, |edit| {
                edit.put(ROOT, "a", 1).expect("a number");
            }),
            change(&mut document, |edit| {
                edit.put(ROOT, "c", ScalarValue::counter(1)).expect("a counter");
            }),
            change(&mut document, |edit| {
                edit.increment(ROOT, "c", 1).expect("an increment");
            }),
            change(&mut document, |edit| {
                edit.put_object(ROOT, "l", ObjType::List).expect("an object");
            }),
            change(&mut document, |edit| {
                edit.put(ROOT, "x", "1").expect("one");
                edit.put(ROOT, "y", "2").expect("and another");
            }),
        ];
        for (number, bytes) in rare.iter().enumerate() {
            assert!(Single::read(&header(bytes)).is_none(), "{number}");
            assert!(decode(header(bytes)).is_ok(), "{number}");
        }
        let mut transaction = document.transaction();
        transaction.put(ROOT, "a", "2").expect("a value");
        let (hash, _) = transaction.commit_with(CommitOptions::default().with_message("why"));
        let explained = document.get_change_by_hash(&hash.expect("a change")).expect("it");
        let explained = Bytes::copy_from_slice(explained.raw_bytes());
        assert!(Single::read(&header(&explained)).is_none());
    }

    /// Every change of one byte of what is read here, with a checksum that is right: Automerge decodes it to the same.
    #[test]
    fn no_byte_can_be_another_one_unnoticed() {
        let mut read_here = 0;
        for bytes in plain() {
            for at in header(&bytes).message_at..bytes.len() {
                for byte in 0..=u8::MAX {
                    let mut forged = bytes.to_vec();
                    forged[at] = byte;
                    let hash = Sha256::digest(&forged[8..]);
                    forged[4..8].copy_from_slice(&hash[..4]);
                    let Ok(header) = read(forged.into(), &Limits::default()) else {
                        continue;
                    };
                    if Single::read(&header).is_some() {
                        read_here += 1;
                        // Held against Automerge's word in there.
                        assert!(decode(header).is_ok(), "byte {at} as {byte}");
                    }
                }
            }
        }
        assert!(read_here > 1_000, "{read_here}");
    }
}
