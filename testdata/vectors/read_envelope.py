#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of Sluice envelopes, version 1 (docs/spec/envelope.md), with the standard library only.

    read_envelope.py DIR            read every DIR/*.sluice and compare with the DIR/*.json beside it
    read_envelope.py FILE.sluice    read one envelope and print its release id

It shares no code with the Go reader and does everything that reader does, signatures left out as there.
Exit status 0: all as expected. 1: not.
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
import unicodedata

MIB = 1 << 20
BLOCK = MIB
CAPS = {1: 44 * MIB, 2: 64 * MIB, 3: 32 * MIB, 4: 64 << 10, 0: 32}
COUNTS = {1: 1, 2: 1, 3: 16, 4: 32, 0: 1}
MAY_FOLLOW = {None: {1}, 1: {2}, 2: {3, 4, 0}, 3: {3, 4, 0}, 4: {4, 0}}
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
KINDS = {"model-weights", "software-package", "container-images", "dataset", "policy-update",
         "certificate-rotation", "license", "trust-update", "revocation"}
NAME = r"[a-z0-9][a-z0-9._-]"
HEX = re.compile(r"[0-9a-f]{64}")
DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9]) *", re.IGNORECASE | re.ASCII)


class Refused(Exception):
    """kind is format, digest or version."""

    def __init__(self, kind, reason):
        super().__init__(reason)
        self.kind = kind


def need(ok, reason, kind="format"):
    if not ok:
        raise Refused(kind, reason)


# --- section 1: the stream ------------------------------------------------------------------------------------------

def sections(data):
    """The sections as (type, name, body), order, caps and the end digest checked."""
    need(len(data) >= 8, "section 1: truncated magic")
    if data[:6] == b"SLUICE" and data[7:8] == b"\n":
        need(data[6] == 1, "section 1: version %d" % data[6], "version")
    need(data[:8] == b"SLUICE\x01\n", "section 1: not an envelope")
    need(len(data) <= 160 * MIB, "section 1: stream over 160 MiB")
    pos, last, last_name, count, evidence = 8, None, "", 0, 0
    while True:
        need(len(data) - pos >= 12, "section 1: truncated header")
        kind, reserved, n, size = struct.unpack_from(">BBHQ", data, pos)
        need(reserved == 0, "section 1: reserved byte")
        need(n <= 128, "section 1: name over 128 bytes")
        need(kind in MAY_FOLLOW[last], "section 1: section %d after %s" % (kind, last))
        need(size <= CAPS[kind], "section 1: section over its cap")
        pos += 12
        need(len(data) - pos >= n + size, "section 1: truncated section")
        try:
            name = data[pos:pos + n].decode("ascii")
        except UnicodeDecodeError:
            raise Refused("format", "section 1: name is not ASCII") from None
        if kind in (3, 4):
            need(re.fullmatch(NAME + "{0,127}", name), "section 1: bad name")
            need(kind != last or last_name < name, "section 1: names not strictly increasing")
        else:
            need(n == 0, "section 1: a name where there is none")
        count = count + 1 if kind == last else 1
        need(count <= COUNTS[kind], "section 1: too many sections")
        evidence += size if kind == 3 else 0
        need(evidence <= 48 * MIB, "section 1: evidence over 48 MiB")
        pos += n
        body = data[pos:pos + size]
        if kind == 0:
            need(size == 32, "section 1: end section of %d bytes" % size)
            need(hashlib.sha256(data[:pos]).digest() == body, "section 1: end digest", "digest")
            need(pos + size == len(data), "section 1: bytes after the end section")
            return
        pos += size
        yield kind, name, body
        last, last_name = kind, name


# --- section 3: strict canonical JSON -------------------------------------------------------------------------------

def shape(value, form, where):
    """form: a type, [form] for a list, a list of (key, form) for an object; a key that ends in ? is optional."""
    if form in (int, str):
        need(type(value) is form, "section 3: %s has another type" % where)
        if form is int:
            need(0 <= value < 1 << 53, "section 3: %s is not below 2^53" % where)
    elif len(form) == 1 and not isinstance(form[0], tuple):
        need(type(value) is list, "section 3: %s is no list" % where)
        for item in value:
            shape(item, form[0], where)
    else:
        need(type(value) is dict, "section 3: %s is no object" % where)
        keys = [k.rstrip("?") for k, _ in form if not k.endswith("?") or k[:-1] in value]
        need(list(value) == keys, "section 3: keys of %s" % where)
        for key, inner in form:
            if key.rstrip("?") in value:
                shape(value[key.rstrip("?")], inner, key)


def pairs(items):
    out = dict(items)
    need(len(out) == len(items), "section 3: duplicate key")
    return out


def refuse_number(text):
    raise Refused("format", "section 3: number " + text[:40])


def decode(raw, form):
    """Decode, check the structure, encode again, compare."""
    try:
        text = raw.decode("utf-8")
        value = json.loads(text, object_pairs_hook=pairs, parse_float=refuse_number, parse_constant=refuse_number)
    except (UnicodeDecodeError, ValueError, RecursionError) as e:
        raise Refused("format", "section 3: %s" % e) from None
    shape(value, form, "the object")
    again = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    again = again.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    need(again.encode("utf-8", "surrogatepass") == raw, "section 3: not canonical")
    return value


def texts(value):
    """The head of the specification: all text is NFC."""
    if isinstance(value, str):
        need(unicodedata.is_normalized("NFC", value), "text is not NFC")
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            texts(inner)


# --- section 2: DSSE ------------------------------------------------------------------------------------------------

DSSE_FORM = [("payload", str), ("payloadType", str), ("signatures", [[("keyid", str), ("sig", str)]])]


def b64(text):
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("format", "section 2: base64") from None
    need(base64.b64encode(raw).decode() == text, "section 2: base64 is not canonical")
    return raw


def dsse(raw, cap):
    need(len(raw) <= cap, "section 1: DSSE envelope over its cap")
    d = decode(raw, DSSE_FORM)
    need(d["payloadType"] == IN_TOTO, "section 2: payload type")
    ids = [s["keyid"] for s in d["signatures"]]
    need(len(ids) <= 32, "section 1: more than 32 signatures")
    need(all(HEX.fullmatch(i) for i in ids), "section 2: key id")
    need(len(set(ids)) == len(ids), "section 2: two signatures with one key id")
    need(all(b64(s["sig"]) for s in d["signatures"]), "section 2: empty signature")
    return b64(d["payload"]), len(ids)


# --- section 4: the release statement -------------------------------------------------------------------------------

RELEASE_FORM = [
    ("_type", str),
    ("subject", [[("name", str), ("digest", [("sha256", str)]), ("annotations", [("size", int)])]]),
    ("predicateType", str),
    ("predicate", [
        ("stream", str), ("epoch", int), ("seq", int), ("prev", str), ("kind", str), ("name", str), ("version", str),
        ("source", [("type", str), ("repo", str), ("revision", str), ("commit", str)]),
        ("base?", [("repo", str), ("commit", str)]),
        ("quantization?", [("method", str), ("bits", int), ("group_size", int), ("version", str)]),
        ("gate", [("verdict", str), ("reason", str)]),
        ("inspection", [("verdict", str)]),
        ("evidence", [[("name", str), ("sha256", str), ("size", int)]]),
        ("created", str), ("expires", str), ("audience", [str]), ("classification", str), ("total_size", int),
        ("content_index", [("sha256", str), ("size", int), ("block_size", int), ("blocks", int)]),
        ("directory_digest", str)])]


def check_path(p):
    raw = p.encode("utf-8", "surrogatepass")
    need(1 <= len(raw) <= 1024, "section 4, paths: length")
    need(not re.search(r"[\x00-\x1f\x7f-\x9f\\:]", p), "section 4, paths: backslash, colon or control character")
    parts = p.split("/")
    need(len(parts) <= 32, "section 4, paths: more than 32 components")
    for part in parts:
        need(part != "", "section 4, paths: empty component or a slash at an end")
        need(len(part.encode("utf-8", "surrogatepass")) <= 255, "section 4, paths: component over 255 bytes")
        need(part[-1] not in ". ", "section 4, paths: component ends in a dot or a space")
        need(not DEVICE.fullmatch(part.split(".")[0]), "section 4, paths: Windows device")
        git = part[:4].lower() == ".git" and part not in (".gitattributes", ".gitignore")
        need(not git, "section 4, paths: .git")


def check_paths(paths):
    for p in paths:
        check_path(p)
    raw = [p.encode("utf-8", "surrogatepass") for p in paths]
    need(all(a < b for a, b in zip(raw, raw[1:])), "section 4: subjects are not sorted strictly")
    folded = {p.casefold() for p in paths}
    need(len(folded) == len(paths), "section 4, paths: equal after case folding")
    for p in folded:
        parts = p.split("/")
        for i in range(1, len(parts)):
            need("/".join(parts[:i]) not in folded, "section 4, paths: a file that is a directory too")


def check_time(text, where):
    need(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", text), "section 4: " + where)
    year = "2000" if text[:4] == "0000" else text[:4]  # a leap year that datetime does not know
    try:
        datetime.datetime.strptime(year + text[4:], "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        raise Refused("format", "section 4: " + where) from None
    need(text[17:19] <= "59", "section 4: " + where)


def check_stream(s):
    need(len(s) <= 128 and re.fullmatch(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*", s), "section 4: stream")


def is_hex(text):
    return bool(HEX.fullmatch(text))


def printable(text, most):
    return 1 <= len(text) <= most and all(" " <= c <= "~" for c in text)


def rising(names):
    return all(a < b for a, b in zip(names, names[1:]))


def blocks(size):
    return -(-size // BLOCK)


def release(raw):
    need(len(raw) <= 32 * MIB, "section 1: statement over 32 MiB")
    s = decode(raw, RELEASE_FORM)
    need(s["_type"] == STATEMENT, "section 4: _type", "version")
    need(s["predicateType"] == "urn:sluice:release:v1", "section 4: predicateType", "version")
    texts(s)
    subjects, p = s["subject"], s["predicate"]
    need(1 <= len(subjects) <= 100000, "section 4: number of subjects")
    need(all(is_hex(f["digest"]["sha256"]) for f in subjects), "section 4: digest of a subject")
    check_paths([f["name"] for f in subjects])
    check_stream(p["stream"])
    need(p["seq"] >= 1, "section 4: seq")
    need(p["prev"] == "" or is_hex(p["prev"]), "section 4: prev")
    need(p["kind"] in KINDS, "section 4: kind")
    need(re.fullmatch(NAME + "{0,127}", p["name"]), "section 4: name")
    need(printable(p["version"], 128), "section 4: version")
    need(p["source"]["type"] in ("huggingface", "directory"), "section 4: source")
    need(p["gate"]["verdict"] in ("pass", "fail", "exception", "not-applicable"), "section 4: gate")
    need(p["gate"]["verdict"] != "exception" or p["gate"]["reason"], "section 4: exception without a reason")
    need(p["inspection"]["verdict"] in ("pass", "fail", "not-applicable"), "section 4: inspection")
    check_evidence(p["evidence"])
    check_time(p["created"], "created")
    check_time(p["expires"], "expires")
    need(p["created"] < p["expires"], "section 4: expires is not after created")
    need(1 <= len(p["audience"]) <= 4096 and rising(p["audience"]), "section 4: audience")
    need(all(re.fullmatch(NAME + "{0,63}", a) for a in p["audience"]), "section 4: audience")
    need(printable(p["classification"], 64), "section 4: classification")
    check_sizes(subjects, p)
    return s


def check_evidence(refs):
    need(len(refs) <= 16 and rising([r["name"] for r in refs]), "section 4: evidence")
    need(all(re.fullmatch(NAME + "{0,127}", r["name"]) and is_hex(r["sha256"]) for r in refs), "section 4: evidence")
    need(all(r["size"] <= 32 * MIB for r in refs), "section 1: evidence over 32 MiB")
    need(sum(r["size"] for r in refs) <= 48 * MIB, "section 1: evidence over 48 MiB")


def check_sizes(subjects, p):
    sizes = [f["annotations"]["size"] for f in subjects]
    need(sum(sizes) < 1 << 53, "section 4: sizes")
    need(p["total_size"] == sum(sizes), "section 4: total_size", "digest")
    x, n = p["content_index"], sum(map(blocks, sizes))
    need(is_hex(x["sha256"]) and x["block_size"] == BLOCK, "section 5: content_index")
    need(x["blocks"] == n and x["size"] == 24 + 32 * n and x["size"] <= 64 * MIB, "section 5: content_index")
    need(is_hex(p["directory_digest"]), "section 6: directory_digest")
    h = hashlib.sha3_256(b"sluice-directory-v1\n")
    for f in subjects:
        h.update(("%s %d %s\n" % (f["digest"]["sha256"], f["annotations"]["size"], f["name"])).encode())
    need(h.hexdigest() == p["directory_digest"], "section 6: directory_digest", "digest")


# --- sections 5 and 7: the index, approvals -------------------------------------------------------------------------

def check_index(raw, s):
    ref = s["predicate"]["content_index"]
    need(raw[:7] == b"SLINDEX" and len(raw) >= 24, "section 5: magic")
    need(raw[7] == 1, "section 5: version", "version")
    size, reserved, n = struct.unpack_from(">IIQ", raw, 8)
    need(size == BLOCK and reserved == 0, "section 5: header")
    need(n == ref["blocks"] and len(raw) == ref["size"], "section 5: number of blocks")
    need(hashlib.sha256(raw).hexdigest() == ref["sha256"], "section 5: digest of the index", "digest")


APPROVAL_FORM = [
    ("_type", str),
    ("subject", [[("name", str), ("digest", [("sha256", str)])]]),
    ("predicateType", str),
    ("predicate", [
        ("stream", str), ("epoch", int), ("seq", int), ("role", str), ("officer", str), ("decision", str),
        ("checked", [str]), ("shown", str), ("tool", str), ("at", str), ("note", str)])]


def check_approval(name, raw, rid, p):
    payload, signatures = dsse(raw, 64 << 10)
    need(signatures == 1, "section 7: %d signatures" % signatures)
    a = decode(payload, APPROVAL_FORM)
    texts(a)
    need(a["_type"] == STATEMENT and a["predicateType"] == "urn:sluice:approval:v1", "section 7: type", "version")
    need(len(a["subject"]) == 1 and a["subject"][0]["name"] == "release", "section 7: subject")
    q = a["predicate"]
    need(is_hex(a["subject"][0]["digest"]["sha256"]) and is_hex(q["shown"]), "section 7: digest")
    check_stream(q["stream"])
    need(q["seq"] >= 1, "section 7: seq")
    need(all(re.fullmatch(NAME + "{0,63}", q[k]) for k in ("role", "officer")), "section 7: role, officer")
    need(q["decision"] in ("approve", "reject"), "section 7: decision")
    need(rising(q["checked"]), "section 7: checked")
    need(set(q["checked"]) <= {"bytes", "gate", "inspection", "manifest"}, "section 7: checked")
    check_time(q["at"], "at")
    need(len(q["note"].encode("utf-8", "surrogatepass")) <= 1024, "section 7: note")
    need(name == "%s.%s.json" % (q["role"], q["officer"]), "section 1: name of an approval")
    need(a["subject"][0]["digest"]["sha256"] == rid, "section 7: another release", "digest")
    need(all(q[k] == p[k] for k in ("stream", "epoch", "seq")), "section 7: stream, epoch, seq")


def read(data):
    """The release id of a good envelope; Refused for any other."""
    statement, rid, reports = None, "", []
    for kind, name, body in sections(data):
        if kind == 1:
            raw, signatures = dsse(body, 44 * MIB)
            need(signatures >= 1, "section 2: no signature")
            statement, rid = release(raw), hashlib.sha256(raw).hexdigest()
            reports = list(statement["predicate"]["evidence"])
        elif kind == 2:
            check_index(body, statement)
        elif kind == 3:
            need(reports and reports[0]["name"] == name and reports[0]["size"] == len(body), "section 4: evidence")
            need(hashlib.sha256(body).hexdigest() == reports.pop(0)["sha256"], "section 4: evidence", "digest")
        else:
            check_approval(name, body, rid, statement["predicate"])
    need(not reports, "section 4: evidence is missing")
    return rid


# --- the vectors ----------------------------------------------------------------------------------------------------

def judge(path):
    try:
        return {"release": read(path.read_bytes())}, ""
    except Refused as e:
        return {"refuse": e.kind}, str(e)


def run(directory):
    paths = sorted(directory.glob("*.sluice"))
    wrong = 0
    for path in paths:
        want = json.loads(path.with_suffix(".json").read_text("utf-8"))
        want.pop("reason", None)
        got, why = judge(path)
        same = got == want
        wrong += not same
        print("%s %s %s" % ("ok  " if same else "FAIL", path.name, why or got["release"]))
    print("%d vectors, %d wrong" % (len(paths), wrong))
    return 1 if wrong or not paths else 0


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 1
    path = pathlib.Path(sys.argv[1])
    if path.is_dir():
        return run(path)
    got, why = judge(path)
    print(got.get("release") or "refused (%s): %s" % (got["refuse"], ascii(why)))
    return 0 if "release" in got else 1


if __name__ == "__main__":
    sys.exit(main())
