//! Which chains hold: the five scenarios of a fleet's certificate page and the ones measured beside
//! them, by the verifier that every dialler of ours uses.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{AHEAD, Authority, GOOD, Org, PAST, chain_pem};
use identity::Code;
use org_trust::{CaState, TlsCa, TrustBundle};
use rcgen::Certificate;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use transport::{CertificateFault, ClientTls, ServerTls, TlsError};

const HOST: &str = "gw.example";

/// What a client that holds `anchors` says of a server that sends `chain` (leaf first).
async fn verdict(chain: &[&Certificate], leaf: &Authority, anchors: &[&[u8]]) -> Option<Code> {
    let bundle = TrustBundle::from_certificates(anchors.iter().map(|a| a.to_vec())).unwrap();
    let client = ClientTls::new(bundle.certificates().iter().map(|a| a.der())).unwrap();
    let server = ServerTls::from_pem(&chain_pem(chain), leaf.key.serialize_pem().as_bytes()).unwrap();
    let (ours, theirs) = duplex(64 * 1024);
    let (said, _) = tokio::join!(client.connect(HOST, ours), server.accept(theirs));
    said.err().map(|error| error.code())
}

#[tokio::test]
async fn every_chain_has_its_verdict() {
    let root = Authority::root("root");
    let inter = Authority::made("inter", GOOD, Some(&root));
    let leaf = inter.leaf(HOST, GOOD);
    let (l, i, r) = (&leaf.certificate, &inter.certificate, &root.certificate);
    let anchor_root = [root.der()];
    let both = [root.der(), inter.der()];

    assert_eq!(verdict(&[l, i, r], &leaf, &anchor_root).await, None, "S1");
    assert_eq!(verdict(&[l, i, r], &leaf, &both).await, None, "S2");
    assert_eq!(verdict(&[l], &leaf, &both).await, None, "S3");
    assert_eq!(verdict(&[l, i], &leaf, &anchor_root).await, None, "S4");
    assert_eq!(verdict(&[l], &leaf, &anchor_root).await, Some(Code::ChainUnknown), "S5");
    assert_eq!(verdict(&[l, i], &leaf, &[inter.der()]).await, None, "S6");

    let other = inter.leaf("other.example", GOOD);
    let sent = [&other.certificate, i];
    assert_eq!(verdict(&sent, &other, &anchor_root).await, Some(Code::CertificateName), "S7");
    let expired = inter.leaf(HOST, PAST);
    let sent = [&expired.certificate, i];
    assert_eq!(verdict(&sent, &expired, &anchor_root).await, Some(Code::CertificateExpired), "S8");
    let early = inter.leaf(HOST, AHEAD);
    let sent = [&early.certificate, i];
    assert_eq!(verdict(&sent, &early, &anchor_root).await, Some(Code::CertificateNotYetValid), "S9");
    let alone = Authority::self_signed_leaf(HOST);
    let sent = [&alone.certificate];
    assert_eq!(verdict(&sent, &alone, &anchor_root).await, Some(Code::ChainUnknown), "S10");
    let old_inter = Authority::made("old inter", PAST, Some(&root));
    let under_old = old_inter.leaf(HOST, GOOD);
    let sent = [&under_old.certificate, &old_inter.certificate];
    assert_eq!(verdict(&sent, &under_old, &anchor_root).await, Some(Code::CertificateExpired), "S11");
    assert_eq!(verdict(&sent[..1], &under_old, &[old_inter.der()]).await, None, "S12: anchors have no dates");
    let old_root = Authority::made("old root", PAST, None);
    let under_root = old_root.leaf(HOST, GOOD);
    assert_eq!(verdict(&[&under_root.certificate], &under_root, &[old_root.der()]).await, None, "S13");
}

#[tokio::test]
async fn a_ca_rolls_over_by_both_anchors_or_by_the_cross_signature() {
    let (old, new) = (Authority::root("old"), Authority::root("new"));
    let (old_leaf, new_leaf) = (old.leaf(HOST, GOOD), new.leaf(HOST, GOOD));
    let both = [old.der(), new.der()];
    let refused = Some(Code::ChainUnknown);
    assert_eq!(verdict(&[&new_leaf.certificate], &new_leaf, &[old.der()]).await, refused, "R1");
    assert_eq!(verdict(&[&old_leaf.certificate], &old_leaf, &both).await, None, "R2");
    assert_eq!(verdict(&[&new_leaf.certificate], &new_leaf, &both).await, None, "R3");
    assert_eq!(verdict(&[&old_leaf.certificate], &old_leaf, &[new.der()]).await, refused, "R4");
    let cross = new.cross_signed_by(&old);
    assert_eq!(verdict(&[&new_leaf.certificate, &cross], &new_leaf, &[old.der()]).await, None, "R5");
}

/// The verdict of who holds a bundle of `anchors` and settings in which `retired` are.
async fn verdict_after(
    chain: &[&Certificate],
    leaf: &Authority,
    anchors: &[&Authority],
    retired: &[&Authority],
) -> Option<Code> {
    let ders = anchors.iter().map(|authority| authority.der().to_vec());
    let mut charter = Org::new(0).chain.head().charter().clone();
    charter.tls_cas = retired
        .iter()
        .map(|gone| TlsCa { state: CaState::Retired, certificate: gone.der().to_vec() })
        .collect();
    let bundle = TrustBundle::from_certificates(ders).unwrap();
    let client = ClientTls::trusting(&TrustBundle::accepted(Some(&bundle), &charter).unwrap()).unwrap();
    let server = ServerTls::from_pem(&chain_pem(chain), leaf.key.serialize_pem().as_bytes()).unwrap();
    let (ours, theirs) = duplex(64 * 1024);
    let (said, told) = tokio::join!(client.connect(HOST, ours), server.accept(theirs));
    let code = said.err().map(|error| error.code());
    if code == Some(Code::AnchorRetired) {
        assert_eq!(told.unwrap_err().code(), Code::CertificateRefused);
    }
    code
}

#[tokio::test]
async fn a_chain_that_shows_a_retired_key_is_refused_whoever_signed_it_anew() {
    let (old, new) = (Authority::root("old"), Authority::root("new"));
    let (old_leaf, new_leaf) = (old.leaf(HOST, GOOD), new.leaf(HOST, GOOD));
    let (l_old, l_new) = (&old_leaf.certificate, &new_leaf.certificate);
    // The wrong way round: the retired CA once more, under the one in force.
    let revived = old.cross_signed_by(&new);
    let gone = Some(Code::AnchorRetired);
    assert_eq!(
        verdict_after(&[l_old, &revived], &old_leaf, &[&new], &[]).await,
        None,
        "T0: what it would do"
    );
    assert_eq!(verdict_after(&[l_old, &revived], &old_leaf, &[&new], &[&old]).await, gone, "T1");
    // The right way round goes on, for who knows of the end and for who does not.
    let cross = new.cross_signed_by(&old);
    assert_eq!(verdict_after(&[l_new, &cross], &new_leaf, &[&old, &new], &[&old]).await, None, "T2");
    assert_eq!(verdict_after(&[l_new, &cross], &new_leaf, &[&old], &[]).await, None, "T3");
    // Sent along and not needed, its certificate or a copy: shown is shown.
    let shown = [l_new, &cross, &old.certificate];
    assert_eq!(
        verdict_after(&shown, &new_leaf, &[&old, &new], &[]).await,
        None,
        "T4: while it is not retired"
    );
    assert_eq!(verdict_after(&shown, &new_leaf, &[&old, &new], &[&old]).await, gone, "T5");
    assert_eq!(verdict_after(&[l_new, &revived], &new_leaf, &[&new], &[&old]).await, gone, "T6");
    // Its leaf alone shows no retired key, and ends at no anchor.
    let unknown = Some(Code::ChainUnknown);
    assert_eq!(verdict_after(&[l_old], &old_leaf, &[&old, &new], &[&old]).await, unknown, "T7");
}

#[tokio::test]
async fn a_ca_of_the_same_name_with_another_key_is_no_anchor() {
    let (ours, theirs) = (Authority::root("root"), Authority::root("root"));
    let leaf = theirs.leaf(HOST, GOOD);
    let sent = [&leaf.certificate, &theirs.certificate];
    assert_eq!(verdict(&sent, &leaf, &[ours.der()]).await, Some(Code::ChainUnknown));
}

#[test]
fn a_certificate_with_another_key_is_not_served() {
    let root = Authority::root("root");
    let (leaf, other) = (root.leaf(HOST, GOOD), root.leaf(HOST, GOOD));
    let pem = chain_pem(&[&leaf.certificate]);
    let served = ServerTls::from_pem(&pem, other.key.serialize_pem().as_bytes());
    assert!(matches!(served, Err(CertificateFault::Pair(_))), "D1");
    assert!(matches!(ServerTls::from_pem(b"", b""), Err(CertificateFault::Certificates)));
    assert!(matches!(ServerTls::from_pem(&pem, &pem), Err(CertificateFault::Key)));
}

#[test]
fn no_anchor_is_no_trust() {
    assert_eq!(ClientTls::new([]).unwrap_err().code(), Code::BundleInvalid);
    assert_eq!(ClientTls::new([&b"junk"[..]]).unwrap_err().code(), Code::BundleInvalid);
    // An ordinary leaf as its own anchor would hold; the loader of bundles keeps it out.
    let alone = Authority::self_signed_leaf(HOST);
    assert!(TrustBundle::from_certificates([alone.der().to_vec()]).is_err(), "S10b");
}

#[tokio::test]
async fn what_is_not_tls_is_told_apart_from_what_is_lost() {
    let root = Authority::root("root");
    let client = ClientTls::new([root.der()]).unwrap();
    let (ours, mut theirs) = duplex(64 * 1024);
    theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let plain = client.connect(HOST, ours).await.unwrap_err();
    assert_eq!(plain.code(), Code::NotTls, "{plain}");
    let (ours, theirs) = duplex(64 * 1024);
    drop(theirs);
    assert_eq!(client.connect(HOST, ours).await.unwrap_err().code(), Code::ConnectionLost);
    let (ours, _theirs) = duplex(64);
    assert!(matches!(client.connect("no host", ours).await, Err(TlsError::Host)));
}

#[tokio::test]
async fn a_client_of_tls_1_2_alone_is_refused() {
    // A ClientHello as a TLS 1.2 client sends it: no supported_versions extension.
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let record = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat();
    let (mut ours, theirs) = duplex(64 * 1024);
    ours.write_all(&record).await.unwrap();
    let server = served();
    let refused = server.accept(theirs).await.unwrap_err();
    assert!(matches!(refused, TlsError::Tls(_)), "{refused}");
    let mut alert = Vec::new();
    ours.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert.first(), Some(&21), "an alert: {alert:?}");
}

#[tokio::test]
async fn both_ends_have_the_same_binding_and_no_two_connections_do() {
    let root = Authority::root("root");
    let leaf = root.leaf(HOST, GOOD);
    let client = ClientTls::new([root.der()]).unwrap();
    let pem = chain_pem(&[&leaf.certificate]);
    let server = ServerTls::from_pem(&pem, leaf.key.serialize_pem().as_bytes()).unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (a, b) = connected(&client, &server).await;
        assert_eq!(a, b);
        assert!(!seen.contains(&a));
        seen.push(a);
    }
}

async fn connected(client: &ClientTls, server: &ServerTls) -> ([u8; 32], [u8; 32]) {
    let (ours, theirs): (DuplexStream, DuplexStream) = duplex(64 * 1024);
    let (ours, theirs) = tokio::join!(client.connect(HOST, ours), server.accept(theirs));
    let (mut ours, a) = ours.unwrap();
    let (mut theirs, b) = theirs.unwrap();
    // No ticket precedes the data: there is nothing to resume.
    theirs.write_all(b"x").await.unwrap();
    theirs.flush().await.unwrap();
    assert_eq!(ours.read_u8().await.unwrap(), b'x');
    assert_eq!(ours.get_ref().1.tls13_tickets_received(), 0);
    (a, b)
}

fn served() -> ServerTls {
    let root = Authority::root("root");
    let leaf = root.leaf(HOST, GOOD);
    ServerTls::from_pem(&chain_pem(&[&leaf.certificate]), leaf.key.serialize_pem().as_bytes()).unwrap()
}

#[test]
fn the_test_org_stands() {
    assert_eq!(Org::new(2).chain.iter().count(), 3);
}
