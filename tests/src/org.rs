//! A small org whose keys everybody here can name.

use std::collections::BTreeMap;

use conn_auth::{Binding, Holder, Standing};
use identity::{Code, OrgId, PublicKey, SecretKey, WireGuardKey};

/// The org.
pub const ORG: OrgId = OrgId([0xa0; 32]);
/// Another one.
pub const OTHER_ORG: OrgId = OrgId([0xa1; 32]);
/// The neutral element of the curve: a key of small order, under which one signature fits all.
pub const WEAK: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// Who has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Person {
    /// A member that dials.
    Victim = 1,
    /// A member, and the attacker.
    Malicious = 2,
    /// A member that serves others.
    Honest = 3,
    /// A gateway.
    Gateway = 4,
    /// The victim's boot key.
    Boot = 5,
    /// A member that was revoked.
    Revoked = 6,
    /// Nobody of the org.
    Stranger = 7,
}

impl Person {
    /// Its secret key.
    #[must_use]
    pub fn key(self) -> SecretKey {
        SecretKey::from_seed(&[self as u8; 32])
    }

    /// Its public key.
    #[must_use]
    pub fn public(self) -> PublicKey {
        self.key().public()
    }

    /// Its key in the tunnels.
    #[must_use]
    pub const fn wireguard(self) -> WireGuardKey {
        WireGuardKey([self as u8; 32])
    }
}

/// The tunnel that `client` and `server` share, as the ends of it see it.
#[must_use]
pub const fn tunnel(client: Person, server: Person) -> Binding {
    Binding::WireGuard { client: client.wireguard(), server: server.wireguard() }
}

/// The member list of every listener here.
#[derive(Clone, Debug)]
pub struct Members(BTreeMap<[u8; 32], Standing>);

impl Members {
    /// The org's. The weak key stands in it too, as it could wherever keys are taken unseen.
    #[must_use]
    pub fn of_the_org() -> Self {
        let good = |person: Person, holder| (*person.public().as_bytes(), Standing::Good(holder));
        Self(BTreeMap::from([
            good(Person::Victim, Holder::Member),
            good(Person::Malicious, Holder::Member),
            good(Person::Honest, Holder::Member),
            good(Person::Boot, Holder::BootKey),
            (*Person::Revoked.public().as_bytes(), Standing::Barred(Code::Revoked)),
            (WEAK, Standing::Good(Holder::Member)),
        ]))
    }

    /// What is known of a key.
    #[must_use]
    pub fn standing(&self, key: &[u8; 32]) -> Standing {
        self.0.get(key).copied().unwrap_or(Standing::Unknown)
    }
}
