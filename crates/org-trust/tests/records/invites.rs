//! What makes an invite hold, and every way of it not holding.

use crate::fixture::*;
use identity::{Code, SecretKey, codec::Fault};
use org_trust::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

struct Parts {
    chain: CharterChain,
    bundle: TrustBundle,
    gateways: Vec<String>,
    statement: Statement,
    secret: SecretKey,
}

fn parts() -> Parts {
    Parts {
        chain: chain(),
        bundle: TrustBundle::from_certificates([ca()]).unwrap(),
        gateways: vec!["gw.example:4713".to_owned(), "[2001:db8::1]:4713".to_owned()],
        statement: invite_statement(),
        secret: secret(INVITE),
    }
}

fn ca() -> Vec<u8> {
    static CA: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    });
    CA.clone()
}

fn made(change: impl FnOnce(&mut Parts)) -> Result<InviteManifest, ManifestError> {
    let mut p = parts();
    change(&mut p);
    InviteManifest::new(&p.chain, &p.bundle, p.gateways, &p.statement, &p.secret)
}

fn line() -> String {
    made(|_| {}).unwrap().to_line().to_string()
}

fn error(text: &str) -> ManifestError {
    InviteManifest::parse(text).unwrap_err()
}

/// The line of the same invite with other bytes, under a checksum that holds.
fn tampered(change: impl FnOnce(&mut Vec<u8>)) -> Result<CheckedInvite, ManifestError> {
    let digits = line().split_off(InviteManifest::PREFIX.len());
    let mut bytes = base64url(&digits);
    bytes.truncate(bytes.len() - 8);
    change(&mut bytes);
    let sum = identity::HashContext::INVITE_CHECKSUM.hash(&[&bytes]);
    bytes.extend(&sum[..8]);
    InviteManifest::parse(&format!("{}{}", InviteManifest::PREFIX, to_base64url(&bytes)))?.check()
}

const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64url(text: &str) -> Vec<u8> {
    let bits = text.bytes().flat_map(|c| {
        let value = u8::try_from(DIGITS.iter().position(|d| *d == c).unwrap()).unwrap();
        (0..6).rev().map(move |bit| value >> bit & 1)
    });
    let bits: Vec<_> = bits.collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |value, bit| value << 1 | *bit)).collect()
}

fn to_base64url(bytes: &[u8]) -> String {
    let bits: Vec<_> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let digit = |bits: &[u8]| {
        let value = bits.iter().fold(0, |value, bit| value << 1 | *bit) << (6 - bits.len());
        char::from(DIGITS[usize::from(value)])
    };
    bits.chunks(6).map(digit).collect()
}

#[test]
fn an_invite_survives_being_a_line() {
    let checked = InviteManifest::parse(&line()).unwrap().check().unwrap();
    let parts = parts();
    assert_eq!(checked.org(), org());
    assert_eq!(checked.chain().head().id(), genesis().id());
    assert_eq!(checked.bundle(), &parts.bundle);
    assert_eq!(checked.gateways(), parts.gateways);
    assert_eq!(checked.statement(), &parts.statement);
    assert_eq!((checked.id(), checked.invite()), (parts.statement.id(), &invite()));
    assert_eq!((checked.redeemer(), checked.secret().public()), (key(GATEWAY), key(INVITE)));
}

#[test]
fn a_wrapped_or_indented_line_is_read() {
    let line = line();
    let check = |text: &str| InviteManifest::parse(text).unwrap().check().unwrap();
    check(&format!("\n  {line} \t\r\n\n"));
    let digits: Vec<char> = line.chars().collect();
    let wrap =
        |by: &str| digits.chunks(72).map(|c| c.iter().collect::<String>()).collect::<Vec<_>>().join(by);
    for by in ["\n", "\r\n", "\n    ", " \n", "\n\n"] {
        check(&wrap(by));
    }
    assert_eq!(error(&wrap(" ")), ManifestError::Lost);
    assert_eq!(error(&wrap("\n> ")), ManifestError::Lost);
}

#[test]
fn a_part_that_was_lost_is_named_as_lost() {
    let line = line();
    for length in InviteManifest::PREFIX.len()..line.len() {
        assert_eq!(error(&line[..length]), ManifestError::Lost, "{length}");
    }
    assert_eq!(ManifestError::Lost.to_string(), "a part of it was lost");
    assert_eq!(ManifestError::Lost.code(), Code::InviteMalformed);
    assert_eq!(error(&format!("{line}A")), ManifestError::Lost);
    assert_eq!(error(&format!("{line}=")), ManifestError::Lost);
    let middle = line.len() / 2;
    assert_eq!(error(&format!("{}{}", &line[..middle], &line[middle + 4..])), ManifestError::Lost);
}

#[test]
fn every_flipped_bit_of_the_line_is_refused() {
    for flipped in bit_flips(line().as_bytes()) {
        if let Ok(text) = core::str::from_utf8(&flipped) {
            InviteManifest::parse(text).unwrap_err();
        }
    }
}

#[test]
fn every_flipped_bit_of_what_the_org_signed_is_refused_though_the_checksum_holds() {
    let whole = tampered(|_| {}).unwrap();
    let charters = 1 + 32 + 2 + 2 + whole.chain().genesis().bytes().len();
    let total = base64url(&line()[InviteManifest::PREFIX.len()..]).len() - 8;
    let invite = whole.statement().bytes().len() + 32;
    for byte in (0..charters).chain(total - invite..total) {
        let bit = byte % 8;
        tampered(|bytes| bytes[byte] ^= 1 << bit).unwrap_err();
    }
}

#[test]
fn a_text_that_is_no_invite_is_named_so() {
    for text in ["", "hello", "muster-auth/1 pubkey=", "MUSTER-INVITE-1:AAAA"] {
        assert_eq!(error(text), ManifestError::NotAnInvite);
    }
    assert_eq!(error("muster-invite-2:AAAA"), ManifestError::UnknownVersion);
    assert!(matches!(error(&"A".repeat(300_000)), ManifestError::TooLarge { .. }));
}

#[test]
fn a_malformed_invite_is_refused_by_field() {
    let field = |change: &dyn Fn(&mut Vec<u8>)| match tampered(change) {
        Err(ManifestError::Malformed(error)) => error.field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&|b| b[0] = 2), "invite format");
    assert_eq!(field(&|b| b.push(0)), "end of invite");
    assert_eq!(field(&|b| b.clear()), "invite format");
    assert_eq!(field(&|b| b.truncate(b.len() - 1)), "invite secret");
    assert_eq!(field(&|b| b[33] = 200), "charter");
}

#[test]
fn an_invite_by_anybody_but_an_admin_is_refused() {
    for author in [GATEWAY, NODE, 1] {
        let invite = Invite { redeemer: key(OTHER_GATEWAY), ..invite() };
        let by = Statement::sign(&org(), &secret(author), place(Lane::Main), &invite.into()).unwrap();
        let error = made(|p| p.statement = by).unwrap_err();
        assert_eq!(error, ManifestError::NotByAdmin { author: *key(author).as_bytes() });
        assert_eq!(error.code(), Code::InviteBroken);
    }
}

#[test]
fn an_invite_by_an_admin_that_was_removed_is_refused() {
    let mut next = genesis_charter().successor();
    next.admins.retain(|admin| admin.key != key(ADMIN));
    let error = made(|p| p.chain.extend(sign(next, &[1, 2])).map(|_| ()).unwrap()).unwrap_err();
    assert_eq!(error, ManifestError::NotByAdmin { author: *key(ADMIN).as_bytes() });
}

#[test]
fn an_invite_for_a_gateway_the_org_does_not_have_is_refused() {
    let invite = Invite { redeemer: key(77), ..invite() };
    let other = Statement::sign(&org(), &secret(ADMIN), place(Lane::Main), &invite.into()).unwrap();
    let error = made(|p| p.statement = other).unwrap_err();
    assert_eq!(error, ManifestError::UnknownGateway { redeemer: *key(77).as_bytes() });
}

#[test]
fn an_invite_with_another_secret_is_refused() {
    assert_eq!(made(|p| p.secret = secret(99)).unwrap_err(), ManifestError::OtherSecret);
}

#[test]
fn a_change_that_is_no_invite_is_refused() {
    for statement in statements().into_iter().filter(|s| !matches!(s.payload(), Payload::Invite(_))) {
        let error = made(|p| p.statement = statement).unwrap_err();
        assert!(matches!(error, ManifestError::Malformed(e) if e.field == "invite statement"));
    }
}

#[test]
fn parts_of_two_orgs_do_not_make_an_invite() {
    let other = Charter { salt: [8; 16], ..genesis_charter() };
    let other = sign(other, &[1, 2]).verify_genesis().unwrap();
    let other_org = other.org();
    let error = made(|p| p.chain = CharterChain::start(other).unwrap()).unwrap_err();
    assert_eq!(error, ManifestError::Statement(StatementError::BadSignature));
    let error = tampered(|bytes| bytes[1..33].copy_from_slice(other_org.as_bytes())).unwrap_err();
    assert_eq!(error, ManifestError::OtherOrg { wanted: other_org, got: org() });
}

#[test]
fn addresses_and_certificates_are_checked() {
    let error = made(|p| p.gateways[1] = "gw.example".to_owned()).unwrap_err();
    assert_eq!(error, ManifestError::Address { gateway: 2 });
    let error = made(|p| p.gateways.clear()).unwrap_err();
    let none = identity::codec::DecodeError { field: "gateways", fault: Fault::OutOfRange { got: 0 } };
    assert_eq!(error, ManifestError::Malformed(none));
    let error = made(|p| p.gateways = vec!["gw.example:1".to_owned(); 17]).unwrap_err();
    assert!(matches!(error, ManifestError::Malformed(e) if e.field == "gateways"));
    let certificate = ca();
    let error = tampered(|bytes| {
        let at = bytes.windows(certificate.len()).position(|w| w == certificate).unwrap();
        bytes[at] = 0;
    });
    assert_eq!(error.unwrap_err(), ManifestError::Bundle(BundleError::NotX509 { certificate: 1 }));
}

#[test]
fn a_retired_ca_in_the_bundle_is_refused() {
    let mut next = genesis_charter().successor();
    next.tls_cas.push(TlsCa { state: CaState::Retired, certificate: ca() });
    let error = made(|p| p.chain.extend(sign(next, &[1, 2])).map(|_| ()).unwrap()).unwrap_err();
    assert_eq!(error, ManifestError::RetiredCa);
}

#[test]
fn an_invite_carries_the_whole_chain() {
    let next = sign(genesis_charter().successor(), &[1, 2]);
    let id = next.id();
    let manifest = made(|p| p.chain.extend(next).map(|_| ()).unwrap()).unwrap();
    let checked = InviteManifest::parse(&manifest.to_line()).unwrap().check().unwrap();
    assert_eq!((checked.chain().iter().count(), checked.chain().head().id()), (2, id));
}

#[test]
fn an_invite_prints_no_secret() {
    let manifest = made(|_| {}).unwrap();
    let seed = identity::encode_hex(&[INVITE; 32]);
    let shown = [format!("{manifest:?}"), format!("{:?}", manifest.check().unwrap())];
    for text in shown {
        assert!(!text.contains(&seed) && !text.contains(&format!("{:?}", [INVITE; 32])), "{text}");
    }
}
