// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// The attacks that verify must refuse, each in a test of its name, each with the nearest thing that must pass beside it. They
// come through the public door: envelope.Read, then Store.Check.

func sealed(t testing.TB, s *trusttest.Site, p envelope.Predicate, officers ...string) []byte {
	t.Helper()
	env, err := s.Seal(t.Context(), files(), p, nil)
	must(t, err)
	must(t, s.Approve(env, envelope.DecisionApprove, officers...))
	return partsOf(env).stream(t)
}

func quorum() []string { return []string{"a.roy", "s.ito"} }

func TestAttackRollback(t *testing.T) {
	s := site(t, mofn.Epoch{Stream: "models/floor", MinEpoch: 1, MinSeq: 6})
	env := sealed(t, s, trusttest.Predicate("models/llm", 1, 5), quorum()...)
	for _, c := range []struct {
		name       string
		epoch, seq int64
		pass       bool
	}{
		{"the next one", 1, 4, true},
		{"the first of a new epoch", 0, 99, true},
		{"a replay", 1, 5, false},
		{"an older seq", 1, 6, false},
		{"an older epoch with a higher seq", 2, 1, false},
		{"an older epoch and seq", 3, 9, false},
	} {
		r := rules()
		r.Mark = marked(c.epoch, c.seq)
		if c.pass {
			accepted(t, s, c.name, env, r)
			continue
		}
		refused(t, s, c.name, env, r, trust.ErrRollback, "stands at")
	}
	below := sealed(t, s, trusttest.Predicate("models/floor", 1, 5), quorum()...)
	at := sealed(t, s, trusttest.Predicate("models/floor", 1, 6), quorum()...)
	refused(t, s, "below the floor", below, rules(), trust.ErrRollback, "asks for at least")
	accepted(t, s, "at the floor", at, rules())
	fresh := trust.Rules{Mark: func(string) (int64, int64, bool, error) { return 0, 0, false, nil }}
	refused(t, s, "below the floor, to a receiver that knows nothing", below, fresh, trust.ErrRollback, "asks for at least")
}

func TestAttackFastForward(t *testing.T) {
	const jump = 1 << 20
	s := site(t, mofn.Epoch{Stream: "models/floor", MinEpoch: 7, MinSeq: 3 * jump})
	none := func(string) (int64, int64, bool, error) { return 0, 0, false, nil }
	for _, c := range []struct {
		name       string
		stream     string
		mark       func(string) (int64, int64, bool, error)
		epoch, seq int64
		pass       bool
	}{
		{"seq: as far as allowed", "models/llm", marked(1, 4), 1, 4 + jump, true},
		{"seq: one more", "models/llm", marked(1, 4), 1, 4 + jump + 1, false},
		{"seq: the last number", "models/llm", marked(1, 4), 1, 1<<53 - 1, false},
		{"epoch: as far as allowed", "models/llm", marked(1, 4), 1 + jump, 1, true},
		{"epoch: one more", "models/llm", marked(1, 4), 1 + jump + 1, 1, false},
		{"epoch: the last number", "models/llm", marked(1, 4), 1<<53 - 1, 1, false},
		{"a new epoch does not allow any seq", "models/llm", marked(1, 4), 2, 4 + jump + 1, false},
		{"a new epoch may begin at 1 again", "models/llm", marked(1, 1<<50), 2, 1, true},
		{"the first of a stream", "models/llm", none, 0, jump, true},
		{"the first of a stream, one more", "models/llm", none, 0, jump + 1, false},
		{"the way out: the floor raises the mark", "models/floor", none, 7, 4 * jump, true},
		{"the way out: also above an old mark", "models/floor", marked(1, 1<<50), 7, 3 * jump, true},
		{"the way out: the floor counts where the mark is low", "models/floor", marked(1, 4), 7, 4 * jump, true},
		{"above the floor, one more", "models/floor", none, 7, 4*jump + 1, false},
		{"the higher of mark and floor counts", "models/floor", marked(7, 4*jump), 7, 5 * jump, true},
		{"the higher of mark and floor counts, one more", "models/floor", marked(7, 4*jump), 7, 5*jump + 1, false},
	} {
		env := sealed(t, s, trusttest.Predicate(c.stream, c.epoch, c.seq), quorum()...)
		r := rules()
		r.Mark = c.mark
		if c.pass {
			accepted(t, s, c.name, env, r)
			continue
		}
		refused(t, s, c.name, env, r, trust.ErrFastForward, "raise the floor")
	}
}

// counted is endless: it repeats its tail for ever, and knows how much of it was taken.
type counted struct {
	head io.Reader
	tail []byte
	n    int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.head.Read(p)
	if err == io.EOF {
		n = copy(p, bytes.Repeat(c.tail, len(p)/len(c.tail)+1))
	}
	c.n += int64(n)
	return n, nil
}

func header(typ byte, name string, size uint64) []byte {
	b := binary.BigEndian.AppendUint16([]byte{typ, 0}, uint16(len(name)))
	return append(binary.BigEndian.AppendUint64(b, size), name...)
}

// TestAttackEndlessData: the reader ends by itself, and as soon as what it knows says that more is too much.
func TestAttackEndlessData(t *testing.T) {
	const magic = "SLUICE\x01\n"
	s := site(t)
	good := sealed(t, s, trusttest.Predicate("models/llm", 1, 5), quorum()...)
	accepted(t, s, "as it was sealed", good, rules())
	release := binary.BigEndian.Uint64(good[8+4:])
	untilIndex := good[:8+12+release]
	vote := append(header(4, "a", 4), "{}{}"...)
	for _, c := range []struct {
		name string
		head []byte
		tail string
		most int64 // bytes taken
	}{
		{"zeros", nil, "\x00", 8},
		{"magic for ever", nil, magic, 20},
		{"a release over the cap", slices.Concat([]byte(magic), header(1, "", 44<<20+1)), "x", 20},
		{"a release of 2^64 - 1 bytes", slices.Concat([]byte(magic), header(1, "", 1<<64-1)), "x", 20},
		{"a release that says nothing, up to the cap", slices.Concat([]byte(magic), header(1, "", 44<<20)), "x", 20 + 44<<20},
		{"an index larger than the statement says", slices.Concat(untilIndex, header(2, "", 64<<20)), "x", int64(len(untilIndex)) + 12},
		{"evidence that the statement does not list", slices.Concat(untilIndex, good[len(untilIndex):][:12+24+64], header(3, "z", 32<<20)), "x", int64(len(good))},
		{"approvals for ever", slices.Concat(good[:len(good)-44]), string(vote), int64(len(good)) + 64<<10},
		{"something behind the end", good, "x", int64(len(good)) + 1},
	} {
		in := &counted{head: bytes.NewReader(c.head), tail: []byte(c.tail)}
		_, err := envelope.Read(in)
		if err == nil || in.n > c.most {
			t.Errorf("%s: error %v after %d bytes, at most %d may be taken", c.name, err, in.n, c.most)
		}
	}
}

func TestAttackWrongAudience(t *testing.T) {
	s, p := site(t), trusttest.Predicate("models/llm", 1, 5)
	p.Audience = []string{"enclave", "enclave-", "enclave-a.", "enclave-a2", "enclave-b"}
	refused(t, s, "for others with like names", sealed(t, s, p, quorum()...), rules(), trust.ErrAudience, "enclave-a2")
	p.Audience = []string{"enclave-a", "enclave-b"}
	accepted(t, s, "for us among others", sealed(t, s, p, quorum()...), rules())
	for _, list := range [][]string{nil, {}, {""}, {"*"}, {"enclave-b", "enclave-a"}, {"enclave-a", "enclave-a"}, {"ENCLAVE-A"}} {
		change := func(st *envelope.Statement) { st.Predicate.Audience = list }
		refused(t, s, fmt.Sprintf("audience %q", list), forged(t, s, change, nil, quorum()...).stream(t), rules(), envelope.ErrFormat, "")
	}
}

func TestAttackExpired(t *testing.T) {
	s := site(t)
	env := sealed(t, s, trusttest.Predicate("models/llm", 1, 5), quorum()...)
	end := trusttest.Sealed().AddDate(1, 0, 0)
	for name, c := range map[string]struct {
		now  time.Time
		pass bool
	}{
		"the last second":      {end, true},
		"the second after":     {end.Add(time.Second), false},
		"a nanosecond after":   {end.Add(1), false},
		"in another time zone": {end.Add(time.Second).In(time.FixedZone("far", -12*3600)), false},
		"a century later":      {end.AddDate(100, 0, 0), false},
	} {
		r := rules()
		r.Now = c.now
		if c.pass {
			accepted(t, s, name, env, r)
			continue
		}
		refused(t, s, name, env, r, trust.ErrExpired, "seal it anew")
	}
	for _, end := range []string{"", "never", "2026-03-01T12:00:00Z", "2026-02-01T12:00:00Z", "2027-03-01T12:00:00+00:00", "2027-03-01T12:00:00.5Z", "2027-02-29T12:00:00Z", "99999-03-01T12:00:00Z"} {
		change := func(st *envelope.Statement) { st.Predicate.Expires = end }
		refused(t, s, fmt.Sprintf("expires %q", end), forged(t, s, change, nil, quorum()...).stream(t), rules(), envelope.ErrFormat, "expires")
	}
}

func TestAttackUnknownKind(t *testing.T) {
	s := site(t)
	accepted(t, s, "control", forged(t, s, nil, nil, quorum()...).stream(t), rules())
	for _, kind := range []envelope.Kind{"", "firmware", "Dataset", "dataset ", "dataset\x00", "trust", "model-weights,dataset"} {
		change := func(st *envelope.Statement) { st.Predicate.Kind = kind }
		refused(t, s, fmt.Sprintf("kind %q", kind), forged(t, s, change, nil, quorum()...).stream(t), rules(), envelope.ErrFormat, "kind")
	}
	for _, c := range []struct{ name, from, to string }{
		{"a later statement", "https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v2"},
		{"a later predicate", "urn:sluice:release:v1", "urn:sluice:release:v2"},
		{"a predicate of others", "urn:sluice:release:v1", "https://slsa.dev/provenance/v1"},
		{"an approval as a release", "urn:sluice:release:v1", "urn:sluice:approval:v1"},
	} {
		edit := func(b []byte) []byte { return bytes.Replace(b, []byte(c.from), []byte(c.to), 1) }
		refused(t, s, c.name, forged(t, s, nil, edit, quorum()...).stream(t), rules(), envelope.ErrVersion, "")
	}
	later := sealed(t, s, trusttest.Predicate("models/llm", 1, 5), quorum()...)
	later[6] = 2
	refused(t, s, "a later stream", later, rules(), envelope.ErrVersion, "")
}

func TestAttackTruncated(t *testing.T) {
	s := site(t)
	p := forged(t, s, nil, nil, quorum()...)
	good := p.stream(t)
	accepted(t, s, "whole", good, rules())
	for _, n := range []int{0, 1, 7, 8, 19, 20, 21, len(good) / 2, len(good) - 45, len(good) - 44, len(good) - 33, len(good) - 1} {
		refused(t, s, fmt.Sprintf("%d of %d bytes", n, len(good)), good[:n], rules(), envelope.ErrFormat, "missing")
	}
	p.approvals = p.approvals[:1] // cut between sections, and closed again: complete in form
	refused(t, s, "an approval cut off", p.stream(t), rules(), mofn.ErrThreshold, "1 of 2")
	p.evidence = nil
	refused(t, s, "evidence cut off", p.stream(t), rules(), envelope.ErrFormat, "is missing")
	p = forged(t, s, nil, nil, quorum()...)
	p.index = p.index[:len(p.index)-32]
	refused(t, s, "a block cut off", p.stream(t), rules(), envelope.ErrFormat, "bytes")
}

func TestAttackDuplicateApprovals(t *testing.T) {
	s := site(t)
	again := func(officer, name string) func(*parts) {
		return func(p *parts) {
			env, err := envelope.Read(bytes.NewReader(p.stream(t)))
			must(t, err)
			a := trusttest.Decision(env, officer, envelope.DecisionApprove)
			v, err := s.Vote(&a, s.Keys[officer], name)
			must(t, err)
			p.approvals = append(p.approvals, v)
			slices.SortFunc(p.approvals, func(a, b envelope.Named) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(*parts)
		want  error
	}{
		{"under the name of a colleague", again("a.roy", "security.m.lee.json"), envelope.ErrFormat},
		{"under a name of nobody", again("a.roy", "security.a.roy2.json"), envelope.ErrFormat},
		{"the same bytes under another name", func(p *parts) {
			p.approvals = append(p.approvals, envelope.Named{Name: "security.m.lee.json", Data: p.approvals[0].Data})
		}, envelope.ErrFormat},
		{"one signature twice in one approval", func(p *parts) { p.approvals[0].Data = twice(t, p.approvals[0].Data) }, envelope.ErrFormat},
		{"a second signature in one approval", func(p *parts) { p.approvals[0].Data = twoSigners(t, s, p.approvals[0].Data) }, envelope.ErrFormat},
	} {
		p := forged(t, s, nil, nil, "a.roy")
		c.spoil(&p)
		refused(t, s, c.name, p.stream(t), rules(), c.want, "")
	}
	// One section name twice is no stream at all: the writer refuses it, so the bytes are put together here.
	p := forged(t, s, nil, nil, "a.roy")
	one := slices.Concat(header(4, p.approvals[0].Name, uint64(len(p.approvals[0].Data))), p.approvals[0].Data)
	raw := p.stream(t)
	raw = slices.Concat(raw[:len(raw)-44], one)
	refused(t, s, "one section twice", ended(raw), rules(), envelope.ErrFormat, "strictly increasing")
}

// twice repeats the signature of an approval: DSSE.Marshal refuses, so the text is edited.
func twice(t *testing.T, data []byte) []byte {
	t.Helper()
	at := bytes.Index(data, []byte(`{"keyid"`))
	if at < 0 {
		t.Fatal("no signature")
	}
	sig := data[at : len(data)-2]
	return slices.Concat(data[:len(data)-2], []byte(","), sig, []byte("]}"))
}

// twoSigners is one approval that two officers signed, as a DSSE envelope may be elsewhere.
func twoSigners(t *testing.T, s *trusttest.Site, data []byte) []byte {
	t.Helper()
	d, err := envelope.ParseDSSE(data, len(data))
	must(t, err)
	sig, err := s.Keys["m.lee"].Sign("security", envelope.PAE(d.PayloadType, d.Payload))
	must(t, err)
	d.Signatures = append(d.Signatures, envelope.Signature{KeyID: s.Keys["m.lee"].Public().ID().String(), Sig: sig})
	b, err := d.Marshal()
	must(t, err)
	return b
}

// twoKeys has an officer with a spare key.
const twoKeys = `officer s.ito key @s.ito key @s.ito2
officer a.roy key @a.roy
group security 2 s.ito a.roy
packer @packer
rule stream models/* quorum security
`

func TestAttackOnePersonTwoKeys(t *testing.T) {
	s := siteOf(t, twoKeys)
	byKeys := func(votes ...string) []byte {
		p := forged(t, s, nil, nil)
		env, err := envelope.Read(bytes.NewReader(p.stream(t)))
		must(t, err)
		for _, v := range votes {
			officer, key, _ := strings.Cut(v, " with ")
			a := trusttest.Decision(env, officer, envelope.DecisionApprove)
			data := signed(t, s.Keys[key], "security", marshalled(t, a))
			p.approvals = append(p.approvals, envelope.Named{Name: a.SectionName(), Data: data})
		}
		return p.stream(t)
	}
	accepted(t, s, "two people", byKeys("a.roy with a.roy", "s.ito with s.ito"), rules())
	accepted(t, s, "the spare key is as good", byKeys("a.roy with a.roy", "s.ito with s.ito2"), rules())
	refused(t, s, "the spare key as a.roy", byKeys("a.roy with s.ito2", "s.ito with s.ito"), rules(), mofn.ErrClaim, "the key belongs to s.ito")
	// Past the reader, which takes one section a name: the judge does not lean on it.
	env, err := envelope.Read(bytes.NewReader(byKeys("s.ito with s.ito")))
	must(t, err)
	a := trusttest.Decision(env, "s.ito", envelope.DecisionApprove)
	env.Approvals = append(env.Approvals, envelope.Named{Name: a.SectionName(), Data: signed(t, s.Keys["s.ito2"], "security", marshalled(t, a))})
	if got, err := s.Store.Check(env, rules()); !errors.Is(err, mofn.ErrDuplicate) || got.Valid() {
		t.Errorf("both keys of one person: %v", err)
	}
}

func marshalled(t *testing.T, a envelope.Approval) []byte {
	t.Helper()
	b, err := a.Marshal()
	must(t, err)
	return b
}

func TestAttackStrippedHalf(t *testing.T) {
	s := site(t)
	for _, c := range []struct {
		name  string
		strip func(sig []byte, split int) []byte
	}{
		{"the post-quantum half alone", func(sig []byte, split int) []byte { return sig[:split] }},
		{"the classical half alone", func(sig []byte, split int) []byte { return sig[split:] }},
		{"the classical half zeroed", func(sig []byte, split int) []byte { clear(sig[split:]); return sig }},
		{"the post-quantum half zeroed", func(sig []byte, split int) []byte { clear(sig[:split]); return sig }},
		{"the post-quantum half twice", func(sig []byte, split int) []byte { return append(sig[:split:split], sig[:split]...) }},
		{"the halves exchanged", func(sig []byte, split int) []byte { return append(sig[split:len(sig):len(sig)], sig[:split]...) }},
		{"a byte more", func(sig []byte, _ int) []byte { return append(sig, 0) }},
		{"a byte less", func(sig []byte, _ int) []byte { return sig[:len(sig)-1] }},
	} {
		strip := func(b []byte, split int) []byte {
			d, err := envelope.ParseDSSE(b, len(b))
			must(t, err)
			d.Signatures[0].Sig = c.strip(bytes.Clone(d.Signatures[0].Sig), split)
			out, err := d.Marshal()
			must(t, err)
			return out
		}
		const h1, h2 = 3309, 4627 // bytes of the ML-DSA half
		p := forged(t, s, nil, nil, quorum()...)
		p.release = strip(p.release, h1)
		refused(t, s, "packer: "+c.name, p.stream(t), rules(), mofn.ErrSignature, "packer")
		for i, split := range []int{h1, h2} { // s.ito has a key of suite H2
			p = forged(t, s, nil, nil, quorum()...)
			p.approvals[i].Data = strip(p.approvals[i].Data, split)
			refused(t, s, quorum()[i]+": "+c.name, p.stream(t), rules(), mofn.ErrSignature, quorum()[i])
		}
	}
}

func TestAttackRoleConfusion(t *testing.T) {
	s := site(t)
	inRole := func(officer, claim, role, key string) []byte {
		p := forged(t, s, nil, nil, "a.roy")
		env, err := envelope.Read(bytes.NewReader(p.stream(t)))
		must(t, err)
		a := trusttest.Decision(env, officer, envelope.DecisionApprove)
		a.Role = claim
		signer := s.Packer
		if key != "packer" {
			signer = s.Keys[key]
		}
		p.approvals = append(p.approvals, envelope.Named{Name: a.SectionName(), Data: signed(t, signer, role, marshalled(t, a))})
		slices.SortFunc(p.approvals, func(a, b envelope.Named) int { return strings.Compare(a.Name, b.Name) })
		return p.stream(t)
	}
	accepted(t, s, "control", inRole("s.ito", "security", "security", "s.ito"), rules())
	refused(t, s, "quality signs as security", inRole("q.tan", "security", "security", "q.tan"), rules(), mofn.ErrSignature, "role quality")
	refused(t, s, "quality claims security", inRole("q.tan", "security", "quality", "q.tan"), rules(), mofn.ErrClaim, "q.tan acts as quality")
	refused(t, s, "security claims quality", inRole("s.ito", "quality", "security", "s.ito"), rules(), mofn.ErrClaim, "s.ito acts as security")
	refused(t, s, "signed as for a trust object", inRole("s.ito", "security", mofn.RoleRoot, "s.ito"), rules(), mofn.ErrSignature, "")
	refused(t, s, "signed as for a release statement", inRole("s.ito", "security", mofn.RolePacker, "s.ito"), rules(), mofn.ErrSignature, "")
	refused(t, s, "signed as for a checkpoint", inRole("s.ito", "security", "log", "s.ito"), rules(), mofn.ErrSignature, "")
	refused(t, s, "the packer approves", inRole("s.ito", "security", "security", "packer"), rules(), mofn.ErrSignature, "may not approve")
	p := forged(t, s, nil, nil, quorum()...)
	d, err := envelope.ParseDSSE(p.release, len(p.release))
	must(t, err)
	p.release = signed(t, s.Keys["s.ito"], mofn.RolePacker, d.Payload)
	refused(t, s, "an officer packs", p.stream(t), rules(), mofn.ErrSignature, "only packers sign")
	p.release = signed(t, s.Packer, "security", d.Payload)
	refused(t, s, "the packer packs in an officer's role", p.stream(t), rules(), mofn.ErrSignature, "packer")
}

func TestAttackApprovalForAnotherDigest(t *testing.T) {
	s := site(t)
	other := forged(t, s, func(st *envelope.Statement) { st.Predicate.Version = "v1.5-other" }, nil, quorum()...)
	p := forged(t, s, nil, nil, quorum()...)
	p.approvals[1] = other.approvals[1]
	refused(t, s, "moved from a release of the same stream, epoch and seq", p.stream(t), rules(), envelope.ErrDigest, "it names release")
	p.approvals = other.approvals
	refused(t, s, "all of them moved", p.stream(t), rules(), envelope.ErrDigest, "it names release")
	// The officer's word with our id written into it.
	d, err := envelope.ParseDSSE(other.approvals[0].Data, len(other.approvals[0].Data))
	must(t, err)
	from, err := envelope.Read(bytes.NewReader(other.stream(t)))
	must(t, err)
	p = forged(t, s, nil, nil, quorum()...)
	to, err := envelope.Read(bytes.NewReader(p.stream(t)))
	must(t, err)
	d.Payload = bytes.Replace(d.Payload, []byte(from.ID.String()), []byte(to.ID.String()), 1)
	p.approvals[0].Data, err = d.Marshal()
	must(t, err)
	refused(t, s, "the digest exchanged under the signature", p.stream(t), rules(), mofn.ErrSignature, "officer a.roy")
	// And past the reader: the judge does not lean on it.
	env, err := envelope.Read(bytes.NewReader(forged(t, s, nil, nil, "s.ito").stream(t)))
	must(t, err)
	env.Approvals = append([]envelope.Named{other.approvals[0]}, env.Approvals...)
	if a, err := s.Store.Check(env, rules()); !errors.Is(err, mofn.ErrClaim) || a.Valid() {
		t.Errorf("past the reader: %v", err)
	}
}
