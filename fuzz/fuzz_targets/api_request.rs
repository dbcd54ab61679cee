//! A request to the REST socket: any method, path and body.
//!
//! Holds: no panic; whatever is refused is refused with a message that is valid JSON; and what asks the VM for a change
//! names one thing, however the request was written. The first two lines are method and path, the rest is the body.
#![no_main]

use api::Reply;
use api::routes::Call;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut text = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (method, path) = (text(), text());
    let body = lines.next().unwrap_or_default();
    match Call::parse(&method, &path, body) {
        Ok(Call::Answered(reply)) => {
            serde_json::from_slice::<serde_json::Value>(&reply.body).unwrap();
        }
        Ok(Call::Ask(request, _)) => {
            // A slash at the end makes no difference.
            let Ok(Call::Ask(again, _)) = Call::parse(&method, &format!("{path}/"), body) else {
                panic!("{method} {path}/");
            };
            assert_eq!(again, request);
        }
        Ok(Call::Events | Call::Console) => assert!(body.is_empty()),
        Ok(Call::Type(bytes)) => assert_eq!(bytes, body),
        Err(fault) => {
            let reply = Reply::from(fault);
            assert_eq!(reply.status.as_u16(), 400);
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            assert!(body["fault_message"].as_str().is_some_and(|message| !message.is_empty()));
        }
    }
});
