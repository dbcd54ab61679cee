//! All contenders, in the order of their turns.

mod process;
pub(crate) mod rvmm;

use anyhow::ensure;

use crate::args::CompareArgs;

use super::contender::{Contender, Entry};
use super::interrupt;
use super::stage::Stage;

fn all() -> Vec<Box<dyn Contender>> {
    vec![Box::new(process::Process), Box::new(rvmm::Rvmm::small())]
}

/// Prints the names.
pub(crate) fn list() {
    for contender in all() {
        println!("{:<20}{}", contender.name(), contender.title());
    }
}

/// Those that `--only` names, set up.
///
/// # Errors
/// There is none of a name that was given.
pub(crate) fn prepared(args: &CompareArgs, stage: &Stage) -> anyhow::Result<Vec<Entry>> {
    let all = all();
    for name in &args.only {
        ensure!(
            all.iter().any(|contender| contender.name() == name),
            "--only {name}: there is no such contender; rvmm bench compare --only help lists them"
        );
    }
    let wanted = all
        .into_iter()
        .filter(|contender| args.only.is_empty() || args.only.iter().any(|name| name == contender.name()));
    wanted
        .map(|contender| {
            interrupt::check()?;
            Ok(Entry::new(contender, stage))
        })
        .collect()
}
