// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/registry"
)

// Order is the id of an order that nobody gave.
func Order(n uint64) string { return fmt.Sprintf("%x", id(n)) }

// Stop is a withdrawal by these orders that may be taken back.
func Stop(orders ...uint64) registry.Withdrawal {
	w := registry.Withdrawal{Reason: "weights under review"}
	for _, n := range orders {
		w.Orders = append(w.Orders, Order(n))
	}
	return w
}

// Revoke is one for good.
func Revoke(orders ...uint64) registry.Withdrawal {
	w := Stop(orders...)
	w.Final, w.Reason = true, "poisoned weights"
	return w
}

// Resume is what gives back.
func Resume(orders ...uint64) registry.Withdrawal {
	w := Stop(orders...)
	w.Reason = "reviewed, sound"
	return w
}

// withdraw must succeed.
func (f *fixture) withdraw(p registry.Publisher, s *Spool, w registry.Withdrawal) {
	f.Helper()
	if err := p.Withdraw(f.Context(), s.Name, s.ID, w); err != nil {
		f.Fatalf("withdraw: %v", err)
	}
}

// restore must succeed.
func (f *fixture) restore(p registry.Publisher, s *Spool, w registry.Withdrawal) {
	f.Helper()
	if err := p.Restore(f.Context(), s.Name, s.ID, s.DirectoryDigest, w); err != nil {
		f.Fatalf("restore: %v", err)
	}
}

// Withdrawn requires that no reader sees the release, that who asks is told
// why, and that it is not published again.
func Withdrawn(t testing.TB, p registry.Publisher, s *Spool, final bool) {
	t.Helper()
	if _, err := p.Get(t.Context(), s.Name, s.ID); !errors.Is(err, registry.ErrWithdrawn) {
		t.Fatalf("get of a withdrawn release: %v", err)
	}
	for _, file := range s.Files {
		if _, _, err := p.Open(t.Context(), s.Name, s.ID, file.Path); !errors.Is(err, registry.ErrWithdrawn) {
			t.Fatalf("open %s of a withdrawn release: %v", file.Path, err)
		}
	}
	list, err := p.List(t.Context())
	if err != nil || slices.ContainsFunc(list, func(e registry.Entry) bool { return e.Release == Hex(s) }) {
		t.Fatalf("list of a registry with a withdrawn release: %v, %v", list, err)
	}
	gone, err := p.ListWithdrawn(t.Context())
	i := slices.IndexFunc(gone, func(e registry.WithdrawnEntry) bool { return e.Entry.Release == Hex(s) })
	if err != nil || i < 0 {
		t.Fatalf("list of what is withdrawn: %v, %v", gone, err)
	}
	w, now, err := p.Withdrawn(t.Context(), s.Name, s.ID)
	if err != nil || !now || w.Final != final || w.Release != Hex(s) || w.Name != s.Name {
		t.Fatalf("withdrawn: %+v, %v, %v", w, now, err)
	}
	if diff := cmp.Diff(w, gone[i].Withdrawal); diff != "" {
		t.Fatalf("the list says otherwise (-record +list):\n%s", diff)
	}
}

// at requires where the channel of the name is; nil: that there is no release.
func (f *fixture) at(name string, s *Spool) {
	f.Helper()
	want := `"release":"",`
	if s != nil {
		want = `"release":"` + Hex(s) + `"`
	}
	if got := f.channel(name); !strings.Contains(got, want) {
		f.Fatalf("channel is %s, want %s", got, want)
	}
}

// unchanged requires that do writes nothing.
func (f *fixture) unchanged(what string, do func()) {
	f.Helper()
	before := f.keys()
	do()
	if diff := cmp.Diff(before, f.keys()); diff != "" {
		f.Errorf("%s wrote (-before +after):\n%s", what, diff)
	}
}

func testSuspend(t *testing.T, f *fixture) {
	p := f.open()
	first, second := f.spool("llama", 1, 1, Small()), f.spool("llama", 1, 2, Small())
	f.publish(p, first)
	f.publish(p, second)
	reader, _, err := p.Open(t.Context(), second.Name, second.ID, "weights/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	f.withdraw(p, second, Stop(7))
	for _, q := range []registry.Publisher{p, f.open()} {
		Withdrawn(t, q, second, false)
		Complete(t, q, first)
		Clean(t, q)
	}
	f.at("llama", first)
	if n, err := io.Copy(io.Discard, reader); err != nil || n != 300_000 {
		t.Errorf("a reader that had the file open got %d bytes, %v", n, err)
	}
	f.unchanged("a second withdrawal", func() { f.withdraw(f.open(), second, Stop(7)) })
	f.unchanged("publishing a withdrawn release", func() { f.refused(f.open(), second, registry.ErrWithdrawn) })
	f.withdraw(p, second, Stop(3))
	w, _, err := p.Withdrawn(t.Context(), second.Name, second.ID)
	if diff := cmp.Diff([]string{Order(3), Order(7)}, w.Orders); diff != "" || err != nil || w.Receiver != "receiver-1" {
		t.Errorf("orders (-want +got):\n%s%v", diff, err)
	}
	between := f.spool("llama", 1, 2, map[string]int64{"twin": 1})
	f.refused(p, between, registry.ErrRollback) // a place that was withdrawn stays taken
	third := f.spool("llama", 1, 3, Small())
	f.publish(p, third)
	f.at("llama", third)
	f.restore(p, second, Resume(8))
	Complete(t, p, second)
	f.at("llama", third) // what is given back obeys the same rule
	f.unchanged("a second restore", func() { f.restore(f.open(), second, Resume(8)) })
	f.unchanged("publishing it again", func() { f.publish(f.open(), second) })
	w, now, err := p.Withdrawn(t.Context(), second.Name, second.ID)
	if err != nil || now || w.Reason != "reviewed, sound" {
		t.Errorf("after the restore: %+v, %v, %v", w, now, err)
	}
	Clean(t, p)
}

func testSuspendOnly(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	f.publish(p, s)
	f.withdraw(p, s, Stop(1))
	f.at("llama", nil)
	Clean(t, p)
	f.unchanged("reconcile", func() {
		if err := f.open().Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	f.restore(p, s, Resume(2))
	f.at("llama", s)
	Complete(t, p, s)
	f.withdraw(p, s, Stop(3))
	f.at("llama", nil)
	next := f.spool("llama", 1, 2, Small())
	f.publish(p, next)
	f.at("llama", next)
	f.withdraw(p, s, Revoke(4)) // what is suspended may be revoked
	f.restored(p, s, registry.ErrFinal)
	Withdrawn(t, p, s, true)
	Clean(t, p)
}

// restored must fail with want.
func (f *fixture) restored(p registry.Publisher, s *Spool, want error) {
	f.Helper()
	if err := p.Restore(f.Context(), s.Name, s.ID, s.DirectoryDigest, Resume(99)); !errors.Is(err, want) {
		f.Fatalf("restore: got %v, want %v", err, want)
	}
}

// below lists the keys below prefix.
func (f *fixture) below(prefix string) (keys []string) {
	for key := range f.keys() {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys
}

func testRevoke(t *testing.T, f *fixture) {
	p := f.open()
	first, second := f.spool("llama", 1, 1, Small()), f.spool("llama", 1, 2, Small())
	f.publish(p, first)
	f.publish(p, second)
	files, prov := "releases/llama/sha256-"+Hex(second)+"/", "provenance/llama/sha256-"+Hex(second)+"/"
	text, records := f.read(files+"a.txt"), len(f.below(prov))
	f.withdraw(p, second, Revoke(7))
	Withdrawn(t, f.open(), second, true)
	f.at("llama", first)
	Clean(t, p)
	if left := f.below(files); len(left) > 0 {
		t.Errorf("consumers still find %v", left)
	}
	if got := f.target.Kept(t, f.name, files+"a.txt"); string(got) != string(text) {
		t.Errorf("investigators find %q, it was %q", got, text)
	}
	if n := len(f.below(prov)); n != records {
		t.Errorf("%d objects of provenance, there were %d", n, records)
	}
	f.unchanged("what comes after a revocation", func() {
		f.withdraw(f.open(), second, Revoke(7))
		f.withdraw(f.open(), second, Stop(9))
		f.restored(p, second, registry.ErrFinal)
		f.refused(p, second, registry.ErrWithdrawn)
		if err := f.open().Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	for _, mend := range []func(q registry.Publisher){ // somebody puts a file back
		func(q registry.Publisher) { f.withdraw(q, second, Revoke(7)) },
		func(q registry.Publisher) { f.refused(q, second, registry.ErrWithdrawn) },
		func(q registry.Publisher) {
			if err := q.Reconcile(t.Context()); err != nil {
				t.Error(err)
			}
		},
	} {
		f.target.Plant(t, f.name, files+"a.txt", text)
		if found := Fsck(t, p, false); len(found) != 1 || found[0].Kind != registry.ProblemExposed {
			t.Errorf("files of a revoked release are back: fsck found%s", kinds(found))
		}
		mend(f.open())
		Clean(t, p)
	}
	third := f.spool("llama", 1, 3, Small())
	f.publish(p, third)
	f.at("llama", third)
	Clean(t, p)
}

func testWithdrawInvalid(t *testing.T, f *fixture) {
	p := f.open()
	s, absent := f.spool("llama", 1, 1, Small()), f.spool("llama", 1, 2, Small())
	f.publish(p, s)
	f.unchanged("a withdrawal that is refused", func() {
		for _, name := range []string{"llama", "other", "../llama", ""} {
			err := p.Withdraw(t.Context(), name, absent.ID, Revoke(1))
			if name == "llama" && !errors.Is(err, registry.ErrNotFound) || err == nil {
				t.Errorf("withdraw %q: %v", name, err)
			}
		}
		if err := p.Restore(t.Context(), absent.Name, absent.ID, absent.DirectoryDigest, Resume(1)); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("restore of what is not there: %v", err)
		}
		if _, _, err := p.Withdrawn(t.Context(), absent.Name, absent.ID); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("withdrawn of what is not there: %v", err)
		}
		f.restore(p, s, Resume(1)) // nobody withdrew it
		for what, spoil := range map[string]func(w *registry.Withdrawal){
			"no reason":       func(w *registry.Withdrawal) { w.Reason = "" },
			"long reason":     func(w *registry.Withdrawal) { w.Reason = strings.Repeat("x", 513) },
			"escape sequence": func(w *registry.Withdrawal) { w.Reason = "\x1b[2J" },
			"no order":        func(w *registry.Withdrawal) { w.Orders = nil },
			"bad order":       func(w *registry.Withdrawal) { w.Orders = []string{"ABC"} },
			"many orders": func(w *registry.Withdrawal) {
				for n := range uint64(33) {
					w.Orders = append(w.Orders, Order(n))
				}
			},
		} {
			w := Stop(1)
			spoil(&w)
			if err := p.Withdraw(t.Context(), s.Name, s.ID, w); !errors.Is(err, registry.ErrInvalid) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	Complete(t, p, s)
	long := Stop(1)
	long.Reason = strings.Repeat("\u2028", 170) // what JSON makes longest: the record must still be readable
	for n := range uint64(31) {
		long.Orders = append(long.Orders, Order(n+2))
	}
	f.withdraw(p, s, long)
	Withdrawn(t, p, s, false)
	if err := p.Withdraw(t.Context(), s.Name, s.ID, Stop(99)); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("the 33rd order: %v", err)
	}
	Withdrawn(t, p, s, false)
}

func testRestoreDamaged(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	f.publish(p, s)
	f.withdraw(p, s, Stop(1))
	other := s.DirectoryDigest
	other[0] ^= 1
	if err := p.Restore(t.Context(), s.Name, s.ID, other, Resume(2)); !errors.Is(err, registry.ErrCorrupt) {
		t.Errorf("another statement: %v", err)
	}
	for _, damage := range damages(s)[:10] { // files, evidence and receipt
		before, there := f.keys()[damage.key]
		_, data, _ := strings.Cut(before, "\n")
		if damage.plant == nil {
			f.target.Remove(t, f.name, damage.key)
		} else {
			f.target.Plant(t, f.name, damage.key, damage.plant)
		}
		f.restored(f.open(), s, registry.ErrCorrupt)
		if _, gone, err := p.Withdrawn(t.Context(), s.Name, s.ID); err != nil || !gone {
			t.Errorf("after a restore that failed: withdrawn %v, %v", gone, err)
		}
		f.target.Remove(t, f.name, damage.key)
		if there {
			f.target.Plant(t, f.name, damage.key, []byte(data))
		}
	}
	f.restore(f.open(), s, Resume(2))
	Complete(t, p, s)
	Clean(t, p)
}

func testWithdrawStreams(t *testing.T, f *fixture) {
	p := f.open()
	old := f.spool("llama", 1, 9, Small())
	f.publish(p, old)
	var line []*Spool
	for seq := range int64(2) {
		s := f.spool("llama", 1, seq+1, map[string]int64{"x": seq})
		s.Stream = "models/new-line"
		f.publish(p, s)
		line = append(line, s)
	}
	newer := f.spool("llama", 1, 10, Small())
	for _, step := range []struct {
		do func()
		at *Spool
	}{
		{func() { f.withdraw(p, line[1], Stop(1)) }, line[0]}, // the name stays in its stream
		{func() { f.withdraw(p, line[0], Stop(2)) }, old},     // until nothing is left there
		{func() { f.restore(p, line[1], Resume(3)) }, line[1]},
		{func() { f.publish(p, newer) }, newer}, // the other stream comes last now
		{func() { f.restore(p, line[0], Resume(4)) }, newer},
		{func() { f.withdraw(p, newer, Revoke(5)) }, old},
		{func() { f.withdraw(p, old, Revoke(5)) }, line[1]},
		{func() { f.withdraw(p, line[0], Revoke(5)) }, line[1]},
		{func() { f.withdraw(p, line[1], Revoke(5)) }, nil},
	} {
		step.do()
		f.at("llama", step.at)
		Clean(t, p)
		f.unchanged("reconcile", func() {
			if err := f.open().Reconcile(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// testWithdrawRace: eight stops and revocations of one release while eight
// publishers bring the next ones.
func testWithdrawRace(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Many(20))
	f.publish(p, s)
	spools := make([]*Spool, racers)
	for i := range spools {
		spools[i] = f.spool("llama", 1, int64(i)+2, map[string]int64{"f": int64(i) + 1})
	}
	f.race(func(i int, p registry.Publisher) error {
		switch {
		case i%2 == 0:
			_, err := p.Publish(t.Context(), spools[i].Release, spools[i], nil)
			if errors.Is(err, registry.ErrRollback) {
				return nil // a higher one was faster
			}
			return err
		case i == racers/2+1:
			return p.Withdraw(t.Context(), s.Name, s.ID, Revoke(uint64(i)))
		default:
			return p.Withdraw(t.Context(), s.Name, s.ID, Stop(uint64(i)))
		}
	})
	Withdrawn(t, p, s, true)
	f.at("llama", spools[racers-2])
	Clean(t, p)
}

// testRestoreRace: stops and restores of one release; whoever comes last,
// record, catalogue and channel say the same.
func testRestoreRace(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, map[string]int64{"f": 1})
	f.publish(p, s)
	f.race(func(i int, p registry.Publisher) error {
		if i%2 == 0 {
			return p.Withdraw(t.Context(), s.Name, s.ID, Stop(uint64(i)))
		}
		err := p.Restore(t.Context(), s.Name, s.ID, s.DirectoryDigest, Resume(uint64(i)))
		if errors.Is(err, registry.ErrConflict) {
			return nil // another order came
		}
		return err
	})
	Clean(t, p)
	_, gone, err := p.Withdrawn(t.Context(), s.Name, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	if gone {
		f.at("llama", nil)
	} else {
		f.at("llama", s)
	}
}

// withdrawnDamages are findings in a registry of llama 1 (suspended), 2
// (revoked) and 3.
func withdrawnDamages(suspended, revoked, s *Spool) []damage {
	key := func(s *Spool) string { return "withdrawals/llama/sha256-" + Hex(s) + ".json" }
	record := func(s *Spool, rest string) []byte {
		return []byte(`{"type":"sluice-withdrawal-v1","name":"llama","release":"` + Hex(s) + `",` + rest +
			`"reason":"r","orders":["` + Order(1) + `"],"at":"2026-11-22T10:00:00Z","receiver":""}`)
	}
	channel := func(s *Spool) []byte {
		return fmt.Appendf(nil, `{"type":"sluice-channel-v1","name":"llama","release":"%x","stream":"models/llama","epoch":1,"seq":%d,"serial":%d}`, s.ID, s.Seq, s.Seq)
	}
	return []damage{
		{key(suspended), nil, registry.ProblemWithdrawal},
		{key(revoked), nil, registry.ProblemWithdrawal},
		{key(suspended), []byte("{}"), registry.ProblemWithdrawal},
		{key(suspended), record(revoked, `"withdrawn":true,"final":false,`), registry.ProblemWithdrawal},
		{key(suspended), record(suspended, `"withdrawn":false,"final":true,`), registry.ProblemWithdrawal},
		{key(suspended), record(suspended, `"withdrawn":false,"final":false,`), registry.ProblemUncatalogued},
		{key(revoked), record(revoked, `"withdrawn":true,"final":false,`), registry.ProblemWithdrawal},
		{key(revoked), record(revoked, `"withdrawn":false,"final":false,`), registry.ProblemWithdrawal},
		{key(s), record(s, `"withdrawn":true,"final":false,`), registry.ProblemUncatalogued},
		{key(s), record(s, `"withdrawn":true,"final":true,`), registry.ProblemExposed},
		{strings.Replace(key(s), "llama", "other", 1), []byte("{}"), registry.ProblemWithdrawal},
		{"withdrawals/note", []byte("x"), registry.ProblemExtra},
		{"withdrawals/llama/sha256-12.json", []byte("x"), registry.ProblemExtra},
		{"releases/llama/sha256-" + Hex(revoked) + "/f", []byte("x"), registry.ProblemExposed},
		{"releases/llama/sha256-" + Hex(suspended) + "/a.txt", nil, registry.ProblemMissing},
		{"provenance/llama/sha256-" + Hex(revoked) + "/release.json", nil, registry.ProblemMissing},
		{"channels/llama/latest.json", channel(suspended), registry.ProblemChannel},
		{"channels/llama/latest.json", channel(revoked), registry.ProblemChannel},
		{"channels/llama/latest.json", []byte(`{"type":"sluice-channel-v1","name":"llama","release":"","stream":"","epoch":0,"seq":0,"serial":0}`), registry.ProblemChannel},
	}
}

func testFsckWithdrawals(t *testing.T, f *fixture) {
	p := f.open()
	suspended, revoked, s := f.spool("llama", 1, 1, Small()), f.spool("llama", 1, 2, Small()), f.spool("llama", 1, 3, Small())
	for _, s := range []*Spool{suspended, revoked, s} {
		f.publish(p, s)
	}
	f.withdraw(p, suspended, Stop(1))
	f.withdraw(p, revoked, Revoke(2))
	Clean(t, p)
	for _, damage := range withdrawnDamages(suspended, revoked, s) {
		before, there := f.keys()[damage.key]
		_, data, _ := strings.Cut(before, "\n")
		if damage.plant == nil {
			f.target.Remove(t, f.name, damage.key)
		} else {
			f.target.Plant(t, f.name, damage.key, damage.plant)
		}
		found := Fsck(t, f.open(), true)
		if !slices.ContainsFunc(found, func(p registry.Problem) bool { return p.Kind == damage.want }) {
			t.Errorf("%s %s %q: fsck found%s", damage.want, damage.key, damage.plant, kinds(found))
		}
		if damage.want == registry.ProblemWithdrawal && !strings.Contains(damage.key, "other") && !strings.Contains(damage.key, Hex(s)) {
			f.stays(damage, suspended, revoked)
		}
		f.target.Remove(t, f.name, damage.key)
		if there {
			f.target.Plant(t, f.name, damage.key, []byte(data))
		}
		Clean(t, f.open())
	}
}

// stays requires that what somebody did to a record gives no release back:
// neither to who lists, nor by a reconciliation.
func (f *fixture) stays(d damage, suspended, revoked *Spool) {
	f.Helper()
	p := f.open()
	if err := p.Reconcile(f.Context()); err != nil {
		f.Errorf("reconcile with %s %q: %v", d.key, d.plant, err)
	}
	list, err := p.List(f.Context())
	if err != nil || slices.ContainsFunc(list, func(e registry.Entry) bool { return e.Release == Hex(suspended) || e.Release == Hex(revoked) }) {
		f.Errorf("%s %q gives a release back: %v, %v", d.key, d.plant, list, err)
	}
	for _, s := range []*Spool{suspended, revoked} {
		if _, err := p.Publish(f.Context(), s.Release, s, nil); err == nil {
			f.Errorf("%s %q: published again", d.key, d.plant)
		}
	}
}

// testReconcileWithdrawal is a crash after the record, and one after the mark.
func testReconcileWithdrawal(t *testing.T, f *fixture) {
	p := f.open()
	first, second := f.spool("llama", 1, 1, Small()), f.spool("llama", 1, 2, Small())
	f.publish(p, first)
	f.publish(p, second)
	channel, mark := f.read("channels/llama/latest.json"), "catalog/serial-000000000003.json"
	f.withdraw(p, second, Revoke(1))
	file := "releases/llama/sha256-" + Hex(second) + "/a.txt"
	for _, lost := range []bool{true, false} {
		f.target.Plant(t, f.name, "channels/llama/latest.json", channel)
		f.target.Plant(t, f.name, file, []byte("hello world"))
		if lost {
			f.target.Remove(t, f.name, mark)
		}
		q := f.open()
		if _, err := q.Get(t.Context(), second.Name, second.ID); !errors.Is(err, registry.ErrWithdrawn) {
			t.Errorf("before the reconciliation: %v", err)
		}
		if list, err := q.List(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("before the reconciliation: list %v, %v", list, err)
		}
		f.restored(q, second, registry.ErrFinal) // also while the catalogue does not know
		if err := q.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		Withdrawn(t, q, second, true)
		f.at("llama", first)
		Clean(t, q)
	}
}
