// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file with the log of one cVM's kernel. It does not grow without end, whatever the kernel writes: at its limit it says so, and nothing more is written to it.

use std::fs::File;
use std::io::Write;

/// How many bytes a file may have.
pub const LIMIT: u64 = 16 << 20;

/// The file, until it is full.
#[derive(Debug)]
pub struct LogFile {
    /// `None` when it is full.
    file: Option<File>,
    /// How many bytes fit.
    room: u64,
}

impl LogFile {
    /// Writes behind what is in the file.
    pub fn new(file: File) -> LogFile {
        LogFile::with_limit(file, LIMIT)
    }

    fn with_limit(file: File, limit: u64) -> LogFile {
        // A file whose length cannot be told is taken for an empty one.
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        LogFile {
            // One that a life before has filled says so already.
            file: (len < limit).then_some(file),
            room: limit.saturating_sub(len),
        }
    }

    /// Writes as many of `bytes` as fit.
    ///
    /// # Errors
    ///
    /// Those of the file.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let len = bytes
            .len()
            .min(usize::try_from(self.room).unwrap_or(usize::MAX));
        file.write_all(bytes.get(..len).unwrap_or_default())?;
        self.room -= len as u64;
        if len < bytes.len() || self.room == 0 {
            file.write_all(
                format!(
                    "\n[this file ends here: it has {LIMIT} bytes of log, and more are not kept]\n"
                )
                .as_bytes(),
            )?;
            self.file = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_grow_beyond_its_limit_and_says_so_once() {
        let temporary = tempfile::NamedTempFile::new().unwrap();
        let append = || {
            std::fs::OpenOptions::new()
                .append(true)
                .open(temporary.path())
                .unwrap()
        };
        let mut log = LogFile::with_limit(append(), 10);
        log.write(b"0123").unwrap();
        // The next life of the cVM goes on in the same file.
        let mut log = LogFile::with_limit(append(), 10);
        for _ in 0..1000 {
            log.write(b"4567").unwrap();
        }
        LogFile::with_limit(append(), 10).write(b"again").unwrap();
        let text = std::fs::read_to_string(temporary.path()).unwrap();
        assert!(
            text.starts_with("0123456745\n[this file ends here: "),
            "{text}"
        );
        assert_eq!(text.matches("ends here").count(), 1);
        assert_eq!(text.lines().count(), 2);
    }
}
