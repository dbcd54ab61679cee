//! Where Linux guests run: here, or on the emulated host; and the kernels and images that they take along.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vmm::kvm::host::served_by;

/// How the host is to be.
pub(crate) struct How<'a> {
    /// Its clock counts instructions.
    pub(crate) counted: bool,
    pub(crate) cpus: u32,
    /// A file that is written there.
    pub(crate) json: Option<&'a str>,
}

/// Makes what is needed: each thing has a variable that names it, and the script in `resources/` that makes it where that is
/// not set. Then, where Linux guests do not run here, or instructions are to be counted, this process becomes the emulated
/// host, on which this very program runs again.
pub(crate) fn enter<const N: usize>(made_by: [(&str, &[&str]); N], how: &How) -> [PathBuf; N] {
    let made =
        made_by.map(|(variable, script)| env::var_os(variable).map_or_else(|| make(script), PathBuf::from));
    let is_emulated = env::var_os("RVMM_EMULATED_HOST").is_some();
    if is_emulated || (served_by().is_hardware() && !how.counted) {
        return made;
    }

    let mut command = Command::new(resource("emulated-host"));
    command.args(["--memory", "4G", "--env", "FIRECRACKER"]);
    if how.counted {
        command.arg("--icount");
    } else {
        command.args(["--cpus", &how.cpus.to_string()]);
    }
    if let Some(path) = how.json {
        let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
        command.arg("--rw").arg(folder.unwrap_or(Path::new(".")));
    }
    command.arg("--").arg(env::current_exe().unwrap()).args(env::args_os().skip(1));
    command.envs(made_by.iter().map(|(variable, _)| *variable).zip(made));
    panic!("emulated-host: {}", command.stdin(Stdio::null()).exec());
}

fn resource(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("resources").join(script)
}

/// Runs a script of `resources/`, which prints the path of what it has made.
fn make(script: &[&str]) -> PathBuf {
    let output = Command::new(resource(script[0]))
        .args(&script[1..])
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", script[0]));
    assert!(output.status.success(), "resources/{}: {}", script[0], output.status);
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}
