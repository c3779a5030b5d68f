//! The two cores against each other: what must pass, and what must not.

#![cfg(test)]
use conn_auth::{
    Accept, Action, ActionError, Binding, ChallengeError, Dial, DialError, HelloError, Holder, ProofError,
    Reference, Refusal, ServiceName, Standing, To, VerdictError,
};
use identity::{Code, Heads, OrgId, SecretKey, WireGuardKey};

const ORG: OrgId = OrgId([1; 32]);
const HELD: Heads = Heads([9; 32]);
const REFERENCE: Reference = Reference([0xab; 8]);
const TLS: Binding = Binding::Tls([7; 32]);
const TUNNEL: Binding = Binding::WireGuard { client: WireGuardKey([2; 32]), server: WireGuardKey([3; 32]) };

#[test]
fn two_members_prove_themselves_to_each_other() {
    let (client, server) = (key(1), key(2));
    let dial = dial(&client, To::Key(server.public()), TUNNEL, "sync").start([4; 32]).unwrap();
    let accept = accept(&server, TUNNEL).on_hello(dial.hello().as_bytes(), [5; 32]).unwrap();
    let trusted = dial.on_challenge(accept.challenge().as_bytes()).unwrap();
    assert_eq!(trusted.server(), server.public());
    let dial = trusted.prove(HELD, 3);
    let proven = accept.on_proof(dial.proof().as_bytes()).unwrap();
    assert_eq!((proven.peer(), proven.heads(), proven.count()), (client.public(), HELD, 3));
    assert_eq!((proven.action().name(), proven.binding()), ("sync", TUNNEL));
    let admitted = proven.admit(Standing::Good(Holder::Member)).unwrap();
    let accepted =
        dial.on_verdict(admitted.verdict_ok(REFERENCE, Heads([8; 32]), u64::MAX).as_bytes()).unwrap();
    assert_eq!(accepted.session(), admitted.session());
    assert_eq!((accepted.server(), accepted.reference()), (server.public(), REFERENCE));
    assert_eq!((accepted.heads(), accepted.count()), (Heads([8; 32]), u64::MAX));
}

#[test]
fn a_revoked_key_is_refused_on_its_next_handshake_and_hears_why() {
    let (client, server) = (key(1), key(2));
    let dial = dial(&client, To::Key(server.public()), TUNNEL, "link").start([4; 32]).unwrap();
    let accept = accept(&server, TUNNEL).on_hello(dial.hello().as_bytes(), [5; 32]).unwrap();
    let dial = dial.on_challenge(accept.challenge().as_bytes()).unwrap().prove(HELD, 3);
    let proven = accept.on_proof(dial.proof().as_bytes()).unwrap();
    let refusal = proven.admit(Standing::Barred(Code::Revoked)).unwrap_err();
    assert_eq!(refusal, Refusal { code: Code::Revoked });
    assert_eq!(refusal.verdict(REFERENCE, false), "no ref=abababababababab");
    assert_eq!(
        dial.on_verdict(refusal.verdict(REFERENCE, true).as_bytes()).unwrap_err(),
        VerdictError::Refused { reference: REFERENCE, code: Some(Code::Revoked) }
    );
}

#[test]
fn any_gateway_means_one_of_those_named_and_over_tls_only() {
    let (client, gateway, stranger) = (key(1), key(2), key(3));
    let named = [gateway.public()];
    let start = |binding| dial(&client, To::AnyOf(&named), binding, "boot").start([4; 32]);
    assert_eq!(start(TUNNEL).unwrap_err(), DialError::AnyNeedsTls);
    let nobody = dial(&client, To::AnyOf(&[]), TLS, "boot").start([4; 32]);
    assert_eq!(nobody.unwrap_err(), DialError::NobodyNamed);

    let answer = |by| {
        let dial = start(TLS).unwrap();
        let accept = accept(by, TLS).on_hello(dial.hello().as_bytes(), [5; 32]).unwrap();
        dial.on_challenge(accept.challenge().as_bytes())
    };
    assert_eq!(answer(&gateway).unwrap().server(), gateway.public());
    let other = ChallengeError::WrongServer { got: Box::new(stranger.public()) };
    assert_eq!(answer(&stranger).unwrap_err(), other);

    let line = start(TLS).unwrap().hello().replace("bind=tls", "bind=wg");
    let refused = accept(&gateway, TUNNEL).on_hello(line.as_bytes(), [5; 32]);
    assert_eq!(refused.unwrap_err(), HelloError::AnyNeedsTls);
}

#[test]
fn asking_for_another_server_looks_the_same_until_the_proof_and_fails_then() {
    let (client, server, other) = (key(1), key(2), key(3));
    let ours = dial(&client, To::Key(server.public()), TUNNEL, "sync").start([4; 32]).unwrap();
    let theirs = dial(&client, To::Key(other.public()), TUNNEL, "sync").start([4; 32]).unwrap();
    let to_us = accept(&server, TUNNEL).on_hello(ours.hello().as_bytes(), [5; 32]).unwrap();
    let to_other = accept(&server, TUNNEL).on_hello(theirs.hello().as_bytes(), [5; 32]).unwrap();
    assert_eq!(to_us.challenge().len(), to_other.challenge().len());

    // A dialler of ours stops at the wrong key; a deviant one, that asks for `other` on the wire and
    // takes whatever answers, proves its key and is turned away all the same.
    let named = [other.public(), server.public()];
    let line = dial(&client, To::AnyOf(&named), TLS, "boot").start([4; 32]).unwrap();
    let misdirected = line.hello().replace("to=any", &format!("to={}", other.public()));
    let accept = accept(&server, TLS).on_hello(misdirected.as_bytes(), [5; 32]).unwrap();
    let proof = deviant::prove(&client, &misdirected, accept.challenge());
    let refused = accept.on_proof(proof.as_bytes()).unwrap_err();
    assert_eq!(refused, ProofError::NotForUs { peer: Box::new(client.public()) });
    assert_eq!(refused.code(), Code::WrongServer);
}

#[test]
fn our_own_key_is_no_peer_on_either_side() {
    let (own, other) = (key(1), key(2));
    let dialled = dial(&own, To::Key(own.public()), TUNNEL, "sync").start([4; 32]);
    assert_eq!(dialled.unwrap_err(), DialError::OwnKey);
    let dial = dial(&own, To::Key(other.public()), TUNNEL, "sync").start([4; 32]).unwrap();
    let reflected = accept(&own, TUNNEL).on_hello(dial.hello().as_bytes(), [5; 32]);
    assert_eq!(reflected.unwrap_err(), HelloError::OwnKey);
    let line = format!(
        "muster-auth/1 pubkey={} challenge={} sig={}",
        own.public(),
        "00".repeat(32),
        "00".repeat(64)
    );
    assert_eq!(dial.on_challenge(line.as_bytes()).unwrap_err(), ChallengeError::OwnKey);
}

#[test]
fn nobody_may_do_what_the_registry_gives_to_others() {
    use Holder::{Admin, BootKey, Member};
    let holders = [None, Some(Member), Some(BootKey), Some(Admin)];
    let may = |action, binding| {
        holders.map(|holder| proven(action, binding).admit(holder.map_or(Standing::Unknown, Standing::Good)))
    };
    let codes = |action, binding| may(action, binding).map(|r| r.err().map(|refusal| refusal.code));
    let (unknown, barred) = (Some(Code::UnknownKey), Some(Code::ActionNotAllowed));

    assert_eq!(codes("enrol", TLS), [None, None, barred, barred]);
    assert_eq!(codes("boot", TLS), [unknown, barred, None, barred]);
    for action in ["submit", "fetch"] {
        assert_eq!(codes(action, TLS), [unknown, barred, barred, None]);
    }
    for action in ["link", "sync", "ping"] {
        assert_eq!(codes(action, TUNNEL), [unknown, None, barred, barred]);
        assert_eq!(codes(action, TLS), [unknown, barred, barred, barred]);
    }
    for action in ["enrol", "boot", "submit", "fetch"] {
        assert_eq!(codes(action, TUNNEL), [unknown, barred, barred, barred]);
    }
    let nothing = Some(Code::ActionUnknown);
    assert_eq!(codes("conquer", TLS), [unknown, nothing, nothing, nothing]);
    assert_eq!(codes("image", TUNNEL), [unknown, nothing, nothing, nothing]);
    // A policy gives it, as it gives a service.
    let unpermitted = Some(Code::NoPolicy);
    assert_eq!(codes("blob-put", TUNNEL), [unknown, unpermitted, unpermitted, unpermitted]);
    assert!(proven("blob-put", TUNNEL).admit(Standing::Permitted).is_ok());
}

#[test]
fn a_service_is_for_members_that_a_policy_lets_use_it() {
    let code = |action, binding, standing| proven(action, binding).admit(standing).map_err(|r| r.code);
    let admitted = code("postgres", TUNNEL, Standing::Permitted).unwrap();
    assert_eq!(admitted.rule().frame_bytes_max, identity::limits::SERVICE_FRAME_BYTES_MAX);
    for holder in [Holder::Member, Holder::BootKey, Holder::Admin] {
        assert_eq!(code("postgres", TUNNEL, Standing::Good(holder)).unwrap_err(), Code::NoPolicy);
    }
    assert_eq!(code("postgres", TUNNEL, Standing::Unknown).unwrap_err(), Code::UnknownKey);
    assert_eq!(code("postgres", TUNNEL, Standing::Barred(Code::Revoked)).unwrap_err(), Code::Revoked);
    assert_eq!(code("postgres", TLS, Standing::Permitted).unwrap_err(), Code::ActionUnknown);
    // No policy gives anybody what is muster's own: a member has its own, and nothing else.
    assert_eq!(code("boot", TUNNEL, Standing::Permitted).unwrap_err(), Code::ActionNotAllowed);
    assert_eq!(code("submit", TLS, Standing::Permitted).unwrap_err(), Code::ActionNotAllowed);
    assert!(code("sync", TUNNEL, Standing::Permitted).is_ok());
}

#[test]
fn a_service_ends_with_its_permission() {
    let admitted = proven("postgres", TUNNEL).admit(Standing::Permitted).unwrap();
    assert_eq!(admitted.recheck(Standing::Permitted), Ok(()));
    let refused = admitted.recheck(Standing::Good(Holder::Member)).unwrap_err();
    assert_eq!(refused.code, Code::NoPolicy);
}

#[test]
fn a_service_has_no_name_of_musters_own() {
    for own in ["sync", "boot", "submit", "blob-get", "blob-put", "image", "", "SSH", "a b"] {
        assert!(ServiceName::parse(own).is_none(), "{own}");
    }
    let long = "x".repeat(32);
    for name in ["ssh", "postgres-main", "-", long.as_str()] {
        assert_eq!(ServiceName::parse(name).unwrap().as_str(), name);
    }
    assert!(ServiceName::parse(&"x".repeat(33)).is_none());
}

#[test]
fn a_bar_comes_before_what_was_asked_for() {
    for action in ["conquer", "enrol", "sync"] {
        let refused = proven(action, TLS).admit(Standing::Barred(Code::Left)).unwrap_err();
        assert_eq!(refused.code, Code::Left, "{action}");
    }
}

#[test]
fn a_session_is_cut_when_its_member_loses_its_place() {
    let admitted = proven("sync", TUNNEL).admit(Standing::Good(Holder::Member)).unwrap();
    assert_eq!(admitted.recheck(Standing::Good(Holder::Member)), Ok(()));
    let refused = Refusal { code: Code::Revoked };
    assert_eq!(admitted.recheck(Standing::Barred(Code::Revoked)), Err(refused));
    // A newcomer becomes a member inside its own enrolment session.
    let admitted = proven("enrol", TLS).admit(Standing::Unknown).unwrap();
    assert_eq!(admitted.recheck(Standing::Good(Holder::Member)), Ok(()));
}

#[test]
fn an_action_has_one_text_form_and_nothing_else_is_one() {
    let action = Action::new("sync", &[("since", "a=b"), ("part", "")]).unwrap();
    assert_eq!(action.to_string(), "sync part= since=a=b");
    assert_eq!(action.parameter("since"), Some("a=b"));
    assert_eq!(action.parameter("until"), None);

    let named = |name: &str| Action::new(name, &[]).unwrap_err();
    for name in ["", "Sync", "sy nc", &"a".repeat(33)] {
        assert_eq!(named(name), ActionError::Name { name: name.to_owned() });
    }
    let with = |pairs: &[(&str, &str)]| Action::new("sync", pairs).unwrap_err();
    for key in ["", "A", "a b", "a=b", "nonce", &"a".repeat(33)] {
        assert_eq!(with(&[(key, "")]), ActionError::Key { key: key.to_owned() });
    }
    for value in ["a b", "\n", "\u{e9}", &"v".repeat(257)] {
        assert_eq!(with(&[("a", value)]), ActionError::Value { key: "a".to_owned() });
    }
    assert_eq!(with(&[("a", "1"), ("a", "2")]), ActionError::Repeated { key: "a".to_owned() });
    assert_eq!(with(&[("a", ""); 17]), ActionError::TooMany { got: 17 });
}

fn proven(action: &str, binding: Binding) -> conn_auth::KeyProven {
    let (client, server) = (key(1), key(2));
    let dial = dial(&client, To::Key(server.public()), binding, action).start([4; 32]).unwrap();
    let accept = accept(&server, binding).on_hello(dial.hello().as_bytes(), [5; 32]).unwrap();
    let dial = dial.on_challenge(accept.challenge().as_bytes()).unwrap().prove(HELD, 3);
    accept.on_proof(dial.proof().as_bytes()).unwrap()
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn dial<'a>(key: &'a SecretKey, to: To<'a>, binding: Binding, action: &str) -> Dial<'a> {
    Dial { org: ORG, key, to, binding, action: Action::new(action, &[]).unwrap() }
}

fn accept(key: &SecretKey, binding: Binding) -> Accept<'_> {
    Accept { org: ORG, key, binding }
}

/// A dialler that signs whatever it is shown, built from the specification and not from the crate.
mod deviant {
    use identity::{HashContext, Label, SecretKey, encode_hex};

    pub(super) fn prove(key: &SecretKey, hello: &str, challenge: &str) -> String {
        let (covered, sig) = challenge.split_once(" sig=").unwrap();
        let lp = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
        let t2 = HashContext::CONN_AUTH_T2.hash(&[
            &lp(&[1; 32]),
            &lp(b"tls"),
            &lp(&[7; 32]),
            &lp(hello.as_bytes()),
            &lp(covered.as_bytes()),
        ]);
        let covered = format!("heads={} count=0", "00".repeat(32));
        let sig: [u8; 64] = identity::decode_hex(sig.as_bytes()).unwrap();
        let t3 = HashContext::CONN_AUTH_T3.hash(&[&t2, &sig, &lp(covered.as_bytes())]);
        format!("{covered} sig={}", encode_hex(&key.sign(Label::CONN_AUTH_CLIENT, &t3).0))
    }
}
