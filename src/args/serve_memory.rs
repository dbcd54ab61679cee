//! `rvmm serve-memory DIR --socket PATH`

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Whose memory is served, and where.
#[derive(Debug, Args)]
pub(crate) struct ServeMemoryArgs {
    /// The snapshot's folder.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = super::a_folder())]
    pub(crate) dir: PathBuf,

    /// The unix socket that VMs connect to: backend_path of a restore with backend_type Uffd.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) socket: PathBuf,

    /// End with the last VM.
    #[arg(long)]
    pub(crate) once: bool,

    /// Write which pages the first VM asks for, in their order, to the file working-set of the folder; later VMs are sent
    /// those before they ask.
    #[arg(long)]
    pub(crate) record: bool,

    /// Print a JSON object for each VM that has ended, instead of a line.
    #[arg(long)]
    pub(crate) json: bool,
}
