//! Answers to the programs of this machine's operator.

use std::time::Instant;

use conn_auth::Reference;
use control::local::{
    self, Answer, Coverage, Export, Failed, Invite, InviteStatus, InviteUse, LinkStatus, Linked, Member,
    MemberStatus, Missing, Opened, OrgStatus, Place, Request, Revoked, Session, State as Stage, Status,
    Taken, Why,
};
use identity::{CharterId, Code, PublicKey, StatementId};
use member_crdt::{Applied, InviteStanding, InviteState, MemberState};
use org_trust::{Lane, Record, Records};
use tokio::sync::oneshot;

use super::{
    Effect, Now, State,
    admission::{Asking, Echo, Errand},
    disk::{Waiting, Withheld, answer},
};
use crate::{
    images::ImagesOrder,
    services::Offer,
    sessions::{Proof, Purpose},
    standing,
};

impl State {
    /// A program asks. It is answered now, or when the disk or a member has answered.
    pub fn on_request(&mut self, request: Request, reply: oneshot::Sender<Answer>, now: Now) {
        let answered = match request {
            Request::Status {} => Ok(Answer::Status(Box::new(self.status(now)))),
            Request::Members {} => {
                let members = self.roster.members();
                Ok(Answer::Members(members.into_iter().map(|member| self.member(member, now)).collect()))
            }
            Request::Member { node } => {
                self.find(&node).map(|member| Answer::Members(vec![self.member(&member, now)]))
            }
            Request::Sessions {} => Ok(Answer::Sessions(self.session_list(now))),
            Request::Ping { node, count } => match self.find(&node) {
                Ok(member) => {
                    let count = count.clamp(1, PINGS_MAX);
                    let echo = Echo { count, name: self.name_of(&member.node), reply };
                    return self.run(member.node, Purpose::Ping, Errand::Echo(echo));
                }
                Err(failed) => Err(failed),
            },
            Request::AskForBlob { node, questions } => match self.asked_for(&node, &questions) {
                Ok((member, questions)) => {
                    return self.run(member, Purpose::Blob, Errand::Ask(Asking { questions, reply }));
                }
                Err(failed) => Err(failed),
            },
            Request::Link { node } => match self.find(&node) {
                Ok(member) => return self.link(&member, reply),
                Err(failed) => Err(failed),
            },
            Request::Submit { records } => match self.submit(&records, now) {
                Ok(taken) => {
                    let parts = self.parting.is_telling();
                    self.after_disk(Withheld::Answer(reply, Waiting::Submitted { taken, parts }));
                    return self.write_on(now);
                }
                Err(failed) => Err(failed),
            },
            Request::Place { author, lane } => self.place(&author.0, lane),
            Request::Coverage { change } => self.coverage(&change.0, now),
            Request::Why { reference } => self.why(&reference),
            Request::Events { after } => Ok(Answer::Events(self.events.after(after))),
            Request::Export { from } => Ok(self.export(from)),
            Request::Invites {} => {
                let unix_s = now.unix_ns / 1_000_000_000;
                let roster = self.roster.clone();
                let invites = roster.invites().into_iter().map(|invite| self.invite(invite, unix_s));
                Ok(Answer::Invites(invites.collect()))
            }
            Request::Leave {} => return self.leave(reply, now),
            Request::Keys {} => Ok(Answer::Keys(self.keys_shown())),
            Request::RotateKeys { keep_old } => return self.rotate(keep_old, reply),
            Request::EndKeys {} => self.end_kept_keys(now),
            Request::OfferImage { release } => {
                return self.effects.push_back(Effect::Images(ImagesOrder::Offer(release.0, reply)));
            }
            Request::UploadImage { release, at, part } => {
                let order = ImagesOrder::Upload(release.0, at, part.0, reply);
                return self.effects.push_back(Effect::Images(order));
            }
            Request::Images {} => {
                return self.effects.push_back(Effect::Images(ImagesOrder::Show(reply)));
            }
            Request::Blobs {} => Ok(self.blobs_kept()),
            Request::DropBlob { hash } => {
                return self.effects.push_back(Effect::Images(ImagesOrder::Drop(hash, reply)));
            }
            Request::Expose { action, to, proxy_protocol } => {
                return self.expose(&action, Offer { to: to.0, proxy_protocol }, reply);
            }
            Request::Unexpose { action } => return self.unexpose(&action, reply),
            Request::Services {} => Ok(Answer::Services(self.service_list())),
            Request::Whois { address } => {
                self.whois(&address, now).map(|whois| Answer::Whois(Box::new(whois)))
            }
            // Comes with its connection: [`Self::on_connect`].
            Request::Connect { action, .. } => {
                Err(Failed { code: Code::RequestMalformed.into(), detail: action })
            }
            Request::KeepShareKey { epoch, key } => return self.keep_share_key(epoch, &key.0, reply),
            Request::ForgetShareKeys {} => return self.forget_share_keys(reply),
            Request::PrepareGateway { tls_key, address } => {
                return self.prepare_gateway(&tls_key.0, address, reply);
            }
        };
        answer(reply, answered.unwrap_or_else(Answer::Failed));
    }

    fn status(&self, now: Now) -> Status {
        let (roster, chain) = (&self.roster, self.replica.chain());
        let good = roster.good().count();
        let linked = roster.good().filter(|member| self.sessions.is_linked(member.first())).count();
        let peers = self.stats.as_ref().map(|stats| stats.peers.as_slice()).unwrap_or_default();
        let mut problems = Vec::new();
        let me = roster.get(&self.me);
        if me.is_none() && roster.member_of(&self.me).is_some() {
            let detail = Code::KeyRetired.title().to_owned();
            problems.push(Failed { code: Code::KeyRetired.into(), detail });
        }
        if let Some(code) = me.and_then(|me| standing::refusal(&me.state)) {
            problems.push(Failed { code: code.into(), detail: self.reason(&self.me, code) });
        }
        // A machine that is no member any more shuts everybody out.
        let served = |node: &PublicKey| roster.member_of(node).is_some_and(standing::is_served);
        for (peer, code) in self.hearsay.words().filter(|(peer, _)| self.is_member() && served(peer)) {
            problems.push(Failed { code: code.into(), detail: format!("{} says so", self.name_of(peer)) });
        }
        if let Some(why) = self.disk.refused() {
            problems.push(Failed { code: Code::DiskRefused.into(), detail: why.to_owned() });
        }
        if self.is_stale(now) && self.is_member() {
            problems.push(Failed { code: Code::ListStale.into(), detail: String::new() });
        }
        for node in self.replica.report_clashes().into_iter().filter(served) {
            let detail = format!("{} ({})", self.name_of(&node), node.short());
            problems.push(Failed { code: Code::CloneSuspected.into(), detail });
        }
        if let Some(release) = self.given_up {
            let detail = format!("release {release}");
            problems.push(Failed { code: Code::NodeImageGivenUp.into(), detail });
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.stage(),
            problems,
            org: Some(OrgStatus {
                id: self.org.into(),
                name: chain.genesis().charter().name.clone().into(),
                settings: chain.head().charter().version,
                settings_id: chain.head().id().into(),
                list: roster.digest().into(),
                heads: self.replica.heads().into(),
                records: self.replica.count(),
                members: count(good),
                former: count(roster.len().saturating_sub(roster.good_or_unsettled().count())),
                forks: count(self.replica.forks().len()),
            }),
            node: me.map(|me| self.member(me, now)),
            gateway: self.is_gateway(),
            up_ms: millis(now.at, self.started),
            links: LinkStatus {
                linked: count(linked),
                sessions: count(self.sessions.len()),
                refused: self.refusals.total(),
                received: peers.iter().map(|peer| peer.rx_bytes).sum(),
                sent: peers.iter().map(|peer| peer.tx_bytes).sum(),
            },
            freshness: Some(self.freshness(now)),
            neighbours: self.neighbours(now),
        }
    }

    /// How far this machine is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        let heard = || self.sessions.iter().any(|(_, session)| self.roster.get(&session.peer()).is_some());
        match self.roster.good().count() {
            _ if !self.may_be_member() => Stage::NotMember,
            _ if !self.is_member() => Stage::Alone,
            0 | 1 => Stage::Ready,
            _ if heard() => Stage::Ready,
            _ => Stage::Alone,
        }
    }

    /// A release was given up for the one that runs.
    pub const fn on_given_up(&mut self, release: u32) {
        self.given_up = Some(release);
    }

    pub(super) fn member(&self, member: &member_crdt::Member, now: Now) -> Member {
        let report = self.replica.report_of(&member.node);
        let (status, revoked) = match &member.state {
            MemberState::Good if self.members.refuses(&member.node) => {
                let revoked = Revoked {
                    by: vec!["this machine's settings".to_owned()],
                    reason: "copied-key".to_owned(),
                    note: Code::CloneSuspected.title().to_owned(),
                    changes: Vec::new(),
                };
                (MemberStatus::Suspended, Some(revoked))
            }
            MemberState::Good => (MemberStatus::Good, None),
            MemberState::Left => (MemberStatus::Left, None),
            MemberState::KeyConflict => (MemberStatus::KeyConflict, None),
            MemberState::Pending => (MemberStatus::Pending, None),
            MemberState::Unsettled => (MemberStatus::Unsettled, None),
            MemberState::Revoked { reason, note, ids, .. }
            | MemberState::Suspended { reason, note, ids, .. } => {
                let authors =
                    ids.iter().filter_map(|id| self.replica.statement(id)).map(|change| change.author());
                let revoked = Revoked {
                    by: authors.map(|key| standing::admin_name(&self.roster, key)).collect(),
                    reason: reason.as_str().to_owned(),
                    note: note.clone(),
                    changes: ids.iter().copied().map(Into::into).collect(),
                };
                let suspended = matches!(member.state, MemberState::Suspended { .. });
                (if suspended { MemberStatus::Suspended } else { MemberStatus::Revoked }, Some(revoked))
            }
        };
        Member {
            name: self.name_of(&member.node),
            node: member.node.into(),
            first: member.first().into(),
            wireguard: member.wireguard.into(),
            boot: member.boot.into(),
            address: member.address,
            assurance: member.assurance.as_str().to_owned(),
            tpm: member.tpm.map(Into::into),
            roles: member.roles.iter().cloned().map(Into::into).collect(),
            labels: member.labels.iter().cloned().map(Into::into).collect(),
            assigns: member.assigns.iter().copied().map(Into::into).collect(),
            status,
            revoked,
            admit: member.admit.into(),
            admitted_by: member.admitted_by.into(),
            invite: member.invite.map(Into::into),
            this: member.uses(&self.me),
            gateway: self
                .roster
                .gateways()
                .iter()
                .any(|gateway| member.nodes().any(|node| node == gateway.node)),
            linked: self.sessions.is_linked(member.first()),
            endpoints: report.map(|report| report.body().endpoints.clone()).unwrap_or_default(),
            version: report.map(|report| report.body().version.clone()).unwrap_or_default(),
            cloned: self.members.is_cloned(&member.node),
            heard_ms_ago: self.heard_ms_ago(&member.node, now),
            liveness: self.answering.of(&member.first()),
        }
    }

    /// Whom this machine keeps in step with, and whether they answer.
    fn neighbours(&self, now: Now) -> Vec<local::Neighbour> {
        let neighbour = |node: &PublicKey| {
            let (name, heard_ms_ago) = (self.name_of(node), self.heard_ms_ago(node, now));
            Some(local::Neighbour { name, liveness: self.answering.of(node)?, heard_ms_ago })
        };
        self.answering.probed().filter_map(neighbour).collect()
    }

    fn heard_ms_ago(&self, node: &PublicKey, now: Now) -> Option<u64> {
        if self.is_mine(node) {
            return Some(0);
        }
        self.members.last_heard(&self.first_of(node)).map(|at| millis(now.at, at))
    }

    /// The name as people see it: with the beginning of the key when another machine has it too.
    pub(super) fn name_of(&self, node: &PublicKey) -> String {
        match self.roster.member_of(node) {
            Some(member) if self.roster.named(&member.name).len() > 1 => {
                format!("{}-{}", member.name, member.node.short())
            }
            Some(member) => member.name.to_string(),
            None => node.short(),
        }
    }

    pub(super) fn find(&self, text: &str) -> Result<member_crdt::Member, Failed> {
        let found = self.roster.find(text);
        found.cloned().map_err(|why| Failed { code: why.code().into(), detail: format!("{text}: {why}") })
    }

    fn session_list(&self, now: Now) -> Vec<Session> {
        let shown = self.sessions.iter().map(|(_, session)| Session {
            name: self.name_of(&session.peer()),
            node: session.peer().into(),
            action: session.purpose.action().to_owned(),
            opened: match session.proof {
                Proof::Admitted(_) => Opened::There,
                Proof::Accepted(_) => Opened::Here,
            },
            up_ms: millis(now.at, session.since),
            reference: session.reference.to_string(),
        });
        shown.collect()
    }

    fn link(&mut self, member: &member_crdt::Member, reply: oneshot::Sender<Answer>) {
        let already = self.sessions.is_linked(member.first());
        let name = self.name_of(&member.node);
        let linked = Linked { name, node: member.node.into(), address: member.address, already };
        if already {
            answer(reply, Answer::Linked(linked));
        } else {
            self.dial(member.node, Purpose::Link, Some((reply, linked)));
        }
    }

    /// All of them or none is reported; what was taken stays, since a revocation holds at once.
    fn submit(&mut self, records: &[control::text::Bytes], now: Now) -> Result<Vec<Taken>, Failed> {
        let mut decoded = Vec::new();
        for bytes in records {
            let malformed = |why: String| Failed { code: Code::ChangeMalformed.into(), detail: why };
            decoded.extend(Records::decode_all(&bytes.0).map_err(|why| malformed(why.to_string()))?);
        }
        let outcomes = self.take(&decoded, now);
        let mut taken = Vec::new();
        for (record, outcome) in decoded.iter().zip(outcomes) {
            let new = match outcome {
                Ok(Applied::New { .. }) => true,
                Ok(Applied::Known) => false,
                Ok(Applied::Waiting { .. }) => {
                    let detail = "it follows a change that is not known here".to_owned();
                    return Err(Failed { code: Code::ChangeBroken.into(), detail });
                }
                Err(why) => return Err(Failed { code: why.code().into(), detail: why.to_string() }),
            };
            taken.push(Taken { id: StatementId(record.id()).to_string(), new });
        }
        Ok(taken)
    }

    fn place(&self, author: &PublicKey, lane: u8) -> Result<Answer, Failed> {
        let lane = Lane::from_number(lane).ok_or_else(|| Failed {
            code: Code::RequestMalformed.into(),
            detail: format!("there is no lane {lane}"),
        })?;
        let unknown = || Failed { code: Code::AdminKeyUnknown.into(), detail: author.short() };
        let place = self.replica.next_place(author, lane).ok_or_else(unknown)?;
        Ok(Answer::Place(Place {
            org: self.org.into(),
            charter: place.charter.into(),
            seq: place.seq,
            prev: place.prev.to_vec().into(),
        }))
    }

    fn coverage(&self, change: &StatementId, now: Now) -> Result<Answer, Failed> {
        let unknown = || Failed { code: Code::NoSuchChange.into(), detail: change.short() };
        let settings = || self.replica.coverage_of_charter(&CharterId(change.0));
        let covered = self.replica.coverage(change).or_else(settings).ok_or_else(unknown)?;
        let missing = covered.missing.iter().map(|node| Missing {
            name: self.name_of(node),
            node: (*node).into(),
            heard_ms_ago: self.heard_ms_ago(node, now),
        });
        Ok(Answer::Coverage(Coverage {
            change: (*change).into(),
            of: count(covered.of),
            applied: count(covered.applied),
            missing: missing.collect(),
        }))
    }

    fn why(&self, reference: &str) -> Result<Answer, Failed> {
        let unknown = || Failed { code: Code::NoSuchReference.into(), detail: reference.to_owned() };
        let refused = Reference::from_hex(reference).ok().and_then(|reference| self.refusals.get(&reference));
        let refused = refused.ok_or_else(unknown)?;
        // A machine that boots proves its boot key.
        let holder = |key| self.roster.member_of(&key).or_else(|| self.roster.by_boot(&key));
        Ok(Answer::Why(Why {
            reference: reference.to_owned(),
            code: refused.code.into(),
            detail: refused.detail.clone(),
            key: refused.key.map(Into::into),
            name: refused.key.and_then(holder).map(|member| self.name_of(&member.node)),
            action: refused.action.clone(),
            source: refused.source.clone(),
            at_unix_ms: refused.at_unix_ms,
        }))
    }

    fn export(&self, from: u64) -> Answer {
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        let mut records = self.replica.records().skip(skip).peekable();
        let (mut page, mut bytes, mut next) = (Vec::new(), 0_usize, from);
        while let Some(record) =
            records.next_if(|record| page.is_empty() || bytes + record.encoded_len() <= EXPORT_BYTES_MAX)
        {
            bytes += record.encoded_len();
            next += 1;
            page.push(encoded(record).into());
        }
        let next = records.peek().is_some().then_some(next);
        Answer::Export(Export { records: page, next })
    }

    fn invite(&self, invite: &InviteStanding, unix_s: u64) -> Invite {
        let members = self.roster.members().into_iter();
        let used_by = members.filter(|member| member.invite == Some(invite.id));
        Invite {
            id: invite.id.into(),
            status: match invite.state {
                InviteState::Open if invite.expires_unix_s != 0 && unix_s > invite.expires_unix_s => {
                    InviteStatus::Expired
                }
                InviteState::Open => InviteStatus::Open,
                InviteState::Spent => InviteStatus::UsedUp,
                InviteState::Cancelled | InviteState::Void => InviteStatus::Cancelled,
            },
            uses: invite.uses,
            used_by: used_by
                .map(|member| InviteUse { name: self.name_of(&member.node), node: member.node.into() })
                .collect(),
            redeemer: invite.redeemer.into(),
            labels: invite.labels.iter().cloned().map(Into::into).collect(),
            expires_unix_s: invite.expires_unix_s,
            note: invite.note.clone(),
            by: standing::admin_name(&self.roster, &invite.by),
        }
    }
}

fn encoded(record: Record) -> Vec<u8> {
    Records::batches([record], usize::MAX).next().unwrap_or_default()
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn millis(now: Instant, then: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(then).as_millis()).unwrap_or(u64::MAX)
}

/// Echoes in one measurement.
const PINGS_MAX: u32 = 64;
/// A page of records, before it is written as hexadecimal.
const EXPORT_BYTES_MAX: usize = 1024 * 1024;
