//! `/rvmm/events`: what happens to the VM, as it happens, as server-sent events (HTML, 9.2).

use hyper::body::Bytes;
use vmm::controller::Event;

/// The media type of server-sent events.
pub(crate) const CONTENT_TYPE: &str = "text/event-stream";

/// An event on the wire: its name, and all of it as JSON.
pub(crate) fn message(event: &Event) -> Bytes {
    // Fails for maps whose keys are no strings, which events do not have.
    let value = serde_json::to_value(event).unwrap_or_default();
    let name = value.get("event").and_then(serde_json::Value::as_str).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {value}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_message_whatever_its_text() {
        let text = message(&Event::Fault { message: "two\nlines".to_owned() });
        assert_eq!(text, "event: fault\ndata: {\"event\":\"fault\",\"message\":\"two\\nlines\"}\n\n");
    }
}
