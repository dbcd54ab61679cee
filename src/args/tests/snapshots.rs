//! `snapshot`, `restore` and `clone`.

use super::*;

fn verb_of(words: &[&str]) -> Verb {
    match parse(&argv(words)) {
        Ok(Invocation::Verb(verb)) => verb,
        other => panic!("{words:?} is not a verb: {other:?}"),
    }
}

fn restore_of(words: &[&str]) -> RestoreArgs {
    match verb_of(&[&["restore"], words].concat()) {
        Verb::Restore(restore) => *restore,
        other => panic!("{words:?} is not a restore: {other:?}"),
    }
}

fn snapshot_of(words: &[&str]) -> SnapshotArgs {
    match verb_of(&[&["snapshot"], words].concat()) {
        Verb::Snapshot(snapshot) => snapshot,
        other => panic!("{words:?} is not a snapshot: {other:?}"),
    }
}

#[test]
fn a_folder_is_enough_for_a_restore_and_its_guest_goes_on() {
    let restore = restore_of(&["web.snap"]);
    let expected = LoadSnapshot::resumed("web.snap".as_ref());
    assert_eq!(restore.load(), expected);
    assert_eq!((restore.id, restore.console), (None, ConsoleEnd::Stdio));
}

#[test]
fn every_option_of_a_restore_is_understood() {
    let restore = restore_of(&[
        "--id=web-2",
        "--detach",
        "--paused",
        "--keep-clock",
        "--track-dirty-pages",
        "--prefault",
        "--disk=id=rootfs,path=copy",
        "--disk",
        "id=data,path=other",
        "--accept-changed-disks",
        "--net=id=net0,tap=tap1",
        "--vsock=uds=v",
        "--console=file=log",
        "--api-sock=s",
        "--metrics-path=m",
        "--metadata=j",
        "--log-level=info",
        "--log-file=l",
        "--on-reset=restart",
        "dir",
    ]);
    let load = restore.load();
    assert!(!load.resume_vm && load.track_dirty_pages && load.prefault && load.accept_changed_drives);
    assert_eq!(load.clock_realtime, Some(false));
    assert_eq!((load.drive_overrides.len(), load.network_overrides.len()), (2, 1));
    assert_eq!(load.vsock_override.unwrap().uds_path, Some("v".into()));
    assert_eq!(load.snapshot_path, PathBuf::from("dir"));
    assert!(restore.control.detach && restore.control.api_sock.is_some());
    let backend = restore_of(&["--uffd", "u.sock", "d"]).load().mem_backend.unwrap();
    assert_eq!((backend.backend_type, backend.backend_path), (MemBackendType::Uffd, "u.sock".into()));
}

#[test]
fn a_snapshot_is_of_a_vm_or_something_is_done_with_one() {
    let SnapshotArgs { verb: None, create } = snapshot_of(&["web", "d", "--diff", "--base", "b", "--stop"])
    else {
        panic!("a command");
    };
    assert_eq!(
        (create.id.as_deref(), create.dir, create.base),
        (Some("web"), Some("d".into()), Some("b".into()))
    );
    assert!(create.diff && create.stop && !create.resume);
    let SnapshotArgs { verb: Some(SnapshotVerb::Create(create)), .. } =
        snapshot_of(&["create", "inspect", "d"])
    else {
        panic!("not a snapshot of a VM");
    };
    assert_eq!(create.id.as_deref(), Some("inspect"));
    assert!(matches!(snapshot_of(&["inspect", "d", "--json"]).verb, Some(SnapshotVerb::Inspect(_))));
    assert!(matches!(snapshot_of(&["verify", "d"]).verb, Some(SnapshotVerb::Verify(_))));
    assert!(matches!(snapshot_of(&["merge", "d", "o"]).verb, Some(SnapshotVerb::Merge(_))));
    // Where a folder belongs, a command is a folder.
    assert_eq!(snapshot_of(&["web", "verify"]).create.dir, Some("verify".into()));
}

#[test]
fn a_slash_at_the_end_of_a_folder_does_not_count() {
    assert_eq!(restore_of(&["a/b//"]).dir.as_os_str(), "a/b");
    assert_eq!(restore_of(&["/"]).dir.as_os_str(), "/");
    assert_eq!(snapshot_of(&["web", "./d/"]).create.dir.unwrap().as_os_str(), "./d");
}

#[test]
fn clones_are_counted_and_take_more_options_of_a_restore() {
    let Verb::Clone(clone) = verb_of(&["clone", "d", "-n", "3", "--net", "id=a,tap=t{i}", "--", "--no-api"])
    else {
        panic!("not a clone");
    };
    assert_eq!((clone.count, clone.restore), (3, vec!["--no-api".into()]));
    assert_eq!(clone.nets, ["id=a,tap=t{i}"]);
}

#[test]
fn a_mistake_is_told_in_one_line() {
    for (words, finding) in [
        (&["restore"][..], "<DIR>"),
        (&["restore", "d", "e"], "unexpected argument 'e'"),
        (&["restore", "d", "--disk", "id=a"], "nothing is said of a"),
        (&["restore", "d", "--disk", "id=a,path=b", "--disk", "id=a,path=c"], "--disk id=a is given twice"),
        (&["restore", "d", "--console", "virtio"], "is in the snapshot"),
        (&["restore", "d", "--kernel", "k"], "unexpected argument '--kernel'"),
        (&["restore", "d", "--uffd", "u", "--prefault"], "cannot be used with"),
        (&["restore", "d", "--id", ""], "a name cannot be empty"),
        (&["snapshot"], "<DIR>"),
        (&["snapshot", "web"], "<DIR>"),
        (&["snapshot", "inspect"], "<DIR>"),
        (&["snapshot", "web", "d", "--base", "b"], "--diff"),
        (&["snapshot", "web", "d", "--stop", "--resume"], "cannot be used with"),
        (&["snapshot", "merge", "d"], "<OUT>"),
        (&["clone", "d"], "--count"),
        (&["clone", "d", "-n", "0"], "0 is not in 1.."),
    ] {
        let message = usage_of(words);
        assert!(message.contains(finding), "{words:?}: {message}");
        assert!(message.ends_with("(see rvmm --help)") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn pages_are_tracked_when_a_run_is_told_so() {
    assert!(run_of(&["--kernel", "k", "--track-dirty-pages"]).track_dirty_pages);
}
