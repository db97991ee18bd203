//! What place in the log was given to a segment last, before that is written there. The segment that was there is not needed any
//! more, but until the new one is durable, what lies there may read like a damaged old one. When it is noted, `sled/pages.rs` says.

use super::{SECTOR_BYTES, sectors::Sectors};
use std::io;

/// The segment, the place, a checksum.
const BYTES: usize = 20;

/// The note in the journal's file, open for writing.
#[derive(Debug)]
pub(in super::super) struct Note(Sectors);

/// A place in the log's file that was given to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Given {
    /// The number of the segment.
    pub(in super::super) segment: u64,
    /// Where it begins in the file.
    pub(in super::super) place: u64,
}

impl Note {
    pub(super) fn in_file(file: Sectors) -> Self {
        Self(file)
    }

    /// Notes it durably.
    pub(in super::super) fn write(&mut self, given: Given) -> io::Result<()> {
        self.0.write(&encode(given), SECTOR_BYTES)?;
        self.0.sync()
    }
}

impl Given {
    /// What the note's sector says, if that can be read.
    pub(super) fn read(sector: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = sector.first_chunk()?;
        let given = Self {
            segment: u64::from_le_bytes(bytes[..8].try_into().ok()?),
            place: u64::from_le_bytes(bytes[8..16].try_into().ok()?),
        };
        (*bytes == encode(given)).then_some(given)
    }
}

fn encode(given: Given) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&given.segment.to_le_bytes());
    bytes[8..16].copy_from_slice(&given.place.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}
