// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/link"
	"sluice/pkg/fec"
)

// The vectors of docs/spec/datagram.md section 8 are text files of "name: hex"
// lines. `go test -run TestVectors -update` writes them anew; a change of a
// committed file is a change of the format.

var update = flag.Bool("update", false, "write the test vectors anew")

const vectorDir = "../../testdata/vectors/datagram"

// vector is one file: fields in order.
type vector struct {
	name   string
	title  string
	fields [][2]string
}

func (v *vector) add(name string, value []byte) {
	v.fields = append(v.fields, [2]string{name, hex.EncodeToString(value)})
}

func (v *vector) get(t *testing.T, name string) []byte {
	t.Helper()
	for _, f := range v.fields {
		if f[0] == name {
			b, err := hex.DecodeString(f[1])
			if err != nil {
				t.Fatalf("%s: %s: %v", v.name, name, err)
			}
			return b
		}
	}
	t.Fatalf("%s: no field %s", v.name, name)
	return nil
}

func (v *vector) write(t *testing.T) {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n", v.title)
	for _, f := range v.fields {
		fmt.Fprintf(&b, "%s: %s\n", f[0], f[1])
	}
	if err := os.WriteFile(filepath.Join(vectorDir, v.name+".txt"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readVector(t *testing.T, path string) *vector {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v := &vector{name: strings.TrimSuffix(filepath.Base(path), ".txt")}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if name, value, ok := strings.Cut(s.Text(), ": "); ok && !strings.HasPrefix(name, "#") {
			v.fields = append(v.fields, [2]string{name, value})
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return v
}

// makeVectors builds every file from fixed keys.
func makeVectors(t *testing.T) []*vector {
	t.Helper()
	var list []*vector
	for _, p := range []link.Profile{link.Profile1500, link.Profile9000} {
		a := announcement(1)
		a.Profile = p
		list = append(list, announcementVector(t, p, a))
		_, key := sealed(t, newKeys(1), a)
		heartbeat := link.AppendHeartbeat(nil, link.Heartbeat{
			Source: 1_000_000, Repair: 52_083, Rate: 900_000_000,
			Clock: 1_800_000_001_000_000_000, Failed: 3, Pass: 1, State: link.StateSending,
		}, p)
		wide, err := fec.New(a.PayloadSize, p.SymbolSize(), a.Groups)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list,
			sealedVector("envelope", "an envelope symbol: source symbol 5 of span 0", a, key, link.TypeEnvelope, 7, 0, 5, pseudo(5, p.SymbolSize())),
			sealedVector("payload", "a payload symbol, with the ESI of repair row 2, group 0 of span 0, and the last counter that may be", a, key, link.TypePayload, 1<<32-1, 0, wide.Span(0).RepairESI(2, 0), pseudo(6, p.SymbolSize())),
			sealedVector("heartbeat", "a heartbeat", a, key, link.TypeHeartbeat, 0x01020304, 0, 0, heartbeat))
	}
	return append(list, badVectors(t)...)
}

func announcementVector(t *testing.T, p link.Profile, a link.Announcement) *vector {
	k := newKeys(1)
	d, key := sealed(t, k, a)
	random := make([]byte, 64)
	fixedRandom(1).Read(random)
	v := &vector{name: fmt.Sprintf("announcement-%v", p), title: "an announcement; random is the encapsulation's 64 bytes"}
	v.add("link_seed", k.link.Seed())
	v.add("link_public", k.public())
	v.add("receiver_private", k.private)
	v.add("receiver_public", k.receiver)
	v.add("random", random)
	v.add("parameters", link.AppendParameters(nil, a))
	v.add("session_key", key[:])
	v.add("datagram", d)
	return v
}

// sealedVector seals with crypto/cipher directly, not with the package's code.
func sealedVector(kind, title string, a link.Announcement, key [32]byte, typ link.Type, counter uint64, sbn, esi uint32, body []byte) *vector {
	header := link.AppendHeader(nil, link.Header{Type: typ, Profile: a.Profile, Session: a.Session, Counter: counter, SBN: sbn, ESI: esi})
	v := &vector{name: fmt.Sprintf("%s-%v", kind, a.Profile), title: title}
	v.add("session_key", key[:])
	v.add("header", header)
	v.add("body", body)
	v.add("datagram", gcm(key[:]).Seal(header, nonceOf(counter), body, header))
	return v
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func nonceOf(counter uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), counter)
}

// badVectors are datagrams that MUST be dropped. reason is text, not hex.
func badVectors(t *testing.T) []*vector {
	good, key := sealed(t, newKeys(1), announcement(1))
	payload := sealedVector("payload", "", announcement(1), key, link.TypePayload, 9, 0, 3, pseudo(7, 1408)).get(t, "datagram")
	var list []*vector
	bad := func(name, title string, d []byte, change func(d []byte) []byte) {
		v := &vector{name: "bad-" + name, title: title}
		v.fields = append(v.fields, [2]string{"reason", name})
		v.add("datagram", change(bytes.Clone(d)))
		v.add("receiver_public", newKeys(1).receiver)
		v.add("session_key", key[:])
		list = append(list, v)
	}
	set := func(at int, to byte) func([]byte) []byte { return func(d []byte) []byte { d[at] = to; return d } }
	bad("length", "one byte short", payload, func(d []byte) []byte { return d[:len(d)-1] })
	bad("magic", "0xD0", payload, set(0, 0xD0))
	bad("type", "type 5", payload, set(1, 5))
	bad("profile", "profile 0", payload, set(2, 0))
	bad("reserved", "reserved byte 1", payload, set(3, 1))
	bad("mac1", "an announcement whose mac1 is off by one bit", good, set(len(good)-1, good[len(good)-1]^1))
	bad("tag", "a payload symbol whose ESI was changed: additional data", payload, set(27, 4))
	return list
}

func TestVectors(t *testing.T) {
	made := makeVectors(t)
	if *update {
		for _, v := range made {
			v.write(t)
		}
	}
	paths, err := filepath.Glob(filepath.Join(vectorDir, "*.txt"))
	if err != nil || len(paths) != len(made) {
		t.Fatalf("%d files, want %d: %v", len(paths), len(made), err)
	}
	for _, v := range made {
		committed := readVector(t, filepath.Join(vectorDir, v.name+".txt"))
		equal(t, v.name, committed.fields, v.fields)
		checkVector(t, committed)
	}
}

// checkVector runs the package over a committed vector.
func checkVector(t *testing.T, v *vector) {
	t.Helper()
	kind, _, _ := strings.Cut(v.name, "-")
	d := v.get(t, "datagram")
	h, err := link.ParseHeader(d)
	switch kind {
	case "announcement":
		o, err := link.NewAnnouncementOpener(v.get(t, "receiver_private"), []ed25519.PublicKey{v.get(t, "link_public")})
		if err != nil {
			t.Fatal(err)
		}
		a, key, err := o.Open(d)
		if err != nil || !o.CheckMAC1(d) {
			t.Fatalf("%s: %v", v.name, err)
		}
		equal(t, "parameters", link.AppendParameters(nil, a), v.get(t, "parameters"))
		equal(t, "session key", key[:], v.get(t, "session_key"))
	case "bad":
		checkBad(t, v, d, h, err)
	default:
		body, err := gcm(v.get(t, "session_key")).Open(nil, nonceOf(h.Counter), d[28:], d[:28])
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		equal(t, "body", body, v.get(t, "body"))
	}
}

// checkBad wants the datagram dropped for the stated reason.
func checkBad(t *testing.T, v *vector, d []byte, h link.Header, err error) {
	t.Helper()
	reason := v.fields[0][1]
	want := map[string]error{"length": link.ErrLength, "magic": link.ErrMagic, "type": link.ErrType, "profile": link.ErrProfile, "reserved": link.ErrReserved}[reason]
	switch {
	case want != nil && !errors.Is(err, want):
		t.Errorf("%s: %v, want %v", v.name, err, want)
	case want != nil:
	case err != nil:
		t.Errorf("%s: header refused: %v", v.name, err)
	case reason == "mac1":
		if opener(t, newKeys(1), newKeys(1).public()).CheckMAC1(d) {
			t.Error("wrong mac1 accepted")
		}
	default:
		if _, err := gcm(v.get(t, "session_key")).Open(nil, nonceOf(h.Counter), d[28:], d[:28]); err == nil {
			t.Error("wrong tag accepted")
		}
	}
}

// TestVectorsByPython runs the second reader, which shares nothing with this one.
func TestVectorsByPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	out, err := exec.Command(python, filepath.Join(vectorDir, "check.py")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
