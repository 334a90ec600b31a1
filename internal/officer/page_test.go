// SPDX-License-Identifier: Apache-2.0

package officer_test

import (
	"bytes"
	"flag"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode"

	"sluice/internal/officer"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

var update = flag.Bool("update", false, "write the golden pages anew")

// fixed takes what differs from run to run out of a view.
func fixed(v *officer.View) *officer.View {
	v.Trust.Fingerprint = hexOf(0xab)
	if v.You.Officer != "" {
		v.You.Key = mofn.KeyID(bytes.Repeat([]byte{0xcd}, 32))
	}
	return v
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		must(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", path, got)
	}
}

// theChange is a release with everything that a page can show: code, a licence, texts, an approval, a requirement, a stop.
func theChange(t *testing.T) *officer.View {
	r := newRoom(t)
	old := map[string]string{
		"LICENSE": "Apache-2.0\n", "config.json": "{\n  \"layers\": 32,\n  \"rope\": 10000\n}\n", "model-00001.safetensors": "w1", "model-00002.safetensors": "w2", "notes.txt": "old\n",
	}
	before := r.release(files(old), nil, nil)
	changed := files(old)
	changed["LICENSE"] = &fstest.MapFile{Data: []byte("Other terms\n")}
	changed["config.json"] = &fstest.MapFile{Data: []byte("{\n  \"layers\": 32,\n  \"rope\": 500000\n}\n")}
	changed["modeling_x.py"] = &fstest.MapFile{Data: []byte("import os\n")}
	changed["tokenizer.json"] = &fstest.MapFile{Data: bytes.Repeat([]byte("t"), 3<<20)}
	delete(changed, "notes.txt")
	env := r.release(changed, before, func(p *envelope.Predicate) {
		p.Kind, p.Classification = envelope.KindModelWeights, "RESTRICTED"
		p.Source = envelope.Source{Type: envelope.SourceHuggingFace, Repo: "org/Model-X", Revision: "main", Commit: strings.Repeat("1f", 20)}
		p.Gate = envelope.Gate{Verdict: envelope.VerdictException, Reason: "the evaluation cluster is down"}
		p.Base = &envelope.Base{Repo: "org/Model-base", Commit: strings.Repeat("2e", 20)}
		p.Quantization = &envelope.Quantization{Method: "awq", Bits: 4, GroupSize: 128, Version: "gemm"}
	})
	r.put(env, before)
	must(t, r.decide(env, "a.roy", envelope.DecisionApprove))
	r.give("m.lee", order(mofn.ActionStop, mofn.KindStream, "models/*", "we look into the upstream account"))
	v := r.view(env, officer.LookOptions{You: r.person("s.ito"), Payload: &officer.Payload{
		Root: staging(t, changed), Previous: staging(t, files(old)), Seen: openSeen(t, t.TempDir()),
	}})
	// The order's id is random, and so is the hour of day.
	v.Orders = []string{regexp.MustCompile(`order [0-9a-f]{12}`).ReplaceAllString(v.Orders[0], "order 0123456789ab")}
	v.Policy.Requires = []mofn.RequireProgress{{Word: envelope.CheckedBytes, Need: 1, Have: 0}}
	v.Policy.Rule.Hold = 24 * time.Hour
	return fixed(v)
}

func TestGoldenPages(t *testing.T) {
	r := newRoom(t)
	first := r.release(files(map[string]string{"list.csv": "a,b\n"}), nil, nil)
	r.put(first, nil)
	for name, v := range map[string]*officer.View{"first": fixed(r.view(first, officer.LookOptions{})), "change": theChange(t)} {
		t.Run(name, func(t *testing.T) {
			page := v.Page()
			golden(t, name+".txt", []byte(page.Text()))
			b, err := page.HTML()
			must(t, err)
			golden(t, name+".html", b)
			if got := shownText(t, b); got != page.Text() {
				t.Errorf("the text that a browser gives is not the page:\n%s", got)
			}
		})
	}
}

// shownText is what the DOM gives as the text of the element "shown".
func shownText(t *testing.T, b []byte) string {
	t.Helper()
	_, rest, ok := strings.Cut(string(b), `<pre id="shown">`)
	body, _, end := strings.Cut(rest, "</pre>")
	if !ok || !end {
		t.Fatal("no element shown")
	}
	return html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, ""))
}

// TestHTMLIsSelfContained: no script, nothing fetched, and a name cannot become markup.
func TestHTMLIsSelfContained(t *testing.T) {
	r := newRoom(t)
	env := r.release(files(map[string]string{"<script>alert(1)<&script>.txt": "a"}), nil, nil)
	v := fixed(&officer.View{Env: env, Problems: []string{`<img src=x onerror=alert(1)> & "`}})
	b, err := v.Page().HTML()
	must(t, err)
	for _, bad := range []string{"<script", "<img", "http:", "https:", "url(", "@import", "<link", "<iframe"} {
		if strings.Contains(string(b), bad) {
			t.Errorf("the file holds %q", bad)
		}
	}
	if got := shownText(t, b); got != v.Page().Text() {
		t.Errorf("text and page differ:\n%s", got)
	}
}

// TestRisksAreNeverFolded: however many files there are, each that is a risk has its line, before everything that is none.
func TestRisksAreNeverFolded(t *testing.T) {
	r := newRoom(t)
	many := map[string]string{}
	const n = 5 * officer.MostFiles
	for i := range n {
		many[fmt.Sprintf("tool%04d.py", i)] = "x"
		many[fmt.Sprintf("data%04d.txt", i)] = "x"
	}
	env := r.release(files(many), nil, nil)
	r.put(env, nil)
	text := r.view(env, officer.LookOptions{}).Page().Text()
	for i := range n {
		if name := fmt.Sprintf("\n!!          + tool%04d.py ", i); !strings.Contains(text, name) {
			t.Fatalf("%s has no line of risk", name)
		}
	}
	if !strings.Contains(text, fmt.Sprintf("and %d more; the statement lists them", 2*n-officer.MostFiles)) {
		t.Error("files without risk were to be folded")
	}
	checkPage(t, text)
}

var pageLine = regexp.MustCompile(`^(!!          |RELEASE     |FROM        |CHANGE      |EVIDENCE    |BYTES       |POLICY      |HOLD        |AUDIENCE    |EXPIRES     |RELEASE ID  |WORDS       |YOU         |            )`)

// checkPage holds what must be true of every page, whatever it was made of.
func checkPage(t *testing.T, text string) {
	t.Helper()
	if !strings.HasSuffix(text, "\n") {
		t.Error("the page does not end in a newline")
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines {
		for _, c := range line {
			if !unicode.IsPrint(c) {
				t.Errorf("line %d holds %U: %q", i, c, line)
			}
		}
		if !pageLine.MatchString(line) {
			t.Errorf("line %d has no key that a page has: %q", i, line)
		}
		isRisk := strings.HasPrefix(line, officer.RiskKey)
		if isRisk && i != 2 && !strings.HasPrefix(lines[i-1], officer.RiskKey) {
			t.Errorf("line %d is a risk and does not stand first: %q", i, line)
		}
	}
	if !strings.HasPrefix(lines[0], "RELEASE") || !strings.HasPrefix(lines[1], "FROM") {
		t.Errorf("it begins with %q, %q", lines[0], lines[1])
	}
	for _, key := range []string{"\nRELEASE ID ", "\nYOU ", "\nBYTES ", "\nWORDS "} {
		if strings.Count(text, key) != 1 {
			t.Errorf("%q stands %d times", key, strings.Count(text, key))
		}
	}
}

// FuzzPage: whatever stands in a statement, in a name, in a text: nothing of it becomes a control, a direction, a heading or a fold.
func FuzzPage(f *testing.F) {
	f.Add("model", "org/repo", "a.py", "reason", "+ line", "note")
	f.Add("\x1b[2J", "\u202egnp.exe", "x\nYOU         you sign", "!!          nothing", "\u2066\x00\r", "\u2028\u2029\u0085\xff")
	f.Add("  ", "<b>", "LICENSE", "a\tb", "\n\n", "\u200b\u200f\ufeff")
	f.Fuzz(func(t *testing.T, name, repo, file, reason, line, note string) {
		st := &envelope.Statement{Subjects: []envelope.Subject{{Name: file, Annotations: envelope.Annotations{Size: 5}}, {Name: file + ".py"}}}
		st.Predicate = envelope.Predicate{
			Stream: name, Seq: 2, Prev: note, Kind: envelope.Kind(repo), Name: name, Version: note, Source: envelope.Source{Type: repo, Repo: repo, Commit: note},
			Base: &envelope.Base{Repo: repo, Commit: name}, Quantization: &envelope.Quantization{Method: name, Version: note},
			Gate: envelope.Gate{Verdict: envelope.VerdictException, Reason: reason}, Inspection: envelope.Inspection{Verdict: note},
			Audience: []string{name, repo}, Classification: note, Created: line, Expires: line,
		}
		v := &officer.View{
			Env: &envelope.Envelope{Statement: st}, Lack: reason, Rule: reason, Problems: []string{line, note}, Orders: []string{line},
			Texts:  []officer.Text{{Name: file, Lines: []string{line, reason}, More: 3, Lack: note}},
			Trust:  officer.TrustNote{Fingerprint: note, News: []string{line}},
			Policy: mofn.Progress{Rejected: []string{name}, Missing: []string{reason}},
			You:    officer.Person{Officer: name, Role: repo, File: file}, Checks: []officer.Check{{What: line}},
		}
		page := v.Page()
		checkPage(t, page.Text())
		if n := strings.Count("\n"+page.Text(), "\n"+officer.RiskKey); n < 8 {
			t.Errorf("%d lines of risk, at least 8 were given", n)
		}
		b, err := page.HTML()
		must(t, err)
		if got := shownText(t, b); got != page.Text() {
			t.Errorf("HTML and text differ:\n%q\n%q", got, page.Text())
		}
	})
}
