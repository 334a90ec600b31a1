// SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/durable"
	"sluice/internal/spool"
	"sluice/pkg/fec"
)

// TestKill: dropped without Close in one boot, the object loses what was staged and nothing else.
func TestKill(t *testing.T) {
	w := newWorld(t, 0, 1000, 16, 1000*192*16*2+5)
	kept := w.lose(append(w.source, w.rows(0, 10)...), 0.05)
	o := w.open()
	for cut, at := 0, 0; at < len(kept); cut++ {
		n := min(len(kept)-at, 1+w.random.IntN(3000))
		w.put(o, kept[at:at+n]...)
		at += n
		before := o.Progress()
		if err := o.Abandon(); err != nil {
			t.Fatal(err)
		}
		o = w.open()
		after := o.Progress()
		if after.Have < before.Have || after.Repair != before.Repair {
			t.Fatalf("kill %d: %+v before, %+v after: a bit was lost", cut, before, after)
		}
		w.put(o, kept[max(0, at-spool.Staged*spool.WindowBytes/1000):at]...) // the windows: the only thing that has to come again
	}
	w.flush(o)
	if !o.Complete() { // 5 % lost of 10 rows, too
		w.put(o, w.rows(10, 20)...)
		w.flush(o)
	}
	w.wait(o)
	w.check()
}

// TestPowerCut: in another boot only the recorded spans count, all of them, and of the others nothing is believed.
func TestPowerCut(t *testing.T) {
	w := newWorld(t, 0, 100, 8, 100*192*8*4)
	w.opt.BootID = "first boot"
	o := w.open()
	perSpan := 192 * 8
	w.put(o, w.source[:perSpan]...)
	w.put(o, w.source[2*perSpan:3*perSpan]...)
	w.put(o, w.source[perSpan:perSpan+700]...)
	w.put(o, w.repair[0]...)
	w.flush(o)
	o.WaitRecorded(2)
	if err := o.Abandon(); err != nil {
		t.Fatal(err)
	}
	spoil(t, w, 100*perSpan, 100*700) // the pages that had not reached the disk

	w.opt.BootID = "second boot"
	o = w.open()
	if p := o.Progress(); p.Have != int64(2*perSpan) || p.SpansComplete != 2 || p.Repair != 0 {
		t.Fatalf("after the power cut: %+v, want two spans and nothing else", p)
	}
	w.put(o, w.source[perSpan:2*perSpan]...)
	w.put(o, w.source[3*perSpan:]...)
	w.wait(o)
	w.check()
}

// spoil overwrites a range of the first file, as if its pages had been lost.
func spoil(t *testing.T, w *world, offset, length int) {
	t.Helper()
	f, err := w.root.OpenFile(w.files[0].Name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, length), int64(offset)); err != nil {
		t.Fatal(err)
	}
}

// TestPowerCutWithoutSyncSpans: nothing is recorded before the object is complete.
func TestPowerCutWithoutSyncSpans(t *testing.T) {
	w := newWorld(t, 0, 100, 8, 100*192*8*2)
	w.opt = spool.Options{BootID: "1"}
	o := w.open()
	w.put(o, w.source[:192*8]...)
	w.flush(o)
	if err := o.Abandon(); err != nil {
		t.Fatal(err)
	}
	w.opt.BootID = "2"
	o = w.open()
	if p := o.Progress(); p.Have != 0 {
		t.Fatalf("%+v, want nothing", p)
	}
	w.put(o, w.source...)
	w.wait(o)
	if err := o.Abandon(); err != nil {
		t.Fatal(err)
	}
	w.opt.BootID = "3"
	o = w.open()
	w.wait(o)
	w.check()
}

// TestCleanClose: after Close nothing is lost, staged symbols included, even in another boot; and that is believed once.
func TestCleanClose(t *testing.T) {
	w := newWorld(t, 0, 100, 8, 100*192*8*2)
	w.opt.BootID = "1"
	o := w.open()
	w.put(o, w.source[:1000]...)
	w.put(o, w.source[1100:1200]...)
	w.put(o, w.repair[0][:8]...)
	repair := o.Progress().Repair
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	w.opt.BootID = "2"
	o = w.open()
	if p := o.Progress(); p.Have != 1100 || p.Repair != repair || repair == 0 {
		t.Fatalf("after a clean reboot: %+v, want 1100 symbols and %d repair symbols", p, repair)
	}
	if err := o.Abandon(); err != nil {
		t.Fatal(err)
	}
	w.opt.BootID = "3"
	o = w.open()
	if p := o.Progress(); p.Have != 0 {
		t.Fatalf("after a power cut: %+v: the mark of the earlier Close was believed", p)
	}
}

func TestMismatch(t *testing.T) {
	w := newWorld(t, 0, 100, 8, 5000, 7)
	o := w.open()
	w.put(o, w.source[:10]...)
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := fec.New(5007, 100, 9)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spool.Open(w.root, w.files, other, w.opt); !errors.Is(err, spool.ErrMismatch) {
		t.Errorf("other geometry: %v", err)
	}
	files := slices.Clone(w.files)
	files[0].Size, files[1].Size = 5001, 6
	if _, err := spool.Open(w.root, files, w.g, w.opt); !errors.Is(err, spool.ErrMismatch) {
		t.Errorf("other files: %v", err)
	}
	o = w.open()
	if p := o.Progress(); p.Have != 10 {
		t.Errorf("the refused Opens did harm: %+v", p)
	}
}

// TestTornRecord: whatever the end of the record looks like, what was confirmed before it stays.
func TestTornRecord(t *testing.T) {
	for _, tail := range []string{"x", "0123456789abcdef", strings.Repeat("\x00", 16), strings.Repeat("\xff", 39)} {
		w := newWorld(t, 0, 100, 2, 100*192*2*2)
		w.opt.BootID = "1"
		o := w.open()
		w.put(o, w.source[:192*2]...)
		o.WaitRecorded(1)
		if err := o.Abandon(); err != nil {
			t.Fatal(err)
		}
		f, err := w.root.OpenFile("spool.record", os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(tail); err != nil {
			t.Fatal(err)
		}
		f.Close()
		w.opt.BootID = "2"
		o = w.open()
		if p := o.Progress(); p.SpansComplete != 1 {
			t.Fatalf("tail %q: %+v, want one span", tail, p)
		}
		w.put(o, w.source[192*2:]...)
		w.wait(o)
		if err := o.Abandon(); err != nil {
			t.Fatal(err)
		}
		w.opt.BootID = "3"
		w.wait(w.open())
		w.check()
	}
}

// TestStaleRecord: what follows a torn entry is cut off, so that a later append does not bring it back to life.
func TestStaleRecord(t *testing.T) {
	w := newWorld(t, 0, 100, 2, 100*192*2*2)
	w.opt.BootID = "1"
	o := w.open()
	w.put(o, w.source[:192*2]...)
	o.WaitRecorded(1)
	if err := o.Abandon(); err != nil {
		t.Fatal(err)
	}
	f, err := w.root.OpenFile("spool.record", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(append(make([]byte, 16), entry(1, 1)...)); err != nil {
		t.Fatal(err)
	}
	w.opt.BootID = "2"
	o = w.open()
	if err := o.Forget(0, 1); err != nil { // appends
		t.Fatal(err)
	}
	if err := o.Abandon(); err != nil {
		t.Fatal(err)
	}
	w.opt.BootID = "3"
	if p := w.open().Progress(); p.SpansComplete != 0 {
		t.Fatalf("%+v: span 1 never was here", p)
	}
}

// TestVanished: a file that is gone, or cut, is received again; the others stay.
func TestVanished(t *testing.T) {
	for name, harm := range map[string]func(root *os.Root) error{
		"removed":   func(root *os.Root) error { return root.Remove("files/000001") },
		"all gone":  func(root *os.Root) error { return root.RemoveAll("files") },
		"side gone": func(root *os.Root) error { return root.Remove("spool.repair") },
		"map gone":  func(root *os.Root) error { return root.Remove("spool.map") },
		"cut": func(root *os.Root) error {
			f, err := root.OpenFile("files/000001", os.O_WRONLY|os.O_TRUNC, 0)
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 0, 100, 8, 70000, 100*192*8+50, 80000)
			o := w.open()
			w.put(o, w.source[:len(w.source)-1]...)
			w.flush(o)
			o.WaitRecorded(1)
			if err := o.Abandon(); err != nil {
				t.Fatal(err)
			}
			if err := harm(w.root); err != nil {
				t.Fatal(err)
			}
			have := w.open()
			complete := have.Progress().SpansComplete
			if err := have.Abandon(); err != nil {
				t.Fatal(err)
			}
			w.opt.BootID = "after a power cut" // the new file has its size again: nothing but the record says it is empty
			o = w.open()
			if got := o.Progress().SpansComplete; got > complete {
				t.Fatalf("%d spans are believed, it was %d before the power cut", got, complete)
			}
			w.put(o, w.source...)
			w.wait(o)
			w.check()
		})
	}
}

// TestSideFileGone: the repair symbols went away with their file, so their bits must go too.
func TestSideFileGone(t *testing.T) {
	w := newWorld(t, 0, 100, 8, 100*192*8)
	o := w.open()
	w.put(o, w.source[16:]...)
	o.AwaitFlight() // a kill loses what is on its way
	if n := w.put(o, w.repair[0]...); n[spool.Stored] != 8 {
		t.Fatalf("%v, want 8 repair symbols kept", n)
	}
	if err := o.Abandon(); err != nil {
		t.Fatal(err)
	}
	if err := w.root.Remove("spool.repair"); err != nil {
		t.Fatal(err)
	}
	o = w.open()
	w.put(o, w.rows(0, 2)...)
	w.flush(o)
	w.wait(o)
	w.check()
}

// TestVanishedWhileOpen: a file that goes away under the object breaks it, for good, and says which file.
func TestVanishedWhileOpen(t *testing.T) {
	w := newWorld(t, 0, 100, 8, 50000, 50000)
	o := w.open()
	if err := w.root.RemoveAll("files"); err != nil {
		t.Fatal(err)
	}
	var err error
	for _, s := range w.source {
		if _, err = o.Put(s.sbn, s.esi, s.data); err != nil {
			break
		}
	}
	if err == nil {
		err = o.Flush(t.Context())
	}
	if !errors.Is(err, spool.ErrBroken) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "files/00000") {
		t.Fatalf("error %v, want ErrBroken, not exist, and a name", err)
	}
	if _, again := o.Put(0, 0, w.source[0].data); !errors.Is(again, spool.ErrBroken) || !errors.Is(o.Err(), spool.ErrBroken) {
		t.Fatalf("the error did not stick: %v", again)
	}
}

// TestForget: a damaged block is taken back and repaired from rows that come later; Done is asked for anew.
func TestForget(t *testing.T) {
	w := newWorld(t, 0, 100, 8, 100*192*8*2+10, 3000)
	o := w.open()
	w.put(o, w.source...)
	w.wait(o)
	spoil(t, w, 5000, 600)
	if err := o.Forget(5000, 600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-o.Done():
		t.Fatal("done, with symbols taken back")
	default:
	}
	if m := o.Missing(); o.Complete() || len(m) != 1 || m[0] != (spool.SpanDeficit{SBN: 0, Lost: 6, Deficit: 1}) {
		t.Fatalf("missing %+v", m)
	}
	if err := o.Abandon(); err != nil {
		t.Fatal(err)
	}
	w.opt.BootID = "another" // the record must not call the span complete
	o = w.open()
	if p := o.Progress(); p.SpansComplete != p.Spans-1 {
		t.Fatalf("%+v after a power cut, want all spans but one", p)
	}
	w.put(o, w.source[:192*8]...)
	w.wait(o)
	if err := o.Forget(0, int64(len(w.object))); err != nil {
		t.Fatal(err)
	}
	if p := o.Progress(); p.Have != 0 || p.SpansComplete != 0 {
		t.Fatalf("all forgotten: %+v", p)
	}
	w.put(o, w.lose(w.source, 0.01)...)
	w.put(o, w.rows(0, 20)...)
	w.flush(o)
	w.wait(o)
	w.check()
}

// TestForgetIsRepairedAtOnce: what repair symbols an open span has are used again.
func TestForgetIsRepairedAtOnce(t *testing.T) {
	w := newWorld(t, 0, 100, 8, 100*192*8)
	o := w.open()
	w.put(o, w.source[20:]...) // 20 lost: three in some groups, two in others
	w.put(o, w.rows(0, 2)...)
	w.flush(o) // mends the groups that lost two
	if o.Complete() {
		t.Fatal("complete too early")
	}
	spoil(t, w, 600, 200) // symbols 6 and 7, of the groups that lost two and were mended
	if err := o.Forget(600, 200); err != nil {
		t.Fatal(err)
	}
	w.flush(o)
	w.put(o, w.repair[2]...)
	w.flush(o)
	w.wait(o)
	w.check()
}

func TestForgetRange(t *testing.T) {
	w := newWorld(t, 0, 100, 8, 1000)
	o := w.open()
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, 1001}, {1001, 0}, {1 << 62, 1 << 62}} {
		if err := o.Forget(r[0], r[1]); !errors.Is(err, spool.ErrRange) {
			t.Errorf("Forget(%d, %d): %v", r[0], r[1], err)
		}
	}
	if err := o.Forget(1000, 0); err != nil {
		t.Errorf("nothing, at the end: %v", err)
	}
}

// TestNoSpace: what cannot be reserved is refused before anything is there, and says how much is lacking.
func TestNoSpace(t *testing.T) {
	g, err := fec.New(1<<49, 8896, 4096)
	if err != nil {
		t.Fatal(err)
	}
	root := openRoot(t, t.TempDir())
	_, err = spool.Open(root, []spool.File{{Name: "a", Size: 1 << 49}}, g, spool.Options{})
	var lack *durable.NoSpaceError
	if !errors.Is(err, durable.ErrNoSpace) || !errors.As(err, &lack) || lack.Lacking <= 0 || lack.Lacking != lack.Want-lack.Free {
		t.Fatalf("512 TiB: error %v", err)
	}
	checkEmpty(t, root, "no space")
}

// TestReserveFails: the second file does not fit; nothing is left, and a later Open succeeds.
func TestReserveFails(t *testing.T) {
	w := newWorld(t, 0, 100, 8, 1000, 2000)
	full := errors.New("disk full")
	n := 0
	w.opt.Reserve = func(f *os.File, size int64) error {
		if n++; n == 2 {
			return full
		}
		return durable.Allocate(f, size)
	}
	if _, err := spool.Open(w.root, w.files, w.g, w.opt); !errors.Is(err, full) {
		t.Fatalf("error %v", err)
	}
	checkEmpty(t, w.root, "reserve failed")
	o := w.open()
	w.put(o, w.source...)
	w.wait(o)
	w.check()
}

const victimFolder = "SLUICE_SPOOL_VICTIM"

// victim is the process that TestSIGKILL kills: it stores until it dies.
func victim(dir string) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		panic(err)
	}
	g, err := fec.New(victimSize, 1000, 16)
	if err != nil {
		panic(err)
	}
	o, err := spool.Open(root, []spool.File{{Name: "object", Size: victimSize}}, g, spool.Options{})
	if err != nil {
		panic(err)
	}
	data := make([]byte, 1000)
	os.Stdout.WriteString("ready\n")
	for i := range g.Symbols() {
		for at := range data {
			data[at] = victimByte(i)
		}
		perSpan := int64(192 * 16)
		if _, err := o.Put(uint32(i/perSpan), uint32(i%perSpan), data); err != nil {
			panic(err)
		}
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // done before the kill came: wait for it
}

const victimSize = 1000 * 192 * 16 * 15 // 44 MiB

func victimByte(i int64) byte { return byte(i%251) + 1 }

// TestSIGKILL kills a real process at a random point, several times. Every symbol whose bit is set must be in the file, and
// all but the windows that were being written must have its bit.
func TestSIGKILL(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 3))
	t.Logf("seed %d", seed)
	for range 4 {
		dir := t.TempDir()
		killVictim(t, dir, random.Int64N(victimSize/2))
		root := openRoot(t, dir)
		g, err := fec.New(victimSize, 1000, 16)
		if err != nil {
			t.Fatal(err)
		}
		o, err := spool.Open(root, []spool.File{{Name: "object", Size: victimSize}}, g, spool.Options{})
		if err != nil {
			t.Fatal(err)
		}
		has := make([]bool, g.Symbols())
		for i := range has {
			has[i] = o.Has(i/(192*16), i%(192*16))
		}
		have := o.Progress().Have
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		written := checkVictim(t, dir, has)
		t.Logf("killed with %d symbols recorded, %d in the file, of %d", have, written, g.Symbols())
	}
}

func killVictim(t *testing.T, dir string, at int64) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), victimFolder+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	awaitByte(t, dir+"/object", at)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

// awaitByte reads until the victim has stored a byte at an offset.
func awaitByte(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 1); b[0] == 0 && t.Context().Err() == nil; {
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
}

// checkVictim wants every symbol that has its bit in the file; it returns how many are there.
func checkVictim(t *testing.T, dir string, has []bool) (written int) {
	t.Helper()
	data, err := os.ReadFile(dir + "/object")
	if err != nil {
		t.Fatal(err)
	}
	unmarked := 0
	for i := range has {
		whole := true
		for _, b := range data[i*1000 : (i+1)*1000] {
			whole = whole && b == victimByte(int64(i))
		}
		switch {
		case !whole && has[i]:
			t.Fatalf("symbol %d has its bit and not its bytes", i)
		case whole && !has[i]:
			unmarked++
		}
		if whole {
			written++
		}
	}
	if unmarked > spool.Writers*spool.WindowBytes/1000 {
		t.Fatalf("%d symbols are in the file without a bit: more than what was being written", unmarked)
	}
	return written
}
