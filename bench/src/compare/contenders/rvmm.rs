//! rvmm: booted with a small kernel, with a distribution's, or restored from a snapshot.

use std::path::PathBuf;
use std::process::Command;

use crate::compare::contender::{Contender, Launch, Order, Prepared, Unfit};
use crate::compare::stage::{self, Stage};
use crate::results::Kind;

/// rvmm, one way.
pub(crate) struct Rvmm {
    name: &'static str,
    title: &'static str,
    program: PathBuf,
}

impl Rvmm {
    /// Booted with the small kernel.
    pub(crate) fn small() -> Self {
        Self { name: "rvmm", title: "rvmm, small kernel", program: PathBuf::new() }
    }
}

/// The rvmm that is measured: the one that started this program, or that lies beside it, or on PATH.
pub(crate) fn program() -> Option<PathBuf> {
    let beside =
        || std::env::current_exe().ok().map(|own| own.with_file_name("rvmm")).filter(|path| path.is_file());
    let named = std::env::var_os("RVMM_PROGRAM").filter(|name| !name.is_empty());
    named.map(PathBuf::from).or_else(beside).or_else(|| stage::on_path("rvmm"))
}

/// The words of a kernel command line that have the built-in program, as the first process, do the order's task.
pub(crate) fn command_line(order: &Order, end: &str) -> String {
    let task = order.task.for_built_in().join(",");
    format!("quiet init={} BENCH_TASK={task} BENCH_END={end}", crate::compare::task::BUILT_IN)
}

impl Contender for Rvmm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn kind(&self) -> Kind {
        Kind::MicroVm
    }

    fn prepare(&mut self, stage: &Stage) -> Result<Prepared, Unfit> {
        self.program = program().ok_or_else(|| Unfit::missing("rvmm", "cargo build --release makes it"))?;
        let kernel = stage.kernel.clone().ok_or_else(|| {
            Unfit::missing("a small guest kernel", "give --kernel FILE; resources/small-kernel builds one")
        })?;
        Ok(Prepared {
            version: stage::version(&self.program, "--version"),
            ships: vec![
                ("program".to_owned(), self.program.clone()),
                ("guest kernel".to_owned(), kernel),
                ("disk image".to_owned(), stage.image()?),
            ],
            steps: vec!["make an image of the root file system".to_owned()],
        })
    }

    fn launch(&self, stage: &Stage, order: &Order) -> anyhow::Result<Launch> {
        let mut command = Command::new(&self.program);
        command.args(["--id", order.id, "--memory", &format!("{}M", stage.guest_mib), "--kernel"]);
        command.args(stage.kernel.as_deref());
        command.arg("--rootfs").arg(format!("{},readonly", stage.image()?.display()));
        command.args(["--append", &command_line(order, "poweroff")]);
        command.env("XDG_RUNTIME_DIR", stage.runtime_folder());
        Ok(Launch::new(command))
    }
}
