//! Runtimes that take an OCI bundle: runc, crun, and gVisor's runsc.

#![expect(clippy::indexing_slicing, reason = "a key of a JSON object that is not there is null, or is made")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::compare::contender::{Attachment, Contender, Launch, Link, Order, Prepared, Unfit};
use crate::compare::stage::{self, Stage};
use crate::compare::task::{DATA, Task};
use crate::compare::{helper, remains};
use crate::results::Kind;

/// Room in `/tmp`, which is all that a container can write to.
pub(super) const TMP: &str = "16m";

/// A runtime, and what sets it apart from the others.
struct Runtime {
    name: &'static str,
    title: &'static str,
    kind: Kind,
    /// Debian's package that brings it.
    package: &'static str,
    /// Whether its `spec` knows `--rootless`.
    rootless_spec: bool,
    /// Arguments of one that runs without root rights.
    rootless: &'static [&'static str],
    /// What has it go without control groups, if it can.
    without_groups: Option<&'static str>,
    /// Arguments that say which network there is: none, or that of the namespace, or the host's.
    networks: Option<[&'static str; 3]>,
}

const RUNTIMES: [Runtime; 3] = [
    Runtime {
        name: "runc",
        title: "runc",
        kind: Kind::Container,
        package: "runc",
        rootless_spec: true,
        rootless: &[],
        without_groups: None,
        networks: None,
    },
    Runtime {
        name: "crun",
        title: "crun",
        kind: Kind::Container,
        package: "crun",
        rootless_spec: true,
        rootless: &[],
        without_groups: Some("--cgroup-manager=disabled"),
        networks: None,
    },
    Runtime {
        name: "runsc",
        title: "gVisor (runsc)",
        kind: Kind::Sandbox,
        package: "runsc",
        rootless_spec: false,
        rootless: &["--rootless"],
        without_groups: Some("--ignore-cgroups"),
        networks: Some(["--network=none", "--network=sandbox", "--network=host"]),
    },
];

/// A runtime that takes part.
pub(crate) struct Oci {
    runtime: &'static Runtime,
    program: PathBuf,
    /// What its `spec` gives.
    spec: Value,
    groups: bool,
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = Oci> {
    RUNTIMES.iter().map(|runtime| Oci { runtime, program: PathBuf::new(), spec: Value::Null, groups: true })
}

/// What removes the containers that the runtimes' state in `folder`, a comparison's, has.
pub(super) fn remains(folder: &Path) -> Vec<Command> {
    let mut commands = Vec::new();
    for runtime in &RUNTIMES {
        let root = folder.join(runtime.name);
        for container in fs::read_dir(&root).into_iter().flatten().flatten() {
            let name = container.file_name();
            // runsc has `ID_sandbox:ID.state`, the others a folder of that name.
            let name = name.to_string_lossy();
            let id = name.split_once("_sandbox:").map_or(name.as_ref(), |(id, _)| id);
            commands.push(delete(Path::new(runtime.name), &root, id));
        }
    }
    commands
}

fn delete(program: &Path, root: &Path, id: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("--root").arg(root).args(["delete", "--force", id]);
    command
}

impl Oci {
    fn root(&self, stage: &Stage) -> PathBuf {
        stage.path(self.runtime.name)
    }

    /// The bundle's configuration for `order`.
    fn config(&self, stage: &Stage, order: &Order) -> anyhow::Result<Value> {
        let mut config = self.spec.clone();
        let object = config.as_object_mut().context("spec gave no object")?;
        object.insert("root".to_owned(), json!({ "path": stage.rootfs(), "readonly": true }));
        let process = &mut config["process"];
        process["terminal"] = json!(false);
        process["args"] = json!(order.task.argv());
        if let (Some((name, folder)), Some(list)) = (remains::marked(), process["env"].as_array_mut()) {
            list.push(json!(format!("{name}={}", folder.display())));
        }
        if let Some(mounts) = config["mounts"].as_array_mut() {
            let options = ["nosuid", "nodev", "mode=1777", &format!("size={TMP}")];
            mounts.push(
                json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options }),
            );
        }
        if let (Some(data), Some(mounts)) = (order.data, config["mounts"].as_array_mut()) {
            mounts.push(
                json!({ "destination": DATA, "type": "bind", "source": data, "options": ["bind", "rw"] }),
            );
        }
        let linux = &mut config["linux"];
        if geteuid().is_root() && self.groups {
            linux["cgroupsPath"] = json!(format!("{}/{}", remains::control_group(stage.folder()), order.id));
        }
        let namespaces = linux["namespaces"].as_array_mut().context("spec gave no namespaces")?;
        namespaces.retain(|namespace| namespace["type"] != "network");
        match order.link.map(|link| &link.attachment) {
            None => namespaces.push(json!({ "type": "network" })),
            Some(Attachment::Host) => {}
            Some(Attachment::Namespace(name)) => {
                namespaces.push(json!({ "type": "network", "path": format!("/run/netns/{name}") }));
            }
            Some(Attachment::Tap(_)) => bail!("a container is attached to a network namespace, not to a tap"),
        }
        Ok(config)
    }

    /// Has the runtime write the configuration that it proposes, and reads it.
    fn propose(&self, stage: &Stage) -> anyhow::Result<Value> {
        let folder = stage.instance_folder(&format!("{}-spec", self.runtime.name))?;
        let mut command = Command::new(&self.program);
        command.arg("spec").current_dir(&folder);
        if self.runtime.rootless_spec && !geteuid().is_root() {
            command.arg("--rootless");
        }
        helper::output(command, helper::LIMIT)?;
        let text =
            fs::read(folder.join("config.json")).with_context(|| format!("{} spec", self.runtime.name))?;
        serde_json::from_slice(&text).with_context(|| format!("{} spec", self.runtime.name))
    }

    /// Starts one instance, to see whether it does.
    fn attempt(&self, stage: &Stage) -> anyhow::Result<()> {
        let id = format!("{}-try", stage.id());
        let launch = self.launch(stage, &Order::new(&id, &Task::start()))?;
        let outcome = helper::output(launch.command, stage.timeout);
        launch.tidy.into_iter().for_each(helper::tidy);
        outcome.map(drop)
    }
}

impl Contender for Oci {
    fn name(&self) -> &'static str {
        self.runtime.name
    }

    fn title(&self) -> &'static str {
        self.runtime.title
    }

    fn kind(&self) -> Kind {
        self.runtime.kind
    }

    fn prepare(&mut self, stage: &Stage) -> Result<Prepared, Unfit> {
        let name = self.runtime.name;
        self.program = stage::on_path(name)
            .ok_or_else(|| Unfit::missing(name, format!("apt install {}", self.runtime.package)))?;
        self.spec = self.propose(stage)?;
        let mut steps = vec![format!("write config.json, from what {name} spec proposes")];
        if let Err(error) = self.attempt(stage) {
            super::refused(error, self.runtime.without_groups.is_some(), &mut steps)?;
            self.groups = false;
            self.attempt(stage)?;
        }
        Ok(Prepared {
            version: stage::version(&self.program, "--version"),
            ships: vec![
                ("program".to_owned(), self.program.clone()),
                ("root file system".to_owned(), stage.rootfs()),
            ],
            steps,
        })
    }

    fn launch(&self, stage: &Stage, order: &Order) -> anyhow::Result<Launch> {
        let runtime = self.runtime;
        let bundle = stage.instance_folder(&format!("{}-{}", runtime.name, order.id))?;
        fs::write(bundle.join("config.json"), serde_json::to_vec(&self.config(stage, order)?)?)?;
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.root(stage));
        if !geteuid().is_root() {
            command.args(runtime.rootless);
        }
        if !self.groups {
            command.args(runtime.without_groups);
        }
        if let Some([none, namespace, host]) = runtime.networks {
            command.arg(match order.link {
                None => none,
                Some(Link { attachment: Attachment::Host, .. }) => host,
                Some(_) => namespace,
            });
        }
        command.args(["run", "--bundle"]).arg(&bundle).arg(order.id);
        Ok(Launch { tidy: vec![delete(&self.program, &self.root(stage), order.id)], ..Launch::new(command) })
    }
}
