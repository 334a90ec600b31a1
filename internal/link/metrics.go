// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gauge is one number of the link: what it is called, and where it is read.
type gauge struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(Status) float64
}

// gauges lists the numbers that have no labels.
func gauges() []gauge {
	of := func(name, help string, kind prometheus.ValueType, read func(Status) float64) gauge {
		return gauge{prometheus.NewDesc("sluice_link_"+name, help, nil, nil), kind, read}
	}
	count := func(read func(Status) uint64) func(Status) float64 {
		return func(s Status) float64 { return float64(read(s)) }
	}
	return []gauge{
		of("kernel_drops_total", "Messages that the kernel dropped at the receiving socket, since it was opened.",
			prometheus.CounterValue, count(func(s Status) uint64 { return s.KernelDrops })),
		of("sent_datagrams_total", "Sealed datagrams that the sender sent while this process listened, by its counters.",
			prometheus.CounterValue, count(func(s Status) uint64 { return s.HeardSent })),
		of("send_failures_total", "Datagrams that the sender says it could not hand to its own kernel.",
			prometheus.CounterValue, count(func(s Status) uint64 { return s.SendFailures })),
		of("outages_total", "Times that the link was silent for more than 5 seconds and came back.",
			prometheus.CounterValue, count(func(s Status) uint64 { return s.Outages })),
		of("sessions", "Sessions held.",
			prometheus.GaugeValue, func(s Status) float64 { return float64(len(s.Sessions)) }),
		of("lost_datagrams", "Sealed datagrams sent and not received while this process listened. It falls when overtaken ones arrive: alert on the difference of sent_datagrams_total and authentic datagrams_total.",
			prometheus.GaugeValue, count(func(s Status) uint64 { return s.Lost })),
		of("silent_lanes", "Of several sockets, those over which nothing authentic was heard for more than 5 seconds while others were heard.",
			prometheus.GaugeValue, func(s Status) float64 { return float64(len(s.SilentLanes(time.Now()))) }),
		of("last_heard_timestamp_seconds", "When the last authentic datagram arrived; 0: none yet.",
			prometheus.GaugeValue, lastHeardSeconds),
		of("silence_seconds", "Time since the last authentic datagram, or since the start when none was heard yet, by the monotonic clock. A heartbeat is due every second.",
			prometheus.GaugeValue, func(s Status) float64 { return s.Silence(time.Now()).Seconds() }),
		of("up", "1 when something authentic was heard within the last 5 seconds.",
			prometheus.GaugeValue, func(s Status) float64 { return truth(s.Up(time.Now())) }),
		of("configured_bytes_per_second", "Rate that the sender last heard says it is set to, on the wire; 0: unlimited, or none heard.",
			prometheus.GaugeValue, func(s Status) float64 { return float64(s.Speaker().Heartbeat.Rate) / 8 }),
		of("arriving_bytes_per_second", "Rate that arrives of all sessions, on the wire.",
			prometheus.GaugeValue, arrivalRate),
		of("clock_difference_seconds", "How far the clock of the sender last heard is ahead of this host's.",
			prometheus.GaugeValue, func(s Status) float64 { d, _ := s.Speaker().ClockDifference(); return d.Seconds() }),
	}
}

func lastHeardSeconds(s Status) float64 {
	if s.LastHeard.IsZero() {
		return 0
	}
	return float64(s.LastHeard.UnixMilli()) / 1000
}

func arrivalRate(s Status) (sum float64) {
	for _, one := range s.Sessions {
		sum += one.ArrivalRate / 8
	}
	return sum
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// collector shows the receiver's last snapshot to Prometheus, so that counting
// costs nothing a datagram.
type collector struct {
	status    func() Status
	datagrams *prometheus.Desc
	state     *prometheus.Desc
	gauges    []gauge
}

// newCollector describes the metrics of the link.
func newCollector(status func() Status) *collector {
	return &collector{
		status: status,
		datagrams: prometheus.NewDesc("sluice_link_datagrams_total",
			"Datagrams received, by outcome: announcement, authentic, duplicate, or the reason of the rejection.", []string{"outcome"}, nil),
		state: prometheus.NewDesc("sluice_link_sender_state",
			"1 at what the sender last heard says that it does, 0 elsewhere; all 0 when the link is down.", []string{"state"}, nil),
		gauges: gauges(),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.datagrams
	ch <- c.state
	for _, g := range c.gauges {
		ch <- g.desc
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
	up, now := s.Up(time.Now()), s.Speaker().State
	for state := StateLeadIn; state <= StateIdle; state++ {
		ch <- prometheus.MustNewConstMetric(c.state, prometheus.GaugeValue, truth(up && state == now), state.String())
	}
	for _, g := range c.gauges {
		ch <- prometheus.MustNewConstMetric(g.desc, g.kind, g.read(s))
	}
}

// RegisterMetrics registers the metrics of the link, read from status at each
// scrape. A receiver made anew in the same process takes the place of the one
// before. A nil registerer is nothing to do.
func RegisterMetrics(registerer prometheus.Registerer, status func() Status) error {
	if registerer == nil {
		return nil
	}
	c := newCollector(status)
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
