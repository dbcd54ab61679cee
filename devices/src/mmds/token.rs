//! Session tokens: when they expire, and an authentication code of that. Nothing is kept of them, so there can be any number.
//!
//! A token is 64 hexadecimal digits: its expiry in milliseconds since the service was made, 64 bits; 64 random bits; and the
//! first 128 bits of the HMAC-SHA-256 of both, by a key that is made at random when the first token is asked for.

use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::random;

/// Shortest and longest life of a token, in seconds.
pub(super) const TTL_SECONDS: std::ops::RangeInclusive<u32> = 1..=21_600;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 8;
const EXPIRY_LEN: usize = 8;
const SIGNED_LEN: usize = EXPIRY_LEN + NONCE_LEN;
const CODE_LEN: usize = 16;
const TOKEN_LEN: usize = SIGNED_LEN + CODE_LEN;

/// What makes tokens, and knows them again.
pub(super) struct Tokens {
    key: OnceLock<Hmac<Sha256>>,
    /// What expiries count from, so that they tell nothing of the host.
    epoch: Instant,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { key: OnceLock::new(), epoch: Instant::now() }
    }
}

impl Tokens {
    /// A token that is good for `ttl` from `now` on.
    ///
    /// # Errors
    /// When the host has no randomness.
    pub(super) fn issue(&self, ttl: Duration, now: Instant) -> io::Result<String> {
        let key = if let Some(key) = self.key.get() {
            key
        } else {
            let key = new_key()?;
            self.key.get_or_init(|| key)
        };
        let mut nonce = [0; NONCE_LEN];
        random::fill(&mut nonce)?;
        let expiry = self.millis(now).saturating_add(millis(ttl));
        let signed = [expiry.to_be_bytes(), nonce].concat();
        let code = key.clone().chain_update(&signed).finalize().into_bytes();
        let mut token = String::with_capacity(2 * TOKEN_LEN);
        for byte in signed.iter().chain(code.iter().take(CODE_LEN)) {
            // Writing to a string does not fail.
            let _ = write!(token, "{byte:02x}");
        }
        Ok(token)
    }

    /// Whether `token` was issued here and is still good.
    pub(super) fn is_valid(&self, token: &[u8], now: Instant) -> bool {
        let Some((key, bytes)) = self.key.get().zip(decode(token)) else { return false };
        let (signed, code) = bytes.split_at(SIGNED_LEN);
        let Some(expiry) = signed.first_chunk::<EXPIRY_LEN>() else { return false };
        // Compares in constant time.
        let genuine = key.clone().chain_update(signed).verify_truncated_left(code).is_ok();
        genuine && u64::from_be_bytes(*expiry) > self.millis(now)
    }

    fn millis(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.epoch))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn new_key() -> io::Result<Hmac<Sha256>> {
    let mut key = [0; KEY_LEN];
    random::fill(&mut key)?;
    Hmac::new_from_slice(&key).map_err(io::Error::other)
}

fn decode(token: &[u8]) -> Option<[u8; TOKEN_LEN]> {
    if token.len() != 2 * TOKEN_LEN {
        return None;
    }
    let mut bytes = [0; TOKEN_LEN];
    let (pairs, _) = token.as_chunks::<2>();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    Some(bytes)
}
