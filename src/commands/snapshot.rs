//! `rvmm snapshot`: saves a VM, and looks at what was saved.

mod create;

use super::Outcome;
use crate::args::{SnapshotArgs, SnapshotVerb};

/// Does what the words behind the verb say.
pub(crate) fn run(args: &SnapshotArgs) -> Outcome {
    match &args.verb {
        None => create::run(&args.create),
        Some(SnapshotVerb::Create(create)) => create::run(create),
        Some(_) => unimplemented!(),
    }
}
