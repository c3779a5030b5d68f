//! What answered, by its first bytes.

use identity::Code;

/// What was spoken where TLS 1.3 was due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP without TLS.
    Http,
    /// TLS, of a version before 1.3.
    OldTls,
    /// TLS 1.3, or nothing to tell it from that.
    Tls,
    /// Something else, by its first characters.
    Other(String),
}

impl Spoken {
    /// By the first bytes that the server sent.
    #[must_use]
    pub fn of(first: &[u8]) -> Self {
        match first {
            [] => Self::Tls,
            [b'H', b'T', b'T', b'P', b'/', ..] => Self::Http,
            [ALERT, 3, _, 0, 2, _, PROTOCOL_VERSION, ..] => Self::OldTls,
            // A hello that does not say which version was agreed on, as 1.3 must, agrees on an older one.
            [HANDSHAKE, 3, _, high, low, SERVER_HELLO, rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low])).saturating_sub(1);
                let hello = rest.get(..length).unwrap_or(rest);
                let agreed = hello.windows(AGREED_ON_1_3.len()).any(|bytes| bytes == AGREED_ON_1_3);
                if agreed { Self::Tls } else { Self::OldTls }
            }
            [ALERT | HANDSHAKE, 3, ..] => Self::Tls,
            other => {
                let line = other.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or(other);
                Self::Other(
                    line.iter().take(CHARACTERS).map(|byte| byte.escape_ascii().to_string()).collect(),
                )
            }
        }
    }

    /// The code that says more than that it is not TLS 1.3.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Http => Some(Code::TlsPlainHttp),
            Self::OldTls => Some(Code::TlsVersionOld),
            Self::Tls => None,
            Self::Other(_) => Some(Code::NotTls),
        }
    }
}

/// The header by which a proxy or web server shows itself in an answer, if one does: a gateway sends none
/// of them.
#[must_use]
pub fn edge_in(answer: &[u8]) -> Option<String> {
    let head = answer.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    head.skip(1).find_map(|line| {
        let text: String =
            line.trim_ascii().iter().take(CHARACTERS).map(|byte| byte.escape_ascii().to_string()).collect();
        let (name, _) = text.split_once(':')?;
        EDGES.iter().any(|edge| name.eq_ignore_ascii_case(edge)).then_some(text)
    })
}

const EDGES: [&str; 5] = ["server", "via", "x-cache", "cf-ray", "x-served-by"];
const CHARACTERS: usize = 48;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const PROTOCOL_VERSION: u8 = 70;
/// The extension supported_versions of two bytes with 1.3 in it.
const AGREED_ON_1_3: &[u8] = &[0, 43, 0, 2, 3, 4];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_is_known_by_its_first_bytes() {
        assert_eq!(Spoken::of(b""), Spoken::Tls);
        assert_eq!(Spoken::of(b"HTTP/1.1 400 Bad Request\r\n"), Spoken::Http);
        assert_eq!(Spoken::of(&[21, 3, 3, 0, 2, 2, 70]), Spoken::OldTls);
        assert_eq!(Spoken::of(&[21, 3, 3, 0, 2, 2, 40]), Spoken::Tls);
        assert_eq!(Spoken::of(&[22, 3, 3, 0, 8, 2, 0, 0, 4, 3, 3, 1, 1]), Spoken::OldTls);
        assert_eq!(Spoken::of(&[22, 3, 3, 0, 10, 2, 0, 0, 6, 0, 43, 0, 2, 3, 4]), Spoken::Tls);
        assert_eq!(Spoken::of(b"SSH-2.0-x\r\n\xff"), Spoken::Other("SSH-2.0-x".to_owned()));
        assert_eq!(Spoken::of(b"\x00\xffx"), Spoken::Other("\\x00\\xffx".to_owned()));
    }

    #[test]
    fn an_edge_shows_itself_by_a_header_and_not_by_the_body() {
        let answer = b"HTTP/1.1 101 x\r\nServer: nginx/1.22.1\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(edge_in(answer).as_deref(), Some("Server: nginx/1.22.1"));
        assert_eq!(edge_in(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nServer: x\r\n"), None);
        assert_eq!(edge_in(b""), None);
    }
}
