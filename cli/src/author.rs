//! An admin at work: the unlocked key, its journal, and the way its changes reach the org.

use core::time::Duration;

use control::{
    local::{Answer, Coverage, Missing, Request, State, Submitted},
    text::{Bytes, Text},
};
use identity::{CharterId, Code, PublicKey, StatementId};
use org_trust::{Lane, Payload, Place, Record, Statement, UnverifiedCharter};

use crate::{
    args::Everywhere,
    failure::{Failure, Outcome},
    journal::Journal,
    key_file::AdminKey,
    local::{self, Daemon},
    output::talk,
    place::Places,
    profile::{Admin, Profile},
    remote::Remote,
    view,
};

/// Between two looks at who has applied something: musterd is asked, or a gateway over the network.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_REMOTE: Duration = Duration::from_secs(1);

/// What signed records travel by, and what the org holds comes back by.
pub(crate) trait Carrier {
    /// Everything the org holds, as this way sees it.
    fn everything(&mut self) -> Outcome<Vec<Record>>;
    /// Brings a record to the org. It is in force when this returns.
    fn submit(&mut self, record: Record) -> Outcome<Accepted>;
    /// Who has applied a change, or org settings, by their own signed word.
    fn coverage(&mut self, change: StatementId) -> Outcome<Coverage>;
    /// How long to wait between two looks at that.
    fn pause(&self) -> Duration;
}

/// A change that the org has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    /// When it was on disk, which only a musterd of this machine says.
    pub(crate) at_unix_ns: Option<u64>,
    /// Members that it was passed on to at once.
    pub(crate) told: u64,
    /// Other members that there are.
    pub(crate) others: u64,
}

impl Accepted {
    const fn of(submitted: &Submitted) -> Self {
        let Submitted { fsync_unix_ns, told, others, .. } = submitted;
        Self { at_unix_ns: Some(*fsync_unix_ns), told: *told, others: *others }
    }
}

/// How changes travel.
pub(crate) enum Way {
    /// The musterd of this machine.
    Daemon(Daemon),
    /// A gateway, with the admin key.
    Gateway(Remote),
}

/// An admin who can sign.
pub(crate) struct Author {
    pub(crate) admin: Admin,
    pub(crate) way: Way,
    key: AdminKey,
    journal: Journal,
}

/// A change that the org has.
pub(crate) struct Signed {
    pub(crate) change: Statement,
    /// When musterd had it on disk; a gateway does not say.
    pub(crate) accepted: Accepted,
}

impl Author {
    /// Finds the admin's files and the way, and asks for the passphrase.
    pub(crate) fn open(everywhere: &Everywhere) -> Outcome<Self> {
        let admin = Admin::find(everywhere)?;
        let way = match daemon_of(&admin, everywhere)? {
            Some(daemon) => Way::Daemon(daemon),
            None => Way::Gateway(Remote::new(&admin.profile)?),
        };
        let key = admin.unlock(everywhere)?;
        let journal = Journal::open(&admin.key_file, admin.profile.org())?;
        Ok(Self { admin, way, key, journal })
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.key.key.public()
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.admin.profile
    }

    /// Makes sure that the settings known here are the newest.
    pub(crate) fn refresh(&mut self) -> Outcome<()> {
        let before = self.admin.profile.chain.head().id();
        match &mut self.way {
            Way::Daemon(daemon) => {
                let Answer::Export(page) = daemon.ask(&Request::Export { from: 0 })? else {
                    return Err(local::unexpected());
                };
                let records = decode_each(&page.records)?;
                extend(&mut self.admin.profile, &records)?;
            }
            Way::Gateway(remote) => {
                // Every dial walks to the gateway's newest settings.
                remote.place(&self.key.key, &mut self.admin.profile, &self.key.key.public(), Lane::Main)?;
            }
        }
        if self.admin.profile.chain.head().id() == before { Ok(()) } else { self.admin.save() }
    }

    /// Where the next change of an author stands.
    pub(crate) fn place(&mut self, author: &PublicKey, lane: Lane) -> Outcome<Place> {
        match &mut self.way {
            Way::Daemon(daemon) => {
                let request = Request::Place { author: Text(*author), lane: lane.number() };
                let Answer::Place(place) = daemon.ask(&request)? else { return Err(local::unexpected()) };
                let prev = place.prev.0.try_into().map_err(|_| local::unexpected())?;
                Ok(Place { charter: place.charter.0, lane, seq: place.seq, prev })
            }
            Way::Gateway(remote) => remote.place(&self.key.key, &mut self.admin.profile, author, lane),
        }
    }

    /// Signs a change and brings it to the org. What was signed before and did not arrive goes first;
    /// if that is this very change, nothing new is signed.
    pub(crate) fn sign(&mut self, payload: &Payload) -> Outcome<Signed> {
        let held = self.place(&self.public_key(), payload.lane())?;
        let resume = self.journal.resume(held)?;
        let mut found = None;
        for change in resume.undelivered {
            talk(&format!(
                "sending again: {} of an earlier command that did not arrive",
                change.payload().kind()
            ));
            let accepted = self.submit(Record::from(&change))?;
            if change.payload() == payload {
                found = Some(Signed { change, accepted });
            }
        }
        if let Some(signed) = found {
            return Ok(signed);
        }
        let org = self.profile().org();
        let change = Statement::sign(&org, &self.key.key, resume.next, payload)
            .map_err(|e| Failure::new(e.code(), e))?;
        self.journal.record(&change)?;
        let accepted = self.submit(Record::from(&change))?;
        Ok(Signed { change, accepted })
    }
}

impl Carrier for Author {
    fn everything(&mut self) -> Outcome<Vec<Record>> {
        match &mut self.way {
            Way::Daemon(daemon) => daemon.everything(),
            Way::Gateway(remote) => remote.everything(&self.key.key, &mut self.admin.profile),
        }
    }

    fn submit(&mut self, record: Record) -> Outcome<Accepted> {
        let unheard = match &mut self.way {
            Way::Daemon(daemon) => match daemon.hand_in(record.clone()) {
                Ok(submitted) => {
                    if submitted.removed {
                        // From now on it hears of nobody what he has applied.
                        self.way = Way::Gateway(Remote::new(&self.admin.profile)?);
                    }
                    return Ok(Accepted::of(&submitted));
                }
                Err(failure) if failure.code() == Code::ChangeUnheard => failure,
                Err(failure) => return Err(failure),
            },
            Way::Gateway(remote) => {
                return remote.submit(&self.key.key, &mut self.admin.profile, vec![record]);
            }
        };
        talk("This machine is no member any more; the change is handed in at a gateway.");
        let remote = Remote::new(&self.admin.profile)?;
        match remote.submit(&self.key.key, &mut self.admin.profile, vec![record]) {
            Ok(accepted) => {
                self.way = Way::Gateway(remote);
                Ok(accepted)
            }
            Err(failure) => {
                talk(failure.text().trim_end());
                Err(unheard)
            }
        }
    }

    fn coverage(&mut self, change: StatementId) -> Outcome<Coverage> {
        if let Way::Daemon(daemon) = &mut self.way {
            return daemon.coverage(change);
        }
        let records = self.everything()?;
        let replica = view::replica(self.profile().chain.genesis(), &records)?;
        let roster = replica.roster();
        let found = replica
            .coverage(&change)
            .or_else(|| replica.coverage_of_charter(&CharterId(change.0)))
            .ok_or_else(|| {
            Failure::new(Code::ChangeBroken, "the gateway does not show the change yet")
        })?;
        let missing = found.missing.iter().filter_map(|key| roster.get(key));
        Ok(Coverage {
            change: Text(change),
            of: u64::try_from(found.of).unwrap_or(u64::MAX),
            applied: u64::try_from(found.applied).unwrap_or(u64::MAX),
            missing: missing
                .map(|m| Missing { name: m.name.to_string(), node: Text(m.node), heard_ms_ago: None })
                .collect(),
        })
    }

    fn pause(&self) -> Duration {
        match &self.way {
            Way::Daemon(daemon) => daemon.pause(),
            Way::Gateway(_) => LOOK_REMOTE,
        }
    }
}

impl Carrier for Daemon {
    fn everything(&mut self) -> Outcome<Vec<Record>> {
        export(self)
    }

    fn submit(&mut self, record: Record) -> Outcome<Accepted> {
        self.hand_in(record).map(|submitted| Accepted::of(&submitted))
    }

    fn coverage(&mut self, change: StatementId) -> Outcome<Coverage> {
        let answer = self.ask(&Request::Coverage { change: Text(change) })?;
        let Answer::Coverage(coverage) = answer else { return Err(local::unexpected()) };
        Ok(coverage)
    }

    fn pause(&self) -> Duration {
        LOOK
    }
}

impl Daemon {
    /// Hands a record in, and says so if nobody else can have heard of it yet.
    fn hand_in(&mut self, record: Record) -> Outcome<Submitted> {
        let records = vec![Bytes(encode(record)?)];
        let Answer::Submitted(submitted) = self.ask(&Request::Submit { records })? else {
            return Err(local::unexpected());
        };
        if submitted.told == 0 && submitted.others > 0 {
            let seen = format!(
                "stored on this machine, which is in contact with none of {} other members",
                submitted.others
            );
            talk(Failure::new(Code::ChangeUnheard, seen).text().trim_end());
        }
        Ok(submitted)
    }
}

/// The musterd of this machine if it runs, is well, and belongs to the admin's org.
pub(crate) fn daemon_of(admin: &Admin, everywhere: &Everywhere) -> Outcome<Option<Daemon>> {
    let places = Places::find(everywhere)?;
    let Ok(mut daemon) = Daemon::connect(&places.socket) else { return Ok(None) };
    let Ok(Answer::Status(status)) = daemon.ask(&Request::Status {}) else { return Ok(None) };
    let member = matches!(status.state, State::Ready | State::Alone);
    if status.state == State::IdentityUnavailable {
        for problem in &status.problems {
            let (code, seen) = (problem.code.0, &problem.detail);
            talk(&format!("musterd on this machine: {code} {}: {seen}; {}", code.title(), code.remedy()));
        }
    }
    let same = status.org.is_some_and(|org| org.id.0 == admin.profile.org());
    Ok((member && same).then_some(daemon))
}

/// All that a musterd holds.
pub(crate) fn export(daemon: &mut Daemon) -> Outcome<Vec<Record>> {
    let mut records = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        let Answer::Export(page) = daemon.ask(&Request::Export { from: at })? else {
            return Err(local::unexpected());
        };
        if page.next.is_some_and(|next| next <= at) {
            return Err(local::unexpected());
        }
        records.extend(decode_each(&page.records)?);
        from = page.next;
    }
    Ok(records)
}

/// Takes over newer settings among records.
pub(crate) fn extend(profile: &mut Profile, records: &[Record]) -> Outcome<()> {
    for record in records {
        let Record::Charter(bytes) = record else { continue };
        let invalid = |why: &dyn core::fmt::Display| Failure::new(Code::ChartersInvalid, why);
        let charter = UnverifiedCharter::decode(bytes).map_err(|e| invalid(&e))?;
        profile.chain.extend(charter).map_err(|e| invalid(&e))?;
    }
    Ok(())
}

pub(crate) fn decode_each(records: &[Bytes]) -> Outcome<Vec<Record>> {
    let mut decoded = Vec::new();
    for bytes in records {
        decoded.extend(org_trust::Records::decode(&bytes.0).map_err(|_| local::unexpected())?);
    }
    Ok(decoded)
}

fn encode(record: Record) -> Outcome<Vec<u8>> {
    org_trust::Records::encode(&[record]).map_err(|e| Failure::new(Code::ChangeMalformed, e))
}
