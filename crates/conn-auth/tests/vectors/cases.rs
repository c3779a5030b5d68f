//! Well-formed handshakes: those that pass, and those that somebody or something turned.

use identity::{Label, PublicKey, SecretKey, decode_hex, encode_hex};

use crate::{
    format::{Acceptor, Channel, Dialler, Outcome, Vector, Wanted, bytes},
    spec::{self, Twist},
};

pub(crate) const CLIENT: u8 = 0x10;
pub(crate) const SERVER: u8 = 0x30;
const OTHER: u8 = 0x50;

pub(crate) fn all() -> Vec<Vector> {
    let mut out = Vec::new();
    good(&mut out);
    standing(&mut out);
    changed_in_flight(&mut out);
    other_surroundings(&mut out);
    wrong_server(&mut out);
    bad_signatures(&mut out);
    bad_keys(&mut out);
    out
}

fn good(out: &mut Vec<Vector>) {
    let mut pass = |name: &str, parties: (Dialler, Acceptor)| {
        out.push(play(name, parties, "accepted", "admitted"));
    };
    pass("tunnel: sync between two members", tunnel("sync"));
    pass("tunnel: link", tunnel("link"));
    pass("tunnel: ping", tunnel("ping"));
    pass("tls: a returning boot names its gateway", tls("boot", "boot-key"));
    pass(
        "tls: a returning boot takes any gateway of three",
        any_of(tls("boot", "boot-key"), &[OTHER, SERVER, 0x70]),
    );
    pass("tls: a newcomer enrols at any gateway", any_of(tls("enrol", "unknown"), &[SERVER]));
    pass("tls: a member asks again for its enrolment", tls("enrol", "member"));
    pass("tls: an admin submits", tls("submit", "admin"));
    pass("tls: an admin fetches", tls("fetch", "admin"));
    pass("parameters are sorted by the dialler", with(tunnel("sync"), &[("since", "17"), ("part", "a")]));
    pass("tunnel: a program's service that a policy lets the member use", permitted(tunnel("postgres-main")));
    pass("a value may be empty and may hold equals signs", with(tunnel("sync"), &[("a", ""), ("b", "=x=")]));
    let sixteen: Vec<_> = (0..16).map(|i| (format!("k{i:02}"), "!~".to_owned())).collect();
    let (mut dialler, acceptor) = tunnel("sync");
    dialler.parameters.clone_from(&sixteen);
    pass("sixteen parameters", (dialler, acceptor));
    pass("HELLO of 1024 bytes", hello_of(1024));
    for count in [0, u64::MAX] {
        let (mut dialler, mut acceptor) = tunnel("sync");
        (dialler.count, acceptor.count) = (count, count);
        pass(&format!("a count of {count} on both sides"), (dialler, acceptor));
    }
}

fn permitted((dialler, acceptor): (Dialler, Acceptor)) -> (Dialler, Acceptor) {
    (dialler, Acceptor { standing: "permitted".to_owned(), ..acceptor })
}

fn standing(out: &mut Vec<Vector>) {
    let mut refuse = |name: &str, (dialler, mut acceptor): (Dialler, Acceptor), standing: &str| {
        acceptor.standing = standing.to_owned();
        out.push(play(name, (dialler, acceptor), "verdict refused", "admit refused"));
    };
    refuse("a revoked member", tunnel("link"), "MU-1403");
    refuse("a member that left asks to enrol again", tls("enrol", "member"), "MU-1405");
    refuse("a key that two members claim", tunnel("sync"), "MU-1406");
    refuse("the key of another tunnel", tunnel("sync"), "MU-1409");
    refuse("a busy member", tunnel("sync"), "MU-1411");
    refuse("a revoked boot key", tls("boot", "boot-key"), "MU-1403");
    refuse("a revoked key with an action that is not there", tunnel("conquer"), "MU-1403");
    refuse("a stranger", tunnel("sync"), "unknown");
    refuse("a stranger over tls", tls("fetch", "admin"), "unknown");
    refuse("a stranger with an action that is not there", tunnel("conquer"), "unknown");
    refuse("a member with a service that no policy lets it use", tunnel("conquer"), "member");
    refuse("a boot key with a service", tunnel("conquer"), "boot-key");
    refuse("a name that is kept for later", tunnel("image"), "permitted");
    refuse("a member with a put that no policy gives it", tunnel("blob-put"), "member");
    refuse("a service over tls", tls("conquer", "member"), "permitted");
    refuse("a boot key in a tunnel", tunnel("sync"), "boot-key");
    refuse("an admin key in a tunnel", tunnel("link"), "admin");
    refuse("a member that would boot", tls("boot", "boot-key"), "member");
    refuse("a boot key that would submit", tls("submit", "admin"), "boot-key");
    refuse("an admin key that would enrol", tls("enrol", "unknown"), "admin");
    refuse("a member's sync over tls", tls("sync", "member"), "member");
    refuse("a boot inside a tunnel", tunnel("boot"), "boot-key");
    refuse("an enrolment inside a tunnel", tunnel("enrol"), "unknown");
}

/// One field at a time, to another good value.
fn changed_in_flight(out: &mut Vec<Vector>) {
    let other = public(OTHER).to_string();
    let hello = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        tampered(with(tunnel("sync"), &[("part", "a")]), Message::Hello, move |line| {
            replaced(line, &from, &to)
        })
    };
    let mut turn = |field: &str, (dialler, acceptor): (Dialler, Acceptor), client: &str, server: &str| {
        out.push(vector(&format!("changed in flight: {field}"), dialler, acceptor, client, server));
    };
    let (client, server) = (public(CLIENT).to_string(), public(SERVER).to_string());
    turn("HELLO pubkey", hello(&client, &other), "challenge proof-wrong", "open");
    turn("HELLO to", hello(&server, &other), "challenge proof-wrong", "open");
    turn("HELLO nonce", hello("nonce=60", "nonce=61"), "challenge proof-wrong", "open");
    turn("HELLO bind", hello("bind=wg", "bind=tls"), "challenge refused", "hello binding-mismatch");
    turn("HELLO action", hello("action=sync", "action=link"), "challenge proof-wrong", "open");
    turn("HELLO value", hello("part=a", "part=b"), "challenge proof-wrong", "open");
    turn("HELLO parameter added", hello("part=a", "part=a q="), "challenge proof-wrong", "open");
    turn("HELLO parameter removed", hello(" part=a", ""), "challenge proof-wrong", "open");
    let version = hello("muster-auth/1", "muster-auth/2");
    turn("HELLO version", version, "challenge refused", "hello malformed version version");

    let challenge = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        tampered(tunnel("sync"), Message::Challenge, move |line| replaced(line, &from, &to))
    };
    turn("CHALLENGE pubkey", challenge(&server, &other), "challenge wrong-server", "open");
    let fresh = challenge("challenge=80", "challenge=81");
    turn("CHALLENGE challenge", fresh, "challenge proof-wrong", "open");
    let version = challenge("muster-auth/1", "muster-auth/2");
    turn("CHALLENGE version", version, "challenge malformed version version", "open");
    let signature = tampered(tunnel("sync"), Message::Challenge, flipped_last_digit);
    turn("CHALLENGE sig", signature, "challenge proof-wrong", "open");

    let proof = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        tampered(tunnel("sync"), Message::Proof, move |line| replaced(line, &from, &to))
    };
    turn("PROOF heads", proof("heads=90", "heads=91"), "verdict refused", "proof wrong");
    turn("PROOF count", proof("count=3", "count=4"), "verdict refused", "proof wrong");
    let signature = tampered(tunnel("sync"), Message::Proof, flipped_last_digit);
    turn("PROOF sig", signature, "verdict refused", "proof wrong");
    let no = tampered(tunnel("sync"), Message::Verdict, |_| "no ref=c0c1c2c3c4c5c6c7".to_owned());
    turn("VERDICT: the channel's work to prevent, not the handshake's", no, "verdict refused", "admitted");
}

/// The two ends do not see one org and one channel.
fn other_surroundings(out: &mut Vec<Vector>) {
    let mut apart =
        |name: &str, (dialler, mut acceptor): (Dialler, Acceptor), turn: &dyn Fn(&mut Acceptor)| {
            turn(&mut acceptor);
            out.push(play(name, (dialler, acceptor), "challenge proof-wrong", "open"));
        };
    apart("the acceptor belongs to another org", tunnel("sync"), &|a| a.org = pattern(0x01));
    apart("two tls connections with a relay between them", tls("boot", "boot-key"), &|a| {
        a.channel = Channel::Tls { exporter: pattern(0xb8) };
    });
    let wg = |client, server| Channel::WireGuard { client: pattern(client), server: pattern(server) };
    apart("the tunnel's client is another", tunnel("sync"), &|a| a.channel = wg(0xa1, 0xa8));
    apart("the tunnel's server is another", tunnel("sync"), &|a| a.channel = wg(0xa0, 0xa9));
    apart("the tunnel's ends are exchanged", tunnel("sync"), &|a| a.channel = wg(0xa8, 0xa0));
    let (dialler, mut acceptor) = tunnel("sync");
    acceptor.channel = Channel::Tls { exporter: pattern(0xb0) };
    let name = "a handshake for a tunnel arrives over tls";
    out.push(play(name, (dialler, acceptor), "challenge refused", "hello binding-mismatch"));

    // Both ends alike, but the PROOF comes from another handshake of the same two keys.
    for (name, turn) in [
        ("a PROOF replayed to another challenge", (|a: &mut Acceptor| a.fresh = pattern(0x81)) as fn(&mut _)),
        ("a PROOF replayed on another channel", |a| a.channel = Channel::Tls { exporter: pattern(0xb8) }),
        ("a PROOF replayed in another org", |a| a.org = pattern(0x01)),
    ] {
        let (_, seen) = perform(tls("boot", "boot-key"), None);
        let (_, mut acceptor) = tls("boot", "boot-key");
        (acceptor.hello, acceptor.proof) = (seen.hello, seen.proof);
        turn(&mut acceptor);
        out.push(acceptor_only(name, acceptor, "proof wrong"));
    }
}

fn wrong_server(out: &mut Vec<Vector>) {
    let (dialler, mut acceptor) = tunnel("sync");
    acceptor.seed = pattern(OTHER);
    out.push(play("another member answers", (dialler, acceptor), "challenge wrong-server", "open"));
    let parties = any_of(tls("boot", "boot-key"), &[OTHER, 0x70]);
    out.push(play("a server that is no gateway of the org", parties, "challenge wrong-server", "open"));

    let (mut dialler, _) = tunnel("sync");
    dialler.to = Wanted::Key(public(CLIENT).to_string());
    out.push(dialler_only("dialling one's own key", dialler, "start own-key"));
    let (mut dialler, _) = any_of(tls("boot", "boot-key"), &[SERVER]);
    dialler.channel = tunnel("sync").0.channel;
    out.push(dialler_only("any gateway in a tunnel", dialler, "start any-needs-tls"));
    let (dialler, _) = any_of(tls("boot", "boot-key"), &[]);
    out.push(dialler_only("any gateway of none", dialler, "start nobody-named"));
    out.push(dialler_only("HELLO of 1025 bytes", hello_of(1025).0, "start too-long"));

    let (dialler, acceptor) = tunnel("sync");
    let any =
        replaced(&dialler.replay().hello.unwrap_or_default(), &format!("to={}", public(SERVER)), "to=any");
    out.push(acceptor_only("to=any in a tunnel", Acceptor { hello: any, ..acceptor }, "hello any-needs-tls"));

    let (dialler, mut acceptor) = tunnel("sync");
    acceptor.seed = pattern(CLIENT);
    let name = "reflection: HELLO comes back to its sender";
    out.push(play(name, (dialler, acceptor), "challenge refused", "hello own-key"));
    let (dialler, acceptor) = tampered(tunnel("sync"), Message::Challenge, |line| {
        replaced(line, &public(SERVER).to_string(), &public(CLIENT).to_string())
    });
    out.push(vector(
        "reflection: CHALLENGE by one's own key",
        dialler,
        acceptor,
        "challenge own-key",
        "open",
    ));

    // A deviant dialler asks for another server and proves its key to whoever answers.
    let (dialler, mut acceptor) = tunnel("sync");
    let hello = dialler.replay().hello.unwrap_or_default();
    acceptor.hello = replaced(&hello, &public(SERVER).to_string(), &public(OTHER).to_string());
    acceptor.proof = Some(forged_proof(&acceptor, CLIENT, Twist::None));
    out.push(acceptor_only("HELLO asks for another server", acceptor, "proof not-for-us"));
}

fn bad_signatures(out: &mut Vec<Vector>) {
    for (what, twist) in [
        ("under the client's label", Twist::OtherLabel),
        ("without a label", Twist::Bare),
        ("with S + L", Twist::Unreduced),
        ("with R of small order", Twist::SmallR),
    ] {
        let (dialler, acceptor) = tampered(tunnel("sync"), Message::Challenge, |line| {
            let (dialler, acceptor) = tunnel("sync");
            let hello = dialler.replay().hello.unwrap_or_default();
            let t2 =
                spec::t2(&org(&acceptor), &acceptor.channel.binding(), hello.as_bytes(), line.as_bytes());
            let signature = spec::sign(&bytes(&acceptor.seed), Label::CONN_AUTH_SERVER, &t2, twist);
            with_signature(line, &signature)
        });
        let name = format!("CHALLENGE signed {what}");
        out.push(vector(&name, dialler, acceptor, "challenge proof-wrong", "open"));
    }
    for (what, by, twist) in [
        ("under the server's label", CLIENT, Twist::OtherLabel),
        ("without a label", CLIENT, Twist::Bare),
        ("with S + L", CLIENT, Twist::Unreduced),
        ("with R of small order", CLIENT, Twist::SmallR),
        ("by another key", OTHER, Twist::None),
        ("by the server", SERVER, Twist::None),
    ] {
        let (dialler, mut acceptor) = tunnel("sync");
        acceptor.hello = dialler.replay().hello.unwrap_or_default();
        acceptor.proof = Some(forged_proof(&acceptor, by, twist));
        out.push(acceptor_only(&format!("PROOF signed {what}"), acceptor, "proof wrong"));
    }
    let zeros = [0; 64];
    let (d, a) = tampered(tunnel("sync"), Message::Challenge, move |line| with_signature(line, &zeros));
    out.push(vector("CHALLENGE signed with zeros", d, a, "challenge proof-wrong", "open"));
    let (d, a) = tampered(tunnel("sync"), Message::Proof, move |line| with_signature(line, &zeros));
    out.push(vector("PROOF signed with zeros", d, a, "verdict refused", "proof wrong"));

    // The signature over the bare 32 bytes of the challenge, as the first wire had it.
    let (dialler, mut acceptor) = tunnel("sync");
    acceptor.hello = dialler.replay().hello.unwrap_or_default();
    let raw =
        spec::sign(&bytes(&pattern(CLIENT)), Label::CONN_AUTH_CLIENT, &bytes(&acceptor.fresh), Twist::Bare);
    acceptor.proof = Some(with_signature(&forged_proof(&acceptor, CLIENT, Twist::None), &raw));
    out.push(acceptor_only("PROOF signed over the bare challenge", acceptor, "proof wrong"));
}

fn bad_keys(out: &mut Vec<Vector>) {
    let mut keys: Vec<(String, [u8; 32])> = Vec::new();
    for (i, point) in curve25519_dalek::constants::EIGHT_TORSION.iter().enumerate() {
        keys.push((format!("of small order, {i}"), point.compress().to_bytes()));
    }
    let p_plus = |n: u8, sign: u8| {
        let mut key = [0xff; 32];
        (key[0], key[31]) = (0xed + n, 0x7f | sign);
        key
    };
    let mut identity_with_sign = [0; 32];
    (identity_with_sign[0], identity_with_sign[31]) = (1, 0x80);
    let mut minus_one_with_sign = p_plus(0, 0x80);
    minus_one_with_sign[0] = 0xec;
    keys.push(("with y = p".to_owned(), p_plus(0, 0)));
    keys.push(("with y = p + 1".to_owned(), p_plus(1, 0)));
    keys.push(("with y = p + 3".to_owned(), p_plus(3, 0)));
    keys.push(("with x = 0 and its sign set".to_owned(), identity_with_sign));
    keys.push(("with y = -1 and a sign".to_owned(), minus_one_with_sign));
    let mut off = [0; 32];
    off[0] = 2;
    keys.push(("off the curve".to_owned(), off));
    for (what, key) in keys {
        let (dialler, acceptor) = tunnel("sync");
        let hello = dialler.replay().hello.unwrap_or_default();
        let hello = replaced(&hello, &public(CLIENT).to_string(), &encode_hex(&key));
        let acceptor = Acceptor { hello, ..acceptor };
        out.push(acceptor_only(
            &format!("HELLO with a key {what}"),
            acceptor,
            "hello malformed pubkey bad-key",
        ));
        let (dialler, _) = tampered(tunnel("sync"), Message::Challenge, |line| {
            replaced(line, &public(SERVER).to_string(), &encode_hex(&key))
        });
        let name = format!("CHALLENGE with a key {what}");
        out.push(dialler_only(&name, dialler, "challenge malformed pubkey bad-key"));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    Hello,
    Challenge,
    Proof,
    Verdict,
}

type Tamper<'a> = (Message, &'a dyn Fn(&str) -> String);

/// Runs both sides against each other, with somebody in between who may turn one message.
fn perform(
    (mut dialler, mut acceptor): (Dialler, Acceptor),
    turn: Option<Tamper<'_>>,
) -> (Dialler, Acceptor) {
    let pass = |message, line: &str| match turn {
        Some((at, how)) if at == message => how(line),
        Some(_) | None => line.to_owned(),
    };
    dialler = dialler.replay();
    if let Some(hello) = &dialler.hello {
        acceptor.hello = pass(Message::Hello, hello);
        acceptor = acceptor.replay();
        // A refusal stands in the place of the message that was awaited.
        let answer = acceptor.challenge.as_ref().or(acceptor.verdict.as_ref());
        dialler.challenge = answer.map(|line| pass(Message::Challenge, line));
        dialler = dialler.replay();
    }
    if let Some(proof) = &dialler.proof {
        acceptor.proof = Some(pass(Message::Proof, proof));
        acceptor = acceptor.replay();
        dialler.verdict = acceptor.verdict.as_ref().map(|line| pass(Message::Verdict, line));
        dialler = dialler.replay();
    }
    (dialler, acceptor)
}

pub(crate) fn tampered(
    parties: (Dialler, Acceptor),
    at: Message,
    how: impl Fn(&str) -> String,
) -> (Dialler, Acceptor) {
    perform(parties, Some((at, &how)))
}

fn play(name: &str, parties: (Dialler, Acceptor), client: &str, server: &str) -> Vector {
    let (dialler, acceptor) = perform(parties, None);
    vector(name, dialler, acceptor, client, server)
}

fn vector(name: &str, dialler: Dialler, acceptor: Acceptor, client: &str, server: &str) -> Vector {
    assert_eq!(dialler.outcome.to_string(), client, "{name}: dialler");
    assert_eq!(acceptor.outcome.to_string(), server, "{name}: acceptor");
    Vector { name: name.to_owned(), dialler: Some(dialler), acceptor: Some(acceptor) }
}

pub(crate) fn dialler_only(name: &str, dialler: Dialler, want: &str) -> Vector {
    let dialler = dialler.replay();
    assert_eq!(dialler.outcome.to_string(), want, "{name}: dialler");
    Vector { name: name.to_owned(), dialler: Some(dialler), acceptor: None }
}

pub(crate) fn acceptor_only(name: &str, acceptor: Acceptor, want: &str) -> Vector {
    let acceptor = acceptor.replay();
    assert_eq!(acceptor.outcome.to_string(), want, "{name}: acceptor");
    Vector { name: name.to_owned(), dialler: None, acceptor: Some(acceptor) }
}

/// A member dials a member.
pub(crate) fn tunnel(action: &str) -> (Dialler, Acceptor) {
    let channel = Channel::WireGuard { client: pattern(0xa0), server: pattern(0xa8) };
    parties(action, "member", channel)
}

fn tls(action: &str, standing: &str) -> (Dialler, Acceptor) {
    parties(action, standing, Channel::Tls { exporter: pattern(0xb0) })
}

fn parties(action: &str, standing: &str, channel: Channel) -> (Dialler, Acceptor) {
    let dialler = Dialler {
        org: pattern(0x00),
        seed: pattern(CLIENT),
        to: Wanted::Key(public(SERVER).to_string()),
        channel: channel.clone(),
        action: action.to_owned(),
        parameters: Vec::new(),
        nonce: pattern(0x60),
        heads: pattern(0x90),
        count: 3,
        hello: None,
        challenge: None,
        t2: None,
        proof: None,
        t3: None,
        verdict: None,
        outcome: Outcome::Open,
    };
    let acceptor = Acceptor {
        org: pattern(0x00),
        seed: pattern(SERVER),
        channel,
        fresh: pattern(0x80),
        standing: standing.to_owned(),
        reference: "c0c1c2c3c4c5c6c7".to_owned(),
        heads: pattern(0x98),
        count: 4,
        hello: String::new(),
        challenge: None,
        t2: None,
        proof: None,
        t3: None,
        verdict: None,
        outcome: Outcome::Open,
    };
    (dialler, acceptor)
}

fn with((mut dialler, acceptor): (Dialler, Acceptor), parameters: &[(&str, &str)]) -> (Dialler, Acceptor) {
    dialler.parameters = parameters.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    (dialler, acceptor)
}

fn any_of((mut dialler, acceptor): (Dialler, Acceptor), keys: &[u8]) -> (Dialler, Acceptor) {
    dialler.to = Wanted::AnyOf(keys.iter().map(|&key| public(key).to_string()).collect());
    (dialler, acceptor)
}

/// A handshake whose HELLO has exactly this many bytes.
fn hello_of(length: usize) -> (Dialler, Acceptor) {
    let shape = |last: usize| {
        let mut parties = tunnel("sync");
        let long =
            [("a", 256), ("b", 256), ("c", 128), ("d", last)].map(|(k, n)| (k.to_owned(), "v".repeat(n)));
        parties.0.parameters = long.to_vec();
        parties
    };
    let short = shape(0).0.replay().hello.unwrap_or_default().len();
    shape(length - short)
}

/// 32 bytes that count up from `first`, so that no two parts of a transcript look alike.
fn pattern(first: u8) -> String {
    let mut next = first;
    let count = [(); 32].map(|()| {
        next = next.wrapping_add(1);
        next.wrapping_sub(1)
    });
    encode_hex(&count)
}

pub(crate) fn public(first: u8) -> PublicKey {
    SecretKey::from_seed(&bytes(&pattern(first))).public()
}

pub(crate) fn replaced(line: &str, from: &str, to: &str) -> String {
    let out = line.replacen(from, to, 1);
    assert_ne!(out, line, "{from:?} does not stand in {line:?}");
    out
}

fn flipped_last_digit(line: &str) -> String {
    let (head, last) = line.split_at(line.len() - 1);
    format!("{head}{}", if last == "0" { "1" } else { "0" })
}

fn with_signature(line: &str, signature: &[u8; 64]) -> String {
    format!("{} sig={}", &line[..line.len() - 133], encode_hex(signature))
}

fn org(acceptor: &Acceptor) -> identity::OrgId {
    identity::OrgId(bytes(&acceptor.org))
}

/// A PROOF over what the acceptor sees, by `by` and with a twist; straight from the specification.
fn forged_proof(acceptor: &Acceptor, by: u8, twist: Twist) -> String {
    let challenge = acceptor.replay().challenge.unwrap_or_default();
    let covered = format!("heads={} count=3", pattern(0x90));
    let unsigned = with_signature(&format!("{covered}{}", " ".repeat(133)), &[0; 64]);
    let binding = acceptor.channel.binding();
    let t2 = spec::t2(&org(acceptor), &binding, acceptor.hello.as_bytes(), challenge.as_bytes());
    let t3 = spec::t3(&t2, challenge.as_bytes(), unsigned.as_bytes());
    let seed = decode_hex(pattern(by).as_bytes()).unwrap();
    with_signature(&unsigned, &spec::sign(&seed, Label::CONN_AUTH_CLIENT, &t3, twist))
}
