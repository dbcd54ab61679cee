//! What is written comes back, or nothing is there.

use super::*;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;

#[test]
fn a_snapshot_is_one_folder_with_three_private_files() {
    let (outer, dir) = place();
    let manifest = full(&dir, &memory(&[(0x1000, 7), (3 << 20, 9)]));
    assert_eq!(names(outer.path()), ["snapshot"]);
    assert_eq!(names(&dir), ["manifest.json", "memory", "state"]);
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    for name in names(&dir) {
        assert_eq!(fs::metadata(dir.join(&name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(manifest.memory.in_use, 2 * PAGE_SIZE);
    let memory = fs::metadata(dir.join("memory")).unwrap();
    assert_eq!(memory.len(), MIB << 20);
    assert!(memory.blocks() * 512 < 1 << 20, "zeroes take {} bytes", memory.blocks() * 512);
    let written: Manifest = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(written, manifest);
    assert_eq!(written.kernel.as_deref(), Some("/boot/vmlinux"));
    assert_eq!(written.devices[0].host.as_deref(), Some("/images/a.img"));
}

#[test]
fn what_was_written_comes_back() {
    let (_outer, dir) = place();
    full(&dir, &memory(&[(0x1000, 7), (0x2fff, 8), ((MIB << 20) - 1, 9)]));
    let memory = restored(&dir);
    let bytes = [0, 0x1000, 0x2fff, 0x3000, (MIB << 20) - 1].map(|address| byte(&memory, address));
    assert_eq!(bytes, [0, 7, 8, 0, 9]);
    let folder = Folder::open(&dir).unwrap();
    assert_eq!(folder.config, config());
    assert_eq!(folder.state.section::<Vec<u32>>("vcpus", 1), Ok(vec![1, 2, 3]));
}

#[test]
fn a_diff_of_a_diff_of_a_full_snapshot_has_the_last_of_each_page() {
    let (outer, dir) = place();
    let [one, two] = ["one", "two"].map(|name| outer.path().join(name));
    full(&dir, &memory(&[(0x1000, 1), (0x2000, 1), (0x3000, 1)]));
    diff(&one, &dir, &memory(&[(0x2000, 2), (0x3000, 2)]), &[0x2000, 0x3000]);
    let manifest = diff(&two, &one, &memory(&[(0x5000, 3)]), &[0x3000, 0x5000]);
    let memory = restored(&two);
    let pages = [0x1000, 0x2000, 0x3000, 0x4000, 0x5000].map(|address| byte(&memory, address));
    assert_eq!(pages, [1, 2, 0, 0, 3]);
    assert_eq!(manifest.memory.changed, Some(2 * PAGE_SIZE));
    assert_eq!(manifest.base.unwrap().path, one.display().to_string());
}

#[test]
fn an_empty_folder_is_taken_and_one_with_anything_in_it_is_not() {
    let (outer, dir) = place();
    fs::create_dir(&dir).unwrap();
    let link = outer.path().join("link");
    symlink(&dir, &link).unwrap();
    full(&link, &memory(&[]));
    assert_eq!(names(&dir).len(), 3);
    let error = Partial::begin(&dir).err().unwrap().to_string();
    assert!(error.contains("snapshot is not empty") && error.contains("name a folder"), "{error}");
    assert_eq!(names(outer.path()), ["link", "snapshot"]);
}

#[test]
fn a_place_that_cannot_be_is_refused_with_the_reason() {
    let (outer, dir) = place();
    fs::write(&dir, "").unwrap();
    let link = outer.path().join("link");
    symlink("/nowhere/at/all", &link).unwrap();
    for (path, why) in [
        (dir.as_path(), "no folder"),
        (&outer.path().join("no/such"), "not there"),
        (&link, "leads nowhere"),
        (Path::new("/proc/snapshot"), "make the folder"),
    ] {
        let error = Partial::begin(path).err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(names(outer.path()), ["link", "snapshot"]);
}

#[test]
fn what_comes_to_the_place_meanwhile_stays() {
    let (outer, dir) = place();
    let partial = Partial::begin(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("mine"), "x").unwrap();
    memory_file::write(partial.memory(), &memory(&[]), &Pages::default()).unwrap();
    let error = partial.commit(&mut state(), &config(), manifest::Cpu::default()).unwrap_err();
    assert!(matches!(error, SnapshotError::Occupied { .. }), "{error}");
    assert_eq!((names(outer.path()), names(&dir)), (vec!["snapshot".to_owned()], vec!["mine".to_owned()]));
}

#[test]
fn one_that_is_given_up_leaves_nothing() {
    let (outer, dir) = place();
    drop(Partial::begin(&dir).unwrap());
    assert_eq!(names(outer.path()), [""; 0]);
}

#[test]
fn two_to_the_same_place_at_once_are_told_apart() {
    let (_outer, dir) = place();
    let first = Partial::begin(&dir).unwrap();
    let error = Partial::begin(&dir).err().unwrap();
    assert!(matches!(error, SnapshotError::UnderWay { .. }), "{error}");
    drop(first);
    full(&dir, &memory(&[]));
}

#[test]
fn a_fifo_in_place_of_a_file_is_not_waited_for() {
    for name in ["state", "memory"] {
        let (_outer, dir) = place();
        full(&dir, &memory(&[]));
        fs::remove_file(dir.join(name)).unwrap();
        assert!(Command::new("mkfifo").arg(dir.join(name)).status().unwrap().success());
        let error = Folder::open(&dir).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("no regular file"), "{error}");
    }
}

#[test]
fn a_memory_file_of_another_length_is_refused() {
    let (_outer, dir) = place();
    full(&dir, &memory(&[]));
    let file = fs::File::options().write(true).open(dir.join("memory")).unwrap();
    for len in [0, (MIB << 20) - 1, (MIB << 20) + 1] {
        file.set_len(len).unwrap();
        let error = Folder::open(&dir).unwrap_err().to_string();
        assert!(error.contains(&format!("has {len} bytes instead of {}", MIB << 20)), "{error}");
    }
}

#[test]
fn a_diff_without_its_base_says_which_one_it_wants() {
    let (outer, dir) = place();
    let [upper, away] = ["upper", "away"].map(|name| outer.path().join(name));
    full(&dir, &memory(&[]));
    diff(&upper, &dir, &memory(&[]), &[0]);
    fs::rename(&dir, &away).unwrap();
    let error = Chain::open(&upper).unwrap_err();
    assert!(matches!(&error, SnapshotError::NoBase { base, .. } if *base == dir), "{error}");
    full(&dir, &memory(&[]));
    let error = Chain::open(&upper).unwrap_err();
    assert!(matches!(&error, SnapshotError::OtherBase { base, .. } if *base == dir), "{error}");
    // Both moved together are found beside one another.
    let moved = outer.path().join("moved");
    fs::create_dir(&moved).unwrap();
    fs::rename(&away, moved.join("snapshot")).unwrap();
    fs::rename(&upper, moved.join("upper")).unwrap();
    assert_eq!(Chain::open(&moved.join("upper")).unwrap().below().len(), 1);
}

#[test]
fn more_diffs_than_are_followed_are_refused_with_the_mend() {
    let (outer, dir) = quick_place();
    full(&dir, &memory(&[]));
    let mut below = dir;
    for depth in 1..=MAX_DEPTH + 1 {
        let dir = outer.path().join(depth.to_string());
        diff(&dir, &below, &memory(&[]), &[]);
        let opened = Chain::open(&dir);
        assert_eq!(opened.is_ok(), depth <= MAX_DEPTH, "{depth}");
        if let Err(error) = opened {
            assert!(error.to_string().contains("rvmm snapshot merge"), "{error}");
        }
        below = dir;
    }
}

/// A diff that an rvmm with format 1 wrote.
#[test]
fn a_state_of_format_1_is_what_it_was() {
    let file = seal::seal_as(1, 62, include_bytes!("state-1")).0;
    let (state, config, _) = StateV2::decode(&file).unwrap();
    assert_eq!(config.machine_config.mem_size_mib, 4);
    assert_eq!(state.rvmm_version, "0.1.0");
    assert_eq!(state.memory.pages, Some(vec![(0, 1), (4, 8), (1000, 24)]));
    let base = state.base.as_ref().unwrap();
    assert_eq!((base.id, base.seal, base.path.as_slice()), ([1; 16], [2; 32], &b"base"[..]));
    assert_eq!((base.absolute(), base.memory()), (Path::new("/base"), Some(Path::new("/memory"))));
    let disk = DiskV2 {
        drive_id: "root".into(),
        size: 1 << 20,
        modified: 5,
        is_read_only: false,
        device: 1,
        inode: 2,
        included: None,
    };
    assert_eq!(state.disks, [disk]);
    assert_eq!(state.section::<Vec<u32>>("vcpus", 1), Ok(vec![1, 2, 3]));
    assert_eq!(state.section::<Vec<(u8, String)>>("names", 1), Ok(vec![(1, "one".to_owned())]));
    assert!(!state.memory.is_marked && state.sections.iter().all(|section| section.is_required));
    // The same body is no state of format 2, and what is written is of format 2.
    assert!(StateV2::decode(&seal::seal(include_bytes!("state-1")).0).is_err());
    let (written, seal) = state.encode().unwrap();
    assert_eq!(StateV2::decode(&written).unwrap(), (state, config, seal));
}

/// Replaces the state in `dir` by what an rvmm with format 1 would have written, whose memory files have no marker.
fn make_format_1(dir: &Path) {
    let state = Folder::open(dir).unwrap().state;
    fs::write(dir.join("state"), super::state::v1::StateV1::file_of(&state)).unwrap();
    rustix::fs::removexattr(dir.join("memory"), "user.rvmm.memory").unwrap();
}

#[test]
fn snapshots_of_format_1_restore_and_are_a_base_for_diffs() {
    let (outer, dir) = place();
    full(&dir, &memory(&[(0, 1), (0x1000, 1), (0x2000, 1)]));
    make_format_1(&dir);
    assert_eq!([0, 0x1000].map(|address| byte(&restored(&dir), address)), [1, 1]);
    let older = outer.path().join("older");
    diff(&older, &dir, &memory(&[(0, 2)]), &[0]);
    make_format_1(&older);
    let newer = outer.path().join("newer");
    diff(&newer, &older, &memory(&[(0x1000, 3)]), &[0x1000]);
    let memory = restored(&newer);
    assert_eq!([0, 0x1000, 0x2000].map(|address| byte(&memory, address)), [2, 3, 1]);
    let merged = outer.path().join("merged");
    merge(&newer, &merged).unwrap();
    assert_eq!([0, 0x1000, 0x2000].map(|address| byte(&restored(&merged), address)), [2, 3, 1]);
}
