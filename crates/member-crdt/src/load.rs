//! What a file holds before it is verified, cut into pieces that can be verified anywhere.
//!
//! Signatures are nearly all that loading costs, and none depends on another. This crate has no threads:
//! whoever loads a replica is handed the pieces, checks them on as many cores as it likes, and hands the
//! outcomes back. An outcome cannot be made in another way.

use std::{collections::BTreeMap, sync::Arc};

use identity::{OrgId, PublicKey, StatementId};
use org_trust::{Payload, Report, Statement, UnverifiedReport, UnverifiedStatement};

use crate::outcome::Rejected;

/// A piece of a file that is not verified yet.
#[derive(Debug)]
pub struct Unchecked {
    org: OrgId,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Statement(Vec<u8>),
    Report(Vec<u8>),
    /// Whether the invite's key signed an Admit.
    Redemption(Arc<Statement>, PublicKey),
}

/// A piece that was verified, or why it does not hold.
#[derive(Debug)]
pub struct Checked(pub(crate) Outcome);

#[derive(Debug)]
pub(crate) enum Outcome {
    Statement(Arc<Statement>),
    Report(Arc<Report>),
    Redemption(StatementId, bool),
    Refused(Rejected),
}

impl Unchecked {
    pub(crate) const fn statement(org: OrgId, bytes: Vec<u8>) -> Self {
        Self { org, work: Work::Statement(bytes) }
    }

    pub(crate) const fn report(org: OrgId, bytes: Vec<u8>) -> Self {
        Self { org, work: Work::Report(bytes) }
    }

    pub(crate) const fn redemption(org: OrgId, admit: Arc<Statement>, invite_key: PublicKey) -> Self {
        Self { org, work: Work::Redemption(admit, invite_key) }
    }

    /// Decodes the piece and verifies its signatures.
    #[must_use]
    pub fn check(self) -> Checked {
        let outcome = match self.work {
            Work::Statement(bytes) => UnverifiedStatement::decode(&bytes)
                .map_err(Rejected::Malformed)
                .and_then(|s| s.verify(&self.org).map_err(Rejected::Statement))
                .map(|s| Outcome::Statement(Arc::new(s))),
            Work::Report(bytes) => UnverifiedReport::decode(&bytes)
                .map_err(Rejected::Malformed)
                .and_then(|r| r.verify(&self.org).map_err(Rejected::Report))
                .map(|r| Outcome::Report(Arc::new(r))),
            Work::Redemption(admit, key) => {
                let holds =
                    matches!(admit.payload(), Payload::Admit(a) if a.verify_invite(&self.org, &key).is_ok());
                Ok(Outcome::Redemption(admit.id(), holds))
            }
        };
        Checked(outcome.unwrap_or_else(Outcome::Refused))
    }
}

/// For every Admit under an invite of the same file: whether the invite's key signed it.
pub(crate) fn redemptions(org: OrgId, statements: &[Arc<Statement>]) -> Vec<Unchecked> {
    let invite = |s: &Arc<Statement>| {
        let Payload::Invite(invite) = s.payload() else { return None };
        Some((s.id(), invite.key))
    };
    let invites: BTreeMap<StatementId, PublicKey> = statements.iter().filter_map(invite).collect();
    let redemption = |s: &Arc<Statement>| {
        let Payload::Admit(admit) = s.payload() else { return None };
        let key = invites.get(&admit.invite?)?;
        Some(Unchecked::redemption(org, Arc::clone(s), *key))
    };
    statements.iter().filter_map(redemption).collect()
}
