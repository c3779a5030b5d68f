//! The chain of an org's charters, from the first to the newest.

use std::collections::BTreeMap;

use identity::{CharterId, OrgId, PublicKey, limits::CHARTERS_MAX};

use crate::{
    charter_signed::{CharterError, Role, UnverifiedCharter, VerifiedCharter},
    record::{Record, Records},
};

/// Charters of one org, each verified after the one before it. Only grows, so never rolls back.
#[derive(Clone, Debug)]
pub struct CharterChain {
    genesis: VerifiedCharter,
    later: Vec<VerifiedCharter>,
    versions: BTreeMap<CharterId, usize>,
    /// What each key that any charter named has stood for.
    past: BTreeMap<PublicKey, Role>,
}

impl CharterChain {
    /// A chain of one.
    ///
    /// # Errors
    /// [`CharterError::NotGenesis`] when the charter is a later one.
    pub fn start(genesis: VerifiedCharter) -> Result<Self, CharterError> {
        if genesis.charter().parent.is_some() {
            return Err(CharterError::NotGenesis);
        }
        let versions = BTreeMap::from([(genesis.id(), 0)]);
        let past = genesis.charter().roles();
        Ok(Self { genesis, later: Vec::new(), versions, past })
    }

    /// Reads the charters of an org from their bytes, oldest first, each verified after the one before it.
    ///
    /// # Errors
    /// [`CharterError`] of the first that does not hold; [`CharterError::NotGenesis`] when there is none.
    pub fn read<'a>(charters: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, CharterError> {
        let mut charters = charters
            .into_iter()
            .map(|bytes| UnverifiedCharter::decode(bytes).map_err(CharterError::Malformed));
        let genesis = charters.next().unwrap_or(Err(CharterError::NotGenesis))?;
        let mut chain = Self::start(genesis.verify_genesis()?)?;
        for next in charters {
            chain.extend(next?)?;
        }
        Ok(chain)
    }

    /// The same from a file of records, which holds nothing but charters.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_file(bytes: &[u8]) -> Result<Self, CharterError> {
        let records = Records::decode_all(bytes).map_err(CharterError::Malformed)?;
        if records.iter().any(|record| !matches!(record, Record::Charter(_))) {
            return Err(CharterError::NotACharter);
        }
        Self::read(records.iter().map(Record::bytes))
    }

    /// Verifies and appends the next charter. One that is held already changes nothing.
    ///
    /// # Errors
    /// [`CharterError`]; the chain is as it was.
    pub fn extend(&mut self, next: UnverifiedCharter) -> Result<CharterId, CharterError> {
        let id = next.id();
        if self.versions.contains_key(&id) {
            return Ok(id);
        }
        let version = next.charter().version;
        if let Some(held) = self.iter().find(|held| held.charter().version == version) {
            // Only a signed sibling proves anything; an invented one is merely not the next.
            let parent = next.charter().parent.and_then(|id| self.get(&id));
            let proven = parent.is_some_and(|parent| next.verify_after(parent).is_ok());
            return Err(if proven {
                CharterError::Fork { version, held: held.id(), given: id }
            } else {
                CharterError::NotNext {
                    wanted: self.head().charter().version.saturating_add(1),
                    got: version,
                }
            });
        }
        let verified = next.verify_after(self.head())?;
        if self.versions.len() >= CHARTERS_MAX {
            return Err(CharterError::TooMany { max: CHARTERS_MAX });
        }
        let held = self.head().charter().roles();
        let roles = verified.charter().roles();
        for (key, role) in &roles {
            let returns = self
                .past
                .get(key)
                .is_some_and(|was| was != role || (*was != Role::Node && !held.contains_key(key)));
            if returns {
                return Err(CharterError::KeyReturns { key: *key.as_bytes() });
            }
        }
        self.past.extend(roles);
        self.versions.insert(id, self.versions.len());
        self.later.push(verified);
        Ok(id)
    }

    /// The org.
    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.genesis.org()
    }

    /// The first charter.
    #[must_use]
    pub const fn genesis(&self) -> &VerifiedCharter {
        &self.genesis
    }

    /// The newest charter.
    #[must_use]
    pub fn head(&self) -> &VerifiedCharter {
        self.later.last().unwrap_or(&self.genesis)
    }

    /// The charter with this id.
    #[must_use]
    pub fn get(&self, id: &CharterId) -> Option<&VerifiedCharter> {
        match self.versions.get(id)?.checked_sub(1) {
            None => Some(&self.genesis),
            Some(later) => self.later.get(later),
        }
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &VerifiedCharter> {
        core::iter::once(&self.genesis).chain(&self.later)
    }

    /// Those after `id`, oldest first; all of them when `id` is not held.
    pub fn after(&self, id: &CharterId) -> impl Iterator<Item = &VerifiedCharter> {
        self.iter().skip(self.versions.get(id).map_or(0, |at| at + 1))
    }

    /// The first charter that names this key as an admin or gateway: the `prev` of its first
    /// statement in each lane.
    #[must_use]
    pub fn named(&self, role_key: &PublicKey) -> Option<&VerifiedCharter> {
        let names = |c: &&VerifiedCharter| {
            c.charter().admin(role_key).is_some() || c.charter().gateway(role_key).is_some()
        };
        self.iter().find(names)
    }
}
