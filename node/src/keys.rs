//! This machine's keys: opened once at the start, by the one custody that is configured.
//!
//! A key that does not open, or opens to something that the member list does not know as this
//! machine, leads to a code and to a daemon that still answers what is wrong; never to a new key.

use core::fmt;
use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use identity::{Code, Label, SecretKey, ShareKey};
use org_trust::NodeKeys;
use tpm_seal::{
    Custody, CustodyError, Kind, NextBoot, NodeSecrets, Phase, SHARE_KEYS_MAX, Seed, ShareSecrets, Tpm,
    TpmError,
};

use member_crdt::{Member, Roster};

use crate::config::{Config, Storage};

/// The keys of the node phase. Cannot be cloned or printed.
pub struct Keys {
    /// Who this machine is.
    pub node: SecretKey,
    /// Its WireGuard key.
    pub wireguard: SecretKey,
    /// The gateway role key, on a gateway.
    pub gateway: Option<SecretKey>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, gateway: {})", self.node.public().short(), self.gateway.is_some())
    }
}

/// Why there are no keys to work with.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeysError {
    /// They do not open.
    Custody(CustodyError),
    /// A signature made with an opened key does not verify: memory or processor is faulty.
    Faulty,
    /// They are not the keys under which this machine was admitted.
    Foreign,
    /// The configured TPM cannot be used.
    Tpm(TpmError),
}

impl KeysError {
    /// The code that people meet.
    #[must_use]
    pub fn code(&self) -> Code {
        let kind = match self {
            Self::Custody(error) => error.kind(),
            Self::Tpm(error) => error.kind(),
            Self::Faulty | Self::Foreign => Kind::Damaged,
        };
        match kind {
            Kind::Absent | Kind::NotADevice => Code::TpmAbsent,
            Kind::Beside => Code::AddedToImage,
            Kind::Busy => Code::TpmBusy,
            Kind::CredentialRefused => Code::CredentialRefused,
            Kind::Damaged | Kind::Malformed => Code::SealedKeyDamaged,
            Kind::Disk => Code::FileProblem,
            Kind::Failure => Code::TpmFailure,
            Kind::Firmware => Code::FirmwareChanged,
            Kind::Image => Code::ImageNotApproved,
            Kind::ImageKey => Code::OtherImageKey,
            Kind::Missing => Code::KeysMissing,
            Kind::NoEndorsement => Code::EkCertificateMissing,
            Kind::OtherStorage => Code::KeyFileNotAllowed,
            Kind::Replaced => Code::TpmReplaced,
            Kind::TooOpen => Code::FileModeTooOpen,
            // A kind that a later release of the crate tells apart.
            _ => Code::TpmFailure,
        }
    }
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Custody(error) => error.fmt(f),
            Self::Faulty => f.write_str("an opened key signs wrongly; memory or processor is faulty"),
            Self::Foreign => f.write_str("the opened keys are not the ones this machine was admitted with"),
            Self::Tpm(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for KeysError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // Shown in full by our own text.
            Self::Custody(error) => error.source(),
            Self::Tpm(error) => error.source(),
            Self::Faulty | Self::Foreign => None,
        }
    }
}

impl Keys {
    /// Opens them as configured. Blocks on disk and TPM.
    ///
    /// # Errors
    /// [`KeysError`]; in no case was anything made or changed.
    pub fn load(config: &Config) -> Result<Self, KeysError> {
        Self::open(&custody(config)?, &directory(config))
    }

    /// Makes a key for the gateway role and keeps it with this machine's other keys, in place of one that
    /// was there. Blocks on disk and TPM.
    ///
    /// # Errors
    /// [`KeysError`]; the keys that were kept are still there.
    pub fn make_gateway(config: &Config) -> Result<SecretKey, KeysError> {
        let (custody, directory) = (custody(config)?, directory(config));
        let mut secrets: NodeSecrets = custody.load(&directory).map_err(KeysError::Custody)?;
        let seed = Seed::new(&rand::random());
        let key = seed.expose(SecretKey::from_seed);
        secrets.gateway = Some(seed);
        custody.store(&directory, &secrets).map_err(KeysError::Custody)?;
        custody.test(&directory, &secrets).map_err(KeysError::Custody)?;
        Ok(key)
    }

    /// The keys with which this machine gives shares of disk keys, if it keeps any. Blocks on disk and TPM.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn shares(config: &Config) -> Result<Vec<ShareKey>, KeysError> {
        let directory = directory(config);
        if !Custody::is_kept::<ShareSecrets>(&directory).map_err(KeysError::Custody)? {
            return Ok(Vec::new());
        }
        let kept: ShareSecrets = custody(config)?.load(&directory).map_err(KeysError::Custody)?;
        Ok(kept.keys.iter().map(|(epoch, key)| key.expose(|key| ShareKey::from_bytes(*epoch, key))).collect())
    }

    /// Keeps one more of them, in place of one of its epoch and beside the newest of the others; all that
    /// are kept then. Blocks on disk and TPM.
    ///
    /// # Errors
    /// [`KeysError`]; those that were kept are still there.
    pub fn keep_share(config: &Config, key: &ShareKey) -> Result<Vec<ShareKey>, KeysError> {
        let (custody, directory) = (custody(config)?, directory(config));
        let mut keys = Self::shares(config)?;
        keys.retain(|kept| kept.epoch() != key.epoch());
        keys.drain(..(keys.len() + 1).saturating_sub(SHARE_KEYS_MAX));
        keys.push(key.clone());
        keys.sort_by_key(ShareKey::epoch);
        let seeds = keys.iter().map(|key| (key.epoch(), key.expose(Seed::new)));
        let secrets = ShareSecrets { keys: seeds.collect() };
        custody.store(&directory, &secrets).map_err(KeysError::Custody)?;
        custody.test(&directory, &secrets).map_err(KeysError::Custody)?;
        Ok(keys)
    }

    /// Forgets them.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn forget_shares(config: &Config) -> Result<(), KeysError> {
        Custody::forget::<ShareSecrets>(&directory(config)).map_err(KeysError::Custody)
    }

    /// Opens them from `directory`.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn open(custody: &Custody, directory: &Path) -> Result<Self, KeysError> {
        let secrets: NodeSecrets = custody.load(directory).map_err(KeysError::Custody)?;
        let key = |seed: &Seed| tested(seed.expose(SecretKey::from_seed));
        Ok(Self {
            node: key(&secrets.identity)?,
            wireguard: key(&secrets.wireguard)?,
            gateway: secrets.gateway.as_ref().map(key).transpose()?,
        })
    }

    /// The machine whose keys these are.
    ///
    /// # Errors
    /// [`KeysError::Foreign`].
    pub fn whose<'a>(&self, roster: &'a Roster) -> Result<&'a Member, KeysError> {
        let (node, wireguard) = (self.node.public(), self.wireguard.public());
        let member = roster.member_of(&node).ok_or(KeysError::Foreign)?;
        let newest = (member.node, member.wireguard);
        let mut pairs = member.earlier.iter().map(|keys| (keys.node, keys.wireguard)).chain([newest]);
        if pairs.any(|pair| pair == (node, wireguard)) { Ok(member) } else { Err(KeysError::Foreign) }
    }
}

/// Keys that were made beside those in use, to sign their proofs with. Cannot be cloned or printed.
pub struct NextKeys {
    node: SecretKey,
    wireguard: SecretKey,
    boot: SecretKey,
}

impl NextKeys {
    /// These, from wherever they are kept.
    #[must_use]
    pub const fn of(node: SecretKey, wireguard: SecretKey, boot: SecretKey) -> Self {
        Self { node, wireguard, boot }
    }

    /// For the proofs.
    #[must_use]
    pub const fn keys(&self) -> NodeKeys<'_> {
        NodeKeys { node: &self.node, wireguard: &self.wireguard, boot: &self.boot }
    }
}

impl fmt::Debug for NextKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NextKeys({})", self.node.public().short())
    }
}

/// What lies beside the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// New keys, whole; after [`crate::prepare`], such that the list has as this machine's newest.
    pub next: bool,
    /// A member has said that it knows them: they are used from then on.
    pub known: bool,
    /// The old ones are not to be ended without a command.
    pub keep_old: bool,
}

/// What to do with the keys beside those in `keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysOrder {
    /// Make them, or open those that an earlier rotation made and did not come to use.
    Make {
        /// Whether the old ones stay valid until a command ends them.
        keep_old: bool,
    },
    /// Use them from now on, beginning with the next start.
    UseNext,
    /// Use the old ones again, beginning with the next start.
    UseOld,
    /// Put them in the place of the old ones, which are gone then.
    Promote,
}

/// What became of an order.
#[derive(Debug)]
pub enum KeysDone {
    /// To [`KeysOrder::Make`].
    Made(Box<NextKeys>),
    /// To the others.
    Done(KeysOrder),
}

impl KeysOrder {
    /// Carries it out. Blocks on disk and TPM. A process killed at any point leaves keys that open, and each
    /// order can be given again.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn carry_out(self, config: &Config) -> Result<KeysDone, KeysError> {
        let (keys, next) = (directory(config), next_directory(config));
        match self {
            Self::Make { keep_old } => {
                let made = make_next(&custody(config)?, &keys, &next)?;
                mark(&next, KEEP_OLD, keep_old)?;
                return Ok(KeysDone::Made(Box::new(made)));
            }
            Self::UseNext => mark(&next, KNOWN, true)?,
            Self::UseOld => mark(&next, KNOWN, false)?,
            Self::Promote => promote(&custody(config)?, &keys, &next)?,
        }
        Ok(KeysDone::Done(self))
    }
}

impl Keys {
    /// The keys beside those in use, if they are whole.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn load_next(config: &Config) -> Result<Option<Self>, KeysError> {
        let next = next_directory(config);
        if beside(config)?.next { Self::open(&custody(config)?, &next).map(Some) } else { Ok(None) }
    }

    /// Completes a promotion that was cut off.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn settle(config: &Config) -> Result<(), KeysError> {
        let next = next_directory(config);
        // Keys are made in the other order: without the node's half it was moved already.
        if next.is_dir() && !Custody::is_kept::<NodeSecrets>(&next).map_err(KeysError::Custody)? {
            move_next(&directory(config), &next)?;
        }
        Ok(())
    }
}

/// What lies beside the keys.
///
/// # Errors
/// The disk refuses.
pub fn beside(config: &Config) -> Result<Beside, KeysError> {
    let next = next_directory(config);
    let node = Custody::is_kept::<NodeSecrets>(&next).map_err(KeysError::Custody)?;
    let boot = Custody::is_kept::<NextBoot>(&next).map_err(KeysError::Custody)?;
    let marked = |name| next.join(name).exists();
    Ok(Beside { next: node && boot, known: marked(KNOWN), keep_old: marked(KEEP_OLD) })
}

/// New seeds, or those that were made before: two rotations of one key would void both.
fn make_next(custody: &Custody, keys: &Path, next: &Path) -> Result<NextKeys, KeysError> {
    let made = fs::DirBuilder::new().mode(0o700).create(next);
    made.or_else(|why| if why.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(why) })
        .map_err(|source| disk("make a directory", next, source))?;
    sync(keys)?;
    let had = |there: bool| if there { next } else { keys };
    let node_made = Custody::is_kept::<NodeSecrets>(next).map_err(KeysError::Custody)?;
    let boot_made = Custody::is_kept::<NextBoot>(next).map_err(KeysError::Custody)?;
    let mut node: NodeSecrets = custody.load(had(node_made)).map_err(KeysError::Custody)?;
    if !node_made {
        node.identity = Seed::new(&rand::random());
        node.wireguard = Seed::new(&rand::random());
    }
    store_next_node(custody, keys, next, &mut node)?;
    let boot: NextBoot = if boot_made {
        custody.load(next).map_err(KeysError::Custody)?
    } else {
        let boot = NextBoot { boot: Seed::new(&rand::random()) };
        // Until the promotion it opens in this phase, in which it may be needed again.
        custody.store_for(Phase::Node, next, &boot).map_err(KeysError::Custody)?;
        custody.test(next, &boot).map_err(KeysError::Custody)?;
        boot
    };
    let key = |seed: &Seed| tested(seed.expose(SecretKey::from_seed));
    Ok(NextKeys { node: key(&node.identity)?, wireguard: key(&node.wireguard)?, boot: key(&boot.boot)? })
}

/// Stores the new secrets, with what they have in common with the old ones as it is now.
fn store_next_node(
    custody: &Custody,
    keys: &Path,
    next: &Path,
    node: &mut NodeSecrets,
) -> Result<(), KeysError> {
    let old: NodeSecrets = custody.load(keys).map_err(KeysError::Custody)?;
    node.gateway = old.gateway;
    custody.store(next, node).map_err(KeysError::Custody)?;
    custody.test(next, node).map_err(KeysError::Custody)
}

/// What the boot phase keeps does not open here. Its new key is sealed for that phase and laid beside, and
/// is taken in at the next start.
fn promote(custody: &Custody, keys: &Path, next: &Path) -> Result<(), KeysError> {
    if Custody::is_kept::<NodeSecrets>(next).map_err(KeysError::Custody)? {
        let mut node = custody.load(next).map_err(KeysError::Custody)?;
        store_next_node(custody, keys, next, &mut node)?;
        if !custody.is_bound_to::<NextBoot>(Phase::Preboot, next).map_err(KeysError::Custody)? {
            let boot: NextBoot = custody.load(next).map_err(KeysError::Custody)?;
            custody.store_for(Phase::Preboot, next, &boot).map_err(KeysError::Custody)?;
        }
        custody.will_open::<NextBoot>(Phase::Preboot, next).map_err(KeysError::Custody)?;
    }
    if next.is_dir() { move_next(keys, next) } else { Ok(()) }
}

/// The node's half first; [`Keys::settle`] counts on it.
fn move_next(keys: &Path, next: &Path) -> Result<(), KeysError> {
    Custody::take_over::<NodeSecrets>(next, keys).map_err(KeysError::Custody)?;
    Custody::take_over::<NextBoot>(next, keys).map_err(KeysError::Custody)?;
    fs::remove_dir_all(next).map_err(|source| disk("remove", next, source))?;
    sync(keys)
}

fn mark(next: &Path, name: &'static str, marked: bool) -> Result<(), KeysError> {
    let path = next.join(name);
    let done =
        if marked { fs::File::create(&path).and_then(|f| f.sync_all()) } else { fs::remove_file(&path) };
    match done {
        Err(why) if why.kind() != ErrorKind::NotFound || marked => Err(disk("mark", &path, why)),
        Ok(()) | Err(_) => sync(next),
    }
}

fn sync(directory: &Path) -> Result<(), KeysError> {
    let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| disk("make the directory stable", directory, source))
}

fn disk(what: &'static str, path: &Path, source: std::io::Error) -> KeysError {
    KeysError::Custody(CustodyError::Disk { what, path: path.to_owned(), source })
}

fn tested(key: SecretKey) -> Result<SecretKey, KeysError> {
    let signature = key.sign(Label::SELF_TEST, b"opened");
    key.public().verify(Label::SELF_TEST, b"opened", &signature).map_err(|_| KeysError::Faulty)?;
    Ok(key)
}

const KNOWN: &str = "known";
const KEEP_OLD: &str = "keep-old";

fn next_directory(config: &Config) -> PathBuf {
    directory(config).join("next")
}

fn custody(config: &Config) -> Result<Custody, KeysError> {
    Ok(match config.storage {
        Storage::File => Custody::File,
        Storage::Tpm => {
            let tpm = Tpm::open(&config.tpm).map_err(KeysError::Tpm)?;
            Custody::sealed(tpm, &directory(config)).map_err(KeysError::Custody)?
        }
    })
}

fn directory(config: &Config) -> PathBuf {
    config.state_dir.join("keys")
}

#[cfg(test)]
mod tests {
    use boot_image::{ImageSecretKey, LEAVE_PREBOOT, Pcr};
    use tpm_seal::{Approval, Approvals, BootSecrets, ImageKey};

    use super::*;

    #[test]
    fn keys_in_a_file_open_and_keys_that_are_missing_have_a_code() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        fs::create_dir(&keys).unwrap();
        assert_eq!(Keys::open(&Custody::File, &keys).unwrap_err().code(), Code::KeysMissing);
        let secrets = NodeSecrets {
            identity: Seed::new(&[1; 32]),
            wireguard: Seed::new(&[2; 32]),
            gateway: Some(Seed::new(&[3; 32])),
        };
        Custody::File.store(&keys, &secrets).unwrap();
        let opened = Keys::open(&Custody::File, &keys).unwrap();
        assert_eq!(opened.node.public(), SecretKey::from_seed(&[1; 32]).public());
        assert_eq!(opened.gateway.map(|k| k.public()), Some(SecretKey::from_seed(&[3; 32]).public()));
    }

    #[test]
    fn a_gateway_keeps_the_share_keys_of_the_newest_epochs() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { state_dir: dir.path().into(), storage: Storage::File, ..Config::default() };
        fs::create_dir(directory(&config)).unwrap();
        assert!(Keys::shares(&config).unwrap().is_empty(), "none by default");
        let release = SecretKey::from_seed(&[1; 32]);
        for (epoch, kept) in [(3, &[3][..]), (4, &[3, 4]), (5, &[4, 5]), (2, &[2, 5]), (5, &[2, 5])] {
            Keys::keep_share(&config, &ShareKey::of(&release, epoch)).unwrap();
            let keys = Keys::shares(&config).unwrap();
            assert_eq!(keys.iter().map(ShareKey::epoch).collect::<Vec<_>>(), kept);
            let machine = release.public();
            for key in &keys {
                assert_eq!(key.share(&machine), ShareKey::of(&release, key.epoch()).share(&machine));
            }
        }
        Keys::forget_shares(&config).unwrap();
        assert!(Keys::shares(&config).unwrap().is_empty());
    }

    #[test]
    fn new_keys_are_made_once_and_a_promotion_cut_off_anywhere_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { state_dir: dir.path().into(), storage: Storage::File, ..Config::default() };
        let (keys, next) = (directory(&config), next_directory(&config));
        fs::create_dir(&keys).unwrap();
        let seed = |byte| Seed::new(&[byte; 32]);
        let node = NodeSecrets { identity: seed(1), wireguard: seed(2), gateway: None };
        let boot = BootSecrets { preboot_secret: seed(4), boot: seed(5), anchor: [6; 32], floor: 7 };
        Custody::File.store(&keys, &node).unwrap();
        Custody::File.store(&keys, &boot).unwrap();
        let make = || match (KeysOrder::Make { keep_old: false }).carry_out(&config).unwrap() {
            KeysDone::Made(made) => made.node.public(),
            KeysDone::Done(_) => panic!("not made"),
        };
        let made = make();
        fs::remove_file(next.join("next-boot.key")).unwrap();
        assert!(!beside(&config).unwrap().next, "the power went between the two");
        assert_eq!(make(), made, "two rotations of one key would void both");
        // The gateway's key and the anchor came in between.
        Keys::make_gateway(&config).unwrap();
        Custody::File.store(&keys, &BootSecrets { anchor: [9; 32], ..boot }).unwrap();
        make();
        let half: NodeSecrets = Custody::File.load(&next).unwrap();
        assert!(half.gateway.is_some());
        Custody::take_over::<NodeSecrets>(&next, &keys).unwrap();
        Keys::settle(&config).unwrap();
        assert!(!next.exists());
        assert_eq!(Keys::load(&config).unwrap().node.public(), made);
        // What the boot phase keeps is its own; its new key lies beside it.
        let boot: BootSecrets = Custody::File.load(&keys).unwrap();
        assert!(boot.boot == seed(5) && boot.preboot_secret == seed(4) && boot.anchor == [9; 32]);
        let renewed: NextBoot = Custody::File.load(&keys).unwrap();
        assert!(renewed.boot != seed(5));
        KeysOrder::Promote.carry_out(&config).unwrap();
    }

    #[test]
    fn new_keys_are_made_in_the_node_phase_without_opening_what_preboot_keeps() {
        let dir = tempfile::tempdir().unwrap();
        let mut swtpm = lab::Swtpm::start(&dir.path().join("tpm")).unwrap();
        let config =
            Config { state_dir: dir.path().into(), tpm: swtpm.device().to_owned(), ..Config::default() };
        let (keys, next) = (directory(&config), next_directory(&config));
        fs::create_dir(&keys).unwrap();
        approvals().keep(&keys).unwrap();
        let tpm = Tpm::open(swtpm.device()).unwrap();
        tpm.extend(11, IMAGE).unwrap();
        let custody = custody(&config).unwrap();
        let seed = |byte| Seed::new(&[byte; 32]);
        let node = NodeSecrets { identity: seed(1), wireguard: seed(2), gateway: None };
        let boot = BootSecrets { preboot_secret: seed(4), boot: seed(5), anchor: [6; 32], floor: 7 };
        custody.store(&keys, &node).unwrap();
        custody.store(&keys, &boot).unwrap();
        tpm.extend(11, LEAVE_PREBOOT).unwrap();
        let kept = fs::read(keys.join("boot.sealed")).unwrap();
        let make = || match (KeysOrder::Make { keep_old: false }).carry_out(&config).unwrap() {
            KeysDone::Made(made) => (made.node.public(), made.boot.public()),
            KeysDone::Done(_) => panic!("not made"),
        };
        let made = make();
        assert_eq!(make(), made, "two rotations of one key would void both");
        assert!(beside(&config).unwrap().next);
        KeysOrder::Promote.carry_out(&config).unwrap();
        assert!(!next.exists());
        assert_eq!(Keys::load(&config).unwrap().node.public(), made.0);
        assert_eq!(fs::read(keys.join("boot.sealed")).unwrap(), kept);
        assert!(custody.load::<NextBoot>(&keys).is_err() && custody.load::<BootSecrets>(&keys).is_err());
        swtpm.power_cycle().unwrap();
        tpm.extend(11, IMAGE).unwrap();
        let renewed: NextBoot = custody.load(&keys).unwrap();
        assert_eq!(renewed.boot.expose(SecretKey::from_seed).public(), made.1);
    }

    const IMAGE: &[u8] = b"image";

    fn approvals() -> Approvals {
        let key = ImageSecretKey::from_bytes(&[6; 32]).unwrap();
        let approval = |phase, image: Pcr| {
            let unsigned = Approval { phase: [phase; 32], image: *image.as_bytes(), signature: [0; 64] };
            Approval { signature: key.sign(&unsigned.message()), ..unsigned }
        };
        let measured = Pcr::ZERO.extended(IMAGE);
        Approvals {
            key: ImageKey(key.public()),
            preboot: approval(1, measured),
            node: approval(2, measured.extended(LEAVE_PREBOOT)),
        }
    }

    #[test]
    fn a_daemon_configured_for_a_tpm_that_is_not_there_says_so() {
        let config = Config { tpm: "/dev/no-such-tpm".into(), ..Config::default() };
        assert_eq!(Keys::load(&config).unwrap_err().code(), Code::TpmAbsent);
    }
}
