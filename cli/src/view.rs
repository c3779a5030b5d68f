//! The member list as a command reads it: from the musterd of this machine, or, on an admin's machine
//! without one, from what a gateway holds, verified here.

use std::time::{SystemTime, UNIX_EPOCH};

use control::{
    local::{Answer, Invite, InviteStatus, InviteUse, Member, MemberStatus, Request, Revoked},
    text::Text,
};
use identity::{Code, Name, PublicKey};
use member_crdt::{Applied, FindError, InviteState, MemberState, Replica, Roster};
use org_trust::{Record, VerifiedCharter};

use crate::{
    args::Everywhere,
    author::{self, Author, Carrier as _, Way},
    failure::{Failure, Outcome},
    local::{self, Daemon},
    place::Places,
    profile::Admin,
};

/// A source of members and invites.
pub(crate) enum View {
    /// The musterd of this machine.
    Daemon(Daemon),
    /// What a gateway sent.
    Held(Box<Replica>),
}

impl View {
    /// The musterd of this machine, or else a gateway by an admin key.
    pub(crate) fn open(everywhere: &Everywhere) -> Outcome<Self> {
        let daemon = Daemon::connect(&Places::find(everywhere)?.socket);
        match (daemon, Admin::find(everywhere)) {
            // An admin key that was named may be of another org than this machine.
            (Ok(daemon), Ok(admin)) if everywhere.admin.is_some() => {
                if author::daemon_of(&admin, everywhere)?.is_some() {
                    return Ok(Self::Daemon(daemon));
                }
            }
            (_, Err(failure)) if everywhere.admin.is_some() => return Err(failure),
            (Ok(daemon), _) => return Ok(Self::Daemon(daemon)),
            // Without an admin key there is no second way; what matters is that musterd is down.
            (Err(failure), Err(_)) => return Err(failure),
            (Err(_), Ok(_)) => {}
        }
        Self::of(&mut Author::open(everywhere)?, everywhere)
    }

    /// By the way an admin goes.
    pub(crate) fn of(author: &mut Author, everywhere: &Everywhere) -> Outcome<Self> {
        if matches!(author.way, Way::Daemon(_)) {
            return Daemon::connect(&Places::find(everywhere)?.socket).map(Self::Daemon);
        }
        let records = author.everything()?;
        let replica = replica(author.profile().chain.genesis(), &records)?;
        Ok(Self::Held(Box::new(replica)))
    }

    /// What the org is called.
    pub(crate) fn org_name(&mut self) -> Outcome<String> {
        match self {
            Self::Daemon(daemon) => {
                let Answer::Status(status) = daemon.ask(&Request::Status {})? else {
                    return Err(local::unexpected());
                };
                let org = status.org.ok_or_else(|| Failure::new(Code::NotEnrolled, "no org"))?;
                Ok(org.name.to_string())
            }
            Self::Held(replica) => Ok(replica.chain().genesis().charter().name.to_string()),
        }
    }

    /// All members, also former ones, by name.
    pub(crate) fn members(&mut self) -> Outcome<Vec<Member>> {
        match self {
            Self::Daemon(daemon) => {
                let Answer::Members(members) = daemon.ask(&Request::Members {})? else {
                    return Err(local::unexpected());
                };
                Ok(members)
            }
            Self::Held(replica) => {
                let roster = replica.roster();
                let mut members: Vec<_> =
                    roster.members().iter().map(|m| member(replica, &roster, m)).collect();
                members.sort_by(|a, b| a.name.cmp(&b.name).then(a.node.cmp(&b.node)));
                Ok(members)
            }
        }
    }

    /// The one member that a name or the first digits of a key mean.
    pub(crate) fn find(&mut self, node: &str) -> Outcome<Member> {
        match self {
            Self::Daemon(daemon) => match daemon.ask(&Request::Member { node: node.to_owned() }) {
                Ok(Answer::Members(members)) => {
                    let one = <[Member; 1]>::try_from(members).map_err(|_| local::unexpected())?;
                    let [one] = one;
                    Ok(one)
                }
                Ok(_) => Err(local::unexpected()),
                Err(failure) if failure.code() == Code::AmbiguousMember => {
                    let mut members = self.members()?;
                    members.retain(|m| m.name.starts_with(node) || m.node.to_string().starts_with(node));
                    Err(ambiguous(node, &members))
                }
                Err(failure) => Err(failure),
            },
            Self::Held(replica) => {
                let roster = replica.roster();
                match roster.find(node) {
                    Ok(found) => Ok(member(replica, &roster, found)),
                    Err(FindError::Ambiguous { nodes }) => {
                        let found = nodes.iter().filter_map(|key| roster.get(key));
                        let members: Vec<_> = found.map(|m| member(replica, &roster, m)).collect();
                        Err(ambiguous(node, &members))
                    }
                    Err(_) => Err(Failure::new(Code::NoSuchMember, node)),
                }
            }
        }
    }

    /// All invites.
    pub(crate) fn invites(&mut self) -> Outcome<Vec<Invite>> {
        match self {
            Self::Daemon(daemon) => {
                let Answer::Invites(invites) = daemon.ask(&Request::Invites {})? else {
                    return Err(local::unexpected());
                };
                Ok(invites)
            }
            Self::Held(replica) => {
                let roster = replica.roster();
                Ok(roster.invites().into_iter().map(|i| invite(&roster, i)).collect())
            }
        }
    }
}

/// Everything in `records`, verified from the org's first settings on.
pub(crate) fn replica(genesis: &VerifiedCharter, records: &[Record]) -> Outcome<Replica> {
    let mut replica =
        Replica::new(genesis).map_err(|_| Failure::new(Code::ChartersInvalid, "no first settings"))?;
    for record in records {
        match replica.apply(record) {
            Ok(Applied::New { .. } | Applied::Known) => {}
            Ok(Applied::Waiting { .. }) => {
                return Err(Failure::new(Code::ChangeBroken, "the gateway left out a change"));
            }
            Err(rejected) => return Err(Failure::new(rejected.code(), format_args!("{rejected}"))),
        }
    }
    Ok(replica)
}

/// Seconds since 1970 by this machine's clock.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn ambiguous(node: &str, members: &[Member]) -> Failure {
    let lines: Vec<_> = members.iter().map(|m| format!("{}  {}", m.node, m.name)).collect();
    Failure::new(Code::AmbiguousMember, format_args!("{node:?} means any of\n{}", lines.join("\n")))
}

fn member(replica: &Replica, roster: &Roster, m: &member_crdt::Member) -> Member {
    let report = replica.report_of(&m.node).map(|report| report.body());
    let (status, revoked) = match &m.state {
        MemberState::Good => (MemberStatus::Good, None),
        MemberState::Left => (MemberStatus::Left, None),
        MemberState::KeyConflict => (MemberStatus::KeyConflict, None),
        MemberState::Pending => (MemberStatus::Pending, None),
        MemberState::Unsettled => (MemberStatus::Unsettled, None),
        MemberState::Revoked { by, reason, note, ids } | MemberState::Suspended { by, reason, note, ids } => {
            let revoked = Revoked {
                by: vec![admin_name(roster, by)],
                reason: reason.as_str().to_owned(),
                note: note.clone(),
                changes: ids.iter().map(|id| Text(*id)).collect(),
            };
            let suspended = matches!(m.state, MemberState::Suspended { .. });
            (if suspended { MemberStatus::Suspended } else { MemberStatus::Revoked }, Some(revoked))
        }
    };
    Member {
        name: shown_name(roster, &m.name, &m.node),
        node: Text(m.node),
        first: Text(m.first()),
        wireguard: Text(m.wireguard),
        boot: Text(m.boot),
        address: m.address,
        assurance: m.assurance.as_str().to_owned(),
        tpm: m.tpm.map(Text),
        roles: m.roles.iter().cloned().map(Text).collect(),
        labels: m.labels.iter().cloned().map(Text).collect(),
        assigns: m.assigns.iter().copied().map(Text).collect(),
        status,
        revoked,
        admit: Text(m.admit),
        admitted_by: Text(m.admitted_by),
        invite: m.invite.map(Text),
        this: false,
        gateway: roster.gateways().iter().any(|g| m.nodes().any(|node| node == g.node)),
        linked: false,
        endpoints: report.map(|r| r.endpoints.clone()).unwrap_or_default(),
        version: report.map(|r| r.version.clone()).unwrap_or_default(),
        cloned: false,
        heard_ms_ago: None,
        liveness: None,
    }
}

fn invite(roster: &Roster, i: &member_crdt::InviteStanding) -> Invite {
    let expired = i.expires_unix_s != 0 && i.expires_unix_s < now_unix_s();
    let used = roster.members().into_iter().filter(|m| m.invite == Some(i.id));
    Invite {
        id: Text(i.id),
        status: match i.state {
            InviteState::Cancelled | InviteState::Void => InviteStatus::Cancelled,
            InviteState::Spent => InviteStatus::UsedUp,
            InviteState::Open if expired => InviteStatus::Expired,
            InviteState::Open => InviteStatus::Open,
        },
        uses: i.uses,
        used_by: used
            .map(|m| InviteUse { name: shown_name(roster, &m.name, &m.node), node: Text(m.node) })
            .collect(),
        redeemer: Text(i.redeemer),
        labels: i.labels.iter().cloned().map(Text).collect(),
        expires_unix_s: i.expires_unix_s,
        note: i.note.clone(),
        by: admin_name(roster, &i.by),
    }
}

fn shown_name(roster: &Roster, name: &Name, node: &PublicKey) -> String {
    if roster.named(name).len() > 1 { format!("{name}-{}", node.short()) } else { name.to_string() }
}

fn admin_name(roster: &Roster, key: &PublicKey) -> String {
    let named = roster.admins().iter().find(|admin| admin.key == *key);
    named.map_or_else(|| key.short(), |admin| admin.name.to_string())
}

/// The words for a member's state.
pub(crate) const fn status_word(status: MemberStatus) -> &'static str {
    match status {
        MemberStatus::Good => "good",
        MemberStatus::Revoked => "revoked",
        MemberStatus::Left => "left",
        MemberStatus::KeyConflict => "key-conflict",
        MemberStatus::Suspended => "suspended",
        MemberStatus::Pending => "pending",
        MemberStatus::Unsettled => "unsettled",
    }
}
