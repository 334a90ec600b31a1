// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/journal"
	"sluice/internal/link"
)

// TestOnAir goes through what a bastion does with its link, in virtual time: nothing yet, heartbeats, a pass, heartbeats again, a
// network that is down.
func TestOnAir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a onAir
		var last *PassRecord
		start := time.Now()
		job := journal.Job{ID: "models.llm@abc", Release: strings.Repeat("ab", 32)}
		pass := func(d time.Duration) { <-time.After(d) }
		want := func(state string, busy bool, words ...string) {
			t.Helper()
			s := a.status(time.Now(), start, 900e6, last)
			if s.State != state || s.Busy != busy {
				t.Errorf("state %q, busy %v; want %q, %v", s.State, s.Busy, state, busy)
			}
			for _, w := range words {
				if text := strings.Join(s.Words, "\n"); !strings.Contains(text, w) {
					t.Errorf("%q is not in\n%s", w, text)
				}
			}
		}
		tell := func(state link.State, pass int, bytes int64, failed uint64) {
			a.tell(link.SendProgress{SendReport: link.SendReport{Bytes: bytes, Sealed: 1000, SendErrors: failed}, State: state, Pass: pass})
		}
		pass(3 * time.Second)
		want("quiet", false, "QUIET: nothing was handed to the kernel for 3.0 s, and a heartbeat is due every second")
		a.begin(journal.Job{}, 1)
		tell(link.StateIdle, 1, 1452, 0)
		want("idle", false, "link: idle: heartbeats since 2000-01-01 00:00:03 UTC")
		pass(5 * time.Second)
		want("idle", false)
		pass(time.Second)
		want("quiet", false, "QUIET: nothing was handed to the kernel for 6.0 s")
		a.begin(job, 2)
		tell(link.StateSending, 2, 5000, 7)
		want("sending", true, "link: busy: sending, pass 2 of release abababababab at 900 Mbit/s, since 2000-01-01 00:00:09 UTC", "loss here: 7 datagrams of 1000")
		last = &PassRecord{Release: job.Release, Pass: 2, Ended: time.Now().UTC(), Seconds: 65, Sealed: 2000, Failed: 7, RateBits: 900e6}
		a.begin(journal.Job{}, 1)
		tell(link.StateIdle, 1, 1452, 0)
		want("idle", false, "last pass: pass 2 of release abababababab ended 2000-01-01 00:00:09 UTC: 2,000 datagrams in 1 min 5 s at 900 Mbit/s; 7 of them (0.35 %) were not taken by this host's kernel")
		last.Failed = 0
		want("idle", false, "at 900 Mbit/s, all taken by this host's kernel")
		pass(4 * time.Second)
		tell(link.StateIdle, 1, 1452, 3) // as many bytes as before: nothing left
		pass(2 * time.Second)
		a.broke(errors.New("no route\x1b"))
		want("quiet", false, "the receiver calls the link down: no route?")
		if n := a.failures(); n != 10 {
			t.Errorf("%d failures since the start, want 10", n)
		}
		tell(link.StateIdle, 1, 2904, 3)
		if s := a.status(time.Now(), start, 0, nil); s.Error != "" || s.State != "idle" {
			t.Errorf("after it went on: %+v", s)
		}
	})
}

// TestLastPass: the pass that ended last, of whatever job.
func TestLastPass(t *testing.T) {
	at := func(n int64) *PassRecord { return &PassRecord{Pass: int(n), Ended: time.Unix(n, 0)} }
	if p := lastPass([]JobStatus{{}, {LastPass: at(3)}, {LastPass: at(9)}, {LastPass: at(5)}}); p.Pass != 9 {
		t.Errorf("pass %d", p.Pass)
	}
	if lastPass([]JobStatus{{}}) != nil {
		t.Error("a pass that was not sent")
	}
}
