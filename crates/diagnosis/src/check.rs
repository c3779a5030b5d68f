//! One thing that was looked at.

use core::fmt;

use identity::Code;

/// What was looked at, in the order of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The CA certificates that are trusted here.
    Bundle,
    /// The gateway's name.
    Resolve,
    /// The way to it.
    Tcp,
    /// An edge on it that opens TLS, where the address names one.
    Edge,
    /// Whether TLS 1.3 is spoken there.
    Tls,
    /// From whom the certificate comes.
    Chain,
    /// For which name it is.
    Name,
    /// When it holds.
    Time,
    /// The CA at the end of the chain.
    Anchor,
    /// The org's settings as the gateway has them.
    Settings,
    /// The WebSocket.
    WebSocket,
    /// Whether the TLS connection ends at the gateway.
    Exporter,
    /// The proof of both keys.
    ConnAuth,
    /// This machine's place in the org.
    Membership,
    /// The tunnels.
    WireGuard,
    /// This machine's clock.
    Clock,
}

/// How it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// In order.
    Ok,
    /// Works, and wants attention.
    Warn,
    /// Wrong.
    Fail,
    /// Not looked at.
    Skip,
}

/// What was found at one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check<S = Stage> {
    /// Where.
    pub stage: S,
    /// How it is.
    pub status: Status,
    /// What it is called, when it is not in order.
    pub code: Option<Code>,
    /// What was seen, or why nothing was looked at.
    pub seen: String,
}

impl<S> Check<S> {
    /// In order.
    #[must_use]
    pub fn ok(stage: S, seen: impl Into<String>) -> Self {
        Self { stage, status: Status::Ok, code: None, seen: seen.into() }
    }

    /// Works, and wants attention.
    #[must_use]
    pub fn warn(stage: S, code: Code, seen: impl Into<String>) -> Self {
        Self { stage, status: Status::Warn, code: Some(code), seen: seen.into() }
    }

    /// Wrong.
    #[must_use]
    pub fn fail(stage: S, code: Code, seen: impl Into<String>) -> Self {
        Self { stage, status: Status::Fail, code: Some(code), seen: seen.into() }
    }

    /// Not looked at.
    #[must_use]
    pub fn skip(stage: S, why: impl Into<String>) -> Self {
        Self { stage, status: Status::Skip, code: None, seen: why.into() }
    }

    /// Why it is so; empty where there is nothing to explain.
    #[must_use]
    pub fn why(&self) -> &'static str {
        self.code.map_or("", Code::cause)
    }

    /// What to do about it; empty where there is nothing to do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        self.code.map_or("", Code::remedy)
    }
}

impl Stage {
    /// All of them, in order.
    pub const ALL: &[Self] = &[
        Self::Bundle,
        Self::Resolve,
        Self::Tcp,
        Self::Edge,
        Self::Tls,
        Self::Chain,
        Self::Name,
        Self::Time,
        Self::Anchor,
        Self::Settings,
        Self::WebSocket,
        Self::Exporter,
        Self::ConnAuth,
        Self::Membership,
        Self::WireGuard,
        Self::Clock,
    ];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Resolve => "resolve",
            Self::Tcp => "tcp",
            Self::Edge => "edge",
            Self::Tls => "tls",
            Self::Chain => "chain",
            Self::Name => "name",
            Self::Time => "time",
            Self::Anchor => "anchor",
            Self::Settings => "settings",
            Self::WebSocket => "websocket",
            Self::Exporter => "exporter",
            Self::ConnAuth => "conn_auth",
            Self::Membership => "membership",
            Self::WireGuard => "wireguard",
            Self::Clock => "clock",
        }
    }
}

impl Status {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `FAIL MU-7020 chain: what was seen; why; what to do`.
impl<S: fmt::Display> fmt::Display for Check<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.status == Status::Fail { "FAIL" } else { self.status.as_str() };
        let stage = &self.stage;
        match self.code {
            None => write!(f, "{word:4} {:7} {stage}: {}", "", self.seen),
            Some(code) => {
                let why = self.why().trim_end_matches('.');
                write!(f, "{word:4} {code} {stage}: {}; {why}; {}", self.seen, self.remedy())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_stand_in_the_order_of_a_connection() {
        assert!(Stage::ALL.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_line_says_what_why_and_what_to_do() {
        let line = Check::fail(Stage::Chain, Code::ChainSelfSigned, "\"CN=x\"").to_string();
        assert!(line.starts_with("FAIL MU-7022 chain: \"CN=x\"; No CA stands behind it"), "{line}");
        assert!(line.ends_with(Code::ChainSelfSigned.remedy()), "{line}");
        assert_eq!(Check::ok(Stage::Tcp, "x").to_string(), "ok           tcp: x");
    }
}
