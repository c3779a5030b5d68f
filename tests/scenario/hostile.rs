//! A member that says what no member says: automerge's own bytes, which brick or fill whatever merges them.

use std::{num::NonZeroU64, time::Duration};

use automerge::{
    ActorId, AutoCommit, Change, ChangeHash, ExpandedChange, ROOT, ReadDoc as _, ScalarValue,
    sync::{Message, MessageVersion, State, SyncDoc as _},
    transaction::Transactable as _,
};
use control::local::{Answer, Request};
use lab::org::Org;

use crate::harness::{self, within};

/// A frame of sync and a record of the same, as large as may be.
const FRAME_BYTES_MAX: usize = 64 * 1024;
const RECORD_BYTES_MAX: usize = 0xffff;
/// Bytes that a chunk within one frame inflates to.
const BOMB: usize = 40 << 20;

#[test]
fn five_attacks_on_automerge_said_by_a_member_change_nothing() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 3);
        let (id, targets) = (harness::id(&org, 0), harness::targets(&org, &[1]));
        org.stop_musterd(2).unwrap();
        let frames = frames(&id);
        let victim = org.take_musterd(1).unwrap();
        let before = quiet(&org, 1);
        let memory = resident(victim.pid());

        let said = org.say(2, &id, &targets, &frames).unwrap();
        assert_eq!(said.len(), frames.len(), "{said:?}");
        for line in &said {
            let ended = (line["outcome"].as_str(), line["code"].as_str());
            let refused = matches!(ended, (Some("closed"), Some("MU-2001")));
            assert!(refused, "{line} {:?}", &frames[number(line)][..24.min(frames[number(line)].len())]);
        }
        assert_eq!(quiet(&org, 1), before, "what is held, and the file");
        let grown = resident(victim.pid()).saturating_sub(memory);
        println!("{} frames, {grown} KiB more", frames.len());
        assert!(grown < 32 * 1024, "{grown} KiB more after {} frames", frames.len());

        // Its next commit: a change arrives, is written, and is read back by a daemon that starts anew.
        org.muster(0, &["revoke", "n3", "--wait", "1", "--yes"]).unwrap().ok().unwrap();
        harness::wait_for_state(&org, 1, "n3", "revoked");
        let both = within(Duration::from_secs(60), "both hold the same", || {
            let [a, b] = [0, 1].map(|node| held(&org, node));
            (a == b).then_some(a)
        });
        drop(victim);
        org.start_musterd(1).unwrap();
        harness::wait_for_state(&org, 1, "n3", "revoked");
        let again = held(&org, 1);
        assert!(again.1 >= both.1, "{again:?} {both:?}");
    })
}

fn number(line: &serde_json::Value) -> usize {
    usize::try_from(line["frame"].as_u64().unwrap()).unwrap()
}

/// Heads and how many records.
fn held(org: &Org, node: usize) -> (String, u64) {
    let Answer::Status(status) = harness::control(org, node, &Request::Status {}) else {
        panic!("no status")
    };
    let org = status.org.unwrap();
    (org.heads.to_string(), org.records)
}

/// What a machine holds and its file, once neither has changed for three seconds.
fn quiet(org: &Org, node: usize) -> ((String, u64), Vec<u8>) {
    let file = org.host(node).unwrap().dir().join("state/store/members");
    let state = || (held(org, node), std::fs::read(&file).unwrap());
    let mut last = (state(), std::time::Instant::now());
    within(Duration::from_secs(60), "nothing changes any more", || {
        let now = state();
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(3)).then(|| last.0.clone())
    })
}

/// KiB in memory of a process.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Every attack as a change and as a message of automerge's sync, each in every kind of frame and record.
fn frames(org: &str) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for chunks in attacks(org) {
        let message = Message {
            heads: vec![],
            need: vec![],
            have: vec![],
            changes: chunks.clone().into(),
            flags: None,
            version: MessageVersion::V1,
        };
        for bytes in [chunks.concat(), message.encode()] {
            assert!(bytes.len() < FRAME_BYTES_MAX - 4, "{}", bytes.len());
            frames.push(bytes.clone());
            for kind in 0..8u8 {
                frames.push([&[kind][..], &bytes].concat());
            }
            let record = &bytes[..bytes.len().min(RECORD_BYTES_MAX - 4)];
            let length = u16::try_from(record.len()).unwrap().to_le_bytes();
            for tag in 1..=3u8 {
                frames.push([&[3, tag][..], &length, record].concat());
            }
        }
    }
    frames
}

/// The chunks of the five: actor squat, counter at the end of its range, many actors at once, deflate bomb, orphans.
fn attacks(org: &str) -> Vec<Vec<Vec<u8>>> {
    let actor: [u8; 32] = identity::decode_hex::<32>(org.as_bytes()).unwrap();
    let change = |actor: &[u8], seq, start_op, deps, bytes| {
        let mut doc = AutoCommit::new().with_actor(ActorId::from(actor));
        doc.put(ROOT, "statements", ScalarValue::Bytes(bytes)).unwrap();
        doc.commit();
        let mut change: ExpandedChange = doc.get_changes(&[])[0].decode();
        (change.seq, change.start_op, change.deps) = (seq, NonZeroU64::new(start_op).unwrap(), deps);
        Change::from(change)
    };
    // Every document of an org is written by the actor of the org's id.
    let squat = change(&actor, 2, 7, vec![], vec![1]);
    let counter = change(&[7; 16], 1, u64::from(u32::MAX), vec![], vec![2]);
    let many = (0..300u16).map(|n| change(&n.to_le_bytes(), 1, 1, vec![], vec![3]));
    let mut bomb = change(&[8; 16], 1, 1, vec![], vec![0; BOMB]);
    let lost = ChangeHash([9; 32]);
    let orphans = (0..300u64).map(|n| change(&[9; 16], n + 2, n + 2, vec![lost], vec![4]));
    let raw = |changes: Vec<Change>| changes.iter().map(|c| c.raw_bytes().to_vec()).collect::<Vec<_>>();

    // They are what they claim: the counter kills the next commit of whoever takes it in.
    let mut victim = AutoCommit::new();
    victim.apply_changes([Change::from_bytes(counter.raw_bytes().to_vec()).unwrap()]).unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        victim.put(ROOT, "next", 1).unwrap();
        victim.commit();
    }));
    assert!(outcome.is_err(), "automerge has become proof against this one");
    let inflated = Change::from_bytes(bomb.bytes().to_vec()).unwrap();
    assert!(inflated.raw_bytes().len() >= BOMB, "and this one");
    let mut waiting = AutoCommit::new();
    let fed = waiting.sync().receive_sync_message(
        &mut State::new(),
        Message {
            heads: vec![],
            need: vec![],
            have: vec![],
            changes: raw(orphans.clone().collect()).into(),
            flags: None,
            version: MessageVersion::V1,
        },
    );
    assert!(fed.is_ok() && waiting.get(ROOT, "statements").unwrap().is_none(), "and these are kept, unseen");

    vec![
        raw(vec![squat]),
        raw(vec![counter]),
        raw(many.collect()),
        vec![bomb.bytes().to_vec()],
        raw(orphans.collect()),
    ]
}
