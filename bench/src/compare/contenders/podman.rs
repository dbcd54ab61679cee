//! podman, with everything that it keeps below the comparison's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use nix::sys::resource::{Resource, getrlimit};

use crate::compare::contender::{Attachment, Contender, Launch, Order, Prepared, Unfit};
use crate::compare::stage::{self, Stage};
use crate::compare::task::{DATA, Task};
use crate::compare::{helper, remains};
use crate::results::Kind;

/// Where it keeps everything, below the comparison's folder.
const FOLDER: &str = "podman";

/// And what does not outlive a boot.
const RUN: &str = "r";

/// The most characters that it takes for that path.
const LONGEST_RUN: usize = 50;

/// Limits of its containers: open files, and processes. Its own defaults are higher than a host without the right to raise
/// limits may offer.
const LIMITS: [(&str, Resource, u64); 2] =
    [("nofile", Resource::RLIMIT_NOFILE, 1024), ("nproc", Resource::RLIMIT_NPROC, 4096)];

/// podman.
pub(crate) struct Podman {
    program: PathBuf,
    groups: bool,
}

impl Podman {
    /// Not looked for yet.
    pub(crate) fn new() -> Self {
        Self { program: PathBuf::new(), groups: true }
    }

    fn attempt(&self, stage: &Stage) -> anyhow::Result<()> {
        let id = format!("{}-try", stage.id());
        let launch = self.launch(stage, &Order::new(&id, &Task::start()))?;
        let outcome = helper::output(launch.command, stage.timeout);
        if outcome.is_err() {
            launch.tidy.into_iter().for_each(helper::tidy);
        }
        outcome.map(drop)
    }
}

/// podman with what it keeps in the comparison's folder.
fn podman(program: &Path, stage: &Path) -> Command {
    let folder = stage.join(FOLDER);
    let mut command = Command::new(program);
    command.env("CONTAINERS_CONF", folder.join("containers.conf")).env("XDG_RUNTIME_DIR", &folder);
    command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(stage.join(RUN));
    // They would have it ask a service elsewhere.
    for variable in ["CONTAINER_HOST", "CONTAINER_CONNECTION", "CONTAINERS_CONF_OVERRIDE"] {
        command.env_remove(variable);
    }
    command.args(["--storage-driver", "vfs", "--runtime-flag"]);
    command.arg(format!("root={}", folder.join("runtime").display()));
    command
}

/// What removes all containers that are in the comparison's `folder`.
pub(super) fn remains(folder: &Path) -> Option<Command> {
    folder.join(FOLDER).is_dir().then(|| {
        let mut command = podman(Path::new("podman"), folder);
        command.args(["rm", "--force", "--time", "0", "--all"]);
        command
    })
}

/// Nothing of it in the host's own folders, its shared memory, or its journal.
fn configuration(folder: &Path) -> String {
    let of = |name: &str| folder.join(name).display().to_string();
    format!(
        "[containers]\nlog_driver = \"k8s-file\"\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nlock_type = \"file\"\n\
         static_dir = {:?}\ntmp_dir = {:?}\nvolume_path = {:?}\n\
         [network]\nnetwork_config_dir = {:?}\n",
        of("static"),
        of("tmp"),
        of("volumes"),
        of("net")
    )
}

impl Contender for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn title(&self) -> &'static str {
        "podman"
    }

    fn kind(&self) -> Kind {
        Kind::Container
    }

    fn prepare(&mut self, stage: &Stage) -> Result<Prepared, Unfit> {
        self.program =
            stage::on_path("podman").ok_or_else(|| Unfit::missing("podman", "apt install podman"))?;
        if stage.path(RUN).as_os_str().len() > LONGEST_RUN {
            let long = format!("podman takes {LONGEST_RUN} characters for {}", stage.path(RUN).display());
            return Err(Unfit::missing("a shorter folder for podman", format!("--folder DIR; {long}")));
        }
        let folder = stage.path(FOLDER);
        fs::create_dir(&folder)?;
        fs::write(folder.join("containers.conf"), configuration(&folder))?;
        let mut steps = vec!["none but its installation".to_owned()];
        if let Err(error) = self.attempt(stage) {
            super::refused(error, true, &mut steps)?;
            self.groups = false;
            self.attempt(stage)?;
        }
        let parts = ["podman", "conmon", "crun"];
        let found = parts.iter().filter_map(|name| Some(((*name).to_owned(), stage::on_path(name)?)));
        Ok(Prepared {
            version: stage::version(&self.program, "--version"),
            ships: found.chain([("root file system".to_owned(), stage.rootfs())]).collect(),
            steps,
        })
    }

    fn launch(&self, stage: &Stage, order: &Order) -> anyhow::Result<Launch> {
        let network = match order.link.map(|link| &link.attachment) {
            None => "none".to_owned(),
            Some(Attachment::Host) => "host".to_owned(),
            Some(Attachment::Namespace(name)) => format!("ns:/run/netns/{name}"),
            Some(Attachment::Tap(_)) => bail!("a container is attached to a network namespace, not to a tap"),
        };
        let mut command = podman(&self.program, stage.folder());
        command.args(["run", "--rm", "--name", order.id, "--network", &network, "--no-hosts"]);
        command.args(["--read-only", "--read-only-tmpfs=false", "--tmpfs"]);
        command.arg(format!("/tmp:size={}", super::oci::TMP));
        for (name, resource, most) in LIMITS {
            let limit = getrlimit(resource).map_or(most, |(_, hard)| hard.min(most));
            command.arg(format!("--ulimit={name}={limit}:{limit}"));
        }
        if let Some(data) = order.data {
            command.args(["--mount", &format!("type=bind,source={},destination={DATA}", data.display())]);
        }
        if !self.groups {
            command.arg("--cgroups=disabled");
        } else if nix::unistd::geteuid().is_root() {
            command.arg(format!("--cgroup-parent={}", remains::control_group(stage.folder())));
        }
        if let Some((name, value)) = remains::marked() {
            command.arg(format!("--env={name}={}", value.display()));
        }
        command.arg("--rootfs").arg(stage.rootfs()).args(order.task.argv());
        let mut tidy = podman(&self.program, stage.folder());
        tidy.args(["rm", "--force", "--time", "0", order.id]);
        Ok(Launch { tidy: vec![tidy], ..Launch::new(command) })
    }
}
