//! A container whose only file is a static busybox.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::children;
use super::programs::on_path;

/// A container that can be run again and again. What a run has left that was killed is removed with this.
pub(crate) struct Container {
    program: PathBuf,
    bundle: PathBuf,
    id: String,
}

impl Container {
    /// The command that runs it.
    pub(crate) fn argv(&self) -> [OsString; 5] {
        let Self { program, bundle, id } = self;
        [program.into(), "run".into(), "--bundle".into(), bundle.into(), id.into()]
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = children::run_undisturbed(Command::new(&self.program).args(["delete", "--force", &self.id]));
    }
}

/// The container in which `runtime`, crun or runc, runs busybox with `args`. Its bundle is made in `folder`.
///
/// # Errors
/// There is no such runtime, or no busybox, or no bundle can be made.
pub(crate) fn of_busybox(folder: &Path, runtime: &str, args: &[&str]) -> anyhow::Result<Container> {
    let program = on_path(runtime).context("it is not on PATH")?;
    let busybox = on_path("busybox").context("busybox is not on PATH")?;
    let bundle = folder.join(runtime);
    let bin = bundle.join("rootfs/bin");
    fs::create_dir_all(&bin)?;
    fs::copy(busybox, bin.join("busybox"))?;
    let made = children::run_undisturbed(Command::new(&program).arg("spec").current_dir(&bundle))?;
    ensure!(made.status.success(), "{runtime} spec: {}", String::from_utf8_lossy(&made.stderr).trim());
    let file = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let process =
        config.get_mut("process").and_then(Value::as_object_mut).context("config.json has no process")?;
    process.insert("terminal".to_owned(), json!(false));
    process.insert("args".to_owned(), [&["/bin/busybox"], args].concat().into());
    fs::write(&file, config.to_string())?;
    Ok(Container { program, bundle, id: format!("bench-{}", std::process::id()) })
}
