// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/internal/dropbox"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// ErrChain says that the drop-box's chain of trust objects is not that of the object that the officer pinned.
var ErrChain = errors.New("officer: the drop-box's trust objects are refused: they do not continue the one that you pinned; call the other officers")

// Anchor is the chain of trust objects that an officer's tool goes by: the one whose fingerprint the officer pinned, and what the drop-box
// has from there on, each verified against the one before.
type Anchor struct {
	Chain []*trust.Store // version 1, 2, 3, ...
	News  []string       // how the newest differs from the one before, in words; empty: it is the pinned one
}

// Newest is the version that the tool goes by. Whether it is in effect already, or in quarantine, an officer's machine cannot know.
func (a *Anchor) Newest() *trust.Store { return a.Chain[len(a.Chain)-1] }

// Root is the fingerprint of the first version, in hexadecimal: what orders are bound to.
func (a *Anchor) Root() string { return hex.EncodeToString(a.Chain[0].Fingerprint[:]) }

// rulers are all versions as orders are judged by them.
func (a *Anchor) rulers() []mofn.Ruler {
	out := make([]mofn.Ruler, len(a.Chain))
	for i, st := range a.Chain {
		out[i] = mofn.Ruler{Version: st.Object.Version, Policy: st.Policy, Root: st.Object.Root}
	}
	return out
}

// OpenAnchor loads the pinned object and verifies the drop-box's chain against it. Errors: trust.ErrFingerprint, ErrChain, and those of
// the files.
func OpenAnchor(box dropbox.Box, file, fingerprint string) (*Anchor, error) {
	first, err := trust.Load(file, fingerprint)
	if err != nil {
		return nil, err
	}
	if first.Object.Version != 1 {
		return nil, fmt.Errorf("%w: %s is version %d; pin the first version, which was carried by hand", ErrChain, file, first.Object.Version)
	}
	data, err := box.Chain()
	if err != nil {
		return nil, err
	}
	return extend(first, data)
}

// extend verifies a chain that begins with the first version, or has nothing.
func extend(first *trust.Store, data [][]byte) (*Anchor, error) {
	a := &Anchor{Chain: []*trust.Store{first}}
	for i, b := range data {
		if i == 0 {
			st, err := trust.Parse(b)
			if err != nil {
				return nil, fmt.Errorf("%w: version 1: %w", ErrChain, err)
			}
			if st.Fingerprint != first.Fingerprint {
				return nil, fmt.Errorf("%w: its version 1 is %x, yours is %x", ErrChain, st.Fingerprint, first.Fingerprint)
			}
			continue
		}
		next, err := successor(a.Newest().Object, b)
		if err != nil {
			return nil, fmt.Errorf("%w: version %d: %w", ErrChain, i+1, err)
		}
		a.Chain = append(a.Chain, next)
	}
	if n := len(a.Chain); n > 1 {
		a.News = Compare(a.Chain[n-2].Object, a.Chain[n-1].Object)
	}
	return a, nil
}

// successor verifies the DSSE envelope of the version after current.
func successor(current *mofn.Trust, data []byte) (*trust.Store, error) {
	d, err := openTrust(data)
	if err != nil {
		return nil, err
	}
	if _, err := mofn.VerifyTrust(current, d.Payload, trust.SignaturesOf(d), envelope.PAE(d.PayloadType, d.Payload)); err != nil {
		return nil, err
	}
	return trust.Parse(data)
}

const maxTrust = 8 << 20

// openTrust unwraps a trust object; nobody's signature is looked at.
func openTrust(data []byte) (*envelope.DSSE, error) {
	d, err := envelope.ParseDSSE(data, maxTrust)
	if err != nil {
		return nil, err
	}
	if d.PayloadType != trust.PayloadType {
		return nil, fmt.Errorf("payload type %q is not %q: this is no trust object", d.PayloadType, trust.PayloadType)
	}
	return d, nil
}

// Person is who signs.
type Person struct {
	Officer, Role string
	Key           mofn.KeyID
	File          string // the name of the key file, for the page
}

// ErrNoOfficer says that the key belongs to nobody who may decide.
var ErrNoOfficer = errors.New("officer: the key belongs to no officer of the policy who may decide")

// PersonOf says whose key it is by the newest version.
func (a *Anchor) PersonOf(id mofn.KeyID, file string) (Person, error) {
	officer, group, ok := a.Newest().Policy.OfficerOf(id)
	if !ok || group == "" {
		return Person{}, fmt.Errorf("%w: key %s, by version %d of the trust object, which has %s", ErrNoOfficer, id, a.Newest().Object.Version,
			strings.Join(a.Newest().Policy.Officers(), ", "))
	}
	return Person{Officer: officer, Role: group, Key: id, File: file}, nil
}

// sortedKeys gives the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// LoadChain reads a directory of 000001.json, 000002.json, … and verifies each version against the one before. The first is believed as it
// stands: whoever calls compares its fingerprint.
func LoadChain(dir string) ([]*trust.Store, error) {
	data, err := dropbox.ReadChain(dir)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: %s holds no 000001.json", ErrChain, dir)
	}
	first, err := trust.Parse(data[0])
	if err != nil {
		return nil, fmt.Errorf("%w: version 1: %w", ErrChain, err)
	}
	a, err := extend(first, data)
	if err != nil {
		return nil, err
	}
	return a.Chain, nil
}
