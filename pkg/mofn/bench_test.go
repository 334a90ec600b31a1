// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"testing"

	"sluice/pkg/mofn"
)

// BenchmarkSign includes the check of the new signature.
func BenchmarkSign(b *testing.B) {
	for _, s := range signing() {
		b.Run(string(s.suite), func(b *testing.B) {
			k := newKeyOf(b, s.suite, "alice")
			message := make([]byte, 700) // an approval
			for b.Loop() {
				if _, err := k.Sign("security", message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, s := range signing() {
		b.Run(string(s.suite), func(b *testing.B) {
			k := newKeyOf(b, s.suite, "alice")
			message := make([]byte, 700)
			sig := sign(b, k, "security", message)
			for b.Loop() {
				if err := k.Public().Verify("security", message, sig); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParsePublicKey is what a trust object costs a key.
func BenchmarkParsePublicKey(b *testing.B) {
	for _, s := range signing() {
		b.Run(string(s.suite), func(b *testing.B) {
			raw := newKeyOf(b, s.suite, "alice").Public().Bytes()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := mofn.ParsePublicKey(s.suite, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPolicyVerify is a release with five approvals.
func BenchmarkPolicyVerify(b *testing.B) {
	s := newScenario(b)
	s.vote("carol", "security", nil)
	s.vote("erin", "quality", nil)
	p := mustPolicy(b, s.policy, s.keys)
	for b.Loop() {
		if _, err := p.Verify(s.rel, s.packer.message, s.packer.sigs, s.votes, openJSON); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParsePolicy(b *testing.B) {
	s := bareScenario(b, newRing(b))
	for b.Loop() {
		if _, err := mofn.ParsePolicy(s.policy, s.keys); err != nil {
			b.Fatal(err)
		}
	}
}
