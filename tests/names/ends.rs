//! How VMs are ended by name, and what is left of those that were killed.

use std::process::Command;

use super::Host;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, poll, process};

#[test]
fn a_guest_that_hears_ctrl_alt_del_ends_by_itself() {
    require_kvm!();
    let host = Host::new();
    let running = host.running("ctrl-alt-del", "ready\n");
    assert_eq!(host.verb(["stop", "web"]).run().code(), 0);
    let ended = running.end();
    ended.assert_complaint(&["the guest reset itself"]).assert_stdout("ready\na key\n");
    assert_eq!(ended.code(), 0);
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn a_paused_guest_is_woken_to_end_by_itself() {
    require_kvm!();
    let host = Host::new();
    let running = host.running("ctrl-alt-del", "ready\n");
    host.ask(["pause", "web"]);
    assert_eq!(host.verb(["stop", "web"]).run().code(), 0);
    let ended = running.end();
    ended.assert_complaint(&["the guest reset itself"]);
    assert_eq!(ended.code(), 0);
}

#[test]
fn a_guest_that_hears_nothing_is_ended_by_a_signal() {
    require_kvm!();
    let host = Host::new();
    let running = host.running("spin-forever", "spinning");
    assert_eq!(host.verb(["stop", "web"]).run().code(), 3);
    assert_eq!(running.end().code(), 128 + libc::SIGTERM);
}

#[test]
fn a_vm_that_hears_no_signal_is_killed_and_cleared() {
    require_kvm!();
    let host = Host::new();
    host.detach("spin-forever", "web");
    host.ask(["kill", "--signal", "STOP", "web"]);
    assert_eq!(host.listed("web").unwrap()["state"], "Silent");
    assert_eq!(host.verb(["stop", "--timeout", "0.1", "web"]).run().code(), 4);
    assert_eq!(host.names(), [""; 0]);
    assert!(!host.folder("web").exists());
}

#[test]
fn a_vm_is_killed_by_name_and_nothing_is_left() {
    require_kvm!();
    let host = Host::new();
    host.detach("spin-forever", "web");
    host.ask(["kill", "web"]);
    assert!(!host.folder("web").exists());
    host.detach("spin-forever", "web");
    host.ask(["kill", "web", "--signal", "SIGTERM"]);
    assert!(poll(|| !host.folder("web").exists()));
}

#[test]
fn what_a_killed_vm_left_behind_is_shown_as_dead_and_removed() {
    require_kvm!();
    let host = Host::new();
    for id in ["one", "two", "three"] {
        let running = host.guest("spin-forever", id).launch();
        host.wait_for_state(id, "Running");
        process::kill(running.pid(), libc::SIGKILL);
        running.end();
        host.wait_for_state(id, "Dead");
    }
    host.detach("spin-forever", "alive");
    for verb in ["pause", "resume", "stop", "kill", "console", "logs", "metrics", "config", "events"] {
        host.refused([verb, "one"], &["it is dead", "rvmm rm one"]);
    }
    assert_eq!(host.json(["inspect", "one"])["state"], "Dead");
    host.refused(["rm", "alive"], &["it is running", "rvmm stop alive"]);
    host.ask(["rm", "one"]);
    assert_eq!(host.names(), ["alive", "three", "two"]);
    host.refused(["rm", "two", "alive", "nobody"], &["alive", "nobody"]);
    host.ask(["rm", "--all-dead"]);
    assert_eq!(host.names(), ["alive"]);
    host.refused(["rm", ""], &["no VM is called"]);
}

#[test]
fn a_name_that_a_killed_vm_left_behind_can_be_taken_again() {
    require_kvm!();
    let host = Host::new();
    let running = host.guest("spin-forever", "web").launch();
    host.wait_for_state("web", "Running");
    process::kill(running.pid(), libc::SIGKILL);
    running.end();
    host.detach("spin-forever", "web");
    host.wait_for_state("web", "Running");
}

#[test]
fn a_list_that_is_asked_for_all_the_time_keeps_no_vm_from_its_name() {
    require_kvm!();
    let host = Host::new();
    let running = host.guest("spin-forever", "web").launch();
    host.wait_for_state("web", "Running");
    process::kill(running.pid(), libc::SIGKILL);
    running.end();
    std::thread::scope(|scope| {
        let lists: Vec<_> =
            (0..2).map(|_| scope.spawn(|| (0..30).for_each(|_| drop(host.names())))).collect();
        while lists.iter().any(|list| !list.is_finished()) {
            host.guest("hello", "web").run().assert_clean();
        }
    });
}

#[test]
fn files_in_the_runtime_folder_that_are_no_vms_are_left_alone() {
    require_kvm!();
    let host = Host::new();
    host.of(Rvmm::guest("hello")).run().assert_clean();
    let folder = host.folder("a file");
    std::fs::write(&folder, "").unwrap();
    std::fs::create_dir(host.folder("no name!")).unwrap();
    assert_eq!(host.names(), [""; 0]);
    host.ask(["rm", "--all-dead"]);
    assert!(folder.exists() && host.folder("no name!").exists());
}

#[test]
fn a_number_that_is_not_the_vm_s_reaches_no_other_process() {
    require_kvm!();
    let host = Host::new();
    for (text, verb) in [("bystander", "kill"), ("0\n", "kill"), ("", "stop"), ("no number", "kill")] {
        host.detach("spin-forever", "web");
        let pid = host.listed("web").unwrap()["pid"].clone();
        let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
        let text = text.replace("bystander", &bystander.id().to_string());
        std::fs::write(host.folder("web").join("pid"), text).unwrap();
        let listed = host.listed("web").unwrap();
        assert!(listed["pid"] == pid || listed["pid"].is_null(), "{listed}");
        let ended = host.verb([verb, "web"]).run();
        let spared = bystander.try_wait().unwrap().is_none();
        let _ = bystander.kill();
        let _ = bystander.wait();
        assert!(spared, "{ended:#?}");
        if listed["pid"].is_null() {
            // The folder's file system does not tell who it is.
            ended.assert_refused(1, &["cannot", "lock", "web/pid"]);
            process::kill(u32::try_from(pid.as_u64().unwrap()).unwrap(), libc::SIGKILL);
        }
        assert!(poll(|| host.listed("web").is_none_or(|vm| vm["state"] == "Dead")));
    }
}

#[test]
fn of_a_name_that_was_made_up_the_beginning_is_enough_to_end_it() {
    require_kvm!();
    let host = Host::new();
    let started = host.of(Rvmm::guest("spin-forever")).arg("-d").run();
    host.ask(["kill", &started.stdout[..6]]);
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn what_killed_vms_with_made_up_names_left_behind_goes_with_the_next() {
    require_kvm!();
    let host = Host::new();
    for _ in 0..2 {
        let started = host.of(Rvmm::guest("spin-forever")).arg("-d").run();
        let id = started.stdout.trim_end();
        let others = host.names();
        assert_eq!(others, [id]);
        let pid = host.listed(id).unwrap()["pid"].as_u64().unwrap();
        process::kill(u32::try_from(pid).unwrap(), libc::SIGKILL);
        host.wait_for_state(id, "Dead");
    }
}

#[test]
fn a_fifo_in_the_folder_of_a_name_keeps_nobody_waiting() {
    let host = Host::new();
    for file in ["pid", "error", "log"] {
        let folder = host.folder(&format!("has-{file}"));
        std::fs::create_dir_all(&folder).unwrap();
        assert!(Command::new("mkfifo").arg(folder.join(file)).status().unwrap().success());
        if file != "pid" {
            std::fs::write(folder.join("pid"), "").unwrap();
        }
    }
    private(&host);
    // One without a pid file might be only just coming.
    assert!(poll(|| host.names() == ["has-error", "has-log", "has-pid"]));
    for id in ["has-error", "has-log", "has-pid"] {
        assert_eq!(host.listed(id).unwrap()["state"], "Dead");
        host.refused(["stop", id], &["it is dead"]);
    }
    host.refused(["logs", "--vmm", "has-log"], &["not a regular file"]);
    let rvmm = host.of(Rvmm::new()).args(["-d", "--id", "has-pid", "--kernel", "x"]);
    rvmm.run().assert_refused(1, &["has-pid/pid is not a regular file; remove it"]);
    host.refused(["rm", "--all-dead"], &["has-pid/pid is not a regular file; remove it"]);
    assert_eq!(host.names(), ["has-pid"]);
}

/// Has the runtime folder, which a test made, such rights as rvmm gives it.
fn private(host: &Host) {
    use std::os::unix::fs::PermissionsExt;
    let folder = host.runtime.path().join("rvmm");
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
}
