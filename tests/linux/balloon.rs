//! Memory that the guest gives back, as the host sees it: what is resident in the process of rvmm.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Guest, require_linux_guests};
use crate::support::api::ApiSocket;
use crate::support::{Running, poll};

/// MiB of memory that the process has.
fn resident_mib(guest: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", guest.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// A guest's command that has `mib` MiB of its memory in use for a moment.
fn touch(mib: u32) -> String {
    format!("dd if=/dev/zero of=/fill/file bs=1M count={mib} 2>/dev/null; rm /fill/file")
}

const MOUNT: &str = "mkdir /fill; mount -t tmpfs -o size=90% tmpfs /fill";

/// Asks for a balloon of `mib` MiB and waits until the guest has it.
#[track_caller]
fn resize(socket: &ApiSocket, mib: u64) {
    socket.patch("/balloon", &json!({ "amount_mib": mib })).assert_done();
    let mut statistics = Value::Null;
    let reached = poll(|| {
        std::thread::sleep(Duration::from_millis(200));
        statistics = socket.get("/balloon/statistics").json();
        statistics["actual_mib"] == mib
    });
    assert!(reached, "{mib} MiB wanted: {statistics}");
    assert_eq!(statistics["target_pages"], mib * 256);
}

#[test]
fn memory_goes_to_the_host_with_the_balloon_and_comes_back() {
    require_linux_guests!();
    let touch = touch(144);
    // The driver is a module, so the guest can let the device go and take it up again.
    let command = format!(
        "{MOUNT}; {touch}; echo touched; read go; {touch}; echo again; read go; \
         rmmod virtio_balloon; insmod /modules/virtio_balloon.ko; echo reloaded; read go"
    );
    let socket = ApiSocket::new();
    let guest = Guest::debian("6_12").memory("256M").args(["--balloon", "stats=1", "--api-sock"]);
    let mut guest = guest.arg(socket.path()).running(&command).stdin(Stdio::piped()).launch();
    guest.wait_for("touched\r\n");
    let touched = resident_mib(&guest);
    resize(&socket, 120);
    assert_eq!(socket.get("/balloon").json()["amount_mib"], 120);
    let inflated = resident_mib(&guest);
    resize(&socket, 0);
    let deflated = resident_mib(&guest);
    guest.send("\n").wait_for("again\r\n");
    let again = resident_mib(&guest);
    let seen =
        format!("MiB resident: {touched}, inflated {inflated}, deflated {deflated}, used again {again}");
    eprintln!("{seen}");
    assert!(inflated + 40 < touched && deflated < inflated + 10 && inflated + 40 < again, "{seen}");

    let statistics = socket.get("/balloon/statistics").json();
    let bytes = |field: &str| statistics[field].as_u64().unwrap_or_else(|| panic!("{field}: {statistics}"));
    assert!((200 << 20..256 << 20).contains(&bytes("total_memory")), "{statistics}");
    assert!(bytes("free_memory") < bytes("total_memory") && bytes("minor_faults") > 0, "{statistics}");

    let refusal = socket.patch("/balloon", &json!({ "amount_mib": 257 }));
    refusal.assert_refused("257 MiB: the guest has 256 MiB");
    guest.send("\n").wait_for("reloaded\r\n");
    resize(&socket, 16);
    guest.send("\n").wait_for("rvmm-exit: 0");
    guest.end().assert_clean();
}

#[test]
fn memory_that_the_guest_frees_goes_to_the_host_when_it_is_reported() {
    require_linux_guests!();
    for (series, reporting) in [("6_12", true), ("6_1", true), ("6_12", false)] {
        let command = format!("{MOUNT}; {}; echo freed; read go", touch(112));
        let options = if reporting { "reporting" } else { "deflate-on-oom" };
        let guest = Guest::debian(series).memory("256M").arg("--balloon").arg(options);
        let mut guest = guest.running(&command).stdin(Stdio::piped()).launch();
        guest.wait_for("freed\r\n");
        let freed = resident_mib(&guest);
        let mut later = freed;
        if reporting {
            // Linux reports two seconds after something was freed.
            let fell = poll(|| {
                later = resident_mib(&guest);
                later + 50 < freed
            });
            assert!(fell, "{series}: {freed} MiB resident, later {later}");
        } else {
            std::thread::sleep(std::time::Duration::from_secs(5));
            later = resident_mib(&guest);
            assert!(later + 10 > freed, "{freed} MiB resident, later {later}");
        }
        eprintln!("{series}: resident MiB: {freed} when it was freed, {later} later; reporting: {reporting}");
        guest.send("\n").wait_for("rvmm-exit: 0");
        guest.end().assert_clean();
    }
}
