//! Text from a guest, a file or an argument, made fit for a terminal.

use std::fmt;

/// Passes text on with every character spelled out (`\u{1b}`, `\n`) that would move the cursor, start a control
/// sequence, end the line or change the direction of writing.
pub(crate) struct Escape<W>(pub(crate) W);

impl<W: fmt::Write> fmt::Write for Escape<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(drives_a_terminal) {
            let (plain, tail) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut tail = tail.chars();
            for character in tail.next().into_iter().flat_map(char::escape_default) {
                self.0.write_char(character)?;
            }
            rest = tail.as_str();
        }
        self.0.write_str(rest)
    }
}

/// C0, DEL and C1 controls, the line and paragraph separators and the directional marks of Unicode.
pub(crate) fn drives_a_terminal(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn escaped(text: &str) -> String {
        let mut line = String::new();
        Escape(&mut line).write_str(text).unwrap();
        line
    }

    #[test]
    fn what_drives_a_terminal_is_spelled_out() {
        assert_eq!(escaped("a\x1b[2Jb\r\n\tc"), "a\\u{1b}[2Jb\\r\\n\\tc");
        assert_eq!(escaped("\u{9b}31m\u{7f}\u{202e}"), "\\u{9b}31m\\u{7f}\\u{202e}");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in ["", "plain", "path\\with 'quotes' \"both\"", "Grüße, 世界 🙂"] {
            assert_eq!(escaped(text), text);
        }
    }
}
