//! From a proved key to a session, on both sides of a connection, and back to none.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use conn_auth::{Accepted, Action, Bind, Binding, KeyProven, Refusal, Standing};
use control::local::{Answer, EventKind, Failed, Linked};
use identity::{
    Code, Heads, PublicKey, WireGuardKey,
    limits::{DIAL_DEADLINE_MS, SESSIONS_PER_MEMBER_MAX},
};
use member_crdt::Member;
use org_trust::BlobRequest;
use overlay::Direction;
use tokio::{net::UnixStream, sync::oneshot};

use super::{Asked, Effect, Now, Serve, State, disk::answer, events::Of};
use crate::{
    refusals::Refused,
    sessions::{Ends, Line, Proof, Purpose, Session, SessionKey},
    standing,
    tunnel::TunnelEvent,
};

/// A peer that dialled proved its key in a tunnel.
#[derive(Debug)]
pub struct Proven {
    /// The proof.
    pub proven: KeyProven,
    /// The overlay address it came from.
    pub source: Ipv6Addr,
    /// Where to say what was decided.
    pub reply: oneshot::Sender<Decision>,
}

/// What a connection's task is to do.
#[derive(Debug)]
pub enum Decision {
    /// Say VERDICT ok, if there is one to say, and move the session's bytes.
    Open {
        /// The line; none towards a server that has said it.
        verdict: Option<String>,
        /// The session.
        key: SessionKey,
        /// What it is for.
        purpose: Purpose,
        /// Most bytes of a frame.
        frame_bytes_max: usize,
        /// The task's ends.
        ends: Ends,
        /// The program that serves it, if one does.
        serve: Option<Box<Serve>>,
    },
    /// Say this VERDICT no, if there is one to say, and close.
    Refuse {
        /// The line.
        verdict: Option<String>,
        /// Why.
        code: Code,
    },
}

/// A member to reach.
#[derive(Debug)]
pub struct Order {
    /// Its newest node key.
    pub node: PublicKey,
    /// The WireGuard key that goes with it.
    pub wireguard: WireGuardKey,
    /// Earlier pairs that it may still use; the tunnel says which it does.
    pub earlier: Vec<(PublicKey, WireGuardKey)>,
    /// Its overlay address.
    pub address: Ipv6Addr,
    /// What for.
    pub purpose: Purpose,
    /// What we hold, as a hint.
    pub held: (Heads, u64),
    /// What a program wants done once the session is open.
    pub errand: Option<Errand>,
}

/// How a dial ended.
#[derive(Debug)]
pub struct Dialled {
    /// Whom it was to reach.
    pub node: PublicKey,
    /// What for.
    pub purpose: Purpose,
    /// The proof of the server's key, or why there is none.
    pub result: Result<Accepted, Failure>,
    /// Where to say what was decided.
    pub reply: oneshot::Sender<Decision>,
}

/// Why a member was not reached.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The code.
    pub code: Code,
    /// For people.
    pub detail: String,
}

impl Failure {
    /// What a program is told.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer::Failed(Failed { code: self.code.into(), detail: self.detail.clone() })
    }
}

/// Told when a link was made, or could not be.
pub(super) type Waiter = (oneshot::Sender<Answer>, Linked);

/// What the dialler's task does in a session that a program asked for.
#[derive(Debug)]
pub enum Errand {
    /// Measures.
    Echo(Echo),
    /// Asks.
    Ask(Asking),
    /// Carries the program's bytes.
    Connect(Connecting),
}

impl Errand {
    /// Where the outcome goes.
    #[must_use]
    pub fn into_reply(self) -> oneshot::Sender<Answer> {
        match self {
            Self::Echo(echo) => echo.reply,
            Self::Ask(asking) => asking.reply,
            Self::Connect(connecting) => connecting.reply,
        }
    }
}

/// Questions of `blob-get` that a program has.
#[derive(Debug)]
pub struct Asking {
    /// One after the other.
    pub questions: Vec<BlobRequest>,
    /// Who asked.
    pub reply: oneshot::Sender<Answer>,
}

/// A member's service that a program wants.
#[derive(Debug)]
pub struct Connecting {
    /// The member's name.
    pub name: String,
    /// Who asked.
    pub reply: oneshot::Sender<Answer>,
    /// Its connection, once it was told that the session is open.
    pub stream: oneshot::Receiver<UnixStream>,
}

/// A measurement that a program asked for.
#[derive(Debug)]
pub struct Echo {
    /// How many echoes.
    pub count: u32,
    /// The member's name.
    pub name: String,
    /// Who asked.
    pub reply: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
pub(super) struct Dials {
    pending: BTreeMap<(PublicKey, Purpose), Vec<Waiter>>,
    /// When a link that traffic asks for may be dialled again.
    quiet_until: BTreeMap<PublicKey, Instant>,
    first_try: Option<Instant>,
}

impl Dials {
    pub(super) const fn next_try(&self) -> Option<Instant> {
        self.first_try
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.quiet_until.retain(|_, until| *until > now);
    }
}

impl State {
    /// Decides about a peer that proved its key in a tunnel.
    pub fn on_proven(&mut self, input: Proven, now: Now) {
        let Proven { proven, source, reply } = input;
        let standing = self.standing_in_tunnel(&proven);
        let (peer, action) = (proven.peer(), proven.action().name().to_owned());
        let reference = self.new_reference();
        let decided = proven.admit(standing).and_then(|admitted| {
            let purpose = Purpose::of(&action).ok_or(Refusal { code: Code::ActionUnknown })?;
            let serve = self.serve(&peer, purpose, reference)?;
            if purpose != Purpose::Sync
                && let Some(code) = self.stale_for(&peer, now)
            {
                return Err(Refusal { code });
            }
            let frame_bytes_max = admitted.rule().frame_bytes_max;
            let verdict = admitted.verdict_ok(reference, self.replica.heads(), self.replica.count());
            let (line, ends) = Line::to_task();
            let proof = Proof::Admitted(Box::new(admitted));
            let key = self.register(Session::new(proof, purpose, reference, now.at, line))?;
            Ok(Decision::Open { verdict: Some(verdict), key, purpose, frame_bytes_max, ends, serve })
        });
        let decision = decided.unwrap_or_else(|refusal| {
            let code = refusal.code;
            self.refuse(reference, peer, code, Asked { action, source: source.to_string() }, now);
            Decision::Refuse { verdict: Some(refusal.verdict(reference, true)), code }
        });
        self.opened(&decision, now);
        self.effects.push_back(Effect::Decide(reply, Box::new(decision)));
    }

    /// A handshake that ended before a key was proved: for the log only.
    pub fn on_unproven(&mut self, code: Code, detail: String, source: String, now: Now) {
        let reference = self.new_reference();
        let refused =
            Refused { code, detail, key: None, action: String::new(), source, at_unix_ms: now.unix_ms() };
        self.remember(reference, refused, now);
    }

    /// A dial has ended.
    pub fn on_dialled(&mut self, dialled: Dialled, now: Now) {
        let Dialled { node, purpose, result, reply } = dialled;
        let node = self.first_of(&node);
        if let Err(Failure { code, .. }) = &result {
            self.shut_out(node, *code, now);
        }
        let opened = result.and_then(|accepted| {
            let (line, ends) = Line::to_task();
            let reference = accepted.reference();
            let session = Session::new(Proof::Accepted(Box::new(accepted)), purpose, reference, now.at, line);
            let key = self.register(session).map_err(|refusal| Failure {
                code: refusal.code,
                detail: self.reason(&node, refusal.code),
            })?;
            let action = Action::new(purpose.action(), &[]).ok();
            let rule = action.and_then(|action| action.rule(Bind::WireGuard));
            let frame_bytes_max = rule.map_or(0, |rule| rule.frame_bytes_max);
            Ok(Decision::Open { verdict: None, key, purpose, frame_bytes_max, ends, serve: None })
        });
        let waiters = self.dials.pending.remove(&(node, purpose)).unwrap_or_default();
        let (decision, failure) = match opened {
            Ok(decision) => (decision, None),
            Err(failure) => (Decision::Refuse { verdict: None, code: failure.code }, Some(failure)),
        };
        if let Some(failure) = &failure {
            let Failure { code, detail } = failure;
            tracing::debug!(MUSTER_PEER = node.short(), %code, action = purpose.action(), "not reached: {detail}");
            if purpose == Purpose::Sync {
                self.overlay.handle_dial_failed(self.ms(now), node);
                self.follow_overlay(now);
            } else if purpose == Purpose::Link {
                self.dials.quiet_until.insert(node, now.at + LINK_RETRY);
            }
        }
        self.opened(&decision, now);
        self.effects.push_back(Effect::Decide(reply, Box::new(decision)));
        for (waiter, linked) in waiters {
            answer(waiter, failure.as_ref().map_or(Answer::Linked(linked), Failure::answer));
        }
    }

    /// A peer says why it closes a session. A machine that was revoked never gets the change itself.
    pub fn on_told(&mut self, key: SessionKey, code: Code, now: Now) {
        if let Some(peer) = self.sessions.get(key).map(|session| session.member) {
            self.shut_out(peer, code, now);
            self.closed_for(key, code, now);
        }
    }

    /// The task of a session is done, or its connection is gone.
    pub fn on_ended(&mut self, key: SessionKey, now: Now) {
        self.images.forget(key);
        let Some(session) = self.sessions.ended(key) else { return };
        let (peer, proved) = (session.member, session.peer());
        match session.purpose {
            Purpose::Link if !self.sessions.is_linked(peer) => {
                tracing::info!(MUSTER_PEER = peer.short(), "link down");
                self.happened(EventKind::LinkDown, Of::node(peer), now);
                self.close_gates(&peer);
            }
            Purpose::Link if !self.sessions.is_linked_by(peer, proved) => {
                let gate = self.wireguard_with(&proved);
                self.effects.extend(gate.map(Effect::CloseGate));
            }
            Purpose::Sync => self.sync_ended(key, peer, direction(&session.proof), now),
            Purpose::Blob
            | Purpose::Put
            | Purpose::Link
            | Purpose::Ping
            | Purpose::Service(_)
            | Purpose::Outside(_) => {}
        }
        self.nobody_answers(key, now);
        self.remove_members_told(now);
    }

    /// A member that was dialled hears others first. It may lack what is known here, and is asked for
    /// nothing that it would not tell anybody; the dial goes on by itself.
    pub fn on_heals_first(&mut self, node: PublicKey) {
        if !self
            .sync
            .keys()
            .any(|key| self.sessions.get(*key).is_some_and(|s| s.member == self.first_of(&node)))
        {
            self.dial(node, Purpose::Sync, None);
        }
    }

    /// Something happened in the tunnels.
    pub fn on_tunnel(&mut self, event: TunnelEvent, now: Now) {
        match event {
            TunnelEvent::WantLink(wireguard) => {
                let Some(node) = self.roster.by_wireguard(&wireguard).map(Member::first) else {
                    return;
                };
                let quiet = self.dials.quiet_until.get(&node).is_some_and(|until| *until > now.at);
                if !quiet && !self.sessions.is_linked(node) {
                    self.dial(node, Purpose::Link, None);
                }
            }
            TunnelEvent::QuietLink(wireguard) => {
                let Some(node) = self.roster.by_wireguard(&wireguard).map(Member::first) else {
                    return;
                };
                let live = self.sessions.live_of(node).filter(|(_, s)| s.purpose == Purpose::Link);
                for key in live.map(|(key, _)| key).collect::<Vec<_>>() {
                    tracing::debug!(MUSTER_PEER = node.short(), "a quiet link is closed");
                    self.sessions.finish(key);
                }
                self.close_gates(&node);
            }
            TunnelEvent::Handshake { wireguard, .. } => {
                if let Some(node) = self.roster.by_wireguard(&wireguard).map(Member::first) {
                    self.replaced_by(&node, &wireguard, now);
                    self.members.heard(node, now.at);
                    self.overlay.handle_reachable(self.ms(now), &node);
                    self.follow_overlay(now);
                }
            }
        }
    }

    /// Reaches a member; a dial for the same that is under way is shared.
    pub(super) fn dial(&mut self, node: PublicKey, purpose: Purpose, waiter: Option<Waiter>) {
        let node = self.first_of(&node);
        match self.may_dial(node, purpose) {
            Err(failure) => {
                if let Some((waiter, _)) = waiter {
                    answer(waiter, failure.answer());
                }
            }
            Ok(member) => {
                let under_way = self.dials.pending.contains_key(&(node, purpose));
                self.dials.pending.entry((node, purpose)).or_default().extend(waiter);
                if !under_way {
                    self.order(&member, purpose, None);
                }
            }
        }
    }

    /// Reaches a member for a program.
    pub(super) fn run(&mut self, node: PublicKey, purpose: Purpose, errand: Errand) {
        match self.may_dial(node, purpose) {
            Err(failure) => answer(errand.into_reply(), failure.answer()),
            Ok(member) => self.order(&member, purpose, Some(errand)),
        }
    }

    pub(super) fn may_dial(&self, node: PublicKey, purpose: Purpose) -> Result<Member, Failure> {
        let mine = self.is_mine(&node);
        let settles = |code: &Code| *code == Code::Unsettled && purpose == Purpose::Sync;
        let member = self.roster.member_of(&node).ok_or(Code::NoSuchMember);
        let member = member.and_then(|member| {
            let refused = standing::refusal(&member.state)
                .filter(|code| !settles(code))
                .or_else(|| mine.then_some(Code::NoSuchMember))
                .or_else(|| (!self.takes_part()).then_some(Code::NotEnrolled))
                .or_else(|| self.own_refusal().filter(|code| *code == Code::Unsettled && !settles(code)));
            refused.map_or(Ok(member), Err)
        });
        match member {
            Ok(member) => Ok(member.clone()),
            Err(Code::NoSuchMember) if mine => {
                Err(Failure { code: Code::NoSuchMember, detail: "this is the machine itself".to_owned() })
            }
            Err(code) => Err(Failure { code, detail: self.reason(&node, code) }),
        }
    }

    fn order(&mut self, member: &Member, purpose: Purpose, errand: Option<Errand>) {
        self.effects.push_back(Effect::Dial(Box::new(Order {
            node: member.node,
            wireguard: member.wireguard.to_wireguard(),
            earlier: member.in_use().skip(1).map(|keys| (keys.node, keys.wireguard.to_wireguard())).collect(),
            address: member.address,
            purpose,
            held: (self.replica.heads(), self.replica.count()),
            errand,
        })));
    }

    /// As long as nobody is heard, tries the members that know this machine best: the gateway that
    /// admitted it, and all gateways.
    pub(super) fn dial_first(&mut self, now: Now) {
        let alone = !self.sessions.iter().any(|(_, session)| session.purpose == Purpose::Sync);
        if !alone || !self.takes_part() {
            self.dials.first_try = None;
            return;
        }
        if self.dials.first_try.is_some_and(|at| at > now.at) {
            return;
        }
        self.dials.first_try = Some(now.at + FIRST_RETRY);
        let gateways: BTreeSet<PublicKey> =
            self.roster.gateways().iter().map(|gateway| gateway.node).collect();
        for node in gateways {
            if !self.is_mine(&node) {
                self.dial(node, Purpose::Sync, None);
            }
        }
    }

    /// Registers first and judges then.
    fn register(&mut self, session: Session) -> Result<SessionKey, Refusal> {
        let peer = session.peer();
        // Who is suspended serves nobody, and asks on: only so does it hear that it no longer is.
        let purpose = session.purpose;
        let asks = purpose == Purpose::Sync && matches!(session.proof, Proof::Accepted(_));
        let key = self.sessions.register(session.of(self.first_of(&peer)));
        let standing = if asks && self.takes_part() {
            self.standing_among_others(&peer, purpose)
        } else {
            self.standing_of(&peer, purpose)
        };
        self.sessions.judge(key, standing)?;
        Ok(key)
    }

    /// What follows from a session that was opened.
    fn opened(&mut self, decision: &Decision, now: Now) {
        let Decision::Open { key, purpose, .. } = decision else { return };
        let Some(session) = self.sessions.get(*key) else { return };
        let (proved, peer, direction) = (session.peer(), session.member, direction(&session.proof));
        self.members.heard(peer, now.at);
        self.hearsay.forget(&peer);
        match purpose {
            Purpose::Link => {
                tracing::info!(MUSTER_PEER = peer.short(), reference = %session.reference, "link up");
                if self.sessions.live_of(peer).filter(|(_, s)| s.purpose == Purpose::Link).count() == 1 {
                    self.happened(EventKind::LinkUp, Of::node(peer), now);
                }
                if let Some(wireguard) = self.wireguard_with(&proved) {
                    self.effects.push_back(Effect::OpenGate(wireguard));
                }
            }
            Purpose::Sync => self.sync_began(*key, peer, direction, now),
            Purpose::Blob if direction == Direction::Inbound => self.transfer_began(*key, now),
            Purpose::Service(name) => {
                let action = name.as_str();
                tracing::info!(MUSTER_PEER = peer.short(), reference = %session.reference, action, "service begins");
            }
            Purpose::Put if direction == Direction::Inbound => {
                tracing::info!(MUSTER_PEER = peer.short(), reference = %session.reference, "a file is put");
            }
            Purpose::Blob | Purpose::Put | Purpose::Ping | Purpose::Outside(_) => {}
        }
    }

    /// The standing of a key that was proved in a tunnel: the tunnel must be its own.
    fn standing_in_tunnel(&self, proven: &KeyProven) -> Standing {
        let peer = proven.peer();
        // For what nobody does here the list says what it says for most.
        let purpose = Purpose::of(proven.action().name()).unwrap_or(Purpose::Ping);
        let standing = self.standing_of(&peer, purpose);
        let (Standing::Good(_) | Standing::Permitted) = standing else { return standing };
        let Binding::WireGuard { client, .. } = proven.binding() else {
            return Standing::Barred(Code::BindingMismatch);
        };
        if self.wireguard_with(&peer) != Some(client) {
            return Standing::Barred(Code::TunnelMismatch);
        }
        let member = self.first_of(&peer);
        let no_room = match purpose {
            Purpose::Service(_) => !self.has_room_for_service(&member),
            _ if self.own_sessions_of(member) >= SESSIONS_PER_MEMBER_MAX => true,
            Purpose::Blob => !self.may_fetch(&member),
            Purpose::Put => !self.may_put(&member),
            Purpose::Link | Purpose::Ping | Purpose::Sync | Purpose::Outside(_) => false,
        };
        if no_room {
            return Standing::Barred(Code::Busy);
        }
        standing
    }
}

pub(super) const fn direction(proof: &Proof) -> Direction {
    match proof {
        Proof::Admitted(_) => Direction::Inbound,
        Proof::Accepted(_) => Direction::Outbound,
    }
}

/// How long traffic for a member that was not reached does not make a new dial.
const LINK_RETRY: Duration = Duration::from_secs(1);
/// Between tries at the gateways while nobody is heard.
const FIRST_RETRY: Duration = Duration::from_millis(DIAL_DEADLINE_MS / 4);
