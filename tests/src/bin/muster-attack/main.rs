//! The attacker: a process with a socket, a member's own keys and, where its orders say so, a certificate
//! of the org's CA. The same script runs on every wire; the wire's framing is all that differs.
//!
//! It prints where it waits, then what it got. A step that fails ends the attack and is not an error: what
//! was got by then is the result.

#![expect(clippy::unwrap_used, reason = "a broken attacker must fail the test, not pass for a beaten one")]

use std::io;
use std::net::SocketAddr;

use conn_auth::Accept;
use identity::{Label, encode_hex};
use muster_tests::{
    attacker::{Attack, Loot, Orders, Trick},
    org::{ORG, Person, WEAK, tunnel},
    raw::{Framing, Message, Raw, Side},
};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let orders: Orders = serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    println!("{}", serde_json::to_string(&listener.local_addr().unwrap()).unwrap());
    let mut loot = Loot::default();
    let script = Script { orders, listener };
    if let Err(stopped) = script.run(&mut loot).await {
        eprintln!("muster-attack: stopped: {stopped}");
    }
    println!("{}", serde_json::to_string(&loot).unwrap());
}

struct Script {
    orders: Orders,
    listener: TcpListener,
}

impl Script {
    async fn run(&self, loot: &mut Loot) -> io::Result<()> {
        match &self.orders.attack {
            Attack::Between => self.between(loot).await,
            Attack::Impostor(challenge) => self.impostor(*challenge, loot).await,
            Attack::Forge => self.forge(loot).await,
            Attack::Replay { leaked, token } => self.replay(leaked, *token, loot).await,
            Attack::Mirror { other } => self.mirror(*other, loot).await,
        }
    }

    async fn between(&self, loot: &mut Loot) -> io::Result<()> {
        let mut victim = self.victim().await?;
        let mut target = self.target(self.orders.target.unwrap()).await?;
        let hello = victim.recv(Message::Hello).await?;
        loot.hello = text(&hello);
        target.send(Message::Hello, self.rewritten(&loot.hello).as_bytes()).await?;
        let challenge = target.recv(Message::Challenge).await?;
        let challenge = self.answer(&loot.hello, [7; 32]).unwrap_or(challenge);
        victim.send(Message::Challenge, &challenge).await?;
        let proof = victim.recv(Message::Proof).await?;
        loot.proof = text(&proof);
        target.send(Message::Proof, &proof).await?;
        let verdict = target.recv(Message::Verdict).await?;
        loot.verdict = text(&verdict);
        let words = if self.orders.tricks.contains(&Trick::SpeakForTheVictim) {
            WORDS.to_vec()
        } else {
            victim.send(Message::Verdict, &verdict).await?;
            victim.recv(Message::Application).await?
        };
        target.send(Message::Application, &words).await?;
        let answer = target.recv(Message::Application).await?;
        loot.answer = text(&answer);
        victim.send(Message::Application, &answer).await
    }

    async fn impostor(&self, challenge: [u8; 32], loot: &mut Loot) -> io::Result<()> {
        let mut victim = self.victim().await?;
        loot.hello = text(&victim.recv(Message::Hello).await?);
        let line = self.answer(&loot.hello, challenge).unwrap_or_else(|| challenge.to_vec());
        victim.send(Message::Challenge, &line).await?;
        loot.proof = text(&victim.recv(Message::Proof).await?);
        let verdict = format!("ok ref={} heads={} count=0", "00".repeat(8), "00".repeat(32));
        victim.send(Message::Verdict, verdict.as_bytes()).await?;
        loot.secret = text(&victim.recv(Message::Application).await?);
        Ok(())
    }

    async fn forge(&self, loot: &mut Loot) -> io::Result<()> {
        let mut target = self.target(self.orders.target.unwrap()).await?;
        let weak = encode_hex(&WEAK);
        target.send(Message::Hello, self.own_hello(&weak, Person::Honest).as_bytes()).await?;
        target.recv(Message::Challenge).await?;
        // R is the neutral element and S is zero: S*B = R + h*A for the weak A and every h.
        target.send(Message::Proof, self.proof(&format!("{weak}{}", "00".repeat(32))).as_bytes()).await?;
        loot.verdict = text(&target.recv(Message::Verdict).await?);
        target.send(Message::Application, WORDS).await?;
        loot.answer = text(&target.recv(Message::Application).await?);
        Ok(())
    }

    async fn replay(&self, leaked: &[String], token: bool, loot: &mut Loot) -> io::Result<()> {
        let target = self.orders.target.unwrap();
        let mut recorded = Vec::new();
        // The victim's own connection may well fail on the way; what it sent is recorded by then.
        if let Err(stopped) = self.passed_on(token, &mut recorded, loot).await {
            eprintln!("muster-attack: the victim's connection ended: {stopped}");
        }
        let mut recorded = if leaked.is_empty() { recorded.iter() } else { leaked.iter() };
        let mut again = self.target(target).await?;
        again.send(Message::Hello, recorded.next().unwrap().as_bytes()).await?;
        if token {
            // The token's answer is a line, whatever carries it.
            loot.answer = text(&again.recv(Message::Hello).await?);
            return Ok(());
        }
        again.recv(Message::Challenge).await?;
        again.send(Message::Proof, recorded.next().unwrap().as_bytes()).await?;
        loot.verdict = text(&again.recv(Message::Verdict).await?);
        again.send(Message::Application, WORDS).await?;
        loot.answer = text(&again.recv(Message::Application).await?);
        Ok(())
    }

    async fn passed_on(&self, token: bool, recorded: &mut Vec<String>, loot: &mut Loot) -> io::Result<()> {
        let mut victim = self.victim().await?;
        let mut target = self.target(self.orders.target.unwrap()).await?;
        loot.hello = text(&victim.recv(Message::Hello).await?);
        recorded.push(loot.hello.clone());
        target.send(Message::Hello, loot.hello.as_bytes()).await?;
        if token {
            let answer = target.recv(Message::Hello).await?;
            return victim.send(Message::Hello, &answer).await;
        }
        let challenge = target.recv(Message::Challenge).await?;
        victim.send(Message::Challenge, &challenge).await?;
        loot.proof = text(&victim.recv(Message::Proof).await?);
        recorded.push(loot.proof.clone());
        target.send(Message::Proof, loot.proof.as_bytes()).await?;
        let verdict = target.recv(Message::Verdict).await?;
        victim.send(Message::Verdict, &verdict).await
    }

    async fn mirror(&self, other: SocketAddr, loot: &mut Loot) -> io::Result<()> {
        let mut target = self.target(self.orders.target.unwrap()).await?;
        let own = Person::Malicious.public().to_string();
        target.send(Message::Hello, self.own_hello(&own, Person::Victim).as_bytes()).await?;
        let challenge = text(&target.recv(Message::Challenge).await?);
        let (_, signature) = challenge.split_once(" sig=").ok_or(io::ErrorKind::InvalidData)?;
        let mut other = self.target(other).await?;
        let victim = Person::Victim.public().to_string();
        other.send(Message::Hello, self.own_hello(&victim, Person::Honest).as_bytes()).await?;
        other.recv(Message::Challenge).await?;
        other.send(Message::Proof, self.proof(signature).as_bytes()).await?;
        loot.verdict = text(&other.recv(Message::Verdict).await?);
        Ok(())
    }

    /// The next victim, TLS ended here if there is a certificate for it.
    async fn victim(&self) -> io::Result<Raw> {
        let (tcp, _) = self.listener.accept().await?;
        match &self.orders.certificate {
            None => Ok(Raw::new(tcp, self.orders.framing, Side::Acceptor)),
            Some(leaf) => {
                let (tls, _) = leaf.server().accept(tcp).await.map_err(io::Error::other)?;
                Ok(Raw::new(tls, self.orders.framing, Side::Acceptor))
            }
        }
    }

    /// A connection of the attacker's own.
    async fn target(&self, address: SocketAddr) -> io::Result<Raw> {
        let tcp = TcpStream::connect(address).await?;
        match &self.orders.certificate {
            None => Ok(Raw::new(tcp, self.orders.framing, Side::Dialler)),
            Some(leaf) => {
                let (tls, _) = leaf.client().connect("127.0.0.1", tcp).await.map_err(io::Error::other)?;
                Ok(Raw::new(tls, self.orders.framing, Side::Dialler))
            }
        }
    }

    fn rewritten(&self, hello: &str) -> String {
        self.orders.tricks.iter().fold(hello.to_owned(), |hello, trick| match trick {
            Trick::Rewrite { from, to } => hello.replace(from.as_str(), to),
            Trick::AnswerItself | Trick::ClaimKey(_) | Trick::SpeakForTheVictim => hello,
        })
    }

    /// The attacker's own CHALLENGE, if a trick asks for one.
    fn answer(&self, hello: &str, challenge: [u8; 32]) -> Option<Vec<u8>> {
        self.orders.tricks.iter().find_map(|trick| match trick {
            Trick::AnswerItself => {
                let binding = tunnel(Person::Victim, Person::Malicious);
                let accept = Accept { org: ORG, key: &Person::Malicious.key(), binding };
                let pending = accept.on_hello(hello.as_bytes(), challenge);
                pending.ok().map(|pending| pending.challenge().as_bytes().to_vec())
            }
            Trick::ClaimKey(key) => {
                let signature = Person::Malicious.key().sign(Label::CONN_AUTH_SERVER, &challenge);
                let (challenge, signature) = (encode_hex(&challenge), encode_hex(&signature.0));
                Some(format!("muster-auth/1 pubkey={key} challenge={challenge} sig={signature}").into())
            }
            Trick::Rewrite { .. } | Trick::SpeakForTheVictim => None,
        })
    }

    /// HELLO of a connection that the attacker opens in somebody's name.
    fn own_hello(&self, key: &str, to: Person) -> String {
        match self.orders.framing {
            Framing::Seed => format!("pubkey={key} action=sync"),
            Framing::Lines | Framing::WebSocket => {
                let nonce = "4e".repeat(32);
                format!("muster-auth/1 pubkey={key} to={} nonce={nonce} bind=wg action=sync", to.public())
            }
        }
    }

    fn proof(&self, signature: &str) -> String {
        match self.orders.framing {
            Framing::Seed => format!("sig={signature}"),
            Framing::Lines | Framing::WebSocket => {
                format!("heads={} count=0 sig={signature}", "00".repeat(32))
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the attacker says once it is taken for somebody else.
const WORDS: &[u8] = b"the attacker's words";
