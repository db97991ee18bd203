//! How many batches were committed, written down beside the journal, so that a journal or a log that ends early is noticed, unless
//! the power went as well.
//!
//! Either is read as far as its records are whole; damage that reaches to its end looks just like an earlier end, and what was there
//! would be gone without a word. The tally is written after each commit and is never ahead, so a store that has fewer batches than
//! it says has lost some. It is not synced itself before the store closes: after a power cut it may be old, or garbled, and then
//! says less, or nothing.

use crate::server::failpoints::Switch;
use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

const COUNT_BYTES: usize = 8;
const BYTES: usize = COUNT_BYTES + 4;

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct Tally {
    file: File,
}

impl Tally {
    /// Its name in the directory.
    pub(super) const FILE: &str = "tally";

    /// What the tally in `directory` says, if that can be read; nothing is made or changed.
    pub(super) fn look(directory: &Path) -> Option<u64> {
        let bytes = std::fs::read(directory.join(Self::FILE)).ok()?;
        decode(bytes.first_chunk()?)
    }

    /// Opens the tally in `directory`, which is made if it is not there. What it says, if that can be read.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Option<u64>)> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(directory.join(Self::FILE))?;
        let mut bytes = [0; BYTES];
        let said = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok((Self { file }, said))
    }

    /// So many batches are committed.
    pub(super) fn write(&self, count: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(count), 0)
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(count: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..COUNT_BYTES].copy_from_slice(&count.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..COUNT_BYTES]);
    bytes[COUNT_BYTES..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; BYTES]) -> Option<u64> {
    if Switch::DamageUnnoticed.is_on() {
        return None;
    }
    let count = u64::from_le_bytes(bytes[..COUNT_BYTES].try_into().ok()?);
    (*bytes == encode(count)).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_says_what_was_written_last_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (tally, said) = Tally::open(path).unwrap();
        assert_eq!(said, None);
        tally.write(7).unwrap();
        tally.write(u64::MAX).unwrap();
        assert_eq!(Tally::open(path).unwrap().1, Some(u64::MAX));
        assert_eq!(Tally::look(path), Some(u64::MAX));
        std::fs::write(path.join(Tally::FILE), [0; BYTES]).unwrap();
        assert_eq!(Tally::open(path).unwrap().1, None, "garbled by a power cut");
        std::fs::write(path.join(Tally::FILE), [1; 3]).unwrap();
        assert_eq!(Tally::open(path).unwrap().1, None, "cut short");
    }
}
