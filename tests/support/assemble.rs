//! How bare guests are assembled, for the tests and for `rvmm bench` (its `build.rs`).

use std::path::Path;
use std::process::Command;

/// The command that has the compiler `cc` make the ELF file `elf` of `NAME.S` in the folder `sources`.
pub(crate) fn command(cc: &str, sources: &Path, name: &str, elf: &Path) -> Command {
    let mut command = Command::new(cc);
    command
        .current_dir(sources)
        .args(["-m64", "-nostdlib", "-static", "-no-pie", "-I.", "-Wl,-T,guest.ld", "-Wl,--build-id=none"])
        .args(["-Wl,-z,noexecstack", "-Wl,--no-warn-rwx-segments"])
        .arg(format!("{name}.S"))
        .arg("-o")
        .arg(elf);
    command
}
