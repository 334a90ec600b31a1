// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sluice/internal/audit"
	"sluice/internal/cli"
	"sluice/internal/cli/clitest"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// halves runs the verb.
func halves(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Run(t.Context(), func(s cli.Streams) *cobra.Command { return cli.Group("prog", "A program", cli.HalvesCommand(s)) },
		append([]string{"halves"}, args...), cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	return code, out.String(), errs.String()
}

// signedSite is a site with a release that people of both suites approved, and a checkpoint.
type signedSite struct {
	*clitest.Site
	release, checkpoint, logKey string
}

func newSignedSite(t *testing.T) signedSite {
	t.Helper()
	site, err := clitest.New(t.TempDir())
	must(t, err)
	s := signedSite{site, site.Path("release"), site.Path("checkpoint"), site.Path("log.pub")}
	must(t, os.MkdirAll(filepath.Join(s.release, "payload"), 0o755))
	must(t, os.WriteFile(filepath.Join(s.release, "payload", "list.txt"), []byte("list\n"), 0o600))
	_, err = site.Seal(t.Context(), s.release, "data/lists", 1, "a.roy", "m.lee")
	must(t, err)
	secret, err := mofn.GenerateSecret(rand.Reader, mofn.SuiteH1, "log")
	must(t, err)
	log, err := audit.NewLogKey(secret)
	must(t, err)
	note, err := log.Sign(audit.Checkpoint{Origin: audit.Origin(audit.High, "rx-1"), Size: 3, Root: [32]byte{1}})
	must(t, err)
	must(t, os.WriteFile(s.checkpoint, note, 0o600))
	must(t, os.WriteFile(s.logKey, log.Public.File, 0o600))
	return s
}

func (s signedSite) trusted() []string {
	return []string{"--trust", s.Path("trust.json"), "--fingerprint", s.Fingerprint}
}

// approvals writes each approval into a file of its own.
func (s signedSite) approvals(t *testing.T) (files []string) {
	t.Helper()
	f, err := os.Open(filepath.Join(s.release, "envelope.sluice"))
	must(t, err)
	defer f.Close()
	env, err := envelope.Read(f)
	must(t, err)
	for _, a := range env.Approvals {
		files = append(files, s.Path(a.Name))
		must(t, os.WriteFile(s.Path(a.Name), a.Data, 0o600))
	}
	must(t, os.WriteFile(s.Path("release.json"), env.Release, 0o600))
	return append(files, s.Path("release.json"))
}

// TestHalvesAreOfTheSignature: both halves together are the signature again, over what was written.
func TestHalvesAreOfTheSignature(t *testing.T) {
	s := newSignedSite(t)
	out := s.Path("out")
	code, stdout, stderr := halves(t, append(s.trusted(), "--out", out, filepath.Join(s.release, "envelope.sluice"))...)
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	store, err := trust.Load(s.Path("trust.json"), s.Fingerprint)
	must(t, err)
	for name, want := range map[string]struct {
		role  string
		suite mofn.Suite
	}{
		"release": {mofn.RolePacker, mofn.SuiteH1}, "approval-security.a.roy": {"security", mofn.SuiteH1}, "approval-security.m.lee": {"security", mofn.SuiteH2},
	} {
		if !strings.Contains(stdout, "# "+name+": role "+want.role+", suite "+string(want.suite)) {
			t.Errorf("%s is not announced:\n%s", name, stdout)
		}
		read := func(ending string) []byte {
			b, err := os.ReadFile(filepath.Join(out, name+ending))
			must(t, err)
			return b
		}
		sig := slices.Concat(read(".mldsa.sig"), read(".classical.sig"))
		verified := 0
		for _, k := range store.Object.Keys {
			key, err := mofn.ParsePublicKey(k.Suite, k.Public)
			must(t, err)
			if key.Verify(want.role, read(".signed"), sig) == nil {
				verified++
			}
		}
		if verified != 1 {
			t.Errorf("%s: %d keys verify what was written, want 1", name, verified)
		}
	}
}

// printed takes signatures apart from every kind of file that has some, and gives the printed commands.
func printed(t *testing.T, s signedSite) (lines []string) {
	t.Helper()
	runs := map[string][]string{
		"envelope": append(s.trusted(), filepath.Join(s.release, "envelope.sluice")), "checkpoint": {"--key", s.logKey, s.checkpoint},
		"root": successor(t),
	}
	for _, file := range s.approvals(t) {
		runs[filepath.Base(file)] = append(s.trusted(), file)
	}
	for name, args := range runs {
		code, stdout, stderr := halves(t, append(args, "--out", s.Path("out-"+name))...)
		if code != 0 {
			t.Fatalf("%s: exit %d: %s", name, code, stderr)
		}
		lines = append(lines, strings.Split(strings.TrimSpace(stdout), "\n")...)
	}
	return lines
}

// successor is the signed trust object of the vectors, with signatures of both suites.
func successor(t *testing.T) []string {
	t.Helper()
	const file = "../../testdata/vectors/trust/suites-mixed.next.json"
	b, err := os.ReadFile(file)
	must(t, err)
	d, err := envelope.ParseDSSE(b, len(b))
	must(t, err)
	sum := mofn.Fingerprint(d.Payload)
	return []string{"--trust", file, "--fingerprint", hex.EncodeToString(sum[:]), file}
}

// sh runs one printed line; Debian calls signify signify-openbsd.
func sh(t *testing.T, line string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(line, "signify -V", "signify-openbsd -V", 1)).CombinedOutput()
	return string(out), err
}

// TestHalvesCommands runs what is printed, with the real tools: each half verifies, and no longer when what was signed is changed.
func TestHalvesCommands(t *testing.T) {
	s := newSignedSite(t)
	counts, lines := map[string]int{}, printed(t, s)
	for _, tool := range []string{"sha512sum", "openssl", "signify-openbsd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("%s is not here (apt-get install %s): its half of the commands did NOT run", tool, tool)
			lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, strings.TrimSuffix(tool, "-openbsd")) })
		}
	}
	if help, _ := exec.CommandContext(t.Context(), "openssl", "list", "-signature-algorithms").Output(); !bytes.Contains(help, []byte("ML-DSA-65")) {
		t.Log("this openssl knows no ML-DSA (3.5 does): the ML-DSA halves were NOT checked by openssl")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, ".mldsa.") })
	}
	for _, line := range lines {
		tool, _, _ := strings.Cut(line, " ")
		counts[tool]++
		if tool == "#" {
			continue
		}
		out, err := sh(t, line)
		if err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
		if words := strings.Fields(out); tool == "sha512sum" && (len(words) != 3 || words[0] != words[2]) {
			t.Errorf("%s: M' does not end in the digest of what was signed: %s", line, out)
		}
	}
	t.Logf("lines run: %v", counts)
	if len(lines) == 0 {
		t.Skip("none of the tools is here")
	}
	spoilMessages(t, s)
	for _, line := range lines {
		if tool, _, _ := strings.Cut(line, " "); tool == "openssl" || tool == "signify" {
			if out, err := sh(t, line); err == nil {
				t.Errorf("%s accepts another message: %s", line, out)
			}
		}
	}
}

// spoilMessages changes one bit of every M'.
func spoilMessages(t *testing.T, s signedSite) {
	t.Helper()
	files, err := filepath.Glob(s.Path("out-*/*.msg"))
	must(t, err)
	if len(files) < 8 {
		t.Fatalf("%d messages", len(files))
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		must(t, err)
		b[len(b)-1] ^= 1
		must(t, os.Remove(name))
		must(t, os.WriteFile(name, b, 0o600))
	}
}

// TestHalvesMLDSA has a second OpenSSL check the ML-DSA halves, that of Python's cryptography (47 or newer), where openssl is too old.
func TestHalvesMLDSA(t *testing.T) {
	python, err := filepath.Abs("../../.cache/model-signing/bin/python3")
	must(t, err)
	const check = `
import sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.exceptions import InvalidSignature
label, base = sys.argv[1], sys.argv[2]
key = load_pem_public_key(open(base + ".mldsa.pem", "rb").read())
sig, msg = open(base + ".mldsa.sig", "rb").read(), open(base + ".msg", "rb").read()
key.verify(sig, msg, label.encode())
for s, m, c in ((sig, msg, b""), (sig, msg[:-1] + b"x", label.encode()), (sig[:-1] + bytes([sig[-1] ^ 1]), msg, label.encode())):
    try:
        key.verify(s, m, c)
        sys.exit("accepted")
    except InvalidSignature:
        pass
print(type(key).__name__)
`
	if exec.CommandContext(t.Context(), python, "-c", "from cryptography.hazmat.primitives.asymmetric import mldsa").Run() != nil {
		t.Skip("no Python with cryptography 47 in .cache/model-signing (make model-signing): the ML-DSA halves were NOT checked by OpenSSL")
	}
	s := newSignedSite(t)
	kinds := map[string]int{}
	for _, line := range printed(t, s) {
		if !strings.Contains(line, ".mldsa.sig") {
			continue
		}
		words := strings.Fields(line)
		base := strings.TrimSuffix(words[slices.Index(words, "-in")+1], ".msg")
		label := strings.TrimPrefix(words[slices.Index(words, "-pkeyopt")+1], "context-string:")
		out, err := exec.CommandContext(t.Context(), python, "-c", check, label, base).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", base, err, out)
		}
		kinds[strings.TrimSpace(string(out))]++
	}
	t.Log(kinds)
	if len(kinds) != 2 {
		t.Errorf("%v: want keys of both parameter sets", kinds)
	}
}

func TestHalvesRefuses(t *testing.T) {
	s := newSignedSite(t)
	file, junk := filepath.Join(s.release, "envelope.sluice"), s.Path("junk.json")
	must(t, os.WriteFile(junk, []byte("{}"), 0o600))
	other := s.Path("other")
	_, err := cli.WriteKey(other, mofn.SuiteH1, "", []byte("p"))
	must(t, err)
	must(t, os.Mkdir(s.Path("there"), 0o755))
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no key", []string{"--out", s.Path("o"), file}, 2, "no key"},
		{"half a trust object", []string{"--out", s.Path("o"), "--trust", s.Path("trust.json"), file}, 2, "go together"},
		{"another fingerprint", []string{"--out", s.Path("o"), "--trust", s.Path("trust.json"), "--fingerprint", strings.Repeat("0", 64), file}, 2, "fingerprint"},
		{"a key that signs nothing", []string{"--out", s.Path("o"), "--key", s.Path("link.pub"), file}, 2, "one of H1 or H2"},
		{"a private key", []string{"--out", s.Path("o"), "--key", other, file}, 2, other},
		{"no directory", append(s.trusted(), file), 2, "--out missing"},
		{"a directory that is there", append(s.trusted(), "--out", s.Path("there"), file), 2, "exists"},
		{"no signature of the key", []string{"--out", s.Path("o"), "--key", other + ".pub", file}, 3, "no signature by a key that was given"},
		{"a checkpoint of another log", []string{"--out", s.Path("o"), "--key", other + ".pub", s.checkpoint}, 3, "no signature by a key that was given"},
		{"no statement", append(s.trusted(), "--out", s.Path("o"), junk), 3, "junk.json"},
		{"no note", append(s.trusted(), "--key", s.logKey, "--out", s.Path("o"), s.Path("passphrase")), 3, "passphrase"},
		{"no file", append(s.trusted(), "--out", s.Path("o"), s.Path("absent")), 1, "absent"},
	} {
		code, stdout, stderr := halves(t, c.args...)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: exit %d, want %d with %q: %s%s", c.name, code, c.code, c.says, stdout, stderr)
		}
		if _, err := os.Stat(s.Path("o")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a directory was made", c.name)
		}
	}
}
