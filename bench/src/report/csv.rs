//! The samples as lines of CSV: contender, measure, metric, unit, run, value.

use std::io::{self, Write};

use crate::results::{Contender, Results};

/// The first line.
const HEAD: [&str; 6] = ["contender", "measure", "metric", "unit", "run", "value"];

/// Writes a line for each sample that is a number to `out`. Runs count from 1; what was measured with several instances has their number
/// there.
///
/// # Errors
/// `out` cannot be written.
pub(crate) fn write(results: &Results, out: impl Write) -> io::Result<()> {
    let mut lines = csv::Writer::from_writer(out);
    lines.write_record(HEAD)?;
    for contender in &results.contenders {
        let mut write = |sample: Sample<'_>| -> io::Result<()> {
            let Sample { measure, metric, unit, run, value } = sample;
            if !value.is_finite() {
                return Ok(());
            }
            let (run, value) = (run.to_string(), value.to_string());
            Ok(lines.write_record([
                harmless(&contender.name),
                measure.into(),
                harmless(metric),
                harmless(unit),
                run,
                value,
            ])?)
        };
        samples(contender).into_iter().try_for_each(&mut write)?;
    }
    lines.flush()
}

/// A value that was measured.
struct Sample<'a> {
    measure: &'static str,
    metric: &'a str,
    unit: &'a str,
    run: usize,
    value: f64,
}

fn samples(contender: &Contender) -> Vec<Sample<'_>> {
    let mut samples = Vec::new();
    let mut add = |measure, run, values: &[(&'static str, &'static str, f64)]| {
        samples.extend(values.iter().map(|&(metric, unit, value)| Sample {
            measure,
            metric,
            unit,
            run,
            value,
        }));
    };
    for (start, run) in contender.start.iter().zip(1..) {
        add(
            "start",
            run,
            &[("marker", "ms", start.marker), ("end", "ms", start.end), ("cpu", "ms", start.cpu)],
        );
        if let Some(parts) = &start.parts {
            add(
                "start",
                run,
                &[("vmm", "ms", parts.vmm), ("kernel", "ms", parts.kernel), ("init", "ms", parts.init)],
            );
        }
    }
    if let Some(memory) = &contender.memory {
        let size = super::words::bytes;
        add("memory", 1, &[("total", "bytes", size(memory.total)), ("guest", "bytes", size(memory.guest))]);
    }
    for step in contender.density.iter().flat_map(|density| &density.steps) {
        #[expect(clippy::cast_precision_loss, reason = "sizes of memory are below 2^53 bytes")]
        let host_memory = step.host_memory as f64;
        add(
            "density",
            step.instances,
            &[
                ("memory", "bytes", super::words::bytes(step.memory)),
                ("host_memory", "bytes", host_memory),
                ("sequential", "ms", step.sequential),
                ("parallel", "ms", step.parallel),
            ],
        );
    }
    for work in &contender.work {
        let sample =
            |(&value, run)| Sample { measure: "work", metric: &work.name, unit: &work.unit, run, value };
        samples.extend(work.samples.iter().zip(1..).map(sample));
    }
    samples
}

/// Text that a spreadsheet does not take for a formula.
fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() }
}
