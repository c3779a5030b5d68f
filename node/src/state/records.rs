//! Taking in what was signed: enforced at once, on disk before it is spoken of.

use member_crdt::{Applied, Rejected};
use org_trust::{Payload, Record, UnverifiedStatement};

use super::{Now, State, disk::Withheld};
use crate::sessions::SessionKey;

impl State {
    /// Takes records in, each on its own; what becomes of each is told in order.
    pub(super) fn take(&mut self, records: &[Record], now: Now) -> Vec<Result<Applied, Rejected>> {
        let mut new = Vec::new();
        let mut outcomes = Vec::new();
        for record in records {
            let outcome = self.replica.apply(record);
            if matches!(outcome, Ok(Applied::New { .. })) {
                new.push(record.clone());
            }
            outcomes.push(outcome);
        }
        self.took(new, None, now);
        outcomes
    }

    /// These records are in the replica. A revocation and new settings are in force and told at once,
    /// even when the disk refuses; what else is told waits for the disk.
    pub(super) fn took(&mut self, new: Vec<Record>, from: Option<SessionKey>, now: Now) {
        let (mut endpoints, mut withheld, mut urgent) = (false, Vec::new(), Vec::new());
        for record in new {
            match Weight::of(&record) {
                Weight::Admit(node) => {
                    self.members.admitted(node);
                    withheld.push(Withheld::Admitted(node));
                    withheld.push(Withheld::Flood(record, from));
                }
                Weight::Report(node) => {
                    endpoints = true;
                    // Another node's word about itself is not ours to keep.
                    if node == Some(self.me) {
                        withheld.push(Withheld::Flood(record, from));
                    } else {
                        if let Some(node) = node {
                            self.members.heard(node, now.at);
                        }
                        urgent.push(record);
                    }
                }
                Weight::Urgent => urgent.push(record),
                Weight::Other => withheld.push(Withheld::Flood(record, from)),
            }
        }
        if !std::sync::Arc::ptr_eq(&self.roster, &self.replica.roster()) {
            self.members_changed(now);
        } else if endpoints {
            self.set_peers(now);
        }
        for record in urgent {
            self.flood(&record, from);
        }
        for what in withheld {
            self.after_disk(what);
        }
        if self.replica.is_unsaved() {
            self.persist(now);
        } else {
            self.write_on(now);
        }
    }
}

/// How a record is treated.
enum Weight {
    /// A machine joins; it counts once that is on disk.
    Admit(identity::PublicKey),
    /// A node's report.
    Report(Option<identity::PublicKey>),
    /// In force and told at once.
    Urgent,
    /// Told once it is on disk.
    Other,
}

impl Weight {
    fn of(record: &Record) -> Self {
        match record {
            Record::Charter(_) => Self::Urgent,
            Record::Report(bytes) => {
                let report = org_trust::UnverifiedReport::decode(bytes).ok();
                Self::Report(report.map(|report| *report.claimed().node()))
            }
            Record::Statement(bytes) => match UnverifiedStatement::decode(bytes) {
                Ok(statement) => match statement.claimed().payload() {
                    Payload::Revoke(_) => Self::Urgent,
                    Payload::Admit(admit) => Self::Admit(admit.node),
                    Payload::Invite(_) | Payload::Cancel(_) | Payload::Leave => Self::Other,
                },
                Err(_) => Self::Other,
            },
        }
    }
}
