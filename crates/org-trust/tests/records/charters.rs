//! What makes a charter hold, and every way of it not holding.

use crate::fixture::*;
use identity::{Label, Signature, StatementId, codec::Fault};
use org_trust::*;
use proptest::prelude::*;

/// The genesis charter changed by `change`, signed by all root keys it names.
fn changed(change: impl FnOnce(&mut Charter)) -> Result<UnverifiedCharter, CharterError> {
    let mut charter = genesis_charter();
    change(&mut charter);
    UnverifiedCharter::sign(charter, &[&secret(1), &secret(2), &secret(3)])
}

#[test]
fn a_charter_survives_its_encoding() {
    let signed = sign(genesis_charter(), &[2, 3]);
    let read = UnverifiedCharter::decode(&signed.to_bytes()).unwrap();
    assert_eq!(read, signed);
    let verified = read.verify_genesis().unwrap();
    assert_eq!(verified.bytes(), signed.to_bytes());
    assert_eq!(verified.id(), genesis_charter().id());
    assert_eq!(verified.org(), genesis_charter().org_id());
    assert_eq!(verified.charter().admin(&key(ADMIN)).unwrap().name, name("ada-laptop"));
}

#[test]
fn the_order_in_which_keys_are_given_does_not_matter() {
    let mut charter = genesis_charter();
    charter.root_keys.reverse();
    charter.admins.reverse();
    charter.gateways.reverse();
    assert_eq!(charter.id(), genesis_charter().id());
    assert_eq!(sign(charter, &[1, 2]), sign(genesis_charter(), &[2, 1]));
}

#[test]
fn the_id_does_not_depend_on_who_signed() {
    let (a, b) = (sign(genesis_charter(), &[1, 2]), sign(genesis_charter(), &[1, 2, 3]));
    assert_ne!(a.to_bytes(), b.to_bytes());
    assert_eq!(a.id(), b.id());
    assert_eq!(Record::Charter(a.to_bytes()).id(), a.id().0);
}

#[test]
fn every_flipped_bit_is_refused() {
    let bytes = sign(genesis_charter(), &[1, 2]).to_bytes();
    for flipped in bit_flips(&bytes) {
        let verdict = UnverifiedCharter::decode(&flipped).ok().map(UnverifiedCharter::verify_genesis);
        assert!(!matches!(verdict, Some(Ok(_))));
    }
}

#[test]
fn a_cut_or_lengthened_charter_is_refused() {
    let bytes = sign(genesis_charter(), &[1, 2]).to_bytes();
    for length in 0..bytes.len() {
        UnverifiedCharter::decode(&bytes[..length]).unwrap_err();
    }
    let error = UnverifiedCharter::decode(&[bytes.as_slice(), &[0]].concat()).unwrap_err();
    assert_eq!((error.field, error.fault), ("end of signatures", Fault::Trailing { bytes: 1 }));
    let error = UnverifiedCharter::decode(&vec![0; identity::limits::CHARTER_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(error.field, "charter");
}

#[test]
fn more_than_half_of_the_root_keys_must_be_needed() {
    for (threshold, keys) in [(0, 1), (1, 2), (0, 0), (4, 3), (1, 3), (2, 4)] {
        let seeds = [1, 2, 3, 4];
        let outcome = changed(|c| {
            c.root_threshold = threshold;
            c.root_keys = seeds.iter().take(keys).map(|&seed| key(seed)).collect();
        });
        assert_eq!(outcome.unwrap_err(), CharterError::RootThreshold { threshold, keys });
    }
    changed(|c| (c.root_threshold, c.root_keys) = (1, vec![key(1)])).unwrap();
}

#[test]
fn the_revocation_threshold_must_be_within_the_admins_reach() {
    for threshold in [0, 3] {
        let outcome = changed(|c| c.revoke_threshold = threshold);
        assert_eq!(outcome.unwrap_err(), CharterError::NoQuorum { threshold, admins: 2 });
    }
    changed(|c| c.revoke_threshold = 2).unwrap();
    let outcome = changed(|c| c.admins.clear());
    assert_eq!(outcome.unwrap_err(), CharterError::NoQuorum { threshold: 1, admins: 0 });
}

#[test]
fn a_key_stands_in_one_place_only() {
    let twice = |seed: u8, change: fn(&mut Charter, identity::PublicKey)| {
        let outcome = changed(|c| change(c, key(seed)));
        assert_eq!(outcome.unwrap_err(), CharterError::KeyTwice { key: *key(seed).as_bytes() });
    };
    twice(1, |c, key| c.admins[0].key = key);
    twice(1, |c, key| c.gateways[0].key = key);
    twice(1, |c, key| c.gateways[0].node = key);
    twice(ADMIN, |c, key| c.gateways[0].key = key);
    twice(ADMIN, |c, key| c.gateways[0].node = key);
    twice(GATEWAY, |c, key| c.gateways[1].node = key);
    twice(52, |c, key| c.gateways[0].node = key);
    let outcome = changed(|c| c.admins[0].key = c.admins[1].key);
    assert!(matches!(outcome, Err(CharterError::Malformed(e)) if e.field == "admins"));
    let outcome = changed(|c| c.admins[0].name = c.admins[1].name.clone());
    assert_eq!(outcome.unwrap_err(), CharterError::NameTwice);
}

#[test]
fn a_key_with_torsion_is_refused_in_each_role() {
    let changes: [fn(&mut Charter); 4] = [
        |c| c.root_keys[2] = with_torsion(&key(3)),
        |c| c.admins[0].key = with_torsion(&key(ADMIN)),
        |c| c.gateways[0].key = with_torsion(&key(GATEWAY)),
        |c| c.gateways[0].node = with_torsion(&key(51)),
    ];
    for change in changes {
        let mut charter = genesis_charter();
        change(&mut charter);
        let outcome = UnverifiedCharter::sign(charter, &[&secret(1), &secret(2)]);
        assert!(matches!(outcome, Err(CharterError::TorsionKey { .. })), "{outcome:?}");
    }
}

#[test]
fn the_rules_are_checked_of_charters_that_others_signed() {
    let bytes = sign(genesis_charter(), &[]).to_bytes();
    let body = &bytes[2..bytes.len() - 1];
    assert!(sign_body(body, &[1, 2]).verify_genesis().is_ok());
    let replaced = |old: &identity::PublicKey, new: &identity::PublicKey| {
        let mut body = body.to_vec();
        let at = body.windows(32).position(|window| window == old.as_bytes()).unwrap();
        body[at..at + 32].copy_from_slice(new.as_bytes());
        body
    };
    // The order of the lists limits which key may be replaced; nodes stand in any.
    let torsion = with_torsion(&key(51));
    let outcome = sign_body(&replaced(&key(51), &torsion), &[1, 2]).verify_genesis();
    assert_eq!(outcome, Err(CharterError::TorsionKey { key: *torsion.as_bytes() }));
    let outcome = sign_body(&replaced(&key(51), &key(52)), &[1, 2]).verify_genesis();
    assert_eq!(outcome, Err(CharterError::KeyTwice { key: *key(52).as_bytes() }));
    let threshold = 1 + 4 + 32 + 1 + 4;
    let mut weak = body.to_vec();
    weak[threshold] = 1;
    let outcome = sign_body(&weak, &[1, 2]).verify_genesis();
    assert_eq!(outcome, Err(CharterError::RootThreshold { threshold: 1, keys: 3 }));
}

#[test]
fn lists_have_bounds() {
    let too_long = |outcome: Result<UnverifiedCharter, CharterError>, field| {
        assert!(matches!(outcome, Err(CharterError::Malformed(e)) if e.field == field), "{outcome:?}");
    };
    too_long(changed(|c| c.root_keys = (1..=17).map(key).collect()), "root keys");
    let admin = |seed: u8| Admin { key: key(seed), name: name(&format!("a{seed}")) };
    too_long(changed(|c| c.admins = (60..=124).map(admin).collect()), "admins");
    let gateway = |seed: u8| Gateway { key: key(seed), node: key(seed + 100) };
    too_long(changed(|c| c.gateways = (60..=76).map(gateway).collect()), "gateways");
    let ca = |n: u8| TlsCa { state: CaState::Next, certificate: vec![n] };
    too_long(changed(|c| c.tls_cas = (0..9).map(ca).collect()), "tls cas");
    too_long(changed(|c| c.tls_cas[0].certificate = vec![0; 2049]), "ca certificate");
    too_long(changed(|c| c.tls_cas[0].certificate.clear()), "ca certificate");
    too_long(changed(|c| c.tls_cas.push(c.tls_cas[0].clone())), "tls cas");
    let cut = |n: u8| Cut { key: key(1), lane: Lane::Main, tip: StatementId([n; 32]) };
    too_long(changed(|c| c.cuts = (0..65).map(cut).collect()), "cuts");
    too_long(changed(|c| c.cuts = vec![cut(1), cut(1)]), "cuts");
}

#[test]
fn an_unknown_format_state_or_reserved_byte_is_refused() {
    let bytes = sign(genesis_charter(), &[1, 2]).to_bytes();
    let at = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        UnverifiedCharter::decode(&bytes).unwrap_err()
    };
    let body = usize::from(bytes[0]) + 256 * usize::from(bytes[1]);
    assert_eq!(at(2, 2).field, "charter format");
    assert_eq!(at(2 + body - 17, 1).field, "release keys");
    let ca_state = 2 + body - 17 - 1 - 5 - 2 - 1;
    assert_eq!(bytes[ca_state], 2);
    assert_eq!(at(ca_state, 5).field, "ca state");
    assert_eq!(at(ca_state, 0).field, "ca state");
}

#[test]
fn too_few_or_foreign_signatures_are_refused() {
    let verify = |signers: &[u8]| sign(genesis_charter(), signers).verify_genesis().map(|_| ());
    assert_eq!(verify(&[]), Err(CharterError::TooFewOwn { wanted: 2, got: 0 }));
    assert_eq!(verify(&[3]), Err(CharterError::TooFewOwn { wanted: 2, got: 1 }));
    assert_eq!(verify(&[1, 2, 3]), Ok(()));
    for foreign in [ADMIN, GATEWAY, 77] {
        let error = CharterError::SignedByOther { signer: *key(foreign).as_bytes() };
        assert_eq!(verify(&[1, 2, foreign]), Err(error));
    }
}

#[test]
fn one_signature_given_twice_does_not_count_twice() {
    let signed = sign(genesis_charter(), &[1]).to_bytes();
    let (head, signature) = signed.split_at(signed.len() - 97);
    let mut twice = [head, &[2], &signature[1..], &signature[1..]].concat();
    assert_eq!(UnverifiedCharter::decode(&twice).unwrap_err().field, "root signatures");
    // Under the name of another root key it is merely wrong.
    let at = head.len() + 1 + 96;
    twice[at..at + 32].copy_from_slice(key(2).as_bytes());
    let read = UnverifiedCharter::decode(&twice).or_else(|_| {
        let swapped = [head, &[2], &twice[at..], &signature[1..]].concat();
        UnverifiedCharter::decode(&swapped)
    });
    let error = CharterError::BadSignature { signer: *key(2).as_bytes() };
    assert_eq!(read.unwrap().verify_genesis(), Err(error));
}

#[test]
fn a_root_keys_signature_made_for_something_else_is_refused() {
    for &label in Label::ALL.iter().filter(|&&label| label != Label::CHARTER) {
        let signed = sign(genesis_charter(), &[]).to_bytes();
        let body = &signed[2..signed.len() - 1];
        let mut keys = [1, 2].map(|seed| (key(seed), secret(seed).sign(label, body)));
        keys.sort();
        let mut bytes = signed[..signed.len() - 1].to_vec();
        bytes.push(2);
        for (signer, Signature(signature)) in keys {
            bytes.extend([signer.as_bytes().as_slice(), &signature].concat());
        }
        let verdict = UnverifiedCharter::decode(&bytes).unwrap().verify_genesis();
        assert!(matches!(verdict, Err(CharterError::BadSignature { .. })), "{label:?}");
    }
}

#[test]
fn a_first_charter_has_version_1_no_parent_and_no_cuts() {
    for change in
        [(|c| c.version = 2) as fn(&mut Charter), |c| c.version = 0, |c| c.parent = Some(any_charter())]
    {
        assert_eq!(changed(change).unwrap().verify_genesis(), Err(CharterError::NotGenesis));
    }
    let cut = Cut { key: key(77), lane: Lane::Main, tip: StatementId([1; 32]) };
    let outcome = changed(|c| c.cuts = vec![cut]).unwrap().verify_genesis();
    assert_eq!(outcome, Err(CharterError::CutOfHeldKey { key: *key(77).as_bytes() }));
}

#[test]
fn a_chain_walks_from_charter_to_charter() {
    let mut chain = chain();
    let mut second = genesis_charter().successor();
    second.name = name("acme-corp");
    let second = sign(second, &[1, 3]);
    let id = chain.extend(second.clone()).unwrap();
    assert_eq!(chain.extend(second), Ok(id), "one that is held changes nothing");
    let third = sign(chain.head().charter().successor(), &[2, 3]);
    let third_id = chain.extend(third).unwrap();
    assert_eq!(chain.head().id(), third_id);
    assert_eq!(chain.iter().map(|c| c.charter().version).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(chain.get(&id).unwrap().charter().name, name("acme-corp"));
    assert_eq!(chain.after(&id).map(VerifiedCharter::id).collect::<Vec<_>>(), [third_id]);
    assert_eq!(chain.after(&any_charter()).count(), 3);
    assert_eq!(chain.named(&key(ADMIN)).unwrap().id(), chain.genesis().id());
    assert_eq!((chain.org(), chain.named(&key(1))), (org(), None));
}

#[test]
fn a_chain_starts_at_a_first_charter() {
    let mut chain = chain();
    chain.extend(sign(genesis_charter().successor(), &[1, 2])).unwrap();
    let later = chain.head().clone();
    assert_eq!(CharterChain::start(later).unwrap_err(), CharterError::NotGenesis);
}

#[test]
fn a_successor_needs_the_old_root_keys_and_the_new() {
    let mut next = genesis_charter().successor();
    next.root_keys = vec![key(3), key(4), key(5)];
    let extend = |signers: &[u8]| chain().extend(sign(next.clone(), signers)).map(|_| ());
    assert_eq!(extend(&[3, 4, 5]), Err(CharterError::TooFewParents { wanted: 2, got: 1 }));
    assert_eq!(extend(&[1, 2, 3]), Err(CharterError::TooFewOwn { wanted: 2, got: 1 }));
    assert_eq!(extend(&[1, 2, 4, 5]), Ok(()));
    assert_eq!(extend(&[1, 3, 4]), Ok(()));
}

#[test]
fn a_charter_that_does_not_continue_the_head_is_refused() {
    let extend = |change: fn(&mut Charter)| {
        let mut next = genesis_charter().successor();
        change(&mut next);
        chain().extend(sign(next, &[1, 2]))
    };
    assert_eq!(extend(|c| c.version = 3), Err(CharterError::NotNext { wanted: 2, got: 3 }));
    assert_eq!(extend(|c| c.parent = Some(any_charter())), Err(CharterError::NotNext { wanted: 2, got: 2 }));
    assert_eq!(extend(|c| c.parent = None), Err(CharterError::NotNext { wanted: 2, got: 2 }));
    let other_org = sign(Charter { salt: [8; 16], ..genesis_charter() }.successor(), &[1, 2]);
    assert_eq!(chain().extend(other_org), Err(CharterError::NotNext { wanted: 2, got: 2 }));
    let other_genesis = sign(Charter { salt: [8; 16], ..genesis_charter() }, &[1, 2]);
    assert_eq!(chain().extend(other_genesis), Err(CharterError::NotNext { wanted: 2, got: 1 }));
}

#[test]
fn two_signed_charters_of_one_version_are_a_proven_fork() {
    let mut chain = chain();
    let next = |text| Charter { name: name(text), ..genesis_charter().successor() };
    let held = chain.extend(sign(next("one"), &[1, 2])).unwrap();
    let other = sign(next("two"), &[2, 3]);
    let given = other.id();
    let error = chain.extend(other).unwrap_err();
    assert_eq!(error, CharterError::Fork { version: 2, held, given });
    assert_eq!(error.code(), identity::Code::ForkDetected);
    let unsigned = sign(next("three"), &[2]);
    assert_eq!(chain.extend(unsigned), Err(CharterError::NotNext { wanted: 3, got: 2 }));
    assert_eq!(chain.head().id(), held);
}

#[test]
fn a_removed_key_does_not_return_and_none_changes_its_role() {
    let mut chain = chain();
    let mut second = genesis_charter().successor();
    second.admins.retain(|admin| admin.key != key(OTHER_ADMIN));
    second.gateways.retain(|gateway| gateway.key != key(OTHER_GATEWAY));
    chain.extend(sign(second, &[1, 2])).unwrap();
    let extend = |change: fn(&mut Charter)| {
        let mut next = chain.head().charter().successor();
        change(&mut next);
        chain.clone().extend(sign(next, &[1, 2])).map(|_| ())
    };
    let returns = |seed| Err(CharterError::KeyReturns { key: *key(seed).as_bytes() });
    let ben = |c: &mut Charter| c.admins.push(Admin { key: key(OTHER_ADMIN), name: name("ben-2") });
    assert_eq!(extend(ben), returns(OTHER_ADMIN));
    assert_eq!(
        extend(|c| c.gateways.push(Gateway { key: key(OTHER_GATEWAY), node: key(52) })),
        returns(OTHER_GATEWAY)
    );
    assert_eq!(
        extend(|c| c.gateways.push(Gateway { key: key(OTHER_ADMIN), node: key(52) })),
        returns(OTHER_ADMIN)
    );
    assert_eq!(extend(|c| c.root_keys[2] = key(OTHER_ADMIN)), returns(OTHER_ADMIN));
    assert_eq!(extend(|c| c.admins[0].key = key(52)), returns(52));
    assert_eq!(extend(|c| c.gateways[0].node = key(53)), returns(GATEWAY));
    // The member that ran a gateway may run one again, with a fresh role key.
    assert_eq!(extend(|c| c.gateways.push(Gateway { key: key(23), node: key(52) })), Ok(()));
}

#[test]
fn a_cut_names_a_role_key_that_its_charter_removes() {
    let extend = |cut: u8, removed: u8| {
        let mut next = genesis_charter().successor();
        next.admins.retain(|admin| admin.key != key(removed));
        next.gateways.retain(|gateway| gateway.key != key(removed));
        next.cuts = vec![Cut { key: key(cut), lane: Lane::Main, tip: StatementId([1; 32]) }];
        chain().extend(sign(next, &[1, 2])).map(|_| ())
    };
    assert_eq!(extend(OTHER_ADMIN, OTHER_ADMIN), Ok(()));
    assert_eq!(extend(OTHER_GATEWAY, OTHER_GATEWAY), Ok(()));
    for (cut, removed) in [(ADMIN, OTHER_ADMIN), (1, OTHER_ADMIN), (52, OTHER_GATEWAY), (77, OTHER_ADMIN)] {
        let error = CharterError::CutOfHeldKey { key: *key(cut).as_bytes() };
        assert_eq!(extend(cut, removed), Err(error));
    }
}

#[test]
fn signatures_may_be_gathered_one_by_one() {
    let mut signed = sign(genesis_charter(), &[1]);
    signed = UnverifiedCharter::decode(&signed.to_bytes()).unwrap();
    signed.add_signature(&secret(2));
    assert_eq!(signed, sign(genesis_charter(), &[1, 2]));
    assert_eq!(signed.signers().count(), 2);
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same_bytes(at: prop::sample::Index, value: u8, cut: prop::sample::Index) {
        let mut bytes = sign(genesis_charter(), &[1, 2]).to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = value;
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(read) = UnverifiedCharter::decode(bytes) {
                prop_assert_eq!(read.to_bytes(), bytes);
                prop_assert_eq!(read.id(), read.charter().id());
            }
        }
    }

    #[test]
    fn random_bytes_are_no_charter(bytes: Vec<u8>) {
        prop_assert!(UnverifiedCharter::decode(&bytes).is_err());
    }
}
