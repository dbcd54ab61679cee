//! How fast the REST socket is and how little it needs: `cargo bench --bench api -- --help`
//!
//! - *answers*: from just before the process is created to the answer to GET `/`; beside it, the same process that says its
//!   version and ends, which is what its start costs without a socket;
//! - *GET /*: a request and its answer over a connection that is kept, before the guest is started and while it halts;
//! - *guest's byte*: from just before the request `InstanceStart` to the byte that a bare guest writes on its serial port;
//! - *memory*: what rvmm has resident outside of guest memory while a guest halts, with a socket and without.
//!
//! rvmm and Firecracker, where it is at hand, take turns, so that what else the host does meets both; the ratio is that of
//! the medians.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that can't go on says so and stops")]
#![allow(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "few runs, short times, no input from outside"
)]

#[path = "../../tests/support/bare.rs"]
mod bare;
mod client;
#[path = "../startup/footprint.rs"]
mod footprint;
#[path = "../startup/host.rs"]
mod host;
#[path = "../programs.rs"]
mod programs;
#[path = "../startup/summary.rs"]
mod summary;
mod vmms;

use std::path::Path;
use std::time::{Duration, Instant};

use client::Client;
use footprint::Footprint;
use serde_json::{Value, json};
use summary::Summary;
use vmms::Vmm;

const HELP: &str = "\
cargo bench --bench api -- [OPTION...]
  --runs N         processes of each VMM that are started and timed, and guests (default 40)
  --requests N     requests over a connection that is kept, for each VMM (default 10000)
  --json FILE      everything, as JSON
  FIRECRACKER=PROGRAM in the environment names Firecracker, where it is not on PATH; RVMM_PROGRAM names an rvmm other than
  the one that is built with this program";

/// Requests of one VMM before it is the other's turn.
const REQUESTS_IN_A_ROW: usize = 250;
/// Runs before those that count.
const WARM_UP_RUNS: usize = 3;

struct Options {
    runs: usize,
    requests: usize,
    json: Option<String>,
}

impl Options {
    fn from_args() -> Self {
        let mut options = Self { runs: 40, requests: 10_000, json: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| usage(&format!("{arg} wants a value")));
            let number = |text: String| match text.parse() {
                Ok(number) if number > 0 => number,
                _ => usage(&format!("{text} is no number above 0")),
            };
            match arg.as_str() {
                "--runs" => options.runs = number(value()),
                "--requests" => options.requests = number(value()),
                "--json" => options.json = Some(value()),
                "--help" | "-h" => {
                    println!("{HELP}");
                    std::process::exit(0);
                }
                "--bench" => {} // from cargo
                other => usage(&format!("{other} is unknown")),
            }
        }
        options
    }
}

fn usage(message: &str) -> ! {
    eprintln!("api: {message}\n{HELP}");
    std::process::exit(2)
}

/// One thing that was measured, in milliseconds or microseconds.
struct Measured {
    what: &'static str,
    unit: &'static str,
    vmm: &'static str,
    summary: Summary,
}

fn main() {
    let options = Options::from_args();
    println!("host: {}", host::describe());
    println!(
        "figures: {} runs in turns after {WARM_UP_RUNS} to warm up; {} requests in turns of {REQUESTS_IN_A_ROW}; \
         1 vCPU, 128 MiB\n",
        options.runs, options.requests
    );
    let folder = tempfile::tempdir().unwrap();
    let vmms = vmms::all();
    let mut all = Vec::new();
    all.extend(in_turns("start without a socket", &vmms, options.runs, Vmm::time_without_socket));
    all.extend(in_turns("start to an answer", &vmms, options.runs, |vmm| vmm.time_to_answer(folder.path())));
    all.extend(in_turns("InstanceStart to the byte", &vmms, options.runs, |vmm| {
        vmm.time_to_byte(folder.path())
    }));
    all.extend(latencies(&vmms, folder.path(), options.requests));
    print(&all);

    let memory = memory(folder.path());
    println!("\nwithout a socket: {}", memory[0]);
    println!("with a socket, and a request answered: {}", memory[1]);
    println!("the socket: {} KiB", memory[1].own_kib().cast_signed() - memory[0].own_kib().cast_signed());
    if let Some(path) = &options.json {
        std::fs::write(path, report(&all, &memory)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

/// Times `once` for each VMM, `runs` times.
fn in_turns(what: &'static str, vmms: &[Vmm], runs: usize, once: impl Fn(&Vmm) -> Duration) -> Vec<Measured> {
    let mut times = vec![Vec::new(); vmms.len()];
    for run in 0..WARM_UP_RUNS + runs {
        for (vmm, times) in vmms.iter().zip(&mut times) {
            let time = once(vmm);
            if run >= WARM_UP_RUNS {
                times.push(time.as_secs_f64() * 1e3);
            }
        }
    }
    let named = vmms.iter().zip(times);
    named
        .map(|(vmm, times)| Measured { what, unit: "ms", vmm: vmm.name, summary: Summary::of(times) })
        .collect()
}

/// Times requests over connections that are kept.
fn latencies(vmms: &[Vmm], folder: &Path, requests: usize) -> Vec<Measured> {
    let servers: Vec<_> = vmms.iter().map(|vmm| vmm.start(folder)).collect();
    let mut clients: Vec<_> = servers.iter().map(|server| Client::connect(&server.socket)).collect();
    let mut all = Vec::new();
    for what in ["GET /, no guest yet", "GET /, a guest that halts"] {
        let mut times = vec![Vec::with_capacity(requests); vmms.len()];
        let request = client::request("GET", "/", "");
        // The first turn warms up.
        for turn in 0..=requests.div_ceil(REQUESTS_IN_A_ROW) {
            for (client, times) in clients.iter_mut().zip(&mut times) {
                for _ in 0..REQUESTS_IN_A_ROW {
                    let begin = Instant::now();
                    client.send(&request);
                    client.answer(200);
                    if turn > 0 && times.len() < requests {
                        times.push(begin.elapsed().as_secs_f64() * 1e6);
                    }
                }
            }
        }
        let named = vmms.iter().zip(times);
        all.extend(named.map(|(vmm, times)| Measured {
            what,
            unit: "us",
            vmm: vmm.name,
            summary: Summary::of(times),
        }));
        if all.len() == vmms.len() {
            servers.iter().for_each(vmms::halt);
        }
    }
    all
}

/// Of rvmm with a halted guest, without a socket and with one.
fn memory(folder: &Path) -> [Footprint; 2] {
    let socket = folder.join("memory.sock");
    let without = footprint::measure(folder, &[], || {});
    let with = footprint::measure(folder, &["--api-sock".as_ref(), socket.as_os_str()], || {
        Client::connect(&socket).ask("GET", "/", "", 200);
    });
    [without, with]
}

fn print(all: &[Measured]) {
    println!("{:<28} {:<12} {:>10} {:>9} {:>9}   {:>7}", "", "", "median", "p90", "min", "ratio");
    for Measured { what, unit, vmm, summary } in all {
        let base = all.iter().find(|other| other.what == *what).map_or(1.0, |base| base.summary.median);
        println!(
            "{what:<28} {vmm:<12} {:>7.2} {unit} {:>9.2} {:>9.2}   {:>7.2}",
            summary.median,
            summary.p90,
            summary.min,
            summary.median / base
        );
    }
    let of_rvmm = |what| all.iter().find(|one| one.what == what && one.vmm == "rvmm");
    if let (Some(answer), Some(alone)) = (of_rvmm("start to an answer"), of_rvmm("start without a socket")) {
        println!(
            "\nrvmm's socket answers {:.2} ms beyond rvmm's own start",
            answer.summary.median - alone.summary.median
        );
    }
}

fn report(all: &[Measured], memory: &[Footprint; 2]) -> String {
    let measured: Vec<Value> = all
        .iter()
        .map(|Measured { what, unit, vmm, summary }| {
            json!({"what": what, "unit": unit, "vmm": vmm, "summary": summary.json()})
        })
        .collect();
    let report = json!({
        "host": host::describe(),
        "measured": measured,
        "memory_without": memory[0],
        "memory_with": memory[1],
    });
    format!("{report:#}\n")
}
