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
    let mut state = state();
    memory_file::write(partial.memory(), memory, &touched(memory).unwrap()).unwrap();
    partial.commit(&mut state)
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
    partial.commit(&mut state).unwrap();
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

/// Writes a diff on top of the snapshot of the files `base`, with the first page of `memory`.
fn write_diff(base: [&Path; 2], state_path: &Path, memory_path: &Path, memory: &GuestMemory) {
    let partial = PartialPair::begin(state_path, memory_path).unwrap();
    let pages = Pages::all(PAGE_SIZE);
    let mut state = state();
    state.base = Some(Folder::open_files(base[0], base[1]).unwrap().as_base().unwrap());
    state.memory.pages = Some(pages.numbers());
    memory_file::write(partial.memory(), memory, &pages).unwrap();
    partial.commit(&mut state).unwrap();
}

/// A full snapshot, `a`, of a guest with data all over, and a diff of it, `b`, with another first page.
fn full_and_diff() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let (outer, _) = place();
    let folder = outer.path().to_owned();
    let at = move |name: &str| folder.join(name);
    write(&at("a.state"), &at("a.mem"), &memory(&[(0, 1), (0x1000, 1), (3 << 20, 1)])).unwrap();
    write_diff([&at("a.state"), &at("a.mem")], &at("b.state"), &at("b.mem"), &memory(&[(0, 2)]));
    (outer, at)
}

fn open_chain(state: &Path, memory: &Path) -> Result<Vec<u8>, SnapshotError> {
    let chain = Chain::of(Folder::open_files(state, memory)?)?;
    let memory = memory::restore(MIB, &chain.source(), HugePages::None, false).unwrap();
    Ok([0, 0x1000, 3 << 20].map(|address| byte(&memory, address)).to_vec())
}

#[test]
fn the_memory_of_another_snapshot_is_refused_by_its_marker() {
    let (_outer, at) = full_and_diff();
    assert_eq!(open_chain(&at("b.state"), &at("b.mem")).unwrap(), [2, 1, 1]);
    write(&at("c.state"), &at("c.mem"), &memory(&[(0, 3)])).unwrap();
    for (state, memory, what) in [
        ("a.state", "b.mem", "has the pages of diff"),
        ("a.state", "c.mem", "is the memory of snapshot"),
        ("b.state", "a.mem", "is the memory of snapshot"),
    ] {
        let error = open_chain(&at(state), &at(memory)).unwrap_err().to_string();
        assert!(error.contains(memory) && error.contains(what), "{error}");
    }
}

#[test]
fn memory_to_which_a_tool_added_the_diff_needs_no_base() {
    use std::os::unix::fs::FileExt as _;
    let (_outer, at) = full_and_diff();
    // What `snapshot-editor edit-memory rebase` does.
    let mut page = [0; PAGE_SIZE as usize];
    fs::File::open(at("b.mem")).unwrap().read_exact_at(&mut page, 0).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::File::options().write(true).open(at("a.mem")).unwrap().write_all_at(&page, 0).unwrap();
    assert_eq!(open_chain(&at("b.state"), &at("a.mem")).unwrap(), [2, 1, 1]);
    // Elsewhere, without the base and without the marker.
    fs::remove_file(at("a.state")).unwrap();
    fs::create_dir(at("jail")).unwrap();
    assert!(
        Command::new("cp")
            .arg("--sparse=always")
            .arg(at("a.mem"))
            .arg(at("jail/mem"))
            .status()
            .unwrap()
            .success()
    );
    fs::remove_file(at("a.mem")).unwrap();
    assert_eq!(open_chain(&at("b.state"), &at("jail/mem")).unwrap(), [2, 1, 1]);
    // The pages of the diff alone are not all of memory.
    assert!(
        Command::new("cp")
            .arg("--sparse=always")
            .arg(at("b.mem"))
            .arg(at("jail/diff"))
            .status()
            .unwrap()
            .success()
    );
    let error = open_chain(&at("b.state"), &at("jail/diff")).unwrap_err();
    assert!(matches!(error, SnapshotError::NoBase { .. }), "{error}");
}

#[test]
fn one_memory_file_for_two_snapshots_of_a_chain_is_refused() {
    let (_outer, at) = full_and_diff();
    // `cp` without markers, so that nothing but the shared file gives it away.
    for name in ["a.mem", "b.mem"] {
        assert!(
            Command::new("cp")
                .arg("--sparse=always")
                .arg(at(name))
                .arg(at("copy"))
                .status()
                .unwrap()
                .success()
        );
        fs::rename(at("copy"), at(name)).unwrap();
    }
    fs::remove_file(at("a.mem")).unwrap();
    fs::hard_link(at("b.mem"), at("a.mem")).unwrap();
    let error = open_chain(&at("b.state"), &at("b.mem")).unwrap_err();
    assert!(matches!(error, SnapshotError::SharedMemory { .. }), "{error}");
}

#[test]
fn a_file_that_a_state_names_is_no_memory_of_its_base_unless_something_shows_it() {
    let (outer, at) = full_and_diff();
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, vec![7; (MIB as usize) << 20]).unwrap();
    write(&at("c.state"), &secret, &memory(&[(0, 9)])).unwrap();
    write_diff([&at("c.state"), &secret], &at("d.state"), &at("d.mem"), &memory(&[(0, 2)]));
    assert_eq!(open_chain(&at("d.state"), &at("d.mem")).unwrap(), [2, 0, 0]);
    // Now it is any file of the right size.
    fs::remove_file(&secret).unwrap();
    fs::write(&secret, vec![7; (MIB as usize) << 20]).unwrap();
    let error = open_chain(&at("d.state"), &at("d.mem")).unwrap_err().to_string();
    assert!(error.contains("nothing shows that it is the memory of"), "{error}");
    fs::rename(&secret, elsewhere.path().join("other")).unwrap();
    symlink(elsewhere.path().join("other"), &secret).unwrap();
    let error = open_chain(&at("d.state"), &at("d.mem")).unwrap_err().to_string();
    assert!(error.contains("is no regular file"), "{error}");
    drop(outer);
}
