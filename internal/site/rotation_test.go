// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/bulletin"
	"sluice/pkg/mofn"
)

// The cases of theupdateframework/tuf-conformance (MIT), tuf_conformance/test_updater_key_rotations.py, under their names there. A key
// there is a person with one key here, a root there the group that signs the trust object. No code of it was used.

// rootVersion is a root there: keys by number, how many of them sign, and who signed this version.
type rootVersion struct {
	keys      []int
	threshold int
	sigs      []int
}

type rootRotation struct {
	name     string
	versions []rootVersion
	fails    bool // the last one is refused
}

// rootRotations are root_rotation_cases, all 15.
func rootRotations() []rootRotation {
	five, swapped, others := []int{0, 1, 2, 3, 4}, []int{0, 1, 3, 4, 5}, []int{5, 6, 7, 8, 9}
	three := []int{1, 2, 3}
	v := func(keys []int, threshold int, sigs ...int) rootVersion { return rootVersion{keys, threshold, sigs} }
	one, two := []int{1}, []int{2}
	return []rootRotation{
		{"1-of-1-key-rotation", []rootVersion{v(one, 1, 1), v(two, 1, 2, 1), v(two, 1, 2)}, false},
		{"1-of-1-key-rotation-unused-signatures", []rootVersion{v(one, 1, 3, 1, 4), v(two, 1, 3, 2, 1, 4), v(two, 1, 3, 2, 4)}, false},
		{"3-of-5-sign-with-different-keycombos", []rootVersion{v(five, 3, 0, 2, 4), v(five, 3, 0, 4, 1), v(five, 3, 0, 1, 3), v(five, 3, 0, 1, 3)}, false},
		{"3-of-5-one-key-rotated", []rootVersion{v(five, 3, 0, 2, 4), v(swapped, 3, 0, 4, 1)}, false},
		{"3-of-5-one-key-rotated-with-intermediate-step", []rootVersion{v(five, 3, 0, 2, 4), v(swapped, 3, 0, 2, 4, 5), v(swapped, 3, 0, 4, 5)}, false},
		{"3-of-5-all-keys-rotated-with-intermediate-step", []rootVersion{v(five, 3, 0, 2, 4), v(others, 3, 0, 2, 4, 5, 6, 7), v(others, 3, 5, 6, 7)}, false},
		{"1-of-3-threshold-increase-to-2-of-3", []rootVersion{v(three, 1, 1), v(three, 2, 1, 2)}, false},
		{"2-of-3-threshold-decrease-to-1-of-3", []rootVersion{v(three, 2, 1, 2), v(three, 1, 1, 2), v(three, 1, 1)}, false},
		{"1-of-2-threshold-increase-to-2-of-2", []rootVersion{v(one, 1, 1), v([]int{1, 2}, 2, 1, 2)}, false},
		{"1-of-1-key-rotation-fail-not-signed-with-old-key", []rootVersion{v(one, 1, 1), v(two, 1, 2, 3, 4)}, true},
		{"1-of-1-key-rotation-fail-not-signed-with-new-key", []rootVersion{v(one, 1, 1), v(two, 1, 1, 3, 4)}, true},
		{"3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys", []rootVersion{v(five, 3, 0, 2, 4), v(swapped, 3, 0, 2, 4)}, true},
		{"3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys", []rootVersion{v(five, 3, 0, 2, 4), v(swapped, 3, 0, 4, 5)}, true},
		{"1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached", []rootVersion{v(three, 1, 1), v(three, 2, 2)}, true},
		{"2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-eached", []rootVersion{v(three, 2, 1, 2), v(three, 1, 1)}, true}, // sic
	}
}

// setRoot gives a trust object the root of a version.
func (l *lab) setRoot(o *mofn.Trust, v rootVersion) {
	var text, members strings.Builder
	for _, k := range v.keys {
		fmt.Fprintf(&text, "officer o%d key @o%d\n", k, k)
		fmt.Fprintf(&members, " o%d", k)
	}
	fmt.Fprintf(&text, "group owners %d%s\npacker @packer\nrule stream models/* quorum owners\n", v.threshold, members.String())
	l.SetPolicy(o, text.String())
	o.Root = "owners"
}

func signers(keys []int) []string {
	names := []string{}
	for _, k := range keys {
		names = append(names, fmt.Sprintf("o%d", k))
	}
	return names
}

// TestTUFRootRotation: the versions come in one bulletin, as there in one refresh, and the newest one on the disk is the last that
// verified.
func TestTUFRootRotation(t *testing.T) {
	all := rootRotations()
	if len(all) != 15 {
		t.Fatalf("%d cases", len(all))
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, nil)
			l.quick()
			l = newLab(t, func(o *mofn.Trust) { l.setRoot(o, c.versions[0]) })
			chain := [][]byte{l.first}
			for _, v := range c.versions[1:] {
				chain = append(chain, l.Next(chain[len(chain)-1], func(o *mofn.Trust) { l.setRoot(o, v) }, signers(v.sigs)...))
			}
			got := l.take(l.Bulletin(1, chain, nil))
			want := len(chain)
			if c.fails {
				want--
			}
			if len(got.Trust) != want-1 || c.fails != (len(got.Problems) > 0) {
				t.Errorf("%d versions were taken, want %d; %v", len(got.Trust), want-1, got.Problems)
			}
			for range 2 {
				have := l.chain()
				if len(have) != want || !bytes.Equal(have[want-1], chain[want-1]) {
					t.Errorf("%d versions here, want %d", len(have), want)
				}
				l.reopen()
			}
			files, err := os.ReadDir(filepath.Join(l.dir, "chain"))
			if err != nil || len(files) != want-1 {
				t.Errorf("%d files, %v", len(files), err)
			}
		})
	}
}

// snapshotRotation is one of non_root_rotation_cases: keys of a role there, who signed, and what a client of TUF does.
type snapshotRotation struct {
	name      string
	keys      []int
	threshold int
	sigs      []int
	tuf       bool
}

// snapshotRotations are all 10. The roles timestamp, snapshot and targets there are one here: heartbeat keys, any one of which speaks
// alone. So a threshold above 1 has no counterpart (a snapshot MUST have exactly one signature; what needs several people is a trust
// object or an order), nor have "unused signatures". What is left of each case is: whose signature is good.
func snapshotRotations() []snapshotRotation {
	five, swapped := []int{0, 1, 2, 3, 4}, []int{0, 1, 3, 4, 5}
	return []snapshotRotation{
		{"1-of-1-key-rotation", []int{2}, 1, []int{2}, true},
		{"1-of-1-key-rotation-unused-signatures", []int{1}, 1, []int{3, 1, 4}, true},
		{"1-of-1-key-rotation-fail-not-signed-with-new-key", []int{2}, 1, []int{1, 3, 4}, false},
		{"3-of-5-one-key-signature-wrong-not-signed-with-3-expected-keys", swapped, 3, []int{0, 2, 4}, false},
		{"2-of-5-one-key-signature-mising-threshold-not-reached", swapped, 3, []int{0, 4}, false}, // sic
		{"3-of-5-sign-first-combo", five, 3, []int{0, 2, 4}, true},
		{"3-of-5-sign-second-combo", five, 3, []int{0, 4, 1}, true},
		{"3-of-5-sign-third-combo", five, 3, []int{0, 1, 3}, true},
		{"3-of-5-sign-fourth-combo", five, 3, []int{1, 2, 3}, true},
		{"3-of-5-sign-fifth-combo", five, 3, []int{2, 3, 4}, true},
	}
}

// TestTUFNonRootRotations: the keys of a case are the heartbeat keys of version 2, which is in effect. All signatures together are
// refused, unless there is one alone; each alone is taken exactly when its key is one of them.
func TestTUFNonRootRotations(t *testing.T) {
	all := snapshotRotations()
	if len(all) != 10 {
		t.Fatalf("%d cases", len(all))
	}
	names := func(keys []int) (out []string) {
		for _, k := range keys {
			out = append(out, fmt.Sprintf("online-%d", k)) // keys of one generation
		}
		return out
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, nil)
			l.quick()
			chain := [][]byte{l.first, l.Next(l.first, func(o *mofn.Trust) { o.Heartbeats = l.Enrol(names(c.keys)...) })}
			l.add(chain[1])
			l.later(4 * day)
			_, err := l.site.Tick(l.now)
			must(t, err)
			say := func(counter int64, keys ...string) bool {
				before := l.site.Snapshot()
				got := l.take(&bulletin.Bulletin{Snapshot: l.Snapshot(l.Says(counter, chain, nil), keys...), Trust: chain})
				l.reopen()
				now := l.site.Snapshot()
				if taken := got.Snapshot != nil; taken != (now != nil && now.Counter == counter) || !taken && (before == nil) != (now == nil) {
					t.Errorf("%v: what is on the disk is not what was taken", keys)
				}
				return got.Snapshot != nil
			}
			if got, want := say(1, names(c.sigs)...), c.tuf && len(c.sigs) == 1; got != want {
				t.Errorf("signed by %v: taken %t", c.sigs, got)
			}
			good := 0
			for i, k := range c.sigs {
				want := slices.Contains(c.keys, k)
				if want {
					good++
				}
				if got := say(int64(i+2), names([]int{k})...); got != want {
					t.Errorf("signed by %d alone: taken %t", k, got)
				}
			}
			if c.tuf != (good >= c.threshold) {
				t.Errorf("%d good signatures of %d: the case was copied wrongly", good, c.threshold)
			}
		})
	}
}

// The rest of the suite, by name:
//
//	test_keys.py     test_duplicate_keys_root: TestTUFDuplicateKeys. test_snapshot_threshold, test_root_has_keys_but_not_snapshot: a
//	                 role of several keys has no counterpart here; for the root, TestAddTrust. test_wrong_hashing_algorithm: there is no
//	                 such field; unknown fields are refused (pkg/mofn).
//	test_rollback.py test_new_timestamp_version_rollback, test_simple_snapshot_rollback: "an older one" and "the same again" of
//	                 TestAttackRollback. test_snapshot_rollback, test_targets_rollback (each also "with hashes"): "a newer one without
//	                 version 2" and "without orders"; snapshots name by digest only. test_new_{timestamp,snapshot,targets}_fast_forward_recovery:
//	                 TestAttackFastForward. test_new_snapshot_version_mismatch: TestAttackMixAndMatch; there are no two files to disagree.

// TestTUFDuplicateKeys (test_duplicate_keys_root): one key under many names counts once, for it cannot be enrolled twice.
func TestTUFDuplicateKeys(t *testing.T) {
	l := newLab(t, nil)
	o := l.Object(nil)
	key := l.Enrol("o1")[0]
	o.Keys = append(o.Keys, key, key)
	if _, err := o.Marshal(); err == nil {
		t.Error("one key twice in keys")
	}
	o = l.Object(nil)
	o.Policy = strings.Replace(o.Policy, l.ID("bob"), l.ID("alice"), 1)
	if _, err := o.Marshal(); err == nil {
		t.Error("one key of two officers")
	}
	o = l.Object(nil)
	o.Heartbeats = append(o.Heartbeats, o.Heartbeats[0])
	if _, err := o.Marshal(); err == nil {
		t.Error("one heartbeat key twice")
	}
}
