//! What comes as a file or as text that somebody hands over. Where a checksum guards the contents the
//! target makes a right one, or nothing would come past it.

use identity::HashContext;
use org_trust::{GatewayRequest, InviteManifest, Record, TrustBundle};
use policy::{Policy, PolicyFile, Subject};
use sha2::{Digest as _, Sha256};
use tpm_seal::SealedBlob;
use transport::ServerTls;

use crate::{fixture::ORG, sync::next};

/// An invite: the text as it is, and the contents of one in a well-formed line.
pub fn invite(data: &[u8]) {
    if let Ok(text) = core::str::from_utf8(data) {
        read_invite(text);
    }
    let sum = HashContext::INVITE_CHECKSUM.hash(&[data]);
    let contents = [data, sum.first_chunk::<8>().unwrap()].concat();
    let line = format!("{}{}", InviteManifest::PREFIX, base64url(&contents));
    if let Some(again) = read_invite(&line) {
        assert_eq!(again, line);
    }
}

fn read_invite(text: &str) -> Option<String> {
    let invite = InviteManifest::parse(text).ok()?;
    let line = invite.to_line();
    assert_eq!(*InviteManifest::parse(&line).unwrap().to_line(), *line);
    if let Ok(checked) = invite.check() {
        assert_eq!(checked.secret().public(), checked.invite().key);
        assert!(checked.chain().head().charter().admin(checked.statement().author()).is_some());
    }
    Some(line.to_string())
}

/// A policy: its file, and its encoding as it is signed.
pub fn policy(data: &[u8]) {
    if let Some(file) = core::str::from_utf8(data).ok().and_then(|text| PolicyFile::parse(text).ok()) {
        let policy = &file.policy;
        assert_eq!(Policy::decode(&policy.encode()).as_ref(), Ok(policy));
        assert_eq!(PolicyFile::parse(&policy.to_string()).unwrap().policy, *policy);
        assert!(file.failures().count() <= file.tests.len());
    }
    let Ok(policy) = Policy::decode(data) else { return };
    assert_eq!(policy.encode(), data);
    let (nobody, any) = (Subject::default(), policy.permits(&Subject::default(), &Subject::default(), "x"));
    assert!(!policy.is_empty() || !any.is_allowed());
    assert_eq!(policy.permits(&nobody, &nobody, "x"), any);
}

/// A bundle of CA certificates, PEM or DER.
pub fn bundle(data: &[u8]) {
    let Ok(bundle) = TrustBundle::read(data) else { return };
    let again = TrustBundle::read(bundle.to_pem().as_bytes()).unwrap();
    assert_eq!(again.certificates(), bundle.certificates());
    let accepted = TrustBundle::accepted(Some(&bundle), ORG.genesis.charter()).unwrap();
    assert!(accepted.certificates().len() <= bundle.certificates().len());
}

/// The line of a member that is to be a gateway, and the contents of one in such a line.
pub fn gateway_request(data: &[u8]) {
    if let Ok(text) = core::str::from_utf8(data) {
        read_gateway_request(text);
    }
    let line = format!("{}{}", GatewayRequest::PREFIX, base64url(data));
    if let Some(again) = read_gateway_request(&line) {
        assert_eq!(again, line);
    }
}

fn read_gateway_request(text: &str) -> Option<String> {
    let request = GatewayRequest::parse(text).ok()?;
    let line = request.to_line();
    assert_eq!(GatewayRequest::parse(&line).unwrap(), request);
    if let Ok(verified) = request.verify(&ORG.id) {
        assert!(transport::Address::parse(verified.address()).is_ok());
    }
    Some(line)
}

/// What preboot keeps and hands to musterd, from another disk: settings, admission, records.
pub fn handover(mut data: &[u8]) {
    let mut part = || next(&mut data).unwrap_or_default();
    let (settings, admit, records) = (part(), part(), part());
    let Ok((replica, _machine)) = musterd::handover::check(settings, admit, records, None) else { return };
    assert_eq!(replica.org(), replica.chain().genesis().org());
    let signed = |record: &Record| ORG.vectors.iter().any(|(_, _, known)| known == record.bytes());
    assert!(replica.org() != ORG.id || replica.records().all(|record| signed(&record)));
}

/// The certificate and key that a gateway serves.
pub fn tls_files(mut data: &[u8]) {
    let chain = next(&mut data).unwrap_or_default();
    drop(ServerTls::from_pem(chain, data));
}

/// A sealed secret's file, as it is and with a right frame around it.
pub fn sealed_blob(data: &[u8]) {
    read_blob(data);
    let mut framed = [b"MUSTSEAL\x01", data].concat();
    let sum = Sha256::digest(&framed);
    framed.extend_from_slice(&sum);
    read_blob(&framed);
}

fn read_blob(data: &[u8]) {
    if let Ok(blob) = SealedBlob::decode(data) {
        assert_eq!(blob.encode(), data);
    }
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        let digits = (0..=chunk.len()).map(|at| word >> (18 - 6 * at) & 63);
        text.extend(
            digits.filter_map(|digit| DIGITS.get(usize::try_from(digit).ok()?)).map(|c| char::from(*c)),
        );
    }
    text
}
