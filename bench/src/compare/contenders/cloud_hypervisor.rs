//! Cloud Hypervisor.

use std::path::PathBuf;
use std::process::Command;

use crate::compare::contender::{Contender, Launch, Order, Prepared, Unfit};
use crate::compare::stage::{self, Stage};
use crate::results::Kind;

use super::guest;

const PROGRAM: &str = "cloud-hypervisor";

/// Cloud Hypervisor.
#[derive(Default)]
pub(crate) struct CloudHypervisor {
    program: PathBuf,
}

impl Contender for CloudHypervisor {
    fn name(&self) -> &'static str {
        PROGRAM
    }

    fn title(&self) -> &'static str {
        "Cloud Hypervisor"
    }

    fn kind(&self) -> Kind {
        Kind::MicroVm
    }

    fn prepare(&mut self, stage: &Stage) -> Result<Prepared, Unfit> {
        self.program = stage::on_path(PROGRAM).ok_or_else(|| {
            Unfit::missing(PROGRAM, "Debian has no package; put the program of a release on PATH")
        })?;
        guest::prepared(stage, &self.program)
    }

    fn launch(&self, stage: &Stage, order: &Order) -> anyhow::Result<Launch> {
        let mut command = Command::new(&self.program);
        command.arg("--kernel").args(stage.kernel.as_deref());
        command.args(["--cmdline", &guest::whole_command_line(order, "root=/dev/vda ro", "poweroff")]);
        command.args(["--cpus", &format!("boot={}", stage::GUEST_CPUS)]);
        command.args(["--memory", &format!("size={}M", stage.guest_mib)]);
        command.arg("--disk").arg(format!("path={},readonly=on", stage.image()?.display()));
        if let Some(data) = order.data {
            command.arg(format!("path={},image_type=raw", data.display()));
        }
        command.args(["--serial", "tty", "--console", "off"]);
        if let Some(tap) = guest::tap(order)? {
            command.args(["--net", &format!("tap={tap},mac={}", guest::mac())]);
        }
        Ok(Launch::new(command))
    }
}
