//! Linux guests that go on in another process, from a snapshot.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::guest::COMPLAINTS;
use super::{Guest, Report, RootImage, require_linux_guests};
use crate::snapshots::{Asked, Snapshot};
use crate::support::{Running, Rvmm};

/// Writes to the disk for as long as the guest runs, checks what it has written, and counts.
const DISK_LOAD: &str = "(while :; do dd if=/dev/urandom of=/var/a bs=64k count=4 conv=fsync 2>/dev/null; \
    cp /var/a /var/b; sync; echo 3 >/proc/sys/vm/drop_caches; cmp /var/a /var/b || echo differs; \
    echo x >>/tmp/rounds; done) & load=$!";
/// Ends the load, once it has done a whole round after this.
const END_LOAD: &str = "n=$(wc -l </tmp/rounds); while [ $(wc -l </tmp/rounds) -lt $((n + 2)) ]; do sleep 0.1; done; \
    kill $load; wait $load 2>/dev/null; sync";

/// Pauses what runs, writes a snapshot, and ends the process.
#[track_caller]
fn take(mut asked: Asked) -> Snapshot {
    asked.pause();
    let snapshot = asked.snapshot(&json!({}));
    asked.running.signal(libc::SIGKILL);
    snapshot
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn a_guest_that_writes_to_its_disk_goes_on_without_a_loss() {
    require_linux_guests!();
    for cpus in [1, 2, 4] {
        let image = RootImage::new();
        let command = format!(
            "{DISK_LOAD}; echo loaded; read word; echo word $word; {END_LOAD}; \
             echo cpus $(nproc); echo forks $(dmesg | grep -c 'virtual machine [f]ork'); {COMPLAINTS}"
        );
        let guest = Guest::debian("6_12").cpus(cpus).root(&image, "").running(&command);
        let asked = Asked::launch(guest, "loaded\r\n");
        thread::sleep(Duration::from_secs(1));
        let snapshot = take(asked);
        let mut restored = snapshot.restore().stdin(Stdio::piped()).launch();
        restored.send("go\n");
        let report = Report::of(&restored.end());
        report
            .assert_line("word go")
            .assert_line(&format!("cpus {cpus}"))
            .assert_line("forks 1")
            .assert_no_complaints();
        assert!(!report.text().contains("differs"), "{}", report.text());
        image.assert_clean();
    }
}

#[test]
fn clocks_are_right_and_random_numbers_differ_in_two_vms_of_one_snapshot() {
    require_linux_guests!();
    // Of what busybox has, adjtimex alone tells parts of a second.
    let command = "echo loaded; while read word; do \
                   echo $word $(adjtimex | awk '/tv_sec|tv_usec/ {print $2}') \
                   $(head -c 16 /dev/urandom | md5sum | cut -c-32) end-$word; done; true";
    for kernel in ["small", "6_12"] {
        let guest = if kernel == "small" { Guest::small() } else { Guest::debian(kernel) };
        let guest = guest.shared_root().running(command).stdin(Stdio::piped());
        let mut asked = Asked::launch(guest, "loaded\r\n");
        // A guest may be off from its boot on.
        let before = clock(&mut asked.running).0;
        let snapshot = take(asked);
        thread::sleep(Duration::from_secs(3));
        let random = [(); 2].map(|()| {
            let mut restored = snapshot.restore().stdin(Stdio::piped()).launch();
            let (after, random) = clock(&mut restored);
            let near = after[0] < before[1] + 0.01 && after[1] > before[0] - 0.01;
            assert!(near, "{kernel}: the guest was ahead by {before:?} s, and is by {after:?}");
            restored.signal(libc::SIGTERM);
            random
        });
        assert_eq!(random[0].len(), 32, "{random:?}");
        assert_ne!(random[0], random[1]);
    }
}

/// By how many seconds the guest is ahead of the host, at least and at most, and a random number of it.
fn clock(guest: &mut Running) -> ([f64; 2], String) {
    let (mut ahead, mut random) = ([f64::MIN, f64::MAX], String::new());
    for round in 0..5 {
        let begin = now();
        guest.send(&format!("round{round}\n")).wait_for(&format!("end-round{round}"));
        let end = now();
        let text = guest.printed().replace('\r', "");
        let line = text.lines().find(|line| line.starts_with(&format!("round{round} "))).unwrap().to_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let [seconds, micros] = [1, 2].map(|at| words[at].parse::<f64>().unwrap());
        let guest = seconds + micros / 1e6;
        ahead = [ahead[0].max(guest - end), ahead[1].min(guest - begin)];
        if round == 0 {
            words[3].clone_into(&mut random);
        }
    }
    (ahead, random)
}

#[test]
fn a_guest_that_is_saved_early_in_its_boot_boots_on() {
    require_linux_guests!();
    for millis in [20, 150, 400, 1000] {
        let guest = Guest::debian("6_12").shared_root().running("echo booted; cat /proc/cmdline >/dev/null");
        let asked = Asked::launch(guest, "");
        thread::sleep(Duration::from_millis(millis));
        let snapshot = take(asked);
        let restored = snapshot.restore().launch();
        Report::of(&restored.end()).assert_line("booted");
    }
}

#[test]
fn twenty_snapshots_of_restored_guests_in_a_row() {
    require_linux_guests!();
    let image = RootImage::new();
    let command = format!("{DISK_LOAD}; echo loaded; read word; echo word $word; {END_LOAD}; {COMPLAINTS}");
    let guest = Guest::debian("6_12").cpus(2).root(&image, "").running(&command);
    let mut snapshot = take(Asked::launch(guest, "loaded\r\n"));
    for _ in 0..19 {
        let asked = Asked::launch(snapshot.restore(), "");
        thread::sleep(Duration::from_millis(300));
        snapshot = take(asked);
    }
    let mut restored = snapshot.restore().stdin(Stdio::piped()).launch();
    restored.send("go\n");
    let report = Report::of(&restored.end());
    report.assert_line("word go").assert_no_complaints();
    assert!(!report.text().contains("differs"), "{}", report.text());
    image.assert_clean();
}

#[test]
fn a_diff_of_a_diff_of_a_full_snapshot_is_all_of_memory() {
    require_linux_guests!();
    let command = format!("{DISK_LOAD}; echo loaded; read word; echo word $word; {END_LOAD}");
    let image = RootImage::new();
    let guest = Guest::debian("6_12").arg("--track-dirty-pages").cpus(2).root(&image, "").running(&command);
    let asked = Asked::launch(guest, "loaded\r\n");
    let full = asked.snapshot(&json!({"live": true}));
    thread::sleep(Duration::from_millis(500));
    let first = asked.snapshot(&json!({"live": true, "snapshot_type": "Diff", "base": full.path()}));
    thread::sleep(Duration::from_millis(500));
    asked.pause();
    let second = asked.snapshot(&json!({"snapshot_type": "Diff", "base": first.path()}));
    let all = asked.snapshot(&json!({}));
    let merged = Snapshot::default();
    Rvmm::new().args(["snapshot", "merge"]).arg(second.path()).arg(merged.path()).run().assert_clean();
    let same = Command::new("cmp")
        .arg(merged.path().join("memory"))
        .arg(all.path().join("memory"))
        .status()
        .unwrap();
    assert!(same.success(), "the merged memory differs from all of it");
    drop(asked);
    // Also by layers.
    let mut restored = second.restore().stdin(Stdio::piped()).launch();
    restored.send("go\n");
    Report::of(&restored.end()).assert_line("word go");
    image.assert_clean();
}

/// A network of the host with a tap, which stays while VMs come and go.
struct Network(Child);

impl Network {
    fn new() -> Self {
        let script = "ip link set lo up; ip tuntap add tap0 mode tap; ip address add 10.7.0.1/24 dev tap0; \
                      ip link set tap0 up; echo up; exec sleep 3600";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-ec", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
        Self(child)
    }

    /// `program` in this network.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string(), program]);
        command
    }

    fn rvmm(&self) -> Rvmm {
        Rvmm::within(self.command(env!("CARGO_BIN_EXE_rvmm")))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_tcp_connection_outlives_the_process_that_its_guest_ran_in() {
    require_linux_guests!();
    let network = Network::new();
    let folder = tempfile::tempdir().unwrap();
    let received = folder.path().join("received");
    let mut sink = network
        .command("socat")
        .args(["-u", "TCP-LISTEN:5000"])
        .arg(format!("CREATE:{}", received.display()))
        .spawn()
        .unwrap();
    // 24 MB, of which the sum is known when they are made.
    let command = "head -c 24000000 /dev/urandom >/tmp/data; echo sum $(md5sum </tmp/data); echo loaded; \
                   socat -u /tmp/data TCP:10.7.0.1:5000; echo sent $?; sleep 1";
    let guest = Guest::debian_from(network.rvmm(), "6_12")
        .tools_root()
        .memory("256M")
        .args(["--net", "tap=tap0,mac=02:00:00:00:00:07"])
        .parameter("rvmm.net=10.7.0.2/24")
        .running(command);
    let mut asked = Asked::launch(guest, "loaded\r\n");
    // In the middle of the transfer.
    while std::fs::metadata(&received).map_or(0, |file| file.len()) < 2_000_000 {
        thread::sleep(Duration::from_millis(20));
    }
    let text = asked.running.wait_for("loaded").printed();
    let snapshot = take(asked);
    assert!(std::fs::metadata(&received).unwrap().len() < 24_000_000, "the transfer was over");
    let restored = network.rvmm().arg("restore").arg(snapshot.path()).launch();
    Report::of(&restored.end()).assert_line("sent 0");
    assert!(sink.wait().unwrap().success());
    let sum = Command::new("md5sum").stdin(std::fs::File::open(&received).unwrap()).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let sum = sum.split(' ').next().unwrap();
    assert!(text.contains(&format!("sum {sum} -")), "{text} {sum}");
}
