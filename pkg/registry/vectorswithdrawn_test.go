// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

// withdrawnVectors are the overlays of the registry in which tiny 1 was given back, tiny 2 is suspended and the tool revoked.
func withdrawnVectors(t *testing.T, base tree, ids []string) []overlay {
	s := &spoiler{t: t, good: base, tiny1: newPlace("tiny", ids[0]), tool: newPlace("tool", ids[1]), tiny2: newPlace("tiny", ids[2])}
	s.withdrawalRecords(ids)
	s.withdrawnFiles()
	s.withdrawnMarks(ids)
	s.withdrawnChannels(ids)
	return s.all
}

func recordKey(name, id string) string { return "withdrawals/" + name + "/sha256-" + id + ".json" }

// lastSerial is the newest catalogue of the tree.
func (s *spoiler) lastSerial() string {
	keys := slices.Sorted(maps.Keys(s.good))
	i := slices.IndexFunc(keys, func(k string) bool { return strings.HasPrefix(k, "channels/") })
	return keys[i-1]
}

// withdrawalRecords: what can be wrong with a record.
func (s *spoiler) withdrawalRecords(ids []string) {
	given, suspended, revoked := recordKey("tiny", ids[0]), recordKey("tiny", ids[2]), recordKey("tool", ids[1])
	bad := func(key string) finding { return finding{registry.ProblemWithdrawal, key} }
	s.add("record-newline", s.edit(suspended, "}", "}\n"), bad(suspended))
	s.add("record-type", s.edit(suspended, "withdrawal-v1", "withdrawal-v2"), bad(suspended))
	s.add("record-of-another-release", []change{{"replace", suspended, s.good[given]}}, bad(suspended))
	s.add("record-without-reason", s.edit(suspended, s.field(suspended, "reason"), ""), bad(suspended))
	s.add("record-reason-of-513-bytes", s.edit(suspended, s.field(suspended, "reason"), strings.Repeat("x", 513)), bad(suspended))
	s.add("record-with-escape-sequence", s.edit(suspended, "answers", `\u001b`), bad(suspended))
	s.add("record-with-c1-control", s.edit(suspended, "answers", "\u0085"), bad(suspended))
	a, b := registrytest.Order(4), registrytest.Order(5)
	s.add("record-orders-unsorted", s.edit(suspended, a+`","`+b, b+`","`+a), bad(suspended))
	s.add("record-orders-twice", s.edit(suspended, b, a), bad(suspended))
	s.add("record-without-orders", s.edit(suspended, `"`+a+`","`+b+`"`, ""), bad(suspended))
	s.add("record-time-with-zone", s.edit(suspended, "08:00:00Z", "08:00:00+00:00"), bad(suspended))
	s.add("record-final-and-not-withdrawn", s.edit(given, `"final":false`, `"final":true`), bad(given))
	s.add("record-of-nobody", plant(recordKey("tiny", ids[1]), string(bytes.Replace(s.good[revoked], []byte(`"tool"`), []byte(`"tiny"`), 1))),
		bad(recordKey("tiny", ids[1])))
	s.add("record-missing-suspended", drop(suspended), bad(suspended))
	s.add("record-missing-revoked", drop(revoked), append(s.toolFiles(registry.ProblemMissing), bad(revoked))...)
	s.add("record-weakened", s.edit(revoked, `"final":true`, `"final":false`), append(s.toolFiles(registry.ProblemMissing), bad(revoked))...)
	s.add("record-extra", plant("withdrawals/tiny/note", "x"), finding{registry.ProblemExtra, "withdrawals/tiny/note"})
}

// toolFiles is a finding a file of the tool.
func (s *spoiler) toolFiles(kind registry.ProblemKind) (found []finding) {
	for _, name := range []string{"a.txt", "a/b.txt", "a/é.txt"} {
		found = append(found, finding{kind, s.tool.files + name})
	}
	return found
}

// withdrawnFiles: those of a revoked release are nowhere but in .withdrawn; all others are as ever.
func (s *spoiler) withdrawnFiles() {
	weights := s.tiny2.files + "weights/part-1.safetensors"
	s.add("revoked-file-is-back", plant(s.tool.files+"a.txt", "x"), finding{registry.ProblemExposed, s.tool.files})
	s.add("suspended-file-missing", drop(weights), finding{registry.ProblemMissing, weights})
	s.add("suspended-file-changed", s.edit(weights, "second", "secund"), finding{registry.ProblemDigest, weights})
	s.add("revoked-provenance-missing", drop(s.tool.prov+"release.json"), finding{registry.ProblemMissing, s.tool.prov + "release.json"})
	s.add("revoked-without-commit", drop(s.tool.commit()), finding{registry.ProblemMissing, s.tool.commit()},
		finding{registry.ProblemUncommitted, s.tool.prov})
}

// withdrawnMarks: the catalogue against the records.
func (s *spoiler) withdrawnMarks(ids []string) {
	last := s.lastSerial()
	revoked := recordKey("tool", ids[1])
	s.add("mark-that-is-none", s.edit(last, `"withdrawn":"suspended"`, `"withdrawn":"stopped"`), append(s.uncatalogued(), finding{registry.ProblemCatalog, last},
		finding{registry.ProblemChannel, tinyChannel})...)
	s.add("mark-missing", s.edit(last, `,"withdrawn":"suspended"`, ""), finding{registry.ProblemUncatalogued, recordKey("tiny", ids[2])},
		finding{registry.ProblemChannel, tinyChannel})
	s.add("mark-of-revoked-missing", s.edit(last, `,"withdrawn":"revoked"`, ""), finding{registry.ProblemCatalog, last},
		finding{registry.ProblemUncatalogued, revoked}, finding{registry.ProblemChannel, toolChannel})
	s.add("mark-of-revoked-weakened", s.edit(last, `"withdrawn":"revoked"`, `"withdrawn":"suspended"`), finding{registry.ProblemCatalog, last},
		finding{registry.ProblemUncatalogued, revoked})
	s.add("entry-changed-with-its-mark", s.edit(last, `"version":"2.0","stream":"models/tiny"`, `"version":"2.1","stream":"models/tiny"`),
		finding{registry.ProblemCatalog, last}, finding{registry.ProblemCatalog, s.tiny2.commit()})
	s.add("crash-before-mark-record-lost", append(drop(last, recordKey("tiny", ids[0])), change{"replace", tinyChannel, s.channel(ids[2], 2, 3)}),
		finding{registry.ProblemWithdrawal, recordKey("tiny", ids[0])}, finding{registry.ProblemChannel, tinyChannel})
	s.add("crash-before-mark", drop(last), finding{registry.ProblemUncatalogued, recordKey("tiny", ids[0])}, finding{registry.ProblemChannel, tinyChannel})
}

// uncatalogued is what follows from a last catalogue that cannot be read: nothing is in it.
func (s *spoiler) uncatalogued() (found []finding) {
	for _, p := range []place{s.tiny1, s.tool, s.tiny2} {
		found = append(found, finding{registry.ProblemUncatalogued, p.commit()})
	}
	return found
}

// channel is one of tiny.
func (s *spoiler) channel(id string, seq, serial int) []byte {
	return fmt.Appendf(nil, `{"type":"sluice-channel-v1","name":"tiny","release":"%s","stream":"models/tiny","epoch":0,"seq":%d,"serial":%d}`, id, seq, serial)
}

// withdrawnChannels: none points at what is withdrawn, and one that is at nothing has nothing.
func (s *spoiler) withdrawnChannels(ids []string) {
	none := func(name string) []byte {
		return fmt.Appendf(nil, `{"type":"sluice-channel-v1","name":"%s","release":"","stream":"","epoch":0,"seq":0,"serial":0}`, name)
	}
	tiny, tool := finding{registry.ProblemChannel, tinyChannel}, finding{registry.ProblemChannel, toolChannel}
	s.add("channel-at-suspended", []change{{"replace", tinyChannel, s.channel(ids[2], 2, 3)}}, tiny)
	s.add("channel-at-revoked", s.edit(toolChannel, `"release":"","stream":"","epoch":0,"seq":0,"serial":0`,
		`"release":"`+ids[1]+`","stream":"tools/tool","epoch":3,"seq":7,"serial":2`), tool)
	s.add("channel-at-nothing", []change{{"replace", tinyChannel, none("tiny")}}, tiny)
	s.add("channel-half-at-nothing", s.edit(toolChannel, `"serial":0`, `"serial":2`), tool)
	s.add("channel-missing-of-given-back", drop(tinyChannel), tiny)
}
