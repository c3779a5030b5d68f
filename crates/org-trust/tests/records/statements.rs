//! What makes a statement hold, and every way of it not holding.

use crate::fixture::*;
use identity::{Label, Signature, StatementId, Tag, TpmId};
use org_trust::*;
use proptest::prelude::*;

const HEADER_BYTES: usize = 4 + 8 + 32 * 3;

fn verify(bytes: &[u8]) -> Option<Statement> {
    UnverifiedStatement::decode(bytes).ok()?.verify(&org()).ok()
}

fn sign(payload: impl Into<Payload>) -> Result<Statement, StatementError> {
    let payload = payload.into();
    Statement::sign(&org(), &secret(ADMIN), place(payload.lane()), &payload)
}

/// The body of `statement` changed by `change`, signed again by `author` under `label`.
fn resigned(statement: &Statement, author: u8, label: Label, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = statement.bytes()[..statement.bytes().len() - 64].to_vec();
    change(&mut body);
    let Signature(signature) = secret(author).sign(label, &[org().as_bytes(), body.as_slice()].concat());
    [body.as_slice(), &signature].concat()
}

fn malformed(outcome: Result<Statement, StatementError>) -> &'static str {
    match outcome {
        Err(StatementError::Malformed(error)) => error.field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_survives_its_encoding() {
    for statement in statements() {
        let read = UnverifiedStatement::decode(statement.bytes()).unwrap();
        assert_eq!(read.claimed(), &*statement);
        assert_eq!(read.verify(&org()), Ok(statement.clone()));
        assert_eq!(Record::from(&statement).id(), statement.id().0);
        let place = *statement.place();
        let author = author_of(&statement).unwrap();
        let again = Statement::sign(&org(), &author, place, statement.payload());
        assert_eq!(again, Ok(statement));
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for statement in statements() {
        for flipped in bit_flips(statement.bytes()) {
            assert_eq!(verify(&flipped), None, "{}", statement.payload().kind());
        }
    }
}

#[test]
fn a_cut_or_lengthened_statement_is_refused() {
    for statement in statements() {
        for length in 0..statement.bytes().len() {
            UnverifiedStatement::decode(&statement.bytes()[..length]).unwrap_err();
        }
        let longer = [statement.bytes(), &[0]].concat();
        assert_eq!(UnverifiedStatement::decode(&longer).unwrap_err().field, "end of statement");
    }
    assert_eq!(UnverifiedStatement::decode(&[1; 1025]).unwrap_err().field, "statement");
}

#[test]
fn another_orgs_statement_is_refused() {
    let other = Charter { salt: [8; 16], ..genesis_charter() }.org_id();
    for statement in statements() {
        let read = UnverifiedStatement::decode(statement.bytes()).unwrap();
        assert_eq!(read.verify(&other), Err(StatementError::BadSignature));
    }
}

#[test]
fn a_signature_for_anything_else_is_no_authors() {
    let statement = invite_statement();
    let same = resigned(&statement, ADMIN, Label::STATEMENT, |_| {});
    assert_eq!(same, statement.bytes());
    for &label in Label::ALL.iter().filter(|&&label| label != Label::STATEMENT) {
        assert_eq!(verify(&resigned(&statement, ADMIN, label, |_| {})), None, "{label:?}");
    }
    assert_eq!(verify(&resigned(&statement, OTHER_ADMIN, Label::STATEMENT, |_| {})), None);
}

#[test]
fn a_report_is_no_statement_and_the_reverse() {
    assert!(UnverifiedStatement::decode(report().bytes()).is_err());
    for statement in statements() {
        assert!(UnverifiedReport::decode(statement.bytes()).is_err());
    }
}

#[test]
fn kinds_of_later_releases_are_refused_as_unknown() {
    for kind in (0..=255).filter(|kind| !(1..=11).contains(kind) && *kind != 13) {
        let bytes = resigned(&invite_statement(), ADMIN, Label::STATEMENT, |body| body[1] = kind);
        let error = UnverifiedStatement::decode(&bytes).unwrap_err();
        assert_eq!(error.field, "kind");
        assert_eq!(error.fault, identity::codec::Fault::Unknown { got: kind.into() });
    }
}

#[test]
fn an_unknown_format_flag_or_lane_is_refused() {
    let field = |at: usize, value: u8| {
        let bytes = resigned(&invite_statement(), ADMIN, Label::STATEMENT, |body| body[at] = value);
        UnverifiedStatement::decode(&bytes).unwrap_err().field
    };
    assert_eq!([field(0, 0), field(0, 2)], ["statement format"; 2]);
    assert_eq!(field(2, 2), "lane");
    assert_eq!(field(3, 1), "statement flags");
}

#[test]
fn each_kind_stands_in_its_own_lane() {
    for statement in statements() {
        let other = 1 - statement.lane().number();
        let bytes = resigned(&statement, ADMIN, Label::STATEMENT, |body| body[2] = other);
        assert_eq!(UnverifiedStatement::decode(&bytes).unwrap_err().field, "lane");
    }
}

#[test]
fn the_last_number_and_a_second_leave_are_refused() {
    let last = Place { seq: u64::MAX, ..place(Lane::Main) };
    let outcome = Statement::sign(&org(), &secret(ADMIN), last, &invite().into());
    assert_eq!(malformed(outcome), "seq");
    let second = Place { seq: 1, ..place(Lane::Main) };
    let retire = Payload::Retire(Retire { old: key(ADMIN) });
    for alone in [Payload::Leave, rotate().into(), retire] {
        assert_eq!(malformed(Statement::sign(&org(), &secret(NODE), second, &alone)), "seq");
    }
}

#[test]
fn an_admit_needs_each_of_its_proofs() {
    let admitted = sign(admit_by_admin()).unwrap();
    // Payload: invite, three keys, name, assurance, attestation, then the signatures.
    let signatures = HEADER_BYTES + 32 * 4 + 6 + 1 + 32;
    let wrong = |nth: usize| {
        let bytes = resigned(&admitted, ADMIN, Label::STATEMENT, |body| body[signatures + 64 * nth] ^= 1);
        UnverifiedStatement::decode(&bytes).unwrap().verify(&org())
    };
    assert_eq!(wrong(0), Err(StatementError::Possession(PossessionError::Node)));
    assert_eq!(wrong(1), Err(StatementError::Possession(PossessionError::WireGuard)));
    assert_eq!(wrong(2), Err(StatementError::Possession(PossessionError::Boot)));
    assert_eq!(wrong(3), Err(StatementError::Possession(PossessionError::InviteWithout)));
}

#[test]
fn each_fact_of_an_admit_is_signed_by_its_keys() {
    let wrong = |change: fn(&mut Admit)| {
        let mut admit = admit_by_admin();
        change(&mut admit);
        sign(admit).unwrap_err()
    };
    let node = StatementError::Possession(PossessionError::Node);
    assert_eq!(wrong(|a| a.name = name("web-2")), node);
    assert_eq!(wrong(|a| a.assurance = Assurance::TpmAttested), node);
    assert_eq!(wrong(|a| a.attestation = [1; 32]), node);
    assert_eq!(wrong(|a| a.node = key(99)), node);
    assert_eq!(wrong(|a| a.wireguard = key(99)), node);
    assert_eq!(wrong(|a| a.boot = key(99)), node);
    assert_eq!(wrong(|a| a.invite = Some(StatementId([1; 32]))), node);
    assert_eq!(wrong(|a| a.redeemer = key(OTHER_ADMIN)), node);
    let other_org = Charter { salt: [8; 16], ..genesis_charter() }.org_id();
    assert_eq!(admit_by_admin().verify_keys(&other_org), Err(PossessionError::Node));
}

#[test]
fn a_proof_for_one_place_is_none_for_another() {
    type Swap = fn(&mut Possession);
    let swaps: [(Swap, PossessionError); 4] = [
        (|s| s.node = s.boot, PossessionError::Node),
        (|s| s.wireguard = s.node, PossessionError::WireGuard),
        (|s| s.boot = s.wireguard, PossessionError::Boot),
        (|s| s.invite = s.node, PossessionError::InviteWithout),
    ];
    for (swap, error) in swaps {
        let mut admit = admit_by_admin();
        swap(&mut admit.signatures);
        assert_eq!(admit.verify_keys(&org()), Err(error));
    }
}

#[test]
fn one_key_for_two_purposes_is_refused() {
    let (node, wireguard, boot) = (secret(NODE), secret(WIREGUARD), secret(BOOT));
    let triples = [
        (NodeKeys { node: &node, wireguard: &node, boot: &boot }, NODE),
        (NodeKeys { node: &node, wireguard: &wireguard, boot: &node }, NODE),
        (NodeKeys { node: &node, wireguard: &wireguard, boot: &wireguard }, WIREGUARD),
    ];
    for (keys, twice) in triples {
        let admit = Admit::by_admin(&org(), keys, key(ADMIN), name("web-1"), Assurance::File);
        let error = PossessionError::KeyTwice { key: *key(twice).as_bytes() };
        assert_eq!(admit.verify_keys(&org()), Err(error));
    }
    let keys = NodeKeys { node: &node, wireguard: &wireguard, boot: &boot };
    for seed in [NODE, WIREGUARD, BOOT] {
        let admit = Admit::by_admin(&org(), keys, key(seed), name("web-1"), Assurance::File);
        let error = PossessionError::KeyTwice { key: *key(seed).as_bytes() };
        assert_eq!(admit.verify_keys(&org()), Err(error));
    }
}

#[test]
fn a_key_with_torsion_is_never_admitted() {
    let changes: [fn(&mut Admit); 3] = [
        |a| a.node = with_torsion(&a.node),
        |a| a.wireguard = with_torsion(&a.wireguard),
        |a| a.boot = with_torsion(&a.boot),
    ];
    for change in changes {
        let mut admit = admit_by_admin();
        change(&mut admit);
        assert!(matches!(admit.verify_keys(&org()), Err(PossessionError::TorsionKey { .. })));
    }
    let invite = Invite { key: with_torsion(&key(INVITE)), ..invite() };
    assert_eq!(sign(invite), Err(StatementError::InviteKey));
}

#[test]
fn an_invite_has_a_key_of_its_own() {
    assert_eq!(sign(Invite { key: key(GATEWAY), ..invite() }), Err(StatementError::InviteKey));
    assert_eq!(sign(Invite { key: key(ADMIN), ..invite() }), Err(StatementError::InviteKey));
}

#[test]
fn an_invite_out_of_bounds_is_refused() {
    let label = |text: &str| Tag::parse(text).unwrap();
    for uses in [0, 100_001] {
        assert_eq!(malformed(sign(Invite { uses, ..invite() })), "uses");
    }
    for labels in [vec![label("b"), label("a")], vec![label("a"), label("a")]] {
        assert_eq!(malformed(sign(Invite { labels, ..invite() })), "labels");
    }
    let labels = (0..9).map(|n| label(&n.to_string())).collect();
    assert_eq!(malformed(sign(Invite { labels, ..invite() })), "labels");
    for note in ["\u{1b}[2J".to_owned(), "a\nb".to_owned(), "x".repeat(97)] {
        assert_eq!(malformed(sign(Invite { note, ..invite() })), "note");
    }
    let statement = invite_statement();
    let body = statement.bytes().len() - 64;
    for (at, value, field) in [(body - 2, 4, "invite flags"), (body - 1, 9, "endorsement keys")] {
        let bytes = resigned(&statement, ADMIN, Label::STATEMENT, |body| body[at] = value);
        assert_eq!(UnverifiedStatement::decode(&bytes).unwrap_err().field, field);
    }
    let tpms = |n: u8| (0..n).map(|n| TpmId([n; 32])).collect::<Vec<_>>();
    for (attestation, tpms) in [
        (true, tpms(9)),
        (true, vec![TpmId([1; 32]); 2]),
        (true, vec![TpmId([2; 32]), TpmId([1; 32])]),
        (false, tpms(1)),
    ] {
        let wrong = Invite { attestation, tpms, ..invite() };
        assert_eq!(malformed(sign(wrong)), "endorsement keys");
    }
}

#[test]
fn a_revocation_out_of_bounds_is_refused() {
    let revoke = Revoke { node: key(NODE), reason: Reason::Lost, note: String::new() };
    let good = sign(Payload::Revoke(revoke.clone())).unwrap();
    let bytes = resigned(&good, ADMIN, Label::STATEMENT, |body| body[HEADER_BYTES + 32] = 5);
    assert_eq!(UnverifiedStatement::decode(&bytes).unwrap_err().field, "reason");
    for note in ["\u{7f}".to_owned(), "x".repeat(97)] {
        assert_eq!(malformed(sign(Payload::Revoke(Revoke { note, ..revoke.clone() }))), "note");
    }
    for &reason in Reason::ALL {
        assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        sign(Payload::Revoke(Revoke { reason, ..revoke.clone() })).unwrap();
    }
}

#[test]
fn a_rotate_needs_each_of_its_proofs() {
    let by_node = |rotate: Rotate| {
        Statement::sign(&org(), &secret(NODE), place(Lane::Main), &rotate.into()).map(|s| s.id())
    };
    let wrong = |change: fn(&mut Rotate)| {
        let mut made = rotate();
        change(&mut made);
        match by_node(made) {
            Err(StatementError::Possession(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    by_node(rotate()).unwrap();
    let rotated = Statement::sign(&org(), &secret(NODE), place(Lane::Main), &rotate().into()).unwrap();
    for (nth, why) in
        [PossessionError::Node, PossessionError::WireGuard, PossessionError::Boot].iter().enumerate()
    {
        let at = HEADER_BYTES + 96 + 64 * nth;
        let bytes = resigned(&rotated, NODE, Label::STATEMENT, |body| body[at] ^= 1);
        let verdict = UnverifiedStatement::decode(&bytes).unwrap().verify(&org());
        assert_eq!(verdict, Err(StatementError::Possession(*why)));
    }
    // Proofs are for these keys, this old key, this place and this org.
    assert_eq!(wrong(|r| r.node = key(99)), PossessionError::Node);
    assert_eq!(wrong(|r| r.wireguard = key(99)), PossessionError::Node);
    assert_eq!(wrong(|r| r.boot = key(99)), PossessionError::Node);
    assert_eq!(wrong(|r| r.old = key(99)), PossessionError::Node);
    assert_eq!(wrong(|r| r.signatures.wireguard = r.signatures.node), PossessionError::WireGuard);
    let admitted = Statement::sign(&org(), &secret(OTHER_ADMIN), place(Lane::Main), &rotate().into());
    assert_eq!(admitted, Err(StatementError::Possession(PossessionError::Node)), "another's old key");
    let other_org = Charter { salt: [8; 16], ..genesis_charter() }.org_id();
    assert_eq!(rotate().verify_keys(&other_org), Err(PossessionError::Node));
    assert!(matches!(wrong(|r| r.node = with_torsion(&r.node)), PossessionError::TorsionKey { .. }));
    let [node, wireguard, boot] = NEXT.map(secret);
    for keys in [
        NodeKeys { node: &node, wireguard: &node, boot: &boot },
        NodeKeys { node: &node, wireguard: &wireguard, boot: &wireguard },
        NodeKeys { node: &secret(NODE), wireguard: &wireguard, boot: &boot },
        NodeKeys { node: &node, wireguard: &secret(NODE), boot: &boot },
    ] {
        let twice = Rotate::new(&org(), key(NODE), keys).verify_keys(&org());
        assert!(matches!(twice, Err(PossessionError::KeyTwice { .. })));
    }
}

#[test]
fn a_set_out_of_order_or_too_large_is_refused() {
    let ids = |n: u8| (0..n).map(|n| StatementId([n; 32])).collect::<Vec<_>>();
    let tags = |n: u8| (0..n).map(|n| Tag::parse(&n.to_string()).unwrap()).collect::<Vec<_>>();
    let backwards = |mut ids: Vec<StatementId>| {
        ids.reverse();
        ids
    };
    let resume = |suspends| sign(Payload::Resume(Resume { node: key(NODE), suspends }));
    resume(ids(16)).unwrap();
    for suspends in [ids(0), ids(17), backwards(ids(2))] {
        assert_eq!(malformed(resume(suspends)), "suspensions");
    }
    sign(Assign { roles: tags(8), labels: tags(8), replaces: ids(4), ..assign() }).unwrap();
    assert_eq!(malformed(sign(Assign { roles: tags(9), ..assign() })), "roles");
    assert_eq!(malformed(sign(Assign { labels: tags(9), ..assign() })), "labels");
    for replaces in [ids(5), backwards(ids(2)), vec![StatementId([1; 32]); 2]] {
        assert_eq!(malformed(sign(Assign { replaces, ..assign() })), "replaced assigns");
    }
}

#[test]
fn the_largest_statement_fits() {
    let text = "n".repeat(63);
    let (node, wireguard, boot) = (secret(NODE), secret(WIREGUARD), secret(BOOT));
    let keys = NodeKeys { node: &node, wireguard: &wireguard, boot: &boot };
    let admit = Admit::by_admin(&org(), keys, key(ADMIN), name(&text), Assurance::File);
    assert_eq!(sign(admit).unwrap().bytes().len(), 653);
    let labels = (0..8).map(|n| Tag::parse(&format!("{n}{}", "l".repeat(31))).unwrap()).collect();
    let tpms = (0..8).map(|n| TpmId([n; 32])).collect();
    let invite = Invite { labels, note: "x".repeat(96), attestation: true, tpms, ..invite() };
    assert_eq!(sign(invite).unwrap().bytes().len(), 868);
    let tags = || (0..8).map(|n| Tag::parse(&format!("{n}{}", "l".repeat(31))).unwrap()).collect();
    let replaces = (0..4).map(|n| StatementId([n; 32])).collect();
    let assign = Assign { node: key(NODE), name: name(&text), roles: tags(), labels: tags(), replaces };
    assert_eq!(sign(assign).unwrap().bytes().len(), 927);
    let policy = |bytes| PolicyChange { number: 1, policy: policy_of(bytes) };
    let most = identity::limits::POLICY_BYTES_MAX;
    assert_eq!(sign(policy(most)).unwrap().bytes().len(), 8192);
    assert_eq!(malformed(sign(policy(most + 1))), "statement");
}

/// A policy of exactly so many bytes.
fn policy_of(bytes: usize) -> policy::Policy {
    // A rule of one word each takes 3 + 2 + 2 + 2 bytes and the words.
    let rules = bytes.div_ceil(100);
    let mut left = bytes - 1;
    let mut out = vec![u8::try_from(rules).unwrap()];
    for n in 0..rules {
        let words = left / (rules - n) - 9;
        left -= words + 9;
        let (role, action) = (format!("{n:03}"), "a".repeat(32));
        let to = "t".repeat(words - 3 - 32);
        out.extend([1, 2, 3].iter().chain(role.as_bytes()));
        out.extend([1, 4, u8::try_from(to.len()).unwrap()].iter().chain(to.as_bytes()));
        out.extend([1, 2, 32].iter().chain(action.as_bytes()));
    }
    let policy = policy::Policy::read(&mut identity::codec::Reader::new(&out)).unwrap();
    assert_eq!(policy.encode().len(), bytes);
    policy
}

#[test]
fn the_next_place_continues_a_statement() {
    let first = invite_statement();
    let next = first.next_place(any_charter());
    assert_eq!((next.seq, next.prev, next.lane), (1, first.id().0, Lane::Main));
    assert_eq!(next.charter, any_charter());
}

#[test]
fn an_enrolment_request_becomes_an_admit() {
    let request = enrol_request();
    let read = EnrolRequest::decode(&request.encode()).unwrap();
    assert_eq!(read, request);
    assert_eq!(read.invite(), Some(invite_statement().id()));
    let verified = read.verify(&org(), &key(INVITE)).unwrap();
    let admit = verified.into_admit();
    admit.verify_invite(&org(), &key(INVITE)).unwrap();
    let statement = Statement::sign(&org(), &secret(GATEWAY), place(Lane::Main), &admit.into());
    assert!(statement.is_ok());
}

#[test]
fn every_flipped_bit_of_an_enrolment_request_is_refused() {
    for flipped in bit_flips(&enrol_request().encode()) {
        let verdict = EnrolRequest::decode(&flipped).and_then(|r| r.verify(&org(), &key(INVITE)));
        assert!(verdict.is_err());
    }
}

#[test]
fn a_request_that_lacks_or_doubles_something_is_refused() {
    let bytes = enrol_request().encode();
    for length in 0..bytes.len() {
        EnrolRequest::decode(&bytes[..length]).unwrap_err();
    }
    let field = |bytes: &[u8]| match EnrolRequest::decode(bytes) {
        Err(EnrolError::Malformed(error)) => error.field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&[bytes.as_slice(), &[0]].concat()), "end of request");
    assert_eq!(field(&[0; 5000]), "enrolment request");
    let mut without_invite = bytes;
    without_invite[33..65].fill(0);
    assert_eq!(field(&without_invite), "invite");
}

#[test]
fn an_invite_is_spent_by_its_secret_at_its_gateway_only() {
    let verdict = |key| enrol_request().verify(&org(), &key).map(|_| ());
    assert_eq!(verdict(key(INVITE)), Ok(()));
    assert_eq!(verdict(key(99)), Err(EnrolError::Possession(PossessionError::Invite)));
    // The Admit of another gateway from the same request is not proved by it.
    let admit = enrol_request().verify(&org(), &key(INVITE)).unwrap().into_admit();
    let stolen = Admit { redeemer: key(OTHER_GATEWAY), ..admit };
    assert_eq!(stolen.verify_invite(&org(), &key(INVITE)), Err(PossessionError::Invite));
    let outcome = Statement::sign(&org(), &secret(OTHER_GATEWAY), place(Lane::Main), &stolen.into());
    assert_eq!(outcome, Err(StatementError::Possession(PossessionError::Node)));
    let other_org = Charter { salt: [8; 16], ..genesis_charter() }.org_id();
    let error = enrol_request().verify(&other_org, &key(INVITE)).unwrap_err();
    assert_eq!(error.code(), identity::Code::EnrolKeyUnproven);
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same_bytes(nth in 0..statements().len(), at: prop::sample::Index, value: u8) {
        let statement = statements().swap_remove(nth);
        let bytes = resigned(&statement, ADMIN, Label::STATEMENT, |body| {
            let at = at.index(body.len());
            body[at] = value;
        });
        if let Ok(read) = UnverifiedStatement::decode(&bytes) {
            prop_assert_eq!(read.claimed().bytes(), &bytes);
            let read = read.claimed();
            // Encoding the decoded value gives the same body: whoever signs it names the author.
            let author = author_of(read);
            if let Some(author) = author
                && let Ok(again) = Statement::sign(&org(), &author, *read.place(), read.payload())
            {
                let body = bytes.len() - 64;
                prop_assert_eq!(&again.bytes()[..body], &bytes[..body]);
            }
        }
    }

    #[test]
    fn random_bytes_are_neither_statement_nor_request(bytes: Vec<u8>) {
        prop_assert!(UnverifiedStatement::decode(&bytes).is_err());
        prop_assert!(EnrolRequest::decode(&bytes).is_err());
        prop_assert!(UnverifiedReport::decode(&bytes).is_err());
    }

    #[test]
    fn every_invite_survives_its_encoding(
        uses in 1..=100_000_u32,
        labels in prop::collection::btree_set("[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", 0..=8),
        expires_unix_s: u64,
        note in "[^\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}]{0,24}",
        seq in 0..u64::MAX,
        approval: bool,
        attestation: bool,
        tpms in prop::collection::btree_set(prop::array::uniform32(0_u8..), 0..=8),
    ) {
        let labels = labels.iter().map(|text| Tag::parse(text).unwrap()).collect();
        let tpms = tpms.into_iter().filter(|_| attestation).map(TpmId).collect();
        let invite =
            Invite { uses, labels, expires_unix_s, note, approval, attestation, tpms, ..invite() };
        let payload = Payload::from(invite);
        let place = Place { seq, ..place(Lane::Main) };
        let statement = Statement::sign(&org(), &secret(ADMIN), place, &payload).unwrap();
        let read = UnverifiedStatement::decode(statement.bytes()).unwrap().verify(&org()).unwrap();
        prop_assert_eq!(read.payload(), &payload);
        prop_assert_eq!(read, statement);
    }
}
