//! A plain process: what all others are compared with.

use std::process::Command;

use crate::compare::contender::{Contender, Launch, Order, Prepared, Unfit};
use crate::compare::stage::Stage;
use crate::results::Kind;

/// The program, started where it lies.
pub(crate) struct Process;

impl Contender for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn title(&self) -> &'static str {
        "plain process"
    }

    fn kind(&self) -> Kind {
        Kind::Process
    }

    fn prepare(&mut self, stage: &Stage) -> Result<Prepared, Unfit> {
        Ok(Prepared { ships: vec![("root file system".to_owned(), stage.rootfs())], ..Prepared::default() })
    }

    fn launch(&self, stage: &Stage, order: &Order) -> anyhow::Result<Launch> {
        Ok(Launch::new(on_host(stage, order)))
    }
}

/// The order's task as a command of the host.
pub(crate) fn on_host(stage: &Stage, order: &Order) -> Command {
    let mut words = order.task.argv().into_iter();
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(stage.rootfs().join(program.trim_start_matches('/')));
    command.args(words);
    command
}
