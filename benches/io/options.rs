//! The command line.

use crate::metric::Group;
use crate::vmms::Vmm;

const HELP: &str = "\
cargo bench --bench io -- [OPTION...]
  --rounds N       times that each VMM's guest is booted and measured (default 5)
  --seconds S      length of one measurement (default 2)
  --only GROUP     block, net or vsock; may be repeated (default: all that this rvmm has)
  --vmm TEXT       only VMMs whose name has TEXT, such as 'rvmm' or 'pci'; may be repeated
  --json FILE      everything, as JSON
  --syscalls       counts system calls too, which slows all down a little
  --counted        on the emulated host, with a clock that counts instructions: figures repeat, times are no times
  --cpus N         CPUs of the emulated host (default 2; 1 with --counted)
  FIRECRACKER=PROGRAM in the environment names Firecracker, where it is not on PATH; RVMM_PROGRAM names an rvmm other than
  the one that is built with this program";

pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) groups: Vec<Group>,
    pub(crate) vmms: Vec<String>,
    pub(crate) json: Option<String>,
    pub(crate) syscalls: bool,
    pub(crate) counted: bool,
    pub(crate) cpus: u32,
}

impl Options {
    pub(crate) fn from_args() -> Self {
        let mut options = Self {
            rounds: 5,
            seconds: 2.0,
            groups: Vec::new(),
            vmms: Vec::new(),
            json: None,
            syscalls: false,
            counted: false,
            cpus: 2,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| usage(&format!("{arg} wants a value")));
            match arg.as_str() {
                "--rounds" => options.rounds = number(&arg, &value()),
                "--seconds" => options.seconds = number(&arg, &value()),
                "--cpus" => options.cpus = number(&arg, &value()),
                "--only" => options.groups.push(Group::parse(&value()).unwrap_or_else(|group| {
                    usage(&format!("no group '{group}'"));
                })),
                "--vmm" => options.vmms.push(value()),
                "--json" => options.json = Some(value()),
                "--syscalls" => options.syscalls = true,
                "--counted" => options.counted = true,
                "--help" | "-h" => {
                    println!("{HELP}");
                    std::process::exit(0);
                }
                // Cargo gives it to every benchmark.
                "--bench" => {}
                _ => usage(&format!("unknown option {arg}")),
            }
        }
        if options.rounds == 0 || options.seconds <= 0.0 {
            usage("--rounds and --seconds must be above 0");
        }
        if options.groups.is_empty() {
            options.groups = Group::ALL.into_iter().filter(|group| group.is_supported()).collect();
        }
        options
    }

    pub(crate) fn takes(&self, vmm: &Vmm) -> bool {
        self.vmms.is_empty() || self.vmms.iter().any(|text| vmm.name.contains(text.as_str()))
    }
}

fn number<T: std::str::FromStr>(option: &str, text: &str) -> T {
    text.parse().unwrap_or_else(|_| usage(&format!("{option} wants a number")))
}

fn usage(message: &str) -> ! {
    eprintln!("{message}\n{HELP}");
    std::process::exit(2);
}
