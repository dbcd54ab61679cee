//! VMs by name: what the verbs say of them and do with them.

mod background;
mod completion;
mod console;
mod ends;
mod hostile;

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::kvm::require_kvm;
use crate::support::{Ended, Running, Rvmm, poll, process};

/// A runtime folder of a test's own. VMs that are in it at its end are killed.
pub(crate) struct Host {
    pub(crate) runtime: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { runtime: tempfile::tempdir().unwrap() }
    }

    /// The folder of the VM `id`.
    pub(crate) fn folder(&self, id: &str) -> PathBuf {
        self.runtime.path().join("rvmm").join(id)
    }

    pub(crate) fn of(&self, mut rvmm: Rvmm) -> Rvmm {
        rvmm.command.env("XDG_RUNTIME_DIR", self.runtime.path());
        rvmm
    }

    /// The bare guest `name`, called `id`.
    pub(crate) fn guest(&self, name: &str, id: &str) -> Rvmm {
        self.of(Rvmm::guest(name)).args(["--id", id])
    }

    /// The bare guest `name`, called `web`, once it has printed `text` and is listed.
    #[track_caller]
    pub(crate) fn running(&self, name: &str, text: &str) -> Running {
        let mut running = self.guest(name, "web").launch();
        running.wait_for(text);
        self.wait_for_state("web", "Running");
        running
    }

    /// The bare guest `name`, in the background, and what it is called.
    #[track_caller]
    pub(crate) fn detach(&self, name: &str, id: &str) {
        self.guest(name, id).arg("--detach").run().assert_clean().assert_stdout(&format!("{id}\n"));
    }

    /// A verb with its arguments.
    pub(crate) fn verb<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Rvmm {
        self.of(Rvmm::new()).args(words)
    }

    /// What a verb prints that succeeds.
    #[track_caller]
    pub(crate) fn ask<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> String {
        let ended = self.verb(words).run();
        ended.assert_clean();
        ended.stdout
    }

    /// The JSON that a verb prints.
    #[track_caller]
    pub(crate) fn json<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Value {
        serde_json::from_str(&self.ask(words)).unwrap()
    }

    /// A verb that is refused.
    #[track_caller]
    pub(crate) fn refused<'a>(&self, words: impl IntoIterator<Item = &'a str>, why: &[&str]) -> Ended {
        let ended = self.verb(words).run();
        ended.assert_refused(1, why);
        ended
    }

    /// How the list shows the VM `id`.
    #[track_caller]
    pub(crate) fn listed(&self, id: &str) -> Option<Value> {
        let list = self.json(["ps", "--json"]);
        list.as_array().unwrap().iter().find(|vm| vm["id"] == id).cloned()
    }

    #[track_caller]
    pub(crate) fn wait_for_state(&self, id: &str, state: &str) {
        let mut seen = None;
        assert!(
            poll(|| {
                seen = self.listed(id);
                seen.as_ref().is_some_and(|vm| vm["state"] == state)
            }),
            "{id} is not {state}: {seen:?}"
        );
    }

    /// Waits until the guest's console has `text`.
    #[track_caller]
    pub(crate) fn wait_for_output(&self, id: &str, text: &str) {
        let mut seen = String::new();
        assert!(
            poll(|| {
                seen = self.verb(["logs", id]).run().stdout;
                seen.contains(text)
            }),
            "no {text:?} on the console: {seen:?}"
        );
    }

    /// The names in the list.
    #[track_caller]
    pub(crate) fn names(&self) -> Vec<String> {
        self.ask(["ps", "--names"]).lines().map(str::to_owned).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let list = self.verb(["ps", "--json"]).run().stdout;
        let list: Value = serde_json::from_str(&list).unwrap_or_default();
        for pid in list.as_array().into_iter().flatten().filter_map(|vm| vm["pid"].as_u64()) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

#[test]
fn a_vm_with_a_name_is_listed_inspected_and_gone_at_its_end() {
    require_kvm!();
    let host = Host::new();
    assert_eq!(host.json(["ps", "--json"]), json!([]));
    let mut running = host.guest("spin-forever", "web").args(["--memory", "64M"]).launch();
    running.wait_for("spinning");
    host.wait_for_state("web", "Running");
    let listed = host.listed("web").unwrap();
    assert_eq!((&listed["pid"], &listed["vcpus"]), (&json!(running.pid()), &json!(1)));
    assert_eq!(listed["memory_mib"], 64);
    let table = host.ask(["ps"]);
    let line = table.lines().find(|line| line.starts_with("web ")).unwrap();
    assert!(line.contains("Running") && line.contains("64M") && line.contains("spin-forever"), "{table}");

    let inspected = host.json(["inspect", "web"]);
    assert_eq!((&inspected["state"], &inspected["instance"]["id"]), (&json!("Running"), &json!("web")));
    assert_eq!(inspected["config"]["machine-config"]["mem_size_mib"], 64);
    assert_eq!(inspected["paths"]["api_socket"], json!(host.folder("web").join("api.sock")));
    assert!(inspected["metrics"]["vcpu"].is_object());
    assert!(host.ask(["metrics", "web"]).contains("rvmm_uart_"));
    assert!(host.json(["metrics", "web", "--json"])["uart"].is_object());

    running.signal(libc::SIGTERM);
    running.end();
    assert_eq!(host.json(["ps", "--json"]), json!([]));
    assert!(!host.folder("web").exists());
}

#[test]
fn a_vm_without_a_name_has_one_all_the_same() {
    require_kvm!();
    let host = Host::new();
    let vms: Vec<Running> = (0..2).map(|_| host.of(Rvmm::guest("spin-forever")).launch()).collect();
    assert!(poll(|| host.names().len() == 2));
    for name in host.names() {
        host.wait_for_state(&name, "Running");
        assert_eq!(host.json(["inspect", &name])["instance"]["id"], name.as_str());
    }
    for mut vm in vms {
        vm.signal(libc::SIGTERM);
        vm.end();
    }
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn a_vm_without_a_name_whose_guest_resets_all_the_time_has_one_too() {
    require_kvm!();
    let host = Host::new();
    let mut vm = host.of(Rvmm::guest("reset-i8042")).args(["--on-reset", "restart"]).launch();
    assert!(poll(|| host.names().len() == 1));
    vm.signal(libc::SIGTERM);
    assert_eq!(vm.end().code(), 143);
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn a_guest_is_paused_and_goes_on_by_name() {
    require_kvm!();
    let host = Host::new();
    host.detach("serial-echo", "web");
    host.ask(["pause", "web"]);
    host.wait_for_state("web", "Paused");
    host.ask(["resume", "web"]);
    host.wait_for_state("web", "Running");
}

#[test]
fn a_beginning_of_a_name_is_enough_when_there_is_no_other() {
    require_kvm!();
    let host = Host::new();
    host.detach("spin-forever", "web-1");
    host.detach("spin-forever", "web-2");
    host.detach("spin-forever", "db");
    assert_eq!(host.json(["inspect", "d"])["id"], "db");
    host.refused(["pause", "web"], &["web-1", "web-2"]);
    for id in ["", "../web-1", "web-1/", "nobody", "."] {
        host.refused(["pause", id], &["no VM is called", "rvmm ps"]);
    }
    host.refused(["kill", "../../x"], &["no VM is called"]);
    // Whoever means a VM that is gone does not end or clear its neighbour.
    for verb in ["stop", "kill", "rm"] {
        host.refused([verb, "d"], &["no VM is called", "write db"]);
    }
    assert_eq!(host.names(), ["db", "web-1", "web-2"]);
}

#[test]
fn a_name_is_one_vm_s() {
    require_kvm!();
    let host = Host::new();
    host.detach("spin-forever", "web");
    for detach in [&[][..], &["--detach"]] {
        let second = host.guest("hello", "web").args(detach).run();
        second.assert_refused(1, &["--id web", "is running"]);
    }
    host.wait_for_state("web", "Running");
}

#[test]
fn the_configuration_of_a_vm_boots_another() {
    require_kvm!();
    let host = Host::new();
    host.guest("hlt-forever", "one").args(["--detach", "--memory", "64M"]).run().assert_clean();
    let path = host.runtime.path().join("vm.json");
    std::fs::write(&path, host.ask(["config", "one"])).unwrap();
    host.of(Rvmm::new().arg("--config-file").arg(&path))
        .args(["--detach", "--id", "two"])
        .run()
        .assert_clean();
    assert_eq!(host.json(["config", "two"]), host.json(["config", "one"]));
}

#[test]
fn what_happens_to_a_vm_is_printed_as_it_happens() {
    require_kvm!();
    let host = Host::new();
    host.detach("serial-echo", "web");
    let mut events = host.verb(["events", "web"]).launch();
    events.wait_for("{\"event\":\"state\",\"state\":\"Running\"}\n");
    host.ask(["pause", "web"]);
    events.wait_for("{\"event\":\"state\",\"state\":\"Paused\"}\n");
    host.ask(["resume", "web"]);
    host.verb(["console", "web"]).stdin(input("q")).run();
    events.wait_for("power_off");
    events.end().assert_clean();
}

#[test]
fn a_socket_that_is_elsewhere_is_found_by_name() {
    require_kvm!();
    let host = Host::new();
    let socket = host.runtime.path().join("elsewhere.sock");
    let running = host.guest("spin-forever", "web").arg("--api-sock").arg(&socket).launch();
    host.wait_for_state("web", "Running");
    assert_eq!(host.json(["inspect", "web"])["paths"]["api_socket"], json!(socket));
    // Killed, it leaves both; both can be cleared.
    process::kill(running.pid(), libc::SIGKILL);
    running.end();
    assert!(socket.exists());
    host.ask(["rm", "web"]);
    assert!(!socket.exists() && !host.folder("web").exists());
}

#[test]
fn a_vm_that_listens_nowhere_is_listed_and_can_be_ended() {
    require_kvm!();
    let host = Host::new();
    host.guest("spin-forever", "web").args(["--detach", "--no-api"]).run().assert_clean();
    assert_eq!(host.listed("web").unwrap()["state"], "Silent");
    host.refused(["pause", "web"], &["--no-api"]);
    host.refused(["logs", "web"], &["--no-api"]);
    assert_eq!(host.verb(["stop", "web"]).run().code(), 3);
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn a_vm_runs_where_there_is_no_place_for_its_name() {
    require_kvm!();
    let mut rvmm = Rvmm::guest("hlt-forever").args(["--log-level", "debug"]);
    rvmm.command.env("XDG_RUNTIME_DIR", "/proc");
    let mut running = rvmm.launch();
    running.wait_for("halted").wait_for_log("the VM has no folder").signal(libc::SIGTERM);
    let ended = running.end();
    assert_eq!(ended.code(), 143, "{ended:#?}");
    assert_eq!(ended.stderr.matches("the VM has no folder").count(), 1, "{ended:#?}");
}

#[test]
fn folders_that_others_can_write_to_are_not_trusted() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    let folder = host.runtime.path().join("rvmm");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    host.refused(["ps"], &["only its user can write to"]);
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(host.json(["ps", "--json"]), json!([]));
}

#[test]
fn folders_of_another_user_are_not_trusted() {
    use std::os::unix::fs::PermissionsExt;
    if !process::is_root() {
        return skip::skip(skip::Capability::Root, "takes root to become another user");
    }
    let host = Host::new();
    let folder = host.runtime.path().join("rvmm");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(host.runtime.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = host.runtime.path().join("program");
    process::install(std::path::Path::new(env!("CARGO_BIN_EXE_rvmm")), &program);
    let mut other = Command::new("setpriv");
    other.args(["--reuid", "65534", "--clear-groups"]).arg(program).arg("ps");
    let mut other = Rvmm::within(other);
    other.command.env("XDG_RUNTIME_DIR", host.runtime.path());
    let ended = other.run();
    ended.assert_refused(1, &["only its user can write to"]);
}

/// A pipe with `text` in it that has come to its end.
fn input(text: &str) -> std::process::Stdio {
    use std::io::Write;
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    reader.into()
}
