//! `rvmm snapshot verify DIR` and `rvmm snapshot merge DIR OUT`

use vmm::snapshot::{self, Verified};

use super::super::{Outcome, fit, print, table};
use crate::args::{DirArgs, MergeArgs};

/// Reads all of a snapshot and of those that it is on top of, and names each that is as it was made.
pub(super) fn verify(args: &DirArgs) -> Outcome {
    let verified = snapshot::verify(&args.dir)?;
    let line = |Verified { path, memory }: &Verified| {
        let what = memory.map_or_else(
            || "as it was made, but for its memory, of which there is no digest".to_owned(),
            |bytes| format!("as it was made, {} of memory", table::size(bytes)),
        );
        format!("{}: {what}\n", path.display())
    };
    print(fit::text(verified.iter().map(line).collect::<String>().as_bytes()).as_bytes())
}

/// Writes a snapshot that needs no other.
pub(super) fn merge(args: &MergeArgs) -> Outcome {
    let manifest = snapshot::merge(&args.snapshot.dir, &args.out)?;
    let written = manifest.memory.in_use.saturating_add(manifest.state.size);
    let line = format!("{}: full, {} written\n", args.out.display(), table::size(written));
    print(fit::text(line.as_bytes()).as_bytes())
}
