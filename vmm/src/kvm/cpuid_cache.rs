//! Keeps the answer of `KVM_GET_SUPPORTED_CPUID` between runs.
//!
//! The call executes CPUID dozens of times; on a host that is itself a VM each of them traps, and the whole takes 0.6 to
//! 0.9 ms: a quarter of a start. The answer changes only with the kernel, the KVM module and the CPU, so it is kept in a
//! file whose key has all of them: the boot id, the device node's inode and change time (a reloaded module makes a new
//! node), and three leaves of the CPU itself (the host may be a VM that was moved to another CPU).
//!
//! The file is in the user's runtime folder, belongs to the user and is writable by nobody else; any other is ignored,
//! and so is one that is damaged. Without such a folder KVM is asked every time.

use std::arch::x86_64::__cpuid_count;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};

use super::KvmError;
use crate::runtime_dir;

/// Name of the file in the runtime folder; the dot keeps it apart from the names of VMs.
const FILE: &str = ".cpuid";
/// Changes whenever the file's form does.
const MAGIC: &[u8; 8] = b"rvmmcpi1";
/// Eight 32-bit words: function, index, flags, EAX, EBX, ECX, EDX, and a word that is 0.
const ENTRY_SIZE: usize = 32;
/// The longest file that can be right.
const MAX_SIZE: usize = 4096 + KVM_MAX_CPUID_ENTRIES * ENTRY_SIZE;

/// The kept answer, or that of `ask`, which is then kept. `kvm` is the open `/dev/kvm`.
pub(super) fn get_or_ask(
    kvm: BorrowedFd<'_>,
    ask: impl FnOnce() -> Result<CpuId, KvmError>,
) -> Result<CpuId, KvmError> {
    let Some((path, key)) = runtime_dir::path().map(|folder| folder.join(FILE)).zip(key(kvm).ok()) else {
        return ask();
    };
    if let Some(kept) = read(&path).and_then(|bytes| decode(&bytes, &key)) {
        return Ok(kept);
    }
    let answer = ask()?;
    if let Err(error) = write(&path, &encode(&answer, &key)) {
        log::debug!("CPUID is not kept in {}: {error}", path.display());
    }
    Ok(answer)
}

fn read(path: &PathBuf) -> Option<Vec<u8>> {
    let mut file =
        File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let private =
        metadata.is_file() && metadata.uid() == runtime_dir::effective_user() && metadata.mode() & 0o022 == 0;
    let size = usize::try_from(metadata.len()).ok().filter(|size| private && *size <= MAX_SIZE)?;
    let mut bytes = vec![0; size];
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn write(path: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    runtime_dir::create()?;
    let beside = path.with_extension(std::process::id().to_string());
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// What the answer depends on.
fn key(kvm: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut key = fs::read("/proc/sys/kernel/random/boot_id")?;
    let node = File::from(kvm.try_clone_to_owned()?).metadata()?;
    for part in [node.dev(), node.ino(), node.ctime().cast_unsigned(), node.ctime_nsec().cast_unsigned()] {
        key.extend(part.to_le_bytes());
    }
    for word in cpu_features() {
        key.extend(word.to_le_bytes());
    }
    Ok(key)
}

fn encode(cpuid: &CpuId, key: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend((key.len() as u64).to_le_bytes());
    bytes.extend(key);
    for entry in cpuid.as_slice() {
        let words = [entry.function, entry.index, entry.flags, entry.eax, entry.ebx, entry.ecx, entry.edx, 0];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes
}

fn decode(bytes: &[u8], key: &[u8]) -> Option<CpuId> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let rest = rest.strip_prefix((key.len() as u64).to_le_bytes().as_slice())?.strip_prefix(key)?;
    let (entries, odd) = rest.as_chunks::<ENTRY_SIZE>();
    if entries.is_empty() || !odd.is_empty() {
        return None;
    }
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| {
            let word =
                |n: usize| entry.as_chunks::<4>().0.get(n).map_or(0, |bytes| u32::from_le_bytes(*bytes));
            kvm_cpuid_entry2 {
                function: word(0),
                index: word(1),
                flags: word(2),
                eax: word(3),
                ebx: word(4),
                ecx: word(5),
                edx: word(6),
                padding: [0; 3],
            }
        })
        .collect();
    CpuId::from_entries(&entries).ok()
}

/// Three leaves that tell one CPU from another: family, model, stepping and features.
fn cpu_features() -> impl Iterator<Item = u32> {
    [1, 7, 0x8000_0001].into_iter().flat_map(|leaf| {
        let found = __cpuid_count(leaf, 0);
        // EBX of leaf 1 has the number of the processor that this thread is on.
        [found.eax, if leaf == 1 { 0 } else { found.ebx }, found.ecx, found.edx]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CpuId {
        let entry = |function| kvm_cpuid_entry2 {
            function,
            index: 1,
            flags: 2,
            eax: 3,
            ebx: 4,
            ecx: 5,
            edx: 6,
            padding: [0; 3],
        };
        CpuId::from_entries(&[entry(0), entry(0x8000_0001)]).unwrap()
    }

    #[test]
    fn what_was_kept_comes_back_for_the_same_key_only() {
        let bytes = encode(&sample(), b"key");
        assert_eq!(decode(&bytes, b"key").unwrap().as_slice(), sample().as_slice());
        assert!(decode(&bytes, b"kez").is_none());
        assert!(decode(&bytes, b"ke").is_none());
    }

    #[test]
    fn a_file_cut_at_any_byte_is_ignored() {
        let bytes = encode(&sample(), b"key");
        let whole_entries =
            |len: usize| len > bytes.len() - 2 * ENTRY_SIZE && (bytes.len() - len).is_multiple_of(ENTRY_SIZE);
        for len in (0..bytes.len()).filter(|len| !whole_entries(*len)) {
            assert!(decode(&bytes[..len], b"key").is_none(), "{len}");
        }
    }

    #[test]
    fn the_cpu_that_this_process_runs_on_has_features() {
        assert!(cpu_features().any(|word| word != 0));
    }
}
