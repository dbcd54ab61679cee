//! `a,b=c` lists: the form of an option that describes something with several properties.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Splits at commas. Two commas in a row are one comma that belongs to the field, so that any path can be written.
pub(super) fn split(list: &OsStr) -> Vec<OsString> {
    let mut fields = Vec::new();
    let mut field = Vec::new();
    let mut bytes = list.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b',' || bytes.next_if_eq(&b',').is_some() {
            field.push(byte);
        } else {
            fields.push(OsString::from_vec(std::mem::take(&mut field)));
        }
    }
    fields.push(OsString::from_vec(field));
    fields
}

/// The key of a field, and its value when it has one (`key=value`).
pub(super) fn key_value(field: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let mut halves = field.as_bytes().splitn(2, |byte| *byte == b'=');
    let key = halves.next().unwrap_or_default();
    (OsStr::from_bytes(key), halves.next().map(OsStr::from_bytes))
}
