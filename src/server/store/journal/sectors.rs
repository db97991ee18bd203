//! The journal's file, written in whole sectors and, where that can be done, past the system's cache: what is written only to be synced at
//! once would be handed over twice, and a page of the cache takes its neighbours along when it is written back. The cache has a part in
//! filling the file alone, which lies behind all that is written here. Nothing is made durable but by a sync.

use super::{SECTOR_BYTES, STEP_BYTES, sectors};
use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct Sectors {
    file: File,
    /// The same, past the cache. `None` where it cannot be done.
    direct: Option<File>,
    /// What is written, behind as many bytes as bring it to an address that is a multiple of a sector.
    buffer: Vec<u8>,
}

impl Sectors {
    /// The file at `path`, of which `file` is open.
    pub(super) fn new(file: File, path: &Path) -> Self {
        Self {
            file,
            direct: direct(path),
            buffer: Vec::new(),
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            direct: self.direct.as_ref().map(File::try_clone).transpose()?,
            buffer: Vec::new(),
        })
    }

    /// The file, to fill and to cut it.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes `bytes` at the beginning of a sector, and zeros up to the end of their last one.
    pub(super) fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let whole = aligned(&mut self.buffer, bytes);
        let written = match &self.direct {
            Some(direct) => direct.write_all_at(whole, at),
            None => Err(ErrorKind::Unsupported.into()),
        };
        let written = match written {
            // The file system cannot, or wants larger sectors: nothing is written past the cache from here on.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                self.direct = None;
                self.file.write_all_at(whole, at)
            }
            written => written,
        };
        // A large one is rare, and not to be kept in memory.
        self.buffer.clear();
        self.buffer.shrink_to(STEP_BYTES as usize);
        written
    }

    /// Makes all that was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// `bytes` in whole sectors, at an address that is a multiple of one.
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
fn direct(path: &Path) -> Option<File> {
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = OFlags::DIRECT.bits().try_into().ok()?;
    File::options().write(true).custom_flags(flags).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn direct(_: &Path) -> Option<File> {
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

    /// Also where the file system does not write past the cache, or not amid a sector, as few do.
    #[test]
    fn what_is_written_lies_between_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for (at, is_cached) in [(SECTOR, false), (SECTOR, true), (100, false)] {
            std::fs::write(&path, [1; 4 * SECTOR]).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.sync_all().unwrap();
            let mut sectors = Sectors::new(file, &path);
            if is_cached {
                sectors.direct = None;
            }
            sectors.write(&[2; 700], at as u64).unwrap();
            sectors.sync().unwrap();
            let mut expected = [1; 4 * SECTOR];
            expected[at..at + 2 * SECTOR].fill(0);
            expected[at..at + 700].fill(2);
            assert!(std::fs::read(&path).unwrap() == expected, "at {at}");
        }
    }
}
