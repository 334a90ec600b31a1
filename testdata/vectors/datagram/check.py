# SPDX-License-Identifier: Apache-2.0
"""Checks the datagram vectors beside this file against docs/spec/datagram.md.

A second reader, written from the specification with the standard library only:
lengths, headers, mac1, session parameters and heartbeats. The standard library
has neither AES-GCM nor X-Wing nor Ed25519; those parts are checked in Go.
Run: python3 check.py
"""

import hashlib
import hmac
import pathlib
import struct
import sys

SYMBOL = {1: 1408, 2: 8896}
HEADER = struct.Struct(">BBBB8sQII")
PARAMETERS = struct.Struct(">8s32s32sQQIHHQ24s")
HEARTBEAT = struct.Struct(">QQQQQHB")


class Bad(Exception):
    """A datagram that MUST be dropped; the message is the reason."""


def parse_header(datagram):
    if len(datagram) < HEADER.size:
        raise Bad("length")
    magic, kind, profile, reserved, session, counter, sbn, esi = HEADER.unpack_from(datagram)
    if magic != 0xD1:
        raise Bad("magic")
    if kind not in (1, 2, 3, 4):
        raise Bad("type")
    if profile not in SYMBOL:
        raise Bad("profile")
    if reserved != 0:
        raise Bad("reserved")
    if len(datagram) != 28 + SYMBOL[profile] + 16:
        raise Bad("length")
    return kind, profile, session, counter, sbn, esi


def check_mac1(datagram, receiver_public):
    key = hashlib.sha256(b"sluice-mac1-v1" + receiver_public).digest()
    tag = hmac.new(key, datagram[:-16], hashlib.sha256).digest()[:16]
    if not hmac.compare_digest(tag, datagram[-16:]):
        raise Bad("mac1")


def check_parameters(parameters, session):
    (sid, _, _, envelope, payload, groups, number, reserved, start, tail) = PARAMETERS.unpack(parameters)
    assert sid == session and envelope <= 160 << 20 and payload <= 1 << 50
    assert 1 <= groups <= 4096 and number >= 1 and reserved == 0 and tail == bytes(24) and start > 0


def check_heartbeat(body):
    *_, number, state = HEARTBEAT.unpack_from(body)
    assert number >= 1 and 1 <= state <= 5 and not any(body[HEARTBEAT.size:])


def check_announcement(v, kind, session, counter, sbn, esi):
    datagram = v["datagram"]
    assert (kind, counter, sbn, esi) == (1, 0, 0, 0)
    assert not any(datagram[28 + 1328:-16]), "padding"
    check_mac1(datagram, v["receiver_public"])
    check_parameters(v["parameters"], session)


def check_sealed(name, v, kind, session):
    expected = {"envelope": 2, "payload": 3, "heartbeat": 4}[name.split("-")[0]]
    assert kind == expected and v["datagram"][:28] == v["header"]
    assert len(v["body"]) == len(v["datagram"]) - 44
    assert v["datagram"][28:-16] != v["body"], "not encrypted"
    if kind == 4:
        check_heartbeat(v["body"])


def check(name, v):
    reason = v.pop("reason", None)
    try:
        kind, profile, session, counter, sbn, esi = parse_header(v["datagram"])
        if name.startswith("bad-") and kind == 1:
            check_mac1(v["datagram"], v["receiver_public"])
    except Bad as bad:
        assert reason == str(bad), f"dropped for {bad}, want {reason}"
        return
    if reason is not None:
        assert reason == "tag", f"accepted, want dropped for {reason}"
    elif name.startswith("announcement-"):
        assert name == {1: "announcement-1500", 2: "announcement-9000"}[profile]
        check_announcement(v, kind, session, counter, sbn, esi)
    else:
        check_sealed(name, v, kind, session)


def read(path):
    v = {}
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        name, value = line.split(": ")
        v[name] = value if name == "reason" else bytes.fromhex(value)
    return v


def main():
    paths = sorted(pathlib.Path(__file__).parent.glob("*.txt"))
    for path in paths:
        try:
            check(path.stem, read(path))
        except AssertionError as e:
            sys.exit(f"{path.name}: {e}")
    if not paths:
        sys.exit("no vectors")
    print(f"{len(paths)} vectors agree")


if __name__ == "__main__":
    main()
