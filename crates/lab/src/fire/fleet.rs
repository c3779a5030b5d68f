//! The machines of a run: which are up, whose disk is full, who was stolen, and who knows which change.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use control::local::{Answer, MemberStatus, Request};
use identity::StatementId;

use crate::{
    Daemon, Held, Sandbox,
    org::{Org, OrgError, Programs},
};

/// Enough for a member list of some thousand changes; full in a moment.
const DISK_KILOBYTES: u32 = 16 * 1024;

pub(super) struct Fleet {
    // Dropped first: they end before the machines they run on.
    daemons: Vec<Option<Daemon>>,
    pub(super) org: Org,
    full: BTreeSet<usize>,
    stolen: BTreeSet<usize>,
    author: usize,
}

/// What a machine holds of what is looked at here.
pub(super) struct Holding {
    /// Invites and revocations.
    pub(super) changes: BTreeSet<StatementId>,
    /// Digest of its member list.
    pub(super) list: String,
    pub(super) good: usize,
}

impl Fleet {
    /// An org of all machines, each with a disk of its own that can be full.
    pub(super) fn found(
        sandbox: &Sandbox,
        nodes: usize,
        programs: Programs,
        keep: Option<PathBuf>,
    ) -> Result<Self, OrgError> {
        let mut org = Org::build(sandbox, nodes, programs, keep)?;
        for node in 0..nodes {
            let state = org.state(node)?;
            fs::create_dir(&state).map_err(|source| OrgError::File { path: state.clone(), source })?;
            sandbox.cover_with_small_disk(&state, DISK_KILOBYTES).map_err(OrgError::Sandbox)?;
        }
        org.found()?;
        org.join_all()?;
        let daemons = (0..nodes).map(|node| org.take_musterd(node).map(Some)).collect::<Result<_, _>>()?;
        Ok(Self { daemons, org, full: BTreeSet::new(), stolen: BTreeSet::new(), author: 0 })
    }

    /// Machines in good standing, up or not.
    pub(super) fn good(&self) -> Vec<usize> {
        (0..self.daemons.len()).filter(|node| !self.stolen.contains(node)).collect()
    }

    pub(super) fn up(&self) -> Vec<usize> {
        let is_up = |node: &usize| self.daemons.get(*node).is_some_and(Option::is_some);
        (0..self.daemons.len()).filter(is_up).collect()
    }

    pub(super) const fn author(&self) -> usize {
        self.author
    }

    /// The admin's key moves to one of the machines.
    pub(super) fn move_author(&mut self, draw: u64) -> Result<(), OrgError> {
        let to = pick(&self.good(), draw).unwrap_or(self.author);
        if to != self.author {
            self.org.move_admin(self.author, to)?;
            self.author = to;
        }
        Ok(())
    }

    /// One of the machines becomes a thief's: neither the gateway nor the admin's own.
    pub(super) fn steal(&mut self, draw: u64) -> Option<usize> {
        let stealable: Vec<usize> =
            self.good().into_iter().filter(|n| *n != 0 && *n != self.author).collect();
        let node = pick(&stealable, draw)?;
        self.kill(node);
        self.stolen.insert(node);
        Some(node)
    }

    pub(super) fn stolen(&self) -> Vec<usize> {
        self.stolen.iter().copied().collect()
    }

    /// As a power cut would; nothing if it is down.
    pub(super) fn kill(&mut self, node: usize) -> Option<()> {
        self.daemons.get_mut(node)?.take()?.kill();
        Some(())
    }

    /// One of those that can be killed and started again.
    pub(super) fn pick_up(&self, draw: u64) -> Option<usize> {
        let up: Vec<usize> = self.up().into_iter().filter(|node| !self.full.contains(node)).collect();
        pick(&up, draw)
    }

    pub(super) fn start(&mut self, node: usize) -> Result<(), OrgError> {
        let daemon = self.org.spawn_musterd(node)?;
        if let Some(place) = self.daemons.get_mut(node) {
            *place = Some(daemon);
        }
        Ok(())
    }

    /// Starts a machine with its cable pulled and says what it holds by itself.
    pub(super) fn start_in_the_dark(&mut self, node: usize) -> Result<Holding, OrgError> {
        self.plug(node, false)?;
        self.start(node)?;
        let holding = self.holding(node);
        self.plug(node, true)?;
        holding
    }

    fn plug(&self, node: usize, plugged: bool) -> Result<(), OrgError> {
        let host = self.org.host(node)?.namespace();
        self.org.lab().bridge().plug(host, plugged).map_err(OrgError::Network)
    }

    pub(super) fn fill_disk(&mut self, node: usize) -> Result<(), OrgError> {
        let path = self.org.state(node)?.join(FILLER);
        let mut file = File::create(&path).map_err(|source| OrgError::File { path: path.clone(), source })?;
        let block = [0xff; 64 * 1024];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(full) if full.kind() == io::ErrorKind::StorageFull => break,
                Err(source) => return Err(OrgError::File { path, source }),
            }
        }
        self.full.insert(node);
        Ok(())
    }

    pub(super) fn free_disks(&mut self) -> Result<(), OrgError> {
        for node in std::mem::take(&mut self.full) {
            let path = self.org.state(node)?.join(FILLER);
            fs::remove_file(&path).map_err(|source| OrgError::File { path, source })?;
        }
        Ok(())
    }

    /// What a machine holds, in its own words.
    pub(super) fn holding(&self, node: usize) -> Result<Holding, OrgError> {
        let wrong = || OrgError::Other { program: format!("musterd on {}", Org::name(node)) };
        let Answer::Invites(invites) = self.org.control(node, &Request::Invites {})? else {
            return Err(wrong());
        };
        let Answer::Members(members) = self.org.control(node, &Request::Members {})? else {
            return Err(wrong());
        };
        let Answer::Status(status) = self.org.control(node, &Request::Status {})? else {
            return Err(wrong());
        };
        let revoked = members.iter().filter_map(|m| m.revoked.as_ref()).flat_map(|r| &r.changes);
        Ok(Holding {
            changes: invites.iter().map(|invite| invite.id.0).chain(revoked.map(|id| id.0)).collect(),
            list: status.org.map(|org| org.list.to_string()).unwrap_or_default(),
            good: members.iter().filter(|m| m.status == MemberStatus::Good).count(),
        })
    }

    /// Of these changes, those that a machine has said itself to have on its disk, as others heard it.
    pub(super) fn confirmed_by(&self, node: usize, changes: &[StatementId]) -> BTreeSet<StatementId> {
        let name = Org::name(node);
        let mut confirmed = BTreeSet::new();
        for witness in self.up() {
            for change in changes {
                let request = Request::Coverage { change: (*change).into() };
                // A witness that lacks the change itself says nothing of anybody.
                if let Ok(Answer::Coverage(coverage)) = self.org.control(witness, &request)
                    && coverage.applied > 0
                    && coverage.missing.iter().all(|missing| missing.name != name)
                {
                    confirmed.insert(*change);
                }
            }
        }
        confirmed
    }

    /// What each musterd that runs has open and in memory.
    pub(super) fn held(&self) -> Vec<Held> {
        self.daemons.iter().flatten().filter_map(Daemon::holds).collect()
    }
}

pub(super) fn pick(among: &[usize], draw: u64) -> Option<usize> {
    let at = usize::try_from(draw % among.len().max(1) as u64).ok()?;
    among.get(at).copied()
}

/// How long one command of the admin may take while machines go up and down.
pub(super) const COMMAND: Duration = Duration::from_secs(15);
const FILLER: &str = "filler";
