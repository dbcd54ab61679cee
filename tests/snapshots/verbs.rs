//! `rvmm snapshot`: saving VMs by name, and looking at what was saved.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::names::Host;
use crate::support::kvm::require_kvm;
use crate::support::poll;

/// A VM called `web` in the background, whose guest sends back what is typed, and a folder for snapshots of it.
pub(super) struct Saved {
    pub(super) host: Host,
    folder: TempDir,
}

impl Saved {
    #[track_caller]
    pub(super) fn echo() -> Self {
        let host = Host::new();
        host.detach("serial-echo", "web");
        host.wait_for_output("web", "ready");
        Self { host, folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// `rvmm snapshot web DIR` with more options; what it prints.
    #[track_caller]
    pub(super) fn snapshot(&self, name: &str, options: &[&str]) -> String {
        let dir = self.text(name);
        let words = [&["snapshot", "web", &dir], options].concat();
        self.host.ask(words)
    }

    /// A snapshot in the folder `name`, of which there is no VM any more.
    #[track_caller]
    pub(super) fn stopped(name: &str) -> Self {
        let saved = Self::echo();
        saved.snapshot(name, &["--stop"]);
        saved
    }

    /// The guest of the VM `id` runs: it sends back what is typed.
    #[track_caller]
    pub(super) fn assert_echoes(&self, id: &str) {
        let mut console = self.host.verb(["console", id]).stdin(std::process::Stdio::piped()).launch();
        console.send("ping").wait_for("ping");
    }

    #[track_caller]
    fn state(&self) -> String {
        self.host.listed("web").unwrap()["state"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_vm_that_runs_goes_on_and_one_that_is_paused_stays_so() {
    require_kvm!();
    let saved = Saved::echo();
    let line = saved.snapshot("one", &[]);
    assert!(line.starts_with(&format!("{}: full, ", saved.text("one"))), "{line}");
    assert_eq!(line.lines().count(), 1);
    assert_eq!(saved.state(), "Running");
    saved.assert_echoes("web");
    saved.host.ask(["pause", "web"]);
    saved.snapshot("two", &[]);
    assert_eq!(saved.state(), "Paused");
    saved.snapshot("three", &["--resume"]);
    assert_eq!(saved.state(), "Running");
    saved.assert_echoes("web");
    for name in ["one", "two", "three"] {
        assert!(saved.path(name).join("manifest.json").exists(), "{name}");
    }
}

#[test]
fn what_was_written_is_told_as_json_too() {
    require_kvm!();
    let saved = Saved::echo();
    let report: serde_json::Value = serde_json::from_str(&saved.snapshot("one", &["--json"])).unwrap();
    assert_eq!((&report["path"], &report["kind"]), (&saved.text("one").into(), &"full".into()));
    let written = report["bytes_written"].as_u64().unwrap();
    assert!((4096..16 << 20).contains(&written), "a bare guest uses few pages: {report}");
}

#[test]
fn a_vm_that_is_to_stop_ends_when_it_is_saved_and_not_before() {
    require_kvm!();
    let saved = Saved::echo();
    saved.snapshot("one", &["--stop"]);
    assert!(poll(|| saved.host.names().is_empty()));
    // Of a paused one as well.
    let saved = Saved::echo();
    saved.host.ask(["pause", "web"]);
    saved.snapshot("one", &["--stop"]);
    assert!(poll(|| saved.host.names().is_empty()));
    // One that cannot be saved goes on.
    let saved = Saved::echo();
    std::fs::write(saved.path("one"), "").unwrap();
    saved.host.refused(["snapshot", "web", &saved.text("one"), "--stop"], &["cannot snapshot web", "one"]);
    assert_eq!(saved.state(), "Running");
    // And one whose name is only begun is not ended.
    saved.host.refused(["snapshot", "we", &saved.text("two"), "--stop"], &["write web"]);
}

#[test]
fn a_vm_that_is_called_as_a_command_is_saved_by_the_longer_form() {
    require_kvm!();
    let saved = Saved::echo();
    saved.host.detach("hlt-forever", "inspect");
    let dir = saved.text("one");
    saved.host.refused(["snapshot", "inspect", &dir], &["one", "rvmm snapshot create inspect"]);
    saved.host.ask(["snapshot", "create", "inspect", &dir]);
    assert!(saved.host.ask(["snapshot", "inspect", &dir]).contains("128.0 MiB"));
}

#[test]
fn a_snapshot_is_inspected_and_verified() {
    require_kvm!();
    let saved = Saved::stopped("one");
    let dir = saved.text("one");
    let table = saved.host.ask(["snapshot", "inspect", &dir]);
    for word in ["full", "serial-echo", "128.0 MiB"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let manifest = saved.host.json(["snapshot", "inspect", &dir, "--json"]);
    assert_eq!(manifest["vcpus"], 1);
    saved.host.ask(["snapshot", "verify", &dir]);
    let memory = std::fs::File::options().write(true).open(saved.path("one").join("memory")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&memory, b"changed", 5 << 20).unwrap();
    saved.host.refused(["snapshot", "verify", &dir], &["memory"]);
}

#[test]
fn a_diff_is_merged_with_what_it_is_on_top_of() {
    require_kvm!();
    let saved = Saved::echo();
    let host = &saved.host;
    host.guest("serial-echo", "tracked").args(["--detach", "--track-dirty-pages"]).run().assert_clean();
    host.wait_for_output("tracked", "ready");
    let [base, diff, out] = ["base", "diff", "out"].map(|name| saved.text(name));
    host.ask(["snapshot", "tracked", &base]);
    saved.assert_echoes("tracked");
    let line = host.ask(["snapshot", "tracked", &diff, "--diff", "--base", &base]);
    assert!(line.contains(": diff, "), "{line}");
    host.ask(["snapshot", "merge", &diff, &out]);
    host.ask(["kill", "tracked"]);
    std::fs::remove_dir_all(&base).unwrap();
    host.refused(["restore", &diff], &["base"]);
    host.refused(["snapshot", "verify", &diff], &["base"]);
    host.ask(["snapshot", "verify", &out]);
    host.ask(["restore", &out, "--detach", "--id", "merged"]);
    saved.assert_echoes("merged");
}
