//! Which programs run in every contender: the root file system has neither a dynamic linker nor an interpreter.

use anyhow::{bail, ensure};

/// How every ELF file of 64 bits in little-endian order begins.
const ELF: &[u8] = b"\x7fELF\x02\x01";

/// `e_machine` of x86-64.
const X86_64: u64 = 62;

/// `p_type` of the program header that names the dynamic linker.
const PT_INTERP: u64 = 3;

/// Whether `content` is a program that needs nothing beside itself.
///
/// # Errors
/// It is not; the message says what it is.
pub(crate) fn ensure_static(content: &[u8]) -> anyhow::Result<()> {
    const WANTED: &str = "a static program for x86-64 is wanted, which runs in all contenders";
    if content.starts_with(b"#!") {
        // For the process alone; the others say that its interpreter is not there.
        return Ok(());
    }
    ensure!(content.starts_with(ELF) && number(content, 18, 2) == Some(X86_64), "it is no program: {WANTED}");
    let headers = || {
        let (table, size, count) =
            (number(content, 32, 8)?, number(content, 54, 2)?, number(content, 56, 2)?);
        let kind = |index: u64| {
            let at = table.checked_add(index.checked_mul(size)?)?;
            number(content, usize::try_from(at).ok()?, 4)
        };
        (0..count).map(kind).collect::<Option<Vec<_>>>()
    };
    match headers() {
        None => bail!("its program headers are cut off: {WANTED}"),
        Some(kinds) if kinds.contains(&PT_INTERP) => {
            bail!("it is dynamically linked, and its libraries are not in a guest: {WANTED}")
        }
        Some(_) => Ok(()),
    }
}

/// The number of `size` bytes at `offset`, the least significant first.
fn number(content: &[u8], offset: usize, size: usize) -> Option<u64> {
    let bytes = content.get(offset..offset.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with one program header of type `kind`.
    fn elf(kind: u8) -> Vec<u8> {
        let mut file = vec![0; 120];
        file.splice(..ELF.len(), ELF.iter().copied());
        for (offset, value) in [(18, 62), (32, 64), (54, 56), (56, 1), (64, kind)] {
            file[offset] = value;
        }
        file
    }

    fn refusal(content: &[u8]) -> String {
        ensure_static(content).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn only_a_static_program_is_taken() {
        assert_eq!(refusal(&elf(1)), "");
        assert!(refusal(&elf(3)).contains("dynamically linked"));
        assert!(ensure_static(b"#!/bin/sh\necho hello").is_ok());
        assert!(refusal(b"hello").contains("no program"));
        assert!(refusal(&elf(1)[..60]).contains("cut off"));
        assert!(refusal(&[]).contains("static program"));
    }

    #[test]
    fn the_built_in_program_is_one_and_this_hosts_shell_is_not() -> anyhow::Result<()> {
        ensure_static(include_bytes!(concat!(env!("OUT_DIR"), "/bench")))?;
        let shell = std::fs::read("/bin/sh")?;
        assert_eq!(refusal(&shell).is_empty(), !shell.windows(8).any(|bytes| bytes == b"/ld-linu"));
        Ok(())
    }
}
