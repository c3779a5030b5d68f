//! Overlay addresses follow from keys, so there is nothing to hand out and nothing to conflict on.

use std::net::Ipv6Addr;

use crate::{HashContext, OrgId, PublicKey};

/// The org's network: a unique local prefix (RFC 4193) of 48 bits; the remaining 80 are zero.
#[must_use]
pub fn overlay_prefix(org: &OrgId) -> Ipv6Addr {
    let mut address = [0; 16];
    let hash = HashContext::OVERLAY_PREFIX.hash(&[org.as_bytes()]);
    for (out, byte) in address.iter_mut().zip([0xfd].iter().chain(hash.iter().take(5))) {
        *out = *byte;
    }
    Ipv6Addr::from(address)
}

/// A node's one address (`/128`) in its org's network, from the first node key of its lineage.
#[must_use]
pub fn overlay_address(org: &OrgId, node: &PublicKey) -> Ipv6Addr {
    let mut address = overlay_prefix(org).octets();
    let hash = HashContext::OVERLAY_ADDRESS.hash(&[org.as_bytes(), node.as_bytes()]);
    for (out, byte) in address.iter_mut().skip(6).zip(hash) {
        *out = byte;
    }
    Ipv6Addr::from(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretKey;

    #[test]
    fn an_address_lies_in_its_orgs_unique_local_prefix() {
        let org = OrgId([5; 32]);
        let address = overlay_address(&org, &SecretKey::from_seed(&[1; 32]).public());
        assert_eq!(address.octets()[0], 0xfd);
        assert_eq!(address.octets()[..6], overlay_prefix(&org).octets()[..6]);
        assert_ne!(address, overlay_address(&org, &SecretKey::from_seed(&[2; 32]).public()));
        assert_ne!(address, overlay_address(&OrgId([6; 32]), &SecretKey::from_seed(&[1; 32]).public()));
    }
}
