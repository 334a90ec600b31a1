#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Second reader of the vectors of the code: docs/spec/datagram.md section 4, written again from its text.

Exit status 0: every vector is as the specification says. Any other: the first difference is on standard error.
"""
import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
K, ROWS, POLYNOMIAL = 192, 64, 0x11D


def multiply(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= POLYNOMIAL
        b >>= 1
    return product


PRODUCT = [bytes(multiply(a, b) for b in range(256)) for a in range(256)]
INVERSE = [0] + [PRODUCT[a].index(1) for a in range(1, 256)]


def coefficient(row, column):
    return INVERSE[(192 + row) ^ column]


def expect(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got!r}, want {want!r}")


def check_matrix():
    lines = (HERE / "matrix.hex").read_text().splitlines()
    expect("rows of the matrix", len(lines), ROWS)
    for row, line in enumerate(lines):
        want = bytes(coefficient(row, column) for column in range(K))
        expect(f"matrix row {row}", line, want.hex())


def content(name, size):
    blocks = ((size + 31) // 32)
    prefix = b"sluice fec vector " + name.encode()
    return b"".join(hashlib.sha256(prefix + i.to_bytes(8, "big")).digest() for i in range(blocks))[:size]


def spans(size, t, g):
    """The spans of an object: (sbn, first, n, d, k)."""
    total = -(-size // t)
    for sbn in range(-(-total // (K * g))):
        first = sbn * K * g
        n = min(K * g, total - first)
        d = min(g, -(-n // K))
        yield sbn, first, n, d, -(-n // d)


def repair_symbol(data, t, span, row, group):
    _, first, n, d, k = span
    out = bytes(t)
    for j in range(k):
        i = j * d + group
        if i >= n:
            continue  # zero, never sent
        symbol = data[(first + i) * t:(first + i + 1) * t].ljust(t, b"\0")
        scaled = symbol.translate(PRODUCT[coefficient(row, j)])
        out = bytes(a ^ b for a, b in zip(out, scaled))
    return out


def check_object(v):
    name, t, g = v["name"], v["symbol_size"], v["groups"]
    data = content(name, v["object_size"])
    expect(f"{name}: content", hashlib.sha256(data).hexdigest(), v["content_sha256"])
    layout = list(spans(v["object_size"], t, g))
    expect(f"{name}: spans", [(s["sbn"], s["first"], s["n"], s["d"], s["k"]) for s in v["spans"]], layout)
    expect(f"{name}: repair symbols", len(v["repair"]), 5 * sum(s[3] for s in layout))
    for r in v["repair"]:
        span = layout[r["sbn"]]
        where = f"{name}: span {r['sbn']}, row {r['row']}, group {r['group']}"
        expect(f"{where}: ESI", r["esi"], K * g + r["row"] * span[3] + r["group"])
        expect(where, r["data"], repair_symbol(data, t, span, r["row"], r["group"]).hex())


def main():
    check_matrix()
    objects = json.loads((HERE / "objects.json").read_text())
    for v in objects:
        check_object(v)
    print(f"matrix and {len(objects)} objects, {sum(len(v['repair']) for v in objects)} repair symbols: as specified")


if __name__ == "__main__":
    main()
