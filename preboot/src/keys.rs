//! This machine's keys: made here once, sealed, opened again to see that they do, and never replaced.

use std::path::{Path, PathBuf};

use identity::{CharterId, Code, DiskKeys, DiskShare, Label, OrgId, PublicKey, SecretKey};
use org_trust::{Assurance, NodeKeys};
use rand::TryRng as _;
use tpm_seal::{Approvals, BootSecrets, Custody, NextBoot, NodeSecrets, Phase, Seed, Tpm};
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// How keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// In files, which every member is shown.
    File,
    /// Sealed by this TPM.
    Tpm(PathBuf),
}

/// What an image binds the keys to.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) approvals: Approvals,
    /// Whether firmware starts nothing but what the org has signed. Without that any system can show the
    /// TPM the registers of this one.
    pub(crate) secure_boot: bool,
}

/// Where the sealed objects are, and how.
#[derive(Debug)]
pub(crate) struct KeyStore {
    directory: PathBuf,
    custody: Custody,
    assurance: Assurance,
}

/// What the boot phase opens.
#[derive(Debug)]
pub(crate) struct Boot {
    secrets: BootSecrets,
    pub(crate) key: SecretKey,
}

/// What the node phase opens; needed here for enrolment only.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) identity: SecretKey,
    wireguard: SecretKey,
}

impl KeyStore {
    /// The store of a state directory. Touches the TPM, if that is where keys are.
    pub(crate) fn open(state: &Path, storage: &Storage, binding: Option<&Binding>) -> Outcome<Self> {
        let directory = state.join("keys");
        let (custody, assurance) = match storage {
            Storage::File => (Custody::File, Assurance::File),
            Storage::Tpm(device) => {
                let tpm = Tpm::open(device)?;
                let software = tpm.is_software();
                let assurance = match binding {
                    _ if software => Assurance::TpmSoftware,
                    Some(Binding { secure_boot: true, .. }) => Assurance::Tpm,
                    Some(_) | None => Assurance::TpmUnbound,
                };
                let custody = match binding {
                    None => Custody::Tpm(tpm),
                    Some(binding) => {
                        crate::files::create_directory(&directory)?;
                        // musterd needs them when preboot is over.
                        binding.approvals.keep(&directory)?;
                        Custody::Image(tpm, Box::new(binding.approvals.clone()))
                    }
                };
                (custody, assurance)
            }
        };
        Ok(Self { directory, custody, assurance })
    }

    /// How the keys are kept, as the member list will show it.
    pub(crate) const fn assurance(&self) -> Assurance {
        self.assurance
    }

    /// The TPM that keeps them, unless files do.
    pub(crate) const fn tpm(&self) -> Option<&Tpm> {
        match &self.custody {
            Custody::Tpm(tpm) | Custody::Image(tpm, _) => Some(tpm),
            Custody::File => None,
        }
    }

    /// Whether keys of either phase are there.
    pub(crate) fn is_there(state: &Path) -> Outcome<bool> {
        let directory = state.join("keys");
        Ok(Custody::is_kept::<BootSecrets>(&directory)? || Custody::is_kept::<NodeSecrets>(&directory)?)
    }

    /// Opens both, and makes what was never made: all of it at the first start, the node's half when
    /// the power went between the two. The boot half is sealed first, so without it nothing is made.
    pub(crate) fn open_or_make(&self, anchor: CharterId) -> Outcome<(Boot, Node)> {
        crate::files::create_directory(&self.directory)?;
        let node_kept = Custody::is_kept::<NodeSecrets>(&self.directory)?;
        if !Custody::is_kept::<BootSecrets>(&self.directory)? {
            if node_kept {
                let detail = "the boot phase's key is missing beside the node's";
                return Err(Failure::new(Code::KeysMissing, detail));
            }
            let secrets = BootSecrets { preboot_secret: seed()?, boot: seed()?, anchor: anchor.0, floor: 0 };
            self.custody.store(&self.directory, &secrets)?;
            self.custody.test(&self.directory, &secrets)?;
        }
        if !node_kept {
            let secrets = NodeSecrets { identity: seed()?, wireguard: seed()?, gateway: None };
            // For this phase until the admission is on disk: a start that was broken off asks again with
            // the same keys.
            self.custody.store_for(Phase::Preboot, &self.directory, &secrets)?;
            self.custody.test(&self.directory, &secrets)?;
        }
        Ok((self.boot()?, self.node()?))
    }

    /// Opens the boot phase's secrets. Takes in a boot key that musterd made since, and binds to the image
    /// what was sealed without one.
    pub(crate) fn boot(&self) -> Outcome<Boot> {
        let mut secrets: BootSecrets = self.custody.load(&self.directory)?;
        let renewed = Custody::is_kept::<NextBoot>(&self.directory)?;
        if renewed {
            secrets.boot = self.custody.load::<NextBoot>(&self.directory)?.boot;
        }
        if renewed || !self.custody.is_bound_to::<BootSecrets>(Phase::Preboot, &self.directory)? {
            self.custody.store(&self.directory, &secrets)?;
            self.custody.test(&self.directory, &secrets)?;
            Custody::forget::<NextBoot>(&self.directory)?;
        }
        let key = tested(secrets.boot.expose(SecretKey::from_seed))?;
        Ok(Boot { secrets, key })
    }

    /// Binds the node's half to the node phase, if it is not yet. Once this machine is a member, nothing
    /// needs it before that phase.
    pub(crate) fn settle_node(&self) -> Outcome<bool> {
        if self.custody.is_bound_to::<NodeSecrets>(Phase::Node, &self.directory)? {
            return Ok(false);
        }
        let secrets: NodeSecrets = self.custody.load(&self.directory)?;
        self.custody.store(&self.directory, &secrets)?;
        self.custody.will_open::<NodeSecrets>(Phase::Node, &self.directory)?;
        Ok(true)
    }

    /// Opens the node phase's secrets.
    fn node(&self) -> Outcome<Node> {
        let secrets: NodeSecrets = self.custody.load(&self.directory)?;
        Ok(Node {
            identity: tested(secrets.identity.expose(SecretKey::from_seed))?,
            wireguard: tested(secrets.wireguard.expose(SecretKey::from_seed))?,
        })
    }

    /// Moves the anchor forward and seals it. On failure the old one still stands.
    pub(crate) fn advance(&self, boot: &mut Boot, anchor: CharterId) -> Outcome<()> {
        let before = core::mem::replace(&mut boot.secrets.anchor, anchor.0);
        let sealed = self.custody.store(&self.directory, &boot.secrets);
        let sealed = sealed.and_then(|()| self.custody.test(&self.directory, &boot.secrets));
        sealed.map_err(|error| {
            boot.secrets.anchor = before;
            error.into()
        })
    }

    /// Moves the floor up and seals it; never down. On failure the old one still stands.
    pub(crate) fn raise_floor(&self, boot: &mut Boot, floor: u32) -> Outcome<()> {
        if floor <= boot.secrets.floor {
            return Ok(());
        }
        let before = core::mem::replace(&mut boot.secrets.floor, floor);
        let sealed = self.custody.store(&self.directory, &boot.secrets);
        let sealed = sealed.and_then(|()| self.custody.test(&self.directory, &boot.secrets));
        sealed.map_err(|error| {
            boot.secrets.floor = before;
            error.into()
        })
    }
}

impl Boot {
    /// The newest org settings that this machine has seen.
    pub(crate) const fn anchor(&self) -> CharterId {
        CharterId(self.secrets.anchor)
    }

    /// What opens this machine's encrypted disk.
    pub(crate) fn disk_keys(&self, share: Option<DiskShare>, org: OrgId, recovery: PublicKey) -> DiskKeys {
        self.secrets.preboot_secret.expose(|secret| DiskKeys::new(secret, share, org, recovery))
    }

    /// The lowest generation it boots.
    pub(crate) const fn floor(&self) -> u32 {
        self.secrets.floor
    }
}

impl Node {
    /// The three keys, for the enrolment's proofs.
    pub(crate) const fn keys<'a>(&'a self, boot: &'a Boot) -> NodeKeys<'a> {
        NodeKeys { node: &self.identity, wireguard: &self.wireguard, boot: &boot.key }
    }
}

/// A key that signs wrongly must not be used: a faulty signature can give it away.
fn tested(key: SecretKey) -> Outcome<SecretKey> {
    let signature = key.sign(Label::SELF_TEST, b"");
    match key.public().verify(Label::SELF_TEST, b"", &signature) {
        Ok(()) => Ok(key),
        Err(_) => Err(Failure::new(
            Code::SealedKeyDamaged,
            "an opened key signs wrongly; memory or processor is faulty",
        )),
    }
}

fn seed() -> Outcome<Seed> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::rngs::SysRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|why| {
        Failure::new(Code::FileProblem, format_args!("the operating system has no randomness: {why}"))
    })?;
    Ok(Seed::new(&bytes))
}
