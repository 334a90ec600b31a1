// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Types of our own JSON objects (registry-layout.md).
const (
	typeReceipt = "sluice-receipt-v1"
	typeCommit  = "sluice-commit-v1"
	typeCatalog = "sluice-catalog-v1"
	typeChannel = "sluice-channel-v1"

	typeWithdrawal = "sluice-withdrawal-v1"
)

// Caps on what is read back into memory.
const (
	maxSmallJSON = 4 << 10   // COMMIT and channels are a few hundred bytes, a withdrawal at most 3,700
	maxReceipt   = 192 << 20 // 100,000 files with paths of 1,024 bytes and version ids
	maxCatalog   = 64 << 20  // some 150,000 releases
)

// commit is the object COMMIT.
type commit struct {
	Type            string `json:"type"`
	Release         string `json:"release"`
	Receipt         string `json:"receipt"` // SHA-256 of receipt.json
	DirectoryDigest string `json:"directory_digest"`
	Files           int64  `json:"files"`
	Bytes           int64  `json:"bytes"`
}

// catalog is one serial of the catalogue.
type catalog struct {
	Type    string  `json:"type"`
	Serial  int64   `json:"serial"`
	Prev    string  `json:"prev"` // SHA-256 of serial-1, "" for the first
	Entries []Entry `json:"entries"`
}

// channel is the object channels/<name>/latest.json.
type channel struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Release string `json:"release"`
	Stream  string `json:"stream"`
	Epoch   int64  `json:"epoch"`
	Seq     int64  `json:"seq"`
	Serial  int64  `json:"serial"` // catalogue serial that introduced the release
}

// encode gives the one JSON form of v: struct order, no white space, no HTML
// escapes, no trailing newline (envelope.md section 3).
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decode accepts data only in that one form: what decodes must encode to the
// same bytes. So unknown keys, duplicates and trailing data are refused; and
// text in another normalization form, which two readers could take for two.
func decode(data []byte, v any) error {
	if !norm.NFC.IsNormal(data) {
		return fmt.Errorf("%w: not in Unicode Normalization Form C", ErrCorrupt)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	again, err := encode(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if !bytes.Equal(again, data) {
		return fmt.Errorf("%w: not in canonical form", ErrCorrupt)
	}
	return nil
}

// corruptf is an ErrCorrupt with its reason.
func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

func parseCommit(data []byte) (*commit, error) {
	var c commit
	if err := decode(data, &c); err != nil {
		return nil, err
	}
	switch {
	case c.Type != typeCommit:
		return nil, corruptf("type %q, want %q", c.Type, typeCommit)
	case !isHex(c.Release) || !isHex(c.Receipt) || !isHex(c.DirectoryDigest):
		return nil, corruptf("a digest is not 64 lower-case hex digits")
	case c.Files < 1 || c.Files > maxFiles || c.Bytes < 0 || c.Bytes > maxInteger:
		return nil, corruptf("%d files of %d bytes", c.Files, c.Bytes)
	}
	return &c, nil
}

func parseChannel(data []byte) (*channel, error) {
	var c channel
	if err := decode(data, &c); err != nil {
		return nil, err
	}
	switch {
	case c.Type != typeChannel:
		return nil, corruptf("type %q, want %q", c.Type, typeChannel)
	case !validName(c.Name):
		return nil, corruptf("bad name %q", c.Name)
	case c == channel{Type: c.Type, Name: c.Name}:
		return &c, nil // every release of the name is withdrawn
	case !validStream(c.Stream) || !isHex(c.Release):
		return nil, corruptf("bad stream or release")
	case c.Epoch < 0 || c.Seq < 1 || c.Serial < 1 || max(c.Epoch, c.Seq, c.Serial) > maxInteger:
		return nil, corruptf("epoch %d, seq %d, serial %d", c.Epoch, c.Seq, c.Serial)
	}
	return &c, nil
}

func parseReceipt(data []byte) (*Receipt, error) {
	var r Receipt
	if err := decode(data, &r); err != nil {
		return nil, err
	}
	entry := r.entry()
	switch {
	case r.Type != typeReceipt:
		return nil, corruptf("type %q, want %q", r.Type, typeReceipt)
	case len(r.Files) == 0 || len(r.Files) > maxFiles:
		return nil, corruptf("%d files", len(r.Files))
	case len(r.Provenance) < 2 || len(r.Provenance) > maxEvidence+3: // and envelope, statement, model signature
		return nil, corruptf("%d provenance objects", len(r.Provenance))
	}
	if err := entry.check(); err != nil {
		return nil, err
	}
	if _, err := time.Parse(time.RFC3339, r.Started); err != nil {
		return nil, corruptf("started %q: %v", r.Started, err)
	}
	if err := checkList("file", r.Files); err != nil {
		return nil, err
	}
	return &r, checkList("provenance", r.Provenance)
}

// checkList refuses a list that is unsorted, or has bad paths or digests.
func checkList(what string, list []ReceiptFile) error {
	var total int64
	for i, f := range list {
		if err := validPath(f.Path); err != nil {
			return corruptf("%s %d: %v", what, i, err)
		}
		if i > 0 && list[i-1].Path >= f.Path {
			return corruptf("%s %d: %q is not after %q", what, i, f.Path, list[i-1].Path)
		}
		if !isHex(f.SHA256) || f.Size < 0 || f.Size > maxInteger-total {
			return corruptf("%s %d (%q): bad digest or size", what, i, f.Path)
		}
		total += f.Size
	}
	return nil
}

func parseCatalog(data []byte, serial int64) (*catalog, error) {
	var c catalog
	if err := decode(data, &c); err != nil {
		return nil, err
	}
	switch {
	case c.Type != typeCatalog:
		return nil, corruptf("type %q, want %q", c.Type, typeCatalog)
	case c.Serial != serial:
		return nil, corruptf("serial %d inside, %d in its name", c.Serial, serial)
	case c.Entries == nil:
		return nil, corruptf("no list of entries")
	case serial == 1 && c.Prev != "" || serial > 1 && !isHex(c.Prev):
		return nil, corruptf("prev %q at serial %d", c.Prev, serial)
	}
	for i, e := range c.Entries {
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		if i > 0 && compareEntries(c.Entries[i-1], e) >= 0 {
			return nil, corruptf("entry %d is not after entry %d", i, i-1)
		}
	}
	return &c, nil
}

// check refuses an entry that no release can have made.
func (e Entry) check() error {
	switch {
	case !validName(e.Name) || !validStream(e.Stream) || !printable(e.Version) || !validName(e.Kind):
		return corruptf("bad name %q, stream %q, version %q or kind %q", e.Name, e.Stream, e.Version, e.Kind)
	case !isHex(e.Release):
		return corruptf("release %q is not 64 lower-case hex digits", e.Release)
	case e.Epoch < 0 || e.Epoch > maxInteger || e.Seq < 1 || e.Seq > maxInteger:
		return corruptf("epoch %d, seq %d out of range", e.Epoch, e.Seq)
	}
	if e.Withdrawn != "" && e.Withdrawn != markSuspended && e.Withdrawn != markRevoked {
		return corruptf("withdrawn %q, want %q, %q or nothing", e.Withdrawn, markSuspended, markRevoked)
	}
	if _, err := time.Parse(time.RFC3339, e.Published); err != nil {
		return corruptf("time %q: %v", e.Published, err)
	}
	return nil
}

func parseWithdrawal(data []byte) (*Withdrawal, error) {
	var w Withdrawal
	if err := decode(data, &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, corruptf("%v", err)
	}
	return &w, nil
}

// check refuses a record that breaks the layout, from a caller or from the medium.
func (w *Withdrawal) check() error {
	at, err := time.Parse(time.RFC3339, w.At)
	switch {
	case w.Type != typeWithdrawal:
		return fmt.Errorf("type %q, want %q", w.Type, typeWithdrawal)
	case !validName(w.Name) || !isHex(w.Release):
		return fmt.Errorf("bad name %q or release %q", w.Name, w.Release)
	case w.Final && !w.Withdrawn:
		return errors.New("final and not withdrawn")
	case w.Reason == "" || len(w.Reason) > maxReason || !utf8.ValidString(w.Reason) || strings.ContainsFunc(w.Reason, unicode.IsControl):
		return fmt.Errorf("the reason has %d bytes, want 1..%d of UTF-8 without control characters", len(w.Reason), maxReason)
	case len(w.Orders) == 0 || len(w.Orders) > maxOrders:
		return fmt.Errorf("%d orders, want 1..%d", len(w.Orders), maxOrders)
	case w.Receiver != "" && !printable(w.Receiver):
		return fmt.Errorf("receiver %q is not at most %d printable ASCII characters", w.Receiver, maxName)
	case err != nil || at.UTC().Format(time.RFC3339) != w.At:
		return fmt.Errorf("time %q is not RFC 3339 in UTC", w.At)
	}
	for i, order := range w.Orders {
		if !isHex(order) || i > 0 && w.Orders[i-1] >= order {
			return fmt.Errorf("order %d is not 64 lower-case hex digits after the one before", i)
		}
	}
	return nil
}

// mark is what the catalogue says of a release with this record.
func (w *Withdrawal) mark() string {
	switch {
	case w.Final:
		return markRevoked
	case w.Withdrawn:
		return markSuspended
	}
	return ""
}

// compareEntries is the order of the catalogue: name, stream, epoch, seq, and
// the id, so that two releases that claim one place still have one order.
func compareEntries(a, b Entry) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Stream, b.Stream),
		cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Release, b.Release))
}

// entry is the catalogue line of what the receipt describes.
func (r *Receipt) entry() Entry {
	return Entry{
		Name: r.Name, Version: r.Version, Stream: r.Stream, Epoch: r.Epoch, Seq: r.Seq,
		Release: r.Release, Kind: r.Kind, Published: r.Finished,
	}
}

// files gives the receipt's list in the form that DirectoryDigest takes, and
// the sum of the sizes.
func (r *Receipt) files() (files []File, total int64, err error) {
	files = make([]File, len(r.Files))
	for i, f := range r.Files {
		sum, err := parseSum(f.SHA256)
		if err != nil {
			return nil, 0, err
		}
		files[i] = File{Path: f.Path, Size: f.Size, SHA256: sum}
		total += f.Size
	}
	return files, total, nil
}

// find returns the entry of path in a sorted list.
func find(list []ReceiptFile, path string) (ReceiptFile, bool) {
	i, ok := slices.BinarySearchFunc(list, path, func(f ReceiptFile, p string) int { return cmp.Compare(f.Path, p) })
	if !ok {
		return ReceiptFile{}, false
	}
	return list[i], true
}

// parseSum decodes 64 hex digits.
func parseSum(s string) (sum [32]byte, err error) {
	if !isHex(s) {
		return sum, corruptf("%q is not 64 lower-case hex digits", s)
	}
	_, err = hex.Decode(sum[:], []byte(s))
	return sum, err
}
