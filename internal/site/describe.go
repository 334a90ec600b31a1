// SPDX-License-Identifier: Apache-2.0

package site

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/console"
	"sluice/pkg/mofn"
)

// Status says what this side knows of trust, and how old that is.
type Status struct {
	Version     int64          `json:"version"` // of the trust object in effect
	Newest      int64          `json:"newest"`  // that verified
	Quarantine  []Pending      `json:"quarantine"`
	Gap         int64          `json:"gap,omitempty"` // a version that was seen and cannot be taken: one before it is missing
	Freshness   Freshness      `json:"freshness"`
	Stops       []OrderStatus  `json:"stops"`
	Revocations []OrderStatus  `json:"revocations"`
	Pending     []string       `json:"pending"` // orders that wait for more officers, in words
	Current     []mofn.Current `json:"current"` // of the last snapshot
	Words       []string       `json:"words"`   // all of it for a person, a line each
}

// OrderStatus is an order, or a revocation, in a line.
type OrderStatus struct {
	Orders   []string `json:"orders"`
	Kind     string   `json:"kind"`
	Target   string   `json:"target,omitempty"`
	Officers []string `json:"officers"`
	Reason   string   `json:"reason"`
}

func (o OrderStatus) what() string { return strings.TrimSpace(o.Kind + " " + o.Target) }

// Describe puts what a site knows into numbers and words, as of now.
func (s *Site) Describe(now time.Time) Status {
	f := s.Fresh(now)
	st := Status{
		Version: s.Trust().Object.Version, Newest: s.Newest().Object.Version, Quarantine: s.Waiting(), Gap: s.Gap(), Freshness: f,
		Stops: []OrderStatus{}, Revocations: []OrderStatus{}, Pending: []string{}, Current: []mofn.Current{},
	}
	if st.Quarantine == nil {
		st.Quarantine = []Pending{}
	}
	standing := s.Standing()
	for _, o := range standing.Stops {
		st.Stops = append(st.Stops, OrderStatus{Orders: []string{o.ID}, Kind: o.Kind, Target: o.Target, Officers: []string{o.Officer}, Reason: o.Reason})
	}
	for _, r := range standing.Revocations {
		st.Revocations = append(st.Revocations, OrderStatus{Orders: r.Orders, Kind: r.Kind, Target: r.Target, Officers: r.Officers, Reason: r.Reason})
	}
	st.Pending = append(st.Pending, standing.Pending...)
	if snap := s.Snapshot(); snap != nil {
		st.Current = append(st.Current, snap.Releases...)
	}
	st.Words = st.words()
	return st
}

func (st Status) words() []string {
	lines := []string{fmt.Sprintf("trust object %d in effect; %s", st.Version, st.Freshness.Text)}
	for _, p := range st.Quarantine {
		lines = append(lines, fmt.Sprintf("trust object %d is in quarantine until %s: %.16s...", p.Version, p.Effect.UTC().Format("2006-01-02 15:04 UTC"), p.Fingerprint))
	}
	if st.Gap != 0 {
		lines = append(lines, fmt.Sprintf("TRUST GAP: version %d was seen, and one before it is missing: import a bulletin from a medium", st.Gap))
	}
	for _, o := range st.Stops {
		lines = append(lines, console.Clean(fmt.Sprintf("STOPPED: %s, by %s: %s (order %.12s)", o.what(), strings.Join(o.Officers, ", "), o.Reason, o.Orders[0])))
	}
	for _, o := range st.Revocations {
		lines = append(lines, console.Clean(fmt.Sprintf("REVOKED: %s, by %s: %s", o.what(), strings.Join(o.Officers, ", "), o.Reason)))
	}
	for _, p := range st.Pending {
		lines = append(lines, console.Clean("waiting: "+p))
	}
	return lines
}

// collector shows freshness and orders to Prometheus, as of the scrape.
type collector struct {
	report                                      func() Status
	fresh, age, version, quarantine, stops, gap *prometheus.Desc
}

// Register shows it to Prometheus.
func Register(reg prometheus.Registerer, report func() Status) error {
	if reg == nil {
		return nil
	}
	of := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_trust_"+name, help, labels, nil)
	}
	return reg.Register(&collector{
		report:     report,
		fresh:      of("fresh", "1 in the state that the site is in: unwatched, unheard, fresh, stale or late.", "state"),
		age:        of("snapshot_age_seconds", "Seconds since the counter of snapshots grew, by the monotonic clock."),
		version:    of("version", "Version of the trust object in effect."),
		quarantine: of("quarantine", "Trust objects that verified and are in quarantine."),
		stops:      of("stops", "Stops that stand."),
		gap:        of("gap", "1 when a trust object was seen whose predecessor is missing."),
	})
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.fresh, c.age, c.version, c.quarantine, c.stops, c.gap} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	st := c.report()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, state := range []State{Unwatched, Unheard, Fresh, Stale, Late} {
		v := 0.0
		if st.Freshness.State == state {
			v = 1
		}
		gauge(c.fresh, v, string(state))
	}
	gauge(c.age, st.Freshness.Age.Seconds())
	gauge(c.version, float64(st.Version))
	gauge(c.quarantine, float64(len(st.Quarantine)))
	gauge(c.stops, float64(len(st.Stops)))
	gap := 0.0
	if st.Gap != 0 {
		gap = 1
	}
	gauge(c.gap, gap)
}
