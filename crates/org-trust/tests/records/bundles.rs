//! What makes a trust bundle, and everything that does not.

use identity::Code;
use org_trust::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

struct Made {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
    pem: String,
}

fn root(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Made {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Made { params, der: certificate.der().to_vec(), pem: certificate.pem(), key }
}

fn ca() -> Made {
    root("org CA", |_| {})
}

fn read(text: &str) -> Result<TrustBundle, BundleError> {
    TrustBundle::read(text.as_bytes())
}

#[test]
fn a_ca_is_read_from_pem_and_from_der() {
    let ca = ca();
    let from_pem = read(&ca.pem).unwrap();
    assert_eq!(from_pem, TrustBundle::read(&ca.der).unwrap());
    let [anchor] = from_pem.certificates() else { panic!() };
    assert_eq!(anchor.der(), ca.der);
    assert!(anchor.subject().contains("org CA") && anchor.self_issued());
    assert!(anchor.not_before_unix_s() < anchor.not_after_unix_s());
    assert_eq!(read(&from_pem.to_pem()), Ok(from_pem));
}

#[test]
fn comments_blank_lines_and_windows_line_ends_are_allowed() {
    let (a, b) = (ca(), ca());
    let text = format!("# ours\n\n{}\n# the next one\n{}\n\n", a.pem, b.pem);
    assert_eq!(read(&text).unwrap().certificates().len(), 2);
    assert_eq!(read(&text.replace("\r\n", "\n").replace('\n', "\r\n")).unwrap().certificates().len(), 2);
}

#[test]
fn a_ca_without_key_usage_may_sign() {
    assert!(read(&root("openssl req -x509", |p| p.key_usages.clear()).pem).is_ok());
}

#[test]
fn an_intermediate_is_allowed_and_told_apart() {
    let ca = ca();
    let issuer = Issuer::new(ca.params, &ca.key);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let intermediate = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let bundle = TrustBundle::from_certificates([intermediate.der().to_vec()]).unwrap();
    assert!(!bundle.certificates()[0].self_issued());
}

#[test]
fn a_leaf_is_no_anchor() {
    let leaf = root("gw", |params| params.is_ca = IsCa::NoCa);
    assert_eq!(read(&leaf.pem), Err(BundleError::Leaf { certificate: 1 }));
    let explicit = root("gw", |params| params.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(read(&format!("{}{}", ca().pem, explicit.pem)), Err(BundleError::Leaf { certificate: 2 }));
}

#[test]
fn a_ca_that_may_not_sign_certificates_is_no_anchor() {
    let other_use = root("crl only", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    assert_eq!(read(&other_use.pem), Err(BundleError::MayNotSign { certificate: 1 }));
}

#[test]
fn a_private_key_is_refused_wherever_it_stands() {
    let ca = ca();
    for text in [
        ca.key.serialize_pem(),
        format!("{}{}", ca.pem, ca.key.serialize_pem()),
        format!("{}{}", ca.key.serialize_pem(), ca.pem),
        ca.key.serialize_pem().replace("PRIVATE KEY", "EC PRIVATE KEY"),
        ca.key.serialize_pem().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
    ] {
        assert_eq!(read(&text), Err(BundleError::PrivateKey));
    }
    let der = ca.key.serialize_der();
    assert_eq!(TrustBundle::read(&der), Err(BundleError::NotX509 { certificate: 1 }));
}

#[test]
fn nothing_is_no_bundle() {
    for text in ["", "\n \n"] {
        assert_eq!(read(text), Err(BundleError::Empty));
    }
    assert_eq!(TrustBundle::from_certificates([]), Err(BundleError::Empty));
}

#[test]
fn junk_before_between_inside_and_after_is_refused() {
    let ca = ca();
    let lines = ca.pem.lines().count();
    assert_eq!(read(&format!("junk\n{}", ca.pem)), Err(BundleError::Junk { line: 1 }));
    assert_eq!(read(&format!("{}junk", ca.pem)), Err(BundleError::Junk { line: lines + 1 }));
    assert_eq!(read(&format!("{}junk\n{}", ca.pem, ca.pem)), Err(BundleError::Junk { line: lines + 1 }));
    let unfinished = ca.pem.replace("-----END CERTIFICATE-----", "");
    assert!(matches!(read(&unfinished), Err(BundleError::Junk { .. })));
    let other_end = ca.pem.replace("END CERTIFICATE", "END CERTIFICATES");
    assert_eq!(read(&other_end), Err(BundleError::Junk { line: lines }));
    let headers = ca
        .pem
        .replace("-----\nM", "-----\nProc-Type: 4,ENCRYPTED\nM")
        .replace("-----\r\nM", "-----\r\nA: b\r\nM");
    assert_eq!(read(&headers), Err(BundleError::Junk { line: 1 }));
    assert!(matches!(TrustBundle::read(b"-----BEGIN \xff"), Err(BundleError::Junk { .. })));
}

#[test]
fn bytes_after_a_certificate_are_refused() {
    let longer = [ca().der, vec![0]].concat();
    assert_eq!(TrustBundle::read(&longer), Err(BundleError::Trailing { certificate: 1, bytes: 1 }));
    assert_eq!(
        TrustBundle::from_certificates([longer]),
        Err(BundleError::Trailing { certificate: 1, bytes: 1 })
    );
}

#[test]
fn other_blocks_and_other_bytes_are_no_certificates() {
    let ca = ca();
    for label in ["PUBLIC KEY", "CERTIFICATE REQUEST", "X509 CRL", "TRUSTED CERTIFICATE"] {
        let text = ca.pem.replace("CERTIFICATE", label);
        assert_eq!(read(&text), Err(BundleError::OtherBlock { label: label.to_owned() }));
    }
    assert_eq!(read("hello"), Err(BundleError::NotX509 { certificate: 1 }));
    for length in 0..ca.der.len() {
        TrustBundle::from_certificates([ca.der[..length].to_vec()]).unwrap_err();
    }
}

#[test]
fn a_certificate_given_twice_is_refused() {
    let ca = ca();
    assert_eq!(read(&format!("{}{}", ca.pem, ca.pem)), Err(BundleError::Duplicate { certificate: 2 }));
}

#[test]
fn too_many_and_too_much_are_refused() {
    let many: Vec<_> = (0..17).map(|n| root(&format!("ca {n}"), |_| {}).der).collect();
    assert!(TrustBundle::from_certificates(many[..16].to_vec()).is_ok());
    assert_eq!(TrustBundle::from_certificates(many), Err(BundleError::TooMany { certificates: 17 }));
    let long = root(&"x".repeat(30_000), |_| {});
    assert_eq!(
        TrustBundle::from_certificates([long.der.clone(), ca().der]).map(|_| ()),
        Ok(()),
        "a little below the limit"
    );
    let error = TrustBundle::from_certificates([long.der, root(&"y".repeat(30_000), |_| {}).der]);
    assert!(matches!(error, Err(BundleError::TooLarge { .. })));
    let padded = format!("{}{}", ca().pem, "#\n".repeat(40_000));
    assert!(matches!(read(&padded), Err(BundleError::TooLarge { .. })));
    assert_eq!(BundleError::Empty.code(), Code::BundleEmpty);
}

#[test]
fn a_charter_adds_its_cas_and_takes_the_retired_ones_away() {
    let (old, new, next, image) = (ca(), ca(), ca(), ca());
    let mut charter = crate::fixture::genesis_charter();
    let entry = |state, made: &Made| TlsCa { state, certificate: made.der.clone() };
    charter.tls_cas =
        vec![entry(CaState::Retiring, &old), entry(CaState::Active, &new), entry(CaState::Next, &next)];
    let bundle = TrustBundle::from_certificates([image.der.clone(), old.der.clone()]).unwrap();
    let accepted = |bundle, charter: &Charter| {
        TrustBundle::accepted(bundle, charter).map(|accepted| {
            accepted.certificates().iter().map(|anchor| anchor.der().to_vec()).collect::<Vec<_>>()
        })
    };
    assert_eq!(
        accepted(Some(&bundle), &charter),
        Ok(vec![image.der.clone(), old.der.clone(), new.der.clone()])
    );
    assert_eq!(accepted(None, &charter), Ok(vec![old.der.clone(), new.der.clone()]));

    charter.tls_cas[0].state = CaState::Retired;
    assert_eq!(accepted(Some(&bundle), &charter), Ok(vec![image.der, new.der]));
    // A certificate issued anew for a retired key is as retired as the first.
    let again = old.params.self_signed(&old.key).unwrap().der().to_vec();
    let renewed = TrustBundle::from_certificates([again]).unwrap();
    charter.tls_cas[1].state = CaState::Retired;
    assert!(renewed.holds_retired(&charter) && bundle.holds_retired(&charter));
    assert_eq!(accepted(Some(&renewed), &charter), Err(BundleError::Empty));
}

#[test]
fn what_a_charter_lists_that_is_no_ca_does_not_take_the_others_with_it() {
    let (good, leaf) = (ca(), root("gw", |params| params.is_ca = IsCa::NoCa));
    let mut charter = crate::fixture::genesis_charter();
    charter.tls_cas = [&[0x30], leaf.der.as_slice(), &good.der]
        .map(|der| TlsCa { state: CaState::Active, certificate: der.to_vec() })
        .to_vec();
    let accepted = TrustBundle::accepted(None, &charter).unwrap();
    assert_eq!(accepted.certificates().iter().map(Anchor::der).collect::<Vec<_>>(), [good.der]);
}
