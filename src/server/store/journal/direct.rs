//! Writing past the system's cache: what lies there only to be synced at once is handed over twice.
//!
//! It takes whole sectors, from an address that is a multiple of one, and a file system that can do it. Where one cannot, or wants other
//! sizes, nothing is written here, and whoever asked writes as ever. It makes nothing durable: that is the sync's part.

use super::{SECTOR_BYTES, STEP_BYTES, sectors};
use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

/// A file, open once more for this.
#[derive(Debug)]
pub(super) struct Direct {
    /// `None` where it cannot be done.
    file: Option<File>,
    /// What is written, behind as many bytes as bring it to such an address.
    buffer: Vec<u8>,
}

impl Direct {
    /// The file at `path`, which is there.
    pub(super) fn open(path: &Path) -> Self {
        Self {
            file: open(path),
            buffer: Vec::new(),
        }
    }

    /// Writes `bytes`, and zeros up to the end of their last sector. Whether it has: if not, the file is as before, or holds a part of
    /// them.
    ///
    /// # Errors
    /// When the system fails to write.
    pub(super) fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let written = file.write_all_at(aligned(&mut self.buffer, bytes), at);
        // A large one is rare, and not to be kept in memory.
        self.buffer.clear();
        self.buffer.shrink_to(STEP_BYTES as usize);
        match written {
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                self.file = None;
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }
}

/// `bytes` in whole sectors, at a multiple of one.
fn aligned<'a>(buffer: &'a mut Vec<u8>, bytes: &[u8]) -> &'a [u8] {
    let length = sectors(bytes.len());
    buffer.clear();
    // It must not move from here on.
    buffer.reserve(SECTOR_BYTES as usize + length);
    let skipped = buffer.as_ptr().align_offset(SECTOR_BYTES as usize);
    buffer.resize(skipped, 0);
    buffer.extend_from_slice(bytes);
    buffer.resize(skipped + length, 0);
    &buffer[skipped..]
}

#[cfg(target_os = "linux")]
fn open(path: &Path) -> Option<File> {
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = OFlags::DIRECT.bits().try_into().ok()?;
    File::options().write(true).custom_flags(flags).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open(_: &Path) -> Option<File> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: usize = SECTOR_BYTES as usize;

    #[test]
    fn bytes_of_any_length_lie_in_whole_sectors_at_a_multiple_of_one() {
        let mut buffer = Vec::new();
        for length in [1, SECTOR - 1, SECTOR, SECTOR + 1, 100 * SECTOR, 3] {
            let bytes = vec![7; length];
            let aligned = aligned(&mut buffer, &bytes);
            assert_eq!(aligned.as_ptr().align_offset(SECTOR), 0);
            assert_eq!(aligned.len(), length.next_multiple_of(SECTOR));
            let (begin, rest) = aligned.split_at(length);
            assert!(begin == bytes && rest.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn what_is_written_lies_between_what_was_there_and_what_cannot_be_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        // Few file systems take a place that is amid a sector, and some nothing of the kind.
        for at in [SECTOR, 100] {
            std::fs::write(&path, [1; 4 * SECTOR]).unwrap();
            File::open(&path).unwrap().sync_all().unwrap();
            let mut direct = Direct::open(&path);
            let is_written = direct.write(&[2; 700], at as u64).unwrap();
            assert_eq!(is_written, direct.file.is_some(), "it is not tried again");
            let mut expected = [1; 4 * SECTOR];
            if is_written {
                expected[at..at + 2 * SECTOR].fill(0);
                expected[at..at + 700].fill(2);
            }
            assert!(std::fs::read(&path).unwrap() == expected);
        }
    }
}
