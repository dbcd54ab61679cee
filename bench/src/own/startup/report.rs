//! The table, and the same as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Series;
use super::contenders::YARDSTICK;
use super::run::Sample;
use crate::own::footprint::Footprint;
use crate::own::host;
use crate::own::summary::Summary;

fn of_times(samples: &[Sample], time: impl Fn(&Sample) -> Duration) -> Summary {
    Summary::of(samples.iter().map(|sample| time(sample).as_secs_f64() * 1e3))
}

/// The median, run by run, of how often the yardstick's time the contender took.
fn ratio(samples: &[Sample], yardstick: &[Sample]) -> f64 {
    let pairs = samples.iter().zip(yardstick);
    Summary::of(pairs.map(|(sample, base)| sample.to_byte.as_secs_f64() / base.to_byte.as_secs_f64())).median
}

fn yardstick(all: &[Series]) -> &[Sample] {
    all.iter().find(|series| series.contender.name == YARDSTICK).map_or(&[], |series| &series.samples)
}

/// The table.
pub(crate) fn table(all: &[Series]) -> String {
    let mut text = format!(
        "{:<20} {:^26}   {:^9}   {:^17}   {:^8}",
        "", "to the byte, ms", "ratio to", "to the end, ms", "CPU, ms"
    );
    let _ = write!(
        text,
        "\n{:<20} {:>8} {:>8} {:>8}   {:>9}   {:>8} {:>8}   {:>8}",
        "", "median", "p90", "min", "minimal C", "median", "p90", "median"
    );
    for Series { contender, samples } in all {
        let byte = of_times(samples, |sample| sample.to_byte);
        let end = of_times(samples, |sample| sample.to_end);
        let _ = write!(
            text,
            "\n{:<20} {:>8.2} {:>8.2} {:>8.2}   {:>9.2}   {:>8.2} {:>8.2}   {:>8.2}",
            contender.name,
            byte.median,
            byte.p90,
            byte.min,
            ratio(samples, yardstick(all)),
            end.median,
            end.p90,
            of_times(samples, |sample| sample.cpu).median
        );
    }
    text.push('\n');
    text
}

/// The same, and every single run, in milliseconds and KiB.
pub(crate) fn json(all: &[Series], footprint: &Footprint) -> Value {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let contenders: Vec<_> = all
        .iter()
        .map(|Series { contender, samples }| {
            json!({
                "name": contender.name,
                "to_byte_ms": of_times(samples, |sample| sample.to_byte).json(),
                "to_end_ms": of_times(samples, |sample| sample.to_end).json(),
                "cpu_ms": of_times(samples, |sample| sample.cpu).json(),
                "ratio_to_minimal": ratio(samples, yardstick(all)),
                "runs_ms": samples.iter().map(|run| [millis(run.to_byte), millis(run.to_end)]).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "host": host::describe(),
        "guest": "1 vCPU, 128 MiB, one byte on the serial port, then power-off",
        "contenders": contenders,
        "footprint": footprint,
    })
}
