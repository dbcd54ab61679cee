use super::super::http::{Answer, answer};
use super::*;

fn document() -> serde_json::Value {
    json!({"latest": {"meta-data": {"id": "i-1", "net": {"mac": "x"}}, "n": 1}})
}

/// Status, headers and body of the answer to a request that is complete.
#[track_caller]
fn ask(mmds: &Mmds, request: &str) -> (u16, String, String) {
    let Answer { bytes, consumed, .. } = answer(mmds, request.as_bytes(), false).expect("incomplete");
    assert_eq!(consumed, request.len(), "{request}");
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(length.parse(), Ok(body.len()));
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

#[track_caller]
fn get(mmds: &Mmds, path: &str, headers: &str) -> (u16, String) {
    let (status, _, body) = ask(mmds, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"));
    (status, body)
}

#[track_caller]
fn put(mmds: &Mmds, path: &str, headers: &str) -> (u16, String) {
    let (status, _, body) = ask(mmds, &format!("PUT {path} HTTP/1.1\r\n{headers}\r\n"));
    (status, body)
}

fn found(body: &str) -> (u16, String) {
    (200, body.to_owned())
}

#[test]
fn version_1_answers_plain_requests() {
    let mmds = service(MmdsVersion::V1, document());
    for path in [
        "/latest/meta-data/id",
        "/latest/meta-data/id/",
        "//latest///meta-data/id",
        "/latest/meta-data/id?x=1",
    ] {
        assert_eq!(get(&mmds, path, ""), found("i-1"), "{path}");
    }
    assert_eq!(get(&mmds, "/", ""), found("latest/"));
    assert_eq!(get(&mmds, "http://169.254.169.254/latest", ""), found("meta-data/\nn"));
    assert_eq!(get(&mmds, "http://169.254.169.254", ""), found("latest/"));
    assert_eq!(get(&mmds, "/latest/meta-data", "Accept: text/plain\r\n"), found("id\nnet/"));
    assert_eq!(get(&mmds, "/latest/meta-data", "Accept: */*\r\n"), found("id\nnet/"));
    let (status, head, body) =
        ask(&mmds, "GET /latest HTTP/1.1\r\naccept: text/html, Application/JSON;q=0.9\r\n\r\n");
    assert_eq!((status, body), found(r#"{"meta-data":{"id":"i-1","net":{"mac":"x"}},"n":1}"#));
    assert!(head.contains("Content-Type: application/json"), "{head}");
    assert_eq!(get(&mmds, "/latest/n", "").0, 501);
    assert_eq!(get(&mmds, "/latest/N", ""), (404, "Resource not found: /latest/N.".to_owned()));
    assert_eq!(get(&mmds, "/latest/meta-data/id", "X-metadata-token: wrong\r\n"), found("i-1"));
    let metrics = mmds.metrics();
    assert_eq!((metrics.rx_invalid_token.get(), metrics.refused_requests.get()), (1, 2));
    assert_eq!(metrics.rx_no_token.get() + 1, metrics.requests.get() + metrics.refused_requests.get());
}

#[test]
fn the_format_of_ec2_can_be_all_that_there_is() {
    let store = Arc::new(MmdsStore::default());
    store.put(document()).unwrap();
    let mmds = Mmds::new(&MmdsConfig { imds_compat: true, ..config(MmdsVersion::V1) }, store);
    let (status, head, body) = ask(&mmds, "GET /latest HTTP/1.1\r\nAccept: application/json\r\n\r\n");
    assert_eq!((status, body), found("meta-data/\nn"));
    assert!(head.contains("Content-Type: text/plain"), "{head}");
}

#[test]
fn version_2_wants_a_token_that_it_gave_out() {
    let mmds = service(MmdsVersion::V2, document());
    let path = "/latest/meta-data/id";
    let (status, body) = get(&mmds, path, "");
    assert!(status == 401 && body.contains("No MMDS token provided"), "{status} {body}");
    assert_eq!(get(&mmds, path, "X-metadata-token: x\r\n"), (401, "MMDS token not valid.".to_owned()));
    for (ttl_header, token_header) in [
        ("X-metadata-token-ttl-seconds", "X-metadata-token"),
        ("X-aws-ec2-metadata-token-ttl-seconds", "x-AWS-ec2-metadata-TOKEN"),
    ] {
        let request = format!("PUT /latest/api/token HTTP/1.1\r\n{ttl_header}: 21600\r\n\r\n");
        let (status, head, token) = ask(&mmds, &request);
        assert_eq!(status, 200);
        assert!(head.contains(&format!("{ttl_header}: 21600")), "{head}");
        assert_eq!(get(&mmds, path, &format!("{token_header}: {token}\r\n")), found("i-1"));
    }
    assert_eq!(mmds.metrics().tokens.get(), 2);
    // There is nothing to be learned about the document without one.
    assert_eq!(get(&mmds, "/nothing", "").0, 401);
}

#[test]
fn a_token_is_asked_for_in_one_way() {
    for version in [MmdsVersion::V1, MmdsVersion::V2] {
        let mmds = service(version, document());
        let ttl = "X-metadata-token-ttl-seconds";
        assert_eq!(put(&mmds, "/latest/api/token", &format!("{ttl}: 1\r\n")).0, 200);
        assert_eq!(
            put(&mmds, "/latest/api/token/", &format!("{ttl}: 21600\r\nContent-Length: 0\r\n")).0,
            200
        );
        for (path, headers, status) in [
            ("/latest/api/token", String::new(), 400),
            ("/latest/api/token", format!("{ttl}: 0\r\n"), 400),
            ("/latest/api/token", format!("{ttl}: 21601\r\n"), 400),
            ("/latest/api/token", format!("{ttl}: -1\r\n"), 400),
            ("/latest/api/token", format!("{ttl}: 4294967297\r\n"), 400),
            ("/latest/api/token", format!("{ttl}: \r\n"), 400),
            ("/latest/api/token", format!("{ttl}: 60\r\nX-Forwarded-For: 10.0.0.1\r\n"), 400),
            ("/latest/api/tokens", format!("{ttl}: 60\r\n"), 404),
            ("/", format!("{ttl}: 60\r\n"), 404),
        ] {
            assert_eq!(put(&mmds, path, &headers).0, status, "{path} {headers}");
        }
    }
}

#[test]
fn other_methods_are_named_what_is_allowed() {
    let mmds = service(MmdsVersion::V1, document());
    for method in ["POST", "PATCH", "DELETE", "OPTIONS", "get", "HEAD"] {
        let request = format!("{method} / HTTP/1.1\r\n\r\n");
        let answer = answer(&mmds, request.as_bytes(), false).unwrap();
        let text = String::from_utf8(answer.bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("Allow: GET, PUT\r\n"), "{text}");
        assert_eq!(text.ends_with("\r\n\r\n"), method == "HEAD", "{text}");
    }
}

#[test]
fn what_is_no_request_is_refused_and_ends_the_connection() {
    let mmds = service(MmdsVersion::V1, document());
    let many = "h: 1\r\n".repeat(65);
    for (request, status) in [
        ("\0\0\0\0".to_owned(), 400),
        ("GET\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nno header\r\n\r\n".to_owned(), 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\x0b".to_owned(), 400),
        ("GET latest HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431),
    ] {
        let answer = answer(&mmds, request.as_bytes(), false).unwrap();
        let text = String::from_utf8(answer.bytes).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {text}");
        assert!(!answer.keep_alive && text.contains("Connection: close"), "{request:?}: {text}");
    }
}

#[test]
fn a_request_that_is_not_complete_waits_for_more_as_long_as_there_is_room() {
    let mmds = service(MmdsVersion::V1, document());
    let request = b"GET /latest/meta-data/id HTTP/1.1\r\nHost: x\r\n\r\n";
    for len in 1..request.len() {
        assert!(answer(&mmds, &request[..len], false).is_none(), "{len}");
    }
    assert!(answer(&mmds, &request[..request.len() - 1], true).is_some_and(|answer| !answer.keep_alive));
}

#[test]
fn connections_go_on_as_http_says() {
    let mmds = service(MmdsVersion::V1, document());
    for (request, keep_alive, consumed) in [
        ("GET / HTTP/1.1\r\n\r\n", true, 18),
        ("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", false, 37),
        ("GET / HTTP/1.0\r\n\r\n", false, 18),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, 42),
        ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", true, 18),
        ("GET / HTTP/1.1\r\nContent-Length: 100\r\n\r\n", true, 139),
        ("GET / HTTP/1.1\r\nContent-Length: 8193\r\n\r\n", false, 8233),
        ("GET / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n", false, usize::MAX),
        ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false, 46),
    ] {
        let answer = answer(&mmds, request.as_bytes(), false).unwrap();
        assert_eq!((answer.keep_alive, answer.consumed), (keep_alive, consumed), "{request}");
    }
}
