#!/usr/bin/env python3
"""conn_auth v1, a second time: both sides, written from docs/spec/conn-auth.md and not from the Rust.

    python3 tests/vectors/conn_auth.py [FILE]

replays every vector of conn-auth-v1.json and exits 1 if a line, a transcript or an outcome differs.
Needs Python 3.9 and nothing else. It is not constant-time: use it for tests only.
"""

import hashlib
import json
import re
import struct
import sys
from pathlib import Path

# Ed25519 (RFC 8032), verified strictly: S < L, no second encodings, no point of small order.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
ZERO = (0, 1, 1, 0)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n, p):
    q = ZERO
    while n:
        if n & 1:
            q = add(q, p)
        p = add(p, p)
        n >>= 1
    return q


def encode(p):
    z = pow(p[2], P - 2, P)
    return (p[1] * z % P | (p[0] * z % P & 1) << 255).to_bytes(32, "little")


def decode(data):
    """The point behind 32 bytes, or None. Second encodings are not told apart here."""
    n = int.from_bytes(data, "little")
    y, sign = (n & (1 << 255) - 1) % P, n >> 255
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == (-u) % P:
        x = x * SQRT_M1 % P
    if v * x * x % P != u:
        return None
    if x & 1 != sign:
        x = -x % P
    return x, y, 1, x * y % P


def is_small(p):
    return encode(times(8, p)) == encode(ZERO)


BASE = decode(bytes.fromhex("58" + "66" * 31))


def expand(seed):
    h = hashlib.sha512(seed).digest()
    return int.from_bytes(h[:32], "little") & (1 << 254) - 8 | 1 << 254, h[32:]


def number(data):
    return int.from_bytes(hashlib.sha512(data).digest(), "little") % L


def public_key(seed):
    return encode(times(expand(seed)[0], BASE))


def sign(seed, message):
    a, prefix = expand(seed)
    r = number(prefix + message)
    big_r, key = encode(times(r, BASE)), encode(times(a, BASE))
    return big_r + ((r + number(big_r + key + message) * a) % L).to_bytes(32, "little")


def is_good(data):
    """Whether 32 bytes are the canonical encoding of a point that is not of small order."""
    p = decode(data)
    return p is not None and encode(p) == data and not is_small(p)


def verify(key, message, signature):
    big_r, s = signature[:32], int.from_bytes(signature[32:], "little")
    if s >= L or not is_good(key) or not is_good(big_r):
        return False
    x, y, z, t = decode(key)
    minus_a = (-x % P, y, z, -t % P)
    return encode(add(times(s, BASE), times(number(big_r + key + message), minus_a))) == big_r


# BLAKE3's derive_key mode.

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64


def compress(chain, block, counter, length, flags):
    v = chain + IV[:4] + [counter & 0xFFFFFFFF, counter >> 32, length, flags]
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))

    def mix(a, b, c, d, x, y):
        for word, first, second in ((x, 16, 12), (y, 8, 7)):
            v[a] = v[a] + v[b] + word & 0xFFFFFFFF
            v[d] = (v[d] ^ v[a]) >> first | (v[d] ^ v[a]) << 32 - first & 0xFFFFFFFF
            v[c] = v[c] + v[d] & 0xFFFFFFFF
            v[b] = (v[b] ^ v[c]) >> second | (v[b] ^ v[c]) << 32 - second & 0xFFFFFFFF

    for _ in range(7):
        for i in range(4):
            mix(i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1])
        for i in range(4):
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[8 + 2 * i], m[9 + 2 * i])
        m = [m[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3(data, key, flags):
    """32 bytes. The tree over chunks of 1,024 bytes is built from its left, largest power of two first."""

    def chunk(part, counter, root):
        chain, blocks = key, [part[i : i + 64] for i in range(0, len(part), 64)] or [b""]
        for i, block in enumerate(blocks):
            last = i == len(blocks) - 1
            extra = (CHUNK_START if i == 0 else 0) | (CHUNK_END | root if last else 0)
            chain = compress(chain, block, counter, len(block), flags | extra)
        return chain

    def tree(part, counter, root):
        if len(part) <= 1024:
            return chunk(part, counter, root)
        left = 1 << ((len(part) - 1) // 1024).bit_length() - 1
        pair = tree(part[: left * 1024], counter, 0) + tree(part[left * 1024 :], counter + left, 0)
        return compress(key, struct.pack("<16I", *pair), 0, 64, flags | PARENT | root)

    return tree(data, 0, ROOT)


def derive_key(context, material):
    key = blake3(context.encode(), IV, CONTEXT)
    return struct.pack("<8I", *blake3(material, key, MATERIAL))


# What is signed.

SERVER_LABEL = b"muster conn_auth v1 server proof\n"
CLIENT_LABEL = b"muster conn_auth v1 client proof\n"


def lp(data):
    return struct.pack("<I", len(data)) + data


def channel_bytes(channel):
    if "tls" in channel:
        return b"tls", bytes.fromhex(channel["tls"]["exporter"])
    keys = bytes.fromhex(channel["wg"]["client"]) + bytes.fromhex(channel["wg"]["server"])
    return b"wg", derive_key("muster 2026 conn_auth v1 channel wireguard", keys)


def transcript_server(org, channel, hello, challenge):
    kind, binding = channel_bytes(channel)
    parts = (org, kind, binding, hello, challenge)
    return derive_key("muster 2026 conn_auth v1 transcript server", b"".join(map(lp, parts)))


def transcript_client(t2, server_signature, proof):
    return derive_key("muster 2026 conn_auth v1 transcript client", t2 + server_signature + lp(proof))


def session_id(t3):
    return derive_key("muster 2026 conn_auth v1 session id", t3)[:16]


# The four lines.


class Refused(Exception):
    def __init__(self, at, error, code=None, field=None, fault=None):
        super().__init__(at, error)
        words = {"at": at, "error": error, "field": field, "fault": fault, "code": code}
        self.outcome = {"refused": {k: v for k, v in words.items() if v is not None}}


class Malformed(Exception):
    def __init__(self, field, fault):
        super().__init__(field, fault)
        self.field, self.fault = field, fault


class Line:
    """Reads fields from the left; stops at the first that departs."""

    def __init__(self, data, longest):
        if len(data) > longest:
            raise Malformed("line", "too-many")
        self.data, self.at = data, 0

    def rest(self):
        return self.data[self.at :]

    def literal(self, field, text):
        if not self.rest().startswith(text):
            raise Malformed(field, "missing")
        self.at += len(text)

    def pattern(self, field, pattern, fault):
        """The word up to the next space, which must match as a whole."""
        word = self.rest().split(b" ")[0]
        if not re.fullmatch(pattern, word):
            raise Malformed(field, fault)
        self.at += len(word)
        return word

    def hex(self, field, size):
        digits = self.rest()[: 2 * size]
        if len(digits) != 2 * size or not re.fullmatch(rb"[0-9a-f]*", digits):
            raise Malformed(field, "bad-hex")
        self.at += 2 * size
        return bytes.fromhex(digits.decode())

    def key(self, field):
        key = self.hex(field, 32)
        if not is_good(key):
            raise Malformed(field, "bad-key")
        return key

    def count(self):
        n = int(self.pattern("count", rb"0|[1-9][0-9]{0,19}", "bad-number"))
        if n >= 1 << 64:
            raise Malformed("count", "bad-number")
        return n

    def version(self):
        self.literal("version", b"muster-auth/")
        self.pattern("version", rb"1", "version")

    def signature(self):
        covered = self.data[: self.at]
        self.literal("sig", b" sig=")
        signature = self.hex("sig", 64)
        self.end()
        return covered, signature

    def end(self):
        if self.rest():
            raise Malformed("line", "trailing")


FIELDS = {b"action", b"bind", b"nonce", b"pubkey", b"to"}


def parse_hello(data):
    line = Line(data, 1024)
    line.version()
    line.literal("pubkey", b" pubkey=")
    peer = line.key("pubkey")
    line.literal("to", b" to=")
    if line.rest().startswith(b"any"):
        line.literal("to", b"any")
        to = None
    else:
        to = line.hex("to", 32)
    line.literal("nonce", b" nonce=")
    line.hex("nonce", 32)
    line.literal("bind", b" bind=")
    bind = line.pattern("bind", rb"tls|wg", "bad-word")
    line.literal("action", b" action=")
    action = [line.pattern("action", rb"[a-z0-9-]{1,32}", "bad-word")]
    last = None
    while line.rest():
        if len(action) == 17:
            raise Malformed("parameters", "too-many")
        line.literal("parameters", b" ")
        pair = line.rest().split(b" ")[0]
        key, equals, value = pair.partition(b"=")
        if not equals:
            raise Malformed("parameters", "missing")
        good = re.fullmatch(rb"[a-z0-9_.-]{1,32}", key) and re.fullmatch(rb"[!-~]{0,256}", value)
        if not good or key in FIELDS:
            raise Malformed("parameters", "bad-word")
        if last is not None and key <= last:
            raise Malformed("parameters", "not-ascending")
        last = key
        action.append(pair)
        line.at += len(pair)
    return peer, to, bind, b" ".join(action).decode()


def parse_challenge(data):
    line = Line(data, 293)
    line.version()
    line.literal("pubkey", b" pubkey=")
    server = line.key("pubkey")
    line.literal("challenge", b" challenge=")
    line.hex("challenge", 32)
    return (server, *line.signature())


def parse_proof(data):
    line = Line(data, 230)
    line.literal("heads", b"heads=")
    heads = line.hex("heads", 32)
    line.literal("count", b" count=")
    count = line.count()
    return (heads, count, *line.signature())


def parse_verdict(data):
    line = Line(data, 121)
    if line.rest().startswith(b"no"):
        line.literal("ref", b"no ref=")
        reference, code = line.hex("ref", 8), None
        if line.rest():
            line.literal("code", b" code=MU-")
            code = line.pattern("code", rb"[0-9]{4}", "bad-number").decode()
            line.end()
        return False, reference, code
    line.literal("ref", b"ok ref=")
    reference = line.hex("ref", 8)
    line.literal("heads", b" heads=")
    heads = line.hex("heads", 32)
    line.literal("count", b" count=")
    count = line.count()
    line.end()
    return True, reference, (heads, count)


# The two sides. Each takes a vector's inputs and returns its results.

CODES = {"1401", "1403", "1405", "1406", "1407", "1408", "1409", "1410", "1411", "1412", "1413", "9001"}
ACTIONS = {
    "blob-get": ("tls", {"boot-key"}),
    "blob-put": ("wg", {"permitted"}),
    "boot": ("tls", {"boot-key"}),
    "enrol": ("tls", {"unknown", "member"}),
    "fetch": ("tls", {"admin"}),
    "link": ("wg", {"member"}),
    "ping": ("wg", {"member"}),
    "submit": ("tls", {"admin"}),
    "sync": ("wg", {"member"}),
}
# Of those above, the ones that are served over the other channel too.
ALSO = {"blob-get": ("wg", {"member"})}
# Any other name is a program's service over wg, for members that the org's policy lets use it; but these.
KEPT = {"image"}
# Muster's own, and the policy says who may.
GIVEN = {"blob-put"}


def malformed(at, why, code):
    if why.fault == "version":
        code = "MU-1011"
    return Refused(at, "malformed", code, why.field, why.fault)


def dial(given, out):
    org, seed = bytes.fromhex(given["org"]), bytes.fromhex(given["seed"])
    own, kind = public_key(seed), channel_bytes(given["channel"])[0].decode()
    if "key" in given["to"]:
        wanted = [bytes.fromhex(given["to"]["key"])]
        to = wanted[0].hex()
        if wanted[0] == own:
            raise Refused("start", "own-key")
    else:
        wanted, to = [bytes.fromhex(key) for key in given["to"]["any-of"]], "any"
        if kind != "tls":
            raise Refused("start", "any-needs-tls")
        if not wanted:
            raise Refused("start", "nobody-named")
    words = [f"{key}={value}" for key, value in sorted(given["parameters"])]
    fixed = f"muster-auth/1 pubkey={own.hex()} to={to} nonce={given['nonce']} bind={kind}"
    hello = " ".join([fixed, f"action={given['action']}", *words])
    if len(hello) > 1024:
        raise Refused("start", "too-long")
    out["hello"] = hello
    if "challenge" not in given:
        return "open"

    challenge = given["challenge"].encode("latin-1")
    try:
        if challenge.startswith(b"no "):
            if parse_verdict(challenge)[2] is not None:
                raise Malformed("code", "bad-word")
            raise Refused("challenge", "refused", "MU-1013")
        server, covered, server_signature = parse_challenge(challenge)
    except Malformed as why:
        raise malformed("challenge", why, "MU-1002") from None
    if server == own:
        raise Refused("challenge", "own-key", "MU-1007")
    if server not in wanted:
        raise Refused("challenge", "wrong-server", "MU-1007")
    t2 = transcript_server(org, given["channel"], hello.encode(), covered)
    if not verify(server, SERVER_LABEL + t2, server_signature):
        raise Refused("challenge", "proof-wrong", "MU-1005")

    proof = f"heads={given['heads']} count={given['count']}"
    t3 = transcript_client(t2, server_signature, proof.encode())
    out["t2"], out["t3"] = t2.hex(), t3.hex()
    out["proof"] = f"{proof} sig={sign(seed, CLIENT_LABEL + t3).hex()}"
    if "verdict" not in given:
        return "open"

    try:
        yes, reference, more = parse_verdict(given["verdict"].encode("latin-1"))
    except Malformed as why:
        raise malformed("verdict", why, "MU-1004") from None
    if not yes:
        raise Refused("verdict", "refused", f"MU-{more}" if more in CODES else "MU-1013")
    accepted = {"server": server.hex(), "session": session_id(t3).hex(), "reference": reference.hex()}
    return {"accepted": {**accepted, "heads": more[0].hex(), "count": more[1]}}


def accept(given, out):
    org, seed = bytes.fromhex(given["org"]), bytes.fromhex(given["seed"])
    own, kind = public_key(seed), channel_bytes(given["channel"])[0]
    out["verdict"] = f"no ref={given['reference']}"
    hello = given["hello"].encode("latin-1")
    try:
        peer, to, bind, action = parse_hello(hello)
    except Malformed as why:
        raise malformed("hello", why, "MU-1001") from None
    if bind != kind:
        raise Refused("hello", "binding-mismatch", "MU-1008")
    if peer == own:
        raise Refused("hello", "own-key", "MU-1007")
    if to is None and bind != b"tls":
        raise Refused("hello", "any-needs-tls", "MU-1001")
    covered = f"muster-auth/1 pubkey={own.hex()} challenge={given['fresh']}"
    t2 = transcript_server(org, given["channel"], hello, covered.encode())
    server_signature = sign(seed, SERVER_LABEL + t2)
    out["challenge"] = f"{covered} sig={server_signature.hex()}"
    if "proof" not in given:
        del out["verdict"]
        return "open"

    try:
        heads, count, covered, signature = parse_proof(given["proof"].encode("latin-1"))
    except Malformed as why:
        raise malformed("proof", why, "MU-1003") from None
    t3 = transcript_client(t2, server_signature, covered)
    if not verify(peer, CLIENT_LABEL + t3, signature):
        raise Refused("proof", "wrong", "MU-1006")
    if to not in (None, own):
        raise Refused("proof", "not-for-us", "MU-1007")
    out["t2"], out["t3"] = t2.hex(), t3.hex()

    code, standing = None, given["standing"]
    name = action.split(" ")[0]
    rule = ACTIONS.get(name)
    if standing.startswith("MU-"):
        code = standing
    elif kind == b"wg" and (name in GIVEN or not rule and name not in KEPT):
        code = {"permitted": None, "unknown": "MU-1401"}.get(standing, "MU-9001")
    elif not rule:
        code = "MU-1401" if standing == "unknown" else "MU-1408"
    elif not any(r and r[0] == kind.decode() and standing.replace("permitted", "member") in r[1] for r in (rule, ALSO.get(name))):
        code = "MU-1401" if standing == "unknown" else "MU-1407"
    if code:
        out["verdict"] += f" code={code}"
        raise Refused("admit", "refused", code)
    out["verdict"] = f"ok ref={given['reference']} heads={given['heads']} count={given['count']}"
    admitted = {"peer": peer.hex(), "action": action, "session": session_id(t3).hex()}
    return {"admitted": {**admitted, "heads": heads.hex(), "count": count}}


SIDES = {
    "dialler": (dial, {"hello", "t2", "proof", "t3", "outcome"}),
    "acceptor": (accept, {"challenge", "t2", "t3", "verdict", "outcome"}),
}


def replay(side, vector):
    """What differs, as (field, wanted, got)."""
    run, results = SIDES[side]
    given = {key: value for key, value in vector.items() if key not in results}
    out = {}
    try:
        out["outcome"] = run(given, out)
    except Refused as why:
        out["outcome"] = why.outcome
    wanted = {key: value for key, value in vector.items() if key in results}
    return [(k, wanted.get(k), out.get(k)) for k in sorted(results) if wanted.get(k) != out.get(k)]


def self_test():
    """The published vectors of the two primitives, so that a failure below is about the handshake."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert public_key(seed).hex() == key, "ed25519 public key"
    signature = sign(seed, b"")
    assert signature.hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")
    assert verify(bytes.fromhex(key), b"", signature), "ed25519 verification"
    context = "BLAKE3 2019-12-27 16:29:52 test vectors context"
    wanted = {
        0: "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d",
        1: "b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c",
    }
    for length, digest in wanted.items():
        material = bytes(i % 251 for i in range(length))
        assert derive_key(context, material).hex() == digest, f"blake3 of {length} bytes"


def main():
    default = Path(__file__).with_name("conn-auth-v1.json")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    self_test()
    vectors = json.loads(path.read_text(encoding="utf-8"))["vectors"]
    sides = outcomes = wrong = 0
    for vector in vectors:
        for side in SIDES:
            if side not in vector:
                continue
            sides += 1
            outcomes += "refused" in vector[side]["outcome"]
            for field, wanted, got in replay(side, vector[side]):
                wrong += 1
                print(f"{vector['name']}: {side}: {field}\n  file: {wanted}\n  here: {got}")
    print(f"{len(vectors)} vectors, {sides} sides replayed, {outcomes} of them refuse, {wrong} differences")
    return 1 if wrong or not vectors else 0


if __name__ == "__main__":
    sys.exit(main())
