//! What users do to a document: text, maps, lists, counters, nested objects, marks. Everything that they write carries a word
//! that is written only once, so that it can be found again.

use crate::random::Random;
use automerge::{
    Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value,
    marks::{ExpandMark, Mark},
    transaction::{Transactable, Transaction},
};

/// What was done, as far as it matters later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) what: &'static str,
    /// The word that was deleted.
    pub(crate) deleted: Option<usize>,
    pub(crate) marked: bool,
}

impl Done {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            ..Self::default()
        }
    }
}

/// Writes `word` somewhere, or does something like it.
pub(crate) fn write(tx: &mut Transaction<'_>, word: usize, random: &mut Random) -> Result<Done, AutomergeError> {
    let word = format!("<{word}>");
    match random.below(100) {
        0..=44 => type_text(tx, &word, random),
        45..=54 => put(tx, &word, random),
        55..=64 => push(tx, &word, random),
        65..=71 => count(tx, &word),
        72..=79 => nest(tx, &word, random),
        80..=84 => mark(tx, &word, random),
        85..=92 => delete(tx, &word, random),
        _ => paste(tx, &word, random),
    }
}

/// The object under a key of the root, made if it is not there.
fn object(tx: &mut Transaction<'_>, key: &str, kind: ObjType) -> Result<ObjId, AutomergeError> {
    match tx.get(ROOT, key)? {
        Some((Value::Object(found), id)) if found == kind => Ok(id),
        Some(_) | None => tx.put_object(ROOT, key, kind),
    }
}

/// A place in a text that is not inside a word.
fn place(tx: &Transaction<'_>, text: &ObjId, random: &mut Random) -> Result<usize, AutomergeError> {
    let length = tx.length(text);
    let content = tx.text(text)?;
    let starts: Vec<usize> = content
        .chars()
        .enumerate()
        .filter(|(_, char)| *char == '<')
        .map(|(at, _)| at)
        .collect();
    Ok(match random.below(3) {
        0 if !starts.is_empty() => starts[random.index(starts.len())],
        _ => length,
    })
}

fn type_text(tx: &mut Transaction<'_>, word: &str, random: &mut Random) -> Result<Done, AutomergeError> {
    let text = object(tx, "text", ObjType::Text)?;
    let at = place(tx, &text, random)?;
    tx.splice_text(&text, at, 0, word)?;
    Ok(Done::new("text"))
}

/// A long text, so that queues and parts get full.
fn paste(tx: &mut Transaction<'_>, word: &str, random: &mut Random) -> Result<Done, AutomergeError> {
    let text = object(tx, "text", ObjType::Text)?;
    let at = place(tx, &text, random)?;
    let filler: String = (0..random.between(50, 400))
        .map(|_| char::from(b'a' + (random.below(26) as u8)))
        .collect();
    tx.splice_text(&text, at, 0, &format!("{word}{filler}"))?;
    Ok(Done::new("paste"))
}

fn put(tx: &mut Transaction<'_>, word: &str, random: &mut Random) -> Result<Done, AutomergeError> {
    tx.put(ROOT, word, true)?;
    // Everybody writes this one, so it carries no word.
    tx.put(ROOT, "shared", random.below(1_000))?;
    Ok(Done::new("put"))
}

fn push(tx: &mut Transaction<'_>, word: &str, random: &mut Random) -> Result<Done, AutomergeError> {
    let list = object(tx, "list", ObjType::List)?;
    let length = tx.length(&list);
    tx.insert(&list, random.index(length + 1), word)?;
    Ok(Done::new("push"))
}

fn count(tx: &mut Transaction<'_>, word: &str) -> Result<Done, AutomergeError> {
    match tx.get(ROOT, "count")? {
        Some((Value::Scalar(value), _)) if matches!(*value, ScalarValue::Counter(_)) => {
            tx.increment(ROOT, "count", 1)?
        }
        Some(_) | None => tx.put(ROOT, "count", ScalarValue::counter(1))?,
    }
    tx.put(ROOT, word, "counted")?;
    Ok(Done::new("count"))
}

fn nest(tx: &mut Transaction<'_>, word: &str, random: &mut Random) -> Result<Done, AutomergeError> {
    let list = object(tx, "tasks", ObjType::List)?;
    let length = tx.length(&list);
    let task = tx.insert_object(&list, random.index(length + 1), ObjType::Map)?;
    tx.put(&task, "title", word)?;
    let notes = tx.put_object(&task, "notes", ObjType::Text)?;
    tx.splice_text(&notes, 0, 0, "to be done")?;
    Ok(Done::new("nest"))
}

fn mark(tx: &mut Transaction<'_>, word: &str, random: &mut Random) -> Result<Done, AutomergeError> {
    type_text(tx, word, random)?;
    let text = object(tx, "text", ObjType::Text)?;
    let start = random.index(tx.length(&text));
    let end = start + 1 + random.index(tx.length(&text) - start);
    tx.mark(&text, Mark::new("bold".into(), true, start, end), ExpandMark::After)?;
    Ok(Done {
        marked: true,
        ..Done::new("mark")
    })
}

/// Deletes a word of anybody's from the text.
fn delete(tx: &mut Transaction<'_>, word: &str, random: &mut Random) -> Result<Done, AutomergeError> {
    let text = object(tx, "text", ObjType::Text)?;
    let content: Vec<char> = tx.text(&text)?.chars().collect();
    let starts: Vec<usize> = (0..content.len()).filter(|at| content[*at] == '<').collect();
    if starts.is_empty() {
        return type_text(tx, word, random);
    }
    let start = starts[random.index(starts.len())];
    let found = content[start..].iter().position(|char| *char == '>');
    let Some(len) = found else {
        return type_text(tx, word, random);
    };
    let number: String = content[start + 1..start + len].iter().collect();
    tx.splice_text(&text, start, isize::try_from(len + 1).expect("a word is short"), "")?;
    tx.put(ROOT, word, "deleted")?;
    Ok(Done {
        deleted: number.parse().ok(),
        ..Done::new("delete")
    })
}

/// All texts in a document, the ones that lost a conflict too: keys, strings, and texts as wholes.
pub(crate) fn texts(document: &Automerge) -> Vec<String> {
    let mut found = Vec::new();
    collect(document, &ROOT, &mut found);
    found
}

fn collect(document: &Automerge, object: &ObjId, found: &mut Vec<String>) {
    let values = match document.object_type(object).expect("the object is there") {
        ObjType::Text => return found.push(document.text(object).expect("a text has a text")),
        ObjType::Map | ObjType::Table => {
            let keys: Vec<String> = document.keys(object).collect();
            let values = keys
                .iter()
                .flat_map(|key| document.get_all(object, key.as_str()).expect("the key is there"));
            let values: Vec<_> = values.collect();
            found.extend(keys);
            values
        }
        ObjType::List => {
            let indices = 0..document.length(object);
            let values = indices.flat_map(|index| document.get_all(object, index).expect("the element is there"));
            values.collect()
        }
    };
    for (value, id) in values {
        match value {
            Value::Object(_) => collect(document, &id, found),
            Value::Scalar(value) => found.extend(value.as_str().map(str::to_owned)),
        }
    }
}
