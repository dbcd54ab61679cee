use super::*;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

const PATIENCE: Duration = Duration::from_millis(300);

/// What a client of so much patience gets that asks one whose socket `answer` has when the request has come.
fn asked_of(
    patience: Duration,
    answer: impl FnOnce(UnixStream) + Send + 'static,
) -> Result<Vec<u8>, ClientError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        answer(stream);
    });
    Client::new(&path, patience).unwrap().get("/")
}

/// What a client gets that asks one who answers every request with `answer`, as it stands.
fn asked(answer: &'static [u8]) -> Result<Vec<u8>, ClientError> {
    asked_of(PATIENCE, move |mut stream| {
        let _ = stream.write_all(answer);
        // Until the client has had enough.
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

#[test]
fn an_answer_is_its_body_and_a_refusal_its_message() {
    assert_eq!(asked(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap(), b"{}");
    let refused = b"HTTP/1.1 400 Bad\r\ncontent-length: 22\r\n\r\n{\"fault_message\":\"no\"}";
    assert!(matches!(asked(refused), Err(ClientError::Refused(message)) if message == "no"));
}

#[test]
fn what_is_no_answer_is_an_error() {
    assert!(matches!(asked(b"SSH-2.0-OpenSSH\r\n\r\n"), Err(ClientError::Broken(_))));
    assert!(matches!(
        asked(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno"),
        Err(ClientError::Unknown(StatusCode::NOT_FOUND))
    ));
}

#[test]
fn an_answer_that_does_not_come_or_does_not_end_is_not_waited_for() {
    assert!(matches!(asked(b""), Err(ClientError::Silent(PATIENCE))));
    assert!(matches!(
        asked(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}"),
        Err(ClientError::Silent(PATIENCE))
    ));
}

#[test]
fn an_answer_without_bounds_is_cut_off() {
    let answer = asked_of(Duration::from_secs(30), |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 8192]).is_ok() {}
    });
    assert!(matches!(answer, Err(ClientError::TooLong(MAX_DESCRIPTION))));
}

#[test]
fn nobody_at_the_socket_is_an_error_that_names_it() {
    let client = Client::new(Path::new("/nowhere/at/all"), PATIENCE).unwrap();
    assert!(client.get("/").unwrap_err().to_string().contains("/nowhere/at/all"));
}
