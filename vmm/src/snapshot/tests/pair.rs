//! Snapshots of two files.

use super::*;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::process::Command;

pub(super) fn write(
    state_path: &Path,
    memory_path: &Path,
    memory: &GuestMemory,
) -> Result<(), SnapshotError> {
    let partial = PartialPair::begin(state_path, memory_path)?;
    let state = state();
    memory_file::write(partial.memory(), memory, &touched(memory).unwrap()).unwrap();
    partial.commit(&state)
}

fn first_byte(state: &Path, memory: &Path) -> u8 {
    let chain = Chain::of(Folder::open_files(state, memory).unwrap()).unwrap();
    byte(&memory::restore(MIB, &chain.source(), HugePages::None, false).unwrap(), 0)
}

#[test]
fn two_files_anywhere_replace_those_before() {
    let (outer, _) = place();
    fs::create_dir(outer.path().join("elsewhere")).unwrap();
    let (state, memory_path) = (outer.path().join("vm.state"), outer.path().join("elsewhere/vm.mem"));
    for content in [1, 2] {
        write(&state, &memory_path, &memory(&[(0, content)])).unwrap();
        assert_eq!(first_byte(&state, &memory_path), content);
        assert_eq!(fs::metadata(&memory_path).unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!(names(outer.path()), ["elsewhere", "vm.state"]);
    assert_eq!(names(&outer.path().join("elsewhere")), ["vm.mem"]);
}

#[test]
fn what_is_no_regular_file_is_not_replaced() {
    let (outer, _) = place();
    let at = |name: &str| outer.path().join(name);
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    for path in [at("fifo"), outer.path().to_owned(), PathBuf::from("/dev/null"), at("no/such")] {
        for error in [PartialPair::begin(&path, &at("memory")), PartialPair::begin(&at("state"), &path)] {
            let error = error.err().unwrap();
            assert!(matches!(error, SnapshotError::Place { .. }), "{error}");
        }
    }
    let both = PartialPair::begin(&at("one"), &at("one")).err().unwrap();
    assert!(matches!(both, SnapshotError::UnderWay { .. }), "{both}");
    assert_eq!(names(outer.path()), ["fifo"]);
}

#[test]
fn what_a_link_leads_to_is_replaced_and_the_link_stays() {
    let (outer, _) = place();
    let at = |name: &str| outer.path().join(name);
    fs::write(at("memory"), "x").unwrap();
    symlink(at("memory"), at("link")).unwrap();
    write(&at("state"), &at("link"), &memory(&[(0, 5)])).unwrap();
    assert_eq!(first_byte(&at("state"), &at("memory")), 5);
    assert_eq!(names(outer.path()), ["link", "memory", "state"]);
}

#[test]
fn a_diff_of_two_files_finds_its_base_of_two_files() {
    let (outer, _) = place();
    let at = |name: &str| outer.path().join(name);
    write(&at("a.state"), &at("a.mem"), &memory(&[(0, 1), (0x1000, 1)])).unwrap();
    let partial = PartialPair::begin(&at("b.state"), &at("b.mem")).unwrap();
    let pages = Pages::of(vec![0..PAGE_SIZE, 0..0]);
    let mut state = state();
    state.base = Some(Folder::open_files(&at("a.state"), &at("a.mem")).unwrap().as_base().unwrap());
    state.memory.pages = Some(pages.numbers());
    memory_file::write(partial.memory(), &memory(&[(0, 2)]), &pages).unwrap();
    partial.commit(&state).unwrap();
    let chain = Chain::of(Folder::open_files(&at("b.state"), &at("b.mem")).unwrap()).unwrap();
    let memory = memory::restore(MIB, &chain.source(), HugePages::None, false).unwrap();
    assert_eq!([0, 0x1000].map(|address| byte(&memory, address)), [2, 1]);
}

#[test]
fn one_that_is_given_up_leaves_what_was_there() {
    let (outer, _) = place();
    let (state, memory_path) = (outer.path().join("state"), outer.path().join("memory"));
    write(&state, &memory_path, &memory(&[(0, 1)])).unwrap();
    drop(PartialPair::begin(&state, &memory_path).unwrap());
    assert_eq!(first_byte(&state, &memory_path), 1);
    assert_eq!(names(outer.path()), ["memory", "state"]);
}
