//! `SIZE`: an amount of memory.

/// Parses a number of bytes with an optional binary suffix: `512M`, `2G`, `1024K`, `1T`, `134217728`.
///
/// A number without a suffix counts bytes, as for the memory limit of a container; QEMU would take MiB. `--memory 512`
/// is then far too small for a VM and is refused later, rather than taken for something else. `KiB`, `MiB`, `GiB` and
/// `TiB` are understood too, in any case; fractions and powers of 1000 (`MB`) are not.
pub(super) fn parse(size: &str) -> Result<u64, String> {
    let digits = size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len());
    let (number, suffix) = size.split_at(digits);
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("expected a number and K, M or G, such as 512M or 2G".to_owned()),
    };
    if number.is_empty() {
        return Err("the number is missing; write 512M or 2G".to_owned());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "more than 64 bits can count".to_owned())
}
