//! Keeps the answer of `KVM_GET_SUPPORTED_CPUID` between runs.
//!
//! The call executes CPUID dozens of times; on a host that is itself a VM each of them traps, and the whole takes 0.6 to
//! 0.9 ms: a quarter of a start. The answer changes only with the kernel, the KVM modules with their parameters, and the
//! CPU, so it is kept in a file whose key has all of them: the boot id, the device node's inode and change time, the
//! identity of the modules' parameters, and three leaves of the CPU itself (the host may be a VM that was moved to another
//! CPU).
//!
//! The file is in the user's runtime folder, belongs to the user and is writable by nobody else; any other is ignored,
//! and so is one whose checksum is wrong. Without such a folder KVM is asked every time.

use std::arch::x86_64::__cpuid_count;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use sha2::{Digest as _, Sha256};

use super::KvmError;
use crate::runtime_dir;

/// Name of the file in the runtime folder; the dot keeps it apart from the names of VMs.
const FILE: &str = ".cpuid";
/// Changes whenever the file's form does.
const MAGIC: &[u8; 8] = b"rvmmcpi2";
/// Eight 32-bit words: function, index, flags, EAX, EBX, ECX, EDX, and a word that is 0.
const ENTRY_SIZE: usize = 32;
/// Bytes at the end of the file: the SHA-256 of all before them.
const CHECKSUM_SIZE: usize = 32;
/// Folders of the parameters of all modules that may serve KVM. What the answer depends on, such as `nested`, `ept` and
/// `enable_pmu`, is fixed when a module is loaded (mode 0444), and sysfs gives the folder a new inode then. That costs four
/// system calls, where reading the parameters would cost dozens.
const PARAMETERS: [&str; 4] = [
    "/sys/module/kvm/parameters",
    "/sys/module/kvm_intel/parameters",
    "/sys/module/kvm_amd/parameters",
    "/sys/module/kvm_pvm/parameters",
];
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
    let node = [node.dev(), node.ino(), node.ctime().cast_unsigned(), node.ctime_nsec().cast_unsigned()];
    let parameters = PARAMETERS.map(|folder| fs::metadata(folder).map_or(0, |folder| folder.ino()));
    for part in node.into_iter().chain(parameters) {
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
    let checksum = Sha256::digest(&bytes);
    bytes.extend(checksum);
    bytes
}

fn decode(bytes: &[u8], key: &[u8]) -> Option<CpuId> {
    let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_SIZE>()?;
    let rest = content.strip_prefix(MAGIC)?;
    let rest = rest.strip_prefix((key.len() as u64).to_le_bytes().as_slice())?.strip_prefix(key)?;
    let (entries, odd) = rest.as_chunks::<ENTRY_SIZE>();
    if entries.is_empty() || !odd.is_empty() || Sha256::digest(content)[..] != checksum[..] {
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
    use std::os::fd::AsFd as _;

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
    fn a_file_cut_at_any_byte_or_with_more_behind_it_is_ignored() {
        let mut bytes = encode(&sample(), b"key");
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], b"key").is_none(), "{len}");
        }
        for _ in 0..2 * ENTRY_SIZE {
            bytes.push(0);
            assert!(decode(&bytes, b"key").is_none(), "{}", bytes.len());
        }
    }

    #[test]
    fn a_file_with_any_byte_changed_is_ignored() {
        let bytes = encode(&sample(), b"key");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(decode(&changed, b"key").is_none(), "{at}");
        }
    }

    #[test]
    fn the_key_has_the_parameters_of_the_loaded_modules() {
        let Ok(node) = File::open("/dev/kvm") else { return };
        let key = key(node.as_fd()).unwrap();
        let loaded: Vec<_> = PARAMETERS.iter().filter_map(|folder| fs::metadata(folder).ok()).collect();
        assert!(!loaded.is_empty(), "some module serves KVM");
        for folder in loaded {
            assert!(key.windows(8).any(|part| part == folder.ino().to_le_bytes()));
        }
    }

    #[test]
    fn the_features_are_those_of_this_cpu_whichever_processor_it_is_asked_on() {
        let features: Vec<u32> = cpu_features().collect();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let field = |name: &str| {
            let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).unwrap()
        };
        // Leaf 1, EAX: stepping, model, family, extended model and family (Intel SDM, 3-20A).
        let [eax, ebx, ecx, edx] = features[..4] else { panic!("{features:x?}") };
        let base = eax >> 8 & 0xf;
        let family = base + if base == 0xf { eax >> 20 & 0xff } else { 0 };
        let model = eax >> 4 & 0xf | if matches!(base, 6 | 0xf) { eax >> 12 & 0xf0 } else { 0 };
        assert_eq!(field("cpu family"), family.to_string(), "{features:x?}");
        assert_eq!(field("model"), model.to_string(), "{features:x?}");
        assert_eq!(field("stepping"), (eax & 0xf).to_string(), "{features:x?}");
        // EBX has the processor's number. SSE 4.2 and SSE 2, which Linux never hides.
        assert_eq!(ebx, 0);
        let flags = field("flags");
        let has = |flag: &str| flags.split(' ').any(|known| known == flag);
        assert_eq!(ecx >> 20 & 1 == 1, has("sse4_2"), "{features:x?}");
        assert_eq!(edx >> 26 & 1 == 1, has("sse2"), "{features:x?}");
        // Leaf 7, EBX: AVX2. Leaf 0x80000001, EDX: long mode.
        assert_eq!(features[5] >> 9 & 1 == 1, has("erms"), "{features:x?}");
        assert_eq!(features[11] >> 29 & 1 == 1, has("lm"), "{features:x?}");
        assert_eq!(features.len(), 12);
    }
}
