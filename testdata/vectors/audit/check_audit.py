#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of the vectors of docs/spec/audit.md, with the standard library only.

    check_audit.py [DIR]    check every export in DIR (the folder of this file)

It shares no code with the Go package: events, tree, note, proofs and replay are written here again from the specification. Of the
composite signatures it verifies the classical half, with those of ../trust/check_trust.py. Exit status 0: all as expected. 1: not.
"""

import base64
import hashlib
import json
import pathlib
import re
import sys
import unicodedata

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "../trust"))
import check_trust  # noqa: E402

ORIGIN = re.compile(r"sluice/(low|high)/[a-z0-9][a-z0-9._-]{0,63}")
RELEASE = re.compile(r"[0-9a-f]{64}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z")
TEXT = ["actor", "action", "job", "release", "from", "to", "stream", "officer", "key", "digest", "detail", "prev"]
FIELDS = ["seq", "time", "actor", "action", "job", "release", "from", "to", "stream", "epoch", "number", "officer", "key",
          "digest", "detail", "prev"]
ALWAYS = {"seq", "time", "actor", "action", "prev"}
MOVES = {
    "low": {"": "NEW", "NEW": "MIRRORED REFUSED", "MIRRORED": "INSPECTED REFUSED", "INSPECTED": "GATED REFUSED",
            "GATED": "SEALED REFUSED", "SEALED": "APPROVED REFUSED", "APPROVED": "SENT REFUSED", "SENT": "DELETED",
            "REFUSED": "DELETED"},
    "high": {"": "RECEIVING REJECTED", "RECEIVING": "RECEIVED REJECTED", "RECEIVED": "VERIFIED RECEIVING REJECTED",
             "VERIFIED": "INSPECTED REJECTED", "INSPECTED": "HELD REJECTED", "HELD": "PUBLISHED RECEIVING REJECTED",
             "PUBLISHED": "DELETED", "REJECTED": "RECEIVING"},
}


class Refused(Exception):
    def __init__(self, kind, reason):
        super().__init__(reason)
        self.kind = kind


def need(ok, kind, reason):
    if not ok:
        raise Refused(kind, reason)


# --- section 1: the event ---------------------------------------------------------------------------------------------

def escape(text):
    out = json.dumps(text, ensure_ascii=False)
    return out.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x7f", "\x7f")


def encode(event):
    parts = []
    for name in FIELDS:
        value = event.get(name, 0 if name in ("seq", "epoch", "number") else "")
        if value or name in ALWAYS:
            parts.append('"%s":%s' % (name, value if isinstance(value, int) else escape(value)))
    return ("{" + ",".join(parts) + "}").encode()


def read_event(raw):
    """The event, and whether it is in the canonical form."""
    need(len(raw) <= 64 << 10, "format", "an event of %d bytes" % len(raw))
    try:
        event = json.loads(raw.decode())
    except ValueError:
        raise Refused("tampered", "no event") from None
    need(isinstance(event, dict) and set(event) <= set(FIELDS), "tampered", "unknown field")
    for name, value in event.items():
        kind = int if name in ("seq", "epoch", "number") else str
        need(type(value) is kind, "tampered", "%s is no %s" % (name, kind))
    canonical = encode(event) == raw and TIME.fullmatch(event["time"]) is not None
    return event, canonical and all(unicodedata.is_normalized("NFC", event.get(n, "")) for n in TEXT)


# --- section 2: the tree, straight from RFC 6962 section 2.1 ------------------------------------------------------------

def leaf_hash(data):
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def split(n):
    return 1 << (n - 1).bit_length() - 1


def root_of(leaves):
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(root_of(leaves[:k]), root_of(leaves[k:]))


def root_by_path(index, size, leaf, path):
    """Section 2.1.1, read backwards."""
    if size == 1:
        need(not path, "tampered", "a proof with too many hashes")
        return leaf
    need(path, "tampered", "a proof with too few hashes")
    k = split(size)
    if index < k:
        return node_hash(root_by_path(index, k, leaf, path[:-1]), path[-1])
    return node_hash(path[-1], root_by_path(index - k, size - k, leaf, path[:-1]))


# --- section 3: the checkpoint ------------------------------------------------------------------------------------------

def unbase64(text, size=None):
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("format", "no base64") from None
    need(base64.b64encode(raw).decode() == text and size in (None, len(raw)), "format", "another form of base64")
    return raw


def read_key(raw):
    key = json.loads(raw)
    need(key["suite"] in check_trust.SUITES, "format", "suite")
    public = unbase64(key["public"])
    check_trust.SUITES[key["suite"]].check(public)
    need(check_trust.key_id(key["suite"], public) == key["id"], "format", "key id")
    return key["suite"], public


def read_checkpoint(raw, key):
    suite, public = key
    need(len(raw) <= 64 << 10, "format", "a note of %d bytes" % len(raw))
    try:
        text, _, lines = raw.decode().rpartition("\n\n")
    except ValueError:
        raise Refused("format", "no UTF-8") from None
    need(text and lines.endswith("\n"), "format", "no note")
    text += "\n"
    origin = text.split("\n")[0]
    need(ORIGIN.fullmatch(origin), "format", "origin")
    want = hashlib.sha256(origin.encode() + b"\n\xffsluice/" + suite.encode() + b"\0" + public).digest()[:4]
    signed = False
    for line in lines[:-1].split("\n"):
        dash, name, sig = (line.split(" ") + ["", ""])[:3]
        need(dash == "\u2014" and name and line.count(" ") == 2, "format", "signature line")
        sig = unbase64(sig)
        if name != origin or sig[:4] != want:
            continue
        need(check_trust.SUITES[suite].half_verifies(public, b"sluice/v1/log", text.encode(), sig[4:]), "signature", "does not verify")
        signed = True
    need(signed, "signature", "not signed by this key")
    body = text.split("\n")
    need(len(body) == 4, "format", "lines")
    need(re.fullmatch(r"[1-9][0-9]{0,7}", body[1]) and int(body[1]) <= 1 << 24, "format", "size")
    return origin, int(body[1]), unbase64(body[2], 32)


# --- section 4: proofs --------------------------------------------------------------------------------------------------

def check_proof(raw, release, key, checkpoint):
    head, _, note = raw.decode().partition("\n\n")
    lines = head.split("\n")
    need(lines[0] == "c2sp.org/tlog-proof@v1" and len(lines) - 3 in range(64), "format", "proof")
    need(lines[1].startswith("extra ") and re.fullmatch(r"index (0|[1-9][0-9]*)", lines[2]), "format", "proof")
    event, index = unbase64(lines[1][6:]), int(lines[2][6:])
    origin, size, root = read_checkpoint(note.encode(), key)
    path = [unbase64(line, 32) for line in lines[3:]]
    need(index < size and root_by_path(index, size, leaf_hash(event), path) == root, "tampered", "not that leaf")
    said, _ = read_event(event)
    need(said["seq"] == index + 1 and said.get("release") == release, "tampered", "another event")
    need((origin, size, root) == checkpoint, "tampered", "another checkpoint")


# --- section 7: the replay ----------------------------------------------------------------------------------------------

class Replay:
    def __init__(self, side):
        self.moves = {k: v.split() for k, v in MOVES[side].items()}
        self.jobs, self.words, self.marks, self.begun, self.moved, self.odd_form = {}, {}, {}, False, False, 0

    def take(self, n, prev, raw):
        event, canonical = read_event(raw)
        get = lambda name: event.get(name, "")  # noqa: E731
        if not canonical:
            need(not self.begun and not (get("from") or get("to") or get("stream")), "tampered", "event %d is not canonical" % n)
            self.odd_form = self.odd_form or n
        need(event["seq"] == n and event["prev"] == prev, "tampered", "event %d is out of the chain" % n)
        if event["action"] == "log begins":
            need(not self.begun and not self.moved, "tampered", "the log begins twice")
            self.begun, self.odd_form = True, 0
        elif get("to"):
            self.move(n, event, get)
        elif get("job") and not self.begun:
            self.jobs.setdefault(get("job"), {"old": True, "known": False, "release": ""})
        if event["action"] in ("approve", "reject"):
            self.words.setdefault(get("release"), {})[get("officer")] = event["action"]

    def move(self, n, event, get):
        job = self.jobs.setdefault(get("job"), {"old": False, "known": True, "state": "", "release": ""})
        if not self.begun and not job["known"]:
            job.update(old=False, known=True, state="")
        need(not job["known"] or job["state"] == get("from"), "tampered", "event %d moves from elsewhere" % n)
        need(get("to") in self.moves.get(get("from"), []), "tampered", "event %d moves along no arrow" % n)
        need(not job["release"] or not get("release") or job["release"] == get("release"), "tampered", "event %d: another release" % n)
        if get("to") in ("APPROVED", "PUBLISHED") and not job["old"]:
            need("approve" in self.words.get(get("release"), {}).values(), "tampered", "event %d: nobody approved" % n)
            need(get("to") == "APPROVED" or RELEASE.fullmatch(get("digest")), "tampered", "event %d: no receipt" % n)
        if get("stream"):
            mark = (event.get("epoch", 0), event.get("number", 0))
            need(mark > self.marks.get(get("stream"), (-1, -1)), "tampered", "event %d: the mark does not grow" % n)
            self.marks[get("stream")] = mark
        job.update(known=True, state=get("to"), release=get("release") or job["release"])
        self.moved = True


def check(folder):
    key = read_key((folder / "log.pub").read_bytes())
    checkpoint = origin, size, root = read_checkpoint((folder / "checkpoint").read_bytes(), key)
    older = None
    if (folder / "since").exists():
        older = read_checkpoint((folder / "since").read_bytes(), key)
        need(older[0] == origin and older[1] <= size, "tampered", "the earlier checkpoint is of another log, or larger")
    lines = (folder / "events.jsonl").read_bytes().split(b"\n")
    need(len(lines) == size + 1 and lines[-1] == b"", "tampered", "%d lines, the checkpoint has %d" % (len(lines) - 1, size))
    replay, leaves, prev = Replay(origin.split("/")[1]), [], ""
    for n, raw in enumerate(lines[:-1], 1):
        replay.take(n, prev, raw)
        leaves.append(leaf_hash(raw))
        prev = hashlib.sha256(raw).hexdigest()
    need(not replay.odd_form, "tampered", "an event is not canonical, and no log begins after it")
    need(root_of(leaves) == root, "tampered", "another root")
    need(older is None or root_of(leaves[:older[1]]) == older[2], "tampered", "the log was rewritten")
    proofs = folder / "proofs"  # absent where no release moved: git keeps no empty directory
    for file in sorted(proofs.iterdir()) if proofs.is_dir() else []:
        check_proof(file.read_bytes(), file.name.removesuffix(".tlog-proof"), key, checkpoint)
    return {"size": size, "root": base64.b64encode(root).decode()}


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    expect = json.loads((folder / "expect.json").read_text("utf-8"))
    for name, want in expect.items():
        try:
            got = check(folder / name)
        except Refused as e:
            got = {"refused": e.kind}
            reason = e
        else:
            reason = "accepted"
        if got != want:
            sys.exit("check_audit.py: %s: %s (%s), expected %s" % (name, got, reason, want))
    good = sum("size" in want for want in expect.values())
    if good < 3 or len(expect) - good < 12 or set(expect) != {p.name for p in folder.iterdir() if p.is_dir() and p.name != "__pycache__"}:
        sys.exit("check_audit.py: %d good and %d bad exports, or one that is not expected" % (good, len(expect) - good))
    print("ok: %d good and %d bad exports" % (good, len(expect) - good))


if __name__ == "__main__":
    main()
