//! Programs of this machine that members use, and members' programs that this machine uses.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use conn_auth::{Reference, Refusal, ServiceName};
use control::{
    local::{Answer, Failed, LocalAddress, Service, Whois},
    text::Text,
};
use identity::{
    Code, PublicKey,
    limits::{SERVICE_SESSIONS_MAX, SERVICE_SESSIONS_PER_MEMBER_MAX, SERVICES_MAX},
};
use muster_peer::Peer;
use org_trust::PutRequest;
use tokio::{net::UnixStream, sync::oneshot};

use super::{
    Effect, State,
    admission::{Connecting, Errand},
    disk::answer,
};
use crate::{
    blobs::Blobs,
    services::{Offer, Offers, Services},
    sessions::{Cut, Purpose, SessionKey},
};

/// What the task of a session does that is not for the state.
#[derive(Debug)]
pub enum Serve {
    /// A program's bytes.
    Program(Program),
    /// A file of this member, by the first node key of its machine, is kept.
    Keep(Arc<Blobs>, PublicKey),
}

/// The program behind a service.
#[derive(Debug)]
pub struct Program {
    /// Where the program is.
    pub to: LocalAddress,
    /// Who the peer is, if the program is told.
    pub peer: Option<Peer>,
}

/// What this machine is to offer, for the disk first.
#[derive(Debug)]
pub struct ServicesOrder {
    /// All of it.
    pub services: Services,
    /// Who asked.
    pub reply: oneshot::Sender<Answer>,
}

impl State {
    /// What this machine offers; sessions with a program that it no longer does end.
    pub fn on_services(&mut self, services: Services) {
        let before = std::mem::replace(&mut self.services, services);
        let ended: Vec<SessionKey> = (self.sessions.of_services())
            .filter(|(_, _, session)| matches!(session.proof, crate::sessions::Proof::Admitted(_)))
            .filter(|(_, name, _)| self.services.get(*name) != before.get(*name))
            .map(|(key, _, _)| key)
            .collect();
        for key in ended {
            let reason = "the service was withdrawn".to_owned();
            self.sessions.cut(key, Cut { code: Code::ActionUnknown, reason });
        }
    }

    /// The settings were read again.
    pub fn on_services_declared(&mut self, declared: Offers) {
        let kept = self.services.kept.clone();
        self.on_services(Services { declared, kept });
    }

    /// The disk has taken it, or not.
    pub fn on_services_kept(&mut self, kept: Result<(), Failed>, order: ServicesOrder) {
        let ServicesOrder { services, reply } = order;
        match kept {
            Ok(()) => {
                self.on_services(services);
                answer(reply, Answer::Services(self.service_list()));
            }
            Err(failed) => answer(reply, Answer::Failed(failed)),
        }
    }

    /// The program behind a service sees this session come from there.
    pub fn on_seen(&mut self, key: SessionKey, at: SocketAddr) {
        self.sessions.seen(key, at);
    }

    /// A program wants a member's service.
    pub fn on_connect(
        &mut self,
        (node, action): (&str, &str),
        reply: oneshot::Sender<Answer>,
        stream: oneshot::Receiver<UnixStream>,
    ) {
        let member = self.find(node).and_then(|member| {
            // What a program puts goes the same way, a frame in each piece.
            let (purpose, has_room) = match action {
                PutRequest::ACTION => (Purpose::Put, self.may_put(&member.first())),
                action => {
                    (Purpose::Service(service_name(action)?), self.has_room_for_service(&member.first()))
                }
            };
            if has_room { Ok((member, purpose)) } else { Err(busy()) }
        });
        match member {
            Ok((member, purpose)) => {
                let connecting = Connecting { name: self.name_of(&member.node), reply, stream };
                self.run(member.node, purpose, Errand::Connect(connecting));
            }
            Err(failed) => answer(reply, Answer::Failed(failed)),
        }
    }

    /// The program that serves such a session; none if that is muster's own work. Asked for whoever may have
    /// it, so nobody else learns what is offered here.
    pub(super) fn serve(
        &self,
        peer: &PublicKey,
        purpose: Purpose,
        reference: Reference,
    ) -> Result<Option<Box<Serve>>, Refusal> {
        let name = match purpose {
            Purpose::Service(name) => name,
            Purpose::Put => {
                let blobs = self.blobs.as_ref().ok_or(Refusal { code: Code::BlobsOff })?;
                return Ok(Some(Box::new(Serve::Keep(Arc::clone(blobs), self.first_of(peer)))));
            }
            Purpose::Blob | Purpose::Link | Purpose::Ping | Purpose::Sync | Purpose::Outside(_) => {
                return Ok(None);
            }
        };
        let offer = self.services.get(name).ok_or(Refusal { code: Code::ActionUnknown })?;
        let member = self.roster.member_of(peer).filter(|_| offer.proxy_protocol);
        let peer = member.map(|member| Peer {
            name: self.name_of(&member.node),
            key: member.node.to_string(),
            roles: member.roles.iter().map(ToString::to_string).collect(),
            labels: member.labels.iter().map(ToString::to_string).collect(),
            action: name.to_string(),
            reference: reference.to_string(),
        });
        Ok(Some(Box::new(Serve::Program(Program { to: offer.to.clone(), peer }))))
    }

    /// Whether a member may have one more session with a program.
    pub(super) fn has_room_for_service(&self, member: &PublicKey) -> bool {
        let theirs = self.sessions.of_services().filter(|(_, _, session)| session.member == *member);
        theirs.count() < SERVICE_SESSIONS_PER_MEMBER_MAX
            && self.sessions.of_services().count() < SERVICE_SESSIONS_MAX
    }

    /// A member's sessions for muster's own work.
    pub(super) fn own_sessions_of(&self, member: PublicKey) -> usize {
        let is_own = |purpose| !matches!(purpose, Purpose::Service(_));
        self.sessions.live_of(member).filter(|(_, session)| is_own(session.purpose)).count()
    }

    pub(super) fn expose(&mut self, action: &str, offer: Offer, reply: oneshot::Sender<Answer>) {
        let mut services = self.services.clone();
        let changed = service_name(action).and_then(|name| {
            if services.declared.contains_key(&name) {
                return Err(declared(name));
            }
            services.kept.insert(name, offer);
            if services.kept.len() > SERVICES_MAX { Err(busy()) } else { Ok(()) }
        });
        self.keep_services(changed.map(|()| services), reply);
    }

    pub(super) fn unexpose(&mut self, action: &str, reply: oneshot::Sender<Answer>) {
        let mut services = self.services.clone();
        let none = || Failed { code: Code::NoSuchService.into(), detail: action.to_owned() };
        let changed = ServiceName::parse(action).ok_or_else(none).and_then(|name| {
            if services.declared.contains_key(&name) {
                return Err(declared(name));
            }
            services.kept.remove(&name).map(|_| ()).ok_or_else(none)
        });
        self.keep_services(changed.map(|()| services), reply);
    }

    fn keep_services(&mut self, services: Result<Services, Failed>, reply: oneshot::Sender<Answer>) {
        match services {
            Ok(services) => {
                self.effects.push_back(Effect::Services(Box::new(ServicesOrder { services, reply })));
            }
            Err(failed) => answer(reply, Answer::Failed(failed)),
        }
    }

    pub(super) fn service_list(&self) -> Vec<Service> {
        let service = |(name, offer, declared): (ServiceName, &Offer, bool)| {
            let is_here = |(_, of, session): &(SessionKey, ServiceName, &crate::sessions::Session)| {
                *of == name && matches!(session.proof, crate::sessions::Proof::Admitted(_))
            };
            let sessions = self.sessions.of_services().filter(is_here).count();
            Service {
                action: name.to_string(),
                to: Text(offer.to.clone()),
                proxy_protocol: offer.proxy_protocol,
                declared,
                sessions: u64::try_from(sessions).unwrap_or(u64::MAX),
            }
        };
        let mut list: Vec<Service> = self.services.iter().map(service).collect();
        list.sort_by(|a, b| a.action.cmp(&b.action));
        list
    }

    /// Whose an address is: a member's of the overlay, or a service's connection as its program sees it.
    pub(super) fn whois(&self, text: &str, now: super::Now) -> Result<Whois, Failed> {
        let nobody = || Failed { code: Code::NobodyThere.into(), detail: text.to_owned() };
        let socket = text.parse::<SocketAddr>().ok();
        let address = text.parse::<IpAddr>().ok().or_else(|| socket.map(|socket| socket.ip()));
        let address = address.ok_or_else(nobody)?;
        let session = socket
            .and_then(|at| self.sessions.of_services().find(|(_, _, session)| session.seen_at == Some(at)));
        let member = match &session {
            Some((_, _, session)) => self.roster.member_of(&session.peer()),
            None => self.roster.members().into_iter().find(|member| IpAddr::V6(member.address) == address),
        };
        let member = self.member(member.ok_or_else(nobody)?, now);
        Ok(Whois {
            name: member.name,
            node: member.node,
            address: member.address,
            status: member.status,
            roles: member.roles,
            labels: member.labels,
            action: session.as_ref().map(|(_, name, _)| name.to_string()),
            reference: session.map(|(_, _, session)| session.reference.to_string()),
        })
    }
}

fn service_name(action: &str) -> Result<ServiceName, Failed> {
    let wrong = || Failed { code: Code::ServiceName.into(), detail: action.to_owned() };
    ServiceName::parse(action).ok_or_else(wrong)
}

fn declared(name: ServiceName) -> Failed {
    Failed { code: Code::ServiceDeclared.into(), detail: name.to_string() }
}

fn busy() -> Failed {
    Failed { code: Code::Busy.into(), detail: "as many services as there may be".to_owned() }
}
