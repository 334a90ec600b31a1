// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trust_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// bombChild names the bomb that a child process of TestBombs reads from its standard input.
const bombChild = "SLUICE_TEST_BOMB"

// bomb is an input at a cap, or beyond it. The child judges it, so that its memory and its time are its own.
type bomb struct {
	make  func(t *testing.T) io.Reader
	judge func(r io.Reader) error // in the child
	pass  bool                    // it is read, and not refused
}

func readEnvelope(r io.Reader) error {
	_, err := envelope.Read(r)
	return err
}

// inMemory judges what parsers take whole; a reader of files bounds that before.
func inMemory(judge func([]byte) error) func(io.Reader) error {
	return func(r io.Reader) error {
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return judge(b)
	}
}

func readTrust(b []byte) error {
	_, err := trust.Parse(b)
	return err
}

func readPolicy(b []byte) error {
	_, err := mofn.ParsePolicy(string(b), nil)
	return err
}

func readDSSE(b []byte) error {
	_, err := envelope.ParseDSSE(b, envelope.MaxRelease)
	return err
}

func text(make func() string) func(*testing.T) io.Reader {
	return func(*testing.T) io.Reader { return strings.NewReader(make()) }
}

// stream is an envelope whose release section has this body.
func stream(body func() string) func(*testing.T) io.Reader {
	return func(*testing.T) io.Reader {
		b := body()
		return io.MultiReader(strings.NewReader("SLUICE\x01\n"), bytes.NewReader(header(1, "", uint64(len(b)))), strings.NewReader(b))
	}
}

// dsseOf is a DSSE envelope over any payload, with a signature of nobody.
func dsseOf(payload string) string {
	return `{"payload":"` + base64.StdEncoding.EncodeToString([]byte(payload)) + `","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"` +
		strings.Repeat("ab", 32) + `","sig":"AAAA"}]}`
}

func bombs() map[string]bomb {
	const head = `{"_type":"https://in-toto.io/Statement/v1","subject":[`
	signature := `{"keyid":"` + strings.Repeat("ab", 32) + `","sig":"AAAA"}`
	repeated := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i))
		}
		return b.String()
	}
	return map[string]bomb{
		"100,000 files and 32 approvals": {make: largest, judge: readEnvelope, pass: true},
		"160 MiB of zeros":               {make: func(*testing.T) io.Reader { return io.LimitReader(zeros{}, envelope.MaxStream) }, judge: readEnvelope},
		"a release of 44 MiB of zeros": {judge: readEnvelope, make: func(*testing.T) io.Reader {
			return io.MultiReader(strings.NewReader("SLUICE\x01\n"), bytes.NewReader(header(1, "", envelope.MaxRelease)), io.LimitReader(zeros{}, envelope.MaxRelease))
		}},
		"lists in lists, 32 MiB":         {make: stream(func() string { return dsseOf(strings.Repeat("[", 32<<20)) }), judge: readEnvelope},
		"objects in objects, 32 MiB":     {make: stream(func() string { return dsseOf(strings.Repeat(`{"_type":`, 3<<20)) }), judge: readEnvelope},
		"a name of 32 MiB":               {make: stream(func() string { return dsseOf(head + `{"name":"` + strings.Repeat("x", 31<<20) + `"`) }), judge: readEnvelope},
		"a name of 32 MiB in escapes":    {make: stream(func() string { return dsseOf(head + `{"name":"` + strings.Repeat(`\u0000`, 5<<20) + `"`) }), judge: readEnvelope},
		"10^7 subjects that are nothing": {make: stream(func() string { return dsseOf(head + strings.Repeat(`{},`, 10<<20)) }), judge: readEnvelope},
		"10^6 signatures": {judge: inMemory(readDSSE), make: func(*testing.T) io.Reader {
			return strings.NewReader(`{"payload":"","payloadType":"a/b","signatures":[` + strings.Repeat(signature+",", 400_000) + signature + "]}")
		}},
		"10^6 empty signatures": {judge: inMemory(readDSSE), make: text(func() string {
			return `{"payload":"","payloadType":"a/b","signatures":[` + strings.Repeat("{},", 1_000_000) + "{}]}"
		})},
		"an index of 2^60 blocks": {make: hugeIndex, judge: readEnvelope},
		"a policy of 5,000 groups": {judge: inMemory(readPolicy), make: func(*testing.T) io.Reader {
			return strings.NewReader(repeated(4600, func(i int) string { return fmt.Sprintf("group g%d 1 a\n", i) }))
		}},
		"a policy of groups in groups": {judge: inMemory(readPolicy), make: func(*testing.T) io.Reader {
			return strings.NewReader("group g0 1 a\n" + repeated(2200, func(i int) string { return fmt.Sprintf("group g%d 1 g%d\n", i+1, i) }))
		}},
		"a policy of rules": {judge: inMemory(readPolicy), make: func(*testing.T) io.Reader {
			return strings.NewReader("group g 1 a\n" + repeated(1800, func(i int) string { return fmt.Sprintf("rule stream s%d quorum g\n", i) }))
		}},
		"a policy of one line":    {judge: inMemory(readPolicy), make: text(func() string { return "group g 1" + strings.Repeat(" a", 32_000) })},
		"a policy of blank lines": {judge: inMemory(readPolicy), make: text(func() string { return strings.Repeat("\n", 64<<10) })},
		"a policy above its cap":  {judge: inMemory(readPolicy), make: text(func() string { return strings.Repeat("group g 1 a\n", 1<<20) })},
		"a trust object of lists": {judge: inMemory(readTrust), make: text(func() string { return trustOf(strings.Repeat("[", 4<<20)) })},
		"a trust object of keys": {judge: inMemory(readTrust), make: text(func() string {
			return trustOf(`"keys":[` + strings.Repeat(`{"id":"`+strings.Repeat("ab", 32)+`","suite":"H1","public":"","comment":""},`, 30_000))
		})},
		"a trust object of epochs": {judge: inMemory(readTrust), make: text(func() string {
			return trustOf(`"keys":[],"links":[],"receivers":[],"epochs":[` + strings.Repeat(`{"stream":"","min_epoch":0,"min_seq":0},`, 90_000))
		})},
	}
}

// trustOf is the DSSE envelope of the beginning of a trust object.
func trustOf(rest string) string {
	payload := `{"type":"sluice-trust-v1","version":1,"prev":"","root":"g","policy":"",` + rest
	return `{"payload":"` + base64.StdEncoding.EncodeToString([]byte(payload)) + `","payloadType":"` + trust.PayloadType + `","signatures":[]}`
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// largest is an envelope at its caps: 100,000 files of long names, and 32 approvals.
func largest(t *testing.T) io.Reader {
	t.Helper()
	return bytes.NewReader(manyFiles(t, envelope.MaxFiles, envelope.MaxApprovals))
}

// hugeIndex is a good envelope up to the index, whose header says 2^60 blocks.
func hugeIndex(t *testing.T) io.Reader {
	t.Helper()
	p := forged(t, site(t), nil, nil)
	binary.BigEndian.PutUint64(p.index[16:], 1<<60)
	return bytes.NewReader(p.stream(t))
}

// usage is what a child says of itself at its end.
type usage struct {
	CPU     time.Duration // user and system, of the judgement alone
	RSS     int64         // bytes, of the process at most: VmHWM, as ru_maxrss of a child begins with that of its parent
	Refused string
}

// TestBombs measures each bomb in a process of its own: below 256 MiB of memory, and a refusal costs at most two seconds of CPU (the
// bar is 100 ms, with a margin of 20 for a busy machine).
func TestBombs(t *testing.T) {
	if name := os.Getenv(bombChild); name != "" {
		detonate(t, name)
		return
	}
	if stride > 1 {
		t.Skip("the race detector's memory is not ours: make test runs it without")
	}
	for name, b := range bombs() {
		t.Run(name, func(t *testing.T) {
			u := measured(t, name, b.make(t))
			t.Logf("CPU %v, RSS %d MiB: %.120s", u.CPU.Round(100*time.Microsecond), u.RSS>>20, u.Refused)
			if (u.Refused == "") != b.pass {
				t.Errorf("refused: %q", u.Refused)
			}
			if u.RSS > 256<<20 || !b.pass && u.CPU > 2*time.Second {
				t.Errorf("%v of CPU, %d MiB of memory", u.CPU, u.RSS>>20)
			}
		})
	}
}

func measured(t *testing.T, name string, in io.Reader) (u usage) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestBombs$", "-test.count=1")
	cmd.Env = append(os.Environ(), bombChild+"="+name)
	cmd.Stdin = in
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	line, _, _ := strings.Cut(out.String(), "\n")
	if jerr := json.Unmarshal([]byte(line), &u); jerr != nil {
		t.Fatalf("the child said %q and %q: %v, %v", out.String(), errs.String(), err, jerr)
	}
	return u
}

// detonate judges standard input and prints what it cost. The pipe is left unread where the judge stopped.
func detonate(t *testing.T, name string) {
	t.Helper()
	judge := bombs()[name].judge
	before := cpu(t)
	err := judge(os.Stdin)
	u := usage{CPU: cpu(t) - before, RSS: peak(t)}
	if err != nil {
		u.Refused = err.Error()
	}
	must(t, json.NewEncoder(os.Stdout).Encode(u))
}

func peak(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	var kib int64
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscan(rest, &kib)
	must(t, err)
	return kib << 10
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// manyFiles is the stream of an envelope of n empty files and some approvals by keys of nobody beside the quorum's two.
func manyFiles(t testing.TB, n, approvals int) []byte {
	t.Helper()
	s, _ := bigSite(t)
	return bigEnvelope(t, s, n, approvals)
}

// bigSite has five officers of suite H1 who all must approve.
func bigSite(t testing.TB) (*trusttest.Site, []string) {
	t.Helper()
	names := []string{"o1", "o2", "o3", "o4", "o5"}
	var policy strings.Builder
	for _, name := range names {
		fmt.Fprintf(&policy, "officer %s key @%s\n", name, name)
	}
	fmt.Fprintf(&policy, "group security all %s\npacker @packer\nrule stream models/* quorum security\n", strings.Join(names, " "))
	return siteOf(t, policy.String()), names
}

func bigEnvelope(t testing.TB, s *trusttest.Site, n, approvals int) []byte {
	t.Helper()
	index := (&envelope.Index{}).Marshal()
	change := func(st *envelope.Statement) {
		one := st.Subjects[0]
		one.Annotations.Size = 0
		st.Subjects = make([]envelope.Subject, n)
		for i := range st.Subjects {
			st.Subjects[i] = one
			st.Subjects[i].Name = fmt.Sprintf("a/directory/of/some/depth/%06d/model-%06d.safetensors", i/100, i)
		}
		p := &st.Predicate
		p.TotalSize, p.ContentIndex = 0, envelope.ContentIndexRef{SHA256: sum(index), Size: int64(len(index)), BlockSize: envelope.BlockSize}
	}
	p := forged(t, s, change, nil, "o1", "o2", "o3", "o4", "o5")
	p.index = index
	env, err := envelope.Read(bytes.NewReader(p.stream(t)))
	must(t, err)
	for i := len(p.approvals); i < approvals; i++ {
		a := trusttest.Decision(env, fmt.Sprintf("x%02d", i), envelope.DecisionApprove)
		stranger, err := mofn.GenerateKey(mofn.SuiteH2, nil)
		must(t, err)
		v, err := s.Vote(&a, stranger, "")
		must(t, err)
		p.approvals = append(p.approvals, v)
	}
	slices.SortFunc(p.approvals, func(a, b envelope.Named) int { return strings.Compare(a.Name, b.Name) })
	return p.stream(t)
}

// BenchmarkCheck is the whole verdict on an envelope with five approvals, from its bytes: the bars are 20 ms with 1,000 files, and a
// second with 100,000.
func BenchmarkCheck(b *testing.B) {
	s, _ := bigSite(b)
	for _, n := range []int{1000, envelope.MaxFiles} {
		stream := bigEnvelope(b, s, n, 0)
		b.Run(fmt.Sprintf("files=%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				if a, err := door(s, stream, rules()); err != nil || !a.Valid() {
					b.Fatal(err)
				}
			}
		})
	}
}
