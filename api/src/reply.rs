//! What goes back to the client.

use hyper::StatusCode;
use serde::Serialize;
use vmm::controller::Response;

use crate::errors::{Fault, FaultMessage};

const JSON: &str = "application/json";

/// An answer on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The media type of the body; none without a body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A write succeeded.
    pub(crate) fn done() -> Self {
        Self { status: StatusCode::NO_CONTENT, content_type: None, body: Vec::new() }
    }

    /// A value that was asked for.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        Self::with_json(StatusCode::OK, value)
    }

    /// A text that was asked for.
    pub(crate) fn text(content_type: &'static str, text: String) -> Self {
        Self { status: StatusCode::OK, content_type: Some(content_type), body: text.into_bytes() }
    }

    /// For a response that does not belong to the request, which the VM does not give.
    pub(crate) fn unexpected(response: &Response) -> Self {
        log::error!("unexpected response: {response:?}");
        let fault_message = "The VM gave an answer to something else.".to_owned();
        Self::with_json(StatusCode::INTERNAL_SERVER_ERROR, &FaultMessage { fault_message })
    }

    fn with_json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self { status, content_type: Some(JSON), body },
            // A path that is not Unicode, for one.
            Err(error) => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                content_type: Some(JSON),
                body: serde_json::json!({"fault_message": error.to_string()}).to_string().into_bytes(),
            },
        }
    }
}

impl From<Fault> for Reply {
    fn from(fault: Fault) -> Self {
        let status = match fault {
            Fault::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::with_json(status, &FaultMessage { fault_message: fault.to_string() })
    }
}
