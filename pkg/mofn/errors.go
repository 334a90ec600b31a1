// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"errors"
	"fmt"
	"strings"
)

// The reasons of this package. Errors carry one of them (errors.Is) and say in words what was wrong and what to do next.
var (
	// ErrSignature: a signature does not verify, or a known key signed something it may not sign.
	ErrSignature = errors.New("mofn: signature does not verify")
	// ErrKey: a key that must not be enrolled or used (wrong length, low-order point, wrong suite).
	ErrKey = errors.New("mofn: unusable key")
	// ErrRole: a role that is not a name (trust.md sections 1 and 3).
	ErrRole = errors.New("mofn: invalid role")
	// ErrKeyFile: a key file that is not exactly of the form of trust.md section 2.
	ErrKeyFile = errors.New("mofn: invalid key file")
	// ErrPassphrase: a sealed key that does not open.
	ErrPassphrase = errors.New("mofn: the passphrase does not open this key")
	// ErrPolicy: a policy that does not load; the evidence is in one *PolicyError a mistake.
	ErrPolicy = errors.New("mofn: policy refused")
	// ErrUnknownPacker: no enrolled packer key signed the release statement.
	ErrUnknownPacker = errors.New("mofn: release statement has no signature by an enrolled packer")
	// ErrDuplicate: one officer, or one key, appears twice. It matches ErrSignature.
	ErrDuplicate error = &refusal{"mofn: one signer appears twice"}
	// ErrTooMany: more approvals or signatures than the caps allow. It matches ErrSignature.
	ErrTooMany error = &refusal{"mofn: too many signatures"}
	// ErrClaim: an approval that speaks of something else than this release, or for somebody else. It matches ErrSignature.
	ErrClaim error = &refusal{"mofn: approval does not fit this release"}
	// ErrRejected: an officer of the quorum said no.
	ErrRejected = errors.New("mofn: release rejected by an officer")
	// ErrThreshold: not enough officers; the evidence is in the *ThresholdError.
	ErrThreshold = errors.New("mofn: not enough approvals")
	// ErrTooLarge: the release is larger than its rule allows.
	ErrTooLarge = errors.New("mofn: release is larger than the policy allows")
	// ErrNoRule: no rule of the policy covers the stream.
	ErrNoRule = errors.New("mofn: no rule covers this stream")
	// ErrTrust: a trust object that is malformed or does not follow the current one.
	ErrTrust = errors.New("mofn: trust object refused")
)

// refusal is a reason why the signatures of an envelope are refused as a whole. It matches ErrSignature too, so that a
// caller who knows only that one never takes a forgery for trouble that passes.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return ErrSignature }

// PolicyError is one mistake in a policy text. It matches ErrPolicy.
type PolicyError struct {
	Line   int    // counted from 1; 0 when the mistake is in no single line
	Text   string // the line (or the key id) as it stands
	Reason string // what is wrong
	Fix    string // what to do
}

// Error gives line, text, reason and remedy in one line of words.
func (e *PolicyError) Error() string {
	where := "policy"
	if e.Line > 0 {
		where = fmt.Sprintf("policy line %d", e.Line)
	}
	return fmt.Sprintf("%s: %s; %s (in %q)", where, e.Reason, e.Fix, shorten(e.Text))
}

// Is makes errors.Is(err, ErrPolicy) true.
func (e *PolicyError) Is(target error) bool { return target == ErrPolicy }

// ThresholdError says how far the approvals of a release, or the signatures of a trust object, are from the quorum.
// It matches ErrThreshold.
type ThresholdError struct {
	Group   string   // the quorum group, or "checked=<word>" for a requirement
	Need    int      // officers (for a group of groups: groups) that are needed
	Have    int      // those that are there
	Unknown int      // signatures by keys that are not enrolled; they were not tried
	Missing []string // in words, as "1 more of security: m.lee or s.ito"
}

// Error gives the count and what is missing, in words.
func (e *ThresholdError) Error() string {
	s := fmt.Sprintf("%v: %s has %d of %d: missing %s", ErrThreshold, e.Group, e.Have, e.Need, strings.Join(e.Missing, "; "))
	if e.Unknown > 0 {
		s += fmt.Sprintf(" (%d by keys that are not enrolled were not counted)", e.Unknown)
	}
	return s
}

// Is makes errors.Is(err, ErrThreshold) true.
func (e *ThresholdError) Is(target error) bool { return target == ErrThreshold }

// shorten keeps messages to one readable line whatever the hostile input was.
func shorten(s string) string {
	const longest = 100
	if len(s) <= longest {
		return s
	}
	return s[:longest] + "..."
}
