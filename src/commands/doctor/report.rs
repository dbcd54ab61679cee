//! Findings, and how they are shown: a table for people, JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::escape::Escape;

/// How the host does on one point.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Works in part; the finding says what does not.
    Limited,
    /// Not there; the finding says what will not work.
    Missing,
}

/// One point that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Check {
    /// What was looked at; stable, for programs.
    pub(super) name: &'static str,
    pub(super) status: Status,
    /// What was found and, unless all is well, what will not work.
    pub(super) finding: String,
    /// What to type or set to have it.
    pub(super) mend: Option<String>,
    /// No VM can be started when this is missing.
    pub(super) required: bool,
}

impl Check {
    pub(super) fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, finding: finding.into(), mend: None, required: false }
    }

    pub(super) fn limited(name: &'static str, finding: impl Into<String>) -> Self {
        Self { status: Status::Limited, ..Self::ok(name, finding) }
    }

    pub(super) fn missing(name: &'static str, finding: impl Into<String>) -> Self {
        Self { status: Status::Missing, ..Self::ok(name, finding) }
    }

    pub(super) fn mend(self, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }

    pub(super) fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

/// All findings and the conclusion.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) can_start_a_vm: bool,
    pub(super) checks: Vec<Check>,
}

/// Whether to colour the status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Colour {
    Ansi,
    None,
}

impl Report {
    pub(super) fn new(checks: Vec<Check>) -> Self {
        let stopped = checks.iter().any(|check| check.required && check.status == Status::Missing);
        Self { version: env!("CARGO_PKG_VERSION"), can_start_a_vm: !stopped, checks }
    }

    /// One line for each check, a second one for its mend, and the conclusion.
    pub(super) fn table(&self, colour: Colour) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        let mut table = String::new();
        for check in &self.checks {
            let (before, word, after) = check.status.word(colour);
            let _ = write!(table, "{before}{word:7}{after}  {:width$}  ", check.name);
            let _ = Escape(&mut table).write_str(&check.finding);
            table.push('\n');
            if let Some(mend) = &check.mend {
                let _ = write!(table, "{:7}  {:width$}  → ", "", "");
                let _ = Escape(&mut table).write_str(mend);
                table.push('\n');
            }
        }
        table.push('\n');
        table.push_str(self.conclusion());
        table.push('\n');
        table
    }

    fn conclusion(&self) -> &'static str {
        if !self.can_start_a_vm {
            "No VM can be started on this host."
        } else if self.checks.iter().all(|check| check.status == Status::Ok) {
            "VMs can be started on this host."
        } else {
            "VMs can be started on this host, within the limits above."
        }
    }
}

impl Status {
    /// The word, between the sequences that colour it.
    fn word(self, colour: Colour) -> (&'static str, &'static str, &'static str) {
        let (start, word) = match self {
            Self::Ok => ("\x1b[32m", "ok"),
            Self::Limited => ("\x1b[33m", "limited"),
            Self::Missing => ("\x1b[31m", "missing"),
        };
        match colour {
            Colour::Ansi => (start, word, "\x1b[0m"),
            Colour::None => ("", word, ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Check::ok("kernel", "Linux 6.1"),
            Check::missing("/dev/net/tun", "guests have no network").mend("sudo modprobe tun"),
        ])
    }

    #[test]
    fn the_table_is_aligned_and_ends_in_the_conclusion() {
        assert_eq!(
            report().table(Colour::None),
            "ok       kernel        Linux 6.1\n\
             missing  /dev/net/tun  guests have no network\n                       → sudo modprobe tun\n\
             \nVMs can be started on this host, within the limits above.\n"
        );
    }

    #[test]
    fn only_the_status_is_coloured() {
        let table = report().table(Colour::Ansi);
        assert!(table.starts_with("\x1b[32mok     \x1b[0m  kernel "), "{table:?}");
    }

    #[test]
    fn only_something_required_keeps_vms_from_starting() {
        assert!(report().can_start_a_vm);
        let report = Report::new(vec![Check::missing("/dev/kvm", "does not exist").required()]);
        assert!(!report.can_start_a_vm);
        assert!(report.table(Colour::None).ends_with("No VM can be started on this host.\n"));
        assert!(Report::new(vec![Check::limited("x", "some").required()]).can_start_a_vm);
    }

    #[test]
    fn programs_get_every_field() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["can_start_a_vm"], true);
        assert_eq!(
            json["checks"][1],
            serde_json::json!({
                "name": "/dev/net/tun",
                "status": "missing",
                "finding": "guests have no network",
                "mend": "sudo modprobe tun",
                "required": false,
            })
        );
    }
}
