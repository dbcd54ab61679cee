//! A virtual environment of Python: its interpreter starts the program, as a Python program would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::compare::contender::{Contender, Launch, Order, Prepared, Unfit};
use crate::compare::helper;
use crate::compare::stage::{self, Stage};
use crate::results::Kind;

/// The Python program: it starts what its arguments say, waits for it, and ends as it has.
const SCRIPT: &str = "import subprocess, sys\nsys.exit(subprocess.call(sys.argv[1:]))\n";

/// Says where the interpreter is that is behind an environment's, and its standard library.
const PLACES: &str = "import sys, sysconfig\nprint(getattr(sys, '_base_executable', sys.executable))\n\
     print(sysconfig.get_path('stdlib'))\n";

/// The virtual environment.
pub(crate) struct Venv;

impl Venv {
    fn folder(stage: &Stage) -> PathBuf {
        stage.path("venv")
    }
}

/// What the environment needs of the host's Python: the program, and its library with what is installed in that.
fn base(python: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut command = Command::new(python);
    command.args(["-c", PLACES]);
    let text = String::from_utf8(helper::output(command, helper::LIMIT)?)?;
    let whats = ["interpreter", "standard library"];
    let places: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    ensure!(places.len() == whats.len(), "Python did not say where it is: {text:?}");
    let found = whats.iter().zip(places);
    found
        .map(|(what, place)| Ok(((*what).to_owned(), fs::canonicalize(place).context(place.to_owned())?)))
        .collect()
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
        // Nothing of the folder that we happen to be in is run (-I). pip takes its time to install itself, and nothing needs it.
        command.args(["-I", "-m", "venv", "--without-pip"]).arg(&folder);
        helper::output(command, helper::LIMIT)?;
        fs::write(folder.join("start.py"), SCRIPT)?;
        let python = folder.join("bin/python");
        let mut ships = base(&python)?;
        ships.extend([
            ("virtual environment".to_owned(), folder),
            ("root file system".to_owned(), stage.rootfs()),
        ]);
        Ok(Prepared {
            version: stage::version(&python, "--version"),
            ships,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_environment_ships_is_the_library_of_the_host() -> anyhow::Result<()> {
        let Some(python) = stage::on_path("python3") else { return Ok(()) };
        let ships = base(&python)?;
        let (what, library) = ships.last().context("nothing")?;
        assert_eq!(what, "standard library");
        assert!(ships.iter().all(|(_, place)| place.exists()) && library.join("subprocess.py").exists());
        Ok(())
    }
}
