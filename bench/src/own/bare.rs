//! Bare guests, which are built in: those of the tests (`tests/guests/NAME.S`) that are of use here.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A bare guest. The first thing that each does is to write on its serial port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guest {
    /// Writes in a loop.
    CountForever,
    /// Halts.
    HltForever,
    /// Writes one byte and powers off.
    OneByte,
    /// Writes to some of its memory whenever it is sent a byte.
    WriteOnDemand,
}

macro_rules! built_in {
    ($name:literal) => {
        ($name, include_bytes!(concat!(env!("OUT_DIR"), "/", $name)))
    };
}

impl Guest {
    /// Its ELF file in `folder`, which is written when it is first wanted.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn file(self, folder: &Path) -> anyhow::Result<PathBuf> {
        let (name, content): (&str, &[u8]) = match self {
            Self::CountForever => built_in!("count-forever.elf"),
            Self::HltForever => built_in!("hlt-forever.elf"),
            Self::OneByte => built_in!("one-byte.elf"),
            Self::WriteOnDemand => built_in!("write-on-demand.elf"),
        };
        let path = folder.join(name);
        if !path.exists() {
            fs::write(&path, content).with_context(|| path.display().to_string())?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_is_a_program_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        for guest in [Guest::CountForever, Guest::HltForever, Guest::OneByte, Guest::WriteOnDemand] {
            let content = fs::read(guest.file(folder.path()).unwrap()).unwrap();
            assert!(content.starts_with(b"\x7fELF"), "{guest:?}");
            assert!(!seen.contains(&content), "{guest:?}");
            seen.push(content);
        }
    }
}
