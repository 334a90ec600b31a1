// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/link"
	"sluice/internal/spool"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is two peers that talk; both end with the test.
func pair(t *testing.T, left, right map[string]handler) (*peer, *peer) {
	t.Helper()
	a, b := net.Pipe()
	l, r := newPeer(a, 1<<16, left), newPeer(b, 1<<16, right)
	var running sync.WaitGroup
	for _, p := range []*peer{l, r} {
		running.Go(func() { _ = p.run(context.Background()) })
	}
	t.Cleanup(func() { a.Close(); b.Close(); running.Wait() })
	return l, r
}

// TestBothAsk: requests cross, and a handler asks back while it is asked.
func TestBothAsk(t *testing.T) {
	var l, r *peer
	ready := make(chan struct{})
	twice := on(func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	l, r = pair(t, map[string]handler{"twice": twice}, map[string]handler{"back": on(func(ctx context.Context, n int) (int, error) {
		<-ready
		var out int
		err := r.call(ctx, "twice", n, &out)
		return out + 1, err
	})})
	close(ready)
	var all sync.WaitGroup
	for n := range maxCalls {
		all.Go(func() {
			var out int
			if err := l.call(t.Context(), "back", n, &out); err != nil || out != 2*n+1 {
				t.Errorf("%d: %d, %v", n, out, err)
			}
		})
	}
	all.Wait()
}

// TestErrorsCross: what an error is survives the way, whatever its text is.
func TestErrorsCross(t *testing.T) {
	var give error
	l, _ := pair(t, nil, map[string]handler{"fail": on(func(context.Context, nothing) (nothing, error) { return nothing{}, give })})
	for _, want := range []error{spool.ErrBroken, spool.ErrClosed, link.ErrSignature, context.Canceled, errNotOpen} {
		give = fmt.Errorf("words: %w", want)
		err := l.call(t.Context(), "fail", nothing{}, nil)
		if err == nil || err.Error() != give.Error() {
			t.Errorf("%v came as %v", give, err)
		}
		for _, s := range sentinels() {
			if errors.Is(give, s.err) != errors.Is(err, s.err) {
				t.Errorf("%v: is %s: %t", give, s.kind, errors.Is(err, s.err))
			}
		}
	}
	give = errors.New(strings.Repeat("x", 1<<17))
	if err := l.call(t.Context(), "fail", nothing{}, nil); err == nil || len(err.Error()) > maxErrorText+10 {
		t.Errorf("an endless error: %d bytes", len(err.Error()))
	}
	if err := l.call(t.Context(), "nonsense", nothing{}, nil); err == nil || !strings.Contains(err.Error(), "unknown request") {
		t.Errorf("unknown request: %v", err)
	}
	if err := l.call(t.Context(), "fail", 7, nil); !strings.Contains(err.Error(), "malformed") {
		t.Errorf("wrong body: %v", err)
	}
}

// TestTooManyRequests: beyond maxCalls a request is answered at once, with an error, and answers still arrive.
func TestTooManyRequests(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{}, maxCalls)
	l, _ := pair(t, nil, map[string]handler{"wait": on(func(context.Context, nothing) (nothing, error) {
		entered <- struct{}{}
		<-release
		return nothing{}, nil
	})})
	var all sync.WaitGroup
	for range maxCalls {
		all.Go(func() {
			if err := l.call(t.Context(), "wait", nothing{}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	for range maxCalls {
		<-entered
	}
	if err := l.call(t.Context(), "wait", nothing{}, nil); err == nil || !strings.Contains(err.Error(), "at a time") {
		t.Errorf("one more: %v", err)
	}
	close(release)
	all.Wait()
}

// TestPeerGone: who waits is told, and so is who asks later.
func TestPeerGone(t *testing.T) {
	a, b := net.Pipe()
	p := newPeer(a, 1<<10, nil)
	ended := make(chan error, 1)
	go func() { ended <- p.run(context.Background()) }()
	answer := make(chan error, 1)
	go func() { answer <- p.call(context.Background(), "x", nothing{}, nil) }()
	_, err := readFrame(b, 1<<10)
	must(t, err)
	b.Close()
	if err := <-answer; !errors.Is(err, ErrDown) {
		t.Errorf("waiting: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	if err := p.call(t.Context(), "x", nothing{}, nil); !errors.Is(err, ErrDown) {
		t.Errorf("later: %v", err)
	}
	a.Close()
}

// TestCallGivesUp: a call that is cancelled leaves nothing behind, and its late answer harms nobody.
func TestCallGivesUp(t *testing.T) {
	release := make(chan struct{})
	l, _ := pair(t, nil, map[string]handler{
		"slow":  on(func(context.Context, nothing) (int, error) { <-release; return 1, nil }),
		"quick": on(func(context.Context, nothing) (int, error) { return 2, nil }),
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := l.call(ctx, "slow", nothing{}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(release)
	var out int
	if err := l.call(t.Context(), "quick", nothing{}, &out); err != nil || out != 2 {
		t.Errorf("%d, %v", out, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) != 0 {
		t.Errorf("%d calls wait still", len(l.waiting))
	}
}

func TestBadFrames(t *testing.T) {
	length := func(n uint32, text string) string { return string(binary.BigEndian.AppendUint32(nil, n)) + text }
	for name, in := range map[string]string{
		"too long":      length(1001, strings.Repeat("x", 1001)),
		"endless":       length(0xffffffff, ""),
		"cut short":     length(100, `{"id":1}`),
		"no JSON":       length(3, "abc"),
		"empty":         length(0, ""),
		"two values":    length(16, `{"id":1}{"id":2}`),
		"negative id":   length(9, `{"id":-1}`),
		"deep":          length(998, strings.Repeat("[", 998)),
		"half a length": "\x00\x00",
	} {
		if f, err := readFrame(strings.NewReader(in), 1000); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if _, err := readFrame(strings.NewReader(""), 1000); !errors.Is(err, io.EOF) {
		t.Errorf("nothing at all: %v", err)
	}
}

// FuzzReadFrame: what a front that was taken over could write to the daemon.
func FuzzReadFrame(f *testing.F) {
	for _, x := range []frame{{ID: 1, Method: askJudge, Body: json.RawMessage(`{"session":[1,2,3,4,5,6,7,8]}`)}, {ID: 9, Error: &wireError{"broken", "x"}}} {
		b, err := appendFrame(nil, x)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := readFrame(bytes.NewReader(b), 1<<12)
		if err != nil {
			return
		}
		again, err := appendFrame(nil, x)
		if err != nil {
			t.Fatal(err)
		}
		y, err := readFrame(bytes.NewReader(again), 1<<16)
		if err != nil || y.ID != x.ID || y.Method != x.Method || (y.Error == nil) != (x.Error == nil) {
			t.Errorf("%+v became %+v, %v", x, y, err)
		}
		for _, into := range []any{new(openRequest), new(judgeRequest), new(releaseRequest), new(Place), new(failedRequest), new(frontStatus), new(Shortfall), new(Confinement)} {
			_ = json.Unmarshal(x.Body, into) // an error, never a panic
		}
	})
}
