//! The two steps in which a machine's TPM speaks, between what the machine asks for and the answer.

use control::gateway::ConnectionId;
use identity::{
    Code, PublicKey,
    limits::{ATTESTATION_ANSWER_MS, ATTESTATIONS_PENDING_MAX},
};
use org_trust::{Offer, Quote, Reply};
use rand::RngExt as _;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

use super::{
    Now, State,
    outside::{Stage, Turn},
};
use crate::{
    attestation::{Attestation, Drawn, Pending, Wanted},
    enrol::{self, Asked},
    sessions::SessionKey,
};

impl State {
    /// The settings say what a TPM's word is checked against.
    pub fn on_attestation(&mut self, attestation: Attestation) {
        self.attestation = attestation;
    }

    /// A newcomer offers its TPM's word. Its invite is looked at before its certificate: a stranger without
    /// one costs no more than with a plain request, and is kept as little.
    pub(super) fn outside_attests(
        &mut self,
        connection: (u64, ConnectionId),
        key: SessionKey,
        offer: Offer,
        now: Now,
    ) {
        match self.challenge(key, offer, now) {
            Ok(First::Before(statement)) => self.admitted_outside(key, statement),
            Ok(First::Challenge(reply, pending)) => self.ask_tpm(connection, key, reply, pending),
            Err(code) => self.refuse_outside(key, code),
        }
    }

    /// The next thing in this session is what the TPM says.
    pub(super) fn ask_tpm(
        &mut self,
        connection: (u64, ConnectionId),
        key: SessionKey,
        challenge: Reply,
        pending: Box<Pending>,
    ) {
        if let Some(Stage::Open { turn, .. }) = self.outside.stages.get_mut(&connection) {
            *turn = Turn::Quote(pending);
        }
        self.sessions.send(key, challenge.encode());
    }

    /// For one more credential, if not too many are waited for.
    pub(super) fn draw(&mut self) -> Result<Drawn, Code> {
        if self.outside.pending().count() >= ATTESTATIONS_PENDING_MAX {
            return Err(Code::Busy);
        }
        Ok(Drawn {
            secret: Zeroizing::new(self.randomness.random()),
            randomness: Zeroizing::new(self.randomness.random()),
        })
    }

    fn challenge(&mut self, key: SessionKey, offer: Offer, now: Now) -> Result<First, Code> {
        let peer = self.sessions.get(key).map(|session| session.peer()).ok_or(Code::ConnectionLost)?;
        let drawn = self.draw()?;
        let gateway = self.gateway_key().ok_or(Code::NotTheGateway)?;
        let asked = enrol::ask(&self.replica, gateway, peer, &offer.request, now.unix_ns / 1_000_000_000);
        let (admit, terms) = match asked {
            Ok(Asked::Before(statement)) => return Ok(First::Before(statement)),
            Ok(Asked::New(admit, terms)) => (admit, terms),
            Err(why) => return Err(not_admitted(&peer, why.code(), &why)),
        };
        let until = now.at + Duration::from_millis(ATTESTATION_ANSWER_MS);
        let made = self.attestation.challenge(offer, admit, &terms.tpms, drawn, until);
        let (challenge, pending) = made.map_err(|why| not_admitted(&peer, why.code(), &why))?;
        Ok(First::Challenge(Reply::Challenge(Box::new(challenge)), Box::new(pending)))
    }

    /// Its TPM has spoken: only now is what it asked for decided about, by the list as it is by now.
    pub(super) fn outside_quotes(&mut self, key: SessionKey, pending: &Pending, quote: &Quote, now: Now) {
        let Some(session) = self.sessions.get(key) else { return };
        let (peer, session) = (session.peer(), session.proof.session());
        match self.attestation.hear(&session, pending, quote) {
            Ok(word) => {
                let registers = word.quoted.registers();
                tracing::info!(
                    MUSTER_PEER = peer.short(),
                    tpm = %word.tpm,
                    maker = word.by,
                    register_7 = identity::encode_hex(&registers.secure_boot),
                    register_11 = identity::encode_hex(&registers.image),
                    "its TPM's word holds"
                );
                match &pending.asked {
                    Wanted::Join { request, .. } => match self.enrol(peer, request, Some(word.tpm), now) {
                        Ok(statement) => self.admitted_outside(key, statement),
                        Err(code) => self.refuse_outside(key, code),
                    },
                    Wanted::Share { boot, epoch } => self.give_share(key, *boot, *epoch),
                }
            }
            Err(why) => {
                tracing::info!(MUSTER_PEER = peer.short(), MUSTER_CODE = %why.code(), "its TPM's word does not count: {why}");
                self.refuse_outside(key, why.code());
            }
        }
    }

    /// When the first that was asked has had its time.
    pub(super) fn attestation_due(&self) -> Option<Instant> {
        self.outside.pending().map(|pending| pending.until).min()
    }

    /// Ends those that have.
    pub(super) fn end_silent_attestations(&mut self, now: Now) {
        for key in self.outside.silent(now.at) {
            self.refuse_outside(key, Code::HandshakeTimeout);
        }
    }
}

enum First {
    Before(Vec<u8>),
    Challenge(Reply, Box<Pending>),
}

fn not_admitted(peer: &PublicKey, code: Code, why: &dyn core::fmt::Display) -> Code {
    tracing::info!(MUSTER_PEER = peer.short(), MUSTER_CODE = %code, "not admitted: {why}");
    code
}
