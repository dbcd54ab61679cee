//! A state in a file that anybody may have changed.
use arbitrary::Arbitrary;

/// How a file differs from the one that was written.
#[derive(Arbitrary, Debug)]
pub struct InFile {
    /// Other bytes altogether; the written ones, patched, if there are none.
    raw: Option<Vec<u8>>,
    /// Where, modulo their number, a byte is replaced.
    patches: Vec<(u16, u8)>,
}

impl InFile {
    /// What is in the file instead of what was `written`, which is not nothing.
    pub fn changed(self, mut written: Vec<u8>) -> Vec<u8> {
        self.raw.unwrap_or_else(|| {
            for (at, value) in &self.patches {
                let at = usize::from(*at) % written.len();
                written[at] = *value;
            }
            written
        })
    }
}
