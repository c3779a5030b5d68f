#!/usr/bin/env python3
"""The member list a second time: written from docs/spec/roster.md, not from the Rust.

    python3 tests/vectors/roster.py [FILE]

reads the cases of roster-v1.json, each a chain of charters and a set of statements in no order, verifies
every signature, works out the list by the rules and compares it with the one in the file. Exits 1 on a
difference. Needs Python 3.9 and nothing else. Lanes with nine branches and 10,000 early Revokes are left
to the tests in Rust.
"""

import functools
import json
import sys
from pathlib import Path

import conn_auth
import records

P = 2**255 - 19
ROTATIONS_MAX = 64


class Chain:
    """The charters of one org, each checked after the one before (records.md)."""

    def __init__(self, charters):
        self.list, self.at = [], {}
        for n, data in enumerate(charters):
            c, body, signatures = records.read_charter(data)
            if n == 0:
                self.org = conn_auth.derive_key("muster 2026 org id v1", body)
            parent = self.list[-1] if self.list else None
            assert c["version"] == n + 1 and c["parent"] == (parent["id"] if parent else None)
            for signer, signature in signatures:
                records.verified(signer, "muster charter v1 root signature\n", body, signature)
            signers = {signer for signer, _ in signatures}
            assert len(signers & set(c["root_keys"])) >= c["root_threshold"]
            assert not parent or len(signers & set(parent["root_keys"])) >= parent["root_threshold"]
            c["id"] = records.record_id("charter", data).hex()
            self.at[c["id"]] = n
            self.list.append(c)
        self.head = self.list[-1]

    def named(self, key):
        """The first charter that gives the key to an admin or a gateway."""
        return next((c["id"] for c in self.list if is_admin(c, key) or is_gateway(c, key)), None)


def is_admin(c, key):
    return any(a["key"] == key for a in c["admins"])


def is_gateway(c, key):
    return any(g["key"] == key for g in c["gateways"])


@functools.lru_cache(maxsize=None)
def montgomery(key):
    """A key and its negative share this number."""
    y = int.from_bytes(bytes.fromhex(key), "little") % 2**255
    return (1 + y) * pow(1 - y, P - 2, P) % P


def slots(p):
    return [(slot, montgomery(p[slot])) for slot in ("node", "wireguard", "boot")]


@functools.lru_cache(maxsize=None)
def statement(data, org):
    """A statement whose signatures hold; that of the invite is looked at where the invite is known."""
    s, extra, _ = records.read_statement(data, org, None)
    s["id"] = records.record_id("statement", data).hex()
    s["invite_signature"] = extra[3] if s["kind"] == "admit" else None
    return s


class Roster:
    def __init__(self, charters, statements):
        self.chain = Chain(charters)
        said = [statement(data, self.chain.org) for data in statements]
        self.held = {}
        for s in sorted((s for s in said if s["kind"] not in records.BY_NODE), key=lambda s: s["seq"]):
            if self.fits(s):
                self.held[s["id"]] = s
        self.own = {s["id"]: s for s in said if s["kind"] in records.BY_NODE and s["charter"] in self.chain.at}
        self.by_kind = {kind: [] for kind in records.KINDS.values()}
        for id in sorted(self.held):
            self.by_kind[self.held[id]["kind"]].append(self.held[id])
        self.admission = functools.lru_cache(maxsize=None)(self.admission_)
        self.lineage = functools.lru_cache(maxsize=None)(self.lineage_)
        self.claims = functools.lru_cache(maxsize=None)(self.claims_)

    # What is kept: K2 to K4

    def fits(self, s):
        if s["charter"] not in self.chain.at:
            return False
        c = self.chain.list[self.chain.at[s["charter"]]]
        under_invite = s["kind"] == "admit" and s["payload"]["invite"] is not None
        if not (is_gateway if under_invite else is_admin)(c, s["author"]):
            return False
        if s["seq"] == 0:
            return s["prev"] == self.chain.named(s["author"])
        before = self.held.get(s["prev"])
        if not before or (before["author"], before["lane"], before["seq"] + 1) != (s["author"], s["lane"], s["seq"]):
            return False
        if self.chain.at[before["charter"]] > self.chain.at[s["charter"]]:
            return False
        revokes = (p for p in self.prefix(s) if p["kind"] == s["kind"] == "revoke")
        return all(p["payload"]["node"] != s["payload"]["node"] for p in revokes)

    def prefix(self, s):
        while s["seq"] > 0:
            s = self.held[s["prev"]]
            yield s

    def leads_to(self, s, tip):
        return tip["id"] == s["id"] or any(p["id"] == s["id"] for p in self.prefix(tip))

    # Rule 2: 2 counts, 1 is open while a tip is not held, 0 is void

    def weight(self, s, has_role):
        if has_role(self.chain.head, s["author"]):
            return 2
        later = self.chain.list[self.chain.at[s["charter"]] + 1 :]
        removal = next((c for c in later if not has_role(c, s["author"])), None)
        cuts = removal["cuts"] if removal else []
        tips = [cut["tip"] for cut in cuts if (cut["key"], cut["lane"]) == (s["author"], s["lane"])]
        return max((self.behind(s, tip) for tip in tips), default=0)

    def behind(self, s, tip):
        tip = self.held.get(tip)
        return 1 if not tip else 2 if self.leads_to(s, tip) else 0

    def gives(self, s):
        return self.weight(s, is_admin)

    def takes(self, s):
        return self.gives(s) > 0

    # Rules 3, 4, 5 and 12

    def admission_(self, id):
        """How far an Admit counts: "yes", "open", "waits" or None."""
        s = self.held[id]
        p = s["payload"]
        if p["invite"] is None:
            return [None, "open", "yes"][self.gives(s)]
        invite = self.held.get(p["invite"])
        if not invite or invite["kind"] != "invite":
            return None
        i = invite["payload"]
        spent = sum(q["kind"] == "admit" and q["payload"]["invite"] == p["invite"] for q in self.prefix(s))
        if i["redeemer"] != s["author"] or spent >= i["uses"] or not self.redeemed(s, i["key"]):
            return None
        weight = min(self.gives(invite), self.weight(s, is_gateway))
        for cancel in self.by_kind["cancel"]:
            if cancel["payload"]["invite"] == p["invite"] and self.takes(cancel):
                tip = cancel["payload"]["tip"]
                weight = min(weight, self.behind(s, tip) if tip else 0)
        cosigns = (c for c in self.by_kind["cosign"] if c["payload"]["target"] == id)
        approved = max(map(self.gives, cosigns), default=0) if i["approval"] else 2
        if weight == 2 and approved == 0:
            return "waits"
        return [None, "open", "yes"][min(weight, approved)]

    def redeemed(self, s, invite_key):
        p = s["payload"]
        message = self.chain.org + records.unhex(p["invite"]) + records.unhex(p["redeemer"]) + records.admit_facts(p)
        signed = b"muster admit v1 invite redemption\n" + message
        return conn_auth.verify(bytes.fromhex(invite_key), signed, bytes.fromhex(s["invite_signature"]))

    def admits(self, node):
        return [s for s in self.by_kind["admit"] if s["payload"]["node"] == node]

    # K8 and rule 15

    def lineage_(self, root):
        """The Rotates from a first key on, whether two end them, who left, how many keys are ended."""
        chain, node, origin, left, ended = [], root, {s["id"] for s in self.admits(root)}, False, 0
        while True:
            here = [s for s in self.own.values() if s["author"] == node and s["prev"] in origin]
            left = left or any(s["kind"] == "leave" for s in here)
            old = chain[-1]["author"] if chain else None
            if any(s["kind"] == "retire" and s["payload"]["old"] == old for s in here):
                ended = len(chain)
            rotates = [s for s in here if s["kind"] == "rotate" and len(chain) < ROTATIONS_MAX and self.is_new(s)]
            if len(rotates) != 1:
                return chain, len(rotates) > 1, left, ended
            chain.append(rotates[0])
            node, origin = rotates[0]["payload"]["node"], {rotates[0]["id"]}

    def is_new(self, rotate):
        new = {key for _, key in slots(rotate["payload"])}
        at = rotate
        while at["kind"] == "rotate":
            at = self.own.get(at["prev"]) or self.held[at["prev"]]
            if new & {key for _, key in slots(at["payload"])}:
                return False
        return True

    # Rule 9

    def claims_(self, root):
        counting = [s for s in self.admits(root) if self.admission(s["id"]) in ("yes", "open")]
        rotates = self.lineage(root)[0] if counting else []
        return {slot for s in counting + rotates for slot in slots(s["payload"])}

    def conflicts(self, root, mine):
        others = {s["payload"]["node"] for s in self.by_kind["admit"]} - {root}
        taken = {key for other in others for _, key in self.claims(other)}
        for c in self.chain.list:
            keys = c["root_keys"] + [a["key"] for a in c["admins"]] + [g["key"] for g in c["gateways"]]
            taken |= set(map(montgomery, keys))
        twice = any(a != b and key == other for a, key in mine for b, other in self.claims(root))
        return twice or any(key in taken for _, key in mine)

    # Rule 14

    def in_force(self, nodes):
        """The Assigns that count and no other replaces, and such that are open."""
        known = {a["id"]: a for a in self.by_kind["assign"] if a["payload"]["node"] in nodes}
        counting = [a for a in known.values() if self.gives(a) == 2]
        replaced, next_ = set(), [id for a in counting for id in a["payload"]["replaces"]]
        while next_:
            id = next_.pop()
            if id in known and id not in replaced:
                replaced.add(id)
                next_ += known[id]["payload"]["replaces"]
        open_ = [a for a in known.values() if self.gives(a) == 1]
        return [[a for a in some if a["id"] not in replaced] for some in (counting, open_)]

    # Rules 6, 7, 11, 13 and 16

    def member(self, root):
        admissions = {s["id"]: self.admission(s["id"]) for s in self.admits(root)}
        best = next((a for a in ("yes", "open", "waits") if a in admissions.values()), None)
        if not best:
            return None
        admits = [s for s in self.admits(root) if admissions[s["id"]] == best]
        first = admits[0]["payload"]
        chain, forked, left, ended = self.lineage(root)
        nodes = [root] + [r["payload"]["node"] for r in chain]
        newest = chain[-1]["payload"] if chain else first

        def against(kind):
            return [s for s in self.by_kind[kind] if s["payload"]["node"] in nodes]

        revokes = [s for s in against("revoke") if self.takes(s)]
        authors = {s["author"] for s in revokes}
        cited = [self.chain.list[self.chain.at[s["charter"]]]["revoke_threshold"] for s in revokes]
        revoked = bool(revokes) and len(authors) >= min(cited)
        ended_ids = {id for s in against("resume") if self.gives(s) == 2 for id in s["payload"]["suspends"]}
        suspends = [s for s in against("suspend") if self.takes(s) and s["id"] not in ended_ids]
        mine = {slot for s in admits + chain for slot in slots(s["payload"])}
        state = "good"
        if revoked:
            state = "revoked"
        elif left:
            state = "left"
        elif forked or self.conflicts(root, mine):
            state = "key-conflict"
        elif suspends:
            state = "suspended"
        elif best != "yes":
            state = {"open": "unsettled", "waits": "pending"}[best]
        assigns, open_ = self.in_force(nodes)
        invite = self.held.get(first["invite"])
        name, roles, labels = first["name"], [], invite["payload"]["labels"] if invite else []
        if assigns:
            said = [a["payload"] for a in assigns]
            name, roles, labels = said[0]["name"], said[0]["roles"], said[0]["labels"]
        for a in assigns + open_:
            roles = sorted(set(roles) & set(a["payload"]["roles"]))
            labels = sorted(set(labels) & set(a["payload"]["labels"]))
        because = {"revoked": revokes, "suspended": suspends}.get(state, [])
        return {
            "nodes": nodes,
            "ended": ended,
            "wireguard": newest["wireguard"],
            "boot": newest["boot"],
            "name": name,
            "roles": roles,
            "labels": labels,
            "assigns": [a["id"] for a in assigns],
            "assurance": first["assurance"],
            "admit": admits[0]["id"],
            "admitted_by": admits[0]["author"],
            "invite": first["invite"],
            "state": state,
            "because": [s["id"] for s in because],
            "revoked_by_too_few": [] if revoked else sorted(authors),
        }

    def invite(self, s):
        i, spent = s["payload"], 0
        for admit in self.by_kind["admit"]:
            if admit["payload"]["invite"] == s["id"]:
                before = (p for p in self.prefix(admit) if p["kind"] == "admit")
                spent = max(spent, 1 + sum(p["payload"]["invite"] == s["id"] for p in before))
        used = min(spent, i["uses"])
        cancels = (c for c in self.by_kind["cancel"] if c["payload"]["invite"] == s["id"])
        if self.gives(s) < 2 or not is_gateway(self.chain.head, i["redeemer"]):
            state = "void"
        elif any(map(self.takes, cancels)):
            state = "cancelled"
        else:
            state = "spent" if used >= i["uses"] else "open"
        return {"id": s["id"], "used": used, "state": state}

    # Rule 18

    def policy(self):
        ranked = sorted(self.by_kind["policy"], key=lambda s: (-s["payload"]["number"], s["id"]))
        open_ = []
        for s in ranked:
            if self.gives(s) == 2:
                return {"in_force": s["id"], "open": open_}
            if self.gives(s) == 1:
                open_.append(s["id"])
        return {"in_force": None, "open": open_}

    def outcome(self):
        roots = sorted({s["payload"]["node"] for s in self.by_kind["admit"]})
        members = [self.member(root) for root in roots]
        return {
            "members": [m for m in members if m],
            "policy": self.policy(),
            "invites": [self.invite(s) for s in self.by_kind["invite"]],
        }


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("roster-v1.json")
    # The same keys and proofs stand in many cases.
    records.is_good = functools.lru_cache(maxsize=None)(records.is_good)
    conn_auth.verify = functools.lru_cache(maxsize=None)(conn_auth.verify)
    records.verify = conn_auth.verify
    file = json.loads(path.read_text())
    pool = [bytes.fromhex(record) for record in file["records"]]
    wrong = states = 0
    for case in file["cases"]:
        roster = Roster([pool[n] for n in case["charters"]], [pool[n] for n in case["statements"]])
        got, wanted = roster.outcome(), {part: case[part] for part in ("members", "policy", "invites")}
        states += len(wanted["members"])
        if got != wanted:
            wrong += 1
            print(f"{case['name']}: {json.dumps(got)} and not {json.dumps(wanted)}")
    print(f"{len(file['cases'])} cases, {states} members, {wrong} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
