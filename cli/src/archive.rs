//! Several files as one: a tar, compressed, and encrypted by age where a key is given.

use std::{
    io::{self, Read as _, Write as _},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use age::{Decryptor, Encryptor, IdentityFile, x25519};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use identity::{Code, limits::ARCHIVE_BYTES_MAX};
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, Outcome},
    files,
};

/// One file in it.
pub(crate) struct Entry {
    /// Relative, with `/` between.
    pub(crate) name: String,
    pub(crate) mode: u32,
    pub(crate) content: Zeroizing<Vec<u8>>,
}

/// Whoever may open it; nobody in particular if there is none.
pub(crate) struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    pub(crate) fn parse(keys: &[String]) -> Outcome<Self> {
        let one = |text: &String| {
            text.parse::<x25519::Recipient>().map_err(|_| {
                Failure::usage(format_args!("{text:?} is no key of age"))
                    .remedy("Give the public key that `age-keygen` prints: it begins with age1.")
            })
        };
        keys.iter().map(one).collect::<Outcome<_>>().map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes a new file for its user alone.
pub(crate) fn write(path: &Path, entries: &[Entry], to: &Recipients) -> Outcome<()> {
    let failed = |error: io::Error| Failure::file(path, &error);
    let packed = pack(entries).map_err(failed)?;
    let bytes = if to.is_empty() { packed } else { encrypt(&packed, to)? };
    if path.symlink_metadata().is_ok() {
        return Err(Failure::new(Code::FileExists, path.display()));
    }
    files::create(path, files::SECRET, &bytes)
}

/// Reads what [`write`] wrote. `keys` is a file of age's, for one that is encrypted.
pub(crate) fn read(path: &Path, keys: Option<&Path>) -> Outcome<Vec<Entry>> {
    let bytes = Zeroizing::new(files::read(path, ARCHIVE_BYTES_MAX)?);
    let packed = if bytes.starts_with(b"age-encryption.org/") { decrypt(path, &bytes, keys)? } else { bytes };
    unpack(&packed)
        .map_err(|error| Failure::new(Code::ArchiveUnreadable, format_args!("{}: {error}", path.display())))
}

fn pack(entries: &[Entry]) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(entry.content.len()).map_err(io::Error::other)?);
        header.set_mode(entry.mode);
        header.set_mtime(now);
        archive.append_data(&mut header, &entry.name, &entry.content[..])?;
    }
    archive.into_inner()?.finish().map(Zeroizing::new)
}

fn unpack(packed: &[u8]) -> io::Result<Vec<Entry>> {
    let bounded = GzDecoder::new(packed).take(u64::try_from(ARCHIVE_BYTES_MAX).map_err(io::Error::other)?);
    let mut entries = Vec::new();
    for entry in tar::Archive::new(bounded).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if !entry.header().entry_type().is_file() || !is_plain(&name) {
            return Err(io::Error::other(format!("{name:?} has no place in it")));
        }
        let mut content = Zeroizing::new(Vec::new());
        entry.read_to_end(&mut content)?;
        entries.push(Entry { mode: entry.header().mode()?, name, content });
    }
    Ok(entries)
}

/// Leads nowhere but below where it is unpacked.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn encrypt(packed: &[u8], to: &Recipients) -> Outcome<Zeroizing<Vec<u8>>> {
    let failed = |error: &dyn core::fmt::Display| Failure::new(Code::FileProblem, error);
    let recipients = to.0.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = Encryptor::with_recipients(recipients).map_err(|error| failed(&error))?;
    let mut writer = encryptor.wrap_output(Vec::new()).map_err(|error| failed(&error))?;
    writer.write_all(packed).map_err(|error| failed(&error))?;
    writer.finish().map(Zeroizing::new).map_err(|error| failed(&error))
}

fn decrypt(path: &Path, bytes: &[u8], keys: Option<&Path>) -> Outcome<Zeroizing<Vec<u8>>> {
    let failed = |error: &dyn core::fmt::Display| {
        Failure::new(Code::ArchiveUnreadable, format_args!("{}: {error}", path.display()))
    };
    let keys = keys.ok_or_else(|| {
        Failure::usage(format_args!("{} is encrypted", path.display()))
            .remedy("Give the file with its age key: --identity FILE.")
    })?;
    let secret = files::read_secret(keys, KEY_FILE_BYTES_MAX)?;
    let file = IdentityFile::from_buffer(&secret[..]).map_err(|error| Failure::file(keys, &error))?;
    let identities = file.into_identities().map_err(|error| failed(&error))?;
    let decryptor = Decryptor::new_buffered(bytes).map_err(|error| failed(&error))?;
    let identities = identities.iter().map(|identity| &**identity as &dyn age::Identity);
    let mut reader = decryptor.decrypt(identities).map_err(|error| failed(&error))?;
    let mut plain = Zeroizing::new(Vec::with_capacity(bytes.len()));
    reader.read_to_end(&mut plain).map_err(|error| failed(&error))?;
    Ok(plain)
}

const KEY_FILE_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;

    fn entries() -> Vec<Entry> {
        let content = Zeroizing::new(b"content".to_vec());
        vec![Entry { name: "state/keys/x".to_owned(), mode: 0o600, content }]
    }

    #[test]
    fn what_is_written_reads_back_and_no_file_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        write(&path, &entries(), &Recipients(Vec::new())).unwrap();
        let read_back = read(&path, None).unwrap();
        assert_eq!(
            (read_back[0].name.as_str(), &read_back[0].content[..]),
            ("state/keys/x", &b"content"[..])
        );
        let again = write(&path, &entries(), &Recipients(Vec::new())).unwrap_err();
        assert_eq!(again.code(), Code::FileExists);
    }

    #[test]
    fn an_encrypted_one_opens_with_its_key_and_with_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let keep = |name: &str, key: &x25519::Identity| {
            let path = dir.path().join(name);
            files::create(&path, files::SECRET, key.to_string().expose_secret().as_bytes()).unwrap();
            path
        };
        let (key, other) = (x25519::Identity::generate(), x25519::Identity::generate());
        let path = dir.path().join("a.tar.gz.age");
        write(&path, &entries(), &Recipients::parse(&[key.to_public().to_string()]).unwrap()).unwrap();
        assert_eq!(read(&path, Some(&keep("key", &key))).unwrap().len(), 1);
        let code = |opened: Outcome<Vec<Entry>>| opened.err().map(|failure| failure.code());
        assert_eq!(code(read(&path, Some(&keep("other", &other)))), Some(Code::ArchiveUnreadable));
        assert_eq!(code(read(&path, None)), Some(Code::Usage));
        assert!(Recipients::parse(&["age1x".to_owned()]).is_err());
    }

    #[test]
    fn a_name_that_leads_elsewhere_and_a_link_are_refused() {
        for name in ["../x", "/etc/x", "a/../b", "a//b", ""] {
            assert!(!is_plain(name), "{name}");
        }
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "state", "/etc").unwrap();
        assert!(unpack(&archive.into_inner().unwrap().finish().unwrap()).is_err());
        assert!(unpack(b"no archive").is_err());
    }
}
