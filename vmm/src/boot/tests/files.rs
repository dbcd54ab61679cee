//! Paths and command lines as users mistype them: each refusal is one line that names what to change.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::boot::fixture::{BzImage, Elf, MIB, memory};
use crate::boot::{BootSource, load};

/// The refusal for a kernel, initrd and command line in 32 MiB of memory.
fn refusal(kernel: &Path, initrd: Option<&Path>, cmdline: &str) -> String {
    let source = BootSource { kernel, initrd, cmdline, rsdp: 0 };
    let message = load(&memory(32 * MIB), &source).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message:?}");
    message
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let name = CString::new(fifo.as_os_str().as_bytes()).unwrap();
    #[expect(unsafe_code, reason = "there is no safe wrapper of mkfifo at hand")]
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let made = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
    assert_eq!(made, 0);
    let empty = dir.path().join("empty");
    fs::write(&empty, "").unwrap();
    let good = dir.path().join("kernel");
    fs::write(&good, Elf::new().build()).unwrap();

    for (path, what) in [
        (fifo.as_path(), "is a FIFO"),
        (dir.path(), "is a directory"),
        (Path::new("/dev/zero"), "is a character device"),
        (&empty, "is empty"),
        (&dir.path().join("missing"), "can't be opened: No such file"),
    ] {
        let kernel = refusal(path, None, "");
        assert!(kernel.starts_with(&format!("kernel {path:?}: {what}")), "{kernel}");
        let initrd = refusal(&good, Some(path), "");
        assert!(initrd.starts_with(&format!("initrd {path:?}: {what}")), "{initrd}");
    }
}

#[test]
fn an_initrd_larger_than_memory_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel, initrd) = (dir.path().join("kernel"), dir.path().join("initrd"));
    fs::write(&kernel, Elf::new().build()).unwrap();
    fs::File::create(&initrd).unwrap().set_len(1 << 40).unwrap();
    assert!(refusal(&kernel, Some(&initrd), "").contains("needs 1099511627776 bytes"));
}

#[test]
fn a_command_line_longer_than_the_kernel_takes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (elf, bzimage) = (dir.path().join("vmlinux"), dir.path().join("bzImage"));
    fs::write(&elf, Elf::new().build()).unwrap();
    fs::write(&bzimage, BzImage::new().header(|header| header.cmdline_size = 100).build()).unwrap();

    for (kernel, limit) in [(&elf, 2047), (&bzimage, 100)] {
        let longest = "x".repeat(limit);
        let source = BootSource { kernel, initrd: None, cmdline: &longest, rsdp: 0 };
        assert!(load(&memory(32 * MIB), &source).is_ok());
        let message = refusal(kernel, None, &"x".repeat(limit + 3));
        assert!(message.contains(&format!("takes at most {limit}: shorten it by 3")), "{message}");
    }
}

#[test]
fn control_characters_in_a_command_line_are_refused() {
    for (cmdline, what) in
        [("quiet\0", r"'\0' at byte 5"), ("a\nb", r"'\n' at byte 1"), ("\u{7f}", r"'\u{7f}' at byte 0")]
    {
        let message = refusal(Path::new("/nonexistent"), None, cmdline);
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn a_path_with_a_line_break_makes_no_second_line() {
    assert!(refusal(Path::new("no\nsuch"), None, "").contains(r#""no\nsuch""#));
}
