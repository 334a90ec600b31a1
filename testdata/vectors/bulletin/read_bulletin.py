#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of bulletins (docs/spec/bulletin.md), with the standard library only.

    read_bulletin.py [DIR]          check every vector in DIR (the folder of this file)
    read_bulletin.py FILE.bulletin  say what it holds, or why it is refused

It shares no code with the Go packages. Trust objects, canonical JSON and the classical halves of signatures are read by the second
reader of docs/spec/trust.md, check_trust.py, which stands beside it. What neither does: ML-DSA; the Go tests do both halves.
Exit status 0: all as expected. 1: not.
"""

import datetime
import hashlib
import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "trust"))
sys.dont_write_bytecode = True

import check_trust as trust  # noqa: E402

MAGIC = b"SLUICE\x02\n"
CAPS = {1: 4 << 20, 2: 8 << 20, 3: 64 << 10, 4: 256 << 10}
WHOLE = 64 << 20
SNAPSHOT_TYPE = "application/vnd.sluice.snapshot.v1+json"
ORDER_TYPE = "application/vnd.sluice.order.v1+json"

SNAPSHOT = [("type", str), ("site", str), ("root", str), ("counter", int), ("interval", int), ("at", str),
            ("trust", [("version", int), ("fingerprint", str)]), ("orders", [str]),
            ("releases", [[("stream", str), ("epoch", int), ("seq", int), ("release", str)]]),
            ("log", [("origin", str), ("size", int), ("root", str)])]
ORDER = [("type", str), ("root", str), ("action", str), ("kind", str), ("target", str), ("lifts", [str]),
         ("officer", str), ("role", str), ("at", str), ("reason", str)]


class Refused(Exception):
    def __init__(self, kind, why):
        super().__init__(why)
        self.kind = kind


def need(ok, kind, why):
    if not ok:
        raise Refused(kind, why)


def sha256(raw):
    return hashlib.sha256(raw).hexdigest()


def sections(data):
    """The sections in their order, the end checked and left out."""
    need(len(data) <= WHOLE, "container", "section 1: more than 64 MiB")
    need(data[:8] == MAGIC, "container", "section 1: magic")
    at, last, out = 8, 0, []
    while True:
        need(len(data) >= at + 12, "container", "section 1: cut off")
        kind, reserved, n, size = struct.unpack_from(">BBHQ", data, at)
        need(reserved == 0 and n <= 64, "container", "section 1: reserved byte or name")
        body = at + 12 + n
        need(len(data) >= body + size, "container", "section 1: cut off")
        if kind == 0:
            need(n == 0 and size == 32, "container", "section 1: form of the end")
            need(hashlib.sha256(data[:body]).digest() == data[body:body + 32], "container", "section 1: digest")
            need(len(data) == body + 32, "container", "section 1: bytes after the end")
            return out
        need(kind >= last and kind in CAPS and 1 <= size <= CAPS[kind], "container", "section 1: type, order or cap")
        out.append((kind, data[at + 12:body].decode("latin-1"), data[body:body + size]))
        at, last = body + size, kind


def container(data):
    got = sections(data)
    of = {k: [(name, body) for kind, name, body in got if kind == k] for k in CAPS}
    need(len(of[1]) == 1 and of[1][0][0] == "", "container", "section 1: exactly one snapshot, without a name")
    need(1 <= len(of[2]) <= 256, "container", "section 1: 1 to 256 trust objects")
    need([name for name, _ in of[2]] == ["%06d" % (i + 1) for i in range(len(of[2]))], "container", "section 1: versions without a gap")
    need(len(of[3]) <= 1024 and trust.is_sorted([name for name, _ in of[3]]), "container", "section 1: orders strictly increasing")
    proofs = [name for name, _ in of[4]]
    need(len(proofs) <= 64 and trust.is_sorted(proofs), "container", "section 1: proofs strictly increasing")
    need(all(len(name) == 12 and set(name) <= set("0123456789") for name in proofs), "container", "section 1: name of a proof")
    return of[1][0][1], [body for _, body in of[2]], of[3], [body for _, body in of[4]]


def dsse(raw, payload_type, kind):
    try:
        d = trust.decode(raw, trust.DSSE)
        need(d["payloadType"] == payload_type, kind, "payload type")
        return trust.unbase64(d["payload"]), [(s["keyid"], trust.unbase64(s["sig"])) for s in d["signatures"]]
    except trust.Refused as e:
        raise Refused(kind, str(e)) from None


def digests(ids, most):
    return len(ids) <= most and trust.is_sorted(ids) and all(trust.HEX.fullmatch(i) for i in ids)


def is_time(text):
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").strftime("%Y-%m-%dT%H:%M:%SZ") == text
    except ValueError:
        return False


def read_snapshot(payload):
    """Section 2."""
    try:
        s = trust.decode(payload, SNAPSHOT)
        log_root = trust.unbase64(s["log"]["root"])
    except trust.Refused as e:
        raise Refused("snapshot", str(e)) from None
    ok = lambda what, why: need(what, "snapshot", "section 2: " + why)
    ok(s["type"] == "sluice-snapshot-v1", "type")
    ok(trust.NAME.fullmatch(s["site"]) and trust.HEX.fullmatch(s["root"]), "site or root")
    ok(s["counter"] >= 1 and 1 <= s["interval"] <= 86400, "counter or interval")
    ok(is_time(s["at"]), "at")
    ok(s["trust"]["version"] >= 1 and trust.HEX.fullmatch(s["trust"]["fingerprint"]), "trust")
    ok(digests(s["orders"], 1024), "orders")
    ok(len(s["releases"]) <= 8192, "releases")
    ok(trust.is_sorted([(r["stream"], r["epoch"], r["seq"]) for r in s["releases"]]), "releases not strictly sorted")
    for r in s["releases"]:
        ok(trust.STREAM.fullmatch(r["stream"]) and r["seq"] >= 1 and trust.HEX.fullmatch(r["release"]), "release")
    log = s["log"]
    none = (log["origin"], log["size"], log["root"]) == ("", 0, "")
    ok(none or trust.ORIGIN.fullmatch(log["origin"]) and log["size"] >= 1 and len(log_root) == 32, "log")
    return s


def read_order(payload):
    """Section 3."""
    try:
        o = trust.decode(payload, ORDER)
        trust.check_text(o["reason"], "\n\t", 1024)
    except trust.Refused as e:
        raise Refused("order", str(e)) from None
    ok = lambda what, why: need(what, "order", "section 3: " + why)
    ok(o["type"] == "sluice-order-v1" and trust.HEX.fullmatch(o["root"]), "type or root")
    ok(trust.NAME.fullmatch(o["officer"]) and trust.NAME.fullmatch(o["role"]), "officer or role")
    ok(is_time(o["at"]) and o["reason"], "at or reason")
    if o["action"] == "resume":
        ok((o["kind"], o["target"]) == ("", "") and o["lifts"] and digests(o["lifts"], 64), "resume")
        return o
    ok(o["action"] in ("stop", "revoke") and o["lifts"] == [], "action or lifts")
    stream = o["target"][:-2] if o["target"].endswith("/*") else o["target"]
    target = {"everything": o["target"] == "", "stream": trust.STREAM.fullmatch(stream), "release": trust.HEX.fullmatch(o["target"]),
              "key": trust.HEX.fullmatch(o["target"]), "half": trust.HEX.fullmatch(o["target"]), "officer": trust.NAME.fullmatch(o["target"])}
    ok(target.get(o["kind"]), "kind or target")
    ok(o["action"] == "stop" or o["kind"] not in ("everything", "stream"), "revoke of a stream or of everything")
    return o


def half_verifies(keys, role, payload_type, payload, signatures, kind):
    """Exactly one signature, and its classical half."""
    need(len(signatures) == 1, kind, "exactly one signature")
    keyid, sig = signatures[0]
    need(keyid in keys, kind, "key %s is not enrolled" % keyid)
    suite, public = keys[keyid]
    ok = trust.SUITES[suite].half_verifies(public, b"sluice/v1/" + role.encode(), trust.pae(payload_type, payload), sig)
    need(ok, kind, "classical half of the signature")


def read_chain(bodies):
    """Payloads and objects of the versions, each signed by the quorum of the one before and of its own."""
    out = []
    for i, body in enumerate(bodies):
        payload, signatures = dsse(body, trust.TRUST_TYPE, "trust")
        try:
            t, policy, keys = trust.read_trust(payload)
            need(t["version"] == i + 1, "trust", "version %d at place %d" % (t["version"], i + 1))
            if out:
                trust.check_next(body, out[-1][0], out[-1][1])
        except trust.Refused as e:
            raise Refused("trust", str(e)) from None
        out.append((payload, (t, policy, keys)))
    return out


def who(policy, keyid):
    """Officer and group of a key."""
    for name, own in policy.officers.items():
        if keyid in own:
            return name, next((g for g, (_, members) in policy.groups.items() if name in members), "")
    return "", ""


def head(s):
    text = json.dumps({k: s[k] for k in ("trust", "orders", "releases")}, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(b"sluice-head-v1\0" + text.encode()).digest()


def words(digest):
    listed = trust.WORDS.read_text("ascii").split()
    bits = int.from_bytes(digest[:9], "big") >> 6
    return [listed[bits >> 11 * (5 - i) & 2047] for i in range(6)]


def read(data):
    """What a good bulletin says; Refused for any other."""
    snapshot, bodies, orders, proof = container(data)
    named = []
    for name, body in orders:
        payload, signatures = dsse(body, ORDER_TYPE, "container")
        need(sha256(payload) == name, "container", "section 1: order under another name")
        named.append((payload, signatures))
    chain = read_chain(bodies)
    root = sha256(chain[0][0])
    for payload, signatures in named:
        o = read_order(payload)
        need(o["root"] == root, "order", "section 3: another site's")
        for _, (_, policy, keys) in chain:
            if signatures[0][0] in keys:
                need((o["officer"], o["role"]) == who(policy, signatures[0][0]), "order", "section 3: whose order")
                half_verifies(keys, o["role"], ORDER_TYPE, payload, signatures, "order")
                break
        else:
            raise Refused("order", "key %s is enrolled in no version" % signatures[0][0])
    payload, signatures = dsse(snapshot, SNAPSHOT_TYPE, "snapshot")
    s = read_snapshot(payload)
    keys = {k["id"]: (k["suite"], trust.unbase64(k["public"])) for _, (t, _, _) in chain for k in t.get("heartbeats", [])}
    half_verifies(keys, "heartbeat", SNAPSHOT_TYPE, payload, signatures, "snapshot")
    need(s["root"] == root, "snapshot", "section 2: another site's")
    need(s["orders"] == [name for name, _ in orders], "match", "section 2: the orders are not those of the snapshot")
    need(s["trust"] == {"version": len(chain), "fingerprint": sha256(chain[-1][0])}, "match", "section 2: the chain does not end as the snapshot says")
    need(not proof or s["log"]["size"] > 0, "match", "section 2: proofs of no log")
    return {"counter": s["counter"], "root": root, "trust": [sha256(p) for p, _ in chain], "orders": s["orders"],
            "head": head(s).hex(), "words": words(head(s))}


def judge(path):
    try:
        return read(path.read_bytes()), ""
    except Refused as e:
        return {"refuse": e.kind}, str(e)


def run(folder):
    paths, wrong = sorted(folder.glob("*.bulletin")), 0
    for path in paths:
        want = json.loads(path.with_suffix(".json").read_text("utf-8"))
        want.pop("reason", None)
        if "refuse" not in want:
            want.setdefault("orders", [])
        got, why = judge(path)
        wrong += got != want
        print("%s %s %s" % ("ok  " if got == want else "FAIL", path.name, why or " ".join(got["words"])))
    print("%d vectors, %d wrong" % (len(paths), wrong))
    return 1 if wrong or not paths else 0


def main():
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    if path.is_dir():
        return run(path)
    got, why = judge(path)
    print(json.dumps(got, indent=1), why)
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
