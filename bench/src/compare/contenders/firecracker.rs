//! Firecracker, without its API socket.

#![expect(clippy::indexing_slicing, reason = "keys of a JSON object that is made here")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::compare::contender::{Contender, Launch, Order, Prepared, Unfit};
use crate::compare::stage::{self, Stage};
use crate::results::Kind;

use super::guest;

/// Firecracker.
#[derive(Default)]
pub(crate) struct Firecracker {
    program: PathBuf,
}

/// The program that `FIRECRACKER` names, or that of PATH, if it is there.
pub(crate) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("FIRECRACKER").filter(|name| !name.is_empty()).map(PathBuf::from);
    named.map_or_else(|| stage::on_path("firecracker"), |path| path.is_file().then_some(path))
}

impl Contender for Firecracker {
    fn name(&self) -> &'static str {
        "firecracker"
    }

    fn title(&self) -> &'static str {
        "Firecracker"
    }

    fn kind(&self) -> Kind {
        Kind::MicroVm
    }

    fn prepare(&mut self, stage: &Stage) -> Result<Prepared, Unfit> {
        let mend = "Debian has no package; name the program of a release in FIRECRACKER, or put it on PATH";
        self.program = program().ok_or_else(|| Unfit::missing("firecracker", mend))?;
        let mut prepared = guest::prepared(stage, &self.program)?;
        prepared.steps.push("write the VM's configuration as JSON".to_owned());
        Ok(prepared)
    }

    fn launch(&self, stage: &Stage, order: &Order) -> anyhow::Result<Launch> {
        let mut drives = vec![json!({
            "drive_id": "root",
            "path_on_host": stage.image()?,
            "is_root_device": true,
            "is_read_only": true,
        })];
        drives.extend(order.data.map(|data| {
            json!({
                "drive_id": "data",
                "path_on_host": data,
                "is_root_device": false,
                "is_read_only": false,
                "cache_type": "Writeback",
            })
        }));
        let mut config = json!({
            "boot-source": {
                "kernel_image_path": stage.kernel,
                "boot_args": guest::whole_command_line(order, "reboot=k pci=off i8042.noaux i8042.nomux i8042.dumbkbd", "reboot"),
            },
            "drives": drives,
            "machine-config": { "vcpu_count": stage::GUEST_CPUS, "mem_size_mib": stage.guest_mib },
        });
        if let Some(tap) = guest::tap(order)? {
            config["network-interfaces"] =
                json!([{ "iface_id": "net0", "host_dev_name": tap, "guest_mac": guest::mac() }]);
        }
        let file = stage.instance_folder(&format!("firecracker-{}", order.id))?.join("vm.json");
        fs::write(&file, serde_json::to_vec(&config)?)?;
        let mut command = Command::new(&self.program);
        command.args(["--id", order.id, "--no-api", "--level", "Error", "--config-file"]).arg(file);
        Ok(Launch::new(command))
    }
}
