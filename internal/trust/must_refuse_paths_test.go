// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// named gives the two files of a release other names. Both are signed for, and both belong to one directory digest.
func named(first, second string) func(*envelope.Statement) {
	return func(st *envelope.Statement) { st.Subjects[0].Name, st.Subjects[1].Name = first, second }
}

// refusedPaths wants each pair of names refused, although bastion and officers signed for it.
func refusedPaths(t *testing.T, words string, pairs ...[2]string) {
	t.Helper()
	s := site(t)
	accepted(t, s, "control", forged(t, s, named("a.txt", "b/c.txt"), nil, quorum()...).stream(t), rules())
	for _, p := range pairs {
		refused(t, s, fmt.Sprintf("%q", p), forged(t, s, named(p[0], p[1]), nil, quorum()...).stream(t), rules(), envelope.ErrFormat, words)
	}
}

// second puts a bad name behind one that sorts before anything.
func second(names ...string) (pairs [][2]string) {
	for _, n := range names {
		pairs = append(pairs, [2]string{"!", n})
	}
	return pairs
}

func TestAttackPathTraversal(t *testing.T) {
	refusedPaths(t, "path", second("..", "../x", "a/../x", "a/..", "a/../../x", ".", "./x", "a/./x", "a//x", "a/", `..\x`, `a\..\..\x`, "..\u2215x/..", "a/.. /x", "a/../", "...", "x/.../y")...)
}

func TestAttackAbsolutePath(t *testing.T) {
	refusedPaths(t, "path", [][2]string{{"!", "/etc/passwd"}, {"!", "//host/share"}, {"!", "C:/x"}, {"!", "c:x"}, {"!", `\\host\share`}, {"!", `\x`}, {"!", "a:b"}, {"", "x"}}...)
}

func TestAttackCaseFoldCollision(t *testing.T) {
	refusedPaths(t, "case", [][2]string{{"A", "a"}, {"README.md", "readme.MD"}, {"STRASSE", "stra\u00dfe"}, {"\u00c4", "\u00e4"}, {"\u03a3", "\u03c2"}, {"\u13a0", "\uab70"}, {"X/a", "x/A"}}...)
	refusedPaths(t, "directory", [][2]string{{"A", "a/b"}, {"a", "a/b"}, {"strasse/x", "stra\u00dfe"}}...)
}

func TestAttackNFCCollision(t *testing.T) {
	refusedPaths(t, "Normalization Form C", [][2]string{{"e\u0301", "\u00e9"}, {"!", "e\u0301"}, {"\u00c5", "\u212b"}, {"!", "\ufb1d"}, {"!", "a\u0328\u0301"[0:1] + "\u0301\u0328"}}...)
}

func TestAttackDeviceName(t *testing.T) {
	refusedPaths(t, "device", second("CON", "con", "nul", "NUL.txt", "aux.safetensors", "prn", "COM1", "com0.x", "LPT9", "lpt1.tar.gz", "a/NUL", "a/con.d/x", "CON .txt")...)
	refusedPaths(t, "dot or a space", second("nul.", "con ", "a. /x")...)
	refusedPaths(t, "Git", second(".git/config", "a/.GIT/hooks/x", ".gitmodules", ".git")...)
}

// TestAttackSymlink: a statement cannot say that a file is a link; of links on a medium internal/receiver has its own.
func TestAttackSymlink(t *testing.T) {
	s := site(t)
	for _, c := range []struct{ name, from, to string }{
		{"an annotation", `"annotations":{"size":1}`, `"annotations":{"size":1,"target":"/etc/passwd"}`},
		{"an annotation before", `"annotations":{"size":1}`, `"annotations":{"mode":"120777","size":1}`},
		{"a field of the subject", `"annotations":{"size":1}}`, `"annotations":{"size":1},"type":"symlink"}`},
		{"a uri", `{"name":"a.txt",`, `{"name":"a.txt","uri":"file:///etc/passwd",`},
	} {
		edit := func(b []byte) []byte { return bytes.Replace(b, []byte(c.from), []byte(c.to), 1) }
		refused(t, s, c.name, forged(t, s, nil, edit, quorum()...).stream(t), rules(), envelope.ErrFormat, "want")
	}
}

func TestAttackOversize(t *testing.T) {
	s := site(t)
	limit := func(size int) []byte {
		data := []byte(strings.Repeat("x", size))
		env, err := s.Seal(t.Context(), map1("x", data), trusttest.Predicate("models/small", 1, 5), nil)
		must(t, err)
		must(t, s.Approve(env, envelope.DecisionApprove, quorum()...))
		return partsOf(env).stream(t)
	}
	accepted(t, s, "at the limit of the rule", limit(1024), rules())
	refused(t, s, "a byte more", limit(1025), rules(), mofn.ErrTooLarge, "1025 bytes")
	size := func(a, b, total int64) func(*envelope.Statement) {
		return func(st *envelope.Statement) {
			st.Subjects[0].Annotations.Size, st.Subjects[1].Annotations.Size = a, b
			st.Predicate.TotalSize = total
		}
	}
	for _, c := range []struct {
		name   string
		change func(*envelope.Statement)
		want   error
	}{
		{"a smaller sum than the files have", size(1, 2000, 1), envelope.ErrDigest},
		{"another sum", size(1, 2001, 2001), envelope.ErrDigest},
		{"2^53", size(1<<53, 1, 1), envelope.ErrFormat},
		{"a sum of 2^53", size(1<<52, 1<<52, 0), envelope.ErrFormat},
		{"a sum that overflows", size(1<<62, 1<<62, -1<<63), envelope.ErrFormat},
		{"below zero", size(-1, 2002, 2001), envelope.ErrFormat},
		{"more blocks than the index may have", size(3<<40, 1, 3<<40+1), envelope.ErrFormat},
	} {
		refused(t, s, c.name, forged(t, s, c.change, nil, quorum()...).stream(t), rules(), c.want, "")
	}
}

func TestAttackTooManyFiles(t *testing.T) {
	s := site(t)
	many := func(n int) func(*envelope.Statement) {
		return func(st *envelope.Statement) {
			one := st.Subjects[1]
			st.Subjects = make([]envelope.Subject, n)
			for i := range st.Subjects {
				st.Subjects[i] = one
				st.Subjects[i].Name = fmt.Sprintf("f%06d", i)
				st.Subjects[i].Annotations.Size = 0
			}
			p := &st.Predicate
			index := (&envelope.Index{}).Marshal()
			p.TotalSize, p.ContentIndex.Blocks, p.ContentIndex.Size, p.ContentIndex.SHA256 = 0, 0, int64(len(index)), sha256.Sum256(index)
		}
	}
	full := forged(t, s, many(envelope.MaxFiles), nil, quorum()...)
	full.index = (&envelope.Index{}).Marshal()
	accepted(t, s, "as many as may be", full.stream(t), rules())
	refused(t, s, "one more", forged(t, s, many(envelope.MaxFiles+1), nil, quorum()...).stream(t), rules(), envelope.ErrFormat, "more than 100000")
	refused(t, s, "none", forged(t, s, many(0), nil, quorum()...).stream(t), rules(), envelope.ErrFormat, "0 files")
}

// TestAttackRequiredSignaturesClaim: how many approvals are enough is never said by what is judged. An envelope that says it is
// refused for the unknown field, with one approval and with enough of them.
func TestAttackRequiredSignaturesClaim(t *testing.T) {
	s := site(t)
	refused(t, s, "one approval", forged(t, s, nil, nil, "a.roy").stream(t), rules(), mofn.ErrThreshold, "security has 1 of 2")
	for _, c := range []struct{ name, from, to string }{
		{"first in the predicate", `"predicate":{`, `"predicate":{"required_signatures":1,`},
		{"after classification", `"total_size"`, `"required_signatures":1,"total_size"`},
		{"last in the predicate", `}}`, `,"required_signatures":1}}`},
		{"in the statement", `"predicateType"`, `"required_signatures":1,"predicateType"`},
		{"as a policy", `"total_size"`, `"policy":{"quorum":"any"},"total_size"`},
		{"as a threshold of zero", `"total_size"`, `"threshold":0,"total_size"`},
	} {
		edit := func(b []byte) []byte {
			at := bytes.LastIndex(b, []byte(c.from))
			return append(append(bytes.Clone(b[:at]), c.to...), b[at+len(c.from):]...)
		}
		for _, officers := range [][]string{{"a.roy"}, quorum()} {
			refused(t, s, c.name, forged(t, s, nil, edit, officers...).stream(t), rules(), envelope.ErrFormat, "section 3")
		}
	}
	p := forged(t, s, nil, nil, "a.roy")
	p.release = bytes.Replace(p.release, []byte(`,"signatures"`), []byte(`,"required_signatures":1,"signatures"`), 1)
	refused(t, s, "in the DSSE envelope", p.stream(t), rules(), envelope.ErrFormat, "section 3")
	p = forged(t, s, nil, nil, "a.roy")
	d, err := envelope.ParseDSSE(p.approvals[0].Data, len(p.approvals[0].Data))
	must(t, err)
	claim := bytes.Replace(d.Payload, []byte(`,"note"`), []byte(`,"counts":2,"note"`), 1)
	p.approvals[0].Data = signed(t, s.Keys["a.roy"], "security", claim)
	refused(t, s, "in an approval", p.stream(t), rules(), envelope.ErrFormat, "section 3")
}
