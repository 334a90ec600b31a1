#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of the vectors of docs/spec/trust.md, with the standard library only.

    check_trust.py [DIR]    check every vector in DIR (the folder of this file)

It shares no code with the Go package: canonical JSON, key ids, fingerprint words, PAE, the policy grammar, scrypt, AES-256-GCM,
Ed25519 (RFC 8032) and ECDSA over P-384 (FIPS 186-5) are written here again, from the specifications. What it does NOT do: ML-DSA.
Of a composite signature it verifies the classical half alone, and of a key pair it derives the classical half alone; the Go
tests do both.
Exit status 0: all as expected. 1: not.
"""

import base64
import binascii
import datetime
import hashlib
import json
import pathlib
import re
import sys
import unicodedata

HERE = pathlib.Path(__file__).resolve().parent
WORDS = HERE / "../../../pkg/mofn/english.txt"
HEX = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
STREAM = re.compile(r"(?=.{1,128}\Z)[a-z0-9][a-z0-9._-]*(/[a-z0-9._-]+)*")
SAFE = (1 << 53) - 1
TRUST_TYPE = "application/vnd.sluice.trust.v1+json"


class Refused(Exception):
    pass


def need(ok, reason):
    if not ok:
        raise Refused(reason)


# --- Ed25519, RFC 8032 ------------------------------------------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def ed_add(a, b):
    """Section 5.1.4, extended coordinates."""
    s, t = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    u, v = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = t - s, v - u, v + u, t + s
    return e * f % P, g * h % P, f * g % P, e * h % P


def ed_mul(n, point):
    out = (0, 1, 1, 0)
    while n > 0:
        if n & 1:
            out = ed_add(out, point)
        point = ed_add(point, point)
        n >>= 1
    return out


def ed_decode(raw):
    """Section 5.1.3: canonical encodings of points of the curve only."""
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    need(len(raw) == 32 and y < P, "Ed25519: not canonically encoded")
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    need((x * x - xx) % P == 0, "Ed25519: not a point of the curve")
    need(x or not sign, "Ed25519: not canonically encoded")
    x = x if x & 1 == sign else P - x
    return x, y, 1, x * y % P


def ed_encode(point):
    z = pow(point[2], P - 2, P)
    return (point[1] * z % P | (point[0] * z % P & 1) << 255).to_bytes(32, "little")


BASE = ed_decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed_public(seed):
    h = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return ed_encode(ed_mul(h & (1 << 254) - 8 | 1 << 254, BASE))


def ed_verify(public, message, sig):
    """Section 5.1.7, without the cofactor: [S]B - [k]A has the encoding R."""
    a, s = ed_decode(public), int.from_bytes(sig[32:], "little")
    k = int.from_bytes(hashlib.sha512(sig[:32] + public + message).digest(), "little") % L
    minus = (P - a[0], a[1], 1, P - a[3])
    return len(sig) == 64 and s < L and ed_encode(ed_add(ed_mul(s, BASE), ed_mul(k, minus))) == sig[:32]


def check_ed_key(public, where):
    point = ed_decode(public)
    need(ed_encode(ed_mul(8, point)) != ed_encode((0, 1, 1, 0)), "section 1: %s is a low-order point" % where)


# --- ECDSA over P-384 with SHA-384, FIPS 186-5 and SP 800-186 ----------------------------------------------------------

EC_P = 2**384 - 2**128 - 2**96 + 2**32 - 1
EC_N = 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973
EC_B = 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef
EC_G = (0xaa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7,
        0x3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f)


def ec_add(a, b):
    """Affine; None is the identity."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % EC_P == 0:
            return None
        slope = 3 * (a[0] * a[0] - 1) * pow(2 * a[1], -1, EC_P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, EC_P)
    x = (slope * slope - a[0] - b[0]) % EC_P
    return x, (slope * (a[0] - x) - a[1]) % EC_P


def ec_mul(n, point):
    out = None
    while n:
        out = ec_add(out, point) if n & 1 else out
        point = ec_add(point, point)
        n >>= 1
    return out


def ec_decode(raw):
    """SEC 1 section 2.3.4, the uncompressed form only."""
    need(len(raw) == 97 and raw[0] == 4, "P-384: not an uncompressed point")
    x, y = int.from_bytes(raw[1:49], "big"), int.from_bytes(raw[49:], "big")
    need(x < EC_P and y < EC_P and (y * y - x * x * x + 3 * x - EC_B) % EC_P == 0, "P-384: not a point of the curve")
    return x, y


def ec_public(secret):
    """Of the only ECPrivateKey (RFC 5915) that section 2 allows."""
    head, tail = bytes.fromhex("303e0201010430"), bytes.fromhex("a00706052b81040022")
    need(len(secret) == 64 and secret[:7] == head and secret[55:] == tail, "section 2: ECPrivateKey")
    d = int.from_bytes(secret[7:55], "big")
    need(0 < d < EC_N, "section 2: scalar")
    x, y = ec_mul(d, EC_G)
    return b"\x04" + x.to_bytes(48, "big") + y.to_bytes(48, "big")


def der_integer(n):
    raw = n.to_bytes(n.bit_length() // 8 + 1, "big")
    return b"\x02" + bytes([len(raw)]) + raw


def der_signature(sig):
    """(r, s) of the one DER form: what encodes to the same bytes again."""
    if len(sig) < 8 or sig[2] != 2 or len(sig) < 6 + sig[3]:
        return 0, 0
    split = 4 + sig[3]
    r, s = int.from_bytes(sig[4:split], "big"), int.from_bytes(sig[split + 2:], "big")
    body = der_integer(r) + der_integer(s)
    return (r, s) if sig == b"\x30" + bytes([len(body)]) + body else (0, 0)


def ec_verify(public, message, sig):
    """FIPS 186-5 section 6.4.2."""
    (r, s), q = der_signature(sig), ec_decode(public)
    if not (0 < r < EC_N and 0 < s < EC_N):
        return False
    w = pow(s, -1, EC_N)
    e = int.from_bytes(hashlib.sha384(message).digest(), "big")
    point = ec_add(ec_mul(e * w % EC_N, EC_G), ec_mul(r * w % EC_N, q))
    return point is not None and point[0] % EC_N == r


# --- section 1: suites ------------------------------------------------------------------------------------------------

class Suite:
    def __init__(self, label, mldsa, ml_public, ml_sig, classical, public, sigs, check, verify, derive):
        self.label, self.mldsa, self.ml_public, self.ml_sig, self.classical = label, mldsa, ml_public, ml_sig, classical
        self.public, self.sigs, self.check_half, self.verify_half, self.derive = public, sigs, check, verify, derive

    def check(self, public):
        need(len(public) == self.ml_public + self.public, "section 1: key of %d bytes" % len(public))
        need(any(public[32:self.ml_public]), "section 1: ML-DSA key with t1 = 0")
        self.check_half(public[self.ml_public:])

    def half_ids(self, public):
        return [key_id(self.mldsa, public[:self.ml_public], "sluice-half-v1"),
                key_id(self.classical, public[self.ml_public:], "sluice-half-v1")]

    def representative(self, context, message):
        """M'."""
        return b"CompositeAlgorithmSignatures2025" + self.label + bytes([len(context)]) + context + hashlib.sha512(message).digest()

    def half_verifies(self, public, context, message, sig):
        low, high = self.sigs
        need(self.ml_sig + low <= len(sig) <= self.ml_sig + high, "section 1: signature of %d bytes" % len(sig))
        return self.verify_half(public[self.ml_public:], self.representative(context, message), sig[self.ml_sig:])


SUITES = {
    "H1": Suite(b"COMPSIG-MLDSA65-Ed25519-SHA512", "ML-DSA-65", 1952, 3309, "Ed25519", 32, (64, 64),
                lambda half: check_ed_key(half, "Ed25519 half"), ed_verify, ed_public),
    "H2": Suite(b"COMPSIG-MLDSA87-ECDSA-P384-SHA512", "ML-DSA-87", 2592, 4627, "ECDSA-P384", 97, (8, 104),
                ec_decode, ec_verify, ec_public),
}


def key_id(suite, public, domain="sluice-key-v1"):
    return hashlib.sha256(domain.encode() + b"\0" + suite.encode() + b"\0" + public).hexdigest()


def pae(kind, payload):
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


# --- strict canonical JSON (envelope.md section 3) --------------------------------------------------------------------

def pairs(items):
    out = dict(items)
    need(len(out) == len(items), "JSON: duplicate key")
    return out


def refuse(text):
    raise Refused("JSON: number " + text[:40])


def shape(value, form):
    """form: a type, [form] for a list, a list of (key, form) for an object with these keys in this order; "key?" may be left out."""
    if isinstance(form, type):
        need(type(value) is form, "JSON: %r has another type" % (value,))
        need(form is not int or 0 <= value <= SAFE, "JSON: number out of range")
    elif len(form) == 1 and not isinstance(form[0], tuple):
        need(type(value) is list, "JSON: no list")
        for item in value:
            shape(item, form[0])
    else:
        need(type(value) is dict, "JSON: no object")
        form = [(k.rstrip("?"), f) for k, f in form if not k.endswith("?") or k[:-1] in value]
        need(list(value) == [k for k, _ in form], "JSON: keys")
        for key, inner in form:
            shape(value[key], inner)


def decode(raw, form):
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise Refused("JSON: %s" % e) from None
    shape(value, form)
    again = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    again = again.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    need(again.encode("utf-8", "surrogatepass") == raw, "JSON: not canonical")
    return value


def unbase64(text):
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as e:
        raise Refused("base64: %s" % e) from None
    need(base64.b64encode(raw).decode() == text, "base64: another spelling")
    return raw


def check_text(text, allowed, longest):
    need(len(text.encode()) <= longest and unicodedata.is_normalized("NFC", text), "text is too long or not NFC")
    for c in text:
        need(c in allowed or unicodedata.category(c) != "Cc" and c not in "\u2028\u2029", "control character %r" % c)


# --- section 3: policy ------------------------------------------------------------------------------------------------

CHECKED = {"bytes", "gate", "inspection", "manifest"}
UNITS = {"ns": 1, "us": 10**3, "\u00b5s": 10**3, "\u03bcs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
LONGEST_HOLD = 366 * 24 * UNITS["h"]
PART = r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")


def hold_ok(text):
    if re.fullmatch(r"[+-]?0", text):
        return True
    total = sum(float(n) * UNITS[u] for n, u in re.findall(PART, text))
    return bool(re.fullmatch(r"[+-]?(%s)+" % PART, text)) and (text[0] != "-" or total == 0) and total <= LONGEST_HOLD


def size_ok(text):
    m = re.fullmatch(r"([1-9][0-9]*)(|KiB|MiB|GiB|TiB)", text)
    return bool(m) and int(m[1]) << 10 * ["", "KiB", "MiB", "GiB", "TiB"].index(m[2]) <= SAFE


class Policy:
    """Reads a policy; self.bad is the list of (line, reason), empty when it loads."""

    def __init__(self, text, keys):
        self.bad, self.keys, self.stopping = [], keys, None
        self.officers, self.groups, self.parent, self.used, self.patterns, self.depth = {}, {}, {}, {}, set(), {}
        if len(text.encode()) > 64 << 10:
            self.bad.append((0, "text is too long"))
            return
        for n, line in enumerate(text.split("\n"), 1):
            self.attempt(n, self.visible, line)
        if self.bad:
            return
        lines = [(n, line.split("#")[0].split()) for n, line in enumerate(text.split("\n"), 1)]
        lines = [(n, words) for n, words in lines if words]
        kinds = {"officer": self.officer, "packer": self.packer, "group": self.group, "rule": self.rule, "stop": self.stop}
        self.bad += [(n, "unknown word " + w[0]) for n, w in lines if w[0] not in kinds]
        for kind, read in kinds.items():
            mine = [(n, w[1:]) for n, w in lines if w[0] == kind]
            if not mine and kind in ("packer", "rule"):
                self.bad.append((0, "no " + kind))
            for n, words in mine:
                self.attempt(n, read, words)
        self.halves()

    def attempt(self, line, read, *args):
        """Runs one step; what it refuses is a mistake of the line."""
        try:
            return read(line, *args)
        except Refused as e:
            self.bad.append((line, str(e)))

    def visible(self, line, text):
        check_text(text, "\t", 64 << 10)
        for c in text:
            need(c == " " or unicodedata.category(c) not in ("Cf", "Zs", "Zl", "Zp"), "invisible character %r" % c)

    def halves(self):
        seen = {}
        for key, (suite, public) in self.keys.items():
            for half in SUITES[suite].half_ids(public):
                if seen.setdefault(half, key) != key:
                    self.bad.append((max(self.used.get(key, 0), self.used.get(seen[half], 0)), "shared half"))

    def new_name(self, name):
        need(NAME.fullmatch(name), "not a name: " + name)
        need(name not in self.officers and name not in self.groups, "duplicate name " + name)

    def use_key(self, line, key):
        need(HEX.fullmatch(key), "not a key id")
        need(key not in self.used, "key used twice")
        self.used[key] = line
        need(key in self.keys, "no such key")

    def officer(self, line, words):
        need(len(words) >= 3 and len(words) % 2, "officer: a name and keys")
        self.new_name(words[0])
        self.officers[words[0]] = [k for w, k in zip(words[1::2], words[2::2]) if w == "key"]
        for word, key in zip(words[1::2], words[2::2]):
            if word != "key":
                self.bad.append((line, "unknown word " + word))
            else:
                self.attempt(line, self.use_key, key)

    def packer(self, line, words):
        need(len(words) == 1, "packer: one key id")
        self.use_key(line, words[0])

    def member(self, line, group, name):
        need(name in self.officers or name in self.groups, "unknown member " + name)
        need(name not in self.parent, name + " in two groups")
        self.parent[name] = group
        self.groups[group][1].append(name)

    def group(self, line, words):
        need(len(words) >= 3, "group: a name, a threshold and members")
        name, threshold, members = words[0], words[1], words[2:]
        self.new_name(name)
        entry = [0, []]
        for m in members:  # the group itself is not defined yet: it cannot be its own member
            if m == name:
                self.bad.append((line, "unknown member " + m))
                continue
            self.groups[name] = entry
            self.attempt(line, self.member, name, m)
            del self.groups[name]
        self.groups[name] = entry
        self.depth[name] = 1 + max([self.depth.get(m, 0) for m in entry[1]], default=0)
        if self.depth[name] > 8:
            self.bad.append((line, "groups nested too deep"))
        if len(self.groups) > 512:
            self.bad.append((line, "too many groups"))
        if len({m in self.officers for m in entry[1]}) > 1:
            self.bad.append((line, "mixes officers and groups"))
        entry[0] = {"any": 1, "all": len(members)}.get(threshold, 0)
        if not entry[0]:
            need(NUMBER.fullmatch(threshold), "threshold is no number")
            entry[0] = int(threshold)
            need(1 <= entry[0] <= len(members), "threshold %d of %d" % (entry[0], len(members)))

    def rule(self, line, words):
        need(len(words) >= 4 and len(words) % 2 == 0 and words[0] == "stream" and words[2] == "quorum", "rule: not complete")
        pattern, quorum, required, seen = words[1], words[3], {}, set()
        if not STREAM.fullmatch(pattern[:-2] if pattern.endswith("/*") else pattern):
            self.bad.append((line, "no pattern"))
        if pattern in self.patterns:
            self.bad.append((line, "two rules for one pattern"))
        self.patterns.add(pattern)
        need(len(self.patterns) <= 256, "too many rules")
        for word, value in zip(words[4::2], words[5::2]):
            self.attempt(line, self.option, word, value, required, seen)
        people = self.answering(quorum)
        need(all(n <= min(len(people), 32) for n in required.values()), "require above the officers of the quorum")

    def answering(self, name):
        """The officers of a group that a rule or the stop line names."""
        need(name in self.groups, "unknown group " + name)
        people = self.people(name)
        need(people, "group without an officer")
        need(self.fewest(name) <= 32, "more approvals than an envelope holds")
        need(not {self.parent[p] for p in people} & {"packer", "root", "log"}, "role of other signatures")
        return people

    def stop(self, line, words):
        need(len(words) == 3 and words[1] == "resume", "stop: not complete")
        need(self.stopping is None, "stop twice")
        self.stopping = words[0], words[2]
        for name in self.stopping:
            self.attempt(line, lambda _, name: self.answering(name), name)

    def option(self, line, word, value, required, seen):
        need(word == "require" or word not in seen, word + " twice")
        seen.add(word)
        if word == "require":
            m = re.fullmatch(r"checked=([a-z]+):([1-9][0-9]*)", value)
            need(m and m[1] in CHECKED and m[1] not in required, "require " + value)
            required[m[1]] = int(m[2])
        elif word == "succession":
            need(value in ("chain", "latest"), "succession " + value)
        else:
            need(word in ("hold", "max-size"), "unknown word " + word)
            need(hold_ok(value) if word == "hold" else size_ok(value), "%s %s" % (word, value))

    def people(self, name):
        if name in self.officers:
            return [name]
        return [p for m in self.groups[name][1] for p in self.people(m)]

    def fewest(self, name):
        """People who meet a group, at least."""
        if name in self.officers:
            return 1
        need_, members = self.groups[name]
        return sum(sorted(self.fewest(m) for m in members)[:max(need_, 0)])

    def met(self, name, signed):
        """An officer is met by signing, a group by so many of its members."""
        if name in self.officers:
            return name in signed
        return sum(self.met(m, signed) for m in self.groups[name][1]) >= self.groups[name][0]


# --- section 4: the trust object --------------------------------------------------------------------------------------

TRUST = [("type", str), ("version", int), ("prev", str), ("root", str), ("policy", str),
         ("keys", [[("id", str), ("suite", str), ("public", str), ("comment", str)]]),
         ("links", [[("id", str), ("public", str), ("comment", str)]]),
         ("receivers", [[("name", str), ("hpke", str), ("ticket?", str), ("comment", str)]]),
         ("heartbeats?", [[("id", str), ("suite", str), ("public", str), ("comment", str)]]),
         ("logs?", [[("origin", str), ("id", str), ("suite", str), ("public", str), ("comment", str)]]),
         ("epochs", [[("stream", str), ("min_epoch", int), ("min_seq", int)]]),
         ("created", str)]
ORIGIN = re.compile(r"sluice/(low|high)/[a-z0-9][a-z0-9._-]{0,63}")
DSSE = [("payload", str), ("payloadType", str), ("signatures", [[("keyid", str), ("sig", str)]])]


def is_sorted(names):
    return all(a < b for a, b in zip(names, names[1:]))


def read_trust(payload):
    """The object, its policy and its keys, as (suite, public key) by id."""
    t = decode(payload, TRUST)
    need(t["type"] == "sluice-trust-v1" and t["version"] >= 1, "section 4: type or version")
    need(t["prev"] == "" if t["version"] == 1 else HEX.fullmatch(t["prev"]), "section 4: prev")
    datetime.datetime.strptime(t["created"], "%Y-%m-%dT%H:%M:%SZ")
    for field, name in (("keys", "id"), ("links", "id"), ("receivers", "name"), ("epochs", "stream")):
        need(is_sorted([e[name] for e in t[field]]), "section 4: %s not strictly sorted" % field)
        for e in t[field]:
            check_text(e.get("comment", ""), "", 256)
    keys, halves = {}, set()
    for k in t["keys"]:
        public = unbase64(k["public"])
        need(k["suite"] in SUITES and key_id(k["suite"], public) == k["id"], "section 1: suite or key id of %s" % k["id"])
        SUITES[k["suite"]].check(public)
        keys[k["id"]] = k["suite"], public
        halves |= set(SUITES[k["suite"]].half_ids(public))
    for k in t["links"]:
        public = unbase64(k["public"])
        need(key_id("ED25519-LINK", public) == k["id"], "section 1: link key id of %s" % k["id"])
        check_ed_key(public, "link key")
        need(key_id("Ed25519", public, "sluice-half-v1") not in halves, "section 4: link key is the half of another")
    owners = {unbase64(k["public"]) for k in t["links"]}
    for r in t["receivers"]:
        need(NAME.fullmatch(r["name"]) and len(unbase64(r["hpke"])) == 1216, "section 2: receiver")
        if "ticket" in r:
            public = unbase64(r["ticket"])
            check_ed_key(public, "ticket key")
            need(key_id("Ed25519", public, "sluice-half-v1") not in halves, "section 4: ticket key is the half of another")
            need(public not in owners, "section 4: ticket key of two places")
            owners.add(public)
    check_online(t, halves | {key_id("Ed25519", public, "sluice-half-v1") for public in owners})
    for e in t["epochs"]:
        need(STREAM.fullmatch(e["stream"]), "section 4: stream of a floor")
    policy = Policy(t["policy"], keys)
    need(not policy.bad, "section 3: policy: %s" % policy.bad)
    need(t["root"] in policy.groups, "section 4: root is not a group")
    return t, policy, keys


def check_online(t, taken):
    """Heartbeat and log keys: no half of one stands anywhere else."""
    for field, name, most in (("heartbeats", "id", 16), ("logs", "origin", 1024)):
        need(t.get(field) != [], "section 4: empty %s are left out" % field)
        entries = t.get(field, [])
        need(len(entries) <= most and is_sorted([e[name] for e in entries]), "section 4: %s too many or not strictly sorted" % field)
        for e in entries:
            check_text(e["comment"], "", 256)
            need(field != "logs" or ORIGIN.fullmatch(e["origin"]), "section 4: origin of a log")
            public = unbase64(e["public"])
            need(e["suite"] in SUITES and key_id(e["suite"], public) == e["id"], "section 1: suite or key id of %s" % e["id"])
            SUITES[e["suite"]].check(public)
            for half in SUITES[e["suite"]].half_ids(public):
                need(half not in taken, "section 4: %s share a half with another key" % field)
                taken.add(half)


def fingerprint_words(payload):
    words = WORDS.read_text("ascii").split()
    need(len(words) == 2048, "word list")
    bits = int.from_bytes(hashlib.sha256(payload).digest()[:11], "big")
    return [words[bits >> 11 * (7 - i) & 2047] for i in range(8)]


def check_first(folder):
    payload = (folder / "trust-1.json").read_bytes()
    expect = json.loads((folder / "trust-1.expect.json").read_text("utf-8"))
    first = read_trust(payload)
    need(hashlib.sha256(payload).hexdigest() == expect["fingerprint"], "fingerprint")
    need(fingerprint_words(payload) == expect["words"], "words of the fingerprint")
    return payload, first


def check_successor(file, before, old):
    check_next(file.read_bytes(), before, old)


def check_next(raw, before, old):
    """The DSSE envelope of the version after old, whose payload is before."""
    d = decode(raw, DSSE)
    payload = unbase64(d["payload"])
    need(d["payloadType"] == TRUST_TYPE, "payload type")
    new = read_trust(payload)
    need(new[0]["version"] == old[0]["version"] + 1, "section 4: version")
    need(new[0]["prev"] == hashlib.sha256(before).hexdigest(), "section 4: prev")
    message = pae(d["payloadType"], payload)
    need(len({s["keyid"] for s in d["signatures"]}) == len(d["signatures"]), "envelope.md section 2: one keyid twice")
    for t, policy, keys in (old, new):
        signed = set()
        for s in d["signatures"]:
            if s["keyid"] not in keys:
                continue
            suite, public = keys[s["keyid"]]
            ok = SUITES[suite].half_verifies(public, b"sluice/v1/root", message, unbase64(s["sig"]))
            need(ok, "section 4: classical half of the signature by %s" % s["keyid"])
            signed |= {name for name, own in policy.officers.items() if s["keyid"] in own}
        need(policy.met(t["root"], signed), "section 4: quorum of version %d" % t["version"])


def check_objects(folder, kind):
    """The trust objects KIND-*.good.json and KIND-*.bad.json."""
    for file in sorted(folder.glob(kind + "-*.*d.json")):
        try:
            read_trust(file.read_bytes())
            refused = ""
        except Refused as e:
            refused = str(e)
        need(bool(refused) == file.name.endswith(".bad.json"), "%s: %s" % (file.name, refused or "read"))
    good, bad = (len(list(folder.glob("%s-*.%s.json" % (kind, verdict)))) for verdict in ("good", "bad"))
    need(good >= 2 and bad >= 6, "%d good and %d bad objects %s" % (good, bad, kind))
    return good, bad


def check_suites(folder):
    """Keys of both suites in one object, and its successor, which both sign."""
    counts = check_objects(folder, "suites")
    payload = (folder / "suites-mixed.good.json").read_bytes()
    check_successor(folder / "suites-mixed.next.json", payload, read_trust(payload))
    return counts


# --- the other vectors ------------------------------------------------------------------------------------------------

def check_policies(folder, keys):
    """good and bad; of a bad one the very lines."""
    good = bad = 0
    for file in sorted(folder.glob("*.policy")):
        text = file.read_bytes().decode("utf-8")
        expect = {int(n) for n in re.findall(r"^# expect: line ([0-9]+): ", text, re.M)}
        found = Policy(text, keys).bad
        need({n for n, _ in found} == expect, "%s: lines %s expected, found %s" % (file.name, sorted(expect), found))
        need(file.name.endswith(".bad.policy" if expect else ".good.policy"), "%s: name and verdict disagree" % file.name)
        good, bad = good + (not expect), bad + bool(expect)
    need(good >= 4 and bad >= 25, "%d good and %d bad policies" % (good, bad))
    return good, bad


def check_composite(file, suite):
    """The draft's own vector: M' with and without a context, and that the private key stands ML-DSA first."""
    v = {k: unbase64(x) for k, x in json.loads(file.read_text("utf-8")).items() if k != "tcId"}
    suite.check(v["pk"])
    need(suite.derive(v["sk"][32:]) == v["pk"][suite.ml_public:], "composite: classical private key")
    for context, sig in ((b"", v["s"]), (v["ctx"], v["sWithContext"])):
        need(suite.half_verifies(v["pk"], context, v["m"], sig), "composite: classical half, context of %d bytes" % len(context))
        need(not suite.half_verifies(v["pk"], context, v["m"] + b"x", sig), "composite: another message verifies")
        need(not suite.half_verifies(v["pk"], context + b"x", v["m"], sig), "composite: another context verifies")


# --- section 2: key files; AES-256 of FIPS 197, GCM of NIST SP 800-38D ------------------------------------------------

def aes_box():
    box, p, q = [0x63] * 256, 1, 1
    while True:
        p = (p ^ p << 1 ^ (0x11b if p & 0x80 else 0)) & 0xff
        q ^= q << 1
        q ^= q << 2
        q = (q ^ q << 4) & 0xff
        q ^= 0x09 if q & 0x80 else 0
        r = q * 0x101
        box[p] = (q ^ r >> 7 ^ r >> 6 ^ r >> 5 ^ r >> 4) & 0xff ^ 0x63
        if p == 1:
            return box


BOX = aes_box()


def aes_schedule(key):
    words, rcon = [list(key[i:i + 4]) for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        w = words[-1]
        if i % 8 == 0:
            w = [BOX[b] for b in w[1:] + w[:1]]
            w[0] ^= rcon
            rcon <<= 1
        elif i % 8 == 4:
            w = [BOX[b] for b in w]
        words.append([a ^ b for a, b in zip(words[-8], w)])
    return [sum(words[i:i + 4], []) for i in range(0, 60, 4)]


def double(b):
    return b << 1 ^ (0x11b if b & 0x80 else 0)


def aes(schedule, block):
    s = [a ^ b for a, b in zip(block, schedule[0])]
    for n, key in enumerate(schedule[1:], 1):
        s = [BOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if n < 14:
            mixed = []
            for c in range(0, 16, 4):
                t = s[c] ^ s[c + 1] ^ s[c + 2] ^ s[c + 3]
                mixed += [s[c + i] ^ t ^ double(s[c + i] ^ s[c + (i + 1) % 4]) for i in range(4)]
            s = mixed
        s = [a ^ b for a, b in zip(s, key)]
    return bytes(s)


def ghash(h, data):
    y = 0
    for i in range(0, len(data), 16):
        y ^= int.from_bytes(data[i:i + 16], "big")
        z, v = 0, h
        for bit in range(127, -1, -1):
            z ^= v if y >> bit & 1 else 0
            v = v >> 1 ^ (0xe1 << 120 if v & 1 else 0)
        y = z
    return y


def gcm_open(key, nonce, sealed, additional):
    """The plain text, or None when the tag is wrong. Only nonces of 12 bytes."""
    schedule, text, tag = aes_schedule(key), sealed[:-16], sealed[-16:]
    pad = lambda b: b + bytes(-len(b) % 16)
    sizes = (8 * len(additional)).to_bytes(8, "big") + (8 * len(text)).to_bytes(8, "big")
    hashed = ghash(int.from_bytes(aes(schedule, bytes(16)), "big"), pad(additional) + pad(text) + sizes)
    stream = [aes(schedule, nonce + n.to_bytes(4, "big")) for n in range(1, 2 + -(-len(text) // 16))]
    if hashed.to_bytes(16, "big") != bytes(a ^ b for a, b in zip(tag, stream[0])):
        return None
    return bytes(a ^ b for a, b in zip(text, b"".join(stream[1:])))


SECRET = [("type", str), ("suite", str), ("id", str), ("kdf", str), ("n", int), ("r", int), ("p", int),
          ("salt", str), ("nonce", str), ("sealed", str), ("comment", str)]


def check_key_files(folder):
    cases = json.loads((folder / "keyfiles.json").read_text("utf-8"))
    need({c["suite"] for c in cases} == {"H1", "H2", "ED25519-LINK", "ED25519-TICKET"}, "keyfiles.json: suites")
    for c in cases:
        raw = c["file"].encode()
        need(raw.endswith(b"\n"), "section 2: one line")
        f = decode(raw[:-1], SECRET)
        need((f["type"], f["kdf"], f["suite"]) == ("sluice-private-key-v1", "scrypt", c["suite"]), "section 2: type, kdf or suite")
        need(f["n"] <= 1 << 20 and f["r"] <= 16 and f["p"] <= 4, "section 2: memory")
        salt, nonce, sealed = unbase64(f["salt"]), unbase64(f["nonce"]), unbase64(f["sealed"])
        secret = bytes.fromhex(c["secret"])
        need((len(salt), len(nonce), len(sealed)) == (16, 12, len(secret) + 16), "section 2: lengths")
        key = hashlib.scrypt(c["passphrase"].encode(), salt=salt, n=f["n"], r=f["r"], p=f["p"], dklen=32)
        need(hashlib.sha256(key).hexdigest() == c["kdf_sha256"], "section 2: scrypt")
        additional = b"\0".join([b"sluice-private-key-v1", f["suite"].encode(), f["id"].encode()])
        need(gcm_open(key, nonce, sealed, additional) == secret, "section 2: sealed")
        need(gcm_open(key, nonce, sealed, additional[:-1]) is None, "section 2: sealed with other additional data")
        public, suite = unbase64(c["public"]), SUITES.get(c["suite"])
        derived = suite.derive(secret[32:]) if suite else ed_public(secret)
        need(derived == public[suite.ml_public if suite else 0:], "public key")
        need(key_id(c["suite"], public) == f["id"], "section 1: key id")
    return len(cases)


TOKEN = [("type", str), ("suite", str), ("id", str), ("public", str), ("token", str), ("wrap", str), ("nonce", str), ("wrapped", str),
         ("comment", str)]


def check_token_keys(folder):
    cases = json.loads((folder / "tokenkeys.json").read_text("utf-8"))
    need({c["suite"] for c in cases} == {"H1", "H2"}, "tokenkeys.json: suites")
    for c in cases:
        raw = c["file"].encode()
        need(raw.endswith(b"\n"), "section 2: one line")
        f = decode(raw[:-1], TOKEN)
        need((f["type"], f["wrap"], f["suite"]) == ("sluice-token-key-v1", "AES-256-GCM", c["suite"]), "section 2: type, wrap or suite")
        need(re.fullmatch("pkcs11:[!-~]{0,1017}", f["token"]), "section 2: token")
        nonce, wrapped, seed = unbase64(f["nonce"]), unbase64(f["wrapped"]), bytes.fromhex(c["seed"])
        need((len(nonce), len(wrapped), len(seed)) == (12, 48, 32), "section 2: lengths")
        additional = b"\0".join([b"sluice-token-key-v1", f["suite"].encode(), f["id"].encode()])
        need(gcm_open(bytes.fromhex(c["wrapping_key"]), nonce, wrapped, additional) == seed, "section 2: wrapped")
        need(gcm_open(bytes.fromhex(c["wrapping_key"]), nonce, wrapped, additional[:-1]) is None, "section 2: wrapped with other additional data")
        need(key_id(c["suite"], unbase64(f["public"])) == f["id"], "section 1: key id")
    return len(cases)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    before, first = check_first(folder)
    check_successor(folder / "trust-2.dsse.json", before, first)
    good, bad = check_policies(folder, first[2])
    check_composite(folder / "composite.json", SUITES["H1"])
    check_composite(folder / "composite-h2.json", SUITES["H2"])
    files = check_key_files(folder) + check_token_keys(folder)
    tickets, suites, online = check_objects(folder, "ticket"), check_suites(folder), check_objects(folder, "online")
    print("ok: two trust objects, %d good and %d bad policies, %d key files, two composite vectors" % (good, bad, files))
    print("    %d good and %d bad trust objects with ticket keys" % tickets)
    print("    %d good and %d bad trust objects with keys of both suites, and a successor signed by both" % suites)
    print("    %d good and %d bad trust objects with heartbeat and log keys" % online)
    print("not checked here, only in Go: the ML-DSA halves")


if __name__ == "__main__":
    try:
        main()
    except (Refused, KeyError, ValueError, OSError) as e:
        sys.exit("check_trust.py: %s: %s" % (type(e).__name__, e))
