// SPDX-License-Identifier: Apache-2.0

package ticket_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/ticket"
	"sluice/pkg/fec"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectors = "../../testdata/vectors/ticket"

// testKey is the ticket key of NAME, the same as in testdata/vectors/trust.
func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("sluice test key ticket " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(name string) ed25519.PublicKey { return testKey(name).Public().(ed25519.PublicKey) }

// sample is a ticket of a release of 400 GB, cut as by default: 1490 full spans of 190,464 symbols and a last one.
func sample() ticket.Ticket {
	return ticket.Ticket{
		Receiver: "site-a", Release: sha256.Sum256([]byte("release")), Envelope: sha256.Sum256([]byte("envelope")), Profile: 1, Groups: 992,
		Payload: 400_000_000_000, Fresh: 20, Created: time.Unix(1_795_000_000, 0).UTC(),
		Need: fec.Selection{{SBN: 17, Spans: 1, Source: []fec.Extent{{First: 91_002, Count: 82_700}}}},
	}
}

func with(change func(*ticket.Ticket)) ticket.Ticket {
	t := sample()
	change(&t)
	return t
}

// manyForms has every form of entry.
func manyForms() ticket.Ticket {
	return with(func(t *ticket.Ticket) {
		t.Need = fec.Selection{
			{SBN: 0, Spans: 1, Repair: []fec.RepairRun{{Groups: 992, Row: 20, Rows: 3}}},
			{SBN: 1, Spans: 3, Source: []fec.Extent{{Count: 190_464}}},
			{SBN: 300, Spans: 1, Source: []fec.Extent{{First: 5, Count: 1}, {First: 6, Count: 200}}, Repair: []fec.RepairRun{{Group: 3, Groups: 1, Row: 20, Rows: 44}, {Group: 991, Groups: 1, Row: 20, Rows: 1}}},
			{SBN: 1491, Spans: 1, Source: []fec.Extent{{Count: 1}}},
		}
	})
}

// longest fills the ticket to its last byte.
func longest() ticket.Ticket {
	return with(func(t *ticket.Ticket) {
		t.Receiver = strings.Repeat("a", 64)
		t.Need = nil
		for sbn := 0; len(t.Need) < 239; sbn += 2 {
			t.Need = append(t.Need, fec.Portion{SBN: sbn, Spans: 1, Repair: []fec.RepairRun{{Groups: 1, Row: 20, Rows: 1}}})
		}
		t.Need[0].Repair[0].Group, t.Need[1].Repair[0].Group, t.Need[2].Repair[0].Group, t.Need[3].Repair[0].Group = 200, 200, 200, 200
		t.Need[4].Repair[0].Group, t.Need[5].Repair[0].Group = 200, 200
	})
}

// goodVectors are texts and the tickets that they hold.
func goodVectors(t testing.TB) map[string]string {
	outage, many := signed(t, sample()), signed(t, manyForms())
	none := signed(t, with(func(t *ticket.Ticket) { t.Fresh = 64 }))
	other := sample()
	other.Receiver, other.Profile, other.Groups = "site-b", 2, 157
	other.Need = fec.Selection{{SBN: 1, Spans: 2, Repair: []fec.RepairRun{{Groups: 157, Row: 20, Rows: 2}}}}
	second, err := ticket.Sign(other, testKey("site-b"))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"good-outage":      "# rx site-a lacks 116 MB\n" + outage.Text(),
		"good-many-forms":  many.Text(),
		"good-qr":          many.QR() + "\n",
		"good-small":       "  # typed\r\n\r\n" + strings.ReplaceAll(strings.ToLower(many.Text()), "\n", "\r\n"),
		"good-no-row-left": strings.ReplaceAll(none.Text(), " ", ""),
		"good-longest":     signed(t, longest()).Text(),
		"good-bundle":      outage.Text() + "# and of the other\n" + second.QR() + "\n" + many.Text(),
	}
}

func signed(t testing.TB, tk ticket.Ticket) *ticket.Signed {
	t.Helper()
	s, err := ticket.Sign(tk, testKey("site-a"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refusal is the JSON beside a bad vector.
type refusal struct {
	Refused string `json:"refused"` // typing, format or signature
	Line    int    `json:"line,omitempty"`
	Words   string `json:"words"` // of this implementation
}

type badVector struct {
	text string
	refusal
}

// badVectors break one rule each.
func badVectors(t testing.TB) map[string]badVector {
	all := map[string]badVector{}
	for name, v := range typingVectors(t) {
		all["bad-"+name] = v
	}
	for name, v := range formatVectors(t) {
		all["bad-"+name] = v
	}
	forged, err := ticket.Sign(sample(), testKey("site-b"))
	if err != nil {
		t.Fatal(err)
	}
	all["bad-signature-other-key"] = badVector{forged.Text(), refusal{Refused: "signature", Words: "not made with the ticket key"}}
	body := signed(t, sample()).Bytes()
	undomained := append(bytes.Clone(body[:len(body)-64]), ed25519.Sign(testKey("site-a"), body[:len(body)-64])...)
	all["bad-signature-domain"] = badVector{mustParse(t, undomained).Text(), refusal{Refused: "signature", Words: "not made with the ticket key"}}
	changed := bytes.Clone(body)
	changed[27]++ // a second later
	all["bad-signature-changed"] = badVector{mustParse(t, changed).Text(), refusal{Refused: "signature", Words: "not made with the ticket key"}}
	return all
}

func mustParse(t testing.TB, b []byte) *ticket.Signed {
	t.Helper()
	s, err := ticket.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// typingVectors are what people do to a text.
func typingVectors(t testing.TB) map[string]badVector {
	text := signed(t, manyForms()).Text()
	lines := strings.SplitAfter(text, "\n")
	edit := func(line int, f func(string) string) string {
		out := append([]string(nil), lines...)
		out[line-1] = f(out[line-1])
		return strings.Join(out, "")
	}
	replace := func(at int, with string) func(string) string {
		return func(s string) string { return s[:at] + with + s[at+1:] }
	}
	other := func(s string, at int) string {
		if s[at] == 'Q' {
			return "P"
		}
		return "Q"
	}
	bad := func(line int, words, text string) badVector {
		return badVector{text, refusal{Refused: "typing", Line: line, Words: words}}
	}
	return map[string]badVector{
		"typing-letter":        bad(4, "line 4 of the ticket, does not check", edit(4, func(s string) string { return replace(7, other(s, 7))(s) })),
		"typing-check":         bad(5, "does not check", edit(5, func(s string) string { return replace(40, other(s, 40))(s) })),
		"typing-swapped":       bad(3, "does not check", edit(3, func(s string) string { return s[:12] + s[13:14] + s[12:13] + s[14:] })),
		"typing-alphabet":      bad(2, "has '0' as character 4: only letters and the digits 2 to 7 occur; is it the letter O?", edit(2, replace(3, "0"))),
		"typing-not-ascii":     bad(2, "only letters", edit(2, replace(3, "é"))),
		"typing-short":         bad(6, "has 34 characters, 35 are wanted", edit(6, replace(9, ""))),
		"typing-long":          bad(6, "has 36 characters, 35 are wanted", edit(6, replace(9, "A7"))),
		"typing-line-left-out": bad(3, "looks like line 4", edit(3, func(string) string { return "" })),
		"typing-line-twice":    bad(4, "looks like line 3", edit(3, func(s string) string { return s + s })),
		"typing-lines-swapped": bad(3, "looks like line 4", strings.Join(append(append([]string(nil), lines[0], lines[1], lines[3], lines[2]), lines[4:]...), "")),
		"typing-truncated":     bad(0, "truncated: the text ends after line 7 of the ticket, which has 11", strings.Join(lines[:7], "")),
		"typing-behind":        bad(1, "behind the end", signed(t, sample()).QR()+"AAAAA"),
		"typing-last-bits":     bad(11, "ends in a character that cannot be", edit(11, unusedBits)),
	}
}

// unusedBits sets a bit of the last character of data that stands for nothing.
func unusedBits(line string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	chars := strings.Map(func(r rune) rune {
		if strings.ContainsRune(alphabet, r) {
			return r
		}
		return -1
	}, line)
	at := len(chars) - 4
	return chars[:at] + string(alphabet[strings.IndexByte(alphabet, chars[at])|1]) + chars[at+1:] + "\n"
}

// formatVectors are tickets that a writer got wrong, in a text without a mistake, well signed.
func formatVectors(t testing.TB) map[string]badVector {
	good := signed(t, sample()).Bytes()
	head, entries := good[:93+6], good[93+6:len(good)-64]
	build := func(head, entries []byte) string {
		b := append(bytes.Clone(head), entries...)
		binary.BigEndian.PutUint16(b[6:], uint16(len(b)+64))
		return rawText(sign(b))
	}
	set := func(at int, with ...byte) string {
		b := bytes.Clone(head)
		copy(b[at:], with)
		return build(b, entries)
	}
	numbers := func(list ...uint64) string {
		var b []byte
		for _, n := range list {
			b = binary.AppendUvarint(b, n)
		}
		return build(head, b)
	}
	bad := func(text, words string) badVector { return badVector{text, refusal{Refused: "format", Words: words}} }
	long := binary.AppendUvarint(nil, 0)
	for len(long) < 2000-157-6 {
		long = append(long, 1, 0, 1, 0, 1, 1, 1) // an entry of one row
	}
	return map[string]badVector{
		"nothing":          bad("# only words\n", "there is no ticket"),
		"magic":            bad(set(0, 0x93), "does not begin with SLUICETK"),
		"version":          bad(set(5, 2), "version 2"),
		"too-long":         bad(build(head, long), "not in 157..1900"),
		"length-too-short": bad(rawText(sign(putLength(bytes.Clone(good[:len(good)-64]), 150))), "not in 157..1900"),
		"profile":          bad(set(8, 3), "profile 3"),
		"groups-zero":      bad(set(9, 0, 0), "0 groups"),
		"groups-too-many":  bad(set(9, 0x10, 1), "4097 groups"),
		"fresh-row":        bad(set(11, 65), "first fresh row 65"),
		"payload-zero":     bad(set(12, 0, 0, 0, 0, 0, 0, 0, 0), "payload of 0 bytes"),
		"payload-huge":     bad(set(12, 0, 4, 0, 0, 0, 0, 0, 1), "1125899906842625 bytes"),
		"payload-negative": bad(set(12, 0xff), "payload of -"),
		"time-zero":        bad(set(20, 0, 0, 0, 0, 0, 0, 0, 0), "time 0"),
		"time-huge":        bad(set(20, 0x7f), "out of range"),
		"release-zero":     bad(set(28, make([]byte, 32)...), "release id is zero"),
		"name-empty":       bad(set(92, 0), "entry 1"),
		"name-too-long":    bad(set(92, 200), "leaves no room"),
		"name-letters":     bad(set(93, 'S'), "is no receiver's name"),
		"no-entry":         bad(build(head, nil), "asks for nothing"),
		"entry-empty":      bad(numbers(0, 1, 0, 0), "nothing of it is named"),
		"entry-no-span":    bad(numbers(0, 0, 1, 0, 0, 1), "0 spans"),
		"entry-cut-short":  bad(numbers(0, 1, 2, 0, 0, 1), "ends in the middle"),
		"entry-many":       bad(numbers(0, 1, 4_000_000_000, 0, 0, 1), "ends in the middle"),
		"number-long-form": bad(build(head, []byte{0x80, 0, 1, 1, 0, 0, 1}), "not in its one form"),
		"number-overflow":  bad(build(head, []byte{0xff, 0xff, 0xff, 0xff, 0x7f, 1, 1, 0, 0, 1}), "not in its one form"),
		"number-too-long":  bad(build(head, []byte{0x81, 0x80, 0x80, 0x80, 0x80, 1, 1, 1, 0, 0, 1}), "not in its one form"),
		"sbn":              bad(numbers(1492, 1, 1, 0, 0, 1), "span 1492"),
		"spans":            bad(numbers(1490, 3, 1, 0, 0, 1), "3 spans"),
		"spans-unlike":     bad(numbers(1490, 2, 1, 0, 0, 1), "stands alone"),
		"esi":              bad(numbers(0, 1, 1, 0, 190_463, 2), "2 source symbols from 190463"),
		"esi-last-span":    bad(numbers(1491, 1, 1, 0, 0, 190_000), "190000 source symbols"),
		"esi-none":         bad(numbers(0, 1, 1, 0, 3, 0), "0 source symbols"),
		"group":            bad(numbers(0, 1, 0, 1, 991, 2, 1), "2 groups from 991"),
		"group-none":       bad(numbers(0, 1, 0, 1, 0, 0, 1), "0 groups"),
		"rows-none":        bad(numbers(0, 1, 0, 1, 0, 1, 0), "0 repair rows"),
		"rows":             bad(numbers(0, 1, 0, 1, 0, 1, 45), "45 repair rows from 20"),
	}
}

func putLength(b []byte, n int) []byte {
	binary.BigEndian.PutUint16(b[6:], uint16(n))
	return b
}

func sign(body []byte) []byte {
	return append(body, ed25519.Sign(testKey("site-a"), append([]byte("sluice-ticket-v1\x00"), body...))...)
}

// rawText is the text of bytes that need not be a ticket.
func rawText(b []byte) string { return ticket.Armour(b) }

// TestGoodVectors: the text is what this code writes, and is read as the JSON beside it says.
func TestGoodVectors(t *testing.T) {
	good := goodVectors(t)
	for name, text := range good {
		t.Run(name, func(t *testing.T) {
			list, err := ticket.ReadText([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			compareFile(t, name+".txt", []byte(text))
			compareFile(t, name+".json", describe(t, list))
			for _, s := range list {
				if err := s.Verify(public(s.Receiver)); s.Receiver != strings.Repeat("a", 64) && err != nil {
					t.Error(err)
				}
			}
		})
	}
	countFiles(t, "good-*.txt", len(good))
	if n := len(signed(t, longest()).Bytes()); n != ticket.MaxSize {
		t.Errorf("good-longest has %d bytes", n)
	}
}

func countFiles(t *testing.T, pattern string, want int) {
	t.Helper()
	if names, err := filepath.Glob(filepath.Join(vectors, pattern)); err != nil || len(names) != want {
		t.Errorf("%d vectors %s, want %d", len(names), pattern, want)
	}
}

func compareFile(t *testing.T, name string, want []byte) {
	t.Helper()
	path := filepath.Join(vectors, name)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what this code writes: %v", name, err)
	}
}

// asJSON is the JSON beside a good vector.
type asJSON struct {
	Receiver string    `json:"receiver"`
	Public   string    `json:"public"`
	Release  string    `json:"release"`
	Envelope string    `json:"envelope"`
	Profile  int       `json:"profile"`
	Groups   int       `json:"groups"`
	Payload  int64     `json:"payload"`
	Fresh    int       `json:"fresh"`
	Created  int64     `json:"created"`
	Entries  []entries `json:"entries"`
}

type entries struct {
	SBN    int      `json:"sbn"`
	Spans  int      `json:"spans"`
	Source [][2]int `json:"source"` // first, count
	Repair [][3]int `json:"repair"` // group, groups, rows
}

func describe(t *testing.T, list []*ticket.Signed) []byte {
	t.Helper()
	var out []asJSON
	for _, s := range list {
		name := s.Receiver
		if len(name) == 64 {
			name = "site-a" // good-longest is signed with this key
		}
		d := asJSON{
			Receiver: s.Receiver, Public: hex.EncodeToString(public(name)), Release: hex.EncodeToString(s.Release[:]), Envelope: hex.EncodeToString(s.Envelope[:]),
			Profile: s.Profile, Groups: s.Groups, Payload: s.Payload, Fresh: s.Fresh, Created: s.Created.Unix(),
		}
		for _, p := range s.Need {
			e := entries{SBN: p.SBN, Spans: p.Spans, Source: [][2]int{}, Repair: [][3]int{}}
			for _, x := range p.Source {
				e.Source = append(e.Source, [2]int{x.First, x.Count})
			}
			for _, r := range p.Repair {
				e.Repair = append(e.Repair, [3]int{r.Group, r.Groups, r.Rows})
			}
			d.Entries = append(d.Entries, e)
		}
		out = append(out, d)
	}
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func TestBadVectors(t *testing.T) {
	bad := badVectors(t)
	sentinels := map[string]error{"typing": ticket.ErrTyping, "format": ticket.ErrFormat, "signature": ticket.ErrSignature}
	for name, v := range bad {
		t.Run(name, func(t *testing.T) {
			side, err := json.Marshal(v.refusal)
			if err != nil {
				t.Fatal(err)
			}
			compareFile(t, name+".txt", []byte(v.text))
			compareFile(t, name+".json", append(side, '\n'))
			if got := judge(v.text); !errors.Is(got, sentinels[v.Refused]) || !strings.Contains(got.Error(), v.Words) {
				t.Errorf("%v; want %s, %q", got, v.Refused, v.Words)
			} else if v.Line > 0 && !strings.Contains(got.Error(), "line "+itoa(v.Line)+" of the text") {
				t.Errorf("%v; want line %d of the text", got, v.Line)
			}
		})
	}
	countFiles(t, "bad-*.txt", len(bad))
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// judge reads a text as a sender does that knows site-a and site-b.
func judge(text string) error {
	list, err := ticket.ReadText([]byte(text))
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := s.Verify(public(s.Receiver)); err != nil {
			return err
		}
	}
	return nil
}

// TestParseFrame: bytes that are too few, too many, or not as many as they say; and a ticket that would be too long is not signed.
func TestParseFrame(t *testing.T) {
	b := signed(t, sample()).Bytes()
	for words, wrong := range map[string][]byte{
		"truncated: 0 bytes":                  nil,
		"truncated: 156 bytes":                b[:156],
		"172 bytes, it says 173":              b[:len(b)-1],
		"174 bytes, it says 173":              append(bytes.Clone(b), 0),
		"1901 bytes, at most 1900":            make([]byte, ticket.MaxSize+1),
		"1000 bytes, it says 173":             append(bytes.Clone(b), make([]byte, 1000-len(b))...),
		"it does not begin with SLUICETK":     make([]byte, 157),
		"it says 150 bytes, not in 157..1900": putLength(bytes.Clone(b), 150),
	} {
		if _, err := ticket.Parse(wrong); !errors.Is(err, ticket.ErrFormat) || !strings.Contains(err.Error(), words) {
			t.Errorf("%v; want %q", err, words)
		}
	}
	long := longest()
	long.Need = append(long.Need, fec.Portion{SBN: 1000, Spans: 1, Source: []fec.Extent{{Count: 1}}})
	if _, err := ticket.Sign(long, testKey("site-a")); !errors.Is(err, ticket.ErrFormat) || !strings.Contains(err.Error(), "at most 1900") {
		t.Errorf("too long: %v", err)
	}
}

// TestRoundTrip: what was signed is what is read.
func TestRoundTrip(t *testing.T) {
	for _, want := range []ticket.Ticket{sample(), manyForms(), longest()} {
		s := signed(t, want)
		if diff := cmp.Diff(want, s.Ticket); diff != "" {
			t.Error(diff)
		}
		again, err := ticket.ReadText([]byte(s.Text()))
		if err != nil || len(again) != 1 || !bytes.Equal(again[0].Bytes(), s.Bytes()) {
			t.Errorf("%v, %v", again, err)
		}
	}
}

func runReader(t *testing.T, folder string) (string, error) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: the second reader of the ticket vectors did NOT run")
	}
	out, err := exec.CommandContext(t.Context(), python, "-B", filepath.Join(vectors, "check_ticket.py"), folder).CombinedOutput()
	return string(out), err
}

// TestSecondReader: it comes to the same verdict on every vector, in the same line.
func TestSecondReader(t *testing.T) {
	out, err := runReader(t, vectors)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(out)
}

// TestSecondReaderCanFail spoils one vector at a time: a reader that says yes to everything is worth nothing.
func TestSecondReaderCanFail(t *testing.T) {
	for _, c := range []struct{ name, file, old, new string }{
		{"a good one that is bad", "good-outage.txt", "SLUIC", "SLUID"},
		{"a bad one that is good", "bad-typing-alphabet.txt", "0", "A"},
		{"another line", "bad-typing-letter.json", `"line":4`, `"line":5`},
		{"another verdict", "bad-signature-changed.json", `signature`, `format`},
		{"a count", "good-outage.json", `82700`, `82701`},
		{"the key", "good-outage.json", `"public": "`, `"public": "00`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(vectors)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, c.file)
			b, err := os.ReadFile(path)
			if err != nil || !bytes.Contains(b, []byte(c.old)) {
				t.Fatalf("%s has no %q: %v", c.file, c.old, err)
			}
			if err := os.WriteFile(path, bytes.Replace(b, []byte(c.old), []byte(c.new), 1), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := runReader(t, dir); err == nil || !strings.Contains(out, strings.TrimSuffix(strings.TrimSuffix(c.file, ".txt"), ".json")) {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}
