//! Somebody who answers in a VM's stead.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::Host;

/// A name that this test holds. Its folder goes first: who is shown as the holder is killed at the end of a test.
struct Impostor {
    folder: PathBuf,
    _lock: File,
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Gives whoever asks one whose name this test holds the answer that `answer` has for the path. Without one it is silent.
fn impostor(host: &Host, id: &str, answer: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> Impostor {
    let folder = host.folder(id);
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(folder.parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
    let lock = File::create(folder.join("pid")).unwrap();
    lock.lock().unwrap();
    let listener = UnixListener::bind(folder.join("api.sock")).unwrap();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let len = stream.read(&mut head).unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..len]).into_owned();
            match answer(head.split(' ').nth(1).unwrap_or_default()) {
                Some(body) => {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
                }
                None => silent.push(stream),
            }
        }
    });
    Impostor { folder, _lock: lock }
}

#[test]
fn nothing_that_an_impostor_answers_drives_the_terminal() {
    let host = Host::new();
    let _fake = impostor(&host, "fake", |path| {
        let answer = match path {
            "/rvmm/events" => "data: \x1b[2J\n\ndata: {\"event\":\"\\u001b[2J\u{9b}31m\"}\n\n",
            "/rvmm/metrics" => "rvmm_a 1\n\x1b]0;title\x07\n",
            _ => "{\"state\":\"\\u001b[2J\u{9b}31m\",\"uart\":\"\u{9b}\"}",
        };
        Some(answer.into())
    });
    assert_eq!(host.listed("fake").unwrap()["state"], "Unknown");
    assert_eq!(host.ask(["events", "fake"]), "{\"event\":\"\\u001b[2J\\u009b31m\"}\n");
    assert_eq!(host.ask(["metrics", "fake"]), "rvmm_a 1\n\\u{1b}]0;title\\u{7}\n");
    for verb in [["ps"].as_slice(), &["inspect", "fake"], &["config", "fake"], &["metrics", "--json", "fake"]]
    {
        let shown = host.ask(verb.iter().copied());
        assert!(!shown.contains(['\x1b', '\u{9b}']), "{verb:?}: {shown:?}");
    }
}

#[test]
fn an_answer_of_any_size_is_refused_before_it_fills_the_memory() {
    let host = Host::new();
    let list = |size: usize| Some(format!("[{}{{}}]", "{\"\":{}},".repeat(size / 8)).into());
    let _long = impostor(&host, "long", move |_| list(2 << 20));
    let _tiny = impostor(&host, "tiny", move |_| list(1 << 19 | 1 << 18));
    host.refused(["inspect", "long"], &["longer than 1048576 bytes"]);
    host.refused(["config", "long"], &["longer than 1048576 bytes"]);
    host.refused(["inspect", "tiny"], &["more than 65536 values"]);
    for id in ["long", "tiny"] {
        assert_eq!(host.listed(id).unwrap()["state"], "Silent");
    }
}

#[test]
fn vms_that_do_not_answer_keep_the_list_waiting_once() {
    let host = Host::new();
    let _vms: Vec<Impostor> = (0..12).map(|n| impostor(&host, &format!("silent-{n}"), |_| None)).collect();
    let started = Instant::now();
    let list = host.json(["ps", "--json"]);
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    let names: Vec<_> = list.as_array().unwrap().iter().map(|vm| vm["id"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 12);
    assert!(names.is_sorted(), "{names:?}");
    assert!(list.as_array().unwrap().iter().all(|vm| vm["state"] == "Silent"), "{list}");
}
