//! The server does what `resources/openapi.yaml` says: every path, method, field, range and state of it.

mod document;
mod variants;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::{env, fs};

use document::{Document, Operation};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api::{Answer, ApiSocket, Connection, request};
use crate::support::kvm::require_kvm;
use crate::support::{Running, Rvmm, bare, namespace};

/// The methods that are tried on every path.
const METHODS: [&str; 6] = ["GET", "PUT", "PATCH", "POST", "DELETE", "OPTIONS"];

/// A server without a guest, and what the examples of the document name.
struct Subject {
    document: Document,
    socket: ApiSocket,
    folder: TempDir,
    /// Whether it has a network of its own, and taps.
    has_network: bool,
    _running: Running,
}

impl Subject {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["images", "run"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        symlink(bare::path("hlt-forever"), folder.path().join("images/vmlinux")).unwrap();
        for name in ["initrd", "disk.img", "other.img"] {
            fs::write(folder.path().join("images").join(name), [0; 4096]).unwrap();
        }
        let socket = ApiSocket::new();
        let tap = namespace::rvmm_in_network("ip tuntap add tap0 mode tap");
        let has_network = tap.is_some();
        let running = tap.unwrap_or_else(Rvmm::new).arg("--api-sock").arg(socket.path()).launch();
        Self { document: Document::read(), socket, folder, has_network, _running: running }
    }

    /// A body with paths that are there.
    fn placed(&self, body: &Value) -> Value {
        match body {
            Value::String(text) if text.starts_with("/images/") || text.starts_with("/run/") => {
                json!(format!("{}{text}", self.folder.path().display()))
            }
            Value::Object(members) => {
                members.iter().map(|(name, member)| (name.clone(), self.placed(member))).collect()
            }
            other => other.clone(),
        }
    }

    /// Holds every write against the document, and then every read, while the VM is in `state`. `renew` is called after
    /// each operation.
    fn walk(&self, state: &str, renew: impl Fn(&mut Connection)) {
        let mut connection = self.socket.connect();
        let operations = self.document.operations();
        let (reads, mut writes): (Vec<_>, Vec<_>) = operations.iter().partition(|one| one.method == "GET");
        // Some memory cannot have a balloon beside it; the metadata service names interfaces.
        let first = ["/machine-config", "/network-interfaces/{iface_id}"];
        let place = |path: &str| first.iter().position(|first| *first == path).unwrap_or(first.len());
        writes.sort_by_key(|one| (place(one.path), one.method != "PUT"));
        for operation in writes {
            if operation.takes_bytes() {
                walk_bytes(&mut connection, operation, state);
            } else {
                self.walk_write(&mut connection, operation, state);
            }
            renew(&mut connection);
        }
        for operation in reads {
            self.walk_read(&mut connection, operation, state);
        }
    }

    fn walk_write(&self, connection: &mut Connection, operation: &Operation<'_>, state: &str) {
        let Operation { method, path, .. } = operation;
        let schema = self.document.body(operation);
        let example = self.placed(operation.example());
        assert_eq!(self.document.check(schema, &example, path), Ok(()), "{method} {path}: the example");
        if operation.is_planned() {
            assert_refused(&ask(connection, operation, &example), &["not supported yet"], &example);
            return;
        }
        // A VM that takes none of it need not look at its values.
        let of_state = [&*format!("the VM is {}", state.to_lowercase()), "was configured"];
        let is_there = self.has_network || *method != "PATCH" || !path.starts_with("/network-interfaces");
        let mut right = self.document.right(schema, &example);
        right.push(example.clone());
        for body in right {
            assert_eq!(self.document.check(schema, &body, path), Ok(()), "{method} {path}");
            // What a bare guest does not do, and what comes after the walk.
            if body["action_type"] == "SendCtrlAltDel" && state != "Not started"
                || body["action_type"] == "InstanceStart" && state == "Not started"
                || body["stop"] == true
            {
                continue;
            }
            let answer = ask(connection, operation, &body);
            for made in operation.makes().filter_map(|name| body[name].as_str()) {
                let _ = fs::remove_file(made);
            }
            if !operation.is_answered(state, &body) || operation.is_once() {
                assert_refused(&answer, &of_state, &body);
            } else if is_there {
                assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{method} {path} {body}");
                assert_eq!(answer.content_type, None);
            }
        }
        for wrong in self.document.wrong(schema, &example) {
            let answer = ask(connection, operation, &wrong.body);
            let mut named: Vec<&str> = wrong.named.iter().map(String::as_str).collect();
            if !operation.is_answered(state, &example) || operation.is_once() {
                named.extend(of_state);
            }
            assert_refused(&answer, &named, &wrong.body);
            if let Some(fields) = wrong.fields {
                assert_eq!(
                    known_fields(&answer),
                    fields.into_iter().collect(),
                    "{method} {path} {}",
                    wrong.body
                );
            }
        }
        for text in ["[]", "[[]]", "null", "17", "\"text\"", "{", "", "{}{}", "\u{0}"] {
            let path = path.replace("{drive_id}", "data").replace("{iface_id}", "eth0");
            let answer = connection.ask(method, &path, text);
            assert_eq!(answer.status, 400, "{method} {path} {text:?}: {answer:?}");
        }
        // What was refused has changed nothing, and the last word is the example.
        if operation.is_answered(state, &example) && is_there && !operation.is_once() {
            ask(connection, operation, &example).assert_done();
        }
    }

    fn walk_read(&self, connection: &mut Connection, operation: &Operation<'_>, state: &str) {
        let path = operation.path;
        let (kind, schema) = operation.answer();
        if kind == "text/event-stream" {
            let event = self.first_event(path);
            assert_eq!(self.document.check(schema, &event, path), Ok(()));
            assert_eq!(event, json!({"event": "state", "state": state}));
            return;
        }
        let answer = ask(connection, operation, &Value::Null);
        if operation.is_planned() {
            assert_refused(&answer, &["not supported yet"], &Value::Null);
        } else if operation.is_answered(state, &Value::Null) {
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert!(answer.content_type.as_ref().unwrap().starts_with(kind), "{path}: {answer:?}");
            if kind == "application/json" {
                assert_eq!(self.document.check(schema, &answer.json(), path), Ok(()));
            }
            connection.ask("GET", path, "{}").assert_refused("cannot have a body");
        } else {
            let of_state = format!("the VM is {}", state.to_lowercase());
            assert_refused(&answer, &[&of_state], &Value::Null);
        }
    }

    /// The first event of a stream.
    fn first_event(&self, path: &str) -> Value {
        let mut stream = UnixStream::connect(self.socket.path()).unwrap();
        stream.write_all(request("GET", path, "").as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "content-type: text/event-stream"));
        let data = lines.find_map(|line| Some(line.strip_prefix("data: ")?.to_owned()));
        serde_json::from_str(&data.unwrap()).unwrap()
    }
}

/// Holds a write whose body is bytes against the document.
fn walk_bytes(connection: &mut Connection, operation: &Operation<'_>, state: &str) {
    let Operation { method, path, .. } = operation;
    for bytes in ["{}", "x", "\u{0}"] {
        let answer = connection.ask(method, path, bytes);
        if operation.is_answered(state, &Value::Null) {
            answer.assert_done();
        } else {
            answer.assert_refused(&format!("the VM is {}", state.to_lowercase()));
        }
    }
    connection.ask(method, path, "").assert_refused("Empty");
}

/// What comes of an operation with a body; the path has the id of the body, or else of the example.
fn ask(connection: &mut Connection, operation: &Operation<'_>, body: &Value) -> Answer {
    let path = match operation.path.split_once('{') {
        None => operation.path.to_owned(),
        Some((start, rest)) => {
            let name = rest.trim_end_matches('}');
            let id = body[name].as_str().filter(|id| !id.is_empty());
            // Where there is none, any will do.
            format!("{start}{}", id.or(operation.example()[name].as_str()).unwrap_or("any"))
        }
    };
    let text = if body.is_null() { String::new() } else { body.to_string() };
    connection.ask(&operation.method, &path, &text)
}

/// The request is refused with a message that has one of `named`.
#[track_caller]
fn assert_refused(answer: &Answer, named: &[&str], body: &Value) {
    assert_eq!(answer.status, 400, "{body}: {answer:?}");
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
    let fault: Value = serde_json::from_str(&answer.body).unwrap();
    let fields: Vec<_> = fault.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["fault_message"]);
    let message = fault["fault_message"].as_str().unwrap();
    assert!(named.iter().any(|name| message.contains(name)), "{body}: none of {named:?} in: {message}");
}

/// The fields that there are, by the refusal of one that there is not.
fn known_fields(answer: &Answer) -> BTreeSet<String> {
    let (_, expected) = answer.body.split_once("expected ").unwrap_or_default();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_endpoint_is_in_the_document_and_none_that_is_not_there() {
    let document = Document::read();
    let operations = document.operations();
    let documented: BTreeSet<_> = operations.iter().map(|one| (one.method.as_str(), one.path)).collect();
    let served: BTreeSet<_> = api::routes::endpoints().collect();
    assert_eq!(documented, served);
}

#[test]
fn the_document_is_whole() {
    let document = Document::read();
    assert_eq!(document.version(), env!("CARGO_PKG_VERSION"));
    let mut ids = BTreeSet::new();
    for (at, object) in document.objects() {
        if object.get("$ref").is_some() {
            document.resolve(object);
        }
        if let Some(id) = object["operationId"].as_str() {
            assert!(ids.insert(id), "{at}: {id} is there twice");
            assert!(object["responses"].get("400").is_some(), "{at}");
        }
        if object["type"] == "object" && object.get("properties").is_some() {
            assert!(object.get("additionalProperties").is_some(), "{at}");
            for name in document::required(object) {
                assert!(object["properties"].get(name).is_some(), "{at}: {name} is required and not there");
            }
        }
    }
}

#[test]
fn the_server_does_what_the_document_says_in_every_state() {
    require_kvm!();
    let subject = Subject::new();
    subject.walk("Not started", |_| {});
    // The examples make up a VM, and all its devices.
    subject.socket.put("/actions", &json!({"action_type": "InstanceStart"})).assert_done();
    subject.walk("Running", |_| {});
    let pause = |connection: &mut Connection| {
        connection.ask("PATCH", "/vm", r#"{"state": "Paused"}"#).assert_done();
    };
    pause(&mut subject.socket.connect());
    subject.walk("Paused", pause);
}

#[test]
fn methods_that_are_not_in_the_document_are_refused_on_every_path() {
    let subject = Subject::new();
    let operations = subject.document.operations();
    let mut connection = subject.socket.connect();
    for path in subject.document.paths() {
        let undocumented = METHODS
            .iter()
            .filter(|method| !operations.iter().any(|one| one.path == path && one.method == **method));
        for method in undocumented {
            let body = if *method == "GET" { "" } else { "{}" };
            connection
                .ask(method, path, body)
                .assert_refused(&format!("Invalid request method and/or path: {method} {path}"));
        }
    }
}
