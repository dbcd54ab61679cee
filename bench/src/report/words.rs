//! Numbers and lists as a reader sees them.

use super::statistics::Summary;

/// What stands where there is no figure.
pub(crate) const NONE: &str = "–";

/// Three digits, as many of them behind the point as needed.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    let text = match () {
        () if !value.is_finite() => return NONE.to_owned(),
        () if size >= 1e15 => format!("{value:.2e}"),
        () if size >= 99.95 => format!("{value:.0}"),
        () if size >= 9.995 => format!("{value:.1}"),
        () if size >= 0.9995 || value == 0.0 => format!("{value:.2}"),
        () if size >= 0.000_999_5 => format!("{value:.3}"),
        () if size >= 0.000_099_5 => format!("{value:.5}"),
        () if size >= 0.000_009_95 => format!("{value:.6}"),
        () => format!("{value:.1e}"),
    };
    text.strip_prefix('-').map_or_else(|| text.clone(), |digits| format!("−{digits}"))
}

/// Between a number and its unit, where no line ends.
pub(crate) const NO_BREAK: char = '\u{a0}';

/// A figure without noughts at its end, for axes.
pub(crate) fn round(figure: &str) -> String {
    let (digits, unit) =
        figure.split_once(NO_BREAK).map_or((figure, None), |(digits, unit)| (digits, Some(unit)));
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    unit.map_or_else(|| digits.to_owned(), |unit| format!("{digits}{NO_BREAK}{unit}"))
}

/// A time that is given in ms.
pub(crate) fn time(ms: f64) -> String {
    if !ms.is_finite() {
        NONE.to_owned()
    } else if ms.abs() >= 10_000.0 {
        format!("{}{NO_BREAK}s", number(ms / 1e3))
    } else {
        format!("{}{NO_BREAK}ms", number(ms))
    }
}

/// A size that is given in bytes.
pub(crate) fn size(bytes: f64) -> String {
    let mut rest = bytes;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if rest.abs() < 1023.5 {
            break;
        }
        rest /= 1024.0;
        unit = next;
    }
    match unit {
        _ if !bytes.is_finite() => NONE.to_owned(),
        "B" => format!("{rest:.0}{NO_BREAK}B"),
        _ => format!("{}{NO_BREAK}{unit}", number(rest)),
    }
}

/// A value with its unit, in thousands and millions where it is large.
pub(crate) fn with_unit(value: f64, unit: &str) -> String {
    if matches!(unit, "B" | "bytes") {
        return size(value);
    }
    let (divisor, prefix) = match value.abs() {
        size if size < 1e4 => (1.0, ""),
        size if size < 1e6 => (1e3, "thousand\u{a0}"),
        size if size < 1e9 => (1e6, "million\u{a0}"),
        _ => (1e9, "thousand\u{a0}million\u{a0}"),
    };
    if value.is_finite() {
        format!("{}{NO_BREAK}{prefix}{unit}", number(value / divisor)).trim_end().to_owned()
    } else {
        NONE.to_owned()
    }
}

/// A ratio's median and the middle half of its runs.
pub(crate) fn ratio(ratios: &Summary) -> String {
    format!("{} ({}–{})", number(ratios.median), number(ratios.q1), number(ratios.q3))
}

/// A count and its noun.
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// "a, b and c", or "a, x; b and c" where the words have commas of their own.
pub(crate) fn list<S: AsRef<str>>(words: &[S]) -> String {
    match words {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [rest @ .., last] => {
            let rest: Vec<_> = rest.iter().map(AsRef::as_ref).collect();
            let between = if words.iter().any(|word| word.as_ref().contains(',')) { "; " } else { ", " };
            format!("{} and {}", rest.join(between), last.as_ref())
        }
    }
}

/// At most `most` characters of `text`.
pub(crate) fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A command as it can be given to a shell.
pub(crate) fn command(words: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c))
    };
    let quoted = |word: &String| {
        if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A yes or no.
pub(crate) fn yes(answer: bool) -> &'static str {
    if answer { "yes" } else { "no" }
}

/// Seconds since 1970 as a date and a time of the day, UTC.
pub(crate) fn date(seconds: u64) -> String {
    // The calendar repeats after 400 years; the years run from March, so that a leap day ends one.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let minutes = seconds % 86_400 / 60;
    format!("{}-{month:02}-{day:02} {:02}:{:02} UTC", era * 400 + year + next, minutes / 60, minutes % 60)
}

/// How long something took.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => NONE.to_owned(),
        s if s < 120.0 => format!("{}{NO_BREAK}s", number(s)),
        s => format!("{}{NO_BREAK}min", number(s / 60.0)),
    }
}

/// Bytes as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "what is drawn has three digits")]
pub(crate) fn bytes(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown: Vec<_> = [0.0, 1.0, 12.345, 99.97, 123.4, 0.0123, -5.0, f64::NAN].map(number).into();
        assert_eq!(shown, ["0.00", "1.00", "12.3", "100", "123", "0.012", "−5.00", NONE]);
        assert_eq!([1e300, 9.6e-4, 2.04e-5, 1e-9].map(number), ["1.00e300", "0.00096", "0.000020", "1.0e-9"]);
        assert_eq!(["10.0\u{a0}ms", "0.500", "100", "0.00"].map(round), ["10\u{a0}ms", "0.5", "100", "0"]);
    }

    #[test]
    fn units_follow_the_size() {
        assert_eq!(time(12_345.0), "12.3\u{a0}s");
        assert_eq!(size(1536.0), "1.50\u{a0}KiB");
        assert_eq!(size(1023.9 * 1024.0), "1.00\u{a0}MiB");
        assert_eq!(size(7.0), "7\u{a0}B");
        assert_eq!(with_unit(2_500_000.0, "calls/s"), "2.50\u{a0}million\u{a0}calls/s");
        assert_eq!(with_unit(9000.0, "calls/s"), "9000\u{a0}calls/s");
    }

    #[test]
    fn commands_are_quoted_for_a_shell() {
        let words = ["rvmm".to_owned(), "--append".to_owned(), "it's quiet".to_owned(), String::new()];
        assert_eq!(command(&words), r"rvmm --append 'it'\''s quiet' ''");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(date(1_798_761_599), "2026-12-31 23:59 UTC");
        assert!(date(u64::MAX).ends_with("UTC"));
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(short("größer", 4), "grö…");
        assert_eq!(short("groß", 4), "groß");
    }
}
