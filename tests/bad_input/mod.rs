//! Mistakes of the user: each is one line that names the value and the mend, and nothing is left behind.

mod cpu_template;
mod disk;
mod kernel;
mod net;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use crate::support::kvm::require_kvm;
use crate::support::{Ended, Rvmm, bare};

/// Runs rvmm in an empty folder and checks that the folder is empty afterwards.
#[track_caller]
fn refused(rvmm: Rvmm, code: i32, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut rvmm = rvmm;
    rvmm.command.current_dir(folder.path()).env("TMPDIR", folder.path());
    rvmm.run().assert_refused(code, words);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "files are left behind");
}

fn hello() -> Rvmm {
    Rvmm::guest("hello")
}

#[test]
fn usage_errors_are_one_line_and_exit_code_2() {
    for (args, words) in [
        (&[][..], &["--kernel"][..]),
        (&["--bogus"], &["--bogus"]),
        (&["--kernel"], &["--kernel"]),
        (&["--kernel", "k", "--cpus", "many"], &["many", "--cpus"]),
        (&["--kernel", "k", "--cpus", "-1"], &["-1"]),
        (&["--kernel", "k", "--memory", "2X"], &["2X", "--memory", "512M"]),
        (&["--kernel", "k", "--memory", "99999999999G"], &["99999999999G", "--memory"]),
        (&["--kernel", "k", "--disk", "readonly"], &["path=FILE"]),
        (&["--kernel", "k", "--disk", "path=x,engine=fast"], &["fast", "sync", "io_uring"]),
        (&["--kernel", "k", "--console", "tty"], &["tty", "stdio", "none", "file=PATH"]),
        (&["--kernel", "k", "--on-reset", "explode"], &["explode", "exit", "restart"]),
        (&["--kernel", "k", "--log-level", "loud"], &["loud", "debug"]),
        (&["--kernel", "k", "--append", "a", "--cmdline", "b"], &["--append", "--cmdline"]),
        (&["dokter"], &["doctor"]),
        (&["--kernel", "k", "debug"], &["'debug' is neither an option nor a command"]),
        (&["--kernel", "k", "ps"], &["'ps' cannot be used with '--kernel"]),
        (&["--kernel", "k", "--id", ""], &["''", "--id"]),
    ] {
        refused(Rvmm::new().args(args), 2, words);
    }
}

#[test]
fn a_command_line_that_no_kernel_takes_is_refused() {
    require_kvm!();
    let long = "x".repeat(70_000);
    refused(hello().args(["--cmdline", &long]), 1, &["command line", "70000"]);
    refused(hello().args(["--append", "two\nlines"]), 1, &["command line", "\\n"]);
}

#[test]
fn vcpus_and_memory_out_of_range_are_refused() {
    refused(hello().args(["--cpus", "0"]), 1, &["0 vCPUs", "1 to 32"]);
    refused(hello().args(["--cpus", "33"]), 1, &["33 vCPUs", "1 to 32"]);
    refused(hello().args(["--memory", "0"]), 1, &["0 MiB", "memory"]);
    refused(hello().args(["--memory", "1K"]), 1, &["memory"]);
    refused(hello().args(["--memory", "3"]), 1, &["memory", "3"]);
    refused(hello().args(["--memory", "100T"]), 1, &["memory", "this host has"]);
    refused(hello().args(["--memory", "16777215T"]), 1, &["memory"]);
    refused(hello().args(["--memory", "512"]), 1, &["--memory 512", "512M"]);
    refused(hello().args(["--balloon", "size=512"]), 1, &["--balloon size=512", "512M"]);
    refused(hello().args(["--balloon", "size=16777215T"]), 1, &["--balloon size=", "so much memory"]);
    refused(hello().args(["--balloon", "size=129M"]), 1, &["129 MiB", "128 MiB"]);
}

fn config_file(content: &str) -> (TempDir, Rvmm) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.json");
    fs::write(&path, content).unwrap();
    let rvmm = Rvmm::new().arg("--config-file").arg(path);
    (folder, rvmm)
}

#[test]
fn a_bad_configuration_file_is_refused() {
    for (content, words) in [
        ("", &["line 1"][..]),
        ("{", &["line 1"]),
        ("[]", &["an array, expected an object", "line 1"]),
        (r#"{"boot-source": {"kernel_image_path": "k"}, "colour": 1}"#, &["colour", "line 1"]),
        (r#"{"boot-source": {"kernel_image_path": "k", "colour": 1}}"#, &["colour", "line 1"]),
        (r#"{"boot-source": {}}"#, &["kernel_image_path"]),
        (
            r#"{"boot-source": {"kernel_image_path": "k"}, "machine-config": {"vcpu_count": "two"}}"#,
            &["machine-config.vcpu_count: ", "two"],
        ),
        (r#"{"machine-config": {"vcpu_count": 1, "mem_size_mib": 64}}"#, &["--kernel"]),
    ] {
        let (folder, rvmm) = config_file(content);
        let mut all = vec![];
        if words != ["--kernel"] {
            all.push(folder.path().to_str().unwrap());
        }
        all.extend(words);
        refused(rvmm, 1, &all);
    }
    refused(Rvmm::new().args(["--config-file", "/no/such/file"]), 1, &["/no/such/file", "No such file"]);
    refused(Rvmm::new().args(["--config-file", "/"]), 1, &["directory"]);
}

#[test]
fn a_file_for_the_console_or_the_log_that_cannot_be_is_refused() {
    refused(hello().args(["--console", "file=/no/such/folder/c"]), 1, &["/no/such/folder/c", "No such file"]);
    refused(hello().args(["--log-file", "/no/such/folder/l"]), 1, &["/no/such/folder/l", "No such file"]);
}

#[test]
fn names_with_control_characters_do_not_reach_the_terminal() {
    require_kvm!();
    let ended: Ended = Rvmm::new().args(["--kernel", "/no/such/\x1b[2Jfile"]).run();
    ended.assert_refused(1, &["No such file"]);
    assert!(!ended.stderr.contains('\x1b'), "{ended:#?}");
}

#[test]
fn the_id_of_a_running_vm_is_refused_and_is_free_again_after_it() {
    require_kvm!();
    let runtime = tempfile::tempdir().unwrap();
    let named = |name: &str| {
        let mut rvmm = Rvmm::guest(name).args(["--id", "twin"]);
        rvmm.command.env("XDG_RUNTIME_DIR", runtime.path());
        rvmm
    };
    let mut first = named("hlt-forever").launch();
    first.wait_for("halted");
    refused(named("hello"), 1, &["twin", &first.pid().to_string(), "another name"]);
    // However it ended.
    first.signal(libc::SIGKILL);
    first.end();
    assert_eq!(named("hello").run().code(), 0);
    assert!(!runtime.path().join("rvmm/twin").exists());
}

#[test]
fn a_runtime_folder_that_others_can_replace_is_not_used() {
    require_kvm!();
    let runtime = tempfile::tempdir().unwrap();
    let named = || {
        let mut rvmm = Rvmm::guest("hello").args(["--id", "web"]);
        rvmm.command.env("XDG_RUNTIME_DIR", runtime.path());
        rvmm
    };
    assert_eq!(named().run().code(), 0);
    fs::set_permissions(runtime.path(), Permissions::from_mode(0o777)).unwrap();
    let folder = runtime.path().to_str().unwrap();
    refused(named(), 1, &["web", folder, "only its user can write to"]);
}

#[test]
fn a_name_is_given_back_when_there_are_no_descriptors_left() {
    let runtime = tempfile::tempdir().unwrap();
    // Standard streams take three: the name's file cannot be opened, or what comes after it.
    for limit in 3..6 {
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_rvmm")]);
        limited.env("XDG_RUNTIME_DIR", runtime.path());
        let rvmm = Rvmm::within(limited).args(["--id", "few", "--kernel"]).arg(bare::path("hello"));
        refused(rvmm, 1, &["open files"]);
        assert!(!runtime.path().join("rvmm/few").exists(), "{limit}");
    }
}
