#!/usr/bin/env python3
"""The records of an org, a second time: written from docs/spec/records.md and wire.md, not from the Rust.

    python3 tests/vectors/records.py [FILE]

decodes every vector of records-v1.json, compares its fields, encodes them again, recomputes ids and
verifies signatures, and checks that malformed bytes are refused at the field named. Exits 1 on a
difference. Needs Python 3.9 and nothing else.
"""

import ipaddress
import json
import re
import sys
from pathlib import Path

from conn_auth import derive_key, is_good, verify

KINDS = {1: "admit", 2: "revoke", 3: "invite", 4: "cancel", 5: "leave", 6: "suspend", 7: "resume", 8: "assign"}
KINDS |= {9: "rotate", 10: "retire", 11: "cosign", 13: "policy"}
LANES = {kind: 1 if kind in ("revoke", "suspend") else 0 for kind in KINDS.values()}
BY_NODE = ("leave", "rotate", "retire")
SELECTORS = {2: "role", 3: "label", 4: "member"}
CA_STATES = {1: "next", 2: "active", 3: "retiring", 4: "retired"}
ASSURANCES = {1: "tpm-attested", 2: "tpm", 3: "tpm-unbound", 4: "tpm-software", 5: "file"}
REASONS = {0: "unspecified", 1: "lost", 2: "stolen", 3: "compromised", 4: "retired"}
RECORDS = {1: "charter", 2: "statement", 3: "report"}
SELECTIONS = {1: "everything", 2: "reports", 3: "author"}
ACTIONS = {1: "enrol", 2: "boot", 3: "submit", 4: "fetch", 5: "attest", 6: "quote", 7: "share"}
REPLIES = {1: "admitted", 2: "records", 3: "end", 4: "submitted", 5: "refused", 6: "challenge", 7: "share"}
ID_CONTEXTS = {
    "charter": "muster 2026 charter id v1",
    "statement": "muster 2026 statement id v1",
    "report": "muster 2026 report id v1",
}
ZEROS = bytes(32)


class Malformed(Exception):
    """The bytes are refused at this field."""

    def __init__(self, field):
        super().__init__(field)
        self.field = field


def check(holds, field):
    if not holds:
        raise Malformed(field)


class Reader:
    def __init__(self, data):
        self.data = data

    def bytes(self, field, n):
        check(len(self.data) >= n, field)
        head, self.data = self.data[:n], self.data[n:]
        return head

    def number(self, field, n):
        return int.from_bytes(self.bytes(field, n), "little")

    def key(self, field):
        data = self.bytes(field, 32)
        check(is_good(data), field)
        return data.hex()

    def hex(self, field, n):
        return self.bytes(field, n).hex()

    def optional(self, field):
        data = self.bytes(field, 32)
        return None if data == ZEROS else data.hex()

    def text(self, field, most, pattern=None):
        n = self.number(field, 1)
        check(n <= most, field)
        try:
            text = self.bytes(field, n).decode()
        except UnicodeDecodeError:
            raise Malformed(field) from None
        check(not re.search("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", text), field)
        check(pattern is None or re.fullmatch(pattern, text), field)
        return text

    def name(self, field, most=63):
        return self.text(field, most, "[a-z0-9]([a-z0-9-]*[a-z0-9])?")

    def long(self, field, most):
        n = self.number(field, 2)
        check(n <= most, field)
        return self.bytes(field, n)

    def one_of(self, field, words):
        n = self.number(field, 1)
        check(n in words, field)
        return words[n]

    def exactly(self, field, value):
        check(self.number(field, 1) == value, field)

    def list(self, field, most, read):
        n = self.number(field, 1)
        check(n <= most, field)
        return [read() for _ in range(n)]

    def finish(self, field):
        check(not self.data, field)


def ascending(field, items):
    check(all(a < b for a, b in zip(items, items[1:])), field)


def u(n, value):
    return value.to_bytes(n, "little")


def short(data):
    return u(1, len(data)) + data


def long(data):
    return u(2, len(data)) + data


def number_of(words, word):
    return u(1, next(n for n, w in words.items() if w == word))


def unhex(text):
    return ZEROS if text is None else bytes.fromhex(text)


# Charters


def read_charter(data):
    check(len(data) <= 16384, "charter")
    r = Reader(data)
    body = r.long("charter body", 16384)
    signatures = r.list("root signatures", 32, lambda: (r.key("signer"), r.hex("root signature", 64)))
    r.finish("end of signatures")
    ascending("root signatures", [signer for signer, _ in signatures])
    fields = read_charter_body(body)
    fields["signers"] = [signer for signer, _ in signatures]
    for signer, signature in signatures:
        verified(signer, "muster charter v1 root signature\n", body, signature)
    return fields, body, signatures


def read_charter_body(body):
    r = Reader(body)
    r.exactly("charter format", 1)
    c = {"version": r.number("charter version", 4), "parent": r.optional("parent"), "name": r.name("org name")}
    c["root_threshold"] = r.number("root threshold", 1)
    c["root_keys"] = r.list("root keys", 16, lambda: r.key("root key"))
    ascending("root keys", c["root_keys"])
    c["revoke_threshold"] = r.number("revoke threshold", 1)
    c["admins"] = r.list("admins", 64, lambda: {"key": r.key("admin key"), "name": r.name("admin name")})
    ascending("admins", [a["key"] for a in c["admins"]])
    c["gateways"] = r.list("gateways", 16, lambda: {"key": r.key("gateway key"), "node": r.key("gateway node")})
    ascending("gateways", [g["key"] for g in c["gateways"]])
    c["tls_cas"] = r.list("tls cas", 8, lambda: read_ca(r))
    ascending("tls cas", [bytes.fromhex(ca["certificate"]) for ca in c["tls_cas"]])
    c["cuts"] = r.list("cuts", 64, lambda: read_cut(r))
    ascending("cuts", [(cut["key"], cut["lane"], cut["tip"]) for cut in c["cuts"]])
    r.exactly("release keys", 0)
    c["salt"] = r.hex("salt", 16)
    r.finish("end of charter")
    return c


def read_ca(r):
    state, certificate = r.one_of("ca state", CA_STATES), r.long("ca certificate", 2048)
    check(certificate, "ca certificate")
    return {"state": state, "certificate": certificate.hex()}


def read_cut(r):
    key, lane = r.key("cut key"), r.number("cut lane", 1)
    check(lane <= 1, "cut lane")
    return {"key": key, "lane": lane, "tip": r.hex("cut tip", 32)}


def write_charter(c, signatures):
    body = u(1, 1) + u(4, c["version"]) + unhex(c["parent"]) + short(c["name"].encode())
    body += u(1, c["root_threshold"]) + u(1, len(c["root_keys"])) + b"".join(map(unhex, c["root_keys"]))
    body += u(1, c["revoke_threshold"]) + u(1, len(c["admins"]))
    body += b"".join(unhex(a["key"]) + short(a["name"].encode()) for a in c["admins"])
    body += u(1, len(c["gateways"])) + b"".join(unhex(g["key"]) + unhex(g["node"]) for g in c["gateways"])
    body += u(1, len(c["tls_cas"]))
    for ca in c["tls_cas"]:
        body += number_of(CA_STATES, ca["state"]) + long(bytes.fromhex(ca["certificate"]))
    body += u(1, len(c["cuts"]))
    body += b"".join(unhex(cut["key"]) + u(1, cut["lane"]) + unhex(cut["tip"]) for cut in c["cuts"])
    body += u(1, 0) + bytes.fromhex(c["salt"])
    signatures = b"".join(unhex(key) + bytes.fromhex(signature) for key, signature in signatures)
    return long(body) + u(1, len(signatures) // 96) + signatures


# Statements and enrolment requests


def read_statement(data, org, invite_key):
    r = Reader(data)
    r.exactly("statement format", 1)
    kind = r.number("kind", 1)
    check(len(data) <= (8192 if KINDS.get(kind) == "policy" else 1024), "statement")
    lane = r.number("lane", 1)
    check(lane <= 1, "lane")
    r.exactly("statement flags", 0)
    s = {"lane": lane, "seq": r.number("seq", 8), "author": r.key("author")}
    s["charter"], s["prev"] = r.hex("charter", 32), r.hex("prev", 32)
    check(kind in KINDS, "kind")
    s["kind"] = KINDS[kind]
    s["payload"], extra = read_payload(r, s["kind"], s["author"])
    signature = r.hex("author signature", 64)
    r.finish("end of statement")
    check(lane == LANES[s["kind"]], "lane")
    check(s["seq"] < 2**64 - 1 and (s["kind"] not in BY_NODE or s["seq"] == 0), "seq")
    verified(s["author"], "muster statement v1 author signature\n", org + data[:-64], signature)
    if s["kind"] == "admit":
        verify_possession(s["payload"], extra, org, invite_key)
    elif s["kind"] == "rotate":
        verify_rotation(s["payload"], extra, org)
    return s, extra, signature


def read_payload(r, kind, author):
    if kind == "admit":
        return read_admit(r, author)
    if kind in ("revoke", "suspend"):
        node, reason = r.key("revoked node" if kind == "revoke" else "suspended node"), r.one_of("reason", REASONS)
        return {"node": node, "reason": reason, "note": r.text("note", 96)}, None
    if kind == "invite":
        return read_invite(r), None
    if kind == "cancel":
        return {"invite": r.hex("cancelled invite", 32), "tip": r.optional("tip")}, None
    if kind == "resume":
        p = {"node": r.key("resumed node"), "suspends": read_ids(r, "suspensions", "suspension", 16)}
        check(p["suspends"], "suspensions")
        return p, None
    if kind == "assign":
        p = {"node": r.key("assigned node"), "name": r.name("name")}
        p["roles"], p["labels"] = read_tags(r, "roles", "role"), read_tags(r, "labels", "label")
        return {**p, "replaces": read_ids(r, "replaced assigns", "replaced assign", 4)}, None
    if kind == "rotate":
        p = {"old": author, "node": r.key("node key"), "wireguard": r.key("wireguard key"), "boot": r.key("boot key")}
        return p, [r.hex(f"{who} signature", 64) for who in ("node", "wireguard", "boot")]
    if kind == "retire":
        return {"old": r.key("retired node")}, None
    if kind == "cosign":
        return {"target": r.hex("cosigned", 32)}, None
    if kind == "policy":
        return read_policy(r), None
    return {}, None


def read_policy(r):
    p = {"number": r.number("policy number", 4)}
    check(p["number"] > 0, "policy number")
    rules = r.list("rules", 128, lambda: tuple(read_choice(r, f"rule {part}") for part in ("from", "to", "actions")))
    ascending("rules", rules)
    # An item is (1,) or (number of its kind, word); as tuples and lists they compare as the spec says.
    p["rules"] = [{part: [spelled(part, i) for i in items] for part, items in zip(("from", "to", "actions"), rule)} for rule in rules]
    return p


def read_choice(r, field):
    n = r.number(field, 1)
    check(0 < n <= 16, field)
    items = []
    for _ in range(n):
        kind = r.number(field, 1)
        check(kind in (1, 2) or (kind in SELECTORS and field != "rule actions"), field)
        check(kind != 1 or n == 1, field)
        items.append((1,) if kind == 1 else (kind, r.name(field, 63 if kind == 4 else 32)))
    ascending(field, items)
    return items


def spelled(part, item):
    return "any" if item[0] == 1 else item[1] if part == "actions" else f"{SELECTORS[item[0]]}:{item[1]}"


def read_tags(r, field, each):
    tags = r.list(field, 8, lambda: r.name(each, 32))
    ascending(field, tags)
    return tags


def read_ids(r, field, each, most):
    ids = r.list(field, most, lambda: r.hex(each, 32))
    ascending(field, ids)
    return ids


def read_invite(r):
    p = {"key": r.key("invite key"), "uses": r.number("uses", 4)}
    check(1 <= p["uses"] <= 100_000, "uses")
    p["redeemer"] = r.key("redeemer")
    p["labels"] = read_tags(r, "labels", "label")
    p["expires_unix_s"], p["note"] = r.number("expires", 8), r.text("note", 96)
    flags = r.number("invite flags", 1)
    check(flags <= 3, "invite flags")
    p["approval"], p["attestation"] = bool(flags & 1), bool(flags & 2)
    p["tpms"] = r.list("endorsement keys", 8, lambda: r.hex("endorsement key", 32))
    ascending("endorsement keys", p["tpms"])
    check(p["attestation"] or not p["tpms"], "endorsement keys")
    return p


def read_admit(r, redeemer):
    p = {"redeemer": redeemer, "invite": r.optional("invite")}
    p["node"], p["wireguard"], p["boot"] = r.key("node key"), r.key("wireguard key"), r.key("boot key")
    p["name"], p["assurance"] = r.name("name"), r.one_of("assurance", ASSURANCES)
    p["attestation"] = r.hex("attestation", 32)
    return p, [r.hex(f"{who} signature", 64) for who in ("node", "wireguard", "boot", "invite")]


def admit_facts(p):
    facts = unhex(p["node"]) + unhex(p["wireguard"]) + unhex(p["boot"]) + short(p["name"].encode())
    return facts + number_of(ASSURANCES, p["assurance"]) + bytes.fromhex(p["attestation"])


def verify_possession(p, signatures, org, invite_key):
    message = org + unhex(p["invite"]) + unhex(p["redeemer"]) + admit_facts(p)
    for who, signature in zip(("node", "wireguard", "boot"), signatures):
        verified(p[who], f"muster admit v1 {who} key possession\n", message, signature)
    if p["invite"] is None:
        check(signatures[3] == "00" * 64, "invite signature")
    elif invite_key is not None:
        verified(invite_key, "muster admit v1 invite redemption\n", message, signatures[3])


def rotated_keys(p):
    return unhex(p["node"]) + unhex(p["wireguard"]) + unhex(p["boot"])


def verify_rotation(p, signatures, org):
    message = org + unhex(p["old"]) + rotated_keys(p)
    for who, signature in zip(("node", "wireguard", "boot"), signatures):
        verified(p[who], f"muster rotate v1 {who} key possession\n", message, signature)


def write_admit(p, signatures):
    return unhex(p["invite"]) + admit_facts(p) + b"".join(map(bytes.fromhex, signatures))


def write_tags(tags):
    return u(1, len(tags)) + b"".join(short(tag.encode()) for tag in tags)


def write_ids(ids):
    return u(1, len(ids)) + b"".join(map(unhex, ids))


def write_statement(s, extra, signature):
    out = u(1, 1) + number_of(KINDS, s["kind"]) + u(1, s["lane"]) + u(1, 0) + u(8, s["seq"])
    out += unhex(s["author"]) + unhex(s["charter"]) + unhex(s["prev"])
    p = s["payload"]
    if s["kind"] == "admit":
        out += write_admit(p, extra)
    elif s["kind"] in ("revoke", "suspend"):
        out += unhex(p["node"]) + number_of(REASONS, p["reason"]) + short(p["note"].encode())
    elif s["kind"] == "invite":
        out += unhex(p["key"]) + u(4, p["uses"]) + unhex(p["redeemer"]) + write_tags(p["labels"])
        out += u(8, p["expires_unix_s"]) + short(p["note"].encode()) + u(1, p["approval"] + 2 * p["attestation"])
        out += u(1, len(p["tpms"])) + b"".join(bytes.fromhex(tpm) for tpm in p["tpms"])
    elif s["kind"] == "cancel":
        out += unhex(p["invite"]) + unhex(p["tip"])
    elif s["kind"] == "resume":
        out += unhex(p["node"]) + write_ids(p["suspends"])
    elif s["kind"] == "assign":
        out += unhex(p["node"]) + short(p["name"].encode()) + write_tags(p["roles"]) + write_tags(p["labels"])
        out += write_ids(p["replaces"])
    elif s["kind"] == "rotate":
        out += rotated_keys(p) + b"".join(map(bytes.fromhex, extra))
    elif s["kind"] == "retire":
        out += unhex(p["old"])
    elif s["kind"] == "cosign":
        out += unhex(p["target"])
    elif s["kind"] == "policy":
        out += u(4, p["number"]) + u(1, len(p["rules"]))
        out += b"".join(write_choice(rule[part]) for rule in p["rules"] for part in ("from", "to", "actions"))
    return out + bytes.fromhex(signature)


def write_choice(words):
    out = u(1, len(words))
    for word in words:
        kind, _, name = word.rpartition(":")
        out += u(1, 1) if word == "any" else (number_of(SELECTORS, kind) if kind else u(1, 2)) + short(name.encode())
    return out


def read_enrol(data, org, invite_key):
    check(len(data) <= 4096, "enrolment request")
    r = Reader(data)
    r.exactly("request format", 1)
    p, signatures = read_admit(r, r.key("redeemer"))
    r.finish("end of request")
    check(p["invite"] is not None, "invite")
    verify_possession(p, signatures, org, invite_key)
    return p, signatures


# Reports


def read_report(data, org):
    check(len(data) <= 1024, "report")
    r = Reader(data)
    r.exactly("report format", 1)
    r.exactly("report flags", 0)
    b = {"node": r.key("node"), "boot_nonce": r.hex("boot nonce", 16), "seq": r.number("report seq", 8)}
    b["heads"], b["count"], b["charter"] = r.hex("heads", 32), r.number("count", 8), r.hex("charter", 32)
    b["tips"] = r.list("tips", 24, lambda: read_tip(r))
    ascending("tips", [(t["author8"], t["lane"], t["seq"], t["id8"]) for t in b["tips"]])
    b["version"] = r.text("version", 32, "[!-~]*")
    b["endpoints"] = r.list("endpoints", 8, lambda: read_endpoint(r))
    check(len(set(b["endpoints"])) == len(b["endpoints"]), "endpoints")
    signature = r.hex("node signature", 64)
    r.finish("end of report")
    verified(b["node"], "muster report v1 node signature\n", org + data[:-64], signature)
    return b, signature


def read_tip(r):
    author8, lane = r.hex("tip author", 8), r.number("tip lane", 1)
    check(lane <= 1, "tip lane")
    return {"author8": author8, "lane": lane, "seq": r.number("tip seq", 8), "id8": r.hex("tip id", 8)}


def read_endpoint(r):
    family = r.number("endpoint", 1)
    check(family in (4, 6), "endpoint")
    ip = ipaddress.ip_address(r.bytes("endpoint", 4 if family == 4 else 16))
    port = r.number("endpoint", 2)
    useless = ip.is_unspecified or ip.is_multicast or str(ip) == "255.255.255.255"
    if family == 6:
        useless = useless or ip.is_link_local or ip.ipv4_mapped is not None
    check(port and not useless, "endpoint")
    return f"{ip}:{port}" if family == 4 else f"[{ip}]:{port}"


def write_report(b, signature):
    out = u(1, 1) + u(1, 0) + unhex(b["node"]) + bytes.fromhex(b["boot_nonce"]) + u(8, b["seq"])
    out += unhex(b["heads"]) + u(8, b["count"]) + unhex(b["charter"]) + u(1, len(b["tips"]))
    for t in b["tips"]:
        out += bytes.fromhex(t["author8"]) + u(1, t["lane"]) + u(8, t["seq"]) + bytes.fromhex(t["id8"])
    out += short(b["version"].encode()) + u(1, len(b["endpoints"]))
    for endpoint in b["endpoints"]:
        host, port = endpoint.rsplit(":", 1)
        ip = ipaddress.ip_address(host.strip("[]"))
        out += u(1, ip.version) + ip.packed + u(2, int(port))
    return out + bytes.fromhex(signature)


# Batches, requests, replies


def read_batch(data):
    check(len(data) <= 65536, "batch")
    r, records = Reader(data), []
    while r.data:
        kind = r.one_of("record tag", RECORDS)
        record = r.long(kind, {"charter": 16384, "statement": 8192}.get(kind, 1024))
        records.append({"kind": kind, "bytes": record.hex(), "id": record_id(kind, record).hex()})
    return records


def record_id(kind, data):
    if kind == "charter":
        data = data[2 : 2 + int.from_bytes(data[:2], "little")]
    return derive_key(ID_CONTEXTS[kind], data)


def write_batch(records):
    data = ((r["kind"], bytes.fromhex(r["bytes"])) for r in records)
    return b"".join(number_of(RECORDS, kind) + long(record) for kind, record in data)


def read_request(data):
    r = Reader(data)
    tag = r.number("request tag", 1)
    check(len(data) <= (4096 if tag in (1, 5, 6, 7) else 32768), "request")
    check(tag in ACTIONS, "request tag")
    action = ACTIONS[tag]
    if action == "enrol":
        return {"action": action, "request": r.data.hex()}
    if action == "submit":
        return {"action": action, "records": read_batch(r.data)}
    if action == "attest":
        f = {"action": action, "request": r.long("enrolment request", 4096).hex()}
        f["certificate"] = r.long("TPM's certificate", 2048).hex()
        f["key"] = r.long("attestation key", 512).hex()
    elif action == "quote":
        f = {"action": action, "registers": [r.hex(f"register {n}", 32) for n in (7, 11, 12)]}
        f["quote"] = r.long("quote", 512).hex()
        f["signature"] = r.long("quote's signature", 512).hex()
    elif action == "share":
        f = {"action": action, "epoch": r.number("epoch", 4)}
        f["certificate"] = r.long("TPM's certificate", 2048).hex()
        f["key"] = r.long("attestation key", 512).hex()
    elif action == "boot":
        f = {"action": action, "charter": r.hex("charter", 32), "floor": r.number("floor", 4)}
    else:
        f = {"action": action, "select": r.one_of("selection", SELECTIONS)}
        if f["select"] == "author":
            f["author"] = r.key("author")
    r.finish("end of request")
    return f


def write_request(f):
    out = number_of(ACTIONS, f["action"])
    if f["action"] == "enrol":
        return out + bytes.fromhex(f["request"])
    if f["action"] == "submit":
        return out + write_batch(f["records"])
    if f["action"] == "attest":
        return out + b"".join(long(bytes.fromhex(f[name])) for name in ("request", "certificate", "key"))
    if f["action"] == "quote":
        out += b"".join(bytes.fromhex(register) for register in f["registers"])
        return out + long(bytes.fromhex(f["quote"])) + long(bytes.fromhex(f["signature"]))
    if f["action"] == "share":
        out += u(4, f["epoch"])
        return out + long(bytes.fromhex(f["certificate"])) + long(bytes.fromhex(f["key"]))
    if f["action"] == "boot":
        return out + unhex(f["charter"]) + u(4, f["floor"])
    return out + number_of(SELECTIONS, f["select"]) + bytes.fromhex(f.get("author", ""))


def read_reply(data):
    r = Reader(data)
    reply = r.one_of("reply tag", REPLIES)
    f = {"reply": reply}
    if reply == "admitted":
        check(len(r.data) <= 1024, "admission")
        return {**f, "statement": r.data.hex()}
    if reply == "records":
        return {**f, "records": read_batch(r.data)}
    if reply == "end":
        f["heads"], f["count"] = r.hex("heads", 32), r.number("count", 8)
    elif reply == "challenge":
        f["credential"] = r.long("credential", 512).hex()
        f["seed"] = r.long("credential's seed", 512).hex()
    elif reply == "share":
        f["share"] = r.hex("share", 32)
    elif reply == "submitted":
        f["told"], f["others"], f["outcomes"] = r.number("told", 4), r.number("others", 4), []
        while r.data:
            f["outcomes"].append(r.number("outcome", 2))
            check(f["outcomes"][-1] in (0, 1) or f["outcomes"][-1] >= 1001, "code")
    else:
        f["code"] = r.number("code", 2)
        check(f["code"] >= 1001, "code")
    r.finish("end of reply")
    return f


def write_reply(f):
    out = number_of(REPLIES, f["reply"])
    if f["reply"] == "admitted":
        return out + bytes.fromhex(f["statement"])
    if f["reply"] == "records":
        return out + write_batch(f["records"])
    if f["reply"] == "end":
        return out + unhex(f["heads"]) + u(8, f["count"])
    if f["reply"] == "challenge":
        return out + long(bytes.fromhex(f["credential"])) + long(bytes.fromhex(f["seed"]))
    if f["reply"] == "share":
        return out + unhex(f["share"])
    if f["reply"] == "submitted":
        return out + u(4, f["told"]) + u(4, f["others"]) + b"".join(u(2, n) for n in f["outcomes"])
    return out + u(2, f["code"])


def verified(key, label, message, signature):
    if not verify(bytes.fromhex(key), label.encode() + message, bytes.fromhex(signature)):
        raise ValueError(f"a signature under {label.strip()!r} does not hold")


def read(vector, org, invite_key):
    """Fields, encoding, and id of a vector."""
    kind, data = vector["kind"], bytes.fromhex(vector["bytes"])
    if kind == "charter":
        fields, _, signatures = read_charter(data)
        return fields, write_charter(fields, signatures), record_id(kind, data).hex()
    if kind == "statement":
        fields, extra, signature = read_statement(data, org, invite_key)
        return fields, write_statement(fields, extra, signature), record_id(kind, data).hex()
    if kind == "report":
        fields, signature = read_report(data, org)
        return fields, write_report(fields, signature), record_id(kind, data).hex()
    if kind == "enrol":
        fields, signatures = read_enrol(data, org, invite_key)
        return fields, u(1, 1) + unhex(fields["redeemer"]) + write_admit(fields, signatures), None
    if kind == "batch":
        records = read_batch(data)
        return {"records": records}, write_batch(records), None
    reader, writer = (read_request, write_request) if kind == "request" else (read_reply, write_reply)
    fields = reader(data)
    return fields, writer(fields), None


def difference(vector, org, invite_key):
    try:
        fields, data, id = read(vector, org, invite_key)
    except Malformed as refused:
        return None if refused.field == vector.get("field") else f"refused at {refused.field!r}"
    except ValueError as why:
        return str(why)
    if "field" in vector:
        return "accepted"
    if fields != vector["fields"]:
        return f"other fields: {fields}"
    if data.hex() != vector["bytes"]:
        return f"encodes to {data.hex()}"
    return None if id == vector["id"] else f"other id: {id}"


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("records-v1.json")
    file = json.loads(path.read_text())
    org, invite_key = bytes.fromhex(file["org"]), file["invite_key"]
    bodies = [bytes.fromhex(v["bytes"]) for v in file["vectors"] if v["name"] == "charter: genesis"]
    wrong = [] if derive_key("muster 2026 org id v1", Reader(bodies[0]).long("body", 16384)) == org else ["org id"]
    for vector in file["vectors"] + file["malformed"]:
        why = difference(vector, org, invite_key)
        if why:
            wrong.append(f"{vector['name']}: {why}")
    for line in wrong:
        print(line)
    print(f"{len(file['vectors'])} records, {len(file['malformed'])} malformed, {len(wrong)} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
