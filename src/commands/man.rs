//! `rvmm man`

use super::{Outcome, print};
use crate::args;

/// Prints the manual page, rvmm(1), as roff.
pub(crate) fn run() -> Outcome {
    let mut page = Vec::new();
    clap_mangen::Man::new(args::command()).render(&mut page)?;
    print(&page)
}
