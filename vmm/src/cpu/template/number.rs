//! Numbers in templates: JSON strings with a prefix, `"0x1f"` or `"0b101"`. Without one a reader could take ten for
//! sixteen, so it is not guessed.

use serde::{Deserialize, Deserializer, Serializer};

/// How much of a wrong value an error quotes, in characters.
const QUOTED: usize = 80;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
pub(super) fn serialize<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{number:#x}"))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| {
        serde::de::Error::custom(format_args!(
            "\"{}\" is no number of 32 bits: write 0x and hexadecimal digits, or 0b and binary ones",
            shown(&text)
        ))
    })
}

fn parse(text: &str) -> Option<u32> {
    let (digits, radix) = match (text.strip_prefix("0x"), text.strip_prefix("0b")) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) => (digits, 2),
        (None, None) => return None,
    };
    // A sign is not a digit, but `from_str_radix` takes it.
    let plain = digits.chars().all(|digit| digit.is_digit(radix));
    u32::from_str_radix(digits, radix).ok().filter(|_| plain)
}

/// A wrong value as an error quotes it.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
