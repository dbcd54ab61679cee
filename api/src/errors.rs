//! Why a request is refused, as clients are told.

use std::error::Error;

use devices::mmds::StoreError;
use serde::Serialize;
use vmm::controller::Refusal;

/// A request that is not done. All of them are answered with 400, but for [`Fault::TooLarge`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// There is nothing at this path, or not for this method.
    #[error("Invalid request method and/or path: {method} {path}.")]
    NoSuchEndpoint {
        /// The method.
        method: String,
        /// The path.
        path: String,
    },
    /// A body where none belongs.
    #[error("{0} request cannot have a body.")]
    UnexpectedBody(&'static str),
    /// No body where one belongs.
    #[error("Empty {0} request.")]
    NoBody(&'static str),
    /// The body is not what belongs there.
    #[error("An error occurred when deserializing the json body of a request: {0}.")]
    Json(String),
    /// Fields of the body do not go together, or have nothing in them.
    #[error("The body of the request is not right: {fields} {what}.")]
    Fields {
        /// Which.
        fields: &'static str,
        /// What is wrong with them.
        what: &'static str,
    },
    /// The body is too long.
    #[error("Request payload with more than {limit} bytes: that is the limit allowed by server.")]
    TooLong {
        /// Bytes that a body may have.
        limit: usize,
    },
    /// The client did not send the rest of the body.
    #[error("The body of the request did not come, or not in time.")]
    BodyMissing,
    /// Path and body name different things.
    #[error("The id in the path, {path:?}, does not match the one in the body, {body:?}.")]
    IdMismatch {
        /// The id in the path.
        path: String,
        /// The id in the body.
        body: String,
    },
    /// A part of the API that rvmm does not have yet.
    #[error("{method} {path} is not supported yet.")]
    NotSupported {
        /// The method.
        method: String,
        /// The path.
        path: String,
    },
    /// A query that means nothing at its path.
    #[error("The query {query:?} is not known; there is {known}.")]
    Query {
        /// The query.
        query: String,
        /// What there is.
        known: &'static str,
    },
    /// The guest does not read what is typed.
    #[error("The guest's console has no room: {typed} of {len} bytes were typed.")]
    NotTyped {
        /// Bytes that were typed.
        typed: usize,
        /// Bytes that were to be.
        len: usize,
    },
    /// What was sent does not fit where it belongs. Answered with 413.
    #[error("{0}")]
    TooLarge(String),
    /// Too many clients follow already.
    #[error("{max} clients follow events or console already; try again when one of them has gone.")]
    TooManyFollowers {
        /// Those that may.
        max: usize,
    },
    /// The VM refuses.
    #[error("{0}")]
    Refused(String),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let causes = std::iter::successors(Some(&refusal as &dyn Error), |error| (*error).source());
        let message = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        match refusal {
            Refusal::Mmds(StoreError::TooLarge { .. }) => Self::TooLarge(message),
            _ => Self::Refused(message),
        }
    }
}

/// The body of a refusal.
#[derive(Serialize)]
pub(crate) struct FaultMessage {
    pub(crate) fault_message: String,
}
