//! Shares of disk keys: for a machine in good standing whose keys are bound to what it booted and whose TPM
//! says in this very session that it booted an accepted image, and for no other. A machine asks at each
//! start, so a revocation shuts its disk.

use std::time::Duration;

use control::{
    gateway::ConnectionId,
    local::{Answer, Failed, ShareKeys},
};
use identity::{Code, DiskShare, PublicKey, ShareKey, TpmId, limits::ATTESTATION_ANSWER_MS};
use member_crdt::Member;
use org_trust::{Assurance, Reply, ShareOffer};
use tokio::sync::oneshot;

use super::{Effect, Now, State, disk::answer};
use crate::{attestation::Pending, sessions::SessionKey};

/// A key for shares that is to be kept, or that all of them are to be forgotten; and who waits for it.
#[derive(Debug)]
pub struct ShareOrder {
    /// None: they are forgotten.
    pub keep: Option<ShareKey>,
    reply: oneshot::Sender<Answer>,
}

impl State {
    /// What shares are made with from now on.
    pub fn on_shares(&mut self, keys: Vec<ShareKey>, plain: bool) {
        if plain && !keys.is_empty() {
            tracing::warn!(
                "the keys for shares of disk keys lie in a plain file: whoever copies this disk can work out the \
                 share of every machine"
            );
        }
        self.shares = keys;
    }

    pub(super) fn keep_share_key(&mut self, epoch: u32, key: &[u8], reply: oneshot::Sender<Answer>) {
        let failed = |code: Code, detail: &str| {
            Answer::Failed(Failed { code: code.into(), detail: detail.to_owned() })
        };
        if !self.is_gateway() {
            return answer(reply, failed(Code::NotTheGateway, "only a gateway gives shares"));
        }
        let Ok(key) = <&[u8; 32]>::try_from(key) else {
            return answer(reply, failed(Code::RequestMalformed, "such a key has 32 bytes"));
        };
        self.order_shares(ShareOrder { keep: Some(ShareKey::from_bytes(epoch, key)), reply });
    }

    pub(super) fn forget_share_keys(&mut self, reply: oneshot::Sender<Answer>) {
        self.order_shares(ShareOrder { keep: None, reply });
    }

    fn order_shares(&mut self, order: ShareOrder) {
        if std::mem::replace(&mut self.shares_ordered, true) {
            let detail = "the keys for shares are being written".to_owned();
            return answer(order.reply, Answer::Failed(Failed { code: Code::Busy.into(), detail }));
        }
        self.effects.push_back(Effect::Shares(Box::new(order)));
    }

    /// They are kept or forgotten, or that could not be done.
    pub fn on_shares_kept(&mut self, kept: Result<Vec<ShareKey>, Failed>, plain: bool, order: ShareOrder) {
        self.shares_ordered = false;
        let answered = match kept {
            Ok(keys) => {
                let epochs: Vec<u32> = keys.iter().map(ShareKey::epoch).collect();
                tracing::info!(?epochs, "shares of disk keys are given");
                self.on_shares(keys, plain);
                Answer::ShareKeys(ShareKeys { epochs, plain })
            }
            Err(failed) => Answer::Failed(failed),
        };
        answer(order.reply, answered);
    }

    /// A machine that starts asks for its share. Whether it may have one is looked at before its TPM's word.
    pub(super) fn outside_asks_for_share(
        &mut self,
        connection: (u64, ConnectionId),
        key: SessionKey,
        offer: ShareOffer,
        now: Now,
    ) {
        match self.share_challenge(key, offer, now) {
            Ok((challenge, pending)) => self.ask_tpm(connection, key, challenge, pending),
            Err(code) => self.refuse_outside(key, code),
        }
    }

    fn share_challenge(
        &mut self,
        key: SessionKey,
        offer: ShareOffer,
        now: Now,
    ) -> Result<(Reply, Box<Pending>), Code> {
        let boot = self.sessions.get(key).map(|session| session.peer()).ok_or(Code::ConnectionLost)?;
        let drawn = self.draw()?;
        let allowed = self.share_of(&boot, offer.epoch);
        let (_, tpm) = allowed.map_err(|code| withheld(&boot, code, code.title()))?;
        let until = now.at + Duration::from_millis(ATTESTATION_ANSWER_MS);
        let made = self.attestation.challenge_for_share(&offer, boot, tpm, drawn, until);
        let (challenge, pending) = made.map_err(|why| withheld(&boot, why.code(), &why))?;
        Ok((Reply::Challenge(Box::new(challenge)), Box::new(pending)))
    }

    /// Its TPM's word holds: it gets its share, if it may have one by the list as it is by now.
    pub(super) fn give_share(&mut self, key: SessionKey, boot: PublicKey, epoch: u32) {
        let reply = match self.share_of(&boot, epoch) {
            Ok((share, _)) => {
                tracing::info!(MUSTER_PEER = boot.short(), epoch, "got its share of its disk's key");
                Reply::Share(share)
            }
            Err(code) => Reply::Refused(withheld(&boot, code, code.title())),
        };
        self.answer_outside(key, vec![reply.encode()]);
    }

    /// The share of the machine with this boot key, if it may have one, and the TPM that spoke for it when it
    /// joined.
    fn share_of(&self, boot: &PublicKey, epoch: u32) -> Result<(DiskShare, Option<TpmId>), Code> {
        let held = self.shares.iter().find(|key| key.epoch() == epoch).ok_or(Code::ShareNotHeld)?;
        let member = match self.roster.standing(boot) {
            member_crdt::Standing::Boot(member) => member,
            member_crdt::Standing::Retired(_) => return Err(Code::KeyRetired),
            member_crdt::Standing::Member(_)
            | member_crdt::Standing::Admin(_)
            | member_crdt::Standing::Unknown => return Err(Code::UnknownKey),
        };
        if let Some(code) = crate::standing::refusal(&member.state) {
            return Err(code);
        }
        if is_bound(member) {
            Ok((held.share(&member.first()), member.tpm))
        } else {
            Err(Code::ShareWithheld)
        }
    }
}

/// Whether its keys open for what it booted alone, as the list has it. A machine that says itself that they
/// do not would give the share to whatever runs there.
const fn is_bound(member: &Member) -> bool {
    match member.assurance {
        Assurance::TpmAttested | Assurance::Tpm => true,
        Assurance::TpmUnbound | Assurance::TpmSoftware | Assurance::File => false,
    }
}

fn withheld(boot: &PublicKey, code: Code, why: &(impl core::fmt::Display + ?Sized)) -> Code {
    tracing::info!(MUSTER_PEER = boot.short(), MUSTER_CODE = %code, "no share of its disk's key: {why}");
    code
}
