//! The header of a `state` file, which says what it is, and that it is whole.
//!
//! | offset | bytes | little-endian |
//! | --- | --- | --- |
//! | 0 | 8 | `RVMMSNAP` |
//! | 8 | 2 | version of the format, [`FORMAT_VERSION`] |
//! | 10 | 2 | architecture of the guest, as `e_machine` of ELF |
//! | 12 | 4 | 0 |
//! | 16 | 8 | length of the body |
//! | 24 | 32 | SHA-256 of bytes 0 to 23 and the body |
//! | 56 | | the body |

use sha2::{Digest as _, Sha256};

/// The format that is written. Earlier ones are read, too.
pub const FORMAT_VERSION: u16 = 2;

/// The longest `state` file that is read, in bytes. 32 vCPUs take less than 1 MiB, devices some hundred KiB, the pages of
/// a diff 20 MiB at most ([`super::MAX_RANGES`]).
pub const MAX_STATE_SIZE: u64 = 64 << 20;

/// Bytes of the header.
pub const HEADER_SIZE: usize = 56;

/// What the file begins with.
const MAGIC: [u8; 8] = *b"RVMMSNAP";
/// Where the digest is.
const DIGEST_AT: usize = 24;
/// `EM_X86_64` of the ELF specification.
const X86_64: u16 = 62;
/// Guests of which a snapshot may be, to name them.
const ARCHITECTURES: [(u16, &str); 4] = [(3, "x86"), (X86_64, "x86-64"), (183, "arm64"), (243, "riscv64")];

/// The digest of a `state` file's header and body, which tells one snapshot from every other.
pub type Seal = [u8; 32];

/// What a file that is no sealed body of this format and architecture is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Something else altogether.
    #[error("is no state of a VM; name the folder that `rvmm snapshot` wrote, or its file `state`")]
    Magic,
    /// From a later rvmm.
    #[error(
        "has format {found}, and this rvmm knows {FORMAT_VERSION}; restore it with the rvmm that wrote it, or a later one"
    )]
    Future {
        /// The version in the header.
        found: u16,
    },
    /// From no rvmm that there ever was.
    #[error("has format {found}, which never was; the file is damaged, take another copy of it")]
    Past {
        /// The version in the header.
        found: u16,
    },
    /// Bytes are missing, or there are more than there should be.
    #[error("has {found} bytes instead of {wanted}; it was cut or added to, take another copy of it")]
    Length {
        /// Bytes that there are.
        found: u64,
        /// Bytes that the header speaks of, its own included.
        wanted: u64,
    },
    /// Not what was written.
    #[error("does not match its checksum; the file is damaged, take another copy of it")]
    Digest,
    /// A guest that cannot run here.
    #[error("is of a guest for {}; this rvmm runs guests for x86-64, restore it on a host of its kind", name(*found))]
    Architecture {
        /// `e_machine` of ELF.
        found: u16,
    },
}

/// How people call an architecture.
fn name(machine: u16) -> String {
    let known = ARCHITECTURES.iter().find(|(number, _)| *number == machine);
    known.map_or_else(|| format!("machine {machine}"), |(_, name)| (*name).to_owned())
}

/// The bytes of a file with `body`, and its seal.
pub fn seal(body: &[u8]) -> (Vec<u8>, Seal) {
    seal_as(FORMAT_VERSION, X86_64, body)
}

/// A file of any version and machine, with a right checksum, as someone hostile makes it.
pub fn seal_as(version: u16, machine: u16, body: &[u8]) -> (Vec<u8>, Seal) {
    let mut bytes = Vec::with_capacity(HEADER_SIZE.saturating_add(body.len()));
    bytes.extend(MAGIC);
    bytes.extend(version.to_le_bytes());
    bytes.extend(machine.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((body.len() as u64).to_le_bytes());
    let seal = digest(&bytes, body);
    bytes.extend(seal);
    bytes.extend(body);
    (bytes, seal)
}

/// What is in a file whose header and checksum are right.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The version of its format, 1 to [`FORMAT_VERSION`].
    pub version: u16,
    /// The body, in that format.
    pub body: &'a [u8],
    /// Its seal.
    pub seal: Seal,
}

/// The body of a file and its seal.
///
/// # Errors
/// See [`SealError`]. Of a file from the future nothing but its version is looked at.
pub fn open(bytes: &[u8]) -> Result<Opened<'_>, SealError> {
    let start = MAGIC.len().min(bytes.len());
    if bytes.is_empty() || !MAGIC.starts_with(bytes.get(..start).unwrap_or_default()) {
        return Err(SealError::Magic);
    }
    let length = |wanted| SealError::Length { found: bytes.len() as u64, wanted };
    let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>().ok_or(length(HEADER_SIZE as u64))?;
    let word =
        |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u16::from_le_bytes);
    let version = word(8);
    match version {
        1..=FORMAT_VERSION => {}
        0 => return Err(SealError::Past { found: 0 }),
        found => return Err(SealError::Future { found }),
    }
    let body_len = header.get(16..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_le_bytes);
    if body_len != body.len() as u64 {
        return Err(length(body_len.saturating_add(HEADER_SIZE as u64)));
    }
    let (fields, found) = header.split_at(DIGEST_AT);
    let seal = digest(fields, body);
    if found != seal {
        return Err(SealError::Digest);
    }
    match word(10) {
        X86_64 => Ok(Opened { version, body, seal }),
        found => Err(SealError::Architecture { found }),
    }
}

fn digest(fields: &[u8], body: &[u8]) -> Seal {
    Sha256::new().chain_update(fields).chain_update(body).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_back_as_it_was() {
        for body in [&b""[..], b"x", &[7; 5000]] {
            let (bytes, seal) = seal(body);
            assert_eq!(open(&bytes), Ok(Opened { version: FORMAT_VERSION, body, seal }));
            assert_eq!(bytes.len(), HEADER_SIZE + body.len());
        }
    }

    #[test]
    fn a_header_from_the_future_names_both_versions() {
        let error = open(&seal_as(FORMAT_VERSION + 6, X86_64, b"x").0).unwrap_err().to_string();
        assert!(
            error.contains("format 8") && error.contains("knows 2") && error.contains("later"),
            "{error}"
        );
        assert_eq!(open(&seal_as(0, X86_64, b"x").0), Err(SealError::Past { found: 0 }));
    }

    #[test]
    fn an_earlier_format_is_read() {
        let (bytes, seal) = seal_as(1, X86_64, b"x");
        assert_eq!(open(&bytes), Ok(Opened { version: 1, body: b"x", seal }));
    }

    #[test]
    fn a_guest_of_another_architecture_is_named() {
        for (machine, name) in [(183, "arm64"), (243, "riscv64"), (9999, "machine 9999")] {
            let error = open(&seal_as(FORMAT_VERSION, machine, b"x").0).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("x86-64"), "{error}");
        }
    }

    #[test]
    fn other_files_are_said_to_be_none() {
        for other in [&b""[..], b"{\"id\": 1}", b"RVMMSNAQ", &[0; 4096]] {
            assert_eq!(open(other), Err(SealError::Magic));
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let (bytes, _) = seal(b"the state of a VM");
        for len in 0..bytes.len() {
            assert!(open(&bytes[..len]).is_err(), "{len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bytes).is_err(), "bit {bit}");
        }
        assert!(matches!(open(&[&bytes[..], b"x"].concat()), Err(SealError::Length { .. })));
    }
}
