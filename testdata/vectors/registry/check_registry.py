#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of the registry layout (docs/spec/registry-layout.md), with the standard library only.

    check_registry.py [DIR]     DIR/good and DIR/withdrawn must be without findings; each overlay of DIR/bad.json and
                                DIR/withdrawn.json must give exactly its own
    check_registry.py -t TREE   print the findings of the registry in the directory TREE

It shares no code with the Go package. It finds what Fsck finds, under the same names, and one thing more, which needs a look into
the envelope: "statement", when what is published is not what the release statement says. Signatures are not verified here.
Exit status 0: all as expected (with -t: no findings). 1: not.
"""

import base64
import binascii
import datetime
import hashlib
import json
import pathlib
import re
import struct
import sys

HEX = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
STREAM = re.compile(r"(?=.{1,128}\Z)[a-z0-9][a-z0-9._-]*(/[a-z0-9._-]+)*")
PRINTABLE = re.compile(r"[ -~]{1,128}")
SERIAL = re.compile(r"catalog/serial-([0-9]{12})\.json")
CHANNEL = re.compile(r"channels/([^/]*)/latest\.json")
RECORD = re.compile(r"withdrawals/([^/]*)/sha256-([0-9a-f]{64})\.json")
UTC = "%Y-%m-%dT%H:%M:%SZ"
SAFE = (1 << 53) - 1

FILES = [[("path", str), ("size", int), ("sha256", str), ("version_id?", str)]]
ENTRY = [("name", str), ("version", str), ("stream", str), ("epoch", int), ("seq", int), ("release", str), ("kind", str),
         ("published", str), ("withdrawn?", str)]
COMMIT = [("type", str), ("release", str), ("receipt", str), ("directory_digest", str), ("files", int), ("bytes", int)]
RECEIPT = [("type", str), ("release", str), ("name", str), ("version", str), ("stream", str), ("epoch", int), ("seq", int),
           ("kind", str), ("files", FILES), ("provenance", FILES), ("receiver", str), ("started", str), ("finished", str)]
CATALOG = [("type", str), ("serial", int), ("prev", str), ("entries", [ENTRY])]
CHANNEL_FORM = [("type", str), ("name", str), ("release", str), ("stream", str), ("epoch", int), ("seq", int), ("serial", int)]

WITHDRAWAL = [("type", str), ("name", str), ("release", str), ("withdrawn", bool), ("final", bool), ("reason", str),
              ("orders", [str]), ("at", str), ("receiver", str)]


class Refused(Exception):
    pass


def need(ok, reason):
    if not ok:
        raise Refused(reason)


def digest(data):
    return hashlib.sha256(data).hexdigest()


# --- strict canonical JSON (envelope.md section 3) --------------------------------------------------------------------

def pairs(items):
    out = dict(items)
    need(len(out) == len(items), "duplicate key")
    return out


def refuse(text):
    raise Refused("number " + text[:40])


def shape(value, form):
    """form: a type, [form] for a list, a list of (key, form) for an object; a key that ends in ? is optional."""
    if isinstance(form, type):
        need(type(value) is form, "another type")
        need(form is not int or 0 <= value <= SAFE, "number out of range")
    elif len(form) == 1 and not isinstance(form[0], tuple):
        need(type(value) is list, "no list")
        for item in value:
            shape(item, form[0])
    else:
        need(type(value) is dict, "no object")
        form = [(k.rstrip("?"), inner) for k, inner in form if not k.endswith("?") or k[:-1] in value]
        need(list(value) == [k for k, _ in form], "keys")
        for key, inner in form:
            shape(value[key], inner)


def decode(raw, form, kind):
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise Refused(str(e)) from None
    shape(value, form)
    again = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    again = again.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    need(again.encode("utf-8", "surrogatepass") == raw, "not canonical")
    need(value["type"] == kind, "type")
    return value


# --- the objects ------------------------------------------------------------------------------------------------------

def check_entry(e):
    need(NAME.fullmatch(e["name"]) and NAME.fullmatch(e["kind"]) and STREAM.fullmatch(e["stream"]), "name, kind or stream")
    need(PRINTABLE.fullmatch(e["version"]) and HEX.fullmatch(e["release"]) and e["seq"] >= 1, "version, release or seq")
    need(e.get("withdrawn", "revoked") in ("suspended", "revoked"), "mark")
    datetime.datetime.strptime(e["published"], UTC)


def check_list(files):
    for f in files:
        parts = f["path"].split("/")
        need(not {"", ".", ".."} & set(parts) and not re.search(r"[\x00-\x1f\x7f-\x9f\\:]", f["path"]), "path")
        need(HEX.fullmatch(f["sha256"]) and f.get("version_id", "x"), "digest or version id")
    paths = [f["path"].encode() for f in files]
    need(paths == sorted(set(paths)), "list not strictly sorted")


def read_commit(raw, release):
    c = decode(raw, COMMIT, "sluice-commit-v1")
    need(c["release"] == release and HEX.fullmatch(c["receipt"]) and HEX.fullmatch(c["directory_digest"]), "digests")
    need(c["files"] >= 1, "no file")
    return c


def entry_of(r):
    return {k: r["finished" if k == "published" else k] for k, _ in ENTRY if k != "withdrawn?"}


def unmarked(e):
    """What a later serial may not change."""
    return {k: v for k, v in e.items() if k != "withdrawn"}


def read_receipt(raw, commit, name):
    """The receipt, bound to COMMIT in every count."""
    need(raw is not None and digest(raw) == commit["receipt"], "not the receipt that COMMIT binds")
    r = decode(raw, RECEIPT, "sluice-receipt-v1")
    check_entry(entry_of(r))
    check_list(r["files"])
    check_list(r["provenance"])
    need({"envelope.sluice", "release.json"} <= {f["path"] for f in r["provenance"]}, "provenance")
    need(r["release"] == commit["release"] and r["name"] == name, "for another release")
    need(commit["files"] == len(r["files"]) and commit["bytes"] == sum(f["size"] for f in r["files"]), "files or bytes")
    need(commit["directory_digest"] == directory_digest(r["files"]), "directory digest")
    return r


def directory_digest(files):
    """envelope.md section 6."""
    lines = ["sluice-directory-v1\n"] + ["%s %d %s\n" % (f["sha256"], f["size"], f["path"]) for f in files]
    return hashlib.sha3_256("".join(lines).encode()).hexdigest()


def entry_order(e):
    return e["name"], e["stream"], e["epoch"], e["seq"], e["release"]


def read_catalog(raw, serial):
    need(raw is not None, "missing")
    c = decode(raw, CATALOG, "sluice-catalog-v1")
    need(c["serial"] == serial and (c["prev"] == "" if serial == 1 else HEX.fullmatch(c["prev"])), "serial or prev")
    for e in c["entries"]:
        check_entry(e)
    need(all(entry_order(a) < entry_order(b) for a, b in zip(c["entries"], c["entries"][1:])), "order")
    return c


def read_channel(raw, name):
    c = decode(raw, CHANNEL_FORM, "sluice-channel-v1")
    if c["name"] == name and not any(c[k] for k in ("release", "stream", "epoch", "seq", "serial")):
        return c  # every release of the name is withdrawn
    need(c["name"] == name and HEX.fullmatch(c["release"]) and STREAM.fullmatch(c["stream"]), "name, release or stream")
    need(c["seq"] >= 1 and c["serial"] >= 1, "seq or serial")
    return c


def read_withdrawal(raw, name, release):
    w = decode(raw, WITHDRAWAL, "sluice-withdrawal-v1")
    need(w["name"] == name and NAME.fullmatch(name) and w["release"] == release, "for another release")
    need(w["withdrawn"] or not w["final"], "final and not withdrawn")
    need(1 <= len(w["reason"].encode()) <= 512 and not re.search(r"[\x00-\x1f\x7f-\x9f]", w["reason"]), "reason")
    orders = w["orders"]
    need(1 <= len(orders) <= 32 and orders == sorted(set(orders)) and all(HEX.fullmatch(o) for o in orders), "orders")
    need(w["receiver"] == "" or PRINTABLE.fullmatch(w["receiver"]), "receiver")
    datetime.datetime.strptime(w["at"], UTC)
    return w


def mark(w):
    return "revoked" if w["final"] else "suspended" if w["withdrawn"] else ""


# --- the envelope (envelope.md sections 1, 2 and 4) -------------------------------------------------------------------

def sections(data):
    need(data[:8] == b"SLUICE\x01\n", "magic")
    pos, out = 8, []
    while True:
        need(len(data) - pos >= 12, "truncated")
        kind, zero, n, size = struct.unpack_from(">BBHQ", data, pos)
        body = pos + 12 + n
        need(zero == 0 and len(data) >= body + size, "truncated")
        if kind == 0:
            need(data[body:] == hashlib.sha256(data[:body]).digest(), "end digest")
            return out
        out.append((kind, data[pos + 12:body].decode("ascii"), data[body:body + size]))
        pos = body + size


def check_statement(tree, prefix, receipt, commit):
    """What is published is what the release statement says, and the envelope holds the same bytes."""
    raw = tree[prefix + "release.json"]
    parts = sections(tree[prefix + "envelope.sluice"])
    need([p[2] for p in parts if p[0] == 1] == [raw], "release.json is not the envelope's release section")
    payload = base64.b64decode(json.loads(raw)["payload"], validate=True)
    need(digest(payload) == receipt["release"], "release id")
    statement = json.loads(payload)
    p = statement["predicate"]
    need(all(p[k] == receipt[k] for k in ("name", "version", "stream", "epoch", "seq", "kind")), "what the receipt says of the release")
    subjects = [(s["name"], s["annotations"]["size"], s["digest"]["sha256"]) for s in statement["subject"]]
    need(subjects == [(f["path"], f["size"], f["sha256"]) for f in receipt["files"]], "files are not the subjects")
    need(p["directory_digest"] == commit["directory_digest"], "directory digest")
    evidence = {k[len(prefix) + len("evidence/"):]: v for k, v in tree.items() if k.startswith(prefix + "evidence/")}
    need({name: body for kind, name, body in parts if kind == 3} == evidence, "evidence")


# --- the registry -----------------------------------------------------------------------------------------------------

class Check:
    """Judges a registry given as {key: bytes}; self.found is the set of (kind, key)."""

    def __init__(self, tree):
        self.tree, self.found, self.visible = tree, set(), {}
        self.read_records()
        places = {tuple(k.split("/")[1:3]) for k in tree if k.startswith(("releases/", "provenance/"))}
        for place in sorted(places):
            self.place(*place)
        self.chain()
        self.withdrawals()
        self.channels()
        for key in tree:
            if key.startswith(".staging/"):
                self.add("leftover", ".staging/" + re.sub(r"(\.tmp|\.lock)+$", "", key.split("/")[1]))

    def add(self, kind, key):
        self.found.add((kind, key))

    def below(self, prefix):
        return {k for k in self.tree if k.startswith(prefix)}

    def place(self, name, child=""):
        if not NAME.fullmatch(name):
            self.occupied("extra", name + "/")
        elif not (child.startswith("sha256-") and HEX.fullmatch(child[7:])):
            self.occupied("extra", "%s/%s/" % (name, child))
        else:
            self.release(name, child[7:])

    def occupied(self, kind, place):
        for prefix in ("releases/" + place, "provenance/" + place):
            if self.below(prefix) or prefix[:-1] in self.tree:
                self.add(kind, prefix)

    def read_records(self):
        """self.records: (name, release) to the record, None when it cannot be read."""
        self.records = {}
        for key in self.below("withdrawals/"):
            m = RECORD.fullmatch(key)
            if not m or not NAME.fullmatch(m[1]):
                self.add("extra", key)
                continue
            try:
                self.records[m[1], m[2]] = read_withdrawal(self.tree[key], m[1], m[2])
            except (Refused, ValueError):
                self.records[m[1], m[2]] = None
                self.add("withdrawal", key)

    def withdrawals(self):
        """The records against the marks of the last catalogue, both ways."""
        marks = {(e["name"], e["release"]): e.get("withdrawn", "") for e in self.entries}
        for which in marks.keys() | self.records.keys():
            key, listed, w = "withdrawals/%s/sha256-%s.json" % which, marks.get(which), self.records.get(which)
            if which not in self.records:
                if listed:
                    self.add("withdrawal", key)
            elif w is None:
                pass  # found already
            elif listed is None:
                if which not in self.visible:
                    self.add("withdrawal", key)
            elif listed == "revoked" and not w["final"]:
                self.add("withdrawal", key)
            elif listed != mark(w):
                self.add("uncatalogued", key)

    def release(self, name, release):
        place = "%s/sha256-%s/" % (name, release)
        files, prefix = "releases/" + place, "provenance/" + place
        record = self.records.get((name, release))
        revoked = record is not None and record["final"]
        if revoked and self.below(files):
            self.add("exposed", files)
        if prefix + "COMMIT" not in self.tree:
            return self.occupied("uncommitted", place)
        kind = "commit"
        try:
            commit = read_commit(self.tree[prefix + "COMMIT"], release)
            kind = "receipt"
            receipt = read_receipt(self.tree.get(prefix + "receipt.json"), commit, name)
        except (Refused, ValueError):
            return self.add(kind, prefix + "COMMIT")
        before = len(self.found)
        if not revoked:
            self.keys(files, receipt["files"], set())
        self.keys(prefix, receipt["provenance"], {"COMMIT", "receipt.json"})
        self.visible[name, release] = entry_of(receipt)
        if len(self.found) == before:
            try:
                check_statement(self.tree, prefix, receipt, commit)
            except (Refused, ValueError, KeyError, TypeError, binascii.Error):
                self.add("statement", prefix + "release.json")

    def keys(self, prefix, files, own):
        for key in self.below(prefix) - {prefix + f["path"] for f in files} - {prefix + o for o in own}:
            self.add("extra", key)
        for f in files:
            key = prefix + f["path"]
            if key not in self.tree:
                self.add("missing", key)
            elif len(self.tree[key]) != f["size"]:
                self.add("size", key)
            elif digest(self.tree[key]) != f["sha256"]:
                self.add("digest", key)

    def chain(self):
        """Every serial from the first: prev, and that entries only come; then the last against the releases."""
        serials = {int(m[1]): k for k in self.below("catalog/") if (m := SERIAL.fullmatch(k))}
        for key in self.below("catalog/") - {k for n, k in serials.items() if n > 0}:
            self.add("extra", key)
        self.entries, self.introduced, before = [], {}, (0, "")
        for n in range(1, max(serials, default=0) + 1):
            key = "catalog/serial-%012d.json" % n
            raw = self.tree.get(key)
            try:
                c = read_catalog(raw, n)
            except (Refused, ValueError):
                self.add("catalog", key)
                self.entries, before = [], (-1, "")
                continue
            follows = before[0] == n - 1
            if follows and (c["prev"] != before[1] or not self.kept(c["entries"])):
                self.add("catalog", key)
            self.entries, before = c["entries"], (n, digest(raw))
            for e in c["entries"]:  # after a serial that cannot be read nobody knows which one brought the entry
                self.introduced.setdefault((e["name"], e["release"]), n if follows else None)
        self.catalogued()

    def kept(self, entries):
        """No entry is gone or changed but for its mark, and what was revoked stays so."""
        now = {(e["name"], e["release"]): e for e in entries}
        for old in self.entries:
            e = now.get((old["name"], old["release"]))
            if e is None or unmarked(e) != unmarked(old) or old.get("withdrawn") == "revoked" != e.get("withdrawn"):
                return False
        return True

    def catalogued(self):
        listed = {(e["name"], e["release"]): e for e in self.entries}
        for (name, release), e in listed.items():
            key = "provenance/%s/sha256-%s/COMMIT" % (name, release)
            if (name, release) not in self.visible:
                self.add("missing", key)
            elif self.visible[name, release] != unmarked(e):
                self.add("catalog", key)
        for name, release in self.visible.keys() - listed.keys():
            self.add("uncatalogued", "provenance/%s/sha256-%s/COMMIT" % (name, release))

    def channels(self):
        names = set()
        for key in self.below("channels/"):
            m = CHANNEL.fullmatch(key)
            if not m or not NAME.fullmatch(m[1]):
                self.add("extra", key)
                continue
            names.add(m[1])
            try:
                self.channel(m[1], read_channel(self.tree[key], m[1]))
            except (Refused, ValueError):
                self.add("channel", key)
        for e in self.entries:
            if e["name"] not in names and "withdrawn" not in e:
                self.add("channel", "channels/%s/latest.json" % e["name"])

    def channel(self, name, c):
        """It names a catalogued release without a mark; in its stream none is newer, and its stream is the last."""
        every = [e for e in self.entries if e["name"] == name]
        same = [e for e in every if "withdrawn" not in e]
        if c["release"] == "":
            return need(not same, "there is a release")
        need(c["release"] in [e["release"] for e in same], "not in the catalogue, or withdrawn")
        came = {}
        for e in every:  # sorted: the last of a stream is its top
            came[e["stream"]] = self.introduced[name, e["release"]]
        came = {stream: n for stream, n in came.items() if stream in [e["stream"] for e in same]}
        need(None in came.values() or came[c["stream"]] == max(came.values()), "not the last stream")
        newest = max(((e["epoch"], e["seq"]) for e in same if e["stream"] == c["stream"]), default=None)
        need((c["epoch"], c["seq"]) == newest, "not the newest of its stream")
        need([e["release"] for e in same if (e["stream"], e["epoch"], e["seq"]) == (c["stream"], c["epoch"], c["seq"])] == [c["release"]],
             "another release's place")
        need(self.introduced[name, c["release"]] in (None, c["serial"]), "serial")


def load(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def overlay(tree, changes):
    tree = dict(tree)
    for c in changes:
        need((c["op"] == "add") == (c["key"] not in tree), "%s %s" % (c["op"], c["key"]))
        if c["op"] == "delete":
            del tree[c["key"]]
        else:
            need(c["op"] in ("add", "replace"), "op " + c["op"])
            tree[c["key"]] = base64.b64decode(c["data"], validate=True)
    return tree


def listed(found):
    return sorted("%s %s" % f for f in found)


def main(args):
    if args[:1] == ["-t"]:
        found = listed(Check(load(pathlib.Path(args[1]))).found)
        print("\n".join(found))
        return not found
    folder = pathlib.Path(args[0]) if args else pathlib.Path(__file__).resolve().parent
    return all([judge(folder, "good", "bad.json"), judge(folder, "withdrawn", "withdrawn.json")])


def judge(folder, base, overlays):
    good, ok = load(folder / base), True
    cases = json.loads((folder / overlays).read_text("utf-8"))
    need(len(good) > 20 and len(cases) > 20, "%d files, %d overlays" % (len(good), len(cases)))
    for case in [{"name": base, "changes": [], "fsck": [], "reader": []}] + cases:
        want = {(f["kind"], f["key"]) for f in case["fsck"] + case["reader"]}
        found = Check(overlay(good, case["changes"])).found
        need(want or case["name"] == base, case["name"] + " expects nothing")
        print("%s %s" % ("ok  " if found == want else "FAIL", case["name"]))
        if found != want:
            ok = False
            print("  expected %s\n  found    %s" % (listed(want), listed(found)))
    return ok


if __name__ == "__main__":
    try:
        sys.exit(0 if main(sys.argv[1:]) else 1)
    except (Refused, OSError, KeyError, ValueError) as e:
        sys.exit("check_registry.py: %s: %s" % (type(e).__name__, e))
