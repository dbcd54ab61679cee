//! From a request of the guest to its answer. HTTP/1.1 (RFC 9112), as far as a metadata service needs it: GET, and PUT for
//! a token.

use std::time::{Duration, Instant};

use super::store::{Format, Found};
use super::token::TTL_SECONDS;
use super::{Mmds, MmdsVersion};

/// Headers that a request may have.
const MAX_HEADERS: usize = 64;
/// Bytes of a body that are read and thrown away so that the connection can go on.
const MAX_SKIPPED: usize = 8192;

const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN_HEADERS: [&str; 2] = ["X-metadata-token", "X-aws-ec2-metadata-token"];
const TTL_HEADERS: [&str; 2] = ["X-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token-ttl-seconds"];
const FORWARDED_HEADER: &str = "X-Forwarded-For";

/// What a request comes to.
#[derive(Debug)]
pub(super) struct Answer {
    /// What is sent.
    pub(super) bytes: Vec<u8>,
    /// Bytes that the request has, its body included; perhaps not all of them have come.
    pub(super) consumed: usize,
    /// The connection goes on.
    pub(super) keep_alive: bool,
}

/// A status with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status(u16, &'static str);

const OK: Status = Status(200, "OK");
const BAD_REQUEST: Status = Status(400, "Bad Request");
const UNAUTHORIZED: Status = Status(401, "Unauthorized");
const NOT_FOUND: Status = Status(404, "Not Found");
const METHOD_NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
const TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
const INTERNAL_ERROR: Status = Status(500, "Internal Server Error");
const NOT_IMPLEMENTED: Status = Status(501, "Not Implemented");

/// An answer without what HTTP puts around it.
struct Content {
    status: Status,
    media_type: &'static str,
    /// A header beside the usual ones.
    header: Option<(&'static str, String)>,
    text: String,
}

impl Content {
    fn text(status: Status, text: impl Into<String>) -> Self {
        Self { status, media_type: "text/plain", header: None, text: text.into() }
    }
}

/// Answers the request that `bytes` begin with, or that there is none in them; nothing when it is not complete. `full`:
/// there is no room for more of it.
pub(super) fn answer(mmds: &Mmds, bytes: &[u8], full: bool) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let malformed = |status, text: String| {
        let content = Content::text(status, text);
        mmds.metrics.refused_requests.increment();
        Some(Answer { bytes: wire(content, false, false), consumed: bytes.len(), keep_alive: false })
    };
    let head_len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if full => {
            return malformed(TOO_LARGE, format!("The request's head is longer than {} bytes.", bytes.len()));
        }
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => {
            return malformed(TOO_LARGE, format!("The request has more than {MAX_HEADERS} headers."));
        }
        Err(error) => return malformed(BAD_REQUEST, format!("Invalid request: {error}.")),
    };
    let request = Request {
        method: request.method.unwrap_or_default(),
        path: path(request.path.unwrap_or_default()),
        headers: request.headers,
        keep_alive_by_default: request.version == Some(1),
    };
    let Ok(body_len) = request.body_len() else {
        return malformed(BAD_REQUEST, "Invalid Content-Length.".to_owned());
    };
    let keep_alive = request.keep_alive() && body_len.is_some_and(|len| len <= MAX_SKIPPED);
    let content = mmds.respond(&request);
    let count = if content.status == OK { &mmds.metrics.requests } else { &mmds.metrics.refused_requests };
    count.increment();
    Some(Answer {
        bytes: wire(content, keep_alive, request.method == "HEAD"),
        consumed: head_len.saturating_add(body_len.unwrap_or(0)),
        keep_alive,
    })
}

/// A request, without its body, which has no meaning here.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    headers: &'a [httparse::Header<'a>],
    /// HTTP/1.1.
    keep_alive_by_default: bool,
}

impl<'a> Request<'a> {
    /// The value of the first header that has one of `names`.
    fn header(&self, names: &[&str]) -> Option<&'a [u8]> {
        let wanted = |name: &str| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        self.headers.iter().find(|header| wanted(header.name)).map(|header| header.value)
    }

    /// Whether a header that is a list has `item` in it.
    fn lists(&self, name: &str, item: &str) -> bool {
        let items = self.header(&[name]).unwrap_or_default().split(|byte| *byte == b',');
        items
            .filter_map(|item| item.split(|byte| *byte == b';').next())
            .any(|found| found.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
    }

    fn keep_alive(&self) -> bool {
        if self.keep_alive_by_default {
            !self.lists("Connection", "close")
        } else {
            self.lists("Connection", "keep-alive")
        }
    }

    /// Bytes of the body; none when only the end of the connection tells.
    fn body_len(&self) -> Result<Option<usize>, ()> {
        if self.header(&["Transfer-Encoding"]).is_some() {
            return Ok(None);
        }
        let Some(len) = self.header(&["Content-Length"]) else { return Ok(Some(0)) };
        if len.is_empty() || !len.iter().all(u8::is_ascii_digit) {
            return Err(());
        }
        str::from_utf8(len).map_err(drop)?.parse().map(Some).map_err(drop)
    }
}

/// The path of a request's target, without a query and, for a client that speaks to a proxy, without scheme and host.
fn path(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
            rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
        }
        _ => target,
    };
    target.split(['?', '#']).next().unwrap_or_default()
}

/// A path as a JSON pointer: slashes that follow one another are one, and one at the end makes no difference.
fn pointer(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty()).flat_map(|part| ["/", part]).collect()
}

impl Mmds {
    fn respond(&self, request: &Request<'_>) -> Content {
        if !request.path.starts_with('/') {
            return Content::text(BAD_REQUEST, "Invalid URI.");
        }
        match request.method {
            "GET" => self.get(request),
            "PUT" => self.put(request),
            _ => Content {
                header: Some(("Allow", "GET, PUT".to_owned())),
                ..Content::text(METHOD_NOT_ALLOWED, "Not allowed HTTP method.")
            },
        }
    }

    fn get(&self, request: &Request<'_>) -> Content {
        let token = request.header(&TOKEN_HEADERS);
        let valid = token.is_some_and(|token| self.tokens.is_valid(token, Instant::now()));
        match token {
            None => self.metrics.rx_no_token.increment(),
            Some(_) if !valid => self.metrics.rx_invalid_token.increment(),
            Some(_) => {}
        }
        if self.version == MmdsVersion::V2 && !valid {
            return Content::text(
                UNAUTHORIZED,
                match token {
                    None => {
                        "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` header to specify the session token."
                    }
                    Some(_) => "MMDS token not valid.",
                },
            );
        }
        let json = !self.imds_compat && request.lists("Accept", "application/json");
        let format = if json { Format::Json } else { Format::Imds };
        match self.store.read(&pointer(request.path), format) {
            Found::Text(text) => Content {
                media_type: if json { "application/json" } else { "text/plain" },
                ..Content::text(OK, text)
            },
            Found::Unsupported => {
                Content::text(NOT_IMPLEMENTED, "Cannot retrieve value. The value has an unsupported type.")
            }
            Found::Nothing => Content::text(NOT_FOUND, format!("Resource not found: {}.", request.path)),
        }
    }

    /// Gives out a token.
    fn put(&self, request: &Request<'_>) -> Content {
        // A proxy that was misled into asking would say for whom.
        if request.header(&[FORWARDED_HEADER]).is_some() {
            return Content::text(BAD_REQUEST, format!("Invalid header: {FORWARDED_HEADER}."));
        }
        if pointer(request.path) != TOKEN_PATH {
            return Content::text(NOT_FOUND, format!("Resource not found: {}.", request.path));
        }
        let name = TTL_HEADERS.into_iter().find(|name| request.header(&[name]).is_some());
        let Some((name, value)) = name.and_then(|name| Some((name, request.header(&[name])?))) else {
            return Content::text(
                BAD_REQUEST,
                "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or `X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime.",
            );
        };
        let seconds = str::from_utf8(value).ok().and_then(|value| value.trim().parse::<u32>().ok());
        let Some(seconds) = seconds.filter(|seconds| TTL_SECONDS.contains(seconds)) else {
            let (min, max) = (TTL_SECONDS.start(), TTL_SECONDS.end());
            let text = format!(
                "Invalid time to live value provided for token: {min} to {max} seconds are possible."
            );
            return Content::text(BAD_REQUEST, text);
        };
        match self.tokens.issue(Duration::from_secs(u64::from(seconds)), Instant::now()) {
            Ok(token) => {
                self.metrics.tokens.increment();
                Content { header: Some((name, seconds.to_string())), ..Content::text(OK, token) }
            }
            Err(error) => {
                log::warn!("no token for the metadata service: {error}");
                Content::text(INTERNAL_ERROR, "No token can be made.")
            }
        }
    }
}

/// The bytes of an answer; to a HEAD request, without its body.
fn wire(content: Content, keep_alive: bool, head_only: bool) -> Vec<u8> {
    let Content { status: Status(code, reason), media_type, header, text } = content;
    let header = header.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let len = text.len();
    let mut bytes = format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: {media_type}\r\nContent-Length: {len}\r\nConnection: {connection}\r\n{header}\r\n"
    )
    .into_bytes();
    if !head_only {
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}
