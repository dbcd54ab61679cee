//! What takes part: how it is found, set up, and started.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::anyhow;

use crate::results::{self, Kind};

use super::stage::Stage;
use super::task::Task;

/// One that takes part.
pub(crate) trait Contender {
    /// What `--only` calls it.
    fn name(&self) -> &'static str;

    /// What a reader calls it.
    fn title(&self) -> &'static str;

    /// What stands between its program and the host.
    fn kind(&self) -> Kind;

    /// Looks for what it needs, and makes what it starts from, below `stage`'s folder. Called once, before all else.
    fn prepare(&mut self, stage: &Stage) -> Result<Prepared, Unfit>;

    /// The command that runs one instance in the foreground, with its standard output on ours.
    fn launch(&self, stage: &Stage, order: &Order) -> anyhow::Result<Launch>;
}

/// What is known of one that is ready.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// What its program says of its version.
    pub(crate) version: Option<String>,
    /// Files that its host must have: what each is, and its path. Those that are alike are counted as one.
    pub(crate) ships: Vec<(String, std::path::PathBuf)>,
    /// What was done to set it up, a step each.
    pub(crate) steps: Vec<String>,
}

/// Why one cannot take part.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// Something is not there.
    Missing(results::Missing),
    /// It could not be set up.
    Failed(anyhow::Error),
}

impl Unfit {
    /// `what` is not there; `mend` brings it.
    pub(crate) fn missing(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Missing(results::Missing { what: what.into(), mend: mend.into() })
    }
}

impl<E: Into<anyhow::Error>> From<E> for Unfit {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// What an instance is to be.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// Its name, which no other has while it lives: letters, digits and hyphens.
    pub(crate) id: &'a str,
    /// What it does.
    pub(crate) task: &'a Task,
    /// The network that it is on; none for none but its own loopback.
    pub(crate) link: Option<&'a Link>,
    /// What it finds at [`DATA`](super::task::DATA) to write to, outside of its root file system. For a container a folder of the host; for a
    /// VM an ext4 image, which is its second disk (`/dev/vdb`) and which the built-in program mounts when the task's words say so.
    pub(crate) data: Option<&'a Path>,
}

impl<'a> Order<'a> {
    /// An instance on no network, which writes to nothing.
    pub(crate) fn new(id: &'a str, task: &'a Task) -> Self {
        Self { id, task, link: None, data: None }
    }
}

/// A network that the benchmark has made for one instance.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// How the instance is attached to it.
    pub(crate) attachment: Attachment,
    /// The instance's address.
    pub(crate) address: Ipv4Addr,
    /// Length of the network's prefix, in bits.
    pub(crate) prefix: u8,
    /// The address of the other end, where a server listens.
    pub(crate) server: Ipv4Addr,
}

/// How an instance is attached to a network.
#[derive(Clone, Debug)]
pub(crate) enum Attachment {
    /// It is the host's own.
    Host,
    /// A network namespace, which has the address already: its name below `/run/netns`.
    Namespace(String),
    /// A tap of the host, for a VM whose guest gives itself the address.
    Tap(String),
}

/// How an instance is started.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The command. Its standard streams are set by who runs it.
    pub(crate) command: Command,
    /// What it is to read from its standard input, if that shall not be empty.
    pub(crate) input: Vec<u8>,
    /// What removes what may be left of it when it was killed. Failures are of no interest.
    pub(crate) tidy: Vec<Command>,
}

impl Launch {
    /// `command` alone, with nothing to read, which leaves nothing behind.
    pub(crate) fn new(command: Command) -> Self {
        Self { command, input: Vec::new(), tidy: Vec::new() }
    }
}

/// A contender and what was found of it.
pub(crate) struct Entry {
    /// The contender.
    pub(crate) contender: Box<dyn Contender>,
    /// What [`Contender::prepare`] has said.
    pub(crate) prepared: Prepared,
    /// What was measured.
    pub(crate) result: results::Contender,
    /// It is ready and has not been given up.
    pub(crate) takes_part: bool,
}

impl Entry {
    /// Sets `contender` up.
    pub(crate) fn new(mut contender: Box<dyn Contender>, stage: &Stage) -> Self {
        let mut result = results::Contender::new(contender.name(), contender.title(), contender.kind());
        let mut prepared = Prepared::default();
        let mut takes_part = false;
        let fits = result.kind != Kind::MicroVm || stage.guest_memory() <= stage.memory_budget;
        let outcome = if fits {
            contender.prepare(stage)
        } else {
            Err(Unfit::Failed(anyhow!(
                "a guest's memory is more than the memory budget; see --guest-memory, --memory-budget"
            )))
        };
        match outcome {
            Ok(found) => {
                result.version.clone_from(&found.version);
                prepared = found;
                match contender.launch(stage, &Order::new("ID", &Task::start())) {
                    Ok(launch) => {
                        result.command = words(&launch.command);
                        takes_part = true;
                    }
                    Err(error) => result.errors.push(format!("{error:#}")),
                }
            }
            Err(Unfit::Missing(missing)) => result.missing = Some(missing),
            Err(Unfit::Failed(error)) => result.errors.push(format!("{error:#}")),
        }
        Self { contender, prepared, result, takes_part }
    }

    /// Notes what went wrong; the contender is left out from now on.
    pub(crate) fn give_up(&mut self, during: &str, error: &anyhow::Error) {
        self.fail(during, error);
        self.takes_part = false;
    }

    /// Notes what went wrong.
    pub(crate) fn fail(&mut self, during: &str, error: &anyhow::Error) {
        self.result.errors.push(format!("{during}: {error:#}"));
    }
}

/// How many take part.
pub(crate) fn taking_part(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| entry.takes_part).count()
}

/// A command as a shell's words.
pub(crate) fn words(command: &Command) -> Vec<String> {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}
