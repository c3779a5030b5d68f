//! What a node keeps secret, and the fixed bytes it is sealed as.

use core::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::approvals::Phase;

/// 32 secret bytes: the seed of a key, or a secret that others are derived from.
pub struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    /// Takes the bytes; the caller's copy is the caller's to wipe.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// Lends the bytes.
    pub fn expose<T>(&self, with: impl FnOnce(&[u8; 32]) -> T) -> T {
        with(&self.0)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl PartialEq for Seed {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Seed {}

/// What the node phase opens (object N).
#[derive(Debug, PartialEq, Eq)]
pub struct NodeSecrets {
    /// Seed of the key the node is.
    pub identity: Seed,
    /// Seed of its WireGuard key.
    pub wireguard: Seed,
    /// Seed of the gateway role key, on a gateway.
    pub gateway: Option<Seed>,
}

/// What the preboot phase opens (object P).
#[derive(Debug, PartialEq, Eq)]
pub struct BootSecrets {
    /// The disk key is derived from it.
    pub preboot_secret: Seed,
    /// Seed of the boot key.
    pub boot: Seed,
    /// The org's settings this machine last held for true: their id. All zeros is none, and an error.
    pub anchor: [u8; 32],
    /// No generation below it boots.
    pub floor: u32,
}

/// The boot key that a rotation in the node phase made. That phase cannot open what the boot phase keeps,
/// so this lies beside it until the boot phase takes it in.
#[derive(Debug, PartialEq, Eq)]
pub struct NextBoot {
    /// Seed of the boot key.
    pub boot: Seed,
}

/// With which a gateway gives machines their shares of the keys of their disks: for each epoch the key, in
/// ascending order, at least one and at most [`SHARE_KEYS_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub struct ShareSecrets {
    /// Epoch and key.
    pub keys: Vec<(u32, Seed)>,
}

/// The newest epoch, and the one that disks come from.
pub const SHARE_KEYS_MAX: usize = 2;

/// What is sealed: [`NodeSecrets`], [`BootSecrets`], [`NextBoot`] or [`ShareSecrets`].
pub trait Secrets: Sized + sealed::Sealed {
    /// The file's name without its ending.
    const NAME: &'static str;

    /// When it opens on a machine that was booted by an image.
    const PHASE: Phase;

    /// The bytes that are sealed, at most [`crate::PAYLOAD_BYTES_MAX`].
    ///
    /// # Errors
    /// A value that would not decode.
    fn encode(&self) -> Result<Zeroizing<Vec<u8>>, PayloadError>;

    /// Reads what [`Self::encode`] writes and nothing else.
    ///
    /// # Errors
    /// What is wrong with the bytes. It never holds any of them.
    fn decode(bytes: &[u8]) -> Result<Self, PayloadError>;
}

impl Secrets for NodeSecrets {
    const NAME: &'static str = "node";
    const PHASE: Phase = Phase::Node;

    fn encode(&self) -> Result<Zeroizing<Vec<u8>>, PayloadError> {
        let mut bytes = begin(NODE, NODE_BYTES);
        bytes.push(self.gateway.is_some().into());
        self.identity.expose(|seed| bytes.extend_from_slice(seed));
        self.wireguard.expose(|seed| bytes.extend_from_slice(seed));
        match &self.gateway {
            Some(gateway) => gateway.expose(|seed| bytes.extend_from_slice(seed)),
            None => bytes.extend_from_slice(&[0; 32]),
        }
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let rest = opened(bytes, NODE, NODE_BYTES)?;
        let ([flag], rest) = take::<1>(rest)?;
        let (identity, rest) = seed(rest)?;
        let (wireguard, rest) = seed(rest)?;
        let (gateway, _) = seed(rest)?;
        let gateway = match flag {
            0 if gateway == Seed::new(&[0; 32]) => None,
            1 => Some(gateway),
            _ => return Err(PayloadError::GatewayFlag),
        };
        Ok(Self { identity, wireguard, gateway })
    }
}

impl Secrets for BootSecrets {
    const NAME: &'static str = "boot";
    const PHASE: Phase = Phase::Preboot;

    fn encode(&self) -> Result<Zeroizing<Vec<u8>>, PayloadError> {
        if self.anchor == [0; 32] {
            return Err(PayloadError::NoAnchor);
        }
        let mut bytes = begin(BOOT, BOOT_BYTES);
        self.preboot_secret.expose(|seed| bytes.extend_from_slice(seed));
        self.boot.expose(|seed| bytes.extend_from_slice(seed));
        bytes.extend_from_slice(&self.anchor);
        bytes.extend_from_slice(&self.floor.to_le_bytes());
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let rest = opened(bytes, BOOT, BOOT_BYTES)?;
        let (preboot_secret, rest) = seed(rest)?;
        let (boot, rest) = seed(rest)?;
        let (anchor, rest) = take::<32>(rest)?;
        let (floor, _) = take::<4>(rest)?;
        if anchor == [0; 32] {
            return Err(PayloadError::NoAnchor);
        }
        Ok(Self { preboot_secret, boot, anchor, floor: u32::from_le_bytes(floor) })
    }
}

impl Secrets for NextBoot {
    const NAME: &'static str = "next-boot";
    const PHASE: Phase = Phase::Preboot;

    fn encode(&self) -> Result<Zeroizing<Vec<u8>>, PayloadError> {
        let mut bytes = begin(NEXT_BOOT, NEXT_BOOT_BYTES);
        self.boot.expose(|seed| bytes.extend_from_slice(seed));
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let (boot, _) = seed(opened(bytes, NEXT_BOOT, NEXT_BOOT_BYTES)?)?;
        Ok(Self { boot })
    }
}

impl Secrets for ShareSecrets {
    const NAME: &'static str = "share";
    const PHASE: Phase = Phase::Node;

    fn encode(&self) -> Result<Zeroizing<Vec<u8>>, PayloadError> {
        let count = epochs(&self.keys)?;
        let mut bytes = begin(SHARE, SHARE_BYTES);
        bytes.push(count);
        for (epoch, key) in &self.keys {
            bytes.extend_from_slice(&epoch.to_le_bytes());
            key.expose(|key| bytes.extend_from_slice(key));
        }
        bytes.resize(SHARE_BYTES, 0);
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let rest = opened(bytes, SHARE, SHARE_BYTES)?;
        let ([count], mut rest) = take::<1>(rest)?;
        let mut keys = Vec::with_capacity(SHARE_KEYS_MAX);
        for place in 0..SHARE_KEYS_MAX {
            let (epoch, after) = take::<4>(rest)?;
            let (key, after) = seed(after)?;
            rest = after;
            if place < usize::from(count) {
                keys.push((u32::from_le_bytes(epoch), key));
            } else if epoch != [0; 4] || key != Seed::new(&[0; 32]) {
                return Err(PayloadError::Epochs);
            }
        }
        if epochs(&keys)? == count { Ok(Self { keys }) } else { Err(PayloadError::Epochs) }
    }
}

/// How many there are, if they are as they must be.
fn epochs(keys: &[(u32, Seed)]) -> Result<u8, PayloadError> {
    let ascend = keys.iter().zip(keys.iter().skip(1)).all(|((one, _), (next, _))| one < next);
    match u8::try_from(keys.len()) {
        Ok(count @ 1..) if keys.len() <= SHARE_KEYS_MAX && ascend => Ok(count),
        Ok(_) | Err(_) => Err(PayloadError::Epochs),
    }
}

/// Why opened bytes are not the secrets wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadError {
    /// No epoch of a gateway's share keys, too many, or out of order.
    Epochs,
    /// The gateway's seed and the flag in front of it disagree.
    GatewayFlag,
    /// Boot secrets without an anchor.
    NoAnchor,
    /// A version this release does not know.
    UnknownVersion(u8),
    /// Other secrets than those asked for: a file under the other's name.
    WrongKind(u8),
    /// Too short or too long.
    WrongLength {
        /// Bytes of the secrets wanted.
        wanted: usize,
        /// Bytes there.
        got: usize,
    },
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epochs => f.write_str("the epochs are not one or two in their order"),
            Self::GatewayFlag => f.write_str("the gateway seed contradicts its flag"),
            Self::NoAnchor => f.write_str("the anchor is missing"),
            Self::UnknownVersion(version) => write!(f, "version {version} is not known to this release"),
            Self::WrongKind(kind) => write!(f, "secrets of another kind ({kind})"),
            Self::WrongLength { wanted, got } => write!(f, "{wanted} bytes wanted, {got} there"),
        }
    }
}

impl core::error::Error for PayloadError {}

mod sealed {
    #[expect(unnameable_types, reason = "no kind of secrets is added outside this module")]
    pub trait Sealed {}
    impl Sealed for super::NodeSecrets {}
    impl Sealed for super::BootSecrets {}
    impl Sealed for super::NextBoot {}
    impl Sealed for super::ShareSecrets {}
}

fn begin(kind: u8, length: usize) -> Zeroizing<Vec<u8>> {
    // Never grows past this, so no copy of a secret is left behind by a reallocation.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    bytes.extend_from_slice(&[VERSION, kind]);
    bytes
}

fn opened(bytes: &[u8], kind: u8, length: usize) -> Result<&[u8], PayloadError> {
    let ([version, found], rest) = take::<2>(bytes)?;
    if version != VERSION {
        return Err(PayloadError::UnknownVersion(version));
    }
    if found != kind {
        return Err(PayloadError::WrongKind(found));
    }
    if bytes.len() != length {
        return Err(PayloadError::WrongLength { wanted: length, got: bytes.len() });
    }
    Ok(rest)
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), PayloadError> {
    bytes
        .split_first_chunk::<N>()
        .map(|(head, rest)| (*head, rest))
        .ok_or(PayloadError::WrongLength { wanted: N, got: bytes.len() })
}

fn seed(bytes: &[u8]) -> Result<(Seed, &[u8]), PayloadError> {
    let (seed, rest) =
        bytes.split_first_chunk::<32>().ok_or(PayloadError::WrongLength { wanted: 32, got: bytes.len() })?;
    Ok((Seed::new(seed), rest))
}

const VERSION: u8 = 1;
const NODE: u8 = 1;
const BOOT: u8 = 2;
const NEXT_BOOT: u8 = 3;
const SHARE: u8 = 4;
const NODE_BYTES: usize = 2 + 1 + 3 * 32;
const BOOT_BYTES: usize = 2 + 3 * 32 + 4;
const NEXT_BOOT_BYTES: usize = 2 + 32;
const SHARE_BYTES: usize = 2 + 1 + SHARE_KEYS_MAX * (4 + 32);
const _: () = assert!(NODE_BYTES <= crate::PAYLOAD_BYTES_MAX && BOOT_BYTES <= crate::PAYLOAD_BYTES_MAX);
const _: () = assert!(SHARE_BYTES <= crate::PAYLOAD_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_back_as_they_were() {
        for gateway in [None, Some(Seed::new(&[3; 32]))] {
            let node = NodeSecrets { gateway, ..node() };
            let bytes = node.encode().unwrap();
            assert_eq!(bytes.len(), NODE_BYTES);
            assert!(NodeSecrets::decode(&bytes).unwrap() == node);
        }
        let bytes = boot().encode().unwrap();
        assert_eq!(bytes.len(), BOOT_BYTES);
        assert!(BootSecrets::decode(&bytes).unwrap() == boot());
        let next = NextBoot { boot: Seed::new(&[4; 32]) };
        assert!(NextBoot::decode(&next.encode().unwrap()).unwrap() == next);
    }

    #[test]
    fn share_keys_come_back_in_the_order_of_their_epochs_and_in_no_other_number() {
        let key = |epoch: u32| (epoch, Seed::new(&[u8::try_from(epoch).unwrap(); 32]));
        for keys in [vec![key(1)], vec![key(0), key(7)]] {
            let secrets = ShareSecrets { keys };
            let bytes = secrets.encode().unwrap();
            assert_eq!(bytes.len(), SHARE_BYTES);
            assert!(ShareSecrets::decode(&bytes).unwrap() == secrets);
            for count in (0..=255).filter(|count| usize::from(*count) != secrets.keys.len()) {
                let mut wrong = bytes.clone();
                wrong[2] = count;
                assert_eq!(ShareSecrets::decode(&wrong).unwrap_err(), PayloadError::Epochs, "{count}");
            }
        }
        for keys in [vec![], vec![key(2), key(1)], vec![key(2), key(2)], vec![key(1), key(2), key(3)]] {
            assert_eq!(ShareSecrets { keys }.encode().unwrap_err(), PayloadError::Epochs);
        }
    }

    #[test]
    fn any_other_length_is_refused() {
        let node_bytes = node().encode().unwrap();
        let boot_bytes = boot().encode().unwrap();
        for length in 0..NODE_BYTES {
            assert!(NodeSecrets::decode(&node_bytes[..length]).is_err());
        }
        for length in 0..BOOT_BYTES {
            assert!(BootSecrets::decode(&boot_bytes[..length]).is_err());
        }
        let longer = [node_bytes.as_slice(), &[0]].concat();
        assert_eq!(
            NodeSecrets::decode(&longer).unwrap_err(),
            PayloadError::WrongLength { wanted: NODE_BYTES, got: NODE_BYTES + 1 }
        );
    }

    #[test]
    fn one_kind_is_not_taken_for_the_other() {
        assert_eq!(
            NodeSecrets::decode(&boot().encode().unwrap()).unwrap_err(),
            PayloadError::WrongKind(BOOT)
        );
        assert_eq!(
            BootSecrets::decode(&node().encode().unwrap()).unwrap_err(),
            PayloadError::WrongKind(NODE)
        );
    }

    #[test]
    fn a_gateway_seed_behind_a_clear_flag_is_refused() {
        let mut bytes = NodeSecrets { gateway: Some(Seed::new(&[3; 32])), ..node() }.encode().unwrap();
        for flag in [0, 2, 255] {
            bytes[2] = flag;
            assert_eq!(NodeSecrets::decode(&bytes).unwrap_err(), PayloadError::GatewayFlag);
        }
    }

    #[test]
    fn a_missing_anchor_is_an_error_both_ways() {
        let without = BootSecrets { anchor: [0; 32], ..boot() };
        assert_eq!(without.encode().unwrap_err(), PayloadError::NoAnchor);
        let mut bytes = boot().encode().unwrap();
        bytes[66..98].fill(0);
        assert_eq!(BootSecrets::decode(&bytes).unwrap_err(), PayloadError::NoAnchor);
    }

    #[test]
    fn a_secret_is_never_printed() {
        let text = format!("{:?} {:?}", node(), boot());
        assert!(!text.contains("17, 17") && text.contains("Seed(..)"), "{text}");
    }

    fn node() -> NodeSecrets {
        NodeSecrets { identity: Seed::new(&[17; 32]), wireguard: Seed::new(&[17; 32]), gateway: None }
    }

    fn boot() -> BootSecrets {
        BootSecrets {
            preboot_secret: Seed::new(&[17; 32]),
            boot: Seed::new(&[17; 32]),
            anchor: [5; 32],
            floor: 4,
        }
    }
}
