//! QEMU with its machine for microVMs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compare::contender::{Contender, Launch, Order, Prepared, Unfit};
use crate::compare::stage::{self, Stage};
use crate::results::Kind;

use super::guest;

const PROGRAM: &str = "qemu-system-x86_64";

/// QEMU.
#[derive(Default)]
pub(crate) struct Qemu {
    program: PathBuf,
}

fn disk(command: &mut Command, name: &str, image: &Path, options: &str) {
    let image = image.display().to_string().replace(',', ",,");
    command.args(["-drive", &format!("id={name},file={image},format=raw,if=none{options}")]);
    command.args(["-device", &format!("virtio-blk-device,drive={name}")]);
}

impl Contender for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn title(&self) -> &'static str {
        "QEMU microvm"
    }

    fn kind(&self) -> Kind {
        Kind::MicroVm
    }

    fn prepare(&mut self, stage: &Stage) -> Result<Prepared, Unfit> {
        self.program =
            stage::on_path(PROGRAM).ok_or_else(|| Unfit::missing(PROGRAM, "apt install qemu-system-x86"))?;
        guest::prepared(stage, &self.program)
    }

    fn launch(&self, stage: &Stage, order: &Order) -> anyhow::Result<Launch> {
        let mut command = Command::new(&self.program);
        command.args(["-name", order.id, "-M", "microvm", "-enable-kvm", "-cpu", "host"]);
        command.args(["-m", &format!("{}M", stage.guest_mib), "-smp", &stage::GUEST_CPUS.to_string()]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
            "-kernel",
        ]);
        command.args(stage.kernel.as_deref());
        // A reset ends it. microvm has no keyboard controller to ask for one; a triple fault is one on any machine.
        let words = "root=/dev/vda ro reboot=t";
        command.args(["-append", &guest::whole_command_line(order, words, "reboot")]);
        disk(&mut command, "root", &stage.image()?, ",readonly=on");
        if let Some(data) = order.data {
            disk(&mut command, "data", data, "");
        }
        if let Some(tap) = guest::tap(order)? {
            command.args(["-netdev", &format!("tap,id=net0,ifname={tap},script=no,downscript=no")]);
            command.args(["-device", &format!("virtio-net-device,netdev=net0,mac={}", guest::mac())]);
        }
        Ok(Launch::new(command))
    }
}
