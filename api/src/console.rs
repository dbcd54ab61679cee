//! `/rvmm/console`, the part of it that takes its time: answers that go on, and typing for as long as there is room.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::time::{Instant, sleep};
use vmm::console::Tape;
use vmm::controller::{Remote, Request, Response};

use crate::endpoints::console;
use crate::errors::Fault;
use crate::reply::Reply;
use crate::server::{ask, response};
use crate::stream::{Payload, Place};

/// How long what is typed waits for the guest to read.
const TYPING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits before it looks again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What the guest wrote, and with `follow=true` what it goes on to write.
pub(crate) fn read(
    tape: &Arc<Tape>,
    query: Option<&str>,
    place: impl FnOnce() -> Result<Place, Fault>,
) -> Result<hyper::Response<Payload>, Fault> {
    let payload = if console::follows(query)? {
        Payload::Console { _place: place()?, follower: tape.follow() }
    } else {
        Payload::Whole(Some(Bytes::from(tape.content())))
    };
    Ok(response(StatusCode::OK, Some(console::CONTENT_TYPE), payload))
}

/// Types `bytes`, as fast as the guest reads.
pub(crate) async fn write(remote: &Remote, mut bytes: Vec<u8>) -> Result<Reply, Fault> {
    let (len, deadline) = (bytes.len(), Instant::now() + TYPING_TIMEOUT);
    let mut pause = FIRST_PAUSE;
    loop {
        let typed = match ask(remote, Request::Type(bytes.clone())).await? {
            Response::Typed(typed) => typed.min(bytes.len()),
            other => return Ok(Reply::unexpected(&other)),
        };
        bytes.drain(..typed);
        if bytes.is_empty() {
            return Ok(Reply::done());
        }
        if Instant::now() >= deadline {
            return Err(Fault::NotTyped { typed: len - bytes.len(), len });
        }
        pause = if typed > 0 { FIRST_PAUSE } else { LONGEST_PAUSE.min(pause * 2) };
        sleep(pause).await;
    }
}
