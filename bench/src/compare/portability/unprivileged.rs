//! The same contenders, set up and started by a user without rights: this program runs once more, as that user.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::compare::contender::Launch;
use crate::compare::contenders::{self, KVM};
use crate::compare::instance::Instance;
use crate::compare::stage::Stage;
use crate::results::{Contender, Results};

/// The user and group that have nothing.
const NOBODY: u32 = 65534;

/// How many instances' time that user has for each contender: they are set up too.
const INSTANCES: u32 = 5;

/// How long an error may be, in characters.
const MOST: usize = 300;

/// The folder's name: podman takes no more than 50 characters for a path that ends below it.
const FOLDER: &str = "u";

/// How it went for one contender.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// It started.
    Started,
    /// It did not, and the user was told this.
    Refused(String),
    /// It could not be tried, for this reason: nothing is known of it.
    Untried(String),
}

/// How it went for each of the contenders `names`.
///
/// The user is in the group of `/dev/kvm`, if that has one which may open it.
///
/// # Errors
/// The user could not start at all: not the fault of any contender.
pub(super) fn start(stage: &Stage, names: &[&str]) -> anyhow::Result<BTreeMap<String, Outcome>> {
    let mode = |path: &Path| fs::metadata(path).map_or(0, |file| file.mode());
    let closed = stage.folder().ancestors().skip(1).find(|folder| mode(folder) & 0o001 == 0);
    if let Some(closed) = closed {
        anyhow::bail!("{} is closed to other users; --folder names another place", closed.display());
    }
    fs::set_permissions(stage.folder(), Permissions::from_mode(0o711))?;
    let folder = stage.path(FOLDER);
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let outcome = start_in(&folder, stage, names);
    // The largest part is copies.
    let _ = fs::remove_dir_all(&folder);
    let _ = fs::set_permissions(stage.folder(), Permissions::from_mode(0o700));
    outcome
}

/// Variables that it is told.
const KEPT: [&str; 4] = ["PATH", "LANG", "FIRECRACKER", "RVMM_EMULATED_HOST"];

fn start_in(folder: &Path, stage: &Stage, names: &[&str]) -> anyhow::Result<BTreeMap<String, Outcome>> {
    let program = copy(Path::new("/proc/self/exe"), &folder.join("rvmm-bench"))?;
    let found = folder.join("found.json");
    let mut command = Command::new(program);
    // What root's environment has is root's.
    command.env_clear();
    command.args(["compare", "--measure", "start", "--runs", "1", "--only", &names.join(",")]);
    command.args(["--timeout", &stage.timeout.as_secs().to_string()]);
    command.args(["--guest-memory", &stage.guest_mib.to_string()]);
    command.arg("--json").arg(&found).arg("--folder").arg(folder);
    if let Some(kernel) = &stage.kernel {
        command.arg("--kernel").arg(readable(kernel, folder)?);
    }
    if let Some((kernel, initrd)) = &stage.stock_kernel {
        command.arg("--stock-kernel").arg(readable(kernel, folder)?);
        if let Some(initrd) = initrd {
            command.arg("--stock-initrd").arg(readable(initrd, folder)?);
        }
    }
    if let Some(rvmm) = contenders::rvmm::program() {
        command.env("RVMM_PROGRAM", readable(&rvmm, folder)?);
    }
    for (variable, value) in KEPT.iter().filter_map(|variable| Some((variable, env::var_os(variable)?))) {
        command.env(variable, value);
    }
    for variable in ["HOME", "TMPDIR", "XDG_RUNTIME_DIR"] {
        command.env(variable, folder);
    }
    command.current_dir(folder).uid(NOBODY).gid(group());
    chown(folder, Some(NOBODY), Some(group()))?;
    let contenders = u32::try_from(names.len()).unwrap_or(u32::MAX);
    let time = stage.timeout.saturating_mul(contenders.saturating_mul(INSTANCES));
    Instance::spawn(Launch::new(command), time)?.end()?;
    ensure!(found.is_file(), "it ended without a result");
    let results = Results::read(&found)?;
    Ok(results.contenders.iter().map(|contender| (contender.name.clone(), told(contender))).collect())
}

/// How it went for a contender that root had set up before.
fn told(contender: &Contender) -> Outcome {
    if !contender.start.is_empty() {
        return Outcome::Started;
    }
    match &contender.missing {
        Some(missing) if missing.what == KVM => Outcome::Refused(missing.mend.clone()),
        // It is there for root: a place that is closed, or a folder of this benchmark that does not suit.
        Some(missing) => Outcome::Untried(format!("{} is not there for that user", missing.what)),
        None if contender.errors.is_empty() => Outcome::Untried("it had no turn".to_owned()),
        None => Outcome::Refused(end(&contender.errors.join("; "))),
    }
}

/// The end of `text`: what a program complains of comes last.
fn end(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(MOST);
    if skipped == 0 {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(skipped)).collect()
}

/// The group that opens `/dev/kvm`, if there is one.
fn group() -> u32 {
    let kvm = fs::metadata("/dev/kvm").ok().filter(|kvm| kvm.mode() & 0o060 == 0o060 && kvm.gid() != 0);
    kvm.map_or(NOBODY, |kvm| kvm.gid())
}

/// `path`, or a copy in `folder` if a folder above keeps others from it: a kernel that lies where only root looks tells nothing of
/// who starts it.
///
/// # Errors
/// The file itself is not for everybody: an initial RAM disk may have keys in it.
fn readable(path: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    if all_can_read(path) {
        return Ok(path.to_owned());
    }
    let name = path.file_name().context("a path without a name")?.to_string_lossy();
    ensure!(fs::metadata(path)?.mode() & 0o004 != 0, "not everybody may read {}", path.display());
    // Two files may have one name.
    let copies = fs::read_dir(folder)?.count();
    copy(path, &folder.join(format!("{copies}-{name}")))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    fs::copy(from, to).with_context(|| format!("{} could not be copied", from.display()))?;
    fs::set_permissions(to, Permissions::from_mode(0o755))?;
    Ok(to.to_owned())
}

/// Whether the modes of the file and of all folders above let everyone read it.
fn all_can_read(path: &Path) -> bool {
    let mode = |path: &Path| fs::metadata(path).map_or(0, |file| file.mode());
    let Ok(path) = path.canonicalize() else { return false };
    mode(&path) & 0o004 != 0 && path.ancestors().skip(1).all(|folder| mode(folder) & 0o001 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Kind, Missing};

    fn failed(errors: &[&str], missing: Option<&str>) -> Contender {
        Contender {
            missing: missing.map(|what| Missing { what: what.to_owned(), mend: "mend".to_owned() }),
            errors: errors.iter().map(|&error| error.to_owned()).collect(),
            ..Contender::new("name", "Title", Kind::Container)
        }
    }

    #[test]
    fn only_what_a_contender_said_counts_as_its_refusal() {
        let untried = |contender| matches!(told(&contender), Outcome::Untried(_));
        assert_eq!(told(&failed(&["start: no"], None)), Outcome::Refused("start: no".to_owned()));
        assert_eq!(told(&failed(&[], Some(KVM))), Outcome::Refused("mend".to_owned()));
        assert!(untried(failed(&[], Some("a shorter folder"))));
        assert!(untried(failed(&[], None)));
    }

    #[test]
    fn a_file_below_a_closed_folder_is_copied_for_everyone() -> anyhow::Result<()> {
        let (closed, open) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let file = closed.path().join("kernel");
        fs::write(&file, "content")?;
        fs::set_permissions(&file, Permissions::from_mode(0o644))?;
        fs::set_permissions(closed.path(), Permissions::from_mode(0o700))?;
        let copied = readable(&file, open.path())?;
        assert_eq!(copied, open.path().join("0-kernel"));
        assert_eq!(fs::read_to_string(&copied)?, "content");
        fs::set_permissions(closed.path(), Permissions::from_mode(0o755))?;
        assert_eq!(readable(&file, open.path())?, file);
        fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        assert!(readable(&file, open.path()).is_err());
        Ok(())
    }
}
