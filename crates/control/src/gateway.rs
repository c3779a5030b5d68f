//! What muster-gateway and musterd say to each other (`docs/spec/gateway-socket.md`).
//!
//! The gateway ends TLS and HTTP and moves bytes. It passes on what it received exactly as it came,
//! with the channel binding of the TLS connection; musterd builds every digest itself, decides, and
//! answers. `id` is the gateway's number for one connection of an outside machine, never used again.

use core::fmt;
use std::net::SocketAddr;

use identity::{CharterId, Code, decode_hex, encode_hex};
use serde::{Deserialize, Serialize};

use crate::text::{Bytes, ReadText, Text};

/// The gateway's number for one outside connection; each is used once while the socket is up.
pub type ConnectionId = u64;

/// The RFC 9266 exporter of the outside machine's TLS connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exporter(pub [u8; 32]);

impl fmt::Display for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(..)")
    }
}

impl ReadText for Exporter {
    const EXPECTED: &'static str = "an exporter of 64 hexadecimal digits";
    fn read_text(text: &str) -> Option<Self> {
        decode_hex(text.as_bytes()).ok().map(Self)
    }
}

/// From muster-gateway to musterd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromGateway {
    /// A machine opened a connection and sent HELLO. Answered by [`ToGateway::Challenge`] or
    /// [`ToGateway::Cut`].
    Begin {
        /// The connection.
        id: ConnectionId,
        /// Its channel binding.
        exporter: Text<Exporter>,
        /// HELLO, exactly as received, without a line end.
        hello: Bytes,
        /// Where it comes from, for the log and for limits; not evidence.
        source: SocketAddr,
    },
    /// PROOF arrived. Answered by [`ToGateway::Verdict`] or [`ToGateway::Cut`].
    Finish {
        /// The connection.
        id: ConnectionId,
        /// PROOF, exactly as received, without a line end.
        proof: Bytes,
    },
    /// One frame of an accepted session.
    Data {
        /// The connection.
        id: ConnectionId,
        /// The frame.
        frame: Bytes,
    },
    /// The connection is gone. Sent once for each `Begin` that was not cut; nothing follows for it.
    Close {
        /// The connection.
        id: ConnectionId,
    },
    /// Somebody fetches the org's settings. Answered by [`ToGateway::Charters`].
    Charters {
        /// The connection.
        id: ConnectionId,
        /// The newest that is known there.
        after: Text<CharterId>,
    },
}

/// From musterd to muster-gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToGateway {
    /// Send this CHALLENGE.
    Challenge {
        /// The connection.
        id: ConnectionId,
        /// The line, without its end.
        line: String,
    },
    /// Send this VERDICT, then go on with the session, or close when there is none.
    Verdict {
        /// The connection.
        id: ConnectionId,
        /// The line, without its end.
        line: String,
        /// Present when the verdict is ok.
        session: Option<Bounds>,
    },
    /// One frame of an accepted session.
    Data {
        /// The connection.
        id: ConnectionId,
        /// The frame.
        frame: Bytes,
    },
    /// End the connection: before CHALLENGE with status 400, before VERDICT without a word, after it
    /// with close frame 4401 that carries code and reason. Nothing follows for it.
    Cut {
        /// The connection.
        id: ConnectionId,
        /// What to tell an accepted peer; none for an end in good order (close frame 1000).
        code: Option<Text<Code>>,
        /// In a few words, lower case without a period.
        reason: String,
    },
    /// The org's settings that follow `after`, oldest first; none when `after` is the newest.
    Charters {
        /// The connection.
        id: ConnectionId,
        /// Whether `after` is one of this org's at all.
        known: bool,
        /// As many as fit into 64 KiB; the asker asks again with the last.
        charters: Vec<Bytes>,
    },
}

/// What the gateway must hold the peer of an accepted session to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Most bytes of one frame, either way.
    pub frame_bytes_max: u32,
}

impl FromGateway {
    /// The connection it is about.
    #[must_use]
    pub const fn id(&self) -> ConnectionId {
        match self {
            Self::Begin { id, .. }
            | Self::Finish { id, .. }
            | Self::Data { id, .. }
            | Self::Close { id }
            | Self::Charters { id, .. } => *id,
        }
    }
}

impl ToGateway {
    /// The connection it is about.
    #[must_use]
    pub const fn id(&self) -> ConnectionId {
        match self {
            Self::Challenge { id, .. }
            | Self::Verdict { id, .. }
            | Self::Data { id, .. }
            | Self::Cut { id, .. }
            | Self::Charters { id, .. } => *id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing;

    fn json<T: Serialize>(message: &T) -> String {
        serde_json::to_string(message).unwrap()
    }

    #[test]
    fn messages_stand_in_json_as_the_specification_shows_them() {
        let begin = FromGateway::Begin {
            id: 7,
            exporter: Text(Exporter([1; 32])),
            hello: Bytes(b"hi".to_vec()),
            source: "192.0.2.1:5000".parse().unwrap(),
        };
        let text = format!(
            r#"{{"begin":{{"id":7,"exporter":"{}","hello":"6869","source":"192.0.2.1:5000"}}}}"#,
            "01".repeat(32)
        );
        assert_eq!(json(&begin), text);
        assert_eq!(framing::decode::<FromGateway>(text.as_bytes()).unwrap(), begin);
        let cut = ToGateway::Cut { id: 7, code: Some(Text(Code::Revoked)), reason: "revoked".into() };
        assert_eq!(json(&cut), r#"{"cut":{"id":7,"code":"MU-1403","reason":"revoked"}}"#);
        let close = FromGateway::Close { id: 7 };
        assert_eq!(json(&close), r#"{"close":{"id":7}}"#);
    }

    #[test]
    fn every_message_reads_back_and_names_its_connection() {
        let outward = [
            ToGateway::Challenge { id: 1, line: "x".into() },
            ToGateway::Verdict { id: 1, line: "x".into(), session: Some(Bounds { frame_bytes_max: 4096 }) },
            ToGateway::Data { id: 1, frame: Bytes(vec![0]) },
            ToGateway::Cut { id: 1, code: None, reason: String::new() },
            ToGateway::Charters { id: 1, known: true, charters: vec![Bytes(vec![0])] },
        ];
        for message in outward {
            assert_eq!(message.id(), 1);
            assert_eq!(framing::decode::<ToGateway>(json(&message).as_bytes()).unwrap(), message);
        }
        let inward = [
            FromGateway::Finish { id: 2, proof: Bytes(vec![1]) },
            FromGateway::Data { id: 2, frame: Bytes(vec![1]) },
            FromGateway::Close { id: 2 },
            FromGateway::Charters { id: 2, after: Text(CharterId([3; 32])) },
        ];
        for message in inward {
            assert_eq!(message.id(), 2);
            assert_eq!(framing::decode::<FromGateway>(json(&message).as_bytes()).unwrap(), message);
        }
    }

    #[test]
    fn what_is_not_in_the_specification_is_refused() {
        for wrong in [
            r#"{"close":{"id":7,"more":1}}"#,
            r#"{"close":{"id":7,"id":8}}"#,
            r#"{"close":{}}"#,
            r#"{"close":{"id":-1}}"#,
            r#"{"close":{"id":7},"data":{"id":7,"frame":""}}"#,
            r#"{"data":{"id":7,"frame":"0"}}"#,
            r#"{"data":{"id":7,"frame":"AA"}}"#,
            r#"{"charters":{"id":7,"after":"00"}}"#,
            r#"{"shutdown":{}}"#,
            r#"[]"#,
            r#""close""#,
        ] {
            assert!(framing::decode::<FromGateway>(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_largest_frame_fits_into_one_message() {
        use identity::limits::{GATEWAY_MESSAGE_BYTES_MAX, SYNC_FRAME_BYTES_MAX};
        let data = ToGateway::Data { id: u64::MAX, frame: Bytes(vec![0xff; SYNC_FRAME_BYTES_MAX]) };
        assert!(framing::encode(&data, GATEWAY_MESSAGE_BYTES_MAX).is_ok());
    }
}
