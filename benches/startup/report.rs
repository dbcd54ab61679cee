//! The table, and the same as JSON.

use std::time::Duration;

use serde_json::json;

use crate::Result;
use crate::contenders::YARDSTICK;
use crate::footprint::Footprint;
use crate::run::Sample;
use crate::summary::Summary;

fn of_times(samples: &[Sample], time: impl Fn(&Sample) -> Duration) -> Summary {
    Summary::of(samples.iter().map(|sample| time(sample).as_secs_f64() * 1e3))
}

/// The median, run by run, of how often the yardstick's time the contender took.
fn ratio(samples: &[Sample], yardstick: &[Sample]) -> f64 {
    let pairs = samples.iter().zip(yardstick);
    Summary::of(pairs.map(|(sample, base)| sample.to_byte.as_secs_f64() / base.to_byte.as_secs_f64())).median
}

fn yardstick(results: &[Result]) -> &[Sample] {
    results.iter().find(|result| result.contender.name == YARDSTICK).map_or(&[], |result| &result.samples)
}

/// Prints the table.
pub(crate) fn print(results: &[Result]) {
    println!(
        "{:<20} {:^26}   {:^9}   {:^17}   {:^8}",
        "", "to the byte, ms", "ratio to", "to the end, ms", "CPU, ms"
    );
    println!(
        "{:<20} {:>8} {:>8} {:>8}   {:>9}   {:>8} {:>8}   {:>8}",
        "", "median", "p90", "min", "minimal C", "median", "p90", "median"
    );
    for Result { contender, samples } in results {
        let byte = of_times(samples, |sample| sample.to_byte);
        let end = of_times(samples, |sample| sample.to_end);
        println!(
            "{:<20} {:>8.2} {:>8.2} {:>8.2}   {:>9.2}   {:>8.2} {:>8.2}   {:>8.2}",
            contender.name,
            byte.median,
            byte.p90,
            byte.min,
            ratio(samples, yardstick(results)),
            end.median,
            end.p90,
            of_times(samples, |sample| sample.cpu).median
        );
    }
}

/// The same, and every single run, in milliseconds and KiB.
pub(crate) fn json(results: &[Result], footprint: &Footprint) -> String {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let contenders: Vec<_> = results
        .iter()
        .map(|Result { contender, samples }| {
            json!({
                "name": contender.name,
                "to_byte_ms": of_times(samples, |sample| sample.to_byte).json(),
                "to_end_ms": of_times(samples, |sample| sample.to_end).json(),
                "cpu_ms": of_times(samples, |sample| sample.cpu).json(),
                "ratio_to_minimal": ratio(samples, yardstick(results)),
                "runs_ms": samples.iter().map(|run| [millis(run.to_byte), millis(run.to_end)]).collect::<Vec<_>>(),
            })
        })
        .collect();
    let report = json!({
        "host": crate::host::describe(),
        "guest": "1 vCPU, 128 MiB, one byte on the serial port, then power-off",
        "contenders": contenders,
        "footprint": footprint,
    });
    format!("{report:#}\n")
}
