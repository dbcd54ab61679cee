//! Mistakes of the user: each is one line that names the value and the mend, and nothing is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::support::disk::Disk;
use crate::support::kvm::{require_kvm, skip};
use crate::support::{Ended, Rvmm, bare, namespace, process};

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

/// A kernel with this content.
struct Kernel(TempDir);

impl Kernel {
    fn new(content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernel"), content).unwrap();
        Self(folder)
    }

    fn path(&self) -> String {
        self.0.path().join("kernel").to_str().unwrap().to_owned()
    }

    /// It is refused, with its name and `words` in the line.
    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let path = self.path();
        let mut all = vec!["kernel", path.as_str()];
        all.extend(words);
        refused(Rvmm::new().args(["--kernel", &path]), 1, &all);
    }
}

/// A good ELF kernel, to break.
fn elf() -> Vec<u8> {
    fs::read(bare::path("hello")).unwrap()
}

#[track_caller]
fn elf_with(offset: usize, bytes: &[u8], words: &[&str]) {
    let mut elf = elf();
    elf[offset..offset + bytes.len()].copy_from_slice(bytes);
    Kernel::new(&elf).refused(words);
}

/// Offset of the first program header, and of fields of an ELF file (System V ABI, chapters 4 and 5).
const PROGRAM_HEADERS: usize = 64;
const EI_CLASS: usize = 4;
const E_MACHINE: usize = 18;
const P_PADDR: usize = PROGRAM_HEADERS + 24;
const P_FILESZ: usize = PROGRAM_HEADERS + 32;
const P_MEMSZ: usize = PROGRAM_HEADERS + 40;

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
    ] {
        refused(Rvmm::new().args(args), 2, words);
    }
}

#[test]
fn a_kernel_that_is_no_file_is_refused() {
    refused(
        Rvmm::new().args(["--kernel", "/no/such/vmlinux"]),
        1,
        &["kernel", "/no/such/vmlinux", "No such file"],
    );
    refused(Rvmm::new().args(["--kernel", "/"]), 1, &["kernel", "directory"]);
    refused(Rvmm::new().args(["--kernel", "/dev/null"]), 1, &["kernel", "/dev/null"]);
    Kernel::new(b"").refused(&["empty"]);
}

#[test]
fn a_kernel_that_is_something_else_is_refused() {
    Kernel::new(b"#!/bin/sh\nexit 0\n").refused(&["vmlinux", "bzImage"]);
    Kernel::new(&[0; 4096]).refused(&["vmlinux", "bzImage"]);
    Kernel::new(b"M").refused(&[]);
}

#[test]
fn a_kernel_truncated_anywhere_is_refused() {
    let elf = elf();
    let notes_and_text = elf.len() - 1024;
    for length in [3, 4, 16, 63, 64, 65, 119, 120, 175, 176, 4096, 4100, notes_and_text.min(4200)] {
        Kernel::new(&elf[..length]).refused(&[]);
    }
}

#[test]
fn a_kernel_for_another_machine_is_refused() {
    elf_with(EI_CLASS, &[1], &["32-bit"]);
    elf_with(E_MACHINE, &183_u16.to_le_bytes(), &["x86-64"]);
}

#[test]
fn a_kernel_outside_of_memory_is_refused() {
    elf_with(P_PADDR, &(4_u64 << 30).to_le_bytes(), &["RAM"]);
    elf_with(P_PADDR, &u64::MAX.to_le_bytes(), &[]);
    elf_with(P_MEMSZ, &(1_u64 << 30).to_le_bytes(), &["RAM"]);
    elf_with(P_MEMSZ, &u64::MAX.to_le_bytes(), &[]);
    elf_with(P_FILESZ, &u64::MAX.to_le_bytes(), &[]);
    // Into what is not RAM, below 1 MiB.
    elf_with(P_PADDR, &0xa_0000_u64.to_le_bytes(), &[]);
}

#[test]
fn a_kernel_with_overlapping_segments_is_refused() {
    let mut elf = elf();
    // The second program header, the note, becomes a copy of the first, a page of code.
    elf.copy_within(PROGRAM_HEADERS..PROGRAM_HEADERS + 56, PROGRAM_HEADERS + 56);
    Kernel::new(&elf).refused(&["overlap"]);
}

#[test]
fn a_broken_bzimage_is_refused() {
    let mut image = vec![0; 0x4000];
    image[0x1fe..0x200].copy_from_slice(&0xaa55_u16.to_le_bytes());
    image[0x202..0x206].copy_from_slice(b"HdrS");
    let with = |offset: usize, bytes: &[u8]| {
        let mut image = image.clone();
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
        Kernel::new(&image)
    };
    // Boot protocol version, then what makes a header of 2.15 with nothing behind it.
    with(0x206, &0x0100_u16.to_le_bytes()).refused(&["bzImage"]);
    with(0x206, &0x0209_u16.to_le_bytes()).refused(&["bzImage", "2.12"]);
    with(0x206, &0x020f_u16.to_le_bytes()).refused(&[]);
    Kernel::new(&image[..0x210]).refused(&[]);
    Kernel::new(&image[..0x206]).refused(&[]);
}

#[test]
fn a_bad_initrd_is_refused() {
    let refused_initrd = |path: &str, words: &[&str]| {
        let mut all = vec!["initrd", path];
        all.extend(words);
        refused(hello().args(["--initrd", path]), 1, &all);
    };
    refused_initrd("/no/such/initrd", &["No such file"]);
    refused_initrd("/", &["directory"]);
    let empty = Disk::with_content(b"");
    refused_initrd(empty.path().to_str().unwrap(), &["empty"]);
    let large = Disk::with_content(b"");
    fs::File::options().write(true).open(large.path()).unwrap().set_len(200 << 20).unwrap();
    refused_initrd(large.path().to_str().unwrap(), &["memory"]);
}

#[test]
fn a_command_line_that_no_kernel_takes_is_refused() {
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
}

#[test]
fn a_disk_that_is_no_good_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    refused(hello().disk(Path::new("/no/such/disk"), ""), 1, &["disk0", "/no/such/disk", "No such file"]);
    refused(hello().args(["--rootfs", "/no/such/disk"]), 1, &["rootfs", "/no/such/disk", "No such file"]);
    refused(hello().disk(Path::new(folder), ""), 1, &["disk0", folder, "directory"]);
    for size in [1, 511, 513] {
        let odd = Disk::with_content(&vec![0; size]);
        refused(hello().disk(&odd.path(), ""), 1, &["disk0", odd.path().to_str().unwrap(), "512"]);
    }
}

#[test]
fn a_disk_without_the_right_to_write_is_refused_unless_readonly() {
    require_kvm!();
    let disk = Disk::new(8, "");
    if process::is_root() {
        return skip("root may write to every file");
    }
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o444)).unwrap();
    refused(hello().disk(&disk.path(), ""), 1, &["disk0", disk.path().to_str().unwrap(), "readonly"]);
    hello().disk(&disk.path(), ",readonly").run().assert_clean();
}

#[test]
fn a_disk_on_a_read_only_file_system_is_refused_unless_readonly() {
    require_kvm!();
    let disk = Disk::new(8, "");
    let path = disk.path();
    let folder = path.parent().unwrap().display();
    let script = format!("mount --bind {folder} {folder}; mount -o remount,bind,ro {folder}");
    let hello = || Some(namespace::rvmm_after(&script)?.arg("--kernel").arg(bare::path("hello")));
    let Some(rvmm) = hello() else { return };
    refused(rvmm.disk(&path, ""), 1, &["disk0", path.to_str().unwrap(), "read-only"]);
    hello().unwrap().disk(&path, ",readonly").run().assert_clean();
}

#[test]
fn a_disk_that_another_vm_writes_to_is_refused() {
    require_kvm!();
    let disk = Disk::new(8, "");
    let path = disk.path();
    let mut first = Rvmm::guest("hlt-forever").disk(&path, "").launch();
    first.wait_for("halted");
    for options in ["", ",readonly"] {
        refused(hello().disk(&path, options), 1, &["disk0", path.to_str().unwrap(), "another"]);
    }
    first.signal(libc::SIGTERM).pid();
    first.end();
    hello().disk(&path, "").run().assert_clean();
}

#[test]
fn a_read_only_disk_can_be_shared_but_not_with_a_writer() {
    require_kvm!();
    let disk = Disk::new(8, "");
    let path = disk.path();
    let mut first = Rvmm::guest("hlt-forever").disk(&path, ",readonly").launch();
    first.wait_for("halted");
    hello().disk(&path, ",readonly").run().assert_clean();
    refused(hello().disk(&path, ""), 1, &["disk0", path.to_str().unwrap(), "another"]);
}

#[test]
fn one_name_for_two_disks_is_refused() {
    let (one, two) = (Disk::new(8, ""), Disk::new(8, ""));
    let rvmm = hello().disk(&one.path(), ",id=data").disk(&two.path(), ",id=data");
    refused(rvmm, 1, &["\"data\"", "twice"]);
}

#[test]
fn one_image_for_two_disks_is_refused() {
    let disk = Disk::new(8, "");
    refused(hello().disk(&disk.path(), "").disk(&disk.path(), ""), 1, &[disk.path().to_str().unwrap()]);
}

#[test]
fn more_disks_than_interrupts_are_refused() {
    let disk = Disk::new(8, "");
    let rvmm = (0..40).fold(hello(), |rvmm, _| rvmm.disk(&disk.path(), ",readonly"));
    refused(rvmm, 1, &["devices", "19"]);
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
        ("[]", &[]),
        (r#"{"boot-source": {"kernel_image_path": "k"}, "colour": 1}"#, &["colour", "line 1"]),
        (r#"{"boot-source": {"kernel_image_path": "k", "colour": 1}}"#, &["colour", "line 1"]),
        (r#"{"boot-source": {}}"#, &["kernel_image_path"]),
        (r#"{"boot-source": {"kernel_image_path": "k"}, "machine-config": {"vcpu_count": "two"}}"#, &["two"]),
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
    let ended: Ended = Rvmm::new().args(["--kernel", "/no/such/\x1b[2Jfile"]).run();
    ended.assert_refused(1, &["No such file"]);
    assert!(!ended.stderr.contains('\x1b'), "{ended:#?}");
}
