// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/integration/lab"
	"sluice/internal/cli"
	"sluice/internal/packer"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// forge makes releases in one process, honest ones and others, with the site's own keys.
type forge struct {
	site    *lab.Site
	signers map[string]mofn.Signer
	trust   *trust.Store
}

func newForge(t *testing.T, s *lab.Site) *forge {
	t.Helper()
	st, err := trust.Load(s.Path("trust.json"), s.Fingerprint)
	must(t, err)
	return &forge{site: s, signers: map[string]mofn.Signer{}, trust: st}
}

// signer opens a key file; "stranger" is a key that no policy knows.
func (f *forge) signer(t *testing.T, name string) mofn.Signer {
	t.Helper()
	if s := f.signers[name]; s != nil {
		return s
	}
	key, err := mofn.GenerateSecret(rand.Reader, mofn.SuiteH1, name)
	must(t, err)
	if name != "stranger" {
		pass, err := trust.ReadPassphrase(f.site.Path("passphrase"))
		must(t, err)
		key, err = trust.OpenKey(f.site.Path("keys", name), pass)
		must(t, err)
	}
	signer, err := key.SigningKey()
	must(t, err)
	f.signers[name] = signer
	return f.signers[name]
}

// draft is a release in the making.
type draft struct {
	seq       int64
	signer    string
	officers  []string
	predicate func(*envelope.Predicate)
	statement func(string) string // changes the JSON text before it is signed
}

// seal makes a release of a small payload in a directory of its own.
func (f *forge) seal(t *testing.T, d draft) string {
	t.Helper()
	dir := t.TempDir()
	must(t, lab.RandomFile(filepath.Join(dir, "payload", "data.safetensors"), 2*mib+333, uint64(d.seq)))
	must(t, os.WriteFile(filepath.Join(dir, "payload", "README.md"), []byte("# a data set\n"), 0o644))
	now := time.Now().UTC()
	p := envelope.Predicate{
		Stream: "data/bad", Epoch: 1, Seq: d.seq, Kind: envelope.KindDataset, Name: "bad", Version: "1",
		Source: envelope.Source{Type: "directory", Repo: "lab"}, Gate: envelope.Gate{Verdict: "not-applicable"}, Inspection: envelope.Inspection{Verdict: "not-applicable"},
		Created: now.Add(-2 * time.Hour).Format(time.RFC3339), Expires: now.Add(time.Hour).Format(time.RFC3339), Audience: []string{lab.Receiver}, Classification: "UNCLASSIFIED",
	}
	if d.predicate != nil {
		d.predicate(&p)
	}
	st, index, err := envelope.Build(t.Context(), os.DirFS(filepath.Join(dir, "payload")), envelope.BuildOptions{Predicate: p})
	must(t, err)
	text, err := st.Marshal()
	must(t, err)
	if d.statement != nil {
		changed := d.statement(string(text))
		if changed == string(text) {
			t.Fatal("the statement was not changed")
		}
		text = []byte(changed)
	}
	if d.signer == "" {
		d.signer = "packer"
	}
	release := f.dsse(t, d.signer, "packer", text)
	var approvals []envelope.Named
	for _, o := range d.officers {
		approvals = append(approvals, f.approval(t, o, o, text, p))
	}
	writeStream(t, dir, release, index, approvals)
	return dir
}

func (f *forge) dsse(t *testing.T, signer, role string, payload []byte) []byte {
	t.Helper()
	s := f.signer(t, signer)
	sig, err := s.Sign(role, envelope.PAE(envelope.PayloadTypeInToto, payload))
	must(t, err)
	d := envelope.DSSE{Payload: payload, PayloadType: envelope.PayloadTypeInToto, Signatures: []envelope.Signature{{KeyID: s.KeyID().String(), Sig: sig}}}
	b, err := d.Marshal()
	must(t, err)
	return b
}

// approval is a security officer's, in the name of another one when the names differ.
func (f *forge) approval(t *testing.T, signer, officer string, statement []byte, p envelope.Predicate) envelope.Named {
	t.Helper()
	a := envelope.Approval{
		ReleaseID: envelope.ID(statement), Stream: p.Stream, Epoch: p.Epoch, Seq: p.Seq, Role: "security", Officer: officer,
		Decision: envelope.DecisionApprove, Checked: []string{}, Shown: sha256.Sum256(nil), Tool: "forge", At: time.Now().UTC().Format(time.RFC3339),
	}
	b, err := a.Marshal()
	must(t, err)
	return envelope.Named{Name: a.SectionName(), Data: f.dsse(t, signer, "security", b)}
}

// writeStream writes an envelope with the container's writer alone, which knows nothing of what the sections say.
func writeStream(t *testing.T, dir string, release, index []byte, approvals []envelope.Named) {
	t.Helper()
	var b bytes.Buffer
	w := envelope.NewWriter(&b)
	section := func(typ envelope.SectionType, name string, data []byte) {
		must(t, w.Section(typ, name, int64(len(data))))
		_, err := w.Write(data)
		must(t, err)
	}
	section(envelope.SectionRelease, "", release)
	section(envelope.SectionIndex, "", index)
	slices.SortFunc(approvals, func(a, b envelope.Named) int { return strings.Compare(a.Name, b.Name) })
	for _, a := range approvals {
		section(envelope.SectionApproval, a.Name, a.Data)
	}
	must(t, w.Close())
	must(t, os.WriteFile(filepath.Join(dir, "envelope.sluice"), b.Bytes(), 0o600))
}

// bad is one medium that must not pass.
type bad struct {
	name  string
	make  func(t *testing.T) string // the directory
	code  int
	words []string // what, where, what to do
}

func twoOfSecurity() []string { return lab.Security()[:2] }

func TestBadInput(t *testing.T) {
	s := newSite(t)
	listening(t, s)
	f := newForge(t, s)
	config := s.Path("high.yaml")
	first := f.seal(t, draft{seq: 5, officers: twoOfSecurity()})
	if _, err := s.CallCapped(t.Context(), mib, "diode-receiver", "import", "--config", config, first); err == nil {
		t.Fatal("the memory limit does not bite")
	}
	for _, when := range []string{"the first time", "again"} {
		if out := call(t, s, "diode-receiver", "import", "--config", config, first); !strings.HasPrefix(out, "PUBLISHED") {
			t.Fatalf("%s: %s", when, out)
		}
	}
	good := f.seal(t, draft{seq: 6, officers: twoOfSecurity()})
	cases := slices.Concat(f.badStreams(good), f.badPayloads(good), f.badStatements(), f.badApprovals(good), f.badHeaders(good))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { f.refuse(t, c) })
	}
	t.Log("and nothing of all that stands in the way of the good one")
	call(t, s, "diode-receiver", "import", "--config", config, good)
	f.refuse(t, bad{"replay", func(*testing.T) string { return first }, cli.ExitRefused, []string{"rollback", "data/bad", "seq 6", "seq 5"}})
	clean(t, s)
}

// refuse imports a medium under a memory limit and wants its exit code, its words, and nothing changed but the state.
func (f *forge) refuse(t *testing.T, c bad) {
	t.Helper()
	dir := c.make(t)
	siteBefore, mediumBefore, spoolBefore := listing(t, f.site.Dir, "high"), listing(t, dir, ""), listing(t, f.site.Path("high", "spool"), "")
	_, err := f.site.CallCapped(t.Context(), maxMemory, "diode-receiver", "import", "--config", f.site.Path("high.yaml"), dir)
	ended := wantExit(t, err, c.code, c.words...)
	if ended != nil {
		t.Log(ended.Stderr)
	}
	if after := listing(t, f.site.Dir, "high"); after != siteBefore {
		t.Errorf("changed outside of the state directory:\n%s\n---\n%s", siteBefore, after)
	}
	if after := listing(t, dir, ""); after != mediumBefore {
		t.Errorf("the medium was changed:\n%s\n---\n%s", mediumBefore, after)
	}
	if after := listing(t, f.site.Path("high", "spool"), ""); after != spoolBefore {
		t.Errorf("the spool kept something of it:\n%s\n---\n%s", spoolBefore, after)
	}
}

// listing is every name below a directory with its kind, size and time, but for one directory.
func listing(t *testing.T, dir, but string) string {
	t.Helper()
	var b strings.Builder
	must(t, fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == but && but != "" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil || path == "." {
			return err
		}
		fmt.Fprintf(&b, "%s %v %d %d\n", path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return nil
	}))
	return b.String()
}

// copyOf copies a sealed release, and lets change do something to the copy.
func copyOf(good string, change func(t *testing.T, dir string)) func(*testing.T) string {
	return func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "medium")
		must(t, os.CopyFS(dir, os.DirFS(good)))
		change(t, dir)
		return dir
	}
}

// withStream copies a sealed release with another envelope stream.
func withStream(good string, change func(t *testing.T, stream []byte) []byte) func(*testing.T) string {
	return copyOf(good, func(t *testing.T, dir string) {
		name := filepath.Join(dir, "envelope.sluice")
		must(t, os.WriteFile(name, change(t, readAll(t, name)), 0o600))
	})
}

// badStreams damages the envelope: truncated, and one bit flipped, at places that a seed chooses.
func (f *forge) badStreams(good string) (cases []bad) {
	const seed, flips, cuts = 20261122, 16, 5
	random := mrand.New(mrand.NewPCG(seed, 0))
	for i := range cuts + 3 {
		part := random.Float64()
		if i < 3 {
			part = []float64{0, 0.0001, 0.99999}[i]
		}
		cut := func(_ *testing.T, b []byte) []byte { return b[:int(part*float64(len(b)))] }
		cases = append(cases, bad{fmt.Sprintf("truncated/seed=%d/%d", seed, i), withStream(good, cut), cli.ExitRefused, []string{"envelope.sluice: ", "the stream ends here", "take a fresh copy"}})
	}
	for i := range flips {
		part, bit := random.Float64(), byte(1)<<random.IntN(8)
		flipped := func(_ *testing.T, b []byte) []byte { b[int(part*float64(len(b)))] ^= bit; return b }
		cases = append(cases, bad{fmt.Sprintf("flipped/seed=%d/%d", seed, i), withStream(good, flipped), cli.ExitRefused, []string{"refused", "envelope.sluice"}})
	}
	return append(cases,
		bad{"trailing byte", withStream(good, func(_ *testing.T, b []byte) []byte { return append(b, 0) }), cli.ExitRefused, []string{"envelope.sluice"}},
		bad{"not an envelope", withStream(good, func(*testing.T, []byte) []byte { return bytes.Repeat([]byte("SLUICE"), mib) }), cli.ExitRefused, []string{"envelope.sluice"}})
}

// badPayloads leaves the envelope good.
func (f *forge) badPayloads(good string) []bad {
	const data, readme = "payload/data.safetensors", "payload/README.md"
	link := func(name, to string) func(*testing.T) string {
		return copyOf(good, func(t *testing.T, dir string) {
			must(t, os.RemoveAll(filepath.Join(dir, name)))
			must(t, os.Symlink(to, filepath.Join(dir, name)))
		})
	}
	return []bad{
		{"flipped payload byte", copyOf(good, func(t *testing.T, dir string) {
			name := filepath.Join(dir, data)
			b := readAll(t, name)
			b[mib+7] ^= 1
			must(t, os.WriteFile(name, b, 0o600))
		}), cli.ExitRefused, []string{"data.safetensors", "quarantine"}},
		{"missing file", copyOf(good, func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, readme))) }), cli.ExitRefused, []string{"README.md", "missing"}},
		{"short file", copyOf(good, func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, data), mib)) }), cli.ExitRefused, []string{"data.safetensors", fmt.Sprint(mib), fmt.Sprint(2*mib + 333)}},
		{"extra file", copyOf(good, func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "payload", "extra.py"), []byte("import os\n"), 0o644))
		}), cli.ExitRefused, []string{"extra.py", "does not name"}},
		{"no payload", copyOf(good, func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, "payload"))) }), cli.ExitRefused, []string{"payload"}},
		{"symlink in the payload", link(readme, "data.safetensors"), cli.ExitRefused, []string{"README.md", "no regular file"}},
		{"symlink out of the payload", link(readme, "/etc/passwd"), cli.ExitRefused, []string{"README.md", "no regular file"}},
		{"symlinked payload", link("payload", "/etc"), cli.ExitRefused, []string{"payload"}},
		{"symlink as envelope", link("envelope.sluice", "payload/README.md"), cli.ExitRefused, []string{"envelope.sluice", "regular file"}},
		{"no envelope", copyOf(good, func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "envelope.sluice"))) }), cli.ExitFailed, []string{"envelope.sluice", "sealed release"}},
		{"directory in place of a file", copyOf(good, func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, readme)))
			must(t, os.Mkdir(filepath.Join(dir, readme), 0o755))
		}), cli.ExitRefused, []string{"README.md", "no regular file"}},
	}
}

// badStatements are signed and approved by the right people, and wrong.
func (f *forge) badStatements() (cases []bad) {
	for _, path := range []string{"../x", "/etc/cron.d/x", "a/../../x", "..", "x\\\\y", "C:x", "con.txt", ".git/config", "x\\u0000", "x\\u202e/../y", "x ", strings.Repeat("a/", 40) + "x", strings.Repeat("a", 300)} {
		cases = append(cases, f.statement("path "+path, draft{statement: func(s string) string {
			return strings.Replace(s, `"data.safetensors"`, `"`+path+`"`, 1)
		}}, "envelope.sluice"))
	}
	replace := func(old, by string) draft {
		return draft{statement: func(s string) string { return strings.Replace(s, old, by, 1) }}
	}
	expired := time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)
	return append(cases,
		f.statement("size 2^53", replace(`"size":2097485`, `"size":9007199254740992`), "envelope.sluice"),
		f.statement("size 2^63", replace(`"size":2097485`, `"size":9223372036854775808`), "envelope.sluice"),
		f.statement("negative size", replace(`"size":2097485`, `"size":-1`), "envelope.sluice"),
		f.statement("total size", replace(`"total_size":`, `"total_size":1`), "total_size"),
		f.statement("unknown key", replace(`"kind":`, `"knid":"x","kind":`), "envelope.sluice"),
		f.statement("twice the same key", replace(`"kind":`, `"name":"x","kind":`), "envelope.sluice"),
		f.statement("white space", replace(`,"kind":`, `, "kind":`), "envelope.sluice"),
		f.statement("many blocks", replace(`"blocks":4`, `"blocks":4503599627370496`), "envelope.sluice"),
		f.statement("wrong audience", draft{predicate: func(p *envelope.Predicate) { p.Audience = []string{"rx-2"} }}, "rx-2", "rx-1"),
		f.statement("expired", draft{predicate: func(p *envelope.Predicate) { p.Expires = expired }}, "expired", expired, "seal it anew"),
		f.statement("stream without a rule", draft{predicate: func(p *envelope.Predicate) { p.Stream = "other/bad" }}, "other/bad"),
		f.statement("another packer", draft{signer: "stranger"}, "packer"),
		f.statement("officer as packer", draft{signer: lab.Security()[2]}, "packer"),
		f.statement("older than what is there", draft{seq: 4}, "rollback", "seq 5", "seq 4"))
}

func (f *forge) statement(name string, d draft, words ...string) bad {
	if d.seq == 0 {
		d.seq = 7
	}
	d.officers = twoOfSecurity()
	return bad{name, func(t *testing.T) string { return f.seal(t, d) }, cli.ExitRefused, words}
}

// badApprovals changes who approved what.
func (f *forge) badApprovals(good string) []bad {
	with := func(approvals func(t *testing.T, env *envelope.Envelope) []envelope.Named) func(*testing.T) string {
		return copyOf(good, func(t *testing.T, dir string) {
			env, err := packer.ReadEnvelope(dir)
			must(t, err)
			writeStream(t, dir, env.Release, env.Index, approvals(t, env))
		})
	}
	a, b := lab.Security()[0], lab.Security()[1]
	own := func(t *testing.T, signer, officer string, env *envelope.Envelope) envelope.Named {
		return f.approval(t, signer, officer, env.DSSE.Payload, env.Statement.Predicate)
	}
	return []bad{
		{"no approval", with(func(*testing.T, *envelope.Envelope) []envelope.Named { return nil }), cli.ExitRefused, []string{"security", "0 of 2", "quarantine"}},
		{"one approval too few", with(func(_ *testing.T, env *envelope.Envelope) []envelope.Named { return env.Approvals[:1] }), cli.ExitRefused, []string{"security", "1 of 2", "quarantine"}},
		{"approval for another release", with(func(t *testing.T, env *envelope.Envelope) []envelope.Named {
			other := env.Statement.Predicate
			other.Seq++
			return []envelope.Named{env.Approvals[0], f.approval(t, b, b, []byte("another statement"), other)}
		}), cli.ExitRefused, []string{"security." + b + ".json", "release"}},
		{"one officer under two names", with(func(t *testing.T, env *envelope.Envelope) []envelope.Named {
			return []envelope.Named{own(t, a, a, env), own(t, a, b, env)}
		}), cli.ExitRefused, []string{"security." + b + ".json", "twice"}},
		{"in the name of another officer", with(func(t *testing.T, env *envelope.Envelope) []envelope.Named {
			return []envelope.Named{own(t, a, b, env), own(t, lab.Security()[2], lab.Security()[2], env)}
		}), cli.ExitRefused, []string{a, b}},
		{"one approval under two names", with(func(t *testing.T, env *envelope.Envelope) []envelope.Named {
			n := own(t, a, a, env)
			return []envelope.Named{n, {Name: "security." + b + ".json", Data: n.Data}}
		}), cli.ExitRefused, []string{"security." + b + ".json"}},
		{"approval by a stranger", with(func(t *testing.T, env *envelope.Envelope) []envelope.Named {
			return []envelope.Named{own(t, a, a, env), own(t, "stranger", b, env)}
		}), cli.ExitRefused, []string{"1 of 2"}},
		{"approval by the packer", with(func(t *testing.T, env *envelope.Envelope) []envelope.Named {
			return []envelope.Named{own(t, a, a, env), own(t, "packer", b, env)}
		}), cli.ExitRefused, []string{"security"}},
		{"signature of another approval", with(func(t *testing.T, env *envelope.Envelope) []envelope.Named {
			return []envelope.Named{own(t, a, a, env), swapSignature(t, own(t, b, b, env), env.Approvals[0])}
		}), cli.ExitRefused, []string{"security." + b + ".json"}},
	}
}

// swapSignature puts the signature bytes of another approval under an approval.
func swapSignature(t *testing.T, n, other envelope.Named) envelope.Named {
	t.Helper()
	d, err := envelope.ParseDSSE(n.Data, len(n.Data))
	must(t, err)
	from, err := envelope.ParseDSSE(other.Data, len(other.Data))
	must(t, err)
	d.Signatures[0].Sig = from.Signatures[0].Sig
	b, err := d.Marshal()
	must(t, err)
	return envelope.Named{Name: n.Name, Data: b}
}

// badHeaders declares sizes and counts that nobody has room for, in the first section header and in the one of the index.
func (f *forge) badHeaders(good string) (cases []bad) {
	const magic, header = 8, 12
	for _, size := range []uint64{1 << 31, 1<<32 - 1, 1 << 53, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		for _, second := range []bool{false, true} {
			cases = append(cases, bad{fmt.Sprintf("declared size %d/index=%t", size, second), withStream(good, func(_ *testing.T, b []byte) []byte {
				at := magic
				if second {
					at += header + int(binary.BigEndian.Uint64(b[magic+4:]))
				}
				binary.BigEndian.PutUint64(b[at+4:], size)
				return b
			}), cli.ExitRefused, []string{"envelope.sluice", "section"}})
		}
	}
	return append(cases,
		bad{"name of 65535 bytes", withStream(good, func(_ *testing.T, b []byte) []byte { b[magic+2], b[magic+3] = 0xff, 0xff; return b }), cli.ExitRefused, []string{"envelope.sluice"}},
		bad{"many approvals", copyOf(good, func(t *testing.T, dir string) {
			b := readAll(t, filepath.Join(dir, "envelope.sluice"))
			b = b[:len(b)-header-32] // without the end
			for i := range 2000 {
				name := fmt.Sprintf("z%05d", i)
				b = append(b, byte(envelope.SectionApproval), 0, 0, byte(len(name)))
				b = binary.BigEndian.AppendUint64(b, 1)
				b = append(append(b, name...), '{')
			}
			must(t, os.WriteFile(filepath.Join(dir, "envelope.sluice"), b, 0o600))
		}), cli.ExitRefused, []string{"envelope.sluice"}})
}
