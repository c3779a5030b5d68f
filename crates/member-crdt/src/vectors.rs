//! `tests/vectors/sync-v1.json`: roots of sets of ids, every frame byte for byte, bytes that are none, and
//! what is answered to a node. A second implementation (`tests/vectors/sync.py`) reads the same file.
//!
//! `cargo test -p member-crdt -- --ignored` writes the file anew.

use std::{fs, path::PathBuf};

use identity::{CharterId, HashContext, Heads, SecretKey, StatementId, encode_hex};
use org_trust::{Lane, Record};
use serde_json::{Value, json};

use crate::{
    descent::{self, Below, Told},
    frame::{Frame, Summary},
    held::Tip,
    trie::{IdTrie, Prefix, RecordId, View},
};

const ABOUT: &str = "Member list sync, docs/spec/sync.md. Written by crates/member-crdt/src/vectors.rs; bytes are \
     lower-case hexadecimal; the id numbered n is dk(\"muster 2026 statement id v1\", n as u32).";

#[test]
fn the_file_is_what_this_implementation_writes() {
    let kept: Value = serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap();
    let written = generate();
    for list in ["tries", "frames", "malformed", "answers"] {
        for (kept, written) in kept[list].as_array().unwrap().iter().zip(written[list].as_array().unwrap()) {
            assert_eq!(kept, written, "{}", written["name"]);
        }
    }
    assert!(kept == written, "the file has another form or number of vectors");
}

#[test]
#[ignore = "writes tests/vectors/sync-v1.json"]
fn write_the_file() {
    fs::write(path(), serde_json::to_string_pretty(&generate()).unwrap() + "\n").unwrap();
}

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/sync-v1.json"))
}

fn generate() -> Value {
    json!({
        "about": ABOUT,
        "tries": tries(),
        "frames": frames().into_iter().map(|(name, frame)| frame_vector(name, &frame)).collect::<Vec<_>>(),
        "malformed": malformed(),
        "answers": answers(),
    })
}

fn id(n: u32) -> RecordId {
    HashContext::STATEMENT_ID.hash(&[&n.to_le_bytes()])
}

fn numbered(count: u32) -> IdTrie {
    of(&(0..count).map(id).collect::<Vec<_>>())
}

fn of(ids: &[RecordId]) -> IdTrie {
    let mut trie = IdTrie::default();
    ids.iter().for_each(|id| trie.insert(*id));
    trie
}

fn tries() -> Value {
    let mut all = Vec::new();
    for count in [0, 1, 15, 16, 17, 18, 100, 1000, 5000] {
        let heads = numbered(count).heads().to_string();
        all.push(json!({"name": format!("the first {count} ids"), "count": count, "heads": heads}));
    }
    let alike = |count: u8| -> Vec<RecordId> {
        (0..count).map(|n| core::array::from_fn(|at| if at == 31 { n } else { 7 })).collect()
    };
    for count in [16, 17] {
        let ids = alike(count);
        let heads = of(&ids).heads().to_string();
        let ids: Vec<String> = ids.iter().map(|id| encode_hex(id)).collect();
        all.push(
            json!({"name": format!("{count} ids alike up to the last byte"), "ids": ids, "heads": heads}),
        );
    }
    all.into()
}

fn frames() -> Vec<(&'static str, Frame)> {
    let author = |n: u8| SecretKey::from_seed(&[n; 32]).public();
    let tip =
        |n: u8, lane, seq: u32| Tip { author: author(n), lane, seq: seq.into(), id: StatementId(id(seq)) };
    let mut tips = vec![tip(1, Lane::Main, 3), tip(1, Lane::Revokes, 70_000), tip(2, Lane::Main, 0)];
    tips.sort_unstable();
    let summary = |tips| Summary { heads: Heads(id(1)), count: 9, charter: CharterId(id(2)), tips };
    let records = vec![Record::Statement(vec![1, 2]), Record::Report(vec![]), Record::Charter(vec![3; 300])];
    let (few, many) = (numbered(7), numbered(300));
    let child = Prefix::ROOT.child(3);
    let mut mixed = vec![descent::tell(&few, Prefix::ROOT.child(2)), descent::tell(&many, child)];
    mixed.push(descent::tell(&many, Prefix::ROOT.child(4).child(11).child(15)));
    let short = |n| crate::trie::shortened(&id(n));
    let mut wanted = vec![short(1), short(2)];
    wanted.sort_unstable();
    vec![
        ("tips: none", Frame::Tips(summary(vec![]))),
        ("tips", Frame::Tips(summary(tips.clone()))),
        ("tips reply", Frame::TipsReply(summary(tips))),
        ("records: none", Frame::Records(vec![])),
        ("records", Frame::Records(records)),
        ("nodes: an empty root", Frame::Nodes(vec![descent::tell(&IdTrie::default(), Prefix::ROOT)])),
        ("nodes: a root with few ids", Frame::Nodes(vec![descent::tell(&few, Prefix::ROOT)])),
        ("nodes: a root with many", Frame::Nodes(vec![descent::tell(&many, Prefix::ROOT)])),
        ("nodes: below the root", Frame::Nodes(mixed)),
        ("want: none", Frame::Want(vec![])),
        ("want", Frame::Want(wanted)),
    ]
}

fn frame_vector(name: &str, frame: &Frame) -> Value {
    let bytes = frame.encode();
    assert_eq!(Frame::decode(&bytes).as_ref(), Ok(frame), "{name}");
    let fields = match frame {
        Frame::Tips(summary) => summary_fields("tips", summary),
        Frame::TipsReply(summary) => summary_fields("tips reply", summary),
        Frame::Records(records) => {
            let tag = |record: &Record| match record {
                Record::Charter(_) => "charter",
                Record::Statement(_) => "statement",
                Record::Report(_) => "report",
            };
            let records = records.iter().map(|r| json!({"kind": tag(r), "bytes": encode_hex(r.bytes())}));
            json!({"frame": "records", "records": records.collect::<Vec<_>>()})
        }
        Frame::Nodes(nodes) => json!({"frame": "nodes", "nodes": node_fields(nodes)}),
        Frame::Want(ids) => json!({"frame": "want", "ids": hex(ids)}),
    };
    json!({"name": name, "bytes": encode_hex(&bytes), "fields": fields})
}

fn summary_fields(frame: &str, summary: &Summary) -> Value {
    let tip = |tip: &Tip| {
        json!({
            "author": tip.author.to_string(), "lane": tip.lane.number(), "seq": tip.seq, "id": tip.id.to_string(),
        })
    };
    json!({
        "frame": frame,
        "heads": summary.heads.to_string(),
        "count": summary.count,
        "charter": summary.charter.to_string(),
        "tips": summary.tips.iter().map(tip).collect::<Vec<_>>(),
    })
}

fn node_fields(nodes: &[Told]) -> Value {
    let node = |node: &Told| {
        let nibbles = usize::from(node.prefix.nibbles());
        let prefix: String = encode_hex(node.prefix.bytes()).chars().take(nibbles).collect();
        match &node.below {
            Below::Leaf(ids) => json!({"prefix": prefix, "leaf": hex(ids)}),
            Below::Branch(digests) => json!({"prefix": prefix, "branch": hex(digests.as_slice())}),
        }
    };
    nodes.iter().map(node).collect()
}

fn hex<const N: usize>(items: &[[u8; N]]) -> Vec<String> {
    items.iter().map(|item| encode_hex(item)).collect()
}

fn malformed() -> Value {
    let tips = frames().swap_remove(1).1.encode();
    let swapped = [&tips[..75], &tips[148..221], &tips[75..148], &tips[221..]].concat();
    let lane = [&tips[..107], &[2], &tips[108..]].concat();
    let node = |prefix: &[u8], below: &[u8]| [prefix, below].concat();
    let empty = |prefix: &[u8]| node(prefix, &[0]);
    let frame = |nodes: &[Vec<u8>]| [&[4], nodes.concat().as_slice()].concat();
    let leaf = |ids: &[[u8; 16]]| [&[u8::try_from(ids.len()).unwrap()], ids.as_flattened()].concat();
    let deep = |nibbles: u8| [vec![nibbles], vec![0; usize::from(nibbles.div_ceil(2))]].concat();
    let branch = [&[255][..], &[0; 256]].concat();
    let too_long = [&[3][..], &vec![0; 65_536]].concat();
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("no frame", "frame kind", vec![]),
        ("frame 0", "frame kind", vec![0]),
        ("frame 6", "frame kind", vec![6]),
        ("a frame longer than frames are", "frame", too_long),
        ("tips: cut off in heads", "heads", tips[..20].to_vec()),
        ("tips: cut off in a tip", "tip id", tips[..tips.len() - 1].to_vec()),
        ("tips: a byte behind the last", "end of tips", [&tips[..], &[0]].concat()),
        ("tips: 513", "tips", [&tips[..73], &513u16.to_le_bytes()].concat()),
        ("tips: not ascending", "tips", swapped),
        ("tips: a lane that is none", "tip lane", lane),
        ("nodes: none", "prefix", frame(&[])),
        ("nodes: a prefix of 64", "prefix", frame(&[empty(&deep(64))])),
        ("nodes: a prefix with bits beyond it", "prefix", frame(&[empty(&[1, 0x31])])),
        ("nodes: a prefix cut off", "prefix", frame(&[vec![3, 0x31]])),
        ("nodes: a branch where none can be", "prefix", frame(&[node(&deep(63), &branch)])),
        ("nodes: a leaf of 17", "node", frame(&[node(&[0], &leaf(&[[1; 16]; 17]))])),
        ("nodes: a branch cut off", "digest", frame(&[node(&[0], &branch[..256])])),
        ("nodes: ids that do not ascend", "ids", frame(&[node(&[0], &leaf(&[[2; 16], [1; 16]]))])),
        ("nodes: an id twice", "ids", frame(&[node(&[0], &leaf(&[[2; 16], [2; 16]]))])),
        ("nodes: an id of another prefix", "ids", frame(&[node(&[1, 0x30], &leaf(&[[0x42; 16]]))])),
        ("nodes: not ascending", "nodes", frame(&[empty(&[1, 0x40]), empty(&[1, 0x30])])),
        ("nodes: one twice", "nodes", frame(&[empty(&[1, 0x40]), empty(&[1, 0x40])])),
        ("nodes: one below another", "nodes", frame(&[empty(&[1, 0x40]), empty(&[2, 0x42])])),
        ("nodes: one below the root", "nodes", frame(&[empty(&[0]), empty(&[2, 0x42])])),
        ("want: half an id", "wanted id", vec![5, 1, 2, 3]),
        ("want: not ascending", "wanted ids", [&[5], [[2; 16], [1; 16]].as_flattened()].concat()),
    ];
    let vector = |(name, field, bytes): (&str, &str, Vec<u8>)| {
        assert_eq!(Frame::decode(&bytes).map_err(|why| why.field), Err(field), "{name}");
        if bytes.len() > 65_536 {
            return json!({"name": name, "field": field, "first": bytes[0], "zeros": bytes.len() - 1});
        }
        json!({"name": name, "field": field, "bytes": encode_hex(&bytes)})
    };
    cases.into_iter().map(vector).collect()
}

/// What a side that holds some ids says to a node that it is told.
fn answers() -> Value {
    let (three, all) = (numbered(3), numbered(400));
    let (mut more, mut other) = (numbered(400), numbered(400));
    more.insert(id(1000));
    other.remove(&id(9));
    other.insert(id(1001));
    let down = |trie: &IdTrie, id: &RecordId| {
        let mut prefix = Prefix::ROOT;
        for nibble in [id[0] >> 4, id[0] & 15, id[1] >> 4] {
            if matches!(trie.view(&prefix), View::Branch(_)) {
                prefix = prefix.child(nibble);
            }
        }
        descent::tell(trie, prefix)
    };
    let deep = Told { prefix: down(&more, &id(1000)).prefix, ..descent::tell(&all, Prefix::ROOT) };
    let cases = vec![
        ("the same root", 400, 0, descent::tell(&all, Prefix::ROOT)),
        ("a root with one id more", 400, 0, descent::tell(&more, Prefix::ROOT)),
        ("a root with one less and one more", 400, 0, descent::tell(&other, Prefix::ROOT)),
        ("a leaf with one id more", 400, 0, down(&more, &id(1000))),
        ("a leaf with one id less", 400, 0, down(&other, &id(9))),
        ("a branch where a leaf is held", 400, 0, deep),
        ("an empty root", 400, 20, descent::tell(&IdTrie::default(), Prefix::ROOT)),
        ("a root with few ids", 400, 20, descent::tell(&three, Prefix::ROOT)),
        ("a root with many ids where few are held", 3, 0, descent::tell(&all, Prefix::ROOT)),
        ("a leaf where nothing is held", 0, 0, descent::tell(&three, Prefix::ROOT)),
    ];
    let vector = |(name, held, first, told): (&str, u32, usize, Told)| {
        let answer = descent::answer(&numbered(held), &told, usize::MAX);
        let mut vector = json!({
            "name": name,
            "held": held,
            "told": node_fields(core::slice::from_ref(&told)),
            "nodes": node_fields(&answer.nodes),
            "lacks": hex(answer.lacks.get(..first).filter(|_| first > 0).unwrap_or(&answer.lacks)),
            "wants": hex(&answer.wants),
        });
        if first > 0 {
            // The list would be nearly all that is held.
            vector["lacking"] = answer.lacks.len().into();
        }
        vector
    };
    cases.into_iter().map(vector).collect()
}
