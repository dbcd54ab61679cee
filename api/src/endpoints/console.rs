//! `/rvmm/console`: what the guest wrote to its consoles, and typing there.

use crate::errors::Fault;
use crate::routes::Call;

/// The media type of bytes that mean nothing to us.
pub(crate) const CONTENT_TYPE: &str = "application/octet-stream";

pub(crate) fn put(body: &[u8]) -> Call {
    Call::Type(body.to_vec())
}

/// Whether the query of a GET asks for what is to come as well.
///
/// # Errors
/// When it asks for something else.
pub(crate) fn follows(query: Option<&str>) -> Result<bool, Fault> {
    match query {
        None | Some("" | "follow=false") => Ok(false),
        Some("follow=true") => Ok(true),
        Some(other) => Err(Fault::Query { query: other.to_owned(), known: "follow=true" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_follows_or_does_not_or_is_refused() {
        assert_eq!(follows(None), Ok(false));
        assert_eq!(follows(Some("follow=false")), Ok(false));
        assert_eq!(follows(Some("follow=true")), Ok(true));
        for query in ["follow", "follow=1", "follow=true&follow=true", "tail=1"] {
            let refused = follows(Some(query)).unwrap_err().to_string();
            assert!(refused.contains(query) && refused.contains("follow=true"), "{refused}");
        }
    }
}
