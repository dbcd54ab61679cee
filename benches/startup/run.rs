//! One run of a contender, with a clock beside it.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::contenders::Contender;
use crate::cpu;

/// The byte that the guest writes.
const BYTE: u8 = b'!';

/// How long a run took.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) to_byte: Duration,
    pub(crate) to_end: Duration,
    /// Processor time of the process and those that it waited for, the kernel's work for them included.
    pub(crate) cpu: Duration,
}

/// Reads up to the guest's byte; some VMMs have something to say before it. False when it never comes.
fn read_to_byte(stream: &mut impl Read) -> bool {
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(count) if buffer[..count].contains(&BYTE) => return true,
            Ok(_) => {}
        }
    }
}

fn start(contender: &Contender) -> std::io::Result<Child> {
    let mut command: Command = contender.command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

/// One run.
pub(crate) fn once(contender: &Contender) -> Sample {
    contender.prepare();
    let cpu = cpu::of_children();
    let begin = Instant::now();
    let mut child = start(contender).unwrap_or_else(|error| panic!("{}: {error}", contender.name));
    let mut stdout = child.stdout.take().unwrap();
    let came = read_to_byte(&mut stdout);
    let byte = Instant::now();
    child.wait().unwrap();
    let end = Instant::now();
    assert!(came, "{} ended without the guest's byte", contender.name);
    Sample { to_byte: byte - begin, to_end: end - byte, cpu: cpu::of_children().saturating_sub(cpu) }
}

/// Whether the contender does what it shall, and ends by itself, within `limit`; else why it can't take part.
pub(crate) fn within(contender: &Contender, limit: Duration) -> Result<(), String> {
    contender.prepare();
    let mut child = start(contender).map_err(|error| error.to_string())?;
    let mut stdout = child.stdout.take().unwrap();
    let (sender, came) = mpsc::channel();
    thread::spawn(move || sender.send(read_to_byte(&mut stdout)));
    let begin = Instant::now();
    let outcome = match came.recv_timeout(limit) {
        Ok(true) => Ok(()),
        Ok(false) => Err("it ends without the guest's byte".to_owned()),
        Err(_) => Err(format!("no byte within {limit:?}")),
    };
    while outcome.is_ok() && child.try_wait().unwrap().is_none() {
        if begin.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it does not end within {limit:?}"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    outcome
}
