// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudflare/circl/kem/xwing"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"sluice/internal/link"
	"sluice/internal/spool"
	"sluice/pkg/fec"
)

const (
	patience   = time.Minute
	testGroups = 4
	headBytes  = 9_000 // of an envelope
)

// desk is a daemon that takes every release, and a sender to it over loopback.
type desk struct {
	*testing.T
	process *Process
	state   *os.Root
	path    string
	sender  *link.Sender
	front   context.CancelFunc
	ended   chan error

	mu      sync.Mutex
	judged  int
	asm     Assembly
	files   []int64
	refuse  error
	refused bool
}

// Judge implements Daemon.
func (d *desk) Judge(ctx context.Context, a link.Announcement, stream io.ReaderAt, size int64) (Place, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.judged++
	got := make([]byte, size)
	if _, err := stream.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
		return Place{}, err
	}
	if !bytes.Equal(got, head()) {
		d.Errorf("the envelope is not what was sent")
	}
	if d.refuse != nil {
		return Place{}, d.refuse
	}
	place := Place{Release: a.Release, Cut: Cut{a.Profile.SymbolSize(), a.Groups}}
	if d.asm == nil {
		var err error
		if d.asm, err = d.process.Assemble(ctx, home, a.Release, d.files, place.Cut); err != nil {
			return Place{}, err
		}
	}
	return place, nil
}

// Refused implements Daemon.
func (d *desk) Refused([32]byte) bool { return d.refused }

func (d *desk) assembly() Assembly {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asm
}

// set changes what Judge looks at.
func (d *desk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

const home = "spool/x/payload"

func head() []byte { return bytes.Repeat([]byte("envelope "), headBytes/9) }

// newDesk starts the binary in a role as the front, and has it receive.
func newDesk(t *testing.T, role string, change func(*Options)) *desk {
	t.Helper()
	t.Setenv(roleEnv, role)
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	must(t, root.MkdirAll(home, 0o700))
	lock, err := Lock(t.Context(), root)
	must(t, err)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	file, err := conn.(*net.UDPConn).File()
	must(t, err)
	key, seed := ed25519.NewKeyFromSeed(make([]byte, 32)), make([]byte, 32)
	_, public := xwing.DeriveKeyPairPacked(seed)
	d := &desk{T: t, state: root, path: dir, ended: make(chan error, 1), files: []int64{3_000_000, 0, 77_777}}
	o := Options{
		Command: []string{"recv"}, Sockets: []*os.File{file}, Buffer: 8 << 20, PrivateKey: seed, LinkKeys: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)},
		State: root, StatePath: dir, Lock: lock, BestEffort: true, Daemon: d, Logger: zap.NewNop(),
	}
	if change != nil {
		change(&o)
	}
	d.process, err = Start(t.Context(), o)
	must(t, err)
	out, err := link.DialUDP(t.Context(), link.SocketOptions{Address: conn.LocalAddr().String()})
	must(t, err)
	d.sender, err = link.NewSender(link.SenderConfig{
		Lanes: []link.Lane{{Conn: out, Rate: 200_000_000}}, Profile: link.Profile1500, Groups: testGroups, Repair: 10, Settle: 200 * time.Millisecond, LinkKey: key, ReceiverKey: public,
	})
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	d.front = stop
	go func() { d.ended <- d.process.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-d.ended
		for _, c := range []io.Closer{conn, file, lock, root, out} {
			c.Close()
		}
	})
	return d
}

// end stops it and gives Run's error.
func (d *desk) end() error {
	d.front()
	err := <-d.ended
	d.ended <- nil
	return err
}

func (d *desk) payload() []byte {
	total := int64(0)
	for _, n := range d.files {
		total += n
	}
	b := make([]byte, total)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// send sends a pass: source and repair.
func (d *desk) send(pass int) {
	d.Helper()
	p := d.payload()
	_, err := d.sender.Send(d.Context(), link.Transfer{
		Release: [32]byte{0xab}, Envelope: bytes.NewReader(head()), EnvelopeSize: int64(len(head())), Payload: bytes.NewReader(p), PayloadSize: int64(len(p)),
		Files: len(d.files), Pass: pass, Source: true,
	})
	must(d.T, err)
}

// until polls.
func (d *desk) until(what string, ok func() bool) {
	d.Helper()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			d.Fatalf("not within %v: %s (%s)", patience, what, d.process.Problem())
		}
		<-time.After(2 * time.Millisecond)
	}
}

func (d *desk) whole() bool {
	a := d.assembly()
	if a == nil {
		return false
	}
	select {
	case <-a.Done():
		return true
	default:
		return false
	}
}

// same compares what came home.
func (d *desk) same() {
	d.Helper()
	want := d.payload()
	for i, n := range d.files {
		got, err := d.state.ReadFile(home + "/" + FileName(i))
		must(d.T, err)
		if !bytes.Equal(got, want[:n]) {
			d.Errorf("file %d is not what was sent", i)
		}
		want = want[n:]
	}
}

func (d *desk) pid() int {
	if c := d.process.current(); c != nil {
		return c.pid
	}
	return 0
}

// TestFront: announcement, envelope, payload, and the way home.
func TestFront(t *testing.T) {
	began := time.Now()
	d := newDesk(t, "front", nil)
	d.send(1)
	d.until("the release is whole", d.whole)
	st := d.process.Status()
	if len(st.Sessions) != 1 || st.Sessions[0].Announcement.Release != [32]byte{0xab} || st.Authentic == 0 || st.LastHeard.Before(st.Started) ||
		st.LastHeard.After(time.Now()) || st.Started.Before(began) || !st.OutageFrom.IsZero() {
		t.Errorf("status: %+v", st)
	}
	if p := d.assembly().Progress(); p.Have != p.Symbols || p.Symbols == 0 {
		t.Errorf("progress: %+v", p)
	}
	if _, err := d.state.Stat(home); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the payload is at home while the front has it: %v", err)
	}
	must(t, d.assembly().Close())
	d.same()
	if p := d.process.Problem(); p != "" {
		t.Error(p)
	}
	must(t, d.end())
	if d.judged != 1 {
		t.Errorf("judged %d times", d.judged)
	}
}

// TestFrontGoesFirst: the front has priority in all its threads, and the daemon in none; a front that cannot have it starts all the same.
func TestFrontGoesFirst(t *testing.T) {
	warned, logs := observer.New(zap.WarnLevel)
	d := newDesk(t, "front", func(o *Options) { o.Logger = zap.New(warned) })
	front := niceOf(t, d.pid())
	if d.process.current().behind != nil {
		if slices.Contains(front, frontNice) || logs.FilterMessageSnippet("LimitNICE").Len() != 1 {
			t.Errorf("the front may have no priority: nice values %v, %v", front, logs.All())
		}
	} else if slices.Max(front) != frontNice || logs.FilterMessageSnippet("LimitNICE").Len() != 0 {
		t.Errorf("nice values of the front's threads: %v; %v", front, logs.All())
	}
	if own := niceOf(t, os.Getpid()); slices.Contains(own, frontNice) {
		t.Errorf("nice values of the daemon's threads: %v", own)
	}
}

// niceOf gives the nice value of each thread of a process.
func niceOf(t *testing.T, pid int) (nice []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	must(t, err)
	for _, task := range tasks {
		id, err := strconv.Atoi(filepath.Base(task))
		must(t, err)
		value, err := unix.Getpriority(unix.PRIO_PROCESS, id)
		if errors.Is(err, unix.ESRCH) {
			continue // it ended meanwhile
		}
		must(t, err)
		nice = append(nice, 20-value)
	}
	return nice
}

// TestNoRightToPriority: without the capability, and with a limit that allows nothing, what was to be done is done.
func TestNoRightToPriority(t *testing.T) {
	var refused, err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its capabilities
		if err = dropEffective(unix.CAP_SYS_NICE); err == nil {
			refused, err = withNice(frontNice, func() error { return io.ErrNoProgress })
		}
	}()
	<-done
	if !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("what was to be done gave %v", err)
	}
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NICE, &limit))
	if limit.Cur < 20-frontNice && !errors.Is(refused, unix.EACCES) {
		t.Errorf("the priority was not refused: %v", refused)
	}
}

// dropEffective takes a capability from the calling thread.
func dropEffective(capability int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[capability/32].Effective &^= 1 << (capability % 32)
	return unix.Capset(&header, &data[0])
}

// TestFrontEnds: what is under way when the daemon ends is kept, and goes on in the next.
func TestFrontEnds(t *testing.T) {
	d := newDesk(t, "front", nil)
	d.set(func() { d.files = []int64{30_000_000} })
	sent := make(chan struct{})
	go func() { defer close(sent); d.send(1) }()
	d.until("something is there", func() bool { a := d.assembly(); return a != nil && a.Progress().Have > 2000 })
	must(t, d.end())
	must(t, d.assembly().Close())
	<-sent
	root, err := d.state.OpenRoot(home)
	must(t, err)
	defer root.Close()
	obj, err := OpenObject(root, d.files, Cut{1408, testGroups}, spool.Options{})
	must(t, err)
	if p := obj.Progress(); p.Have < 2000 {
		t.Errorf("%d symbols are left", p.Have)
	}
	must(t, obj.Close())
}

// TestFrontKilled: a front that dies is started again with what it had, while the sender goes on.
func TestFrontKilled(t *testing.T) {
	d := newDesk(t, "front", nil)
	d.set(func() { d.files = []int64{30_000_000} })
	sent := make(chan struct{})
	go func() { defer close(sent); d.send(1) }()
	for _, share := range []int64{3, 2} {
		d.until("a part is there", func() bool { a := d.assembly(); return a != nil && a.Progress().Have > a.Progress().Symbols/share })
		first := d.pid()
		must(t, unix.Kill(first, unix.SIGKILL))
		d.until("another front", func() bool { return d.pid() != 0 && d.pid() != first })
	}
	<-sent
	d.until("the release is whole", func() bool {
		if !d.whole() {
			d.send(2)
		}
		return d.whole()
	})
	must(t, d.assembly().Close())
	d.same()
	if d.process.restarts != 2 {
		t.Errorf("%d restarts", d.process.restarts)
	}
	must(t, d.end())
}

// TestRefused: an error of the daemon's reaches the link as a refusal.
func TestRefused(t *testing.T) {
	d := newDesk(t, "front", nil)
	d.set(func() { d.refuse = errors.New("one approval too few") })
	d.send(1)
	d.until("the session is refused", func() bool {
		s := d.process.Status().Sessions
		return len(s) == 1 && s[0].Release == link.ReleaseRefused && s[0].Reason == "one approval too few" && s[0].Stored == 0
	})
}

// TestShortfall: what is missing comes from the front, and is what is missing.
func TestShortfall(t *testing.T) {
	d := newDesk(t, "front", nil)
	p := d.payload()
	only := fec.Selection{{SBN: 0, Spans: 1, Source: []fec.Extent{{First: 100, Count: 500}}}}
	_, err := d.sender.Send(t.Context(), link.Transfer{
		Release: [32]byte{0xab}, Envelope: bytes.NewReader(head()), EnvelopeSize: int64(len(head())), Payload: bytes.NewReader(p), PayloadSize: int64(len(p)), Pass: 1, Only: only,
	})
	must(t, err)
	d.until("500 symbols are there", func() bool { a := d.assembly(); return a != nil && a.Progress().Have == 500 })
	s, err := d.assembly().Shortfall(t.Context(), 4096)
	must(t, err)
	if want := d.assembly().Progress().Symbols - 500; s.Lost != want || s.Damaged != 3 || len(s.Need) == 0 {
		t.Errorf("%+v, %d are missing", s, want)
	}
	must(t, d.assembly().Close())
	if _, err := d.assembly().Shortfall(t.Context(), 4096); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("of one that is closed: %v", err)
	}
}

// greedy gives a directory back and keeps a file of it open for writing, or mapped.
func greedy() error {
	f, err := inherited()
	if err != nil {
		return err
	}
	release := f.peer.handlers[askRelease]
	f.peer.handlers[askRelease] = on(func(ctx context.Context, in releaseRequest) (any, error) {
		name := hex.EncodeToString(in.Release[:]) + "/" + FileName(0)
		file, err := f.dir.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		if _, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return nil, err
		}
		if err := file.Close(); err != nil { // the mapping is enough
			return nil, err
		}
		return release(ctx, json.RawMessage(fmt.Sprintf(`{"release":%s}`, strings.ReplaceAll(fmt.Sprint(in.Release), " ", ","))))
	})
	return f.serve(context.Background())
}

// TestGreedyFront: a front that can still write to what it gave back is killed before that is looked at.
func TestGreedyFront(t *testing.T) {
	d := newDesk(t, "greedy", nil)
	d.send(1)
	d.until("the release is whole", d.whole)
	first := d.pid()
	must(t, d.assembly().Close())
	must(t, nobodyWrites(d.state, home))
	d.same()
	d.until("another front", func() bool { return d.pid() != 0 && d.pid() != first })
}

// holder keeps the directory itself open when it gives it back, and goes on trying to write through it.
func holder() error {
	f, err := inherited()
	if err != nil {
		return err
	}
	release := f.peer.handlers[askRelease]
	f.peer.handlers[askRelease] = func(ctx context.Context, body json.RawMessage) (any, error) {
		var in releaseRequest
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		kept, err := f.dir.OpenRoot(hex.EncodeToString(in.Release[:]))
		if err != nil {
			return nil, err
		}
		out, err := release(ctx, body)
		go func() {
			for range time.Tick(time.Millisecond) {
				if file, err := kept.OpenFile(FileName(0), os.O_RDWR, 0); err == nil {
					_, _ = file.WriteAt([]byte("rubbish"), 0) // the test sees it
				}
			}
		}()
		return out, err
	}
	return f.serve(context.Background())
}

// TestHeldDirectory: a descriptor of the directory is no way to its files once it has come home.
func TestHeldDirectory(t *testing.T) {
	if landlockABI() == 0 {
		t.Skip("SKIPPED: this kernel has no landlock: that a front is held to its directory is NOT checked")
	}
	d := newDesk(t, "holder", nil)
	d.send(1)
	d.until("the release is whole", d.whole)
	first := d.pid()
	must(t, d.assembly().Close())
	<-time.After(100 * time.Millisecond) // a hundred tries
	must(t, nobodyWrites(d.state, home))
	d.same()
	if d.pid() != first {
		t.Error("the front is another one: this test proved nothing")
	}
}

// TestWriterIsSeen: of the check itself.
func TestWriterIsSeen(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer root.Close()
	must(t, root.MkdirAll("d/e", 0o700))
	must(t, root.WriteFile("d/e/f", []byte("x"), 0o600))
	must(t, nobodyWrites(root, "d"))
	reader, err := root.Open("d/e/f")
	must(t, err)
	defer reader.Close()
	must(t, nobodyWrites(root, "d"))
	writer, err := root.OpenFile("d/e/f", os.O_WRONLY, 0)
	must(t, err)
	if err := nobodyWrites(root, "d"); !errors.Is(err, errWriter) {
		t.Errorf("a writer: %v", err)
	}
	must(t, writer.Close())
	must(t, nobodyWrites(root, "d"))
	must(t, root.Symlink("f", "d/e/l"))
	if err := nobodyWrites(root, "d"); err == nil {
		t.Error("a symbolic link among the files was not seen")
	}
}

// liar asks for what no front has a right to, and tells as its last word what it got.
func liar() error {
	f, err := inherited()
	if err != nil {
		return err
	}
	setUp := f.peer.handlers[askReceive]
	f.peer.handlers[askReceive] = func(ctx context.Context, body json.RawMessage) (any, error) {
		defer func() {
			go func() {
				f.tell(f.lie(context.Background()))
				f.peer.conn.Close()
			}()
		}()
		return setUp(ctx, body)
	}
	return f.serve(context.Background())
}

func (f *Front) lie(ctx context.Context) error {
	got := []string{"lies:"}
	name := linkDir + "/" + link.EnvelopePath(link.Announcement{}) // where the envelope of a session would lie that nobody announced
	if err := errors.Join(f.dir.MkdirAll(filepath.Dir(name), 0o700), f.dir.WriteFile(name, nil, 0o600)); err != nil {
		return err
	}
	for _, q := range []struct {
		method string
		in     any
	}{
		{askJudge, judgeRequest{[8]byte{1}}},                // never announced
		{askOpen, openRequest{nil}},                         // too short
		{askOpen, openRequest{make([]byte, 20_000)}},        // too long
		{askOpen, openRequest{make([]byte, 1452)}},          // nonsense
		{askDone, Place{Release: [32]byte{9}, Whole: true}}, // not its own
		{askSetUp, setUp{}},                                 // not asked of a daemon
	} {
		if err := f.peer.call(ctx, q.method, q.in, nil); err == nil {
			got = append(got, q.method)
		}
	}
	return errors.New(strings.Join(got, " "))
}

// TestLiar: the daemon answers none of it; that a release which it does not have open is whole, is no news.
func TestLiar(t *testing.T) {
	d := newDesk(t, "liar", nil)
	var err error
	select {
	case err = <-d.ended:
		d.ended <- nil
	case <-time.After(patience):
	}
	if err == nil || !strings.HasSuffix(err.Error(), "lies: "+askDone) {
		t.Errorf("%v", err)
	}
	if d.judged != 0 {
		t.Errorf("judged %d envelopes", d.judged)
	}
}

// babbler does not keep to the format, and lives on.
func babbler() error {
	f, err := inherited()
	if err != nil {
		return err
	}
	receive := f.peer.handlers[askReceive]
	f.peer.handlers[askReceive] = func(ctx context.Context, body json.RawMessage) (any, error) {
		go func() {
			<-time.After(20 * time.Millisecond) // when the daemon waits for nothing
			f.peer.writing.Lock()               // in one piece, and nothing comes after it
			_, _ = f.peer.conn.Write([]byte("\xff\xff\xff\xff"))
		}()
		return receive(ctx, body)
	}
	_ = f.serve(context.Background()) // that it ends is not the end
	select {}
}

// mute does not answer.
func mute() error { select {} }

// crasher dies as soon as it receives.
func crasher() error {
	f, err := inherited()
	if err != nil {
		return err
	}
	f.peer.handlers[askReceive] = func(context.Context, json.RawMessage) (any, error) { panic("crasher") }
	return f.serve(context.Background())
}

// TestBadFronts: one that babbles, or crashes, is started again and again, with the reason for who asks.
func TestBadFronts(t *testing.T) {
	for role, how := range map[string]string{"babbler": "signal: killed", "crasher": "exit status 2"} {
		t.Run(role, func(t *testing.T) {
			d := newDesk(t, role, nil)
			seen := ""
			d.until("three restarts", func() bool {
				if p := d.process.Problem(); p != "" {
					seen = p
				}
				d.process.mu.Lock()
				defer d.process.mu.Unlock()
				if d.process.trouble != "" {
					seen = d.process.trouble
				}
				return d.process.restarts+d.process.failedStarts >= 3
			})
			if !strings.Contains(seen, how) && !strings.Contains(seen, ErrDown.Error()) {
				t.Errorf("the reason is %q", seen)
			}
		})
	}
}

// TestMuteFront: one that does not start is no front, and not waited for.
func TestMuteFront(t *testing.T) {
	t.Setenv(roleEnv, "mute")
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer root.Close()
	lock, err := Lock(t.Context(), root)
	must(t, err)
	defer lock.Close()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	defer conn.Close()
	file, err := conn.(*net.UDPConn).File()
	must(t, err)
	defer file.Close()
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	_, err = Start(t.Context(), Options{
		Sockets: []*os.File{file}, PrivateKey: make([]byte, 32), LinkKeys: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, State: root, StatePath: root.Name(),
		Lock: lock, Logger: zap.NewNop(), waits: waits{setUp: 300 * time.Millisecond, stop: time.Millisecond},
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// TestStoppedFront: one that hangs is seen, shown as it was, and killed when it has to give something back.
func TestStoppedFront(t *testing.T) {
	short := waits{setUp: patience, assemble: 300 * time.Millisecond, stop: 300 * time.Millisecond, status: 50 * time.Millisecond, unheard: 200 * time.Millisecond}
	d := newDesk(t, "front", func(o *Options) { o.waits = short })
	d.send(1)
	d.until("the release is whole", d.whole)
	first := d.pid()
	d.process.Status()
	must(t, unix.Kill(first, unix.SIGSTOP))
	d.until("it is said", func() bool { return strings.Contains(d.process.Problem(), "has not answered") })
	if st := d.process.Status(); len(st.Sessions) != 1 {
		t.Errorf("what was known is gone: %+v", st)
	}
	must(t, d.assembly().Close())
	d.same()
	d.until("another front", func() bool { return d.pid() != 0 && d.pid() != first })
	d.until("it is well", func() bool { return d.process.Problem() == "" })
}

// TestLockAndHome: a second daemon waits for the first one's front; what that left comes home.
func TestLockAndHome(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer root.Close()
	first, err := Lock(t.Context(), root)
	must(t, err)
	go func() {
		<-time.After(100 * time.Millisecond)
		first.Close()
	}()
	second, err := Lock(t.Context(), root)
	must(t, err)
	defer second.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Lock(ctx, root); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third: %v", err)
	}
	for _, dir := range []string{Incoming + "/aa/files", "spool/aa/payload", Incoming + "/bb", Incoming + "/cc", "spool/cc/payload/files", Incoming + "/" + linkDir} {
		must(t, root.MkdirAll(dir, 0o700))
	}
	must(t, BringAllHome(root, func(r string) string { return "spool/" + r + "/payload" }, zap.NewNop()))
	for dir, want := range map[string]bool{
		"spool/aa/payload/files": true, Incoming + "/aa": false, Incoming + "/bb": false, "spool/cc/payload/files": true, Incoming + "/cc": false, Incoming + "/" + linkDir: true,
	} {
		if _, err := os.Stat(filepath.Join(root.Name(), dir)); (err == nil) != want {
			t.Errorf("%s is there: %t", dir, err == nil)
		}
	}
}
