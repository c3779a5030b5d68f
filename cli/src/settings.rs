//! Changing the org's settings: the next version is made from the newest one held, signed with the
//! org's own keys, shown with what it does to the member list, and brought to the org.

use std::path::Path;

use control::local::{Answer, Request};
use identity::{Code, OrgId, PublicKey, StatementId};
use member_crdt::{InviteState, MemberState, Replica, Roster};
use org_trust::{
    Charter, CharterChain, CharterError, Record, Statement, UnverifiedCharter, UnverifiedStatement,
};
use serde_json::{Value, json};

use crate::{
    args::{Everywhere, OrgKeysAt},
    author::{self, Author, Carrier},
    consent::{self, Unasked},
    coverage::Waited,
    failure::{Failure, Outcome},
    journal::Journal,
    key_file::OrgKeys,
    local::{self, Daemon},
    org_keys,
    output::{self, talk},
    place::Places,
    profile::Admin,
    view,
};

/// The settings with what it takes to change them.
pub(crate) struct Settings {
    pub(crate) carrier: Box<dyn Carrier>,
    pub(crate) held: Held,
    keys: OrgKeys,
    journal: Journal,
}

/// What the org holds, verified here.
pub(crate) struct Held {
    pub(crate) replica: Replica,
    records: Vec<Record>,
}

/// A version that the org has.
pub(crate) struct Changed {
    pub(crate) version: u32,
    /// The id of the settings; coverage is asked for by it.
    pub(crate) id: StatementId,
    pub(crate) effect: Effect,
}

/// What a version does to the member list.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    /// Members that are none any longer.
    lost: Vec<String>,
    /// Machines that are members again.
    back: Vec<String>,
    /// Invites that can be used no longer.
    void: Vec<String>,
}

impl Settings {
    /// By the musterd of this machine, which wants no admin key, or else by a gateway with one.
    pub(crate) fn open(everywhere: &Everywhere, at: &OrgKeysAt) -> Outcome<Self> {
        let path = org_keys::path(everywhere, at)?;
        let (carrier, org) = carrier(everywhere)?;
        let keys = org_keys::unlock(everywhere, at, &path, org)?;
        Self::with(keys, &path, carrier, org)
    }

    /// With keys of the file `path` and by a way that are open already.
    pub(crate) fn with(
        keys: OrgKeys,
        path: &Path,
        mut carrier: Box<dyn Carrier>,
        org: OrgId,
    ) -> Outcome<Self> {
        let journal = Journal::open(path, org)?;
        let held = Held::read(&mut *carrier, org)?;
        let mut settings = Self { carrier, held, keys, journal };
        settings.resume()?;
        if settings.charter().root_keys.contains(&settings.keys.root.public()) {
            Ok(settings)
        } else {
            Err(Failure::new(
                Code::ChangeNotAuthorised,
                format_args!("the org's settings do not name the key of {}", path.display()),
            ))
        }
    }

    /// The settings in force.
    pub(crate) fn charter(&self) -> &Charter {
        self.held.chain().head().charter()
    }

    pub(crate) const fn keys(&self) -> &OrgKeys {
        &self.keys
    }

    /// Signs `next`, shows what it does and asks, and brings it to the org. `question` says what is
    /// about to happen; without one it was asked before, and only lost members are asked about.
    pub(crate) fn change(
        &mut self,
        everywhere: &Everywhere,
        next: Charter,
        question: Option<&str>,
    ) -> Outcome<Changed> {
        let impossible = |why: CharterError| {
            Failure::usage(why)
                .remedy("Nothing was changed; see `muster org show` for the settings in force.")
        };
        let signed = UnverifiedCharter::sign(next, &[&self.keys.root]).map_err(impossible)?;
        let record = Record::Charter(signed.to_bytes());
        let before = self.held.replica.roster();
        self.held.replica.apply(&record).map_err(|why| {
            Failure::usage(why)
                .remedy("Nothing was changed; see `muster org show` for the settings in force.")
        })?;
        let effect = Effect::between(&before, &self.held.replica.roster());
        let words = effect.words();
        // Whoever loses its membership does so at once and everywhere.
        let unasked = if effect.lost.is_empty() { Unasked::GoOn } else { Unasked::Refuse };
        if question.is_some() || unasked == Unasked::Refuse {
            let question = format!("{}{words}", question.unwrap_or("New org settings."));
            consent::ask(everywhere, &question, unasked)?;
        }
        self.journal.record_settings(&signed)?;
        self.carrier.submit(record)?;
        self.remember(everywhere);
        Ok(Changed { version: signed.charter().version, id: StatementId(signed.id().0), effect })
    }

    /// Sends what an earlier command signed and did not bring to the org.
    fn resume(&mut self) -> Outcome<()> {
        loop {
            let head = self.held.chain().head();
            let (version, id) = (head.charter().version, head.id());
            if self.journal.settings(version)?.is_some_and(|signed| signed.id() != id) {
                return Err(Failure::new(
                    Code::ForkDetected,
                    format_args!("the org holds other settings of version {version} than were signed here"),
                ));
            }
            let Some(signed) = self.journal.settings(version.saturating_add(1))? else { return Ok(()) };
            talk(&format!(
                "sending again: org settings, version {}, of an earlier command that did not arrive",
                signed.charter().version
            ));
            let record = Record::Charter(signed.to_bytes());
            self.held.replica.apply(&record).map_err(|why| Failure::new(why.code(), why))?;
            self.carrier.submit(record)?;
        }
    }

    /// Keeps the new settings in org.json, where there is one; the next command fetches them otherwise.
    fn remember(&self, everywhere: &Everywhere) {
        let Ok(mut admin) = Admin::find(everywhere) else { return };
        if admin.profile.org() != self.held.chain().org() {
            return;
        }
        let settings: Vec<_> = self.held.chain().iter().map(Record::from).collect();
        if let Err(failure) = author::extend(&mut admin.profile, &settings).and_then(|()| admin.save()) {
            talk(failure.text().trim_end());
        }
    }
}

impl Changed {
    /// The fields of a command's object.
    pub(crate) fn fields(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("settings", self.version.into()),
            ("settings_id", self.id.to_string().into()),
            ("effect", self.effect.value()),
        ]
    }
}

impl Held {
    pub(crate) fn read(carrier: &mut dyn Carrier, org: OrgId) -> Outcome<Self> {
        let records = carrier.everything()?;
        let genesis = records.iter().find_map(|record| match record {
            Record::Charter(bytes) => {
                let genesis = UnverifiedCharter::decode(bytes).ok()?.verify_genesis().ok()?;
                (genesis.org() == org).then_some(genesis)
            }
            Record::Statement(_) | Record::Report(_) => None,
        });
        let genesis =
            genesis.ok_or_else(|| Failure::new(Code::ChartersInvalid, "no first settings of the org"))?;
        let replica = view::replica(&genesis, &records)?;
        Ok(Self { replica, records })
    }

    /// By the musterd of this machine or a gateway, to read only.
    pub(crate) fn look(everywhere: &Everywhere) -> Outcome<Self> {
        let (mut carrier, org) = carrier(everywhere)?;
        Self::read(&mut *carrier, org)
    }

    pub(crate) const fn chain(&self) -> &CharterChain {
        self.replica.chain()
    }

    /// The changes that a key signed, those of each lane in the order of their numbers.
    pub(crate) fn signed_by(&self, key: &PublicKey) -> Outcome<Vec<Statement>> {
        let mut changes = Vec::new();
        for record in &self.records {
            let Record::Statement(bytes) = record else { continue };
            let broken = |why: &dyn core::fmt::Display| Failure::new(Code::ChangeMalformed, why);
            let change = UnverifiedStatement::decode(bytes).map_err(|e| broken(&e))?;
            if change.claimed().author() == key {
                changes.push(change.verify(&self.chain().org()).map_err(|e| broken(&e))?);
            }
        }
        changes.sort_by_key(|change| (change.lane().number(), change.seq(), change.id()));
        Ok(changes)
    }
}

impl Effect {
    fn between(before: &Roster, after: &Roster) -> Self {
        let good = |roster: &Roster, node: &PublicKey| {
            roster.get(node).is_some_and(|member| member.state == MemberState::Good)
        };
        let open = |roster: &Roster, id: &StatementId| {
            roster.invite(id).is_some_and(|invite| invite.state == InviteState::Open)
        };
        let mut effect = Self::default();
        for member in before.members() {
            if good(before, &member.node) && !good(after, &member.node) {
                effect.lost.push(member.name.to_string());
            }
        }
        for member in after.members() {
            if good(after, &member.node) && !good(before, &member.node) {
                effect.back.push(member.name.to_string());
            }
        }
        let invites = before.invites().into_iter().filter(|i| open(before, &i.id) && !open(after, &i.id));
        effect.void = invites.map(|i| i.id.short()).collect();
        effect.lost.sort();
        effect.back.sort();
        effect
    }

    /// For people; empty when nothing changes.
    fn words(&self) -> String {
        let lines = [
            ("No members any longer: ", &self.lost),
            ("Members again: ", &self.back),
            ("Invites that can be used no longer: ", &self.void),
        ];
        let lines = lines.into_iter().filter(|(_, names)| !names.is_empty());
        lines.map(|(what, names)| format!("\n{what}{}.", names.join(", "))).collect()
    }

    pub(crate) fn value(&self) -> Value {
        json!({
            "members_lost": self.lost,
            "members_back": self.back,
            "invites_void": self.void,
        })
    }
}

/// Says what came of a change of the settings; the exit status says whether enough members have it.
pub(crate) fn report(
    everywhere: &Everywhere,
    changed: &Changed,
    value: Value,
    line: &str,
    waited: Waited,
) -> u8 {
    let mut fields = changed.fields();
    fields.extend(waited.fields());
    output::print(everywhere.format(), output::with(value, fields), || {
        format!("{line}\norg settings, version {}\n{}", changed.version, waited.text())
    });
    waited.exit_status()
}

/// By the musterd of this machine, which wants no admin key, or else by a gateway with one.
pub(crate) fn carrier(everywhere: &Everywhere) -> Outcome<(Box<dyn Carrier>, OrgId)> {
    let admin = match Admin::find(everywhere) {
        Ok(admin) => admin,
        Err(failure) if everywhere.admin.is_some() => return Err(failure),
        // Whoever has the org keys and a member's machine can act without an admin's files.
        Err(_) => {
            let mut daemon = Daemon::connect(&Places::find(everywhere)?.socket)?;
            let Answer::Status(status) = daemon.ask(&Request::Status {})? else {
                return Err(local::unexpected());
            };
            let org =
                status.org.ok_or_else(|| Failure::new(Code::NotEnrolled, "this machine is in no org"))?;
            return Ok((Box::new(daemon), org.id.0));
        }
    };
    let org = admin.profile.org();
    match author::daemon_of(&admin, everywhere)? {
        Some(daemon) => Ok((Box::new(daemon), org)),
        None => Ok((Box::new(Author::open(everywhere)?), org)),
    }
}
