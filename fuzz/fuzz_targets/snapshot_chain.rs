//! Folders with snapshots on top of one another, as anybody may have made them: bases that are missing, loop or are another
//! snapshot's, states that were changed under a right checksum, memory files, manifests and links that do not fit.
//!
//! Holds: no panic, no hang, no more memory than the files are worth; in a chain that opens, each snapshot is the one that the
//! diff above it names, and has as much memory; what is made of it by merging has the same memory and verifies; and reading
//! changes no file.
#![no_main]

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes as _, GuestAddress};
use vmm::config::VmConfig;
use vmm::memory::{self, HugePages};
use vmm::memory_server::Image;
use vmm::snapshot::{BaseV1, Chain, MAX_DEPTH, PAGE_SIZE, SectionV2, StateV2, inspect, merge, seal, verify};

const MIB: u64 = 1;
const LEN: u64 = MIB << 20;
const PAGES: u64 = LEN / PAGE_SIZE;

#[derive(Arbitrary, Debug)]
struct Input {
    /// From the lowest up; the last one is opened.
    snapshots: Vec<Snapshot>,
}

#[derive(Arbitrary, Debug)]
struct Snapshot {
    /// The base, how many snapshots below it is; 0 is the next one. `None`: it has all of memory.
    base: Option<Base>,
    /// Pages of a diff: a gap and a count each, or any numbers.
    pages: Vec<(u8, u8)>,
    raw_pages: Option<Vec<(u64, u64)>>,
    /// Pages of the memory file that have something.
    data: Vec<(u8, u8)>,
    change: Option<Change>,
    files: Files,
}

#[derive(Arbitrary, Debug)]
struct Base {
    below: u8,
    /// It has another id, or another digest, than is said.
    wrong_id: bool,
    wrong_seal: bool,
    path: BasePath,
}

#[derive(Arbitrary, Debug)]
enum BasePath {
    /// Where it is.
    Right,
    /// Somewhere else, so that it is looked for beside the diff.
    Moved,
    /// As two files.
    TwoFiles,
    Any(Vec<u8>),
    /// With this memory file.
    Memory(Vec<u8>),
    /// The diff itself.
    Loop,
}

/// What was changed in the state before it was sealed, or afterwards.
#[derive(Arbitrary, Debug)]
enum Change {
    Body(Vec<(u16, u8)>),
    File(Vec<(u16, u8)>),
    Raw(Vec<u8>),
    Config(String),
    Sections(Vec<(String, Vec<u8>)>),
    MemorySize(u64),
}

#[derive(Arbitrary, Debug)]
enum Files {
    Right,
    MemoryLength(u32),
    MemoryIsLink,
    MemoryIsFolder,
    NoMemory,
    StateIsLink,
    NoState,
    Manifest(Vec<u8>),
    WorkingSet(Vec<u8>),
}

/// The configuration of the guests, and its JSON.
static CONFIG: LazyLock<VmConfig> = LazyLock::new(|| {
    VmConfig::from_json(&format!(
        r#"{{"boot-source": {{"kernel_image_path": "/k"}}, "machine-config": {{"vcpu_count": 1, "mem_size_mib": {MIB}}}}}"#
    ))
    .unwrap()
});

/// A snapshot that was written.
struct Written {
    folder: PathBuf,
    id: [u8; 16],
    seal: seal::Seal,
}

fn patch(bytes: &mut [u8], patches: &[(u16, u8)]) {
    for (at, value) in patches {
        let len = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(usize::from(*at) % len) {
            *byte ^= value;
        }
    }
}

/// Ranges of pages that are in order: first and count.
fn in_order(pages: &[(u8, u8)]) -> Vec<(u64, u64)> {
    let mut last = 0;
    let mut ranges = Vec::new();
    for (gap, count) in pages.iter().take(32) {
        let start = last + u64::from(*gap) + u64::from(last > 0);
        let count = u64::from(*count % 16) + 1;
        if start + count > PAGES {
            break;
        }
        last = start + count;
        ranges.push((start, count));
    }
    ranges
}

impl Snapshot {
    fn write(&self, number: usize, folder: &Path, written: &[Written]) -> Written {
        fs::create_dir(folder).unwrap();
        let mut state = StateV2::new(&CONFIG).unwrap();
        state.id = [number as u8 + 1; 16];
        state.created = 1;
        let base = self.base.as_ref().and_then(|base| {
            let below = written.len().checked_sub(1 + usize::from(base.below))?;
            Some(base.of(&written[below], folder))
        });
        if base.is_some() {
            state.memory.pages = Some(self.raw_pages.clone().unwrap_or_else(|| in_order(&self.pages)));
        }
        state.base = base;
        match &self.change {
            Some(Change::Config(config)) => state.config.clone_from(config),
            Some(Change::MemorySize(len)) => {
                state.memory.regions.iter_mut().for_each(|region| region.len = *len)
            }
            Some(Change::Sections(sections)) => {
                let section = |(name, bytes): &(String, Vec<u8>)| SectionV2 {
                    name: name.clone(),
                    version: 1,
                    is_required: true,
                    bytes: bytes.clone(),
                };
                state.sections = sections.iter().map(section).collect();
            }
            _ => {}
        }
        let (mut file, mut seal) = state.encode().unwrap();
        match &self.change {
            Some(Change::Body(patches)) => {
                let mut body = file.split_off(seal::HEADER_SIZE);
                patch(&mut body, patches);
                (file, seal) = seal::seal(&body);
            }
            Some(Change::File(patches)) => patch(&mut file, patches),
            Some(Change::Raw(bytes)) => file.clone_from(bytes),
            _ => {}
        }
        self.write_files(number, folder, &file);
        Written { folder: folder.to_owned(), id: state.id, seal }
    }

    fn write_files(&self, number: usize, folder: &Path, state: &[u8]) {
        let (state_path, memory_path) = (folder.join("state"), folder.join("memory"));
        match &self.files {
            Files::NoState => {}
            Files::StateIsLink => {
                fs::write(folder.join("elsewhere"), state).unwrap();
                symlink("elsewhere", state_path).unwrap();
            }
            _ => fs::write(state_path, state).unwrap(),
        }
        let len = match self.files {
            Files::MemoryLength(len) => u64::from(len) % (2 * LEN),
            _ => LEN,
        };
        match self.files {
            Files::NoMemory => return,
            Files::MemoryIsFolder => return fs::create_dir(memory_path).unwrap(),
            _ => {}
        }
        let file = File::create(&memory_path).unwrap();
        file.set_len(len).unwrap();
        for (start, count) in in_order(&self.data) {
            let bytes = vec![number as u8 + 1; (count * PAGE_SIZE) as usize];
            file.write_all_at(&bytes, start * PAGE_SIZE).unwrap();
        }
        match &self.files {
            Files::MemoryIsLink => {
                fs::rename(&memory_path, folder.join("elsewhere")).unwrap();
                symlink("elsewhere", memory_path).unwrap();
            }
            Files::Manifest(bytes) => fs::write(folder.join("manifest.json"), bytes).unwrap(),
            Files::WorkingSet(bytes) => fs::write(folder.join("working-set"), bytes).unwrap(),
            _ => {}
        }
    }
}

impl Base {
    /// What a diff in `folder` says of `written`.
    fn of(&self, written: &Written, folder: &Path) -> BaseV1 {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let (mut absolute, mut memory) = (bytes(&written.folder), Vec::new());
        match &self.path {
            BasePath::Right => {}
            BasePath::Moved => {
                absolute = bytes(&Path::new("/gone").join(written.folder.file_name().unwrap()))
            }
            BasePath::TwoFiles => {
                absolute = bytes(&written.folder.join("state"));
                memory = bytes(&written.folder.join("memory"));
            }
            BasePath::Any(path) => absolute.clone_from(path),
            BasePath::Memory(path) => memory.clone_from(path),
            BasePath::Loop => absolute = bytes(folder),
        }
        let (mut id, mut seal) = (written.id, written.seal);
        id[0] ^= u8::from(self.wrong_id);
        seal[0] ^= u8::from(self.wrong_seal);
        BaseV1 { id, seal, path: absolute.clone(), absolute, memory }
    }
}

/// The bytes of all files, to see whether one changed.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else if path.file_name().unwrap() != "memory" {
            files.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    files.sort();
    files
}

/// Pages whose bytes are looked at: of all, each takes long.
fn looked_at(snapshots: &[Snapshot]) -> Vec<u64> {
    let ranges = snapshots.iter().flat_map(|snapshot| [in_order(&snapshot.data), in_order(&snapshot.pages)]);
    let mut pages: Vec<u64> =
        ranges.flatten().flat_map(|(start, count)| [start, start + count - 1]).collect();
    pages.push(PAGES - 1);
    pages
}

/// The byte that a page of a guest has, which is that of the uppermost snapshot which has the page.
fn expected_byte(chain: &Chain, snapshots: &[Snapshot], page: u64) -> u8 {
    let has =
        |ranges: &[(u64, u64)]| ranges.iter().any(|(start, count)| (*start..start + count).contains(&page));
    let folder = chain
        .folders()
        .find(|folder| folder.state.memory.pages.as_ref().is_none_or(|pages| has(pages)))
        .unwrap();
    // The name of the folder, of which the state is named if there are two files.
    let mut names =
        folder.path.ancestors().filter_map(|path| path.file_name()?.to_str()?.parse::<usize>().ok());
    let number = names.next().unwrap();
    if has(&in_order(&snapshots[number].data)) { number as u8 + 1 } else { 0 }
}

fuzz_target!(|input: Input| {
    if input.snapshots.is_empty() {
        return;
    }
    let root = PathBuf::from(format!("/dev/shm/rvmm-fuzz-chain-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    fs::create_dir(&root).unwrap();
    let mut written = Vec::new();
    for (number, snapshot) in input.snapshots.iter().take(6).enumerate() {
        let folder = root.join(number.to_string());
        written.push(snapshot.write(number, &folder, &written));
    }
    let top = written.last().unwrap();
    let before = contents(&root);

    let _ = verify(&top.folder);
    let inspected = inspect(&top.folder);
    match Chain::open(&top.folder) {
        Err(_) => {
            let problem = inspected.is_ok_and(|inspection| inspection.problem.is_none());
            assert!(!problem, "a chain that does not open has no problem");
        }
        Ok(chain) => {
            assert!(chain.below().len() <= MAX_DEPTH);
            let folders: Vec<_> = chain.folders().collect();
            for pair in folders.windows(2) {
                let [diff, base] = pair else { continue };
                let said = diff.state.base.as_ref().unwrap();
                assert_eq!((said.id, said.seal), (base.state.id, base.seal));
                assert_eq!(diff.state.memory.len(), base.state.memory.len());
            }
            assert!(folders.last().unwrap().state.base.is_none());
            assert_eq!(inspected.unwrap().on_top_of.len(), chain.below().len());
            if chain.top().state.memory.len() == LEN {
                let memory = memory::restore(MIB, &chain.source(), HugePages::None, false).unwrap();
                Image::new(chain.source(), LEN).unwrap();
                let out = root.join("merged");
                merge(&top.folder, &out).unwrap();
                let merged = Chain::open(&out).unwrap();
                assert!(merged.below().is_empty());
                for page in looked_at(&input.snapshots[..written.len()]) {
                    let expected = expected_byte(&chain, &input.snapshots, page);
                    let at = page * PAGE_SIZE;
                    assert_eq!(memory.read_obj::<u8>(GuestAddress(at)).unwrap(), expected, "page {page}");
                    let mut byte = [0];
                    merged.top().memory.read_exact_at(&mut byte, at).unwrap();
                    assert_eq!(byte, [expected], "page {page}, merged");
                }
                verify(&out).unwrap();
                fs::remove_dir_all(&out).unwrap();
            }
        }
    }
    assert!(contents(&root) == before, "reading changed a file");
    fs::remove_dir_all(&root).unwrap();
});
