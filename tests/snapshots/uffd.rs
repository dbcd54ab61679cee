//! Memory that another process gives, page by page: `rvmm serve-memory`, and what a VM does without it.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Asked, Snapshot};
use crate::support::kvm::require_kvm;
use crate::support::process::shrink_pipe;
use crate::support::{Running, Rvmm};

/// A snapshot of a guest that adds up 16 MiB when it is asked to, what it finds there, and a place for a socket.
pub(crate) struct Summed {
    snapshot: Snapshot,
    sum: String,
    folder: TempDir,
}

impl Summed {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let asked = Asked::guest("sum-on-demand", "\n");
        let snapshot = asked.snapshot(&json!({"live": true}));
        let sum = asked.running.printed();
        Self { snapshot, sum, folder: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("memory.sock")
    }

    /// The process that has the memory.
    pub(crate) fn serve(&self, options: &[&str]) -> Running {
        self.serve_to(options, Stdio::piped())
    }

    fn serve_to(&self, options: &[&str], stdout: Stdio) -> Running {
        let serve =
            Rvmm::new().arg("serve-memory").arg(self.snapshot.path()).arg("--socket").arg(self.socket());
        let serving = serve.args(["--json"]).args(options).stdout(stdout).launch();
        assert!(crate::support::poll(|| self.socket().exists()));
        serving
    }

    pub(crate) fn restored(&self) -> Rvmm {
        self.snapshot.restore().arg("--uffd").arg(self.socket()).stdin(Stdio::piped())
    }

    fn restore(&self) -> Running {
        self.restored().launch()
    }

    /// The guest adds up what it had before.
    #[track_caller]
    pub(crate) fn assert_sums(&self, running: &mut Running) {
        running.send("s").wait_for(&self.sum);
    }
}

/// What the process says of the VMs that it served.
fn reports(serving: Running) -> Vec<Value> {
    let ended = serving.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn guests_go_on_with_memory_that_another_process_gives() {
    require_kvm!();
    let summed = Summed::new();
    let serving = summed.serve(&["--once"]);
    let mut running = [summed.restore(), summed.restore()];
    for running in &mut running {
        summed.assert_sums(running);
    }
    for mut running in running {
        running.send("q");
        assert_eq!(running.end().code(), 0);
    }
    let reports = reports(serving);
    assert_eq!(reports.len(), 2);
    for report in reports {
        let bytes = report["asked_bytes"].as_u64().unwrap();
        let faults = report["faults"].as_u64().unwrap();
        assert!(bytes >= 16 << 20 && faults < 1000 && report.get("error").is_none(), "{report}");
    }
    assert!(!summed.socket().exists());
}

#[test]
fn what_one_vm_asked_for_is_sent_to_the_next_before_it_asks() {
    require_kvm!();
    let summed = Summed::new();
    let serve = |options: &[&str]| {
        let serving = summed.serve(options);
        let mut running = summed.restore();
        summed.assert_sums(&mut running);
        running.send("q");
        assert_eq!(running.end().code(), 0);
        reports(serving).remove(0)
    };
    let (recorded, sent) = (serve(&["--once", "--record"]), serve(&["--once"]));
    assert!(recorded["recorded"].as_u64().unwrap() > 250, "{recorded}");
    assert_eq!(recorded["ahead_bytes"], 0, "{recorded}");
    assert!(sent["ahead_bytes"].as_u64().unwrap() > 0, "{sent}");
    assert!(sent["faults"].as_u64().unwrap() < recorded["faults"].as_u64().unwrap(), "{sent} {recorded}");
}

#[test]
fn vms_are_served_although_nobody_reads_what_became_of_those_before() {
    require_kvm!();
    let summed = Summed::new();
    for reads_later in [false, true] {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        shrink_pipe(&writer);
        writer.write_all(&[b' '; 4096]).unwrap();
        let mut serving = summed.serve_to(&[], writer.into());
        for _ in 0..3 {
            let mut running = summed.restore();
            summed.assert_sums(&mut running);
            running.send("q");
            assert_eq!(running.end().code(), 0);
        }
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            if reads_later {
                reader.read_to_string(&mut text).unwrap();
            } else {
                let _ = ended.recv();
            }
            text
        });
        serving.signal(libc::SIGTERM);
        assert_eq!(serving.end().code(), 0);
        drop(end);
        assert_eq!(reading.join().unwrap().lines().count(), if reads_later { 3 } else { 0 });
    }
}

#[test]
fn a_vm_whose_memory_does_not_come_any_more_ends_with_a_message() {
    require_kvm!();
    let summed = Summed::new();
    // Once while the guest waits for nothing, and once while it touches what is not there.
    for touches in [false, true] {
        let mut serving = summed.serve(&[]);
        let Asked { mut running, socket } = Asked::launch(summed.restored(), "");
        assert_eq!(socket.get("/").json()["state"], "Running");
        if !touches {
            summed.assert_sums(&mut running);
        }
        // Stopped, so that what is asked for before it is killed stays unanswered.
        serving.signal(libc::SIGSTOP);
        if touches {
            running.send("s");
        }
        serving.signal(libc::SIGKILL);
        let ended = running.end();
        assert_eq!(ended.code(), 1);
        assert!(ended.stderr.contains("the process that served the guest's memory"), "{}", ended.stderr);
        serving.end();
        std::fs::remove_file(summed.socket()).unwrap();
    }
}

#[test]
fn a_vm_is_refused_when_nobody_has_its_memory() {
    require_kvm!();
    let summed = Summed::new();
    let ended = summed.restore().end();
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("start that process first"), "{}", ended.stderr);
    let ended = Rvmm::new().arg("serve-memory").arg("/nowhere").arg("--socket").arg(summed.socket()).run();
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("/nowhere"), "{}", ended.stderr);
}

#[test]
fn memory_can_be_that_of_a_diff_and_those_below_it() {
    require_kvm!();
    let mut summed = Summed::new();
    let restore = summed.snapshot.restore().arg("--track-dirty-pages").stdin(Stdio::piped());
    let mut asked = Asked::launch(restore, "");
    summed.assert_sums(&mut asked.running);
    let diff = asked.snapshot(&json!({"live": true, "snapshot_type": "Diff"}));
    drop(asked);
    let _base = std::mem::replace(&mut summed.snapshot, diff);
    let serving = summed.serve(&["--once"]);
    let mut running = summed.restore();
    summed.assert_sums(&mut running);
    running.send("q");
    assert_eq!(running.end().code(), 0);
    assert_eq!(reports(serving).len(), 1);
}
