//! Taking in what was signed: enforced at once, on disk before it is spoken of.

use identity::PublicKey;
use member_crdt::{Applied, Rejected};
use org_trust::{Payload, Record, UnverifiedReport, UnverifiedStatement};

use super::{Now, State, disk::Withheld, members::first_of};
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

    /// These records are in the replica. What takes somebody out of the org, and new settings, are in force
    /// and told at once, even when the disk refuses; what else is told waits for the disk.
    pub(super) fn took(&mut self, new: Vec<Record>, from: Option<SessionKey>, now: Now) {
        let (mut moved, mut resumed) = (false, Vec::new());
        let (mut admitted, mut later, mut urgent) = (Vec::new(), Vec::new(), Vec::new());
        for record in new {
            self.doubt_words(&record, now);
            match self.weigh(&record, now) {
                Weight::Admit(node) => {
                    self.members.admitted(node);
                    admitted.push(node);
                    later.push(record);
                }
                Weight::Resume(node) => {
                    resumed.push(node);
                    later.push(record);
                }
                Weight::OwnReport | Weight::Other => later.push(record),
                // Whoever passes it on may have kept it for days: it does not say that the node is up.
                Weight::Report { moved: has_moved } => {
                    moved |= has_moved;
                    // Another node's word about itself is not ours to keep.
                    urgent.push(record);
                }
                Weight::Urgent => urgent.push(record),
            }
        }
        if !std::sync::Arc::ptr_eq(&self.roster, &self.replica.roster()) {
            self.members_changed(now);
        } else if moved {
            self.set_peers();
        }
        self.forgive_clones(&resumed, now);
        self.notice_clones(now);
        if self.parting.is_telling() {
            let foreign: Vec<Record>;
            (foreign, later) = later.into_iter().partition(|record| self.is_foreign(record));
            urgent.extend(foreign);
            self.say_farewell(urgent, from);
        } else {
            for record in urgent {
                self.flood(&record, from);
            }
        }
        for node in admitted {
            self.after_disk(Withheld::Admitted(node));
        }
        for record in later {
            self.after_disk(Withheld::Flood(record, from));
        }
        self.report_against_namesake(now);
        if self.replica.is_unsaved() {
            self.persist(now);
        } else {
            self.write_on(now);
        }
    }

    /// What others said of this machine they said before this: new settings may take a removal back, and
    /// an admin may have ended its suspension. Who still shuts it out says so again.
    fn doubt_words(&mut self, record: &Record, now: Now) {
        let is_about = match record {
            Record::Charter(_) => true,
            Record::Statement(bytes) => UnverifiedStatement::decode(bytes).is_ok_and(|statement| {
                matches!(statement.claimed().payload(), Payload::Resume(resume) if self.is_mine(&resume.node))
            }),
            Record::Report(_) => false,
        };
        if is_about {
            self.hearsay.doubt(now.at);
        }
    }

    fn weigh(&mut self, record: &Record, now: Now) -> Weight {
        match record {
            Record::Charter(_) => Weight::Urgent,
            Record::Report(bytes) => match UnverifiedReport::decode(bytes) {
                Ok(report) if *report.claimed().node() == self.me => {
                    self.notice_namesake(&report.claimed().body().boot_nonce);
                    Weight::OwnReport
                }
                Ok(report) => {
                    let (node, body) = (report.claimed().node(), report.claimed().body());
                    // It has applied something since it said that this machine is none of us.
                    self.hearsay.doubt_of(&first_of(&self.roster, node), now.at);
                    Weight::Report { moved: self.members.moved(&self.first_of(node), &body.endpoints) }
                }
                Err(_) => Weight::Other,
            },
            Record::Statement(bytes) => match UnverifiedStatement::decode(bytes) {
                Ok(statement) => match statement.claimed().payload() {
                    Payload::Revoke(_) | Payload::Suspend(_) | Payload::Cancel(_) | Payload::Leave => {
                        Weight::Urgent
                    }
                    Payload::Admit(admit) => Weight::Admit(admit.node),
                    Payload::Resume(resume) => Weight::Resume(resume.node),
                    Payload::Invite(_)
                    | Payload::Assign(_)
                    | Payload::Rotate(_)
                    | Payload::Retire(_)
                    | Payload::Cosign(_)
                    | Payload::Policy(_) => Weight::Other,
                },
                Err(_) => Weight::Other,
            },
        }
    }
}

/// How a record is treated.
enum Weight {
    /// A machine joins; it counts once that is on disk.
    Admit(PublicKey),
    /// A machine is suspended no more, whatever it was suspended for.
    Resume(PublicKey),
    /// What this machine says of itself; told once it is on disk.
    OwnReport,
    /// What another node says of itself, perhaps that it is elsewhere.
    Report { moved: bool },
    /// In force and told at once.
    Urgent,
    /// Told once it is on disk.
    Other,
}
