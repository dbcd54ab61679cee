//! What rvmm says about the host, and about itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use skip::Capability;

use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, bare, namespace, process};

#[test]
fn a_host_without_kvm_is_named_with_the_mend() {
    // Built before /dev is gone.
    let guest = bare::path("hello");
    let Some(rvmm) = namespace::rvmm_after("mount -t tmpfs none /dev") else { return };
    rvmm.arg("--kernel").arg(guest).run().assert_refused(1, &["/dev/kvm"]);
}

#[test]
fn a_dev_kvm_that_is_not_kvm_is_refused() {
    require_kvm!();
    let guest = bare::path("hello");
    let Some(rvmm) = namespace::rvmm_after("mount --bind /dev/null /dev/kvm") else { return };
    rvmm.arg("--kernel").arg(guest).run().assert_refused(1, &["/dev/kvm"]);
}

#[test]
fn no_rights_to_kvm_are_named_with_the_mend() {
    require_kvm!();
    if !process::is_root() {
        return skip::skip(Capability::Root, "takes root to become a user without rights to /dev/kvm");
    }
    // Where the nobody of the test can reach both.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (binary, guest) = (folder.path().join("rvmm"), folder.path().join("guest"));
    process::install(Path::new(env!("CARGO_BIN_EXE_rvmm")), &binary);
    fs::copy(bare::path("hello"), &guest).unwrap();
    // A /dev/kvm of this test's own: that of the host may be open to all.
    let script = "mount -t tmpfs none /dev; mknod -m 660 /dev/kvm c 10 232; \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(binary);
    let rvmm = Rvmm::within(command).arg("--kernel").arg(guest);
    rvmm.run().assert_refused(1, &["/dev/kvm", "rights", "group"]);
}

#[test]
fn doctor_says_what_the_host_can_do_and_who_serves_kvm() {
    require_kvm!();
    let ended = Rvmm::new().arg("doctor").run();
    assert!(matches!(ended.code(), 0 | 1), "{ended:#?}");
    for word in [
        "/dev/kvm",
        "virtualization",
        "tun",
        "passt",
        "cgroup",
        "io_uring",
        "userfaultfd",
        "vhost",
        "seccomp",
    ] {
        assert!(ended.stdout.contains(word), "{word} is missing: {ended:#?}");
    }
    // rvmm uses none of these, and masks what a guest would need for VMs of its own.
    for word in ["split", "dirty_log", "nested_state", "landlock", "vsock", "guests can run vms"] {
        assert!(!ended.stdout.to_lowercase().contains(word), "{word}: {ended:#?}");
    }
    assert!(ended.stdout.contains("does not show guests VMX or SVM"), "{ended:#?}");
    for module in ["kvm_intel", "kvm_amd", "kvm_pvm"] {
        let loaded = fs::exists(format!("/sys/module/{module}")).unwrap();
        assert!(!loaded || ended.stdout.contains(module), "{module} is missing: {ended:#?}");
    }
}

#[test]
fn doctor_misses_kvm_where_there_is_none() {
    let Some(rvmm) = namespace::rvmm_after("mount -t tmpfs none /dev") else { return };
    let ended = rvmm.arg("doctor").run();
    assert_eq!(ended.code(), 1, "{ended:#?}");
    assert!(ended.stdout.contains("/dev/kvm"), "{ended:#?}");
}

#[test]
fn doctor_has_an_answer_for_programs() {
    let ended = Rvmm::new().args(["doctor", "--json"]).run();
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report.is_object(), "{ended:#?}");
}

#[test]
fn it_names_its_version_and_explains_itself() {
    let version = Rvmm::new().arg("--version").run();
    version.assert_clean().assert_stdout(concat!("rvmm ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = Rvmm::new().arg("--help").run();
    help.assert_clean();
    for option in
        ["--kernel", "--rootfs", "--initrd", "--cmdline", "--append", "--cpus", "--memory", "--disk"]
    {
        assert!(help.stdout.contains(option), "{option} is missing: {help:#?}");
    }
    for option in ["--console", "--on-reset", "--id", "--config-file", "--log-level", "--log-file", "doctor"]
    {
        assert!(help.stdout.contains(option), "{option} is missing: {help:#?}");
    }
}

#[test]
fn it_completes_in_shells_and_has_a_manual_page() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Rvmm::new().args(["completions", shell]).run();
        script.assert_clean();
        assert!(script.stdout.contains("--kernel") || script.stdout.contains("kernel"), "{shell}");
    }
    let page = Rvmm::new().arg("man").run();
    page.assert_clean();
    assert!(page.stdout.contains(".TH rvmm"), "{:?}", page.stdout);
}

#[test]
fn output_that_nobody_reads_is_no_crash() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = Rvmm::new().arg("--help").stdout(writer.into()).run();
    assert!(!ended.stderr.contains("panicked"), "{ended:#?}");
}
