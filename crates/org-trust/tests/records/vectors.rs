//! `tests/vectors/records-v1.json`: records of every kind, byte for byte, and bytes that are none. A
//! second implementation (`tests/vectors/records.py`) reads the same file.
//!
//! `cargo test -p org-trust --test records -- --ignored` writes the file anew.

use std::{fs, path::PathBuf};

use identity::encode_hex;
use org_trust::*;
use serde_json::{Value, json};

use crate::fixture::*;

const ABOUT: &str = "Records, docs/spec/records.md, invite.md and wire.md. Written by \
     crates/org-trust/tests/records/vectors.rs; bytes are lower-case hexadecimal.";

#[test]
fn the_file_is_what_this_implementation_writes() {
    let kept: Value = serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap();
    let written = generate();
    for list in ["vectors", "malformed"] {
        for (kept, written) in kept[list].as_array().unwrap().iter().zip(written[list].as_array().unwrap()) {
            assert_eq!(kept, written, "{}", written["name"]);
        }
    }
    assert!(kept == written, "the file has another form or number of vectors");
}

#[test]
fn every_vector_is_accepted_and_every_malformed_one_refused_at_its_field() {
    let file = generate();
    for vector in file["vectors"].as_array().unwrap() {
        assert_eq!(fault(vector), None, "{}", vector["name"]);
    }
    for vector in file["malformed"].as_array().unwrap() {
        assert_eq!(fault(vector), vector["field"].as_str(), "{}", vector["name"]);
    }
}

#[test]
#[ignore = "writes tests/vectors/records-v1.json"]
fn write_the_file() {
    let text = serde_json::to_string_pretty(&generate()).unwrap();
    fs::write(path(), text + "\n").unwrap();
}

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/records-v1.json"))
}

/// The field at which this implementation refuses the bytes.
fn fault(vector: &Value) -> Option<&'static str> {
    let bytes = bytes_of(vector);
    let refused = match vector["kind"].as_str().unwrap() {
        "charter" => UnverifiedCharter::decode(&bytes).err(),
        "statement" => UnverifiedStatement::decode(&bytes).err(),
        "report" => UnverifiedReport::decode(&bytes).err(),
        "batch" => Records::decode(&bytes).err(),
        "request" => Request::decode(&bytes).err(),
        "reply" => Reply::decode(&bytes).err(),
        "enrol" => match EnrolRequest::decode(&bytes) {
            Err(EnrolError::Malformed(error)) => Some(error),
            other => other.map(|_| None).unwrap(),
        },
        other => panic!("{other}"),
    };
    refused.map(|error| error.field)
}

fn bytes_of(vector: &Value) -> Vec<u8> {
    let text = vector["bytes"].as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn generate() -> Value {
    let vectors = vectors();
    json!({
        "about": ABOUT,
        "org": org().to_string(),
        "invite_key": key(INVITE).to_string(),
        "malformed": malformed(&vectors),
        "vectors": vectors,
    })
}

fn vectors() -> Vec<Value> {
    let mut vectors = vec![charter("charter: genesis", &sign(genesis_charter(), &[1, 2]))];
    vectors.push(charter("charter: new root keys, a removed admin, two cas", &sign(second(), &[1, 3, 4])));
    let named = [
        "admit by an admin",
        "revoke",
        "cancel",
        "cancel of all",
        "leave",
        "invite",
        "resume",
        "assign",
        "cosign",
        "admit by invite",
        "suspend",
        "rotate",
        "retire",
        "invite with approval",
        "invite for two TPMs",
        "policy",
    ];
    assert_eq!(named.len(), statements().len());
    for (name, made) in named.iter().zip(statements()) {
        vectors.push(statement(&format!("statement: {name}"), &made));
    }
    vectors.push(report_vector("report", &report()));
    let bare = ReportBody { tips: vec![], endpoints: vec![], version: String::new(), ..report_body() };
    let bare = Report::sign(&org(), &secret(NODE), bare).unwrap();
    vectors.push(report_vector("report: of nothing and nowhere", &bare));
    let request = enrol_request();
    vectors.push(vector("enrolment request", "enrol", &request.encode(), None, admit(request.claimed())));
    let records = [Record::from(&genesis()), Record::from(&invite_statement()), Record::from(&report())];
    let batch = Records::encode(&records).unwrap();
    vectors.push(vector("batch", "batch", &batch, None, json!({ "records": batch_fields(&records) })));
    vectors.extend(frames());
    vectors
}

fn second() -> Charter {
    let mut charter = genesis_charter().successor();
    charter.root_keys = [1, 3, 4].map(key).to_vec();
    charter.admins.retain(|admin| admin.key != key(OTHER_ADMIN));
    charter.tls_cas.push(TlsCa { state: CaState::Next, certificate: vec![0x30, 1, 2] });
    let cut = |lane, tip| Cut { key: key(OTHER_ADMIN), lane, tip: identity::StatementId([tip; 32]) };
    charter.cuts = vec![cut(Lane::Main, 5), cut(Lane::Revokes, 4)];
    charter
}

fn frames() -> Vec<Value> {
    let records = [Record::from(&invite_statement())];
    let request = |name: &str, made: &Request, fields| vector(name, "request", &made.encode(), None, fields);
    let reply = |name: &str, made: &Reply, fields| vector(name, "reply", &made.encode(), None, fields);
    let enrol = enrol_request().encode();
    let boot = Request::Boot { charter: genesis().id(), floor: 4 };
    let end = Reply::End { heads: identity::Heads([2; 32]), count: 8 };
    let outcomes = [Outcome::Applied, Outcome::Known, Outcome::Refused(identity::Code::ChangeBroken)];
    vec![
        request(
            "request: enrol",
            &Request::Enrol(enrol.clone()),
            json!({"action": "enrol", "request": encode_hex(&enrol)}),
        ),
        request(
            "request: attest",
            &Request::Attest(Box::new(Offer {
                request: enrol.clone(),
                certificate: vec![0x30, 1, 0],
                key: vec![0, 0x23],
            })),
            json!({
                "action": "attest",
                "request": encode_hex(&enrol),
                "certificate": "300100",
                "key": "0023",
            }),
        ),
        request(
            "request: quote",
            &Request::Quote(Box::new(Quote {
                registers: [[7; 32], [11; 32], [0; 32]],
                attest: vec![0xff, 0x54],
                signature: vec![0, 0x18],
            })),
            json!({
                "action": "quote",
                "registers": [encode_hex(&[7; 32]), encode_hex(&[11; 32]), encode_hex(&[0; 32])],
                "quote": "ff54",
                "signature": "0018",
            }),
        ),
        reply(
            "reply: challenge",
            &Reply::Challenge(Box::new(Challenge { credential: vec![0, 1, 5], seed: vec![6] })),
            json!({"reply": "challenge", "credential": "000105", "seed": "06"}),
        ),
        request(
            "request: boot",
            &boot,
            json!({"action": "boot", "charter": genesis().id().to_string(), "floor": 4}),
        ),
        request(
            "request: share",
            &Request::Share(Box::new(ShareOffer {
                epoch: 2,
                certificate: vec![0x30, 1, 0],
                key: vec![0, 0x23],
            })),
            json!({"action": "share", "epoch": 2, "certificate": "300100", "key": "0023"}),
        ),
        reply(
            "reply: share",
            &Reply::Share(identity::DiskShare::new(&[9; 32])),
            json!({"reply": "share", "share": encode_hex(&[9; 32])}),
        ),
        request(
            "request: submit",
            &Request::Submit(records.to_vec()),
            json!({"action": "submit", "records": batch_fields(&records)}),
        ),
        request(
            "request: fetch everything",
            &Request::Fetch(Select::Everything),
            json!({"action": "fetch", "select": "everything"}),
        ),
        request(
            "request: fetch reports",
            &Request::Fetch(Select::Reports),
            json!({"action": "fetch", "select": "reports"}),
        ),
        request(
            "request: fetch of one author",
            &Request::Fetch(Select::Author(key(ADMIN))),
            json!({"action": "fetch", "author": key(ADMIN).to_string(), "select": "author"}),
        ),
        reply(
            "reply: admitted",
            &Reply::Admitted(records[0].bytes().to_vec()),
            json!({"reply": "admitted", "statement": encode_hex(records[0].bytes())}),
        ),
        reply(
            "reply: records",
            &Reply::Records(records.to_vec()),
            json!({"records": batch_fields(&records), "reply": "records"}),
        ),
        reply("reply: end", &end, json!({"count": 8, "heads": encode_hex(&[2; 32]), "reply": "end"})),
        reply(
            "reply: submitted",
            &Reply::Submitted(Submitted { outcomes: outcomes.to_vec(), told: 4, others: 49 }),
            json!({"others": 49, "outcomes": [0, 1, 2004], "reply": "submitted", "told": 4}),
        ),
        reply(
            "reply: refused",
            &Reply::Refused(identity::Code::InviteUsedUp),
            json!({"code": 3004, "reply": "refused"}),
        ),
    ]
}

/// Bytes that differ from a vector in one place, and the field at which they are refused.
fn malformed(vectors: &[Value]) -> Vec<Value> {
    let mut out = Vec::new();
    let mut add = |of: &str, what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let vector = vectors.iter().find(|vector| vector["name"] == of).unwrap();
        let mut bytes = bytes_of(vector);
        change(&mut bytes);
        let name = format!("{of}: {what}");
        let mut bad = json!({"bytes": encode_hex(&bytes), "kind": vector["kind"], "name": name});
        bad["field"] = json!(fault(&bad).expect(&name));
        out.push(bad);
    };
    for of in vectors {
        let of = of["name"].as_str().unwrap();
        let open_ended = ["request: enrol", "reply: admitted"].contains(&of);
        if !open_ended {
            add(of, "its last byte is missing", &|bytes| bytes.truncate(bytes.len() - 1));
            add(of, "a byte follows", &|bytes| bytes.push(0));
        }
    }
    add("charter: genesis", "another format", &|bytes| bytes[2] = 2);
    add("charter: genesis", "root keys out of order", &|bytes| {
        let at = 2 + 1 + 4 + 32 + 1 + 4 + 2;
        let (first, second) = bytes[at..at + 64].split_at_mut(32);
        first.swap_with_slice(second);
    });
    add("charter: genesis", "an org name with a capital", &|bytes| bytes[40] = b'A');
    add("charter: genesis", "signatures out of order", &|bytes| {
        let at = bytes.len() - 192;
        let (first, second) = bytes[at..].split_at_mut(96);
        first.swap_with_slice(second);
    });
    add("statement: leave", "another format", &|bytes| bytes[0] = 2);
    for kind in [0, 12, 14] {
        add("statement: leave", &format!("kind {kind}"), &|bytes| bytes[1] = kind);
    }
    add("statement: leave", "the other lane", &|bytes| bytes[2] = 1);
    add("statement: leave", "no lane", &|bytes| bytes[2] = 2);
    add("statement: leave", "a flag", &|bytes| bytes[3] = 1);
    add("statement: leave", "not the first", &|bytes| bytes[4] = 1);
    add("statement: revoke", "the main lane", &|bytes| bytes[2] = 0);
    add("statement: revoke", "an unknown reason", &|bytes| bytes[140] = 5);
    add("statement: revoke", "a control character in the note", &|bytes| bytes[142] = 0x1b);
    add("statement: revoke", "a node key off the curve", &|bytes| {
        bytes[108..140].fill(0);
        bytes[108] = 2;
    });
    add("statement: revoke", "a node key of small order", &|bytes| {
        bytes[108..140].fill(0);
        bytes[108] = 1;
    });
    add("statement: invite", "no uses", &|bytes| bytes[140..144].fill(0));
    add("statement: invite", "labels out of order", &|bytes| bytes[178] = b'z');
    add("statement: invite", "a flag", &|bytes| {
        let at = bytes.len() - 66;
        bytes[at] = 4;
    });
    add("statement: invite for two TPMs", "nobody asks them", &|bytes| {
        let at = bytes.len() - 64 - 64 - 2;
        bytes[at] = 0;
    });
    add("statement: invite for two TPMs", "out of order", &|bytes| {
        let at = bytes.len() - 64 - 64;
        bytes[at] = 9;
    });
    add("statement: suspend", "the main lane", &|bytes| bytes[2] = 0);
    add("statement: suspend", "an unknown reason", &|bytes| bytes[140] = 5);
    add("statement: resume", "of no suspension", &|bytes| {
        bytes[140] = 0;
        bytes.drain(141..173);
    });
    add("statement: resume", "of more than sixteen", &|bytes| bytes[140] = 17);
    add("statement: assign", "roles out of order", &|bytes| bytes[148] = b'z');
    add("statement: assign", "labels out of order", &|bytes| bytes[160] = b'z');
    add("statement: assign", "replaced ones out of order", &|bytes| bytes[167] = 0xff);
    add("statement: rotate", "not the first", &|bytes| bytes[4] = 1);
    add("statement: rotate", "the other lane", &|bytes| bytes[2] = 1);
    add("statement: rotate", "a boot key of small order", &|bytes| {
        bytes[172..204].fill(0);
        bytes[172] = 1;
    });
    add("statement: retire", "not the first", &|bytes| bytes[4] = 1);
    add("statement: retire", "a key off the curve", &|bytes| {
        bytes[108..140].fill(0);
        bytes[108] = 2;
    });
    add("statement: policy", "the other lane", &|bytes| bytes[2] = 1);
    add("statement: policy", "number 0", &|bytes| bytes[108..112].fill(0));
    add("statement: policy", "129 rules", &|bytes| bytes[112] = 129);
    add("statement: policy", "a rule from nobody", &|bytes| bytes[113] = 0);
    add("statement: policy", "any, and more", &|bytes| bytes[113] = 2);
    add("statement: policy", "an unknown selector", &|bytes| bytes[114] = 5);
    add("statement: policy", "a rule to nobody", &|bytes| bytes[115] = 0);
    add("statement: policy", "rules out of order", &|bytes| bytes[114] = 9);
    add("statement: admit by an admin", "an unknown assurance", &|bytes| bytes[108 + 128 + 6] = 6);
    add("report", "another format", &|bytes| bytes[0] = 2);
    add("report", "tips out of order", &|bytes| bytes[131] = 0xff);
    add("report", "an unknown address family", &|bytes| {
        let at = bytes.len() - 64 - 19 - 7;
        bytes[at] = 5;
    });
    add("report", "port 0", &|bytes| {
        let at = bytes.len() - 64 - 2;
        bytes[at..at + 2].fill(0);
    });
    add("enrolment request", "no invite", &|bytes| bytes[33..65].fill(0));
    add("batch", "an unknown tag", &|bytes| bytes[0] = 4);
    add("request: boot", "an unknown tag", &|bytes| bytes[0] = 9);
    add("request: fetch reports", "an unknown selection", &|bytes| bytes[1] = 9);
    add("reply: end", "an unknown tag", &|bytes| bytes[0] = 9);
    add("reply: refused", "an unknown code", &|bytes| bytes[1..].fill(0));
    out
}

fn vector(name: &str, kind: &str, bytes: &[u8], id: Option<[u8; 32]>, fields: Value) -> Value {
    let id = id.map(|id| encode_hex(&id));
    json!({"bytes": encode_hex(bytes), "fields": fields, "id": id, "kind": kind, "name": name})
}

fn charter(name: &str, signed: &UnverifiedCharter) -> Value {
    let c = signed.charter();
    let of = |items: Vec<Value>| Value::from(items);
    let fields = json!({
        "version": c.version,
        "parent": c.parent.map(|id| id.to_string()),
        "name": c.name.as_str(),
        "root_threshold": c.root_threshold,
        "root_keys": c.root_keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "revoke_threshold": c.revoke_threshold,
        "admins": of(c.admins.iter().map(|a| json!({"key": a.key.to_string(), "name": a.name.as_str()})).collect()),
        "gateways": of(c.gateways.iter().map(|g| json!({"key": g.key.to_string(), "node": g.node.to_string()})).collect()),
        "tls_cas": of(c.tls_cas.iter().map(|ca| json!({"state": ca.state.as_str(), "certificate": encode_hex(&ca.certificate)})).collect()),
        "cuts": of(c.cuts.iter().map(|cut| json!({"key": cut.key.to_string(), "lane": cut.lane.number(), "tip": cut.tip.to_string()})).collect()),
        "salt": encode_hex(&c.salt),
        "signers": signed.signers().map(ToString::to_string).collect::<Vec<_>>(),
    });
    vector(name, "charter", &signed.to_bytes(), Some(signed.id().0), fields)
}

fn statement(name: &str, statement: &Statement) -> Value {
    let payload = match statement.payload() {
        Payload::Admit(made) => admit(made),
        Payload::Revoke(revoke) => json!({
            "node": revoke.node.to_string(), "reason": revoke.reason.as_str(), "note": revoke.note,
        }),
        Payload::Invite(invite) => json!({
            "key": invite.key.to_string(),
            "uses": invite.uses,
            "redeemer": invite.redeemer.to_string(),
            "labels": invite.labels.iter().map(identity::Tag::as_str).collect::<Vec<_>>(),
            "expires_unix_s": invite.expires_unix_s,
            "note": invite.note,
            "approval": invite.approval,
            "attestation": invite.attestation,
            "tpms": invite.tpms.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        Payload::Cancel(cancel) => json!({
            "invite": cancel.invite.to_string(), "tip": cancel.tip.map(|tip| tip.to_string()),
        }),
        Payload::Leave => json!({}),
        Payload::Suspend(suspend) => json!({
            "node": suspend.node.to_string(), "reason": suspend.reason.as_str(), "note": suspend.note,
        }),
        Payload::Resume(resume) => json!({
            "node": resume.node.to_string(), "suspends": texts(&resume.suspends),
        }),
        Payload::Assign(assign) => json!({
            "node": assign.node.to_string(),
            "name": assign.name.as_str(),
            "roles": texts(&assign.roles),
            "labels": texts(&assign.labels),
            "replaces": texts(&assign.replaces),
        }),
        Payload::Rotate(rotate) => json!({
            "old": rotate.old.to_string(),
            "node": rotate.node.to_string(),
            "wireguard": rotate.wireguard.to_string(),
            "boot": rotate.boot.to_string(),
        }),
        Payload::Retire(retire) => json!({ "old": retire.old.to_string() }),
        Payload::Cosign(cosign) => json!({ "target": cosign.target.to_string() }),
        Payload::Policy(change) => json!({
            "number": change.number,
            "rules": change.policy.rules().iter().map(|rule| json!({
                "from": rule.from().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "to": rule.to().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "actions": rule.actions().iter().map(ToString::to_string).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        }),
    };
    let fields = json!({
        "kind": statement.payload().kind(),
        "lane": statement.lane().number(),
        "seq": statement.seq(),
        "author": statement.author().to_string(),
        "charter": statement.charter().to_string(),
        "prev": encode_hex(&statement.prev()),
        "payload": payload,
    });
    vector(name, "statement", statement.bytes(), Some(statement.id().0), fields)
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn admit(admit: &Admit) -> Value {
    json!({
        "node": admit.node.to_string(),
        "wireguard": admit.wireguard.to_string(),
        "boot": admit.boot.to_string(),
        "invite": admit.invite.map(|id| id.to_string()),
        "redeemer": admit.redeemer.to_string(),
        "name": admit.name.as_str(),
        "assurance": admit.assurance.as_str(),
        "attestation": encode_hex(&admit.attestation),
    })
}

fn report_vector(name: &str, report: &Report) -> Value {
    let body = report.body();
    let tips = body.tips.iter().map(|tip| {
        json!({"author8": encode_hex(&tip.author8), "lane": tip.lane.number(), "seq": tip.seq, "id8": encode_hex(&tip.id8)})
    });
    let fields = json!({
        "node": report.node().to_string(),
        "boot_nonce": body.boot_nonce.to_string(),
        "seq": body.seq,
        "heads": body.heads.to_string(),
        "count": body.count,
        "charter": body.charter.to_string(),
        "tips": tips.collect::<Vec<_>>(),
        "version": body.version,
        "endpoints": body.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    vector(name, "report", report.bytes(), Some(report.id()), fields)
}

fn batch_fields(records: &[Record]) -> Value {
    let record = |record: &Record| {
        let kind = match record {
            Record::Charter(_) => "charter",
            Record::Statement(_) => "statement",
            Record::Report(_) => "report",
        };
        json!({"bytes": encode_hex(record.bytes()), "id": encode_hex(&record.id()), "kind": kind})
    };
    records.iter().map(record).collect()
}
