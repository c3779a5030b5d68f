//! Machines and admins outside: how they come to a gateway, and what they do with its answer.

use conn_auth::{Action, Binding, Dial, To};
use identity::{Code, Heads, SecretKey, StatementId};
use org_trust::{Assurance, EnrolRequest, Record, Redemption, Reply, Request};
use rand::RngExt as _;

use crate::{
    client::{Answered, Errand},
    connection::{ACCEPTOR, ClientStage, ConnectionId, DIALLER, End, Message, Stage},
    machine::{Phase, key_of},
    network::Party,
    workload::Work,
    world::{Event, SECOND, World},
};

impl World {
    /// A party outside dials a gateway.
    pub(crate) fn go(&mut self, party: Party, errand: Errand) {
        let gateway = match &errand {
            Errand::Enrol { invite, .. } => {
                let redeemer = self.oracle.invites[invite].redeemer;
                let holds =
                    |g: &Party| self.machines[*g].role_key().is_some_and(|key| key.public() == redeemer);
                // Its machine may be a gateway no longer; then there is nobody to go to.
                let Some(gateway) = self.gateways().into_iter().find(holds) else {
                    return self.totals.turned_away += 1;
                };
                Some(gateway)
            }
            Errand::Boot { .. } | Errand::Submit { .. } => {
                // A machine without its list may find the gateways without theirs, or out of the org.
                let serves = |gateway: &Party| {
                    !matches!(errand, Errand::Boot { .. }) || self.says_it_is_a_member(*gateway)
                };
                let others: Vec<Party> =
                    self.gateways().into_iter().filter(|other| *other != party).filter(serves).collect();
                (!others.is_empty()).then(|| others[self.rng.random_range(0..others.len())])
            }
        };
        let Some(gateway) = gateway else { return self.copy_list(party) };
        let errand = match errand {
            Errand::Submit { records, .. } => {
                Errand::Submit { records, disk: self.machines[gateway].memory.disks }
            }
            errand @ (Errand::Enrol { .. } | Errand::Boot { .. }) => errand,
        };
        let key: &'static SecretKey = match (&errand, self.machines.get(party)) {
            (Errand::Enrol { .. }, Some(machine)) if matches!(machine.phase, Phase::Outside) => {
                &machine.keys.node
            }
            (Errand::Boot { .. }, Some(machine)) => &machine.keys.boot,
            (Errand::Submit { .. }, None) => self.admins[party - self.machines.len()].key,
            (Errand::Enrol { .. } | Errand::Boot { .. } | Errand::Submit { .. }, _) => return,
        };
        let exporter: [u8; 32] = self.rng.random();
        let action = Action::new(errand.action(), &[]).expect("a known action");
        let to = To::AnyOf(self.org.gateways);
        let dial = Dial { org: self.org.id, key, to, binding: Binding::Tls(exporter), action };
        let pending = dial.start(self.rng.random()).expect("a gateway");
        let hello = pending.hello().as_bytes().to_vec();
        let stage = Stage::Client(Box::new(ClientStage::Challenge(pending, errand)));
        let front = Stage::Front { has_begun: false };
        let ends = [End::new(party, stage), End::new(gateway, front)];
        let connection = self.connect(ends, Some(exporter), 10 * SECOND);
        self.totals.dials += 1;
        self.send(connection, DIALLER, Message::Line(hello));
        self.after(20 * SECOND, Event::GiveUp { connection, side: DIALLER });
    }

    fn says_it_is_a_member(&self, machine: Party) -> bool {
        let Some(running) = self.machines[machine].running() else { return false };
        let own = running.roster.member_of(&self.machines[machine].first);
        own.is_some_and(|own| own.is_good() || own.is_unsettled())
    }

    /// The only gateway has lost its disk: its operator brings a copy of another machine's list.
    fn copy_list(&mut self, machine: Party) {
        let from = self.up().find(|other| self.machines[*other].is_honest() && *other != machine);
        let Some(running) = from.and_then(|from| self.machines[from].running()) else {
            let errand = Errand::Boot { tries: 0 };
            return self.after(SECOND, Event::Work(Work::Errand(machine, errand)));
        };
        let records: Vec<Record> = running.state.replica().records().collect();
        self.joins(machine, machine, &records, Errand::Boot { tries: 0 });
    }

    pub(crate) fn client_hears(&mut self, connection: ConnectionId, stage: ClientStage, message: Message) {
        let (Some(party), Some(gateway)) =
            (self.party(connection, DIALLER), self.party(connection, ACCEPTOR))
        else {
            return;
        };
        let next = match (stage, message) {
            (ClientStage::Challenge(pending, errand), Message::Line(line)) => {
                match pending.on_challenge(&line) {
                    Ok(proven) => {
                        let wait = proven.prove(Heads([0; 32]), 0);
                        let proof = wait.proof().as_bytes().to_vec();
                        self.send(connection, DIALLER, Message::Line(proof));
                        Ok(ClientStage::Verdict(wait, errand))
                    }
                    Err(why) => Err((errand, Answered::Refused(why.code()))),
                }
            }
            (ClientStage::Verdict(wait, errand), Message::Line(line)) => match wait.on_verdict(&line) {
                Ok(accepted) => {
                    let request = self.request(party, &errand).encode();
                    self.send(connection, DIALLER, Message::Frame(request));
                    Ok(ClientStage::Replies(accepted, errand, Vec::new()))
                }
                Err(why) => Err((errand, Answered::Refused(why.code()))),
            },
            (ClientStage::Replies(accepted, errand, mut replies), Message::Frame(frame)) => {
                replies.extend(Reply::decode(&frame));
                Ok(ClientStage::Replies(accepted, errand, replies))
            }
            (ClientStage::Replies(_, errand, replies), Message::Close(None)) => {
                Err((errand, Answered::Replies(replies)))
            }
            (ClientStage::Replies(_, errand, _), Message::Close(Some(code))) => {
                Err((errand, Answered::Refused(code)))
            }
            (ClientStage::Challenge(_, errand) | ClientStage::Verdict(_, errand), _) => {
                Err((errand, Answered::Nothing))
            }
            (stage @ ClientStage::Replies(..), Message::Line(_)) => Ok(stage),
        };
        match next {
            Ok(stage) => self.set_stage(connection, DIALLER, Stage::Client(Box::new(stage))),
            Err((errand, answered)) => {
                self.send(connection, DIALLER, Message::Close(None));
                self.finish(connection, DIALLER);
                self.answered(party, gateway, errand, answered);
            }
        }
    }

    pub(crate) fn client_fails(&mut self, party: Party, stage: ClientStage) {
        let (ClientStage::Challenge(_, errand)
        | ClientStage::Verdict(_, errand)
        | ClientStage::Replies(_, errand, _)) = stage;
        self.answered(party, party, errand, Answered::Nothing);
    }

    fn request(&self, party: Party, errand: &Errand) -> Request {
        match errand {
            Errand::Enrol { invite, secret, .. } => {
                let machine = &self.machines[party];
                let key = key_of(self.seed, &format!("invite {secret}"));
                let redemption =
                    Redemption { invite: *invite, key: &key, redeemer: self.oracle.invites[invite].redeemer };
                let name = machine.name.clone();
                let keys = machine.keys.all();
                Request::Enrol(
                    EnrolRequest::sign(&self.org.id, keys, redemption, name, Assurance::File, [0; 32])
                        .encode(),
                )
            }
            Errand::Boot { .. } => Request::Boot { charter: self.org.chain.genesis().id(), floor: 0 },
            Errand::Submit { records, .. } => Request::Submit(records.clone()),
        }
    }

    /// An errand is over.
    fn answered(&mut self, party: Party, gateway: Party, errand: Errand, answered: Answered) {
        self.trace.note(self.now, "errand", [party, gateway], &[], || {
            let words = match &answered {
                Answered::Replies(replies) => format!(
                    "{} replies, first {:?}",
                    replies.len(),
                    replies.first().map(|reply| match reply {
                        Reply::Refused(code) => format!("refused {code}"),
                        Reply::Admitted(_) => "admitted".to_owned(),
                        Reply::Challenge(_) => "a question to the TPM".to_owned(),
                        Reply::Share(_) => "a share".to_owned(),
                        Reply::Records(records) => format!("{} records", records.len()),
                        Reply::End { .. } => "end".to_owned(),
                        Reply::Submitted(done) => format!("{done:?}"),
                    })
                ),
                Answered::Nothing => "nothing".to_owned(),
                Answered::Refused(code) => format!("refused {code}"),
            };
            format!("{} {words}", errand.action())
        });
        let code = match &answered {
            Answered::Refused(code) => Some(*code),
            Answered::Replies(replies) => replies.iter().find_map(|reply| match reply {
                Reply::Refused(code) => Some(*code),
                Reply::Admitted(_)
                | Reply::Challenge(_)
                | Reply::Share(_)
                | Reply::Records(_)
                | Reply::End { .. }
                | Reply::Submitted(_) => None,
            }),
            Answered::Nothing => None,
        };
        let list = match &answered {
            Answered::Replies(replies) if matches!(replies.last(), Some(Reply::End { .. })) => {
                Some(listed(replies))
            }
            Answered::Replies(_) | Answered::Nothing | Answered::Refused(_) => None,
        };
        match errand {
            Errand::Submit { records, disk } => {
                let taken = matches!(&answered, Answered::Replies(replies)
                    if matches!(replies.first(), Some(Reply::Submitted(done))
                        if done.outcomes.iter().all(|o| !matches!(o, org_trust::Outcome::Refused(_)))));
                if taken {
                    let ids: Vec<StatementId> = records
                        .iter()
                        .filter(|record| matches!(record, Record::Statement(_)))
                        .map(|record| StatementId(record.id()))
                        .collect();
                    // A gateway does not say whom it told; coverage, which an admin then reads, does.
                    let is_same = self.machines[gateway].memory.disks == disk;
                    let is_told = is_same && self.is_in_contact(gateway) && !self.is_outcast(gateway);
                    self.oracle.taken_by.extend(ids.iter().map(|id| (*id, gateway)));
                    let admin = Some(party - self.machines.len()).filter(|_| is_told);
                    if is_same {
                        self.acknowledge(gateway, admin, &ids);
                    }
                }
            }
            Errand::Enrol { invite, secret, tries } => match (list, code) {
                (Some(records), _) => {
                    let again = Errand::Enrol { invite, secret, tries: tries + 1 };
                    self.joins(party, gateway, &records, again);
                }
                (None, Some(code)) if is_final(code) => self.totals.turned_away += 1,
                (None, Some(Code::ApprovalPending)) if tries < 40 => {
                    let wait = self.rng.random_range(SECOND..5 * SECOND);
                    self.after(wait / 2, Event::Work(Work::Approve));
                    let errand = Errand::Enrol { invite, secret, tries: tries + 1 };
                    self.after(wait, Event::Work(Work::Errand(party, errand)));
                }
                (None, _) if tries < 20 => {
                    let wait = self.rng.random_range(SECOND..5 * SECOND);
                    let errand = Errand::Enrol { invite, secret, tries: tries + 1 };
                    self.after(wait, Event::Work(Work::Errand(party, errand)));
                }
                (None, _) => {}
            },
            Errand::Boot { tries } => match (list, code) {
                (Some(records), _)
                    if matches!(self.machines[party].phase, Phase::Damaged | Phase::Booting) =>
                {
                    self.joins(party, gateway, &records, Errand::Boot { tries: tries + 1 });
                }
                // Who was shut out by a thief tries on.
                (None, Some(Code::Revoked | Code::Left | Code::UnknownKey | Code::KeyConflict))
                    if self.oracle.has_gone(party) || tries >= 40 =>
                {
                    self.machines[party].phase = Phase::Gone;
                }
                (None, _) if tries < 40 => {
                    let wait = self.rng.random_range(SECOND..5 * SECOND);
                    self.after(wait, Event::Work(Work::Errand(party, Errand::Boot { tries: tries + 1 })));
                }
                (Some(_) | None, _) => {}
            },
        }
    }

    /// It starts with what it was given, and with what is on its disk.
    fn joins(&mut self, machine: Party, gateway: Party, records: &[Record], again: Errand) {
        let held = match self.machines[machine].phase {
            Phase::Booting => self.machines[machine].read(&self.org.id),
            Phase::Outside | Phase::Up(_) | Phase::Down | Phase::Damaged | Phase::Gone => None,
        };
        let merged = match held {
            Some(mut replica) => {
                let applied = records.iter().try_for_each(|record| replica.apply(record).map(drop));
                applied.map(|()| replica).map_err(|why| why.to_string())
            }
            None => self.replica_of(records),
        };
        match merged {
            Ok(replica) if replica.roster().member_of(&self.machines[machine].node).is_some() => {
                self.totals.joined += 1;
                self.start(machine, Some(replica));
            }
            Ok(_) => self.machines[machine].phase = Phase::Gone,
            // What a hostile gateway gives does not hold, and another try may meet another one.
            Err(_) if !self.machines[gateway].is_honest() => {
                self.after(5 * SECOND, Event::Work(Work::Errand(machine, again)));
            }
            Err(why) => self.hold_list_given(machine, &why),
        }
    }
}

/// Records of an answer, in their order, without the first settings.
fn listed(replies: &[Reply]) -> Vec<Record> {
    let mut records = Vec::new();
    for reply in replies {
        match reply {
            Reply::Records(more) => records.extend(more.iter().cloned()),
            Reply::Admitted(_)
            | Reply::Challenge(_)
            | Reply::Share(_)
            | Reply::End { .. }
            | Reply::Submitted(_)
            | Reply::Refused(_) => {}
        }
    }
    records
}

fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InviteUsedUp
            | Code::InviteCancelled
            | Code::InviteExpired
            | Code::Revoked
            | Code::EnrolKeyTaken
            | Code::Left
            | Code::KeyConflict
    )
}
