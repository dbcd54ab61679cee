//! The kernel command line, split as Linux does (`next_arg` and `parse_args` of `lib/cmdline.c`, `kernel/params.c`).
//!
//! Words end at white space that is not between double quotes. The word `--` ends the kernel's parameters: what follows goes
//! to init.

/// Bytes that Linux takes for white space (`isspace` of `lib/ctype.c`): also the one of a no-break space in Latin-1.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0xa0)
}

/// A parameter of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// What is before the first `=`, or all of it.
    pub name: &'a str,
    /// What is behind that, without the quotes around it.
    pub value: Option<&'a str>,
}

/// A word of the command line.
struct Word<'a> {
    /// Where it begins.
    start: usize,
    text: &'a str,
    /// Its last quote is closed.
    is_closed: bool,
}

impl<'a> Word<'a> {
    /// The parameter that it is. Quotes are removed where Linux removes them: around all of it, or around its value.
    fn param(&self) -> Param<'a> {
        let inner = self.text.strip_prefix('"');
        let text = inner.map_or(self.text, |inner| inner.strip_suffix('"').unwrap_or(inner));
        let Some((name, value)) = text.split_once('=') else { return Param { name: text, value: None } };
        let value = value.strip_prefix('"').map_or(value, |inner| inner.strip_suffix('"').unwrap_or(inner));
        Param { name, value: Some(value) }
    }
}

/// The words of `text`, in order.
fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        let start = next + bytes.get(next..)?.iter().position(|byte| !is_space(*byte))?;
        let mut in_quotes = false;
        let length = bytes.get(start..)?.iter().position(|byte| {
            in_quotes ^= *byte == b'"';
            is_space(*byte) && !in_quotes
        });
        next = length.map_or(text.len(), |length| start + length);
        // Linux splits within characters that have the byte of a no-break space; nobody looks for a parameter there.
        Some(Word { start, text: text.get(start..next).unwrap_or_default(), is_closed: !in_quotes })
    })
}

/// The parameters of the kernel in `cmdline`, in order.
pub fn params(cmdline: &str) -> impl Iterator<Item = Param<'_>> {
    words(cmdline).map(|word| word.param()).take_while(|param| *param != INIT)
}

/// What ends the kernel's parameters.
const INIT: Param<'static> = Param { name: "--", value: None };

/// Whether `cmdline` has a quote that is not closed: it takes all that follows into its parameter.
pub fn has_open_quote(cmdline: &str) -> bool {
    words(cmdline).any(|word| !word.is_closed)
}

/// `cmdline` with the parameters, and init's arguments, of `more`: both behind those that are there. Parameters come before a
/// quote that is not closed.
#[must_use]
pub fn append(cmdline: &str, more: &str) -> String {
    let (kernel, open, init) = split(cmdline);
    let (more_kernel, more_open, more_init) = split(more);
    // init gets one list of arguments.
    let more_init = if init.is_empty() { more_init } else { more_init.trim_start_matches("--").trim_start() };
    let parts = [kernel, more_kernel, open, more_open, init, more_init];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The kernel's parameters, its last one if that has an open quote, and what is from `--` on.
fn split(cmdline: &str) -> (&str, &str, &str) {
    let init = words(cmdline).find(|word| word.param() == INIT).map_or(cmdline.len(), |word| word.start);
    let (kernel, init) = cmdline.split_at(init);
    let open = words(kernel).find(|word| !word.is_closed).map_or(kernel.len(), |word| word.start);
    let (kernel, open) = kernel.split_at(open);
    (kernel.trim_end(), open, init)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_and_values(cmdline: &str) -> Vec<(&str, Option<&str>)> {
        params(cmdline).map(|param| (param.name, param.value)).collect()
    }

    #[test]
    fn words_are_split_as_linux_does() {
        for (cmdline, expected) in [
            ("", vec![]),
            ("  quiet\tro ", vec![("quiet", None), ("ro", None)]),
            ("a=b=c", vec![("a", Some("b=c"))]),
            ("x=\"a b\" y", vec![("x", Some("a b")), ("y", None)]),
            ("\"x=a b\" y", vec![("x", Some("a b")), ("y", None)]),
            ("x=\"a root=/dev/sda b\"", vec![("x", Some("a root=/dev/sda b"))]),
            ("a\"b c\"d e", vec![("a\"b c\"d", None), ("e", None)]),
            ("x=\"open root=1", vec![("x", Some("open root=1"))]),
            ("ro -- root=fake", vec![("ro", None)]),
            ("ro \"--\" root=fake", vec![("ro", None)]),
            ("ro --=1 --x -", vec![("ro", None), ("--", Some("1")), ("--x", None), ("-", None)]),
            ("x=\"-- a\" b", vec![("x", Some("-- a")), ("b", None)]),
        ] {
            assert_eq!(names_and_values(cmdline), expected, "{cmdline:?}");
        }
        // Has the byte of a no-break space.
        assert_eq!(names_and_values("x=à b").last(), Some(&("b", None)));
    }

    #[test]
    fn what_is_added_goes_before_init_s_arguments() {
        for (cmdline, more, expected) in [
            ("", "ro", "ro"),
            ("quiet", "", "quiet"),
            ("quiet", "ro", "quiet ro"),
            ("quiet -- a --flag", "ro", "quiet ro -- a --flag"),
            ("-- a", "ro", "ro -- a"),
            ("quiet", "ro -- a", "quiet ro -- a"),
            ("quiet -- a", "ro -- b", "quiet ro -- a b"),
            ("quiet -- a", "-- b", "quiet -- a b"),
            ("x=\"-- a\"", "ro", "x=\"-- a\" ro"),
            ("quiet x=\"open", "ro", "quiet ro x=\"open"),
        ] {
            assert_eq!(append(cmdline, more), expected, "{cmdline:?} and {more:?}");
        }
    }

    #[test]
    fn quotes_that_are_open_are_found() {
        for (cmdline, is_open) in
            [("", false), ("a=\"b c\"", false), ("a=\"b c", true), ("a\"b c\" d\"", true), ("-- \"", true)]
        {
            assert_eq!(has_open_quote(cmdline), is_open, "{cmdline:?}");
        }
    }
}
