// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
)

// tiny is the smallest envelope that has everything: a file of one byte, index, evidence and two approvals of suite H1, all of
// which the policy needs.
func tiny(t testing.TB) (*trusttest.Site, []byte) {
	t.Helper()
	s := siteOf(t, "officer s.ito key @s.ito\nofficer a.roy key @a.roy\nofficer m.lee key @m.lee\ngroup security 2 s.ito a.roy m.lee\npacker @packer\nrule stream a quorum security\n")
	p := trusttest.Predicate("a", 1, 5)
	env, err := s.Seal(t.Context(), map1("a", []byte("x")), p, nil)
	must(t, err)
	must(t, s.Approve(env, envelope.DecisionApprove, "a.roy", "s.ito"))
	return s, partsOf(env).stream(t)
}

// endSection is the length of the end section: its header and the digest.
const endSection = 12 + sha256.Size

// repaired sets the digest at the end right again, as everybody can: then signatures and bindings alone stand in the way.
func repaired(b []byte) []byte {
	at := len(b) - sha256.Size
	sum := sha256.Sum256(b[:at])
	copy(b[at:], sum[:])
	return b
}

// each calls fn for 0 to n-1 (each stride-th of them) on every processor, each with a copy of b of its own.
func each(b []byte, n int, fn func(own []byte, i int)) {
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			own := bytes.Clone(b)
			for i := w * stride; i < n; i += workers * stride {
				fn(own, i)
			}
		})
	}
	wg.Wait()
}

// TestEveryBit flips each bit of an envelope. As it is, the digest at the end finds every one. With that digest repaired, the
// envelope goes through the door: nothing passes there either.
func TestEveryBit(t *testing.T) {
	t.Parallel()
	s, good := tiny(t)
	accepted(t, s, "as it was sealed", bytes.Clone(good), rules())
	t.Logf("%d bytes", len(good))
	each(good, 8*len(good), func(own []byte, i int) {
		own[i/8] ^= 1 << (i % 8)
		if whole(own) == nil {
			t.Errorf("bit %d of byte %d: the stream is whole", i%8, i/8)
		}
		if i/8 < len(own)-sha256.Size {
			if a, err := door(s, repaired(own), rules()); err == nil || a.Valid() {
				t.Errorf("bit %d of byte %d, digest repaired: accepted", i%8, i/8)
			}
		}
		copy(own, good)
	})
}

// whole reads the sections and nothing in them.
func whole(b []byte) error {
	r := envelope.NewReader(bytes.NewReader(b))
	for {
		if _, err := r.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// TestEveryTruncation cuts after each byte, once as it is and once with an end section of its own: nothing passes.
func TestEveryTruncation(t *testing.T) {
	t.Parallel()
	s, good := tiny(t)
	each(good, len(good), func(own []byte, n int) {
		if a, err := door(s, own[:n], rules()); err == nil || a.Valid() {
			t.Errorf("%d of %d bytes: accepted", n, len(good))
		}
		closed := ended(slices.Clone(own[:n]))
		if n == len(good)-endSection {
			if !bytes.Equal(closed, good) {
				t.Error("cut before the end section and closed again, it is not what it was")
			}
			return
		}
		if a, err := door(s, closed, rules()); err == nil || a.Valid() {
			t.Errorf("%d of %d bytes, closed again: accepted", n, len(good))
		}
	})
}

// TestEveryByteMissing takes out, and doubles, each byte, the digest repaired.
func TestEveryByteMissing(t *testing.T) {
	t.Parallel()
	s, good := tiny(t)
	each(good, len(good)-endSection, func(own []byte, i int) {
		for name, b := range map[string][]byte{
			"missing": slices.Concat(own[:i], own[i+1:]), "doubled": slices.Concat(own[:i+1], own[i:]),
		} {
			if a, err := door(s, repaired(b), rules()); err == nil || a.Valid() {
				t.Errorf("byte %d %s: accepted", i, name)
			}
		}
	})
}

// TestKeyIDIsAHint: the only bytes that are neither signed nor needed are those of an approval that is one too many. Another key id
// there makes it unknown: it is not tried and not counted, and the release passes by the others (docs/spec/trust.md section 3).
func TestKeyIDIsAHint(t *testing.T) {
	s, good := tiny(t)
	env, err := envelope.Read(bytes.NewReader(good))
	must(t, err)
	must(t, s.Approve(env, envelope.DecisionApprove, "m.lee"))
	three := partsOf(env).stream(t)
	id := s.Keys["m.lee"].Public().ID().String()
	at := bytes.Index(three, []byte(`"keyid":"`+id)) + len(`"keyid":"`)
	passed := 0
	for i := at; i < at+len(id); i++ {
		for bit := range 8 {
			b := bytes.Clone(three)
			b[i] ^= 1 << bit
			a, err := door(s, repaired(b), rules())
			if err != nil {
				continue // no hexadecimal digit any more
			}
			passed++
			if got := strings.Join(a.Officers(), " "); got != "a.roy s.ito" {
				t.Errorf("byte %d: approved by %s", i, got)
			}
		}
	}
	if passed < len(id) {
		t.Errorf("%d other key ids were tried", passed)
	}
	// The same envelope without one of the others is short by one.
	fewer := env.Approvals[1:]
	fewer[0].Data = bytes.Replace(fewer[0].Data, []byte(id), []byte(fmt.Sprintf("%064x", 7)), 1)
	p := parts{env.Release, env.Index, env.Evidence, fewer}
	if _, err := door(s, p.stream(t), trust.Rules{}); err == nil || !strings.Contains(err.Error(), "1 of 2") || !strings.Contains(err.Error(), "1 by keys that are not enrolled") {
		t.Errorf("with one known approval: %v", err)
	}
}
