#!/usr/bin/env python3
"""Member list sync, a second time: written from docs/spec/sync.md, not from the Rust.

    python3 tests/vectors/sync.py [FILE]

recomputes the heads of the sets of sync-v1.json, decodes every frame, compares its fields and encodes them
again, checks that malformed bytes are refused at the field named, and answers nodes as a side does that
holds the ids given. Exits 1 on a difference. Needs Python 3.9 and nothing else.
"""

import json
import sys
from functools import lru_cache
from pathlib import Path

from conn_auth import derive_key
from records import RECORDS, Malformed, Reader, ascending, check, number_of, u, write_batch

KINDS = {1: "tips", 2: "tips reply", 3: "records", 4: "nodes", 5: "want"}
BRANCH = 255


# The trie. A set is a sorted list of ids in hexadecimal, so that a prefix is the beginning of a string.


@lru_cache(maxsize=None)
def numbered(count):
    ids = (derive_key("muster 2026 statement id v1", u(4, n)).hex() for n in range(count))
    return tuple(sorted(ids))


def digest(ids, depth=0):
    """Of the ids given, which share their first nibbles."""
    if not ids:
        return bytes(32)
    if len(ids) <= 16:
        return derive_key("muster 2026 heads leaf v1", b"".join(map(bytes.fromhex, ids)))
    return derive_key("muster 2026 heads branch v1", b"".join(digest(c, depth + 1) for c in children(ids, depth)))


def children(ids, depth):
    return [[id for id in ids if id[depth] == nibble] for nibble in "0123456789abcdef"]


def node(held, prefix):
    ids = [id for id in held if id.startswith(prefix)]
    if len(ids) <= 16:
        return {"prefix": prefix, "leaf": sorted({id[:32] for id in ids})}
    digests = (digest(child, len(prefix) + 1) for child in children(ids, len(prefix)))
    return {"prefix": prefix, "branch": [d[:16].hex() for d in digests]}


def answer(held, told):
    """Our nodes, what is lacking there, what is lacking here."""
    ours = node(held, told["prefix"])
    if "leaf" in told:
        under = [id for id in held if id.startswith(told["prefix"])]
        lacks = [id for id in under if id[:32] not in told["leaf"]]
        return [], lacks, [id for id in told["leaf"] if not any(h.startswith(id) for h in held)]
    if "leaf" in ours:
        return [ours], [], []
    pairs = zip("0123456789abcdef", ours["branch"], told["branch"])
    return [node(held, told["prefix"] + nibble) for nibble, a, b in pairs if a != b], [], []


# Frames


def read_frame(data):
    check(len(data) <= 65536, "frame")
    r = Reader(data)
    kind = r.one_of("frame kind", KINDS)
    if kind in ("tips", "tips reply"):
        return read_tips(r, kind)
    if kind == "records":
        records = []
        while r.data:
            tag = r.one_of("record tag", RECORDS)
            records.append({"kind": tag, "bytes": r.long(tag, {"charter": 16384, "statement": 8192}.get(tag, 1024)).hex()})
        return {"frame": kind, "records": records}
    if kind == "want":
        ids = []
        while r.data:
            ids.append(r.hex("wanted id", 16))
        ascending("wanted ids", ids)
        return {"frame": kind, "ids": ids}
    nodes = [read_node(r)]
    while r.data:
        nodes.append(read_node(r))
    prefixes = [n["prefix"] for n in nodes]
    check(all(a < b and not b.startswith(a) for a, b in zip(prefixes, prefixes[1:])), "nodes")
    return {"frame": kind, "nodes": nodes}


def read_tips(r, kind):
    f = {"frame": kind, "heads": r.hex("heads", 32), "count": r.number("count", 8), "charter": r.hex("charter", 32)}
    count = r.number("tips", 2)
    check(count <= 512, "tips")
    f["tips"] = []
    for _ in range(count):
        tip = {"author": r.key("tip author"), "lane": r.number("tip lane", 1)}
        check(tip["lane"] <= 1, "tip lane")
        f["tips"].append({**tip, "seq": r.number("tip seq", 8), "id": r.hex("tip id", 32)})
    ascending("tips", [(t["author"], t["lane"], t["seq"], t["id"]) for t in f["tips"]])
    r.finish("end of tips")
    return f


def read_node(r):
    nibbles = r.number("prefix", 1)
    padded = r.hex("prefix", (nibbles + 1) // 2)
    check(nibbles < 64 and set(padded[nibbles:]) <= {"0"}, "prefix")
    prefix, ids = padded[:nibbles], r.number("node", 1)
    if ids == BRANCH:
        check(nibbles <= 62, "prefix")
        return {"prefix": prefix, "branch": [r.hex("digest", 16) for _ in range(16)]}
    check(ids <= 16, "node")
    leaf = [r.hex("id", 16) for _ in range(ids)]
    ascending("ids", leaf)
    check(all(id.startswith(prefix[:32]) for id in leaf), "ids")
    return {"prefix": prefix, "leaf": leaf}


def write_frame(f):
    out = number_of(KINDS, f["frame"])
    if f["frame"] == "records":
        return out + write_batch(f["records"])
    if f["frame"] == "want":
        return out + bytes.fromhex("".join(f["ids"]))
    if f["frame"] == "nodes":
        return out + b"".join(map(write_node, f["nodes"]))
    out += bytes.fromhex(f["heads"]) + u(8, f["count"]) + bytes.fromhex(f["charter"]) + u(2, len(f["tips"]))
    for t in f["tips"]:
        out += bytes.fromhex(t["author"]) + u(1, t["lane"]) + u(8, t["seq"]) + bytes.fromhex(t["id"])
    return out


def write_node(n):
    prefix = n["prefix"]
    out = u(1, len(prefix)) + bytes.fromhex(prefix + "0" * (len(prefix) % 2))
    if "branch" in n:
        return out + u(1, BRANCH) + bytes.fromhex("".join(n["branch"]))
    return out + u(1, len(n["leaf"])) + bytes.fromhex("".join(n["leaf"]))


# The file


def differs_trie(v):
    heads = digest(numbered(v["count"]) if "count" in v else sorted(v["ids"])).hex()
    return None if heads == v["heads"] else f"other heads: {heads}"


def differs_frame(v):
    data = bytes.fromhex(v["bytes"]) if "bytes" in v else u(1, v["first"]) + bytes(v["zeros"])
    try:
        fields = read_frame(data)
    except Malformed as refused:
        return None if refused.field == v.get("field") else f"refused at {refused.field!r}"
    if "field" in v:
        return "accepted"
    if fields != v["fields"]:
        return f"other fields: {fields}"
    return None if write_frame(fields) == data else "encodes to other bytes"


def differs_answer(v):
    nodes, lacks, wants = answer(numbered(v["held"]), v["told"][0])
    if len(lacks) != v.get("lacking", len(v["lacks"])) or lacks[: len(v["lacks"])] != v["lacks"]:
        return f"other ids lacking: {lacks}"
    if wants != v["wants"]:
        return f"other ids wanted: {wants}"
    return None if nodes == v["nodes"] else f"other nodes: {nodes}"


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("sync-v1.json")
    file = json.loads(path.read_text())
    lists = {"tries": differs_trie, "frames": differs_frame, "malformed": differs_frame, "answers": differs_answer}
    wrong = [f"{v['name']}: {why}" for name, differs in lists.items() for v in file[name] if (why := differs(v))]
    for line in wrong:
        print(line)
    print(", ".join(f"{len(file[name])} {name}" for name in lists) + f", {len(wrong)} differences")
    return 1 if wrong or not all(file[name] for name in lists) else 0


if __name__ == "__main__":
    sys.exit(main())
