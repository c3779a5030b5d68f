//! BI of gossip, over the session of a member that has turned.

use std::time::Duration;

use conn_auth::Binding;
use identity::{BootNonce, CharterId, Code, Heads, Name, SecretKey};
use member_crdt::{Replica, Session as SyncSession};
use muster_tests::raw::{Message, TEXT, frame};
use org_trust::{
    Admin, Charter, Lane, Payload, Place, Reason, Record, Report, ReportBody, Revoke, Statement,
    UnverifiedCharter, UnverifiedStatement,
};
use tokio::{net::TcpStream, time::timeout};
use transport::{Session, SessionError};

use super::{
    Believed, block_on,
    hold::Hold,
    member::{Hostile, Tunnelled, end_of, keys},
};
use crate::{craft::Craft, harness, mutations::Draw};

/// What becomes of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// It is cut, with this code and a reason.
    Cut(Code),
    /// It is over, as whoever breaks the WebSocket is over.
    Gone,
    /// It goes on, and nothing came of it.
    Kept,
}

/// By chance, on each of three ways.
const SYNC_FRAMES: u32 = 1500;
const HEADS: u32 = 2000;
const PROOFS: u32 = 1000;
/// Before what the process holds is looked at for the first time.
const WARM: u32 = 100;

#[test]
fn nothing_that_a_member_sends_in_sync_changes_the_list_but_what_honest_ones_signed()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 3);
        // For copies of before: this one was good once.
        let gone = keys(&org, 2).identity.expose(SecretKey::from_seed);
        org.stop_musterd(1).unwrap();
        let hostile = Hostile::turned(&org, 1, 0);
        let musterd = org.take_musterd(0).unwrap();
        let (old, base) = org
            .host(1)
            .unwrap()
            .namespace()
            .run(|| {
                block_on(async {
                    let tunnelled = hostile.tunnel().await;
                    let mut old = hostile.replica();
                    tunnelled.follow(&mut old).await;
                    by_chance(&tunnelled, &old, WARM, 1).await;
                    old
                })
            })
            .map(|old| (old, Hold::of(musterd.pid())))
            .unwrap();
        // Nobody else is up to apply it.
        org.muster(0, &["revoke", "n3", "--reason", "lost", "--yes", "--wait", "0"]).unwrap();
        harness::wait_for_state(&org, 0, "n3", "revoked");
        org.stop_musterd(2).unwrap();
        let believed = Believed::of(&org);
        let warned = count_of_warnings(&org);
        let cuts = org
            .host(1)
            .unwrap()
            .namespace()
            .run(|| {
                block_on(async {
                    let tunnelled = hostile.tunnel().await;
                    let cuts = by_name(&tunnelled, &old, &gone).await;
                    by_chance(&tunnelled, &old, SYNC_FRAMES, 2).await;
                    heads_by_chance(&tunnelled, HEADS).await;
                    proofs_by_chance(&tunnelled, PROOFS).await;
                    // And whoever is honest is served as before.
                    let mut new = hostile.replica();
                    tunnelled.follow(&mut new).await;
                    assert!(new.count() > old.count());
                    cuts
                })
            })
            .unwrap();
        assert_eq!(Believed::of(&org), believed);
        assert!(count_of_warnings(&org) >= warned + cuts, "each that was cut stands in the log");
        println!("{} inputs by chance to musterd, none accepted", SYNC_FRAMES + HEADS + PROOFS);
        base.assert_back(musterd.pid(), "musterd");
    })
}

fn count_of_warnings(org: &lab::org::Org) -> usize {
    org.log(0, "musterd").unwrap().lines().filter(|line| line.contains("sync: ")).count()
}

/// The catalogue; how many of it were cut.
async fn by_name(tunnelled: &Tunnelled<'_>, old: &Replica, gone: &SecretKey) -> usize {
    let mut cuts = 0;
    let mut wrong = Vec::new();
    for (name, frames, want) in catalogue(tunnelled.hostile, old, gone) {
        let mut session = tunnelled.session("sync").await;
        for frame in frames {
            // It may be over before all of it is said.
            if session.send(frame).await.is_err() {
                break;
            }
        }
        let seen = if want == Want::Kept && answers(&mut session, old).await {
            Want::Kept
        } else {
            match end_of(&mut session).await {
                Some(SessionError::Closed { status, code: Some(code), reason })
                    if status == transport::CLOSE_CUT && !reason.is_empty() =>
                {
                    cuts += 1;
                    Want::Cut(code)
                }
                Some(_) => Want::Gone,
                None => Want::Kept,
            }
        };
        if seen != want {
            wrong.push(format!("{name}: {want:?} wanted, {seen:?} got"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cuts
}

/// Whether a round is still answered.
async fn answers(session: &mut Session<TcpStream>, list: &Replica) -> bool {
    const TIPS_REPLY: u8 = 2;
    if session.send(SyncSession::new().open(list)).await.is_err() {
        return false;
    }
    let answer = async {
        loop {
            match session.recv().await {
                Ok(frame) if frame.first() == Some(&TIPS_REPLY) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    timeout(Duration::from_secs(5), answer).await.expect("neither answered nor cut")
}

fn catalogue(hostile: &Hostile, old: &Replica, gone: &SecretKey) -> Vec<(&'static str, Vec<Vec<u8>>, Want)> {
    const TIPS: u8 = 1;
    const RECORDS: u8 = 3;
    const MIB: usize = 1 << 20;
    let malformed = Want::Cut(Code::ChangeMalformed);
    let tips = SyncSession::new().open(old);
    let records: Vec<Record> = old.records().collect();
    let statements: Vec<&Record> = records.iter().filter(|r| matches!(r, Record::Statement(_))).collect();
    let reports: Vec<&Record> = records.iter().filter(|r| matches!(r, Record::Report(_))).collect();
    let is_invite = |r: &&&Record| {
        UnverifiedStatement::decode(r.bytes())
            .is_ok_and(|statement| matches!(statement.claimed().payload(), Payload::Invite(_)))
    };
    let good = statements.iter().find(is_invite).unwrap().bytes();
    let flood = |record: &Record| SyncSession::flood(record);
    let statement = |bytes: Vec<u8>| flood(&Record::Statement(bytes));
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        statement(bytes)
    };
    let head = old.chain().head().id();
    let place = |lane, seq, prev| Place { charter: head, lane, seq, prev };
    let signed = |org, key: &SecretKey, place, payload: Payload| {
        statement(Statement::sign(org, key, place, &payload).unwrap().bytes().to_vec())
    };
    let revoke = || {
        let node = SecretKey::from_seed(&[9; 32]).public();
        Payload::Revoke(Revoke { node, reason: Reason::Stolen, note: String::new() })
    };
    // The org's own, which another author signs.
    let invite = || UnverifiedStatement::decode(good).unwrap().claimed().payload().clone();
    let stranger = SecretKey::from_seed(&[7; 32]);
    let first = |lane| place(lane, 0, head.0);
    let report_by = |key: &SecretKey, seq: u64| {
        let body = ReportBody {
            boot_nonce: BootNonce([3; 16]),
            seq,
            heads: Heads([9; 32]),
            count: u64::MAX,
            charter: head,
            tips: vec![],
            version: "9.9.9".to_owned(),
            endpoints: vec![],
        };
        flood(&Record::Report(Report::sign(&hostile.org, key, body).unwrap().bytes().to_vec()))
    };
    let charter_by = |root: &SecretKey| {
        let next = UnverifiedCharter::sign(old.chain().head().charter().successor(), &[root]).unwrap();
        flood(&Record::Charter(next.to_bytes()))
    };
    let other_org = || {
        let name = || Name::parse("demo").unwrap();
        let mut charter = Charter::genesis(name(), 1, vec![stranger.public()], [3; 16]);
        charter.admins = vec![Admin { key: SecretKey::from_seed(&[5; 32]).public(), name: name() }];
        flood(&Record::Charter(UnverifiedCharter::sign(charter, &[&stranger]).unwrap().to_bytes()))
    };
    let told_tips = |n: u16, tip: &dyn Fn(u16) -> [u8; 73]| {
        let mut frame = [&[TIPS][..], &[1; 32], &u64::MAX.to_le_bytes(), &head.0, &n.to_le_bytes()].concat();
        (0..n).for_each(|i| frame.extend(tip(i)));
        frame
    };
    let tip = |author: [u8; 32], seq: u64| {
        let mut tip = [0; 73];
        tip[..32].copy_from_slice(&author);
        tip[33..41].copy_from_slice(&seq.to_le_bytes());
        tip[41..].copy_from_slice(&[4; 32]);
        tip
    };
    // Keys by their seeds: 300 that are real ones.
    let mut authors: Vec<[u8; 32]> = (0..300u16)
        .map(|n| {
            let mut seed = [6; 32];
            seed[..2].copy_from_slice(&n.to_le_bytes());
            *SecretKey::from_seed(&seed).public().as_bytes()
        })
        .collect();
    authors.sort_unstable();
    let author = |n: u16| authors[usize::from(n)];
    // NODES as they should be, of the root: a leaf with nothing in it, and a branch.
    let no_ids = vec![4, 0, 0];
    let a_branch = [&[4, 0, 255][..], &[1; 16 * 16]].concat();
    let nested = [0x78, 0x9c].repeat(200);
    let batch = |parts: &[&[u8]]| [&[RECORDS][..], &parts.concat()].concat();
    let blob = |tag: u8, said: u16, bytes: &[u8]| [&[tag][..], &said.to_le_bytes(), bytes].concat();

    let mut cases = vec![
        ("BI-sync-empty-frame", vec![vec![]], malformed),
        ("BI-sync-garbage", vec![(0..200).map(|n: u8| n.wrapping_mul(37)).collect()], malformed),
        ("BI-sync-unknown-frame-kind", vec![vec![0xee; 40]], malformed),
        ("BI-sync-automerge-document", vec![[&[0x85, 0x6f, 0x4a, 0x83][..], &[0; 64]].concat()], malformed),
        ("BI-sync-automerge-sync-message", vec![[&[0x42][..], &[0; 64]].concat()], malformed),
        ("BI-sync-compression-bomb", vec![nested], malformed),
        ("BI-sync-json", vec![b"{\"records\":[]}".to_vec()], malformed),
        ("BI-sync-frame-one-byte-too-long", vec![vec![RECORDS; 64 * 1024 + 1]], Want::Gone),
        ("BI-sync-frame-of-64-MiB", vec![vec![RECORDS; 64 * MIB]], Want::Gone),
        ("BI-sync-trailing-bytes", vec![[&tips[..], &[0]].concat()], malformed),
        ("BI-sync-cut-short", vec![tips[..tips.len() - 1].to_vec()], malformed),
        ("BI-sync-more-tips-than-a-frame-may-tell", vec![told_tips(513, &|_| tip([2; 32], 0))], malformed),
        ("BI-sync-fewer-tips-than-it-says", vec![tips[..75].to_vec()], malformed),
        ("BI-sync-tips-out-of-order", vec![told_tips(2, &|n| tip(author(1 - n), 0))], malformed),
        ("BI-sync-tips-in-a-circle", vec![told_tips(3, &|n| tip(author(n % 2), 0))], malformed),
        ("BI-sync-tips-of-nobody", vec![told_tips(300, &|n| tip(author(n), u64::MAX))], Want::Kept),
        ("BI-sync-heads-flood", vec![tips.clone(); 40], malformed),
        ("BI-sync-reply-that-nobody-asked-for", vec![[&[2][..], &tips[1..]].concat(); 3], malformed),
        ("BI-sync-node-deeper-than-an-id", vec![[&[4, 64][..], &[1; 40]].concat()], malformed),
        ("BI-sync-node-of-17-ids", vec![[&[4, 0, 17][..], &[1; 17 * 16]].concat()], malformed),
        ("BI-sync-node-not-below-its-prefix", vec![[&[4, 2, 0xab, 1][..], &[0; 16]].concat()], malformed),
        ("BI-sync-nodes-that-nobody-asked-for", vec![no_ids.clone()], malformed),
        ("BI-sync-branch-that-nobody-asked-for", vec![a_branch], malformed),
        ("BI-sync-more-nodes-than-a-round-has", vec![tips.clone(), no_ids.clone(), no_ids], malformed),
        ("BI-sync-frame-kind-of-before", vec![[&[6, 1, 1, 0][..], &[1; 32]].concat()], malformed),
        ("BI-sync-record-of-no-bytes", vec![batch(&[&blob(2, 0, &[])])], malformed),
        ("BI-sync-20000-records-of-no-bytes", vec![batch(&vec![&blob(2, 0, &[])[..]; 20_000])], malformed),
        ("BI-sync-record-longer-than-the-frame", vec![batch(&[&blob(2, 1000, &[1; 10])])], malformed),
        ("BI-sync-record-longer-than-any", vec![batch(&[&blob(2, 8193, &[1; 8193])])], malformed),
        ("BI-sync-unknown-record", vec![batch(&[&blob(9, 4, &[1; 4])])], malformed),
        ("BI-sync-statement-as-a-report", vec![flood(&Record::Report(good.to_vec()))], malformed),
        ("BI-sync-report-as-a-statement", vec![statement(reports[0].bytes().to_vec())], malformed),
        ("BI-sync-statement-as-a-charter", vec![flood(&Record::Charter(good.to_vec()))], malformed),
        ("BI-sync-statement-of-another-format", vec![changed(0, 2)], malformed),
        ("BI-sync-statement-of-unknown-kind", vec![changed(1, 200)], malformed),
        ("BI-sync-statement-in-another-lane", vec![changed(2, 7)], malformed),
        ("BI-sync-statement-with-flags", vec![changed(3, 0xff)], malformed),
    ];
    // What decodes and does not hold. The code is that of the first thing that is wrong.
    let mut refused = |name, frame: Vec<u8>, code| cases.push((name, vec![frame], Want::Cut(code)));
    refused(
        "BI-sync-change-with-a-wrong-signature",
        changed(good.len() - 1, good[good.len() - 1] ^ 1),
        Code::ChangeBadSignature,
    );
    refused(
        "BI-sync-change-with-a-flipped-bit",
        changed(good.len() - 70, good[good.len() - 70] ^ 1),
        Code::ChangeBadSignature,
    );
    let mut anothers = signed(&hostile.org, &stranger, first(Lane::Revokes), revoke());
    anothers[16..48].copy_from_slice(&good[12..44]);
    refused("BI-sync-another-authors-name", anothers, Code::ChangeBadSignature);
    refused(
        "BI-sync-invite-by-a-stranger",
        signed(&hostile.org, &stranger, first(Lane::Main), invite()),
        Code::ChangeNotAuthorised,
    );
    refused(
        "BI-sync-revoke-by-a-stranger",
        signed(&hostile.org, &stranger, first(Lane::Revokes), revoke()),
        Code::ChangeNotAuthorised,
    );
    refused(
        "BI-sync-invite-by-a-member-without-a-role",
        signed(&hostile.org, &hostile.node, first(Lane::Main), invite()),
        Code::ChangeNotAuthorised,
    );
    refused(
        "BI-sync-revoke-by-a-member-without-a-role",
        signed(&hostile.org, &hostile.node, first(Lane::Revokes), revoke()),
        Code::ChangeNotAuthorised,
    );
    refused(
        "BI-sync-revoke-by-a-revoked-member",
        signed(&hostile.org, gone, first(Lane::Revokes), revoke()),
        Code::ChangeNotAuthorised,
    );
    refused("BI-sync-counter-far-ahead", changed(11, 0xff), Code::ChangeBroken);
    let mut overflow = good.to_vec();
    overflow[4..12].fill(0xff);
    refused("BI-sync-counter-2-to-the-64-less-1", statement(overflow), Code::ChangeMalformed);
    let elsewhere = identity::OrgId([5; 32]);
    refused(
        "BI-sync-statement-for-another-org",
        signed(&elsewhere, &hostile.node, first(Lane::Revokes), revoke()),
        Code::ChangeNotAuthorised,
    );
    let unknown = Place { charter: CharterId([6; 32]), lane: Lane::Main, seq: 1, prev: [6; 32] };
    refused("BI-sync-settings-by-a-stranger", charter_by(&stranger), Code::ChartersInvalid);

    let all: Vec<Vec<u8>> = records.iter().map(flood).collect();
    let backwards: Vec<Vec<u8>> = all.iter().rev().cloned().collect();
    let want = [&[5][..], &[1; 16]].concat();
    // These wait in the session for what they build on, a bounded number of them, and are dropped with it.
    let hung = signed(&hostile.org, &stranger, unknown, invite());
    cases.push(("BI-sync-hung-on-what-nobody-holds", vec![hung; 300], Want::Kept));
    cases.push(("BI-sync-settings-of-another-org", vec![other_org()], Want::Kept));
    cases.push(("BI-sync-a-full-copy-of-before", all.clone(), Want::Kept));
    cases.push(("BI-sync-the-same-again", [all.clone(), all].concat(), Want::Kept));
    cases.push(("BI-sync-backwards", backwards, Want::Kept));
    cases.push(("BI-sync-want-of-what-was-not-offered", vec![want], malformed));
    cases.push(("BI-sync-report-of-a-stranger", vec![report_by(&stranger, 1)], Want::Kept));
    cases.push(("BI-sync-report-of-a-revoked-member", vec![report_by(gone, u64::MAX)], Want::Kept));
    cases
}

/// Changes drawn from a seed to what an honest member sends; none is taken for anything else.
async fn by_chance(tunnelled: &Tunnelled<'_>, list: &Replica, inputs: u32, seed: u64) {
    let mut draw = Draw::new(seed);
    let mut honest: Vec<Vec<u8>> = list.records().map(|record| SyncSession::flood(&record)).collect();
    honest.push(SyncSession::new().open(list));
    let mut session: Option<Session<TcpStream>> = None;
    // A side that is asked for a seventeenth round ends the session, honest or not.
    let mut rounds = 0;
    for _ in 0..inputs {
        let chosen = draw.below(honest.len());
        let bad = draw.mutated(&honest[chosen]);
        let mut open = match session.take() {
            Some(open) => open,
            None => tunnelled.session("sync").await,
        };
        drop(open.send(bad).await);
        rounds += 2;
        if answers(&mut open, list).await && rounds < 14 {
            session = Some(open);
        } else {
            rounds = 0;
        }
    }
}

/// Upgrades, changed; then a proof of before.
async fn heads_by_chance(tunnelled: &Tunnelled<'_>, inputs: u32) {
    let mut draw = Draw::new(3);
    let good = muster_tests::raw::upgrade(tunnelled.hostile.hello("sync").as_bytes());
    for round in 0..inputs {
        let mut raw = tunnelled.raw().await;
        let stale = frame(TEXT, true, &[b'0'; 200]);
        drop(raw.bytes(&[draw.mutated(&good), stale].concat()).await);
        raw.shutdown().await;
        let words = timeout(Duration::from_secs(6), raw.rest()).await.expect("left open");
        assert!(!words.windows(7).any(|w| w == b"ok ref="), "{round}");
    }
}

/// Proofs for the very challenge, changed.
async fn proofs_by_chance(tunnelled: &Tunnelled<'_>, inputs: u32) {
    let mut draw = Draw::new(4);
    let hostile = tunnelled.hostile;
    let (hello, binding): (String, Binding) = (hostile.hello("sync"), hostile.binding());
    for round in 0..inputs {
        let mut raw = tunnelled.raw().await;
        raw.send(Message::Hello, hello.as_bytes()).await.unwrap();
        let challenge = String::from_utf8(raw.recv(Message::Challenge).await.unwrap()).unwrap();
        let honest = Craft::honest(&hostile.node, binding, &hello, &challenge);
        let good = Craft { org: hostile.org, ..honest }.proof();
        drop(raw.bytes(&frame(TEXT, true, &draw.mutated(good.as_bytes()))).await);
        raw.shutdown().await;
        let words = timeout(Duration::from_secs(6), raw.rest()).await.expect("left open");
        assert!(!words.windows(7).any(|w| w == b"ok ref="), "{round}");
    }
}
