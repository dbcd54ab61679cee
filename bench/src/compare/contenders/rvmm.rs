//! rvmm: booted with a small kernel or with a distribution's, or restored from a snapshot.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{bail, ensure};

use crate::compare::contender::{Contender, Launch, Order, Prepared, Unfit};
use crate::compare::helper;
use crate::compare::instance::Instance;
use crate::compare::stage::{self, Stage};
use crate::compare::task::{Task, WAITING};
use crate::results::Kind;

use super::guest;

/// How the guest comes to run.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Way {
    /// It boots the small kernel.
    Small,
    /// It boots a distribution's kernel, with its initial RAM disk.
    Stock,
    /// It was booted with the small kernel once, and goes on from a snapshot.
    Restored,
}

/// rvmm, one way.
pub(crate) struct Rvmm {
    way: Way,
    program: PathBuf,
    kernel: PathBuf,
    initrd: Option<PathBuf>,
}

/// All ways.
pub(crate) fn all() -> impl Iterator<Item = Rvmm> {
    let ways = [Way::Stock, Way::Small, Way::Restored];
    ways.into_iter().map(|way| Rvmm { way, program: PathBuf::new(), kernel: PathBuf::new(), initrd: None })
}

/// The rvmm that is measured: the one that started this program, or that lies beside it, or on PATH.
pub(crate) fn program() -> Option<PathBuf> {
    let beside =
        || std::env::current_exe().ok().map(|own| own.with_file_name("rvmm")).filter(|path| path.is_file());
    let named = std::env::var_os("RVMM_PROGRAM").filter(|name| !name.is_empty());
    named.map(PathBuf::from).or_else(beside).or_else(|| stage::on_path("rvmm"))
}

impl Rvmm {
    /// rvmm with its runtime folder in the comparison's.
    fn rvmm(&self, stage: &Stage) -> Command {
        let mut command = Command::new(&self.program);
        command.env("XDG_RUNTIME_DIR", stage.runtime_folder());
        command
    }

    fn snapshot(stage: &Stage) -> PathBuf {
        stage.path("rvmm.snapshot")
    }

    /// The command that boots a guest.
    fn boot(&self, stage: &Stage, order: &Order) -> anyhow::Result<Command> {
        let mut command = self.rvmm(stage);
        command
            .args(["--id", order.id, "--memory", &format!("{}M", stage.guest_mib), "--kernel"])
            .arg(&self.kernel);
        if let Some(initrd) = &self.initrd {
            command.arg("--initrd").arg(initrd);
        }
        command.arg("--rootfs").arg(format!("{},readonly", stage.image()?.display()));
        if let Some(data) = order.data {
            command.arg("--disk").arg(format!("path={}", data.display().to_string().replace(',', ",,")));
        }
        if let Some(tap) = guest::tap(order)? {
            command.args(["--net", &format!("tap={tap},mac={}", guest::mac())]);
        }
        command.args(["--append", &guest::command_line(order, "poweroff")]);
        Ok(command)
    }

    /// Boots a guest that waits for its task, and saves it.
    fn save(&self, stage: &Stage) -> anyhow::Result<()> {
        let id = format!("{}-snapshot", stage.id());
        let task = Task::built_in(&["wait"]);
        let order = Order::new(&id, &task);
        let mut guest = Instance::spawn(Launch::new(self.boot(stage, &order)?), stage.timeout)?;
        guest.line(WAITING)?;
        let mut command = self.rvmm(stage);
        command.args(["snapshot", &id]).arg(Self::snapshot(stage)).arg("--stop");
        helper::output(command, stage.timeout)?;
        guest.end()
    }

    /// Restores it once, and has it recorded what a start uses of its memory.
    fn record(&self, stage: &Stage) -> anyhow::Result<()> {
        let id = format!("{}-record", stage.id());
        let mut launch = self.launch(stage, &Order::new(&id, &Task::start()))?;
        launch.command.arg("--record");
        Instance::spawn(launch, stage.timeout)?.end()?;
        ensure!(
            Self::snapshot(stage).join("working-set").is_file(),
            "rvmm did not record what a restored guest uses"
        );
        Ok(())
    }

    fn find_kernel(&mut self, stage: &Stage) -> Result<(), Unfit> {
        if self.way != Way::Stock {
            self.kernel = guest::kernel(stage)?;
            return Ok(());
        }
        let mend = "give --stock-kernel FILE and --stock-initrd FILE; resources/debian-kernel and resources/initramfs make them";
        let (kernel, initrd) =
            stage.stock_kernel.clone().ok_or_else(|| Unfit::missing("a distribution's kernel", mend))?;
        self.initrd = Some(initrd.ok_or_else(|| Unfit::missing("its initial RAM disk", mend))?);
        self.kernel = kernel;
        Ok(())
    }
}

impl Contender for Rvmm {
    fn name(&self) -> &'static str {
        match self.way {
            Way::Small => "rvmm",
            Way::Stock => "rvmm-stock",
            Way::Restored => "rvmm-restored",
        }
    }

    fn title(&self) -> &'static str {
        match self.way {
            Way::Small => "rvmm, small kernel",
            Way::Stock => "rvmm, distribution's kernel",
            Way::Restored => "rvmm, restored",
        }
    }

    fn kind(&self) -> Kind {
        Kind::MicroVm
    }

    fn prepare(&mut self, stage: &Stage) -> Result<Prepared, Unfit> {
        self.program = program().ok_or_else(|| Unfit::missing("rvmm", "cargo build --release makes it"))?;
        guest::kvm()?;
        self.find_kernel(stage)?;
        let mut ships = guest::ships(stage, self.program.clone(), self.kernel.clone())?;
        let mut steps = vec![guest::IMAGE.to_owned()];
        match self.way {
            Way::Small => {}
            Way::Stock => {
                ships
                    .extend(self.initrd.iter().map(|initrd| ("initial RAM disk".to_owned(), initrd.clone())));
                steps.push("make an initial RAM disk with the modules of the kernel".to_owned());
            }
            Way::Restored => {
                self.save(stage)?;
                self.record(stage)?;
                // The kernel is in the snapshot.
                ships.retain(|(_, path)| *path != self.kernel);
                ships.push(("snapshot".to_owned(), Self::snapshot(stage)));
                steps.push("boot a guest once and save it".to_owned());
                steps.push("restore it once, and record what it uses of its memory".to_owned());
            }
        }
        Ok(Prepared { version: stage::version(&self.program, "--version"), ships, steps })
    }

    fn launch(&self, stage: &Stage, order: &Order) -> anyhow::Result<Launch> {
        if self.way != Way::Restored {
            return Ok(Launch::new(self.boot(stage, order)?));
        }
        if order.link.is_some() || order.data.is_some() {
            bail!(
                "a guest that was saved without a network device and a second disk has none when it goes on"
            );
        }
        let mut command = self.rvmm(stage);
        command.arg("restore").arg(Self::snapshot(stage)).args(["--id", order.id]);
        Ok(Launch { input: line(order.task), ..Launch::new(command) })
    }
}

/// What the waiting program reads.
fn line(task: &Task) -> Vec<u8> {
    let mut line = task.for_built_in().join(" ");
    line.push('\n');
    line.into_bytes()
}
