//! Space on the disk that is taken in advance, so that a full one is noticed before anything is written, and not amid it.
//!
//! Behind the end of the log lie spare blocks, which it grows into. Where the file system cannot give any, the space that is
//! free is looked at instead, which others may take meanwhile. A reserve file is given up when a store opens on a full disk.

use super::{kv::KvError, logfile::SEGMENT_BYTES};
use std::{
    fs::File,
    io::{self, ErrorKind, Write as _},
    path::Path,
};

const PART_BYTES: usize = 1 << 20;
/// Spare blocks are taken for so much more than is needed at once.
const AHEAD_BYTES: u64 = 1 << 20;

/// The spare blocks behind the end of a file.
#[derive(Debug)]
pub(super) struct Spare {
    file: File,
    /// Up to here blocks are taken.
    taken: u64,
    /// The length of the file when it was last looked at.
    length: u64,
    is_supported: bool,
}

impl Spare {
    /// None yet, of this file.
    pub(super) fn of(file: File) -> Self {
        Self {
            file,
            taken: 0,
            length: 0,
            is_supported: cfg!(target_os = "linux"),
        }
    }

    /// As [`Spare::hold`], whatever was taken before: it is gone if the file was cut meanwhile and has grown again.
    ///
    /// # Errors
    /// As there.
    pub(super) fn hold_anew(&mut self, bytes: u64) -> Result<(), KvError> {
        self.taken = 0;
        self.hold(bytes)
    }

    /// Has the file grow by `bytes` without fail.
    ///
    /// # Errors
    /// `Full`: it is as before.
    pub(super) fn hold(&mut self, bytes: u64) -> Result<(), KvError> {
        let length = self.file.metadata().map_err(|error| io_error(&error))?.len();
        if length < self.length {
            // What lay behind the end was given back with the end.
            self.taken = 0;
        }
        self.length = length;
        let needed = length + bytes;
        if needed <= self.taken {
            return Ok(());
        }
        if self.is_supported {
            self.taken = self.taken.max(length);
            match self.take(needed + AHEAD_BYTES) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) => return Err(KvError::Full),
                Err(error) => {
                    tracing::warn!(%error, "no space can be set aside for the store's log: a full disk may make it read-only");
                    self.is_supported = false;
                }
            }
        }
        match free(&self.file) {
            Ok(free) if free < bytes => Err(KvError::Full),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Takes blocks up to `end`, step by step: where a part is not to be had, some file systems give back all that they were asked for,
    /// what was taken before and waits to be written to included.
    fn take(&mut self, end: u64) -> io::Result<()> {
        while self.taken < end {
            let next = (self.taken + 1).next_multiple_of(SEGMENT_BYTES as u64).min(end);
            take(&self.file, self.taken, next - self.taken)?;
            self.taken = next;
        }
        Ok(())
    }
}

/// Takes blocks for `bytes` behind `from`. The file gets no longer.
#[cfg(target_os = "linux")]
fn take(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    Ok(rustix::io::retry_on_intr(|| {
        fallocate(file, FallocateFlags::KEEP_SIZE, from, bytes)
    })?)
}

#[cfg(not(target_os = "linux"))]
fn take(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// The bytes that are free where the file lies.
#[cfg(unix)]
fn free(file: &File) -> io::Result<u64> {
    let there = rustix::fs::fstatvfs(file)?;
    Ok(there.f_bavail.saturating_mul(there.f_frsize))
}

#[cfg(not(unix))]
fn free(_: &File) -> io::Result<u64> {
    Err(ErrorKind::Unsupported.into())
}

/// Sets the reserve file aside, if it is not there.
///
/// # Errors
/// `Full`, `Io`: then it is not there.
pub(super) fn restore_reserve(path: &Path, bytes: u64) -> Result<(), KvError> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() == bytes) {
        return Ok(());
    }
    fill(path, bytes).map_err(|error| {
        let error = io_error(&error);
        remove(path).err().unwrap_or(error)
    })
}

/// Fills a file with zeros, so that its blocks are taken, whatever the file system.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let zeros = vec![0; PART_BYTES];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(zeros.len() as u64);
        file.write_all(&zeros[..part as usize])?;
        left -= part;
    }
    file.sync_all()
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), KvError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(&error)),
        _ => Ok(()),
    }
}

/// What the system said.
pub(super) fn io_error(error: &io::Error) -> KvError {
    if is_full(error) {
        KvError::Full
    } else {
        KvError::Io(error.to_string())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
