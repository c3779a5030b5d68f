//! What makes a report hold, and every way of it not holding.

use std::net::SocketAddr;

use crate::fixture::*;
use identity::{Label, Signature, StatementId};
use org_trust::*;
use proptest::prelude::*;

fn verify(bytes: &[u8]) -> Option<Report> {
    UnverifiedReport::decode(bytes).ok()?.verify(&org()).ok()
}

fn changed(change: impl FnOnce(&mut ReportBody)) -> Result<Report, ReportError> {
    let mut body = report_body();
    change(&mut body);
    Report::sign(&org(), &secret(NODE), body)
}

fn malformed(outcome: Result<Report, ReportError>) -> &'static str {
    match outcome {
        Err(ReportError::Malformed(error)) => error.field,
        other => panic!("{other:?}"),
    }
}

fn resigned(label: Label, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let report = report();
    let mut body = report.bytes()[..report.bytes().len() - 64].to_vec();
    change(&mut body);
    let message = [org().as_bytes(), body.as_slice()].concat();
    let Signature(signature) = secret(NODE).sign(label, &message);
    [body.as_slice(), &signature].concat()
}

#[test]
fn a_report_survives_its_encoding() {
    let report = report();
    assert_eq!(verify(report.bytes()), Some(report.clone()));
    assert_eq!(Record::from(&report).id(), report.id());
    assert_eq!(report.node(), &key(NODE));
    assert!(report.body().tips.is_sorted());
    assert_eq!(report.body().endpoints, report_body().endpoints);
}

#[test]
fn every_flipped_bit_is_refused() {
    for flipped in bit_flips(report().bytes()) {
        assert_eq!(verify(&flipped), None);
    }
}

#[test]
fn a_cut_or_lengthened_report_is_refused() {
    let report = report();
    for length in 0..report.bytes().len() {
        UnverifiedReport::decode(&report.bytes()[..length]).unwrap_err();
    }
    let longer = [report.bytes(), &[0]].concat();
    assert_eq!(UnverifiedReport::decode(&longer).unwrap_err().field, "end of report");
    assert_eq!(UnverifiedReport::decode(&[1; 1025]).unwrap_err().field, "report");
}

#[test]
fn another_orgs_report_or_another_keys_signature_is_refused() {
    let other = Charter { salt: [8; 16], ..genesis_charter() }.org_id();
    let read = UnverifiedReport::decode(report().bytes()).unwrap();
    assert_eq!(read.verify(&other), Err(ReportError::BadSignature));
    assert_eq!(resigned(Label::REPORT, |_| {}), report().bytes());
    for &label in Label::ALL.iter().filter(|&&label| label != Label::REPORT) {
        assert_eq!(verify(&resigned(label, |_| {})), None, "{label:?}");
    }
    let by_another = resigned(Label::REPORT, |body| body[2..34].copy_from_slice(key(99).as_bytes()));
    assert_eq!(verify(&by_another), None);
}

#[test]
fn a_report_out_of_bounds_is_refused() {
    let tip = |n: u8| ReportTip::new(&key(n), Lane::Main, 0, &StatementId([n; 32]));
    assert_eq!(malformed(changed(|b| b.tips = (1..=25).map(tip).collect())), "tips");
    assert_eq!(malformed(changed(|b| b.tips = vec![tip(1), tip(1)])), "tips");
    for version in ["x".repeat(33), "a b".to_owned(), "\u{e9}".to_owned(), "a\n".to_owned()] {
        assert_eq!(malformed(changed(|b| b.version = version)), "version");
    }
    let endpoint = |n: u8| SocketAddr::from(([192, 0, 2, n], 1));
    assert_eq!(malformed(changed(|b| b.endpoints = (1..=9).map(endpoint).collect())), "endpoints");
    assert_eq!(malformed(changed(|b| b.endpoints = vec![endpoint(1), endpoint(1)])), "endpoints");
    for useless in ["0.0.0.0:1", "192.0.2.1:0", "[fe80::1]:1", "[::ffff:192.0.2.1]:1"] {
        assert_eq!(malformed(changed(|b| b.endpoints = vec![useless.parse().unwrap()])), "endpoint");
    }
    let scoped = std::net::SocketAddrV6::new("2001:db8::1".parse().unwrap(), 1, 0, 3);
    assert_eq!(malformed(changed(|b| b.endpoints = vec![scoped.into()])), "endpoint");
    let field = |at: usize| {
        UnverifiedReport::decode(&resigned(Label::REPORT, |body| body[at] = 2)).unwrap_err().field
    };
    assert_eq!([field(0), field(1)], ["report format", "report flags"]);
}

#[test]
fn the_largest_report_fits() {
    let tips = (0..24).map(|n| ReportTip { author8: [n; 8], lane: Lane::Main, seq: 0, id8: [0; 8] });
    let endpoints = (1..=8).map(|n| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 1)));
    let largest = changed(|body| {
        body.tips = tips.collect();
        body.endpoints = endpoints.collect();
        body.version = "v".repeat(32);
    });
    assert_eq!(largest.unwrap().bytes().len(), 981);
}

#[test]
fn the_newest_report_wins_and_every_replica_agrees_which_that_is() {
    let (old, new) = (report(), changed(|b| b.seq += 1).unwrap());
    assert!(new.supersedes(&old) && !old.supersedes(&new) && !old.supersedes(&old));
    let twin = changed(|b| b.count += 1).unwrap();
    assert_ne!(twin.supersedes(&old), old.supersedes(&twin));
    let other_node = Report::sign(&org(), &secret(99), ReportBody { seq: 99, ..report_body() }).unwrap();
    assert!(!other_node.supersedes(&old));
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same_bytes(at: prop::sample::Index, value: u8) {
        let bytes = resigned(Label::REPORT, |body| {
            let at = at.index(body.len());
            body[at] = value;
        });
        if let Ok(read) = UnverifiedReport::decode(&bytes)
            && *read.claimed().node() == key(NODE)
        {
            let again = Report::sign(&org(), &secret(NODE), read.claimed().body().clone()).unwrap();
            prop_assert_eq!(again.bytes(), &bytes);
        }
    }

    #[test]
    fn every_report_survives_its_encoding(
        seq: u64,
        count: u64,
        nonce: [u8; 16],
        tips in prop::collection::btree_set((any::<[u8; 8]>(), any::<bool>(), any::<u64>()), 0..=24),
        version in "[!-~]{0,32}",
        ports in prop::collection::btree_set(1_u16.., 0..=8),
    ) {
        let tips = tips.into_iter().map(|(author8, revokes, seq)| {
            let lane = if revokes { Lane::Revokes } else { Lane::Main };
            ReportTip { author8, lane, seq, id8: [1; 8] }
        });
        let endpoints = ports.into_iter().map(|port| SocketAddr::from(([198, 51, 100, 1], port)));
        let body = ReportBody {
            boot_nonce: identity::BootNonce(nonce),
            seq,
            count,
            tips: tips.collect(),
            version,
            endpoints: endpoints.collect(),
            ..report_body()
        };
        let report = Report::sign(&org(), &secret(NODE), body.clone()).unwrap();
        let read = verify(report.bytes()).unwrap();
        prop_assert_eq!(read.body(), &body);
    }
}
