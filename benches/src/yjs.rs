//! Yjs's updates, as far as typing goes: made without Yjs, and read back to who typed what.
//!
//! An update names, for each client, runs of structs by clock; whole numbers are LEB128. Only text is written and read here, since
//! the load is nothing else.

use crate::edits::Edits;
use anyhow::{Context, bail, ensure};
use bytes::{BufMut, Bytes};

/// The clients of the load are numbered from here on.
const CLIENT_FIRST: u64 = 1_000_000;
/// What the text is called in the documents.
const TEXT: &str = "text";

const HAS_ORIGIN: u8 = 0x80;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_PARENT_KEY: u8 = 0x20;
const KIND: u8 = 0x1f;
const COLLECTED: u8 = 0;
const DELETED: u8 = 1;
const STRING: u8 = 4;
const SKIP: u8 = 10;
/// Structs in one update that are read: more than any load has.
const STRUCTS_MAX: u64 = 1_000_000;

/// The character after which the load types: the last of the text at the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// Who typed it.
    pub(crate) client: u64,
    /// At which clock.
    pub(crate) clock: u64,
}

/// One character typed, in a form that [`Edits::recognise`] takes.
pub(crate) type Typed = [u8; 17];

/// `count` edits of each of `writers` writers; each types on behind its own last character.
pub(crate) fn prepare(end: Option<End>, writers: usize, count: usize) -> Edits {
    let of_writer = |writer: usize| {
        let client = CLIENT_FIRST + writer as u64;
        (0..count as u64).map(move |clock| {
            let origin = match clock.checked_sub(1) {
                Some(clock) => Some(End { client, clock }),
                None => end,
            };
            update(client, clock, origin)
        })
    };
    Edits::of_yjs((0..writers).map(|writer| of_writer(writer).collect()).collect())
}

/// A writer's number and its edit's place, if it is what the writer typed there.
pub(crate) fn author(typed: &[u8]) -> Option<(usize, usize)> {
    let (client, rest) = typed.split_first_chunk()?;
    let (clock, letter) = rest.split_first_chunk()?;
    let writer = u64::from_be_bytes(*client).checked_sub(CLIENT_FIRST)?;
    let clock = u64::from_be_bytes(*clock);
    (*letter == [letter_at(clock)]).then_some((writer as usize, clock as usize))
}

/// The state of a replica that has so much of one client, and nothing else.
pub(crate) fn state_vector(client: u64, clock: u64) -> Vec<u8> {
    let mut out = vec![1];
    number(&mut out, client);
    number(&mut out, clock);
    out
}

/// What an update says was typed, character by character.
pub(crate) fn typed(mut update: &[u8]) -> anyhow::Result<Vec<Typed>> {
    let rest = &mut update;
    let mut all = Vec::new();
    for _ in 0..take_number(rest)? {
        let structs = take_number(rest)?;
        ensure!(structs <= STRUCTS_MAX, "an update of {structs} structs");
        let (client, mut clock) = (take_number(rest)?, take_number(rest)?);
        for _ in 0..structs {
            clock += take_struct(rest, client, clock, &mut all)?;
        }
    }
    Ok(all)
}

/// Appends a whole number.
pub(crate) fn number(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends bytes behind their length.
pub(crate) fn with_length(out: &mut impl BufMut, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Takes a whole number.
pub(crate) fn take_number(rest: &mut &[u8]) -> anyhow::Result<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, after) = rest.split_first().context("a number has no end")?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number is too large")
}

/// Takes bytes behind their length.
pub(crate) fn take_with_length<'a>(rest: &mut &'a [u8]) -> anyhow::Result<&'a [u8]> {
    let length = usize::try_from(take_number(rest)?)?;
    let (taken, after) = rest.split_at_checked(length).context("it ends too early")?;
    *rest = after;
    Ok(taken)
}

fn update(client: u64, clock: u64, origin: Option<End>) -> Bytes {
    let mut out = vec![1, 1];
    number(&mut out, client);
    number(&mut out, clock);
    match origin {
        Some(origin) => {
            out.push(HAS_ORIGIN | STRING);
            number(&mut out, origin.client);
            number(&mut out, origin.clock);
        }
        None => {
            // In a text of the document's own, by its name.
            out.extend([STRING, 1]);
            with_length(&mut out, TEXT.as_bytes());
        }
    }
    with_length(&mut out, &[letter_at(clock)]);
    // Nothing is deleted.
    out.push(0);
    out.into()
}

fn letter_at(clock: u64) -> u8 {
    b'a' + (clock % 26) as u8
}

/// Takes one struct, and says how many clocks it spans.
fn take_struct(rest: &mut &[u8], client: u64, clock: u64, all: &mut Vec<Typed>) -> anyhow::Result<u64> {
    let (info, after) = rest.split_first().context("a struct is missing")?;
    *rest = after;
    let kind = info & KIND;
    if matches!(kind, COLLECTED | SKIP) {
        return take_number(rest);
    }
    for flag in [HAS_ORIGIN, HAS_RIGHT_ORIGIN] {
        if info & flag != 0 {
            take_number(rest)?;
            take_number(rest)?;
        }
    }
    if info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN) == 0 {
        if take_number(rest)? == 1 {
            take_with_length(rest)?;
        } else {
            take_number(rest)?;
            take_number(rest)?;
        }
        if info & HAS_PARENT_KEY != 0 {
            take_with_length(rest)?;
        }
    }
    match kind {
        DELETED => take_number(rest),
        STRING => {
            let text = take_with_length(rest)?;
            ensure!(text.is_ascii(), "text that nobody in the load types");
            for (letter, clock) in text.iter().zip(clock..) {
                let mut typed = [*letter; 17];
                typed[..8].copy_from_slice(&client.to_be_bytes());
                typed[8..16].copy_from_slice(&clock.to_be_bytes());
                all.push(typed);
            }
            Ok(text.len() as u64)
        }
        other => bail!("content of kind {other}, which nobody in the load makes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_recognised_alone_and_merged() {
        let end = End { client: 7, clock: 300 };
        for end in [None, Some(end)] {
            let edits = prepare(end, 2, 30);
            for (writer, place) in [(0, 0), (1, 0), (0, 27), (1, 29)] {
                let update = edits.edit(writer, place).unwrap();
                let typed = typed(update).unwrap();
                assert_eq!(typed.len(), 1);
                assert_eq!(edits.recognise(&typed[0]), Some((writer, place)));
            }
        }
        // Two clients, one of them with a run of two characters: what a server makes of several updates.
        let mut merged = vec![2, 1];
        number(&mut merged, CLIENT_FIRST + 1);
        merged.extend([3, HAS_ORIGIN | STRING, 9, 9, 2, b'd', b'e', 1]);
        number(&mut merged, CLIENT_FIRST);
        merged.extend([0, STRING, 1, 4, b't', b'e', b'x', b't', 1, b'a', 0]);
        let typed: Vec<_> = typed(&merged).unwrap().iter().map(|typed| author(typed)).collect();
        assert_eq!(typed, [Some((1, 3)), Some((1, 4)), Some((0, 0))]);
    }

    #[test]
    fn what_nobody_typed_is_not_recognised() {
        let edits = prepare(None, 1, 3);
        let mut typed = typed(edits.edit(0, 1).unwrap()).unwrap()[0];
        typed[16] = b'x';
        assert_eq!(edits.recognise(&typed), None);
        assert!(super::typed(&[1, 1, 5]).is_err());
    }
}
