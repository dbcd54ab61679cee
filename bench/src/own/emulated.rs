//! Where Linux guests run: here, or on the emulated host; and the kernels and images that they take along.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use vmm::kvm::host::served_by;

use super::progress;

/// How the host is to be.
pub(crate) struct How<'a> {
    /// Its clock counts instructions.
    pub(crate) counted: bool,
    pub(crate) cpus: u32,
    /// A file that is written there.
    pub(crate) json: Option<&'a Path>,
}

/// Something that guests take along.
pub(crate) struct Need<'a> {
    /// The option that names it, and what that says.
    pub(crate) option: &'static str,
    pub(crate) named: Option<&'a Path>,
    /// The variable that names it where the option does not.
    pub(crate) variable: &'static str,
    /// The script in `resources/`, and its arguments, that makes it where neither does.
    pub(crate) script: &'static [&'static str],
}

/// Finds or makes what is needed. Then, where Linux guests do not run here, or instructions are to be counted, this process
/// becomes the emulated host, on which this very program runs again. Nothing may have been made before that has to be removed.
///
/// # Errors
/// Something that is needed is not there, or the emulated host is not.
pub(crate) fn enter<const N: usize>(needs: [Need; N], how: &How) -> anyhow::Result<[PathBuf; N]> {
    let variables = needs.each_ref().map(|need| need.variable);
    let mut found = [const { PathBuf::new() }; N];
    for (path, need) in found.iter_mut().zip(needs) {
        *path = find(&need)?;
    }
    let is_emulated = env::var_os("RVMM_EMULATED_HOST").is_some();
    if is_emulated || (served_by().is_hardware() && !how.counted) {
        return Ok(found);
    }

    let script = resource("emulated-host").with_context(|| {
        let reason = if how.counted { "instructions are counted" } else { "this machine's KVM runs no Linux guests, which run" };
        format!("{reason} on the emulated host that resources/emulated-host in rvmm's source tree brings; run this in such a tree")
    })?;
    let mut command = Command::new(script);
    command.args(["--memory", "4G", "--env", "FIRECRACKER"]);
    if how.counted {
        command.arg("--icount");
    } else {
        command.args(["--cpus", &how.cpus.to_string()]);
    }
    if let Some(path) = how.json {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        command.arg("--rw").arg(folder.unwrap_or(Path::new(".")));
    }
    command.arg("--").arg(env::current_exe()?).args(env::args_os().skip(1));
    if io::stderr().is_terminal() {
        command.env(progress::AFAR, "1");
    }
    command.envs(variables.into_iter().zip(found));
    let error = command.stdin(Stdio::null()).exec();
    Err(error).context("resources/emulated-host")
}

fn find(need: &Need) -> anyhow::Result<PathBuf> {
    let variable = || env::var_os(need.variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = need.named.map(Path::to_owned).or_else(variable) {
        std::fs::File::open(&path).with_context(|| format!("{} {}", need.option, path.display()))?;
        return Ok(std::path::absolute(path)?);
    }
    let words = need.script.join(" ");
    let [script, args @ ..] = need.script else { bail!("{} is missing", need.option) };
    let Some(program) = resource(script) else {
        bail!(
            "{option} is missing: name it, or set {variable}; `resources/{words}` in rvmm's source tree makes it",
            option = need.option,
            variable = need.variable
        );
    };
    // It prints the path of what it has made.
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("resources/{words}"))?;
    ensure!(output.status.success(), "resources/{words}: {}", output.status);
    let path = String::from_utf8(output.stdout).with_context(|| format!("resources/{words}"))?;
    Ok(PathBuf::from(OsString::from(path.trim())))
}

/// A script in `resources/` of the source tree that this program, or else the current folder, is in.
fn resource(script: &str) -> Option<PathBuf> {
    let places = [env::current_exe().ok(), env::current_dir().ok()];
    let trees = places.iter().flatten().flat_map(|place| place.ancestors());
    let tree =
        trees.map(|folder| folder.join("resources")).find(|folder| folder.join("emulated-host").is_file())?;
    Some(tree.join(script)).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(named: Option<&Path>) -> Need<'_> {
        Need { option: "--kernel", named, variable: "RVMM_KERNEL_OF_A_TEST", script: &["a-kernel", "6.12"] }
    }

    #[test]
    fn what_is_missing_is_told_with_the_option_the_variable_and_the_script() {
        let error = format!("{:#}", find(&need(None)).unwrap_err());
        for part in ["--kernel", "RVMM_KERNEL_OF_A_TEST", "resources/a-kernel 6.12"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = format!("{:#}", find(&need(Some(Path::new("/no/such/kernel")))).unwrap_err());
        assert!(error.contains("--kernel /no/such/kernel: No such file"), "{error}");
    }

    #[test]
    fn a_file_that_is_named_is_found_from_anywhere() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(find(&need(Some(file.path()))).unwrap(), file.path());
    }
}
