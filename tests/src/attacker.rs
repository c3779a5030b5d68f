//! The attacker's orders and what it brings back. The attacker itself is `muster-attack`: one script for
//! every wire, in a process that shares nothing with its victims but sockets.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{org::Person, pki::Leaf, raw::Framing};

/// What to do, on which wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The attack.
    pub attack: Attack,
    /// How messages are carried, on both sides.
    pub framing: Framing,
    /// Whom to reach, if anybody.
    pub target: Option<SocketAddr>,
    /// To end TLS with, as whoever holds a certificate of the org's CA can. Without one there is no TLS on
    /// either side.
    pub certificate: Option<Leaf>,
    /// What is changed on the way.
    pub tricks: Vec<Trick>,
}

/// The attacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attack {
    /// Stands between a dialler and the target, passes everything on but for the tricks, and once the
    /// target is content says its own words.
    Between,
    /// Answers a dialler itself, as the tricks say, with this challenge.
    Impostor([u8; 32]),
    /// Dials the target in the name of the weak key, with the signature that fits everything.
    Forge,
    /// Passes on what a dialler sends; after that sends it all once more on a connection of its own, or
    /// what leaked to it if that is more.
    Replay {
        /// What was sent in an earlier, honest connection of the same dialler.
        leaked: Vec<String>,
        /// Whether it is one line, the token, and no handshake.
        token: bool,
    },
    /// Has the target prove itself on a connection of its own and shows that proof, as the victim's, to
    /// another acceptor.
    Mirror {
        /// That acceptor.
        other: SocketAddr,
    },
}

/// A change to what passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trick {
    /// HELLO: this in place of that.
    Rewrite {
        /// What stands there.
        from: String,
        /// What the target gets to see.
        to: String,
    },
    /// CHALLENGE comes from the attacker, signed by its own key, over the HELLO as received, for the tunnel
    /// between the victim and itself.
    AnswerItself,
    /// CHALLENGE names this key, and its signature is the attacker's.
    ClaimKey(String),
    /// The attacker's own words end the conversation, not the victim's.
    SpeakForTheVictim,
}

/// What the attacker got.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Loot {
    /// From the victim.
    pub hello: String,
    /// From the victim.
    pub proof: String,
    /// From the victim, after the handshake.
    pub secret: String,
    /// From the target, the verdict.
    pub verdict: String,
    /// From the target, after the handshake.
    pub answer: String,
}

/// The attacker's process.
#[derive(Debug)]
pub struct Attacker {
    /// Where it waits for victims.
    pub address: SocketAddr,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Attacker {
    /// Starts `program` with its orders and waits until it is in place.
    pub async fn start(program: &Path, orders: &Orders) -> Self {
        let mut child = Command::new(program)
            .arg(serde_json::to_string(orders).unwrap())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = line(&mut output).await;
        Self { address: serde_json::from_str(&address).unwrap(), child, output }
    }

    /// What it got, once it is done.
    pub async fn loot(mut self) -> Loot {
        let loot = line(&mut self.output).await;
        assert!(self.child.wait().await.unwrap().success(), "the attacker stumbled");
        serde_json::from_str(&loot).unwrap()
    }
}

impl Orders {
    /// Orders without target, certificate and tricks.
    #[must_use]
    pub const fn new(attack: Attack, framing: Framing) -> Self {
        Self { attack, framing, target: None, certificate: None, tricks: Vec::new() }
    }

    /// The same with a target.
    #[must_use]
    pub const fn at(mut self, target: SocketAddr) -> Self {
        self.target = Some(target);
        self
    }

    /// The same with a certificate.
    #[must_use]
    pub fn with(mut self, certificate: Leaf) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// The same with one more trick.
    #[must_use]
    pub fn trick(mut self, trick: Trick) -> Self {
        self.tricks.push(trick);
        self
    }

    /// HELLO asks for `to` in place of `from`.
    #[must_use]
    pub fn redirected(self, from: Person, to: Person) -> Self {
        let to_field = |person: Person| format!(" to={}", person.public());
        self.trick(Trick::Rewrite { from: to_field(from), to: to_field(to) })
    }
}

async fn line(output: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = timeout(Duration::from_secs(30), output.next_line()).await;
    line.expect("the attacker is silent").unwrap().expect("the attacker is gone")
}
