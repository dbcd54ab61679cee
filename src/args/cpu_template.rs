//! `--cpu-template help`.

use vmm::cpu::template::builtins;

use super::Stop;

/// What asks for the list of names. A file of this name is `./help`.
pub(super) const HELP: &str = "help";

/// The templates that rvmm has of its own.
pub(super) fn list() -> Stop {
    let line = |name: &str, summary: &str| format!("  {name:<10}{summary}\n");
    let lines: String = builtins().iter().map(|builtin| line(builtin.name, builtin.summary)).collect();
    Stop::Text(format!(
        "CPU templates that rvmm has of its own:\n{lines}Any other is a file; see docs/cpu-templates.md\n"
    ))
}
