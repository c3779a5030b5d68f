//! What an image holds of its org: files in the initramfs, and so in the measurement. None of it is
//! secret but an invite, and none of it comes from a command line.

use core::fmt;

use identity::{PublicKey, decode_hex, encode_hex, limits::MANIFEST_BYTES_MAX};

use crate::archive::Archive;

/// The files of one image. They are bytes here; whoever uses them verifies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    /// Every version of the org's settings, oldest first, as a file of records.
    pub settings: Vec<u8>,
    /// The CA certificates that gateways are checked against, PEM.
    pub bundle: String,
    /// Addresses of gateways.
    pub gateways: Vec<String>,
    /// The key that signs node images.
    pub release: PublicKey,
    /// The point of the key that approves preboot images to TPMs: x and y.
    pub image_key: [u8; 64],
    /// SHA-256 of the certificate that firmware must start nothing without, if the image is signed for it.
    pub secure_boot: Option<[u8; 32]>,
    /// With which machines agree upon the recovery passphrases of their disks.
    pub recovery: PublicKey,
    /// The epoch of the share that a new disk's key has a part of; none when gateways have no part in it.
    pub share: Option<u32>,
    /// Whether the last release that was ready may start when no gateway is reached.
    pub without_gateway: bool,
    /// No clock of a machine is before this.
    pub built_unix_s: u64,
    /// The line with which a machine joins at its first start; one without it must find one elsewhere.
    pub invite: Option<String>,
}

/// Where they are in the initramfs.
pub const PINS_DIRECTORY: &str = "muster";

impl Pins {
    /// Puts them into an initramfs.
    pub fn put(&self, archive: &mut Archive) {
        for (name, content) in self.files() {
            archive.file(&format!("{PINS_DIRECTORY}/{name}"), content, false);
        }
    }

    fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        let line = |text: &dyn fmt::Display| format!("{text}\n").into_bytes();
        let gateways: String = self.gateways.iter().map(|gateway| format!("{gateway}\n")).collect();
        let mut files = vec![
            (SETTINGS, self.settings.clone()),
            (BUNDLE, self.bundle.clone().into_bytes()),
            (GATEWAYS, gateways.into_bytes()),
            (RELEASE, line(&self.release)),
            (IMAGE_KEY, line(&encode_hex(&self.image_key))),
            (RECOVERY, line(&self.recovery)),
            (BUILT, line(&self.built_unix_s)),
        ];
        files.extend(self.secure_boot.map(|certificate| (SECURE_BOOT, line(&encode_hex(&certificate)))));
        files.extend(self.share.map(|epoch| (SHARE, line(&epoch))));
        files.extend(self.without_gateway.then(|| (WITHOUT_GATEWAY, line(&"allowed"))));
        files.extend(self.invite.as_ref().map(|invite| (INVITE, line(&invite.trim()))));
        files
    }

    /// Reads them; `file` gives the content of one by its name.
    ///
    /// # Errors
    /// One is missing, or not what this crate writes, to the byte.
    pub fn read(mut file: impl FnMut(&'static str) -> Option<Vec<u8>>) -> Result<Self, PinsError> {
        let mut found = Vec::new();
        let pins = Self::parse(|name| {
            let content = file(name)?;
            found.push((name, content.clone()));
            Some(content)
        })?;
        let written = pins.files();
        match found.iter().find(|file| !written.contains(file)) {
            Some((name, _)) => Err(PinsError::Malformed(name)),
            None => Ok(pins),
        }
    }

    fn parse(mut file: impl FnMut(&'static str) -> Option<Vec<u8>>) -> Result<Self, PinsError> {
        let mut needed = |name| file(name).ok_or(PinsError::Missing(name));
        let text = |name, bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| PinsError::Malformed(name));
        let settings = needed(SETTINGS)?;
        let bundle = text(BUNDLE, needed(BUNDLE)?)?;
        let gateways: Vec<String> = text(GATEWAYS, needed(GATEWAYS)?)?.lines().map(str::to_owned).collect();
        if gateways.is_empty() {
            return Err(PinsError::Malformed(GATEWAYS));
        }
        let release = PublicKey::from_hex(text(RELEASE, needed(RELEASE)?)?.trim_end());
        let image_key = text(IMAGE_KEY, needed(IMAGE_KEY)?)?;
        let image_key =
            decode_hex(image_key.trim_end().as_bytes()).map_err(|_| PinsError::Malformed(IMAGE_KEY))?;
        let recovery = PublicKey::from_hex(text(RECOVERY, needed(RECOVERY)?)?.trim_end());
        let built = text(BUILT, needed(BUILT)?)?;
        let secure_boot = match file(SECURE_BOOT) {
            None => None,
            Some(bytes) => {
                let digits = text(SECURE_BOOT, bytes)?;
                let hash = decode_hex(digits.trim_end().as_bytes());
                Some(hash.map_err(|_| PinsError::Malformed(SECURE_BOOT))?)
            }
        };
        let share = match file(SHARE) {
            None => None,
            Some(bytes) => {
                let epoch = text(SHARE, bytes)?;
                Some(epoch.trim_end().parse().map_err(|_| PinsError::Malformed(SHARE))?)
            }
        };
        let invite = file(INVITE).map(|bytes| text(INVITE, bytes)).transpose()?;
        if invite.as_ref().is_some_and(|line| line.len() > 2 * MANIFEST_BYTES_MAX) {
            return Err(PinsError::Malformed(INVITE));
        }
        Ok(Self {
            settings,
            bundle,
            gateways,
            release: release.map_err(|_| PinsError::Malformed(RELEASE))?,
            image_key,
            secure_boot,
            recovery: recovery.map_err(|_| PinsError::Malformed(RECOVERY))?,
            share,
            without_gateway: file(WITHOUT_GATEWAY).is_some(),
            built_unix_s: built.trim_end().parse().map_err(|_| PinsError::Malformed(BUILT))?,
            invite: invite.map(|line| line.trim().to_owned()),
        })
    }

    /// Reads them from an initramfs.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of(archive: &Archive) -> Result<Self, PinsError> {
        Self::read(|name| archive.content(&format!("{PINS_DIRECTORY}/{name}")).map(<[u8]>::to_vec))
    }
}

/// Why an image's pins cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinsError {
    /// A file that is not what it should be.
    Malformed(&'static str),
    /// A file that is not there.
    Missing(&'static str),
}

impl fmt::Display for PinsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(name) => write!(f, "{PINS_DIRECTORY}/{name} in the image is malformed"),
            Self::Missing(name) => write!(f, "{PINS_DIRECTORY}/{name} is missing in the image"),
        }
    }
}

impl core::error::Error for PinsError {}

const SETTINGS: &str = "settings";
const BUNDLE: &str = "bundle.pem";
const GATEWAYS: &str = "gateways";
const RELEASE: &str = "release-key";
const IMAGE_KEY: &str = "image-key";
const SECURE_BOOT: &str = "secure-boot-cert";
const RECOVERY: &str = "recovery-key";
const SHARE: &str = "share-epoch";
const WITHOUT_GATEWAY: &str = "without-gateway";
const BUILT: &str = "built";
const INVITE: &str = "invite";

#[cfg(test)]
mod tests {
    use identity::SecretKey;

    use super::*;

    fn pins() -> Pins {
        Pins {
            settings: vec![1, 2, 3],
            bundle: "pem".to_owned(),
            gateways: vec!["gw.example:7443".to_owned()],
            release: SecretKey::from_seed(&[7; 32]).public(),
            image_key: [5; 64],
            secure_boot: Some([6; 32]),
            recovery: SecretKey::from_seed(&[8; 32]).public(),
            share: Some(3),
            without_gateway: true,
            built_unix_s: 1_800_000_000,
            invite: Some("muster-invite-1:x".to_owned()),
        }
    }

    #[test]
    fn pins_read_back_from_the_image() {
        for pins in
            [pins(), Pins { invite: None, secure_boot: None, share: None, without_gateway: false, ..pins() }]
        {
            let mut archive = Archive::default();
            pins.put(&mut archive);
            assert_eq!(Pins::of(&Archive::unpack(&archive.pack().unwrap()).unwrap()), Ok(pins));
        }
    }

    #[test]
    fn a_missing_or_wrong_pin_is_named() {
        let mut archive = Archive::default();
        assert_eq!(Pins::of(&archive), Err(PinsError::Missing(SETTINGS)));
        pins().put(&mut archive);
        for (name, content) in [
            (GATEWAYS, ""),
            (RELEASE, "77"),
            (RECOVERY, "77"),
            (BUILT, "soon"),
            (IMAGE_KEY, "55"),
            (SECURE_BOOT, "66"),
            (GATEWAYS, "gw.example:7443"),
            (GATEWAYS, "gw.example:7443\r\n"),
            (BUILT, "+5\n"),
            (INVITE, " muster-invite-1:x\n"),
            (SHARE, "all\n"),
            (WITHOUT_GATEWAY, "no\n"),
            (SHARE, "+1\n"),
        ] {
            let mut wrong = archive.clone();
            wrong.file(&format!("{PINS_DIRECTORY}/{name}"), content.as_bytes().to_vec(), false);
            assert_eq!(Pins::of(&wrong), Err(PinsError::Malformed(name)));
        }
    }
}
