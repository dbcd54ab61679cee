//! A virtual environment of Python: its interpreter starts the program, as a Python program would.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::compare::contender::{Contender, Launch, Order, Prepared, Unfit};
use crate::compare::helper;
use crate::compare::stage::{self, Stage};
use crate::results::Kind;

/// The Python program: it starts what its arguments say, waits for it, and ends as it has.
const SCRIPT: &str = "import subprocess, sys\nsys.exit(subprocess.call(sys.argv[1:]))\n";

/// The virtual environment.
pub(crate) struct Venv;

impl Venv {
    fn folder(stage: &Stage) -> PathBuf {
        stage.path("venv")
    }
}

impl Contender for Venv {
    fn name(&self) -> &'static str {
        "venv"
    }

    fn title(&self) -> &'static str {
        "Python virtual environment"
    }

    fn kind(&self) -> Kind {
        Kind::Process
    }

    fn prepare(&mut self, stage: &Stage) -> Result<Prepared, Unfit> {
        let python =
            stage::on_path("python3").ok_or_else(|| Unfit::missing("python3", "apt install python3-venv"))?;
        let folder = Self::folder(stage);
        let mut command = Command::new(&python);
        // pip takes its time to install itself, and nothing here needs it.
        command.args(["-m", "venv", "--without-pip"]).arg(&folder);
        helper::output(command, helper::LIMIT)?;
        fs::write(folder.join("start.py"), SCRIPT)?;
        Ok(Prepared {
            version: stage::version(&folder.join("bin/python"), "--version"),
            ships: vec![
                ("interpreter".to_owned(), fs::canonicalize(&python)?),
                ("virtual environment".to_owned(), folder),
                ("root file system".to_owned(), stage.rootfs()),
            ],
            steps: vec!["python3 -m venv --without-pip".to_owned()],
        })
    }

    fn launch(&self, stage: &Stage, order: &Order) -> anyhow::Result<Launch> {
        let program = super::process::on_host(stage, order);
        let folder = Self::folder(stage);
        let mut command = Command::new(folder.join("bin/python"));
        command.arg(folder.join("start.py")).arg(program.get_program()).args(program.get_args());
        Ok(Launch::new(command))
    }
}
