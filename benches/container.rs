//! A container whose only file is a static busybox.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::programs::on_path;

/// The command that has `runtime`, crun or runc, run busybox with `args` in a container of its own, whose bundle is made in
/// `folder`. `None` where there is no such runtime, or no busybox.
pub(crate) fn of_busybox(folder: &Path, runtime: &str, args: &[&str]) -> Option<[OsString; 5]> {
    let (program, busybox) = (on_path(runtime)?, on_path("busybox")?);
    let bundle = folder.join(runtime);
    let bin = bundle.join("rootfs/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy(busybox, bin.join("busybox")).unwrap();
    let made = Command::new(&program).arg("spec").current_dir(&bundle).status().ok()?;
    let file = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = [&["/bin/busybox"], args].concat().into();
    fs::write(&file, config.to_string()).unwrap();
    let id = format!("bench-{}", std::process::id());
    let command =
        [program.into(), "run".into(), "--bundle".into(), bundle.into_os_string(), OsString::from(id)];
    made.success().then_some(command)
}
