//! HTTP/1.1 heads, read within one bound and taken by one strict rule each: a request or an answer of
//! ours has exactly the headers it needs, each once, and no body that it does not announce.

use core::fmt;

use identity::limits::{HELLO_BYTES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_TARGET_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    EDGE_SUBPROTOCOL, SUBPROTOCOL,
    deadline::{Broken, within},
};

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadFault {
    /// The request has a body or announces one.
    Body,
    /// The bytes are no HTTP/1.1 head.
    Grammar,
    /// This header is missing or has another value than the one allowed.
    Header(&'static str),
    /// The method is not GET.
    Method,
    /// The request comes from a web page, which is no client of ours.
    Origin,
    /// Longer than [`HTTP_HEAD_BYTES_MAX`], or with more than [`HTTP_HEADERS_MAX`] headers.
    Oversize,
    /// A header stands twice.
    Repeated,
    /// Bytes follow the head that nobody may send yet.
    Trailing,
}

/// A head was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    Broken(Broken),
    Fault(HeadFault),
}

/// Bytes received and not taken yet; never more than one head's bound.
#[derive(Debug, Default)]
pub(crate) struct HeadBuffer {
    bytes: Vec<u8>,
}

/// A request that follows the rules.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestHead {
    /// An ordinary GET.
    Get { target: String },
    /// A WebSocket that opens with HELLO.
    Upgrade { target: String, hello: Vec<u8>, accept: String },
    /// A WebSocket for TLS that runs inside it.
    Inner { target: String, accept: String },
}

/// An answer's status and what the dialler needs of its headers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AnswerHead {
    /// 101 with the right headers.
    Switched { challenge: Vec<u8> },
    /// 200 with a body of this many bytes.
    Body { length: usize },
    /// Any other status, with what stands in place of CHALLENGE, if anything does.
    Status { status: u16, refusal: Option<Vec<u8>> },
}

impl HeadBuffer {
    /// Reads up to and including the empty line; what follows stays in the buffer.
    pub(crate) async fn head<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        until: Instant,
    ) -> Result<Vec<u8>, HeadError> {
        let mut searched = 0usize;
        loop {
            let from = searched.saturating_sub(END.len());
            let found = self.bytes.get(from..).and_then(|b| b.windows(END.len()).position(|w| w == END));
            if let Some(at) = found {
                let rest = self.bytes.split_off(from + at + END.len());
                return Ok(core::mem::replace(&mut self.bytes, rest));
            }
            searched = self.bytes.len();
            let room = HTTP_HEAD_BYTES_MAX.saturating_sub(searched);
            if room == 0 {
                return Err(HeadError::Fault(HeadFault::Oversize));
            }
            if self.bytes.capacity() == searched {
                // Grown by hand: left alone, a vector would double past the bound.
                self.bytes.reserve_exact(room.min(STEP_BYTES));
            }
            if within(until, stream.read_buf(&mut self.bytes)).await.map_err(HeadError::Broken)? == 0 {
                return Err(HeadError::Broken(Broken::Ended));
            }
        }
    }

    /// Takes what is left.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.bytes)
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The most that a connection keeps while a head is taken apart: the head, a step read beyond it,
    /// and what is copied out of it.
    #[cfg(test)]
    pub(crate) const PEAK_BYTES: usize =
        HTTP_HEAD_BYTES_MAX + STEP_BYTES + HELLO_BYTES_MAX + HTTP_TARGET_BYTES_MAX;
}

impl RequestHead {
    /// Takes a head by the rules.
    pub(crate) fn parse(head: &[u8]) -> Result<Self, HeadFault> {
        let mut slots = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
        let mut request = httparse::Request::new(&mut slots);
        whole(head, request.parse(head))?;
        let headers = Headers::of(request.headers)?;
        if request.version != Some(1) {
            return Err(HeadFault::Grammar);
        }
        if headers.get("origin").is_some() {
            return Err(HeadFault::Origin);
        }
        if request.method != Some("GET") {
            return Err(HeadFault::Method);
        }
        if headers.get("content-length").is_some() || headers.get("transfer-encoding").is_some() {
            return Err(HeadFault::Body);
        }
        headers.get("host").filter(|h| !h.is_empty()).ok_or(HeadFault::Header("host"))?;
        let target = request.path.unwrap_or_default();
        if target.len() > HTTP_TARGET_BYTES_MAX {
            return Err(HeadFault::Oversize);
        }
        let target = target.to_owned();
        if headers.get("upgrade").is_none() {
            return match headers.get(HELLO) {
                Some(_) => Err(HeadFault::Header("upgrade")),
                None => Ok(Self::Get { target }),
            };
        }
        headers.upgrade()?;
        let version = headers.get("sec-websocket-version");
        version.filter(|v| *v == b"13").ok_or(HeadFault::Header("sec-websocket-version"))?;
        let protocol = headers.get("sec-websocket-protocol").unwrap_or_default();
        let inner = protocol == EDGE_SUBPROTOCOL.as_bytes();
        if !inner && protocol != SUBPROTOCOL.as_bytes() {
            return Err(HeadFault::Header("sec-websocket-protocol"));
        }
        let key = headers.get("sec-websocket-key").filter(|k| is_key(k));
        let key = key.ok_or(HeadFault::Header("sec-websocket-key"))?;
        if inner {
            return match headers.get(HELLO) {
                // It would be told to the edge, and is meant for whoever is behind it.
                Some(_) => Err(HeadFault::Header(HELLO)),
                None => Ok(Self::Inner { target, accept: derive_accept_key(key) }),
            };
        }
        let hello = headers.get(HELLO).filter(|h| (1..=HELLO_BYTES_MAX).contains(&h.len()));
        let hello = hello.ok_or(HeadFault::Header(HELLO))?.to_vec();
        Ok(Self::Upgrade { target, hello, accept: derive_accept_key(key) })
    }
}

impl AnswerHead {
    /// Takes the answer to an upgrade whose key asks for `accept`, or to a GET when there is none.
    pub(crate) fn parse(head: &[u8], accept: Option<&str>) -> Result<Self, HeadFault> {
        let mut slots = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut slots);
        whole(head, answer.parse(head))?;
        let headers = Headers::of(answer.headers)?;
        if answer.version != Some(1) {
            return Err(HeadFault::Grammar);
        }
        if headers.get("transfer-encoding").is_some() {
            return Err(HeadFault::Body);
        }
        match (answer.code, accept) {
            (Some(101), Some(accept)) => {
                headers.upgrade()?;
                let got = headers.get("sec-websocket-accept");
                got.filter(|a| *a == accept.as_bytes()).ok_or(HeadFault::Header("sec-websocket-accept"))?;
                let protocol = headers.get("sec-websocket-protocol");
                protocol
                    .filter(|p| *p == SUBPROTOCOL.as_bytes())
                    .ok_or(HeadFault::Header("sec-websocket-protocol"))?;
                if headers.get("sec-websocket-extensions").is_some() {
                    return Err(HeadFault::Header("sec-websocket-extensions"));
                }
                let challenge = headers.get(CHALLENGE).ok_or(HeadFault::Header(CHALLENGE))?.to_vec();
                Ok(Self::Switched { challenge })
            }
            (Some(200), None) => {
                let length = headers.get("content-length").and_then(number);
                Ok(Self::Body { length: length.ok_or(HeadFault::Header("content-length"))? })
            }
            (Some(status), _) => {
                Ok(Self::Status { status, refusal: headers.get(CHALLENGE).map(<[u8]>::to_vec) })
            }
            (None, _) => Err(HeadFault::Grammar),
        }
    }
}

/// The answer of an edge to the upgrade: none if it switched to the WebSocket that was asked for with this key,
/// else its status. An edge adds headers of its own as it likes, some of them twice.
pub(crate) fn switched(head: &[u8], accept: &str) -> Result<Option<u16>, HeadFault> {
    let mut slots = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut slots);
    whole(head, answer.parse(head))?;
    let status = answer.code.filter(|_| answer.version == Some(1)).ok_or(HeadFault::Grammar)?;
    if status != 101 {
        return Ok(Some(status));
    }
    let headers = Headers(answer.headers);
    headers.upgrade()?;
    for (name, wanted) in [
        ("sec-websocket-accept", Some(accept.as_bytes())),
        ("sec-websocket-protocol", Some(EDGE_SUBPROTOCOL.as_bytes())),
        ("sec-websocket-extensions", None),
    ] {
        if !headers.all(name).eq(wanted) {
            return Err(HeadFault::Header(name));
        }
    }
    Ok(None)
}

struct Headers<'h, 'b>(&'h [httparse::Header<'b>]);

impl<'h, 'b> Headers<'h, 'b> {
    /// No header of ours may stand twice: which one holds is what proxies disagree on.
    fn of(headers: &'h [httparse::Header<'b>]) -> Result<Self, HeadFault> {
        let twice = headers
            .iter()
            .enumerate()
            .any(|(i, a)| headers.iter().skip(i + 1).any(|b| a.name.eq_ignore_ascii_case(b.name)));
        if twice { Err(HeadFault::Repeated) } else { Ok(Self(headers)) }
    }

    fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.0.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.0.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    }

    fn upgrade(&self) -> Result<(), HeadFault> {
        let upgrade = self.get("upgrade").filter(|u| u.eq_ignore_ascii_case(b"websocket"));
        upgrade.ok_or(HeadFault::Header("upgrade"))?;
        let connection = self.get("connection").filter(|c| {
            c.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        });
        connection.map(|_| ()).ok_or(HeadFault::Header("connection"))
    }
}

/// The parser must take the head whole, and every line must end in CR LF: a lone LF is read in two ways.
fn whole(head: &[u8], parsed: httparse::Result<usize>) -> Result<(), HeadFault> {
    match parsed {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(HeadFault::Grammar),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadFault::Oversize),
        Err(_) => return Err(HeadFault::Grammar),
    }
    let lone =
        head.iter().zip(core::iter::once(&0).chain(head)).any(|(c, before)| *c == b'\n' && *before != b'\r');
    if lone { Err(HeadFault::Grammar) } else { Ok(()) }
}

/// 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|digits| {
        digits.len() == 22 && digits.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/'))
    })
}

fn number(text: &[u8]) -> Option<usize> {
    let digits = (1..=9).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

impl fmt::Display for HeadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => f.write_str("a body where none may be"),
            Self::Grammar => f.write_str("not an HTTP/1.1 head"),
            Self::Header(name) => write!(f, "header {name} is missing or wrong"),
            Self::Method => f.write_str("a method other than GET"),
            Self::Origin => f.write_str("a request of a web page"),
            Self::Oversize => f.write_str("an HTTP head that is too long"),
            Self::Repeated => f.write_str("a header that stands twice"),
            Self::Trailing => f.write_str("bytes before their time"),
        }
    }
}

impl core::error::Error for HeadFault {}

/// Carries HELLO in the request.
pub(crate) const HELLO: &str = "muster-hello";
/// Carries CHALLENGE in the answer.
pub(crate) const CHALLENGE: &str = "muster-challenge";
const END: &[u8] = b"\r\n\r\n";
const STEP_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /auth HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: muster.auth.v1\r\nMuster-Hello: hello you\r\n\r\n";

    fn parse(text: &str) -> Result<RequestHead, HeadFault> {
        RequestHead::parse(text.as_bytes())
    }

    #[test]
    fn an_upgrade_is_taken_with_its_hello() {
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        let expected = RequestHead::Upgrade { target: "/auth".into(), hello: b"hello you".to_vec(), accept };
        assert_eq!(parse(GOOD), Ok(expected));
    }

    #[test]
    fn each_departure_from_the_upgrade_is_refused_by_its_name() {
        for (from, to, why) in [
            ("Host: gw\r\n", "", HeadFault::Header("host")),
            ("Host: gw\r\n", "Host: gw\r\nhost: gw\r\n", HeadFault::Repeated),
            ("GET", "POST", HeadFault::Method),
            ("HTTP/1.1", "HTTP/1.0", HeadFault::Grammar),
            ("HTTP/1.1", "HTTP/2.0", HeadFault::Grammar),
            ("websocket", "h2c", HeadFault::Header("upgrade")),
            ("keep-alive, Upgrade", "keep-alive", HeadFault::Header("connection")),
            ("Version: 13", "Version: 8", HeadFault::Header("sec-websocket-version")),
            ("muster.auth.v1", "muster.auth.v2", HeadFault::Header("sec-websocket-protocol")),
            ("muster.auth.v1", "chat, muster.auth.v1", HeadFault::Header("sec-websocket-protocol")),
            ("Muster-Hello: hello you\r\n", "", HeadFault::Header(HELLO)),
            ("Muster-Hello: hello you", "Muster-Hello:", HeadFault::Header(HELLO)),
            ("Muster-Hello:", "Muster-Hello: a\r\nMUSTER-HELLO:", HeadFault::Repeated),
            ("Host: gw", "Host: gw\r\nOrigin: https://evil.example", HeadFault::Origin),
            ("Host: gw", "Host: gw\r\nContent-Length: 0", HeadFault::Body),
            ("Host: gw", "Host: gw\r\nContent-Length: 1\r\nContent-Length: 2", HeadFault::Repeated),
            ("Host: gw", "Host: gw\r\nTransfer-Encoding: chunked", HeadFault::Body),
            ("Host: gw\r\n", "Host: gw\n", HeadFault::Grammar),
            ("Host: gw\r\n", "Host: gw\r\n folded\r\n", HeadFault::Grammar),
            ("Host: gw\r\n", "Host : gw\r\n", HeadFault::Grammar),
            ("GET /auth", "GET  /auth", HeadFault::Grammar),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_eq!(parse(&text), Err(why), "{text}");
        }
        let key = GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl");
        assert_eq!(parse(&key), Err(HeadFault::Header("sec-websocket-key")));
        let long = GOOD.replace("hello you", &"x".repeat(HELLO_BYTES_MAX + 1));
        assert_eq!(parse(&long), Err(HeadFault::Header(HELLO)));
        let many = GOOD.replace("Host: gw", &format!("Host: gw{}", "\r\nX: y".repeat(40)));
        assert_eq!(parse(&many), Err(HeadFault::Oversize));
    }

    #[tokio::test]
    async fn a_head_of_the_largest_size_takes_no_more_memory_than_its_bound() {
        let head = format!("{}{}\r\n\r\n", "x".repeat(HTTP_HEAD_BYTES_MAX - 4), "");
        let (mut peer, mut ours) = tokio::io::duplex(64 * 1024);
        tokio::io::AsyncWriteExt::write_all(&mut peer, head.as_bytes()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut peer, &[b'y'; 9000]).await.unwrap();
        let mut buffer = HeadBuffer::default();
        let until = Instant::now() + core::time::Duration::from_secs(3);
        let got = buffer.head(&mut ours, until).await.unwrap();
        assert_eq!((got.len(), got.capacity()), (HTTP_HEAD_BYTES_MAX, HTTP_HEAD_BYTES_MAX));
        assert!(buffer.bytes.capacity() <= STEP_BYTES);
    }

    #[test]
    fn a_plain_get_carries_no_hello() {
        let get = "GET /charters?after=00 HTTP/1.1\r\nHost: gw\r\n\r\n";
        assert_eq!(parse(get), Ok(RequestHead::Get { target: "/charters?after=00".into() }));
        let with = get.replace("Host: gw", "Host: gw\r\nMuster-Hello: x");
        assert_eq!(parse(&with), Err(HeadFault::Header("upgrade")));
    }

    #[test]
    fn a_websocket_for_tls_carries_no_hello_and_needs_its_own_subprotocol() {
        let inner = GOOD.replace("/auth", "/v1/tls").replace("muster.auth.v1", "muster.tls.v1");
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        let bare = inner.replace("Muster-Hello: hello you\r\n", "");
        assert_eq!(parse(&bare), Ok(RequestHead::Inner { target: "/v1/tls".into(), accept }));
        assert_eq!(parse(&inner), Err(HeadFault::Header(HELLO)));
        let both = bare.replace("muster.tls.v1", "muster.tls.v1, muster.auth.v1");
        assert_eq!(parse(&both), Err(HeadFault::Header("sec-websocket-protocol")));
        let browser = bare.replace("Host: gw", "Host: gw\r\nOrigin: https://evil.example");
        assert_eq!(parse(&browser), Err(HeadFault::Origin));
    }

    #[test]
    fn an_edges_answer_may_have_any_headers_but_those_that_count_once_and_right() {
        let answer = "HTTP/1.1 101 Switching Protocols\r\nServer: edge\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
            Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: a\r\n\
            Sec-WebSocket-Protocol: muster.tls.v1\r\n\r\n";
        assert_eq!(switched(answer.as_bytes(), "a"), Ok(None));
        for (from, to, why) in [
            ("Accept: a", "Accept: b", HeadFault::Header("sec-websocket-accept")),
            ("Server: edge", "Sec-WebSocket-Accept: a", HeadFault::Header("sec-websocket-accept")),
            ("Sec-WebSocket-Accept: a\r\n", "", HeadFault::Header("sec-websocket-accept")),
            ("muster.tls.v1", "muster.auth.v1", HeadFault::Header("sec-websocket-protocol")),
            ("Server: edge", "Sec-WebSocket-Extensions: x", HeadFault::Header("sec-websocket-extensions")),
            ("Upgrade: websocket\r\n", "", HeadFault::Header("upgrade")),
            ("Connection: upgrade", "Connection: close", HeadFault::Header("connection")),
            ("HTTP/1.1", "HTTP/1.0", HeadFault::Grammar),
        ] {
            assert_eq!(switched(answer.replacen(from, to, 1).as_bytes(), "a"), Err(why), "{to}");
        }
        assert_eq!(switched(b"HTTP/1.1 404 Not Found\r\n\r\n", "a"), Ok(Some(404)));
        assert_eq!(switched(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "a"), Ok(Some(200)));
    }

    #[test]
    fn an_answer_switches_only_with_the_accept_that_was_asked_for() {
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: a\r\nSec-WebSocket-Protocol: muster.auth.v1\r\nMuster-Challenge: c c\r\n\r\n";
        let parse = |text: &str| AnswerHead::parse(text.as_bytes(), Some("a"));
        assert_eq!(parse(answer), Ok(AnswerHead::Switched { challenge: b"c c".to_vec() }));
        for (from, to, why) in [
            ("Accept: a", "Accept: b", HeadFault::Header("sec-websocket-accept")),
            ("muster.auth.v1", "other", HeadFault::Header("sec-websocket-protocol")),
            ("Muster-Challenge: c c", "X: y", HeadFault::Header(CHALLENGE)),
            ("Muster-Challenge:", "Muster-Challenge: d\r\nMuster-Challenge:", HeadFault::Repeated),
            (
                "\r\n\r\n",
                "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
                HeadFault::Header("sec-websocket-extensions"),
            ),
        ] {
            assert_eq!(parse(&answer.replacen(from, to, 1)), Err(why), "{from}");
        }
        assert_eq!(
            parse("HTTP/1.1 404 Not Found\r\n\r\n"),
            Ok(AnswerHead::Status { status: 404, refusal: None })
        );
        let refused = parse("HTTP/1.1 400 Bad Request\r\nMuster-Challenge: no ref=00\r\n\r\n");
        assert_eq!(refused, Ok(AnswerHead::Status { status: 400, refusal: Some(b"no ref=00".to_vec()) }));
        let body = AnswerHead::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", None);
        assert_eq!(body, Ok(AnswerHead::Body { length: 12 }));
        let body = AnswerHead::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None);
        assert_eq!(body, Err(HeadFault::Body));
    }
}
