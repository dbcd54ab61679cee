//! A virtual environment of Python: its interpreter starts the program, as a Python program would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::compare::contender::{Contender, Launch, Order, Prepared, Unfit};
use crate::compare::helper;
use crate::compare::stage::{self, Stage};
use crate::results::Kind;

/// The Python program: it starts what its arguments say, waits for it, and ends as it has.
const SCRIPT: &str = "import subprocess, sys\nsys.exit(subprocess.call(sys.argv[1:]))\n";

/// Says where the interpreter is that is behind an environment's, its standard library, and its shared library if it has one.
const PLACES: &str = "import os, sys, sysconfig
print(getattr(sys, '_base_executable', sys.executable))
print(sysconfig.get_path('stdlib'))
get = sysconfig.get_config_var
if get('Py_ENABLE_SHARED'): print(os.path.join(get('LIBDIR'), get('INSTSONAME')))
";

/// Folders in the standard library with what was installed beside it.
const INSTALLED: [&str; 2] = ["site-packages", "dist-packages"];

/// The virtual environment.
pub(crate) struct Venv;

impl Venv {
    fn folder(stage: &Stage) -> PathBuf {
        stage.path("venv")
    }
}

/// What the environment needs of the host's Python: the program and the standard library.
fn base(python: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut command = Command::new(python);
    command.args(["-c", PLACES]);
    let text = String::from_utf8(helper::output(command, helper::LIMIT)?)?;
    let mut lines = text.lines();
    let (program, library) = lines.next().zip(lines.next()).context("Python did not say where it is")?;
    let program = fs::canonicalize(program).with_context(|| program.to_owned())?;
    // Where it is installed by packages, its shared library may be elsewhere.
    let shared = lines.filter_map(|path| fs::canonicalize(path).ok());
    let mut ships: Vec<_> =
        std::iter::once(program).chain(shared).map(|path| ("interpreter".to_owned(), path)).collect();
    for entry in fs::read_dir(library).with_context(|| library.to_owned())? {
        let entry = entry?;
        if !INSTALLED.iter().any(|name| entry.file_name() == *name) {
            ships.push(("standard library".to_owned(), entry.path()));
        }
    }
    Ok(ships)
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
    fn what_an_environment_ships_has_the_library_and_not_what_was_installed_there() -> anyhow::Result<()> {
        let Some(python) = stage::on_path("python3") else { return Ok(()) };
        let ships = base(&python)?;
        assert!(ships.iter().all(|(_, place)| place.exists()));
        assert!(ships.iter().any(|(_, place)| place.ends_with("subprocess.py")));
        assert!(!ships.iter().any(|(_, place)| place.ends_with("site-packages")));
        Ok(())
    }
}
