//! What a VM answers, made fit for a terminal: whoever listens at its socket may be anything. What its guest wrote is
//! passed on as it came, and nothing else.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::{Outcome, print};
use crate::escape::Escape;

/// Prints `value` as JSON, over several lines.
pub(crate) fn print_json(value: &impl Serialize) -> Outcome {
    print(format!("{}\n", json(&serde_json::to_string_pretty(value)?)).as_bytes())
}

/// The JSON that `line` is, on one line.
pub(crate) fn json_line(line: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(line).ok().map(|value| json(&value.to_string()))
}

/// Lines of text, in which nothing but the end of a line drives a terminal.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut fit = String::new();
    for line in String::from_utf8_lossy(bytes).split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let _ = Escape(&mut fit).write_str(line);
        fit.push_str(end);
    }
    fit
}

/// The same JSON, in which nothing drives a terminal. What serde_json writes has line ends between values only, and no
/// control below U+0020 anywhere else; what else drives a terminal can only be in strings.
fn json(written: &str) -> String {
    let mut fit = String::new();
    for line in written.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        for character in line.chars() {
            if crate::escape::drives_a_terminal(character) {
                // All of them have four digits.
                let _ = write!(fit, "\\u{:04x}", u32::from(character));
            } else {
                fit.push(character);
            }
        }
        fit.push_str(end);
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_what_it_is_and_drives_no_terminal() {
        let value = serde_json::json!({"a": "\u{1b}[2J\u{9b}31m\u{202e}\u{7f}\n", "b": [1, "Grüße"]});
        let written = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(written.contains(r"\u009b31m\u202e\u007f") && written.contains("Grüße"), "{written}");
        assert!(written.lines().count() > 3 && !written.contains('\u{1b}'), "{written}");
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), value);
        assert_eq!(json_line(b" {\"a\":\r\"b\"} ").unwrap(), "{\"a\":\"b\"}");
        assert_eq!(json_line(b"\x1b]0;title\x07"), None);
    }

    #[test]
    fn text_keeps_its_lines_and_drives_no_terminal() {
        assert_eq!(text(b"one 1\n\x1b[2J\r\n\xff\n\nend"), "one 1\n\\u{1b}[2J\\r\n\u{fffd}\n\nend");
    }
}
