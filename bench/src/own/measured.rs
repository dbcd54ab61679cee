//! What was measured of several VMMs, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::summary::Summary;

/// One thing that was measured of one VMM.
pub(crate) struct Measured {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) vmm: &'static str,
    pub(crate) summary: Summary,
}

/// The table. Ratios are to the first VMM of which the same was measured.
pub(crate) fn table(all: &[Measured]) -> String {
    let mut text =
        format!("{:<28} {:<12} {:>10} {:>9} {:>9}   {:>7}\n", "", "", "median", "p90", "min", "ratio");
    for Measured { what, unit, vmm, summary } in all {
        let base = all.iter().find(|other| other.what == *what).map_or(1.0, |base| base.summary.median);
        let Summary { median, p90, min } = summary;
        let ratio = median / base;
        let _ =
            writeln!(text, "{what:<28} {vmm:<12} {median:>7.2} {unit} {p90:>9.2} {min:>9.2}   {ratio:>7.2}");
    }
    text
}

/// The same as JSON.
pub(crate) fn json(all: &[Measured]) -> Value {
    let measured = all.iter().map(|Measured { what, unit, vmm, summary }| {
        json!({"what": what, "unit": unit, "vmm": vmm, "summary": summary.json()})
    });
    measured.collect()
}
