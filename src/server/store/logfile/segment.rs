//! A segment of the log: messages one behind the other, each with a checksum and the number of the segment.
//!
//! A single flipped bit is put right where the checksum says which one it was. Behind what cannot be read, the next message
//! whose checksum is right is found by looking for it.

use super::node::Cursor;
use std::borrow::Cow;

/// As long as sled makes them by itself.
pub(in super::super) const SEGMENT_BYTES: usize = 512 << 10;
/// Its checksum, place in the log, and up to where the log was written then.
pub(super) const HEAD_BYTES: usize = 20;
/// No message begins so near to the end.
const MESSAGE_HEAD_BYTES_MAX: usize = 32;
const CRC_BYTES: usize = 4;
/// A disk writes so much whole, or not at all.
const WIPED_BYTES: usize = 512;
const CRC_POLYNOMIAL: u32 = 0xedb8_8320;

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: Kind,
    /// Which page of a tree it is about.
    pub(super) page: u64,
    pub(super) body: Cow<'a, [u8]>,
    /// Where the next one begins.
    pub(super) end: usize,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing follows in this segment.
    Cap,
    /// Nothing that concerns a page.
    Other,
    /// The page is no more.
    Free,
    /// A page as a whole.
    Node,
    /// A change of a page.
    Link,
    /// A page or a change of it that lies in a file of its own.
    Blob,
}

/// What lies at a place.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Sound(Message<'a>),
    /// One bit of it is wrong.
    Mended(Message<'a>, Fix),
    /// A message whose head may be right.
    Damaged(Message<'a>),
    /// Something that was a message, or several.
    Unknown,
}

/// What puts a message right, or the head of a segment: this byte at this place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fix {
    pub(super) at: usize,
    pub(super) byte: u8,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// As segments do.
    Full,
    /// From here on it has been written anew: what was here is not needed any more.
    Overwritten,
    /// Nothing can be read from here on. So ends the whole log.
    Open(usize),
}

/// The number in the head of a segment, if its checksum is right.
pub(super) fn number(head: &[u8; HEAD_BYTES]) -> Option<u64> {
    let (crc, rest) = head.split_first_chunk::<CRC_BYTES>()?;
    let place = u64::from_le_bytes(*rest.first_chunk()?) ^ (u64::MAX >> 1);
    let matches = !crc32fast::hash(rest) == u32::from_le_bytes(*crc);
    (matches && place % SEGMENT_BYTES as u64 == 0).then_some(place / SEGMENT_BYTES as u64)
}

/// Where the segment begins that was being written when the one with this head was begun: all before was whole by then. 0 if the
/// head is not sound.
pub(super) fn whole_before(head: &[u8; HEAD_BYTES]) -> u64 {
    let told = || {
        number(head)?;
        let last = i64::from_le_bytes(*head.last_chunk()?) ^ i64::MAX;
        Some(u64::try_from(last).unwrap_or(0) / SEGMENT_BYTES as u64 * SEGMENT_BYTES as u64)
    };
    told().unwrap_or(0)
}

/// The same if one bit is wrong, and what puts it right.
pub(super) fn mended_number(head: &[u8; HEAD_BYTES]) -> Option<(u64, Fix)> {
    let mut flipped = *head;
    (0..8 * HEAD_BYTES).find_map(|bit| {
        flipped[bit / 8] ^= 1 << (bit % 8);
        let fix = Fix {
            at: bit / 8,
            byte: flipped[bit / 8],
        };
        let found = number(&flipped);
        flipped[bit / 8] ^= 1 << (bit % 8);
        Some((found?, fix))
    })
}

/// The number of a segment whose head cannot be read: the one in its first message.
pub(super) fn number_within(bytes: &[u8]) -> Option<u64> {
    (HEAD_BYTES..bytes.len()).find_map(|at| {
        let head = Head::read(&bytes[at..])?;
        sound(&bytes[at..], &bytes[at..], head.number).map(|_| head.number)
    })
}

/// Visits what lies in the segment `number`, with the place of each piece.
pub(super) fn pieces<'a>(bytes: &'a [u8], number: u64, visit: &mut dyn FnMut(usize, Piece<'a>)) -> Ending {
    let mut at = HEAD_BYTES;
    let mut next_sound = at;
    loop {
        if at + MESSAGE_HEAD_BYTES_MAX > SEGMENT_BYTES {
            return Ending::Full;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let (end, found) = match piece(rest, number) {
            Some(Piece::Sound(message)) if message.kind == Kind::Cap => return Ending::Full,
            Some(Piece::Mended(message, fix)) if message.kind == Kind::Cap => {
                visit(at, Piece::Mended(message, fix));
                return Ending::Full;
            }
            Some(Piece::Sound(message)) => (at + message.end, Piece::Sound(message)),
            Some(Piece::Mended(message, fix)) => (at + message.end, Piece::Mended(message, fix)),
            damaged => {
                if next_sound <= at {
                    let mut places = at + 1..bytes.len();
                    next_sound = places.find(|at| is_sound(&bytes[*at..], number)).unwrap_or(usize::MAX);
                }
                match damaged {
                    Some(Piece::Damaged(message)) if at + message.end <= next_sound => {
                        (at + message.end, Piece::Damaged(message))
                    }
                    _ if next_sound == usize::MAX => {
                        return if is_overwritten(bytes, at, number) {
                            Ending::Overwritten
                        } else {
                            Ending::Open(at)
                        };
                    }
                    _ => (next_sound, Piece::Unknown),
                }
            }
        };
        visit(at, found);
        at = end;
    }
}

/// Whether there is a message of a later use of the segment behind `at`.
pub(super) fn is_overwritten(bytes: &[u8], at: usize, number: u64) -> bool {
    (at..bytes.len()).any(|at| {
        let head = Head::read(&bytes[at..]).filter(|head| head.number > number);
        head.is_some_and(|head| is_sound(&bytes[at..], head.number))
    })
}

/// Whether a part of the segment was filled with zeros, as sled wipes one that it does not need.
pub(super) fn is_wiped(bytes: &[u8]) -> bool {
    let mut parts = bytes.chunks_exact(WIPED_BYTES);
    parts.any(|part| part.iter().all(|byte| *byte == 0))
}

/// What `rest` begins with; `None` if that does not look like a message.
pub(super) fn piece(rest: &[u8], number: u64) -> Option<Piece<'_>> {
    if let Some(message) = sound(rest, rest, number) {
        return Some(Piece::Sound(message));
    }
    if let Some((message, fix)) = mended(rest, number) {
        return Some(Piece::Mended(message, fix));
    }
    let head = Head::read(rest).filter(|head| head.number == number)?;
    let body = rest.get(head.size..head.size.checked_add(head.length)?)?;
    Some(Piece::Damaged(head.message(body.into())))
}

fn is_sound(rest: &[u8], number: u64) -> bool {
    sound(rest, rest, number).is_some()
}

/// The message that `rest` begins with, whose first bytes are taken from `head`.
fn sound<'a>(head: &[u8], rest: &'a [u8], number: u64) -> Option<Message<'a>> {
    let read = Head::read(head).filter(|read| read.number == number)?;
    let body = rest.get(read.size..read.size.checked_add(read.length)?)?;
    (checksum(&head[CRC_BYTES..read.size], body) == read.crc).then(|| read.message(body.into()))
}

/// The message, if one flipped bit is all that is wrong with it.
fn mended(rest: &[u8], number: u64) -> Option<(Message<'_>, Fix)> {
    let head = &rest[..rest.len().min(MESSAGE_HEAD_BYTES_MAX)];
    let mut flipped = head.to_vec();
    // A flipped length moves everything, so the few bits of a head are tried one by one.
    for bit in 0..8 * head.len() {
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Some(message) = sound(&flipped, rest, number) {
            let (at, byte) = (bit / 8, flipped[bit / 8]);
            return Some((message, Fix { at, byte }));
        }
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    let head = Head::read(rest).filter(|head| head.number == number)?;
    let body = rest.get(head.size..head.size.checked_add(head.length)?)?;
    let wrong = checksum(&rest[CRC_BYTES..head.size], body) ^ head.crc;
    let behind = 8 * (head.size - CRC_BYTES);
    let bit = flipped_bit(wrong, behind + 8 * body.len())?.checked_sub(behind)?;
    let mut body = body.to_vec();
    let byte = body.len() - 1 - bit / 8;
    body[byte] ^= 0x80 >> (bit % 8);
    let fix = Fix {
        at: head.size + byte,
        byte: body[byte],
    };
    Some((head.message(body.into()), fix))
}

/// Which bit, counted from the end, makes a CRC-32 wrong in this way, if a single one does.
pub(in super::super) fn flipped_bit(wrong: u32, bits: usize) -> Option<usize> {
    let mut makes = CRC_POLYNOMIAL;
    (0..bits).find(|_| {
        let found = makes == wrong;
        makes = (makes >> 1) ^ if makes & 1 == 1 { CRC_POLYNOMIAL } else { 0 };
        found
    })
}

/// sled's checksum of a message: the body first.
fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(head);
    !hasher.finalize()
}

/// What stands before the body of a message.
struct Head {
    crc: u32,
    kind: Kind,
    length: usize,
    number: u64,
    page: u64,
    size: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (crc, rest) = bytes.split_first_chunk()?;
        let mut cursor = Cursor(rest);
        let kind = match cursor.byte()? {
            1 | 3 | 5..=7 => Kind::Other,
            2 => Kind::Cap,
            4 => Kind::Free,
            8 => Kind::Node,
            10 => Kind::Link,
            9 | 11 => Kind::Blob,
            _ => return None,
        };
        let length = usize::try_from(cursor.number()?).ok()?;
        let (number, page) = (cursor.number()?, cursor.number()?);
        Some(Self {
            crc: u32::from_le_bytes(*crc),
            kind,
            length,
            number,
            page,
            size: bytes.len() - cursor.0.len(),
        })
    }

    fn message<'a>(&self, body: Cow<'a, [u8]>) -> Message<'a> {
        Message {
            kind: self.kind,
            page: self.page,
            end: self.size + body.len(),
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link of page 7 in segment 5.
    fn message(body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, 10, body.len() as u8, 5, 7];
        let crc = checksum(&bytes[CRC_BYTES..], body);
        bytes[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn any_single_bit_is_put_right_and_two_are_not() {
        let sound = message(b"a body of some length");
        let Some(Piece::Sound(expected)) = piece(&sound, 5) else {
            panic!("it is sound")
        };
        for bit in 0..8 * sound.len() {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Some(Piece::Mended(mended, fix)) = piece(&damaged, 5) else {
                panic!("bit {bit} is put right")
            };
            assert_eq!(mended, expected, "bit {bit}");
            assert_eq!((fix.at, fix.byte), (bit / 8, sound[bit / 8]), "bit {bit}");
            for further in [5, 11] {
                damaged[(bit / 8 + further) % sound.len()] ^= 4;
            }
            assert!(
                !matches!(piece(&damaged, 5), Some(Piece::Sound(_) | Piece::Mended(..))),
                "bit {bit} and two more"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let mut bytes = vec![0; HEAD_BYTES];
        for body in [&b"first"[..], b"second", b"third"] {
            bytes.extend(message(body));
        }
        let second = HEAD_BYTES + message(b"first").len();
        let read = |bytes: &[u8]| {
            let mut seen = Vec::new();
            let ending = pieces(bytes, 5, &mut |at, piece| {
                seen.push(match piece {
                    Piece::Sound(message) => String::from_utf8(message.body.to_vec()).unwrap(),
                    Piece::Mended(..) => "mended".into(),
                    Piece::Damaged(_) => format!("damaged at {at}"),
                    Piece::Unknown => format!("unknown at {at}"),
                });
            });
            (seen.join(", "), ending)
        };
        let end = Ending::Open(bytes.len());
        assert_eq!(read(&bytes), ("first, second, third".into(), end));
        let mut damaged = bytes.clone();
        damaged[second + 8..second + 12].fill(0);
        assert_eq!(read(&damaged), (format!("first, damaged at {second}, third"), end));
        damaged[second..second + 12].fill(0);
        assert_eq!(read(&damaged), (format!("first, unknown at {second}, third"), end));
    }
}
