// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"

	"filippo.io/mldsa"
)

var seedFlag = flag.Uint64("seed", 0, "repeat the differential test with this seed (0: a new one)")

// keysOfTest and mutantsOfKey make some 10,000 verdicts a parameter set, in a few seconds.
const (
	keysOfTest   = 150
	mutantsOfKey = 64
)

// TestDifferential: our ML-DSA halves and filippo.io/mldsa (the code of Go's FIPS module) make the same keys and the same deterministic
// signatures, accept one another's hedged ones, and come to one verdict about mutants of signature, key, message and context.
func TestDifferential(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	forEachSet(t, func(t *testing.T, p parameterSet) {
		t.Logf("seed %d", seed)
		d := differ{t: t, p: p, rng: rand.New(rand.NewPCG(seed, 0))}
		for range keysOfTest {
			d.key()
			if t.Failed() {
				t.Fatalf("repeat with -seed %d", seed)
			}
		}
		t.Logf("%d verdicts, %d of them that it verifies", d.verdicts, d.accepted)
		if d.accepted < keysOfTest || d.verdicts-d.accepted < keysOfTest*mutantsOfKey/2 {
			t.Error("nearly all verdicts are the same: this compares nothing")
		}
	})
}

type differ struct {
	t                  *testing.T
	p                  parameterSet
	rng                *rand.Rand
	verdicts, accepted int
}

func (d *differ) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(d.rng.Uint32())
	}
	return b
}

// key compares one key and its signatures.
func (d *differ) key() {
	seed, message, context := d.bytes(32), d.bytes(d.rng.IntN(300)), d.bytes(d.rng.IntN(256))
	own, err := d.p.half(string(context)).Signer(seed)
	if err != nil {
		d.t.Fatal(err)
	}
	other, err := mldsa.NewPrivateKey(d.p.second, seed)
	if err != nil {
		d.t.Fatal(err)
	}
	public := own.Public()
	if !bytes.Equal(public, other.PublicKey().Bytes()) {
		d.t.Errorf("seed %x: two public keys", seed)
	}
	options := &mldsa.Options{Context: string(context)}
	plain, err := other.SignDeterministic(message, options)
	if err != nil {
		d.t.Fatal(err)
	}
	if again, err := d.p.signDeterministic(seed, message, context); err != nil || !bytes.Equal(again, plain) {
		d.t.Errorf("seed %x: two deterministic signatures, %v", seed, err)
	}
	ours, err := own.Sign(message)
	if err != nil {
		d.t.Fatal(err)
	}
	theirs, err := other.Sign(nil, message, options)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, sig := range [][]byte{plain, ours, theirs} {
		if !d.verdict(public, message, context, sig) {
			d.t.Errorf("seed %x: a signature does not verify", seed)
		}
	}
	for range mutantsOfKey {
		d.verdict(d.mutant(public, message, context, ours))
	}
}

// verdict asks both.
func (d *differ) verdict(public, message, context, sig []byte) bool {
	ours := verifies(d.p.half(string(context)), public, message, sig)
	key, err := mldsa.NewPublicKey(d.p.second, public)
	theirs := err == nil && mldsa.Verify(key, message, sig, &mldsa.Options{Context: string(context)}) == nil
	if ours != theirs {
		d.t.Errorf("ours says %v, theirs %v: key %x message %x context %x signature %x", ours, theirs, public, message, context, sig)
	}
	d.verdicts++
	if ours {
		d.accepted++
	}
	return ours
}

// mutant changes one of the four, mostly the signature, and there mostly the hints at its end, whose encoding has rules of its own.
func (d *differ) mutant(public, message, context, sig []byte) (_, _, _, _ []byte) {
	flip := func(b []byte, from int) []byte {
		b = slices.Clone(b)
		if from < len(b) {
			b[from+d.rng.IntN(len(b)-from)] ^= 1 << d.rng.IntN(8)
		}
		return b
	}
	const hints = 61 // the shorter of omega + k: 55 + 6 and 75 + 8
	switch d.rng.IntN(10) {
	case 0:
		return flip(public, 0), message, context, sig
	case 1:
		return public, flip(message, 0), context, sig
	case 2:
		return public, message, flip(context, 0), sig
	case 3:
		return public, message, context, sig[:d.rng.IntN(len(sig))]
	case 4:
		return public, message, context, append(slices.Clone(sig), d.bytes(1+d.rng.IntN(4))...)
	case 5:
		return public, message, context, flip(sig, 0)
	case 6: // two hints change places, or one counter with another: the same polynomials, in a form that is not the only one
		b := slices.Clone(sig)
		i, j := len(b)-1-d.rng.IntN(hints), len(b)-1-d.rng.IntN(hints)
		b[i], b[j] = b[j], b[i]
		return public, message, context, b
	case 7: // padding of the hints
		b := slices.Clone(sig)
		b[len(b)-9-d.rng.IntN(8)] = byte(d.rng.IntN(3))
		return public, message, context, b
	default:
		return public, message, context, flip(sig, len(sig)-hints)
	}
}

// TestDifferentialSizes: both agree about the lengths of everything.
func TestDifferentialSizes(t *testing.T) {
	forEachSet(t, func(t *testing.T, p parameterSet) {
		half := p.half("")
		if half.PublicSize != p.second.PublicKeySize() || half.MaxSignature != p.second.SignatureSize() || half.MinSignature != half.MaxSignature || half.SecretSize != mldsa.PrivateKeySize {
			t.Errorf("sizes %+v", half)
		}
		if half.Name != p.second.String() {
			t.Errorf("names %s and %s", half.Name, p.second)
		}
	})
}
