//! Verifying, inspecting and merging.

use super::*;
use serde_json::json;
use std::os::unix::fs::FileExt as _;
use vm_memory::GuestMemoryBackend as _;

/// A full snapshot, and two diffs one on top of the other; the folder of the upper.
fn chain() -> (TempDir, PathBuf) {
    let (outer, dir) = quick_place();
    let [one, two] = ["one", "two"].map(|name| outer.path().join(name));
    full(&dir, &memory(&[(0x1000, 1), (0x2000, 1), (0x3000, 1), (0x30_0000, 1)]));
    diff(&one, &dir, &memory(&[(0x2000, 2), (0x3000, 2)]), &[0x2000, 0x3000, 0x30_0000]);
    diff(&two, &one, &memory(&[(0x3000, 3), (0x5000, 3)]), &[0x3000, 0x4000, 0x5000]);
    (outer, two)
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn what_is_as_it_was_written_is_verified_down_to_the_base() {
    let (outer, dir) = chain();
    let verified = verify(&dir).unwrap();
    let found: Vec<_> = verified.iter().map(|one| (one.path.clone(), one.memory.unwrap())).collect();
    let at = |name: &str| outer.path().join(name);
    let page = PAGE_SIZE;
    assert_eq!(found, [(dir, 2 * page), (at("one"), 2 * page), (at("snapshot"), 4 * page)]);
}

#[test]
fn a_flipped_bit_anywhere_in_the_chain_is_found_and_its_file_named() {
    for (file, offset) in [
        ("two/memory", 0x3000),
        ("two/memory", 0),
        ("one/memory", 0x2abc),
        ("snapshot/memory", 0x1000),
        ("snapshot/memory", (MIB << 20) - 1),
        ("two/state", 60),
        ("one/state", 3),
        ("snapshot/state", 100),
    ] {
        let (outer, dir) = chain();
        let path = outer.path().join(file);
        flip(&path, offset);
        let error = verify(&dir).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{file} at {offset}: {error}");
    }
}

#[test]
fn a_manifest_that_is_gone_or_of_another_snapshot_is_no_proof() {
    let (outer, dir) = chain();
    let manifest = dir.join("manifest.json");
    fs::copy(outer.path().join("one/manifest.json"), &manifest).unwrap();
    assert!(verify(&dir).unwrap_err().to_string().contains("another snapshot"));
    fs::write(&manifest, "{}").unwrap();
    assert!(verify(&dir).unwrap_err().to_string().contains("manifest.json: missing field"));
    fs::remove_file(&manifest).unwrap();
    assert!(verify(&dir).unwrap_err().to_string().contains("manifest.json"));
    // Restoring does not need it.
    assert_eq!(byte(&restored(&dir), 0x5000), 3);
}

#[test]
fn people_may_add_keys_to_the_manifest() {
    let (_outer, dir) = chain();
    let manifest = dir.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap().replacen('{', "{\"note\": \"golden image\",", 1);
    fs::write(&manifest, text).unwrap();
    assert_eq!(verify(&dir).unwrap().len(), 3);
}

#[test]
fn a_merged_snapshot_has_the_memory_of_the_chain_and_needs_no_other() {
    let (outer, dir) = chain();
    let before = restored(&dir);
    let alone = tempfile::tempdir().unwrap();
    let out = alone.path().join("merged");
    let manifest = merge(&dir, &out).unwrap();
    drop(outer);
    let after = restored(&out);
    let bytes = |memory: &GuestMemory| {
        let mut bytes = vec![0; (MIB << 20) as usize];
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    };
    assert_eq!(before.iter().count(), after.iter().count());
    assert!(bytes(&before) == bytes(&after));
    assert_eq!([0x1000, 0x2000, 0x3000, 0x5000, 0x30_0000].map(|at| byte(&after, at)), [1, 2, 3, 3, 0]);
    assert_eq!((manifest.memory.in_use, manifest.memory.changed, manifest.base), (4 * PAGE_SIZE, None, None));
    assert_eq!(verify(&out).unwrap().len(), 1);
    assert_eq!(names(alone.path()), ["merged"]);
}

#[test]
fn a_merged_snapshot_is_of_the_same_moment_with_an_id_of_its_own() {
    let (outer, dir) = chain();
    let out = outer.path().join("merged");
    merge(&dir, &out).unwrap();
    let [top, merged] = [&dir, &out].map(|dir| Folder::open(dir).unwrap().state);
    assert_eq!((top.created, &top.sections, &top.config), (merged.created, &merged.sections, &merged.config));
    assert_ne!(top.id, merged.id);
    assert!(matches!(merge(&dir, &out), Err(SnapshotError::Occupied { .. })));
}

#[test]
fn inspecting_tells_of_the_guest_the_files_and_what_is_below() {
    let (outer, dir) = chain();
    let found = inspect(&dir).unwrap();
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["kernel"], "/boot/vmlinux");
    assert_eq!(json["memory"]["changed"], 3 * PAGE_SIZE);
    assert_eq!(json["sections"][0]["name"], "vcpus");
    let below = ["one", "snapshot"].map(|name| json!({"path": outer.path().join(name)}));
    assert_eq!(json["on_top_of"], json!(below));
    assert_eq!(found.problem, None);
    assert!(found.memory_on_disk < 1 << 20, "{}", found.memory_on_disk);
    fs::remove_dir_all(outer.path().join("snapshot")).unwrap();
    let found = inspect(&dir).unwrap();
    assert!(found.problem.unwrap().contains("snapshot, which is not there"));
}

#[test]
fn inspecting_names_the_memory_of_a_base_of_two_files() {
    let (outer, dir) = place();
    let [state, memory_path] = ["a.state", "a.mem"].map(|name| outer.path().join(name));
    pair::write(&state, &memory_path, &memory(&[])).unwrap();
    diff_on(&dir, &Folder::open_files(&state, &memory_path).unwrap(), &memory(&[]), &[0]);
    let below = json!([{"path": state, "memory": memory_path}]);
    let on_top_of = || serde_json::to_value(inspect(&dir).unwrap()).unwrap()["on_top_of"].clone();
    assert_eq!(on_top_of(), below);
    fs::remove_file(&memory_path).unwrap();
    assert_eq!(on_top_of(), below, "where it was");
}
