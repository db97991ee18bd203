//! Stores as directories of files: copied, damaged, filled up.

use crate::trial::command;
use std::{fs, path::Path};

/// Copies a directory.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), String> {
    // Sparse files stay sparse.
    command(
        "cp",
        &[
            "-a",
            "--sparse=always",
            &from.display().to_string(),
            &to.display().to_string(),
        ],
    )
    .map(drop)
}

/// A small file system in memory, unmounted when dropped.
pub(crate) struct SmallDisk<'a> {
    directory: &'a Path,
}

impl<'a> SmallDisk<'a> {
    pub(crate) fn mount(directory: &'a Path, mib: u64) -> Result<Self, String> {
        let options = format!("size={mib}m");
        command(
            "mount",
            &["-t", "tmpfs", "-o", &options, "tmpfs", &directory.display().to_string()],
        )?;
        Ok(Self { directory })
    }

    /// Takes all space that is left, and not what the server gives up meanwhile: that is the server's to go on with.
    pub(crate) fn fill(&self) -> Result<(), String> {
        use std::io::Write;
        let directory = self.directory.display().to_string();
        let available = command("df", &["-B1", "--output=avail", &directory])?;
        let available = available.lines().last().and_then(|line| line.trim().parse().ok());
        let mut left: usize = available.ok_or("df does not say how much space is left")?;
        let mut file = fs::File::create(self.directory.join("filler")).map_err(|error| error.to_string())?;
        let piece = vec![1; 64 << 10];
        for bytes in [piece.len(), 512] {
            while left >= bytes && file.write_all(&piece[..bytes]).is_ok() {
                left -= bytes;
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn free(&self) -> Result<(), String> {
        fs::remove_file(self.directory.join("filler")).map_err(|error| error.to_string())
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Nothing more can be done about it than to leave it mounted.
        let _ = command("umount", &["-l", &self.directory.display().to_string()]);
    }
}
