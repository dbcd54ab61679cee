//! Ctrl-A on a terminal: the keys that are for rvmm and not for the guest.

/// Ctrl-A.
const PREFIX: u8 = 0x01;

/// What `Ctrl-A h` prints. The terminal still turns LF into CR LF.
pub(super) const HELP: &[u8] = b"\n\
rvmm: Ctrl-A x      end the VM\n\
rvmm: Ctrl-A h      this help\n\
rvmm: Ctrl-A Ctrl-A send Ctrl-A to the guest\n";

/// A command to rvmm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// End the VM, or leave it alone from now on.
    Quit,
    /// Say what the keys are.
    Help,
}

/// Which keys there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// Those of who has started the VM: `x` and `h`.
    #[default]
    Owner,
    /// Those of who is attached to its console: `d` as well.
    Visitor,
}

/// Takes rvmm's keys out of what is typed.
#[derive(Default)]
pub struct Escape {
    keys: Keys,
    after_prefix: bool,
}

impl Escape {
    /// For what is typed by one who has `keys`.
    pub fn new(keys: Keys) -> Self {
        Self { keys, after_prefix: false }
    }

    /// Appends to `guest` what is for the guest; the commands among `typed`, in order.
    pub fn filter(&mut self, typed: &[u8], guest: &mut Vec<u8>) -> Vec<Command> {
        let mut commands = Vec::new();
        for &byte in typed {
            match (std::mem::take(&mut self.after_prefix), byte) {
                (false, PREFIX) => self.after_prefix = true,
                (false, byte) | (true, byte @ PREFIX) => guest.push(byte),
                (true, b'x' | b'X') => commands.push(Command::Quit),
                (true, b'd' | b'D') if self.keys == Keys::Visitor => commands.push(Command::Quit),
                (true, b'h' | b'H' | b'?') => commands.push(Command::Help),
                (true, other) => guest.extend([PREFIX, other]),
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(parts: &[&[u8]]) -> (Vec<u8>, Vec<Command>) {
        let (mut escape, mut guest) = (Escape::default(), Vec::new());
        let commands = parts.iter().flat_map(|part| escape.filter(part, &mut guest)).collect();
        (guest, commands)
    }

    #[test]
    fn ordinary_keys_reach_the_guest() {
        assert_eq!(typed(&[b"ls -l\x03\x04"]), (b"ls -l\x03\x04".to_vec(), vec![]));
    }

    #[test]
    fn commands_are_taken_out_even_when_split_between_reads() {
        assert_eq!(typed(&[b"a\x01hb\x01", b"xc"]), (b"abc".to_vec(), vec![Command::Help, Command::Quit]));
    }

    #[test]
    fn a_visitor_leaves_by_keys_of_its_own() {
        let (mut escape, mut guest) = (Escape::new(Keys::Visitor), Vec::new());
        assert_eq!(escape.filter(b"a\x01db\x01x", &mut guest), [Command::Quit, Command::Quit]);
        assert_eq!(guest, b"ab");
        assert_eq!(typed(&[b"\x01d"]), (b"\x01d".to_vec(), vec![]));
    }

    #[test]
    fn the_prefix_typed_twice_reaches_the_guest_once_and_unknown_keys_reach_it_whole() {
        assert_eq!(typed(&[b"\x01\x01x\x01b"]), (b"\x01x\x01b".to_vec(), vec![]));
    }
}
