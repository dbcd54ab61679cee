//! How fast the REST socket is and how little it needs: `rvmm bench api`.
//!
//! - *answers*: from just before the process is created to the answer to GET `/`; beside it, the same process that says its
//!   version and ends, which is what its start costs without a socket;
//! - *GET /*: a request and its answer over a connection that is kept, before the guest is started and while it halts;
//! - *guest's byte*: from just before the request `InstanceStart` to the byte that a bare guest writes on its serial port;
//! - *memory*: what rvmm has resident outside of guest memory while a guest halts, with a socket and without.
//!
//! rvmm and Firecracker, where it is at hand, take turns, so that what else the host does meets both; the ratio is that of
//! the medians.

mod vmms;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{self, Client};
use super::footprint::{self, Footprint};
use super::measured::{self, Measured};
use super::summary::Summary;
use super::{WARM_UP_RUNS, check_json, guarded, host, print, progress, write_json};
use crate::args::ApiArgs;
use vmms::Vmm;

/// Requests of one VMM before it is the other's turn.
const REQUESTS_IN_A_ROW: usize = 250;

/// Measures, prints what was found, and writes what was asked for.
///
/// # Errors
/// A VMM cannot be measured, or a file cannot be written.
pub(crate) fn run(args: &ApiArgs) -> anyhow::Result<ExitCode> {
    check_json(args.json.as_deref())?;
    guarded(|| measure(args))
}

fn measure(args: &ApiArgs) -> anyhow::Result<()> {
    let (runs, requests) = (args.runs as usize, args.requests as usize);
    print(&format!(
        "host: {}\n\
         figures: {runs} runs in turns after {WARM_UP_RUNS} to warm up; {requests} requests in turns of \
         {REQUESTS_IN_A_ROW}; 1 vCPU, 128 MiB\n\n",
        host::describe(),
    ))?;
    let folder = tempfile::Builder::new().prefix("rvmm-bench-").tempdir()?;
    let folder = folder.path();
    let vmms = vmms::all()?;
    let mut all = Vec::new();
    all.extend(in_turns("start without a socket", &vmms, runs, Vmm::time_without_socket)?);
    all.extend(in_turns("start to an answer", &vmms, runs, |vmm| vmm.time_to_answer(folder))?);
    all.extend(in_turns("InstanceStart to the byte", &vmms, runs, |vmm| vmm.time_to_byte(folder))?);
    all.extend(latencies(&vmms, folder, requests)?);
    print(&format!("{}{}", measured::table(&all), beyond_start(&all)))?;

    let [without, with] = memory(folder)?;
    print(&format!(
        "\nwithout a socket: {without}\nwith a socket, and a request answered: {with}\nthe socket: {} KiB\n",
        with.own_kib().cast_signed() - without.own_kib().cast_signed()
    ))?;
    write_json(args.json.as_deref(), &report(&all, &without, &with))
}

/// Times `once` for each VMM, `runs` times.
fn in_turns(
    what: &'static str,
    vmms: &[Vmm],
    runs: usize,
    once: impl Fn(&Vmm) -> anyhow::Result<Duration>,
) -> anyhow::Result<Vec<Measured>> {
    let mut times = vec![Vec::new(); vmms.len()];
    let bar = progress::bar(what, WARM_UP_RUNS + runs);
    for run in 0..WARM_UP_RUNS + runs {
        for (vmm, times) in vmms.iter().zip(&mut times) {
            let time = once(vmm)?;
            if run >= WARM_UP_RUNS {
                times.push(time.as_secs_f64() * 1e3);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(summaries(what, "ms", vmms, times))
}

fn summaries(what: &'static str, unit: &'static str, vmms: &[Vmm], times: Vec<Vec<f64>>) -> Vec<Measured> {
    let named = vmms.iter().zip(times);
    named.map(|(vmm, times)| Measured { what, unit, vmm: vmm.name, summary: Summary::of(times) }).collect()
}

/// Times requests over connections that are kept.
fn latencies(vmms: &[Vmm], folder: &Path, requests: usize) -> anyhow::Result<Vec<Measured>> {
    let servers = vmms.iter().map(|vmm| vmm.start(folder)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut clients =
        servers.iter().map(|server| Client::connect(&server.socket)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut all = Vec::new();
    for what in ["GET /, no guest yet", "GET /, a guest that halts"] {
        let mut times = vec![Vec::with_capacity(requests); vmms.len()];
        let request = client::request("GET", "/", "");
        let turns = requests.div_ceil(REQUESTS_IN_A_ROW);
        let bar = progress::bar(what, turns);
        // The first turn warms up.
        for turn in 0..=turns {
            for (client, times) in clients.iter_mut().zip(&mut times) {
                for _ in 0..REQUESTS_IN_A_ROW {
                    let begin = Instant::now();
                    client.send(&request)?;
                    client.answer(200)?;
                    if turn > 0 && times.len() < requests {
                        times.push(begin.elapsed().as_secs_f64() * 1e6);
                    }
                }
            }
            bar.inc(u64::from(turn > 0));
        }
        bar.finish_and_clear();
        all.extend(summaries(what, "us", vmms, times));
        if all.len() == vmms.len() {
            servers.iter().try_for_each(|server| vmms::halt(server, folder))?;
        }
    }
    Ok(all)
}

/// Of rvmm with a halted guest, without a socket and with one.
fn memory(folder: &Path) -> anyhow::Result<[Footprint; 2]> {
    let socket = folder.join("memory.sock");
    let without = footprint::measure(folder, &[], || Ok(()))?;
    let with = footprint::measure(folder, &["--api-sock".as_ref(), socket.as_os_str()], || {
        Client::connect(&socket)?.ask("GET", "/", "", 200)
    })?;
    Ok([without, with])
}

/// What the socket takes beyond rvmm's own start, for reading.
fn beyond_start(all: &[Measured]) -> String {
    let of_rvmm = |what| all.iter().find(|one| one.what == what && one.vmm == "rvmm");
    match (of_rvmm("start to an answer"), of_rvmm("start without a socket")) {
        (Some(answer), Some(alone)) => {
            let more = answer.summary.median - alone.summary.median;
            format!("\nrvmm's socket answers {more:.2} ms beyond rvmm's own start\n")
        }
        _ => String::new(),
    }
}

fn report(all: &[Measured], without: &Footprint, with: &Footprint) -> Value {
    json!({
        "host": host::describe(),
        "measured": measured::json(all),
        "memory_without": without,
        "memory_with": with,
    })
}
