//! Snapshots on a real file system.

mod folder;
mod hostile;
mod interrupted;
mod pair;
mod verbs;

use std::fs;
use std::path::{Path, PathBuf};

use devices::GuestMemory;
use tempfile::TempDir;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::config::VmConfig;
use crate::memory::{self, HugePages};

/// Memory of the guests here, in MiB.
const MIB: u64 = 4;

/// The configuration of a guest.
fn config() -> VmConfig {
    VmConfig::from_json(&format!(
        r#"{{"boot-source": {{"kernel_image_path": "/boot/vmlinux"}},
            "machine-config": {{"vcpu_count": 1, "mem_size_mib": {MIB}}},
            "drives": [{{"drive_id": "root", "is_root_device": true, "path_on_host": "/images/a.img"}}]}}"#
    ))
    .unwrap()
}

/// Its memory, with `bytes` at these addresses.
fn memory(bytes: &[(u64, u8)]) -> GuestMemory {
    let memory = memory::create(MIB, HugePages::None, false).unwrap();
    for (address, byte) in bytes {
        memory.write_obj(*byte, GuestAddress(*address)).unwrap();
    }
    memory
}

/// Its state.
fn state() -> StateV2 {
    let mut state = StateV2::new(&config()).unwrap();
    state.sections.push(SectionV2::of("vcpus", 1, &vec![1_u32, 2, 3]).unwrap());
    state
}

/// Writes a snapshot of all of `memory` to `dir`.
fn full(dir: &Path, memory: &GuestMemory) -> Manifest {
    let partial = Partial::begin(dir).unwrap();
    let mut state = state();
    memory_file::write(partial.memory(), memory, &Pages::all(state.memory.len())).unwrap();
    partial.commit(&mut state, &config(), manifest::Cpu::default()).unwrap()
}

/// Writes a diff on top of `base` to `dir`, with the pages of `memory` that begin at `pages`.
fn diff(dir: &Path, base: &Path, memory: &GuestMemory, pages: &[u64]) -> Manifest {
    diff_on(dir, &Folder::open(base).unwrap(), memory, pages)
}

fn diff_on(dir: &Path, base: &Folder, memory: &GuestMemory, pages: &[u64]) -> Manifest {
    let partial = Partial::begin(dir).unwrap();
    let pages = Pages::of(pages.iter().map(|page| *page..page + PAGE_SIZE).collect());
    let mut state = state();
    state.base = Some(base.as_base().unwrap());
    state.memory.pages = Some(pages.numbers());
    memory_file::write(partial.memory(), memory, &pages).unwrap();
    partial.commit(&mut state, &config(), manifest::Cpu::default()).unwrap()
}

/// The guest's memory as a snapshot has it.
fn restored(dir: &Path) -> GuestMemory {
    let chain = Chain::open(dir).unwrap();
    memory::restore(MIB, &chain.source(), HugePages::None, false).unwrap()
}

/// The byte of a guest at an address.
fn byte(memory: &GuestMemory, address: u64) -> u8 {
    memory.read_obj(GuestAddress(address)).unwrap()
}

/// A folder, and a path in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    (folder, path)
}

/// The same in memory, where there is such a folder: for many snapshots, each of which waits for the disk several times.
fn quick_place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = folder.path().join("snapshot");
    (folder, path)
}

/// The names of what is in a folder, hidden or not.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}
