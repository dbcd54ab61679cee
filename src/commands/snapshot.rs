//! `rvmm snapshot`: saves a VM, and looks at what was saved.

mod check;
mod create;
mod inspect;

use std::error::Error;

use super::Outcome;
use crate::args::{SnapshotArgs, SnapshotVerb};
use crate::name::known;

/// Does what the words behind the verb say.
pub(crate) fn run(args: &SnapshotArgs) -> Outcome {
    match &args.verb {
        None => create::run(&args.create),
        Some(SnapshotVerb::Create(create)) => create::run(create),
        Some(SnapshotVerb::Inspect(args)) => inspect::run(args).map_err(|error| hint("inspect", error)),
        Some(SnapshotVerb::Verify(args)) => check::verify(args).map_err(|error| hint("verify", error)),
        Some(SnapshotVerb::Merge(args)) => check::merge(args).map_err(|error| hint("merge", error)),
    }
}

/// `error`, with what to do if the user meant the VM that is called `verb`.
fn hint(verb: &str, error: Box<dyn Error>) -> Box<dyn Error> {
    let is_called_so = known::all().is_ok_and(|all| all.iter().any(|vm| vm.id == verb));
    if !is_called_so {
        return error;
    }
    let error = crate::chain(&*error);
    format!("{error}; to save the VM that is called {verb}: rvmm snapshot create {verb} DIR").into()
}
