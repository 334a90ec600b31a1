// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"unicode/utf8"
)

// Limits on JSON files.
const (
	maxJSONFile  = 64 << 20  // bytes: the largest tokenizer.json in use is 33 MB
	maxJSONDepth = 64        // the deepest configuration in use has about ten levels
	maxJSONKeys  = 2_000_000 // keys a file, all objects together: vocabularies reach 300,000
)

var errJSON = errors.New("checkpoint: JSON refused")

// member is one value inside a JSON document: a member of an object (Key set) or an element of an array.
type member struct {
	Path  []string   // keys from the root down to the container; "" for an array; valid during the call only
	Key   string     // "" in an array
	Value json.Token // string, json.Number, bool, nil, or the json.Delim that opens a container
}

// scanJSON reads exactly one strict JSON document: valid UTF-8, no duplicate keys, bounded depth and number of keys, nothing
// behind it but white space. It calls visit (if set) for every value but the root. It returns the root's first token.
func scanJSON(r io.Reader, visit func(member)) (root json.Token, err error) {
	var text utf8Check
	d := json.NewDecoder(io.TeeReader(r, &text))
	d.UseNumber()
	s := &jsonScan{d: d, visit: visit, seed: maphash.MakeSeed()}
	if root, err = d.Token(); err == nil {
		err = s.value(root, nil)
	}
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = fmt.Errorf("%w: data behind the document, at byte %d", errJSON, d.InputOffset())
		}
	}
	if bad := text.finish(); bad != nil {
		return root, fmt.Errorf("%w: %w", errJSON, bad)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && !errors.Is(err, errJSON) {
		err = fmt.Errorf("%w: %w", errJSON, err)
	}
	return root, err
}

type jsonScan struct {
	d     *json.Decoder
	visit func(member)
	seed  maphash.Seed
	keys  int
}

func (s *jsonScan) value(tok json.Token, path []string) error {
	switch tok {
	case json.Delim('{'):
		return s.object(path)
	case json.Delim('['):
		return s.array(path)
	}
	return nil
}

// object keeps 64-bit hashes of the keys instead of the keys: the seed is secret, so no file can make two collide.
func (s *jsonScan) object(path []string) error {
	if len(path) > maxJSONDepth {
		return fmt.Errorf("%w: more than %d levels", errJSON, maxJSONDepth)
	}
	seen := map[uint64]struct{}{}
	for {
		tok, err := s.d.Token()
		if err != nil {
			return err
		}
		key, ok := tok.(string)
		if !ok {
			return nil // the closing brace: the decoder allows nothing else here
		}
		h := maphash.String(s.seed, key)
		if _, dup := seen[h]; dup {
			return fmt.Errorf("%w: duplicate key %.80q, at byte %d", errJSON, key, s.d.InputOffset())
		}
		seen[h] = struct{}{}
		if s.keys++; s.keys > maxJSONKeys {
			return fmt.Errorf("%w: more than %d keys", errJSON, maxJSONKeys)
		}
		if tok, err = s.d.Token(); err != nil {
			return err
		}
		if err := s.enter(tok, path, key); err != nil {
			return err
		}
	}
}

func (s *jsonScan) array(path []string) error {
	if len(path) > maxJSONDepth {
		return fmt.Errorf("%w: more than %d levels", errJSON, maxJSONDepth)
	}
	for s.d.More() {
		tok, err := s.d.Token()
		if err != nil {
			return err
		}
		if err := s.enter(tok, path, ""); err != nil {
			return err
		}
	}
	_, err := s.d.Token()
	return err
}

func (s *jsonScan) enter(tok json.Token, path []string, key string) error {
	if s.visit != nil {
		s.visit(member{Path: path, Key: key, Value: tok})
	}
	if _, opens := tok.(json.Delim); !opens {
		return nil
	}
	return s.value(tok, append(path, key))
}

// utf8Check is a Writer that remembers whether everything written so far is valid UTF-8; encoding/json itself would
// replace what is not.
type utf8Check struct {
	rest [utf8.UTFMax]byte // an unfinished sequence
	n    int
	off  int64
	bad  error
}

func (u *utf8Check) Write(p []byte) (int, error) {
	n := len(p)
	if u.bad != nil {
		return n, nil //nolint:nilerr // it goes on to the end of the input: finish tells
	}
	for u.n > 0 && len(p) > 0 {
		u.rest[u.n] = p[0]
		u.n++
		p = p[1:]
		if utf8.FullRune(u.rest[:u.n]) {
			u.check(u.rest[:u.n])
			u.n = 0
		}
	}
	tail := len(p)
	for i := 1; i <= min(utf8.UTFMax-1, len(p)); i++ {
		if c := p[len(p)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(p[len(p)-i:]) {
				tail = len(p) - i
			}
			break
		}
	}
	u.check(p[:tail])
	u.n += copy(u.rest[u.n:], p[tail:])
	return n, nil
}

func (u *utf8Check) check(p []byte) {
	if u.bad == nil && !utf8.Valid(p) {
		for i := 0; i < len(p); {
			r, w := utf8.DecodeRune(p[i:])
			if r == utf8.RuneError && w <= 1 {
				u.bad = fmt.Errorf("not UTF-8 at byte %d", u.off+int64(i))
				break
			}
			i += w
		}
	}
	u.off += int64(len(p))
}

func (u *utf8Check) finish() error {
	if u.bad == nil && u.n > 0 {
		u.bad = fmt.Errorf("not UTF-8 at byte %d", u.off)
	}
	return u.bad
}
