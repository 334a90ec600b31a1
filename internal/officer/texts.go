// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"bytes"
	"crypto/sha256"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"

	"sluice/internal/dropbox"
	"sluice/pkg/envelope"
)

const (
	// maxText is the largest text whose difference is shown, in bytes.
	maxText = 64 << 10
	// mostLines is how many lines of the difference of one text are shown, and mostTexts how many texts: one page stays one.
	mostLines = 60
	mostTexts = 12
)

// Text is how a small text changed, line by line.
type Text struct {
	Name  string
	Lines []string // of a unified difference, without its two heads
	More  int      // lines that are not shown
	Lack  string   // why there is none; ""
}

func (t Text) write(w *pageWriter) {
	w.more("text of %s:", t.Name)
	if t.Lack != "" {
		w.more("  | %s", t.Lack)
	}
	for _, line := range t.Lines {
		w.more("  | %s", line)
	}
	if t.More > 0 {
		w.more("  | and %d more lines", t.More)
	}
}

// texts compares the small texts that changed, and shows code that is new, as far as both are reachable: the new one in the staging, the old one in the predecessor's
// staging or as it was kept when this machine read it. Both are held against the statements' digests. It runs after Verify, and keeps the
// new ones.
func (p *Payload) texts(env, prev *envelope.Envelope) (out []Text) {
	old := map[string]envelope.Subject{}
	if prev != nil {
		for _, s := range prev.Statement.Subjects {
			old[s.Name] = s
		}
	}
	for _, s := range env.Statement.Subjects {
		text, ok := readText(p.Root, s)
		if !ok {
			continue
		}
		p.Seen.keepText(s.Digest.SHA256, text)
		was, known := old[s.Name]
		if known && was.Digest == s.Digest || !known && danger(s.Name) == "" || len(out) == mostTexts {
			continue
		}
		if !known { // code that was not there before is shown like a change
			out = append(out, compareTexts(s.Name, nil, text))
			continue
		}
		before, ok := p.before(was)
		if !ok {
			out = append(out, Text{Name: s.Name, Lack: "the text of before is not reachable here (--previous-payload)"})
			continue
		}
		out = append(out, compareTexts(s.Name, before, text))
	}
	return out
}

func (p *Payload) before(was envelope.Subject) ([]byte, bool) {
	if text, ok := p.Seen.text(was.Digest.SHA256); ok {
		return text, true
	}
	if p.Previous == nil {
		return nil, false
	}
	return readText(p.Previous, was)
}

// readText reads a file that is small, is text, and is the one that the statement names.
func readText(root *os.Root, s envelope.Subject) ([]byte, bool) {
	if s.Annotations.Size > maxText {
		return nil, false
	}
	b, err := dropbox.ReadFile(root, s.Name, maxText)
	if err != nil || envelope.Digest(sha256.Sum256(b)) != s.Digest.SHA256 {
		return nil, false
	}
	return b, utf8.Valid(b) && !bytes.ContainsRune(b, 0)
}

func compareTexts(name string, before, after []byte) Text {
	t := Text{Name: name}
	lines := strings.Split(strings.TrimSuffix(string(diff.Diff("a", before, "b", after)), "\n"), "\n")
	const heads = 3 // diff a b, --- a, +++ b
	if len(lines) <= heads {
		return t
	}
	for _, line := range lines[heads:] {
		if len(t.Lines) == mostLines {
			t.More++
			continue
		}
		t.Lines = append(t.Lines, cut(strings.ReplaceAll(line, "\t", "    ")))
	}
	return t
}

// cut keeps a line of a minified text from filling the page.
func cut(line string) string {
	const most = 200
	if r := []rune(line); len(r) > most {
		return string(r[:most]) + "…"
	}
	return line
}
