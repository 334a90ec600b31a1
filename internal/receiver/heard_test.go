// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/receiver"
)

// heardAt is the present of these tests; back is a moment before it.
func heardAt() time.Time { return time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC) }

func back(d time.Duration) time.Time { return heardAt().Add(-d) }

// heardSession is one that was heard ago, in a state, of release n (0: idle).
func heardSession(n byte, state link.State, ago time.Duration, change func(*link.SessionStatus)) link.SessionStatus {
	s := link.SessionStatus{
		Announcement: link.Announcement{Session: [8]byte{n, 1}, Profile: link.Profile1500, Pass: 2}, Joined: back(time.Minute), Sent: 1000, Authentic: 1000,
		State: state, LastHeard: back(ago), LastHeartbeat: back(ago), SendRate: 95e6, ArrivalRate: 94e6,
		Heartbeat: link.Heartbeat{Rate: 100e6, Clock: uint64(back(ago).UnixNano()), Pass: 2, State: state},
	}
	if n > 0 {
		s.Release = "accepted"
		s.Announcement.Release = [32]byte{n}
	}
	if change != nil {
		change(&s)
	}
	return s
}

// reportCase is a link, and what is said of it.
type reportCase struct {
	name   string
	link   *link.Status
	state  receiver.LinkState
	ready  bool
	want   []string
	absent []string
}

func upWith(sessions ...link.SessionStatus) *link.Status {
	return &link.Status{Sessions: sessions, Started: back(10 * time.Minute), LastHeard: back(300 * time.Millisecond), UpSince: back(3 * time.Minute)}
}

func missingOf(lost, failed, drops, before uint64) func(*link.SessionStatus) {
	return func(s *link.SessionStatus) {
		s.Missing, s.MissedBefore, s.Heartbeat.Failed, s.KernelDrops = lost+before, before, failed, drops
		s.Authentic = s.Sent - lost
		s.Sent += before
	}
}

func clockAhead(ahead time.Duration) func(*link.SessionStatus) {
	return func(s *link.SessionStatus) { s.Heartbeat.Clock = uint64(s.LastHeartbeat.Add(ahead).UnixNano()) }
}

func quietCases() []reportCase {
	started := back(10 * time.Minute)
	up := upWith
	return []reportCase{
		{"no link", nil, receiver.LinkNone, true, []string{"link: this process does not listen"}, nil},
		{
			"just started", &link.Status{Started: back(2 * time.Second)}, receiver.LinkSilent, true,
			[]string{"link: nothing heard yet, 2.0 s after this process began to listen; a heartbeat is due every second"},
			[]string{"DOWN", "1970", "0001", "sender:"},
		},
		{
			"nothing since the start", &link.Status{Started: back(90 * time.Second)}, receiver.LinkSilent, false,
			[]string{"link: DOWN: nothing authentic heard for 1 min 30 s, since this process began to listen at 2026-11-26 11:58:30 UTC", "doctor on both hosts"},
			[]string{"1970", "0001"},
		},
		{
			"only strangers", &link.Status{Started: back(90 * time.Second), Rejected: map[string]uint64{"mac1": 3, "signature": 40, "length": 3}}, receiver.LinkSilent, false,
			[]string{`46 datagrams came and none was authentic, most for the reason "signature"`},
			nil,
		},
		{
			"up and idle", up(heardSession(0, link.StateIdle, 300*time.Millisecond, nil)), receiver.LinkUp, true,
			[]string{"link: up since 2026-11-26 11:57:00 UTC (3 min), last heard 300 ms ago", "sender: idle; set to 100 Mbit/s, arriving 94 Mbit/s", "session 0001000000000000: idle, heard 300 ms ago; since 2026-11-26 11:59:00 UTC nothing lost of 1,000 datagrams"},
			[]string{"clock:", "outages:", "DOWN"},
		},
		{"no limit of the rate", up(heardSession(0, link.StateIdle, 0, func(s *link.SessionStatus) { s.Heartbeat.Rate = 0 })), receiver.LinkUp, true, []string{"idle; set to no rate, arriving"}, nil},
		{"exactly at the bound", &link.Status{Started: started, LastHeard: back(link.SilentAfter), UpSince: started}, receiver.LinkUp, true, []string{"last heard 5.0 s ago"}, nil},
		{
			"down", &link.Status{Started: started, LastHeard: back(42 * time.Second), UpSince: started, Sessions: []link.SessionStatus{heardSession(1, link.StateSending, 42*time.Second, nil)}}, receiver.LinkDown, false,
			[]string{"link: DOWN since 2026-11-26 11:59:18 UTC: nothing authentic heard for 42.0 s, a heartbeat is due every second", "sender: when last heard: sending, pass 2 of release 010000000000; set to 100 Mbit/s", "sending when last heard 42.0 s ago: it ended without saying so"},
			[]string{"arriving"},
		},
		{
			"sending", up(heardSession(1, link.StateSending, 0, nil), heardSession(0, link.StateIdle, 20*time.Second, nil)), receiver.LinkUp, true,
			[]string{"sender: sending, pass 2 of release 010000000000; set to 100 Mbit/s, arriving 94 Mbit/s", "session 0001000000000000: idle, heard 20.0 s ago"},
			[]string{"without saying so"},
		},
		{
			"restarted sender", up(heardSession(1, link.StateSending, time.Minute, nil), heardSession(0, link.StateIdle, 0, nil)), receiver.LinkUp, true,
			[]string{"sender: idle;", "session 0101000000000000: pass 2 of release 010000000000, sending when last heard 1 min ago: it ended without saying so"},
			nil,
		},
		{
			"resumed, not heard", up(heardSession(0, link.StateIdle, 0, nil), link.SessionStatus{Announcement: link.Announcement{Release: [32]byte{7}, Pass: 1}, Joined: started}), receiver.LinkUp, true,
			[]string{"pass 1 of release 070000000000, announced; announced before this process began, not heard since"},
			[]string{"1970", "0001-"},
		},
		{
			"a silent lane, and one that drops", func() *link.Status {
				s := up(heardSession(1, link.StateSending, 0, nil))
				s.Lanes = []link.LaneStatus{
					{Address: "192.0.2.2:4710", LastHeard: back(300 * time.Millisecond), Authentic: 5000, KernelDrops: 3},
					{Address: "192.0.2.6:4710", LastHeard: back(7 * time.Second), Authentic: 4000},
					{Address: "192.0.2.10:4710"},
				}
				return s
			}(), receiver.LinkUp, true,
			[]string{
				"lane 1: 192.0.2.2:4710, last heard 300 ms ago, 5,000 datagrams, 3 messages dropped at its socket",
				"lane 2: 192.0.2.6:4710 is SILENT since 2026-11-26 11:59:53 UTC, while others are heard, 4,000 datagrams. What is sent over it comes with the next pass",
				"lane 3: 192.0.2.10:4710 is SILENT since this process began to listen at 2026-11-26 11:50:00 UTC",
			},
			nil,
		},
		{
			"all lanes silent: the link is down", &link.Status{
				Started: started, LastHeard: back(42 * time.Second), UpSince: started,
				Lanes: []link.LaneStatus{{Address: "192.0.2.2:4710", LastHeard: back(42 * time.Second)}, {Address: "192.0.2.6:4710"}},
			}, receiver.LinkDown, false,
			[]string{"link: DOWN", "lane 1: 192.0.2.2:4710, last heard 42.0 s ago", "lane 2: 192.0.2.6:4710, nothing heard yet"},
			[]string{"SILENT"},
		},
		{"one socket is no lane", func() *link.Status {
			s := up(heardSession(0, link.StateIdle, 0, nil))
			s.Lanes = []link.LaneStatus{{Address: "192.0.2.2:4710", LastHeard: back(0)}}
			return s
		}(), receiver.LinkUp, true, nil, []string{"lane"}},
	}
}

func lossCases() []reportCase {
	up, missing, clock := upWith, missingOf, clockAhead
	return []reportCase{
		{"an outage is over", func() *link.Status {
			s := up()
			s.Outages, s.OutageFrom, s.OutageTo = 2, back(4*time.Minute), back(3*time.Minute)
			return s
		}(), receiver.LinkUp, true, []string{"outages: 2 since this process began, the last from 2026-11-26 11:56:00 UTC to 2026-11-26 11:57:00 UTC (1 min)"}, nil},
		{
			"lost before the host", up(heardSession(1, link.StateSending, 0, missing(13, 0, 0, 0))), receiver.LinkUp, true,
			[]string{"lost 13 of 1,000 datagrams (1.30 %): 13 before this host's socket (line, network card, the sender's queues)"},
			[]string{"doctor"},
		},
		{
			"lost in the host", up(heardSession(1, link.StateSending, 0, missing(13, 0, 13, 0))), receiver.LinkUp, true,
			[]string{"13 dropped by this host's socket (doctor here: receive_buffer, rmem_max)"},
			[]string{"before this host's socket"},
		},
		{
			"drops of aggregates", up(heardSession(1, link.StateSending, 0, missing(100, 0, 2, 0))), receiver.LinkUp, true,
			[]string{"2 to 100 dropped by this host's socket, which counted 2 drops of up to 64 datagrams"},
			[]string{"before this host's socket"},
		},
		{
			"both", up(heardSession(1, link.StateSending, 0, missing(200, 0, 2, 0))), receiver.LinkUp, true,
			[]string{"2 to 128 dropped by this host's socket", "at least 72 before this host's socket"},
			nil,
		},
		{
			"at the sender", up(heardSession(1, link.StateSending, 0, missing(30, 30, 0, 0))), receiver.LinkUp, true,
			[]string{"lost 30 of 1,000 datagrams (3.00 %): 30 the sender's own kernel did not take (doctor on the bastion)"},
			[]string{"this host's socket"},
		},
		{
			"at the sender and after", up(heardSession(1, link.StateSending, 0, missing(30, 10, 0, 0))), receiver.LinkUp, true,
			[]string{"10 the sender's own kernel did not take (doctor on the bastion); 20 before this host's socket"},
			nil,
		},
		{
			"at the sender and in the host", up(heardSession(1, link.StateSending, 0, missing(40, 30, 40, 0))), receiver.LinkUp, true,
			[]string{"30 the sender's own kernel did not take (doctor on the bastion); 10 dropped by this host's socket"},
			[]string{"before this host's socket"},
		},
		{"more failures than losses", up(heardSession(1, link.StateSending, 0, missing(3, 10, 5, 0))), receiver.LinkUp, true, // announcements fail too
			[]string{"(0.30 %): 3 the sender's own kernel"}, []string{"this host's socket"}},
		{"late", up(heardSession(1, link.StateSending, 0, missing(0, 0, 0, 77))), receiver.LinkUp, true, []string{"nothing lost of 1,000 datagrams; 77 were sent before this process listened"}, nil},
		{"damaged", up(heardSession(1, link.StateSending, 0, func(s *link.SessionStatus) {
			missing(5, 0, 0, 0)(s)
			s.Rejected = map[string]uint64{"tag": 5}
		})), receiver.LinkUp, true, []string{"5 came damaged or forged"}, nil},
		{"clocks within the bound", up(heardSession(0, link.StateIdle, 0, clock(5*time.Second))), receiver.LinkUp, true, nil, []string{"clock:"}},
		{"clock ahead", up(heardSession(0, link.StateIdle, 0, clock(6*time.Second))), receiver.LinkUp, true, []string{"clock: the sender's is 6.0 s ahead of this host's"}, nil},
		{"clock behind", up(heardSession(0, link.StateIdle, 0, clock(-time.Hour))), receiver.LinkUp, true, []string{"clock: the sender's is 1 h behind this host's", "replays an old session"}, nil},
	}
}

func TestReport(t *testing.T) {
	for _, tt := range append(quietCases(), lossCases()...) {
		t.Run(tt.name, func(t *testing.T) {
			r := receiver.Report(receiver.Heard{Now: heardAt(), Wall: heardAt(), Link: tt.link, Known: func(string) bool { return false }})
			text := strings.Join(r.Words, "\n")
			if r.State != tt.state || (len(r.Unready()) == 0) != tt.ready {
				t.Errorf("state %s, not ready: %q", r.State, r.Unready())
			}
			for _, w := range tt.want {
				if !strings.Contains(text, w) {
					t.Errorf("%q is not in\n%s", w, text)
				}
			}
			for _, w := range tt.absent {
				if strings.Contains(text, w) {
					t.Errorf("%q is in\n%s", w, text)
				}
			}
		})
	}
}

// TestMonotonic: a wall clock that is set back or ahead while the link is up changes no span.
func TestMonotonic(t *testing.T) {
	now := time.Now()
	st := link.Status{Started: now.Add(-time.Minute), LastHeard: now.Add(-time.Second), UpSince: now.Add(-time.Minute)}
	for _, wall := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		r := receiver.Report(receiver.Heard{Now: now, Wall: now.Add(wall), Link: &st, Known: func(string) bool { return false }})
		if r.State != receiver.LinkUp || r.SilenceSeconds != 1 || r.SinceSeconds != 60 {
			t.Errorf("wall clock %v off: %+v", wall, r)
		}
	}
}

// TestAwaited: what was announced and has not arrived, how much of it is missing, and what to do.
func TestAwaited(t *testing.T) {
	id := func(n byte) string { return fmt.Sprintf("%02x%062x", n, 0) }
	announced := func(n byte, state link.ReleaseState, change func(*link.AnnouncedRelease)) link.AnnouncedRelease {
		a := link.AnnouncedRelease{
			Release: [32]byte{n}, PayloadSize: 5e6, Pass: 1, First: back(2 * time.Hour), LastHeard: back(time.Hour), Held: true, State: state,
			EnvelopeHave: 12, EnvelopeSymbols: 40,
		}
		if change != nil {
			change(&a)
		}
		return a
	}
	reception := func(n byte, have int64, open bool) receiver.Reception {
		j := journal.Job{ID: id(n), Release: id(n), Name: "llm", Stream: "models/llm", Seq: 7, State: "RECEIVING", Created: back(3 * time.Hour)}
		return receiver.Reception{Job: j, Open: open, Have: have, Symbols: 1000, SymbolSize: 1408, Bytes: 1408_000 - 100}
	}
	idle := heardSession(0, link.StateIdle, 0, nil)
	tests := []struct {
		name       string
		session    link.SessionStatus
		silent     time.Duration
		releases   []link.AnnouncedRelease
		receptions []receiver.Reception
		want       string // of the one awaited; empty: there is none
	}{
		{"nothing", idle, 0, nil, nil, ""},
		{"arrived", idle, 0, []link.AnnouncedRelease{announced(9, link.ReleaseAccepted, nil)}, nil, ""},
		{"arrived, and no job yet", idle, 0, []link.AnnouncedRelease{announced(5, link.ReleaseAccepted, nil)}, nil, ""},
		{
			"envelope", idle, 0,
			[]link.AnnouncedRelease{announced(1, link.ReleaseAssembling, nil)},
			nil,
			"awaited 010000000000: all of 5.0 MB is missing, and 28 of 40 symbols of its envelope, announced 2026-11-26 10:00:00 UTC (2 h ago). Wait for the next pass; when the bastion is done with its passes, send one more there: bastion-packer send --pass 2 DIR",
		},
		{
			"gave way", idle, 0,
			[]link.AnnouncedRelease{announced(1, link.ReleaseAssembling, func(a *link.AnnouncedRelease) { a.Held = false })},
			nil,
			"and its envelope: its session gave way to later ones, announced",
		},
		{"verifying", idle, 0, []link.AnnouncedRelease{announced(1, link.ReleaseVerifying, nil)}, nil, "its envelope is being verified, announced 2026-11-26 10:00:00 UTC (2 h ago). Wait"},
		{
			"no place", idle, 0,
			[]link.AnnouncedRelease{announced(1, link.ReleaseRefused, func(a *link.AnnouncedRelease) { a.Reason = "too many\x1b releases" })},
			nil,
			"was not taken: too many? releases, announced 2026-11-26 10:00:00 UTC (2 h ago). It is looked at again when it is announced again: wait for the next pass",
		},
		{"refused, and known", idle, 0, []link.AnnouncedRelease{announced(9, link.ReleaseRefused, nil)}, nil, ""},
		{
			"payload", idle, 0,
			[]link.AnnouncedRelease{announced(2, link.ReleaseAccepted, func(a *link.AnnouncedRelease) { a.Pass = 3 })},
			[]receiver.Reception{reception(2, 750, true)},
			"awaited 020000000000: llm, stream models/llm seq 7: 352 kB of 1.4 MB missing (25.00 %, 250 symbols), announced 2026-11-26 09:00:00 UTC (3 h ago). Wait for the next pass; when the bastion is done with its passes, send one more there: bastion-packer send --pass 4 DIR",
		},
		{"the last symbol is short", idle, 0, nil, []receiver.Reception{reception(2, 0, true)}, "1.4 MB of 1.4 MB missing (100.00 %, 1,000 symbols)"},
		{"on the air", heardSession(2, link.StateSending, 0, nil), 0, nil, []receiver.Reception{reception(2, 750, true)}, "It is on the air: wait for the end of pass 2"},
		{"another is on the air", heardSession(3, link.StateSending, 0, nil), 0, nil, []receiver.Reception{reception(2, 750, true)}, "Wait for the next pass"},
		{"stopped in the middle", heardSession(2, link.StateSending, 20*time.Second, nil), 0, nil, []receiver.Reception{reception(2, 750, true)}, "Wait for the next pass"},
		{"link down", heardSession(2, link.StateSending, 20*time.Second, nil), 20 * time.Second, nil, []receiver.Reception{reception(2, 750, true)}, "Nothing arrives while the link is down: see there first"},
		{"not open", idle, 0, nil, []receiver.Reception{reception(2, 750, false)}, "how much of 1.4 MB is missing is not known"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := &link.Status{Started: back(time.Hour), LastHeard: back(tt.silent), UpSince: back(time.Hour), Sessions: []link.SessionStatus{tt.session}, Releases: tt.releases}
			r := receiver.Report(receiver.Heard{Now: heardAt(), Wall: heardAt(), Link: st, Receptions: tt.receptions, Known: func(r string) bool { return r == id(9) || r == id(2) }})
			text := strings.Join(r.Words, "\n")
			if (tt.want == "") != (len(r.Awaited) == 0) || len(r.Awaited) > 1 || !strings.Contains(text, tt.want) {
				t.Errorf("%d awaited; %q is not in\n%s", len(r.Awaited), tt.want, text)
			}
		})
	}
}

// TestAwaitedMetrics: a release that is half here shows at /metrics, in status and, when it is published, nowhere.
func TestAwaitedMetrics(t *testing.T) {
	b := newBench(t)
	registry := prometheus.NewRegistry()
	must(t, b.r.Close())
	r, err := receiver.Open(t.Context(), b.cfg, receiver.Options{Now: b.clock.Now, Registerer: registry})
	must(t, err)
	b.r = r
	rel := b.approved("models/llm", 1)
	p, err := b.announce(rel)
	must(t, err)
	source, _ := rel.symbols(t, groups, 0)
	put(t, p, source[:100])
	must(t, p.Flush(t.Context()))
	b.clock.add(time.Hour)
	want := map[string]float64{
		"sluice_receiver_awaited_releases": 1, "sluice_receiver_awaited_oldest_seconds": 3600,
		"sluice_receiver_awaited_missing_bytes": float64((len(source) - 100) * 1408),
	}
	all := gathered(t, registry)
	for name, w := range want {
		if value, ok := all[name]; !ok || value != w {
			t.Errorf("%s is %v, want %v", name, value, w)
		}
	}
	report, err := b.r.LinkReport()
	if err != nil || len(report.Awaited) != 1 || report.State != receiver.LinkNone || len(b.r.Ready(t.Context())) != 0 {
		t.Errorf("%+v %v", report, err)
	}
	b.fill(rel, p)
	for name, value := range gathered(t, registry) {
		if _, ok := want[name]; ok && value != 0 {
			t.Errorf("%s is %v after the release arrived", name, value)
		}
	}
}

// gathered reads the gauges of a registry.
func gathered(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	must(t, err)
	all := map[string]float64{}
	for _, f := range families {
		all[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	return all
}
