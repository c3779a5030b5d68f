//! What an operator's key files hold, and how: short lines of text, encrypted by age under a
//! passphrase and armored, so that the file can be printed, and opened by any age program in need.

use std::{io::Read as _, path::Path};

use age::{
    DecryptError, Decryptor, Encryptor,
    armor::{ArmoredReader, ArmoredWriter, Format},
    scrypt,
    secrecy::SecretString,
};
use boot_image::ImageSecretKey;
use identity::{Code, Name, OrgId, SecretKey, encode_hex, limits};
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, Outcome},
    files,
};

/// For tests only: log2 of scrypt's N in files written by this run, 1 to 20. Files written with a
/// small one are weak.
pub(crate) const TEST_WORK_FACTOR: &str = "MUSTER_TEST_WORK_FACTOR";

const FILE_BYTES_MAX: usize = 64 * 1024;
const ORG_KEYS: &str = "muster-org-keys-1";
const ADMIN_KEY: &str = "muster-admin-key-1";

/// The keys that stand above everything else in an org; needed only to change its settings.
pub(crate) struct OrgKeys {
    pub(crate) org: OrgId,
    pub(crate) name: Name,
    pub(crate) root: SecretKey,
    /// PKCS #8.
    pub(crate) tls_ca: Zeroizing<Vec<u8>>,
    /// Signs node images.
    pub(crate) release: SecretKey,
    /// Approves preboot images to the TPMs of machines; files of earlier builds lack it until the first
    /// image is made.
    pub(crate) image: Option<ImageSecretKey>,
}

/// The key of one admin on one device.
pub(crate) struct AdminKey {
    pub(crate) org: OrgId,
    pub(crate) name: Name,
    pub(crate) key: SecretKey,
}

impl OrgKeys {
    /// The encrypted file's text.
    pub(crate) fn encrypt(&self, passphrase: SecretString) -> Outcome<String> {
        let root = self.root.expose_seed(|seed| Zeroizing::new(encode_hex(seed)));
        let tls_ca = Zeroizing::new(encode_hex(&self.tls_ca));
        let release = self.release.expose_seed(|seed| Zeroizing::new(encode_hex(seed)));
        let image = self.image.as_ref().map(|key| key.expose(|bytes| Zeroizing::new(encode_hex(bytes))));
        let image = Zeroizing::new(image.map(|digits| format!("image {}\n", *digits)).unwrap_or_default());
        let text = Zeroizing::new(format!(
            "{ORG_KEYS}\norg {}\nname {}\nroot {}\ntls-ca {}\nrelease {}\n{}",
            self.org, self.name, *root, *tls_ca, *release, *image
        ));
        encrypt(text.as_bytes(), passphrase)
    }

    /// Opens an encrypted file.
    pub(crate) fn open(path: &Path, file: &[u8], passphrase: SecretString) -> Outcome<Self> {
        let plain = decrypt(path, file, passphrase)?;
        core::str::from_utf8(&plain)
            .ok()
            .and_then(Self::decode)
            .ok_or_else(|| malformed(path, "it opens, but holds no keys of an org"))
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        (lines.next()? == ORG_KEYS).then_some(())?;
        let org = OrgId::from_hex(field(&mut lines, "org")?).ok()?;
        let name = Name::parse(field(&mut lines, "name")?).ok()?;
        let root = seed(field(&mut lines, "root")?)?;
        let digits = field(&mut lines, "tls-ca")?.as_bytes();
        let mut tls_ca = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
        for pair in digits.chunks(2) {
            tls_ca.extend(identity::decode_hex::<1>(pair).ok()?);
        }
        let release = seed(field(&mut lines, "release")?)?;
        let image = match lines.next() {
            None => None,
            Some(line) => {
                let digits = line.strip_prefix("image ")?;
                let bytes = Zeroizing::new(identity::decode_hex::<32>(digits.as_bytes()).ok()?);
                Some(ImageSecretKey::from_bytes(&bytes)?)
            }
        };
        lines.next().is_none().then_some(Self { org, name, root, tls_ca, release, image })
    }
}

impl AdminKey {
    /// The encrypted file's text.
    pub(crate) fn encrypt(&self, passphrase: SecretString) -> Outcome<String> {
        let key = self.key.expose_seed(|seed| Zeroizing::new(encode_hex(seed)));
        let text =
            Zeroizing::new(format!("{ADMIN_KEY}\norg {}\nname {}\nkey {}\n", self.org, self.name, *key));
        encrypt(text.as_bytes(), passphrase)
    }

    /// Opens an encrypted file.
    pub(crate) fn open(path: &Path, file: &[u8], passphrase: SecretString) -> Outcome<Self> {
        let plain = decrypt(path, file, passphrase)?;
        core::str::from_utf8(&plain)
            .ok()
            .and_then(Self::decode)
            .ok_or_else(|| malformed(path, "it opens, but holds no admin key"))
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        (lines.next()? == ADMIN_KEY).then_some(())?;
        let org = OrgId::from_hex(field(&mut lines, "org")?).ok()?;
        let name = Name::parse(field(&mut lines, "name")?).ok()?;
        let key = seed(field(&mut lines, "key")?)?;
        lines.next().is_none().then_some(Self { org, name, key })
    }
}

/// Reads a key file, which must be its user's alone.
pub(crate) fn read(path: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    files::read_secret(path, FILE_BYTES_MAX)
}

fn encrypt(plain: &[u8], passphrase: SecretString) -> Outcome<String> {
    encrypt_with(plain, passphrase, work_factor()?)
}

fn encrypt_with(plain: &[u8], passphrase: SecretString, work_factor: u8) -> Outcome<String> {
    let mut recipient = scrypt::Recipient::new(passphrase);
    recipient.set_work_factor(work_factor);
    // Writing into memory does not fail, but its signature says it may.
    let failed = |error: &dyn core::fmt::Display| Failure::new(Code::FileProblem, error);
    let encryptor = Encryptor::with_recipients(core::iter::once(&recipient as _)).map_err(|e| failed(&e))?;
    let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor).map_err(|e| failed(&e))?;
    let mut writer = encryptor.wrap_output(armor).map_err(|e| failed(&e))?;
    std::io::Write::write_all(&mut writer, plain).map_err(|e| failed(&e))?;
    let bytes = writer.finish().and_then(ArmoredWriter::finish).map_err(|e| failed(&e))?;
    String::from_utf8(bytes).map_err(|e| failed(&e))
}

fn decrypt(path: &Path, file: &[u8], passphrase: SecretString) -> Outcome<Zeroizing<Vec<u8>>> {
    let mut identity = scrypt::Identity::new(passphrase);
    identity.set_max_work_factor(limits::KEY_FILE_WORK_FACTOR_MAX);
    let explain = |error: DecryptError| {
        if matches!(error, DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed) {
            Failure::new(Code::WrongPassphrase, path.display())
        } else {
            malformed(path, &error.to_string())
        }
    };
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(file)).map_err(explain)?;
    let mut reader = decryptor.decrypt(core::iter::once(&identity as _)).map_err(explain)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(file.len()));
    reader.read_to_end(&mut plain).map_err(|error| malformed(path, &error.to_string()))?;
    Ok(plain)
}

fn work_factor() -> Outcome<u8> {
    let Ok(text) = std::env::var(TEST_WORK_FACTOR) else { return Ok(limits::KEY_FILE_WORK_FACTOR) };
    text.parse()
        .ok()
        .filter(|factor| (1..=limits::KEY_FILE_WORK_FACTOR_MAX).contains(factor))
        .ok_or_else(|| Failure::usage(format_args!("{TEST_WORK_FACTOR}={text} is not a number from 1 to 20")))
}

fn field<'a>(lines: &mut impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    lines.next()?.strip_prefix(name)?.strip_prefix(' ')
}

fn seed(digits: &str) -> Option<SecretKey> {
    let seed = Zeroizing::new(identity::decode_hex::<32>(digits.as_bytes()).ok()?);
    Some(SecretKey::from_seed(&seed))
}

fn malformed(path: &Path, why: &str) -> Failure {
    Failure::new(Code::KeyFileMalformed, format_args!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_key_opens_with_its_passphrase_only() {
        let text = format!("{ADMIN_KEY}\norg {}\nname anna\nkey {}\n", "05".repeat(32), "07".repeat(32));
        let file = encrypt_with(text.as_bytes(), SecretString::from("right words".to_owned()), 2).unwrap();
        let path = Path::new("admin.age");
        let open = |passphrase: &str| {
            AdminKey::open(path, file.as_bytes(), SecretString::from(passphrase.to_owned()))
        };
        let key = open("right words").map_err(|e| e.text()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(key.key.public(), SecretKey::from_seed(&[7; 32]).public());
        assert_eq!(open("wrong words").err().map(|e| e.code()), Some(Code::WrongPassphrase));
        let cut = AdminKey::open(path, &file.as_bytes()[..60], SecretString::from("x".to_owned()));
        assert_eq!(cut.err().map(|e| e.code()), Some(Code::KeyFileMalformed));
    }

    #[test]
    fn org_keys_read_back_and_nothing_else_does() {
        let keys = format!(
            "{ORG_KEYS}\norg {}\nname acme\nroot {}\ntls-ca 0102ff\nrelease {}\n",
            "05".repeat(32),
            "07".repeat(32),
            "09".repeat(32)
        );
        let read = OrgKeys::decode(&keys).unwrap();
        assert_eq!((read.name.as_str(), read.tls_ca.as_slice()), ("acme", &[1u8, 2, 255][..]));
        assert_eq!(read.root.public(), SecretKey::from_seed(&[7; 32]).public());
        assert!(read.image.is_none(), "a file of an earlier build");
        let with = format!("{keys}image {}\n", "06".repeat(32));
        assert!(OrgKeys::decode(&with).unwrap().image.is_some());
        assert!(OrgKeys::decode(&with.replace("06", "ff")).is_none(), "no number of the curve");
        assert!(OrgKeys::decode(&format!("{keys}more\n")).is_none());
        assert!(OrgKeys::decode(&format!("{with}more\n")).is_none());
        assert!(OrgKeys::decode(&keys.replace("acme", "Acme")).is_none());
        assert!(OrgKeys::decode(&keys.replace("0102ff", "0102f")).is_none());
    }
}
