// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// collector shows the receiver's last snapshot to Prometheus, so that counting
// costs nothing a datagram.
type collector struct {
	status    func() Status
	datagrams *prometheus.Desc
	drops     *prometheus.Desc
	sessions  *prometheus.Desc
	lastHeard *prometheus.Desc
}

// newCollector describes the metrics of the link.
func newCollector(status func() Status) *collector {
	return &collector{
		status: status,
		datagrams: prometheus.NewDesc("sluice_link_datagrams_total",
			"Datagrams received, by outcome: announcement, authentic, duplicate, or the reason of the rejection.", []string{"outcome"}, nil),
		drops: prometheus.NewDesc("sluice_link_kernel_drops_total",
			"Messages that the kernel dropped at the receiving socket.", nil, nil),
		sessions: prometheus.NewDesc("sluice_link_sessions",
			"Sessions held.", nil, nil),
		lastHeard: prometheus.NewDesc("sluice_link_last_heard_timestamp_seconds",
			"When the last authentic datagram arrived; 0: none yet.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.datagrams, c.drops, c.sessions, c.lastHeard} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Every outcome is always there, so
// that a rate over it has a beginning.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	outcome := map[string]uint64{"announcement": s.Announcements, "authentic": s.Authentic, "duplicate": s.Duplicates}
	for _, name := range reasonNames() {
		outcome["rejected_"+name] = s.Rejected[name]
	}
	for name, n := range outcome {
		ch <- prometheus.MustNewConstMetric(c.datagrams, prometheus.CounterValue, float64(n), name)
	}
	ch <- prometheus.MustNewConstMetric(c.drops, prometheus.CounterValue, float64(s.KernelDrops))
	ch <- prometheus.MustNewConstMetric(c.sessions, prometheus.GaugeValue, float64(len(s.Sessions)))
	heard := 0.0
	if !s.LastHeard.IsZero() {
		heard = float64(s.LastHeard.UnixMilli()) / 1000
	}
	ch <- prometheus.MustNewConstMetric(c.lastHeard, prometheus.GaugeValue, heard)
}

// register registers the collector. A receiver made anew in the same process
// takes the place of the one before.
func register(registerer prometheus.Registerer, c *collector) error {
	if registerer == nil {
		return nil
	}
	err := registerer.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		registerer.Unregister(already.ExistingCollector)
		err = registerer.Register(c)
	}
	if err != nil {
		return fmt.Errorf("register link metrics: %w", err)
	}
	return nil
}
