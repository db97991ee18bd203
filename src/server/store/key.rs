//! The keys of the one tree: a letter for the kind, the document's id, a zero (no id holds one), then numbers in big-endian
//! order, so that the order of the keys is the order of the log.

use std::ops::Range;

use syncline_protocol::{ChangeHash, DocumentId, Position};

const VERSION: u8 = b'v';
const LIFE: u8 = b'b';
const META: u8 = b'm';
const LOG: u8 = b'l';
const SNAPSHOT: u8 = b's';
const INDEX: u8 = b'i';
const QUARANTINE: u8 = b'q';

/// All kinds of one document's keys, the one that makes it exist last.
pub(super) const DOCUMENT_KINDS: [Kind; 5] = [Kind::Log, Kind::Snapshot, Kind::Index, Kind::Quarantine, Kind::Meta];

/// What a document's key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Meta,
    Log,
    Snapshot,
    Index,
    Quarantine,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Self::Meta => META,
            Self::Log => LOG,
            Self::Snapshot => SNAPSHOT,
            Self::Index => INDEX,
            Self::Quarantine => QUARANTINE,
        }
    }

    fn prefix(self, document: &DocumentId) -> Vec<u8> {
        let mut key = Vec::with_capacity(document.as_str().len() + 2 + 12);
        key.push(self.letter());
        key.extend(document.as_str().as_bytes());
        key.push(0);
        key
    }

    /// All keys of this kind of one document.
    pub(super) fn all(self, document: &DocumentId) -> Range<Vec<u8>> {
        let start = self.prefix(document);
        let mut end = start.clone();
        end.pop();
        end.push(1);
        start..end
    }

    /// All keys of this kind, of all documents.
    pub(super) fn everywhere(self) -> Range<Vec<u8>> {
        vec![self.letter()]..vec![self.letter() + 1]
    }
}

/// A key, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Version,
    Life,
    Meta {
        document: DocumentId,
        chunk: u32,
    },
    Log {
        document: DocumentId,
        position: Position,
        chunk: u32,
    },
    Snapshot {
        document: DocumentId,
        generation: u64,
        chunk: u32,
    },
    Index {
        document: DocumentId,
        generation: u64,
        chunk: u32,
    },
    Quarantine {
        document: DocumentId,
        hash: ChangeHash,
        chunk: u32,
    },
}

impl Key {
    /// What `key` stands for; `None` if Syncline never wrote such a key.
    pub(super) fn parse(key: &[u8]) -> Option<Self> {
        let (&letter, rest) = key.split_first()?;
        if letter == VERSION {
            return rest.is_empty().then_some(Self::Version);
        }
        if letter == LIFE {
            return rest.is_empty().then_some(Self::Life);
        }
        let zero = rest.iter().position(|byte| *byte == 0)?;
        let document: DocumentId = std::str::from_utf8(&rest[..zero]).ok()?.parse().ok()?;
        let (place, chunk) = rest[zero + 1..].split_last_chunk::<4>()?;
        let chunk = u32::from_be_bytes(*chunk);
        let number = || Some(u64::from_be_bytes(place.try_into().ok()?));
        Some(match letter {
            META if place.is_empty() => Self::Meta { document, chunk },
            LOG => Self::Log {
                document,
                position: position(number()?)?,
                chunk,
            },
            SNAPSHOT => Self::Snapshot {
                document,
                generation: number()?,
                chunk,
            },
            INDEX => Self::Index {
                document,
                generation: number()?,
                chunk,
            },
            QUARANTINE => Self::Quarantine {
                document,
                hash: ChangeHash(place.try_into().ok()?),
                chunk,
            },
            _ => return None,
        })
    }
}

impl Key {
    /// The document that the key belongs to.
    pub(super) fn into_document(self) -> Option<DocumentId> {
        match self {
            Self::Version | Self::Life => None,
            Self::Meta { document, .. }
            | Self::Log { document, .. }
            | Self::Snapshot { document, .. }
            | Self::Index { document, .. }
            | Self::Quarantine { document, .. } => Some(document),
        }
    }
}

fn position(number: u64) -> Option<Position> {
    let position = Position::new(number);
    (position.number() == number).then_some(position)
}

pub(super) fn version() -> Vec<u8> {
    vec![VERSION]
}

pub(super) fn life() -> Vec<u8> {
    vec![LIFE]
}

pub(super) fn meta(document: &DocumentId, chunk: u32) -> Vec<u8> {
    placed(Kind::Meta, document, &[], chunk)
}

pub(super) fn log(document: &DocumentId, position: Position, chunk: u32) -> Vec<u8> {
    placed(Kind::Log, document, &position.number().to_be_bytes(), chunk)
}

pub(super) fn snapshot(document: &DocumentId, generation: u64, chunk: u32) -> Vec<u8> {
    placed(Kind::Snapshot, document, &generation.to_be_bytes(), chunk)
}

pub(super) fn index(document: &DocumentId, generation: u64, chunk: u32) -> Vec<u8> {
    placed(Kind::Index, document, &generation.to_be_bytes(), chunk)
}

pub(super) fn quarantine(document: &DocumentId, hash: &ChangeHash, chunk: u32) -> Vec<u8> {
    placed(Kind::Quarantine, document, &hash.0, chunk)
}

fn placed(kind: Kind, document: &DocumentId, place: &[u8], chunk: u32) -> Vec<u8> {
    let mut key = kind.prefix(document);
    key.extend(place);
    key.extend(chunk.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_and_ordered() {
        let id = |text: &str| text.parse::<DocumentId>().unwrap();
        let (a, ab) = (id("a"), id("a/b"));
        let hash = ChangeHash([7; 32]);
        let check = |bytes: Vec<u8>, key: Key| assert_eq!(Key::parse(&bytes), Some(key));
        check(version(), Key::Version);
        check(life(), Key::Life);
        check(
            meta(&a, 3),
            Key::Meta {
                document: a.clone(),
                chunk: 3,
            },
        );
        check(
            log(&a, Position::new(9), 1),
            Key::Log {
                document: a.clone(),
                position: Position::new(9),
                chunk: 1,
            },
        );
        check(
            snapshot(&ab, 9, 1),
            Key::Snapshot {
                document: ab.clone(),
                generation: 9,
                chunk: 1,
            },
        );
        check(
            index(&ab, 9, 1),
            Key::Index {
                document: ab.clone(),
                generation: 9,
                chunk: 1,
            },
        );
        check(
            quarantine(&ab, &hash, 0),
            Key::Quarantine {
                document: ab.clone(),
                hash,
                chunk: 0,
            },
        );

        for strange in [
            &b""[..],
            b"v1",
            b"x",
            b"ma",
            b"ma\0",
            b"la\0\0\0\0\0",
            b"m\0\0\0\0\0",
            b"za\0\0\0\0\0",
        ] {
            assert_eq!(Key::parse(strange), None, "{strange:?}");
        }

        let key = |document, position| log(document, Position::new(position), 0);
        assert!(key(&a, 255) < key(&a, 256) && key(&a, u64::MAX) < key(&ab, 0));
        assert!(Kind::Log.all(&a).contains(&key(&a, u64::MAX)) && !Kind::Log.all(&a).contains(&key(&ab, 0)));
        assert!(Kind::Log.everywhere().contains(&key(&ab, 1)) && !Kind::Log.everywhere().contains(&meta(&ab, 1)));
    }
}
