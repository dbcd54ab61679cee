//! What a start took, as the log and the metrics have it.

use crate::support::api::ApiSocket;
use crate::support::kvm::require_kvm;
use crate::support::{Ended, Rvmm};

/// The microseconds, wall and CPU time, of the one line of the log.
fn times(ended: &Ended) -> [u64; 2] {
    assert_eq!((ended.code(), ended.stderr.lines().count()), (0, 1), "{ended:#?}");
    let (_, line) = ended.stderr.trim_end().split_once("Guest-boot-time =").expect("the line");
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |word: &str| word.parse::<u64>().unwrap();
    let [wall, "us", wall_ms, "ms,", cpu, "CPU", "us", cpu_ms, "CPU", "ms"] = words[..] else {
        panic!("{line}")
    };
    assert_eq!((number(wall) / 1000, number(cpu) / 1000), (number(wall_ms), number(cpu_ms)));
    [number(wall), number(cpu)]
}

#[test]
fn a_guest_that_says_that_it_has_booted_is_timed_once() {
    require_kvm!();
    for transport in ["pci", "mmio"] {
        let start = std::time::Instant::now();
        let ended = Rvmm::pci_guest("boot-timer").args(["--boot-timer", "--transport", transport]).run();
        let [wall, cpu] = times(&ended);
        assert!(wall > 0 && u128::from(wall) < start.elapsed().as_micros(), "{wall}");
        assert!(cpu > 0, "{cpu}");
    }
}

#[test]
fn without_the_option_there_is_no_timer() {
    require_kvm!();
    Rvmm::pci_guest("boot-timer").run().assert_clean().assert_stdout("up\n");
}

#[test]
fn metrics_have_the_time_from_the_start_of_the_process_to_its_socket() {
    require_kvm!();
    let socket = ApiSocket::new();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: u64 = uptime.split('.').next().unwrap().parse().unwrap();
    // Ten seconds ago by the monotonic clock.
    let start = (seconds - 10) * 1_000_000;
    let mut running = Rvmm::guest("spin-forever")
        .arg("--api-sock")
        .arg(socket.path())
        .args(["--start-time-us", &start.to_string()])
        .args(["--start-time-cpu-us", "0", "--parent-cpu-time-us", "5000000"])
        .launch();
    running.wait_for("spinning");
    let metrics = socket.get("/rvmm/metrics.json").json();
    let of = |name: &str| metrics["api_server"][name].as_u64().unwrap();
    assert!(of("process_startup_time_us") > 9_000_000, "{metrics}");
    assert!((5_000_000..9_000_000).contains(&of("process_startup_time_cpu_us")), "{metrics}");
}
