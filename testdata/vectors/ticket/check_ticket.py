#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of the vectors of docs/spec/ticket.md, with the standard library only.

    check_ticket.py [DIR]    check every vector in DIR (the folder of this file)

It shares no code with the Go package: text, checks, numbers and rules are written here again from the specification. Ed25519 is
that of ../trust/check_trust.py, the second reader of trust.md. Exit status 0: all as expected. 1: not.
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "../trust"))
import check_trust  # noqa: E402

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SYMBOL = {1: 1408, 2: 8896}
ROWS, K = 64, 192


class Refused(Exception):
    def __init__(self, kind, reason, line=0):
        super().__init__(reason)
        self.kind, self.line = kind, line


def need(ok, reason):
    if not ok:
        raise Refused("format", reason)


# --- section 3: the text ----------------------------------------------------------------------------------------------

def crc15(data):
    """Long division by the polynomial, over the whole line as one number."""
    poly, rest = 0xC599, int.from_bytes(data, "big") << 15  # 0x4599 with its leading bit
    for bit in range(rest.bit_length() - 1, 14, -1):
        if rest >> bit & 1:
            rest ^= poly << bit - 15
    return rest


def to_text(bits, width):
    bits += "0" * (-width % 5)
    return "".join(ALPHABET[int(bits[i:i + 5], 2)] for i in range(0, len(bits), 5))


def line_text(number, data):
    body = to_text("".join(format(b, "08b") for b in data), 8 * len(data))
    return body + to_text(format(crc15(bytes([number]) + data), "015b"), 15)


def line_data(chars):
    bits = "".join(format(ALPHABET.index(c), "05b") for c in chars)
    return bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits) - 7, 8))


class Text:
    def __init__(self):
        self.tickets, self.raw, self.number, self.line = [], b"", 0, 0

    def typo(self, reason):
        raise Refused("typing", reason, self.line)

    def read(self, text):
        for self.line, line in enumerate(text.split(b"\n"), 1):
            if not line.lstrip(b" \t\r").startswith(b"#"):
                self.text_line(line)
        self.line = 0
        if self.number:
            self.typo("truncated")
        need(self.tickets, "no ticket")
        return self.tickets

    def text_line(self, line):
        chars = "".join(chr(c).upper() if c < 128 else chr(c) for c in line if c not in b" \t\r")
        if any(c not in ALPHABET for c in chars):
            self.typo("alphabet")
        ended = False
        while chars:
            if ended:
                self.typo("characters behind the end")
            left = 20 if self.number == 0 else min(20, self.size() - len(self.raw))
            want = -(-8 * left // 5) + 3
            if len(chars) < want:
                self.typo("length")
            ended = self.ticket_line(chars[:want])
            chars = chars[want:]

    def size(self):
        return int.from_bytes(self.raw[6:8], "big")

    def ticket_line(self, chars):
        data = line_data(chars[:-3])
        if line_text(self.number + 1, data) != chars:
            self.typo("check")
        self.raw, self.number = self.raw + data, self.number + 1
        if self.number == 1:
            check_head(self.raw)
        if len(self.raw) < self.size():
            return False
        self.tickets.append(read_ticket(self.raw))
        self.raw, self.number = b"", 0
        return True


# --- sections 1 and 2: the ticket -------------------------------------------------------------------------------------

def check_head(b):
    need(b[:5].hex() == "92e881126a", "magic")
    need(line_data("SLUICETK") == b[:5], "magic in base32")
    need(b[5] == 1, "version")
    need(157 <= int.from_bytes(b[6:8], "big") <= 1900, "length")


class Numbers:
    def __init__(self, b):
        self.b = b

    def next(self):
        value = 0
        for i in range(5):
            need(i < len(self.b), "ends in the middle")
            value |= (self.b[i] & 127) << 7 * i
            if self.b[i] < 128:
                need(i == 0 or self.b[i], "a number in a longer form")
                need(value < 1 << 32, "a number of more than 32 bits")
                self.b = self.b[i + 1:]
                return value
        raise Refused("format", "a number of more than 5 bytes")


class Cut:
    """datagram.md section 4."""

    def __init__(self, payload, size, groups):
        self.symbols, self.groups = -(-payload // size), groups
        self.spans = -(-self.symbols // (K * groups))

    def span(self, sbn):
        n = min(K * self.groups, self.symbols - sbn * K * self.groups)
        return n, min(self.groups, -(-n // K))


def read_ticket(b):
    check_head(b)
    need(int.from_bytes(b[6:8], "big") == len(b), "length")
    t = {"profile": b[8], "groups": int.from_bytes(b[9:11], "big"), "fresh": b[11], "payload": int.from_bytes(b[12:20], "big"),
         "created": int.from_bytes(b[20:28], "big"), "release": b[28:60].hex(), "envelope": b[60:92].hex()}
    need(t["profile"] in SYMBOL and 1 <= t["groups"] <= 4096, "cut")
    need(t["fresh"] <= ROWS and 1 <= t["payload"] <= 1 << 50 and 1 <= t["created"] <= 1 << 38, "fields")
    need(int(t["release"], 16), "release")
    need(93 + b[92] <= len(b) - 64, "name")
    t["receiver"] = b[93:93 + b[92]].decode("latin-1")
    need(NAME.fullmatch(t["receiver"]), "name")
    t["entries"] = read_entries(b[93 + b[92]:-64], Cut(t["payload"], SYMBOL[t["profile"]], t["groups"]), t["fresh"])
    t["raw"] = b
    return t


def read_entries(b, cut, fresh):
    r, at, out = Numbers(b), 0, []
    while r.b:
        sbn, spans = at + r.next(), r.next()
        extents, runs = r.next(), r.next()
        need(spans >= 1 and sbn + spans <= cut.spans, "spans")
        at = sbn + spans
        n, d = cut.span(sbn)
        need(cut.span(at - 1)[0] == n, "spans of two sizes")
        need(extents or runs, "an empty entry")
        entry = {"sbn": sbn, "spans": spans, "source": [], "repair": []}
        end = 0
        for _ in range(extents):
            first, count = end + r.next(), r.next()
            end = first + count
            need(count >= 1 and end <= n, "source symbols")
            entry["source"].append([first, count])
        end = 0
        for _ in range(runs):
            group, groups, rows = end + r.next(), r.next(), r.next()
            end = group + groups
            need(groups >= 1 and end <= d and 1 <= rows <= ROWS - fresh, "groups or rows")
            entry["repair"].append([group, groups, rows])
        out.append(entry)
    need(out, "no entry")
    return out


# --- section 4 --------------------------------------------------------------------------------------------------------

def verify(t, public):
    if not check_trust.ed_verify(public, b"sluice-ticket-v1\0" + t["raw"][:-64], t["raw"][-64:]):
        raise Refused("signature", "signature of " + t["receiver"])


def public_of(name):
    """The test key of a receiver (README.md of ../trust)."""
    return check_trust.ed_public(check_trust.hashlib.sha256(b"sluice test key ticket " + name.encode()).digest())


def check_good(text, want):
    tickets = Text().read(text)
    for t, w in zip(tickets, want, strict=True):
        public = bytes.fromhex(w.pop("public"))
        verify(t, public)
        del t["raw"]
        if t != w:
            raise Refused("format", "read as %s, expected %s" % (t, w))


def check_bad(text, want):
    try:
        for t in Text().read(text):
            verify(t, public_of(t["receiver"]))
    except Refused as e:
        if (e.kind, e.line) != (want["refused"], want.get("line", 0)):
            raise Refused("format", "refused as %s in line %d (%s), expected %s" % (e.kind, e.line, e, want)) from None
        return
    raise Refused("format", "read, and must be refused: %s" % want)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    counts = {"good": 0, "bad": 0}
    for file in sorted(folder.glob("*.txt")):
        kind = file.name.split("-")[0]
        want = json.loads(file.with_suffix(".json").read_text("utf-8"))
        try:
            {"good": check_good, "bad": check_bad}[kind](file.read_bytes(), want)
        except (Refused, check_trust.Refused, ValueError) as e:
            sys.exit("check_ticket.py: %s: %s" % (file.name, e))
        counts[kind] += 1
    if counts["good"] < 7 or counts["bad"] < 50:
        sys.exit("check_ticket.py: only %s" % counts)
    print("ok: %(good)d good and %(bad)d bad texts" % counts)


if __name__ == "__main__":
    main()
