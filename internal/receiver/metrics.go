// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	transitions *prometheus.CounterVec
	refused     prometheus.Counter
	published   prometheus.Counter

	bulletinProblems prometheus.Counter
	forks            prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "sluice", Subsystem: "receiver", Name: "transitions_total",
			Help: "State changes of releases, by the state reached.",
		}, []string{"state"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "sluice", Subsystem: "receiver", Name: "refused_total",
			Help: "Envelopes and payloads refused.",
		}),
		published: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "sluice", Subsystem: "receiver", Name: "published_total",
			Help: "Releases published.",
		}),
		bulletinProblems: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "sluice", Subsystem: "receiver", Name: "bulletin_problems_total",
			Help: "Parts of bulletins that were refused, replays apart.",
		}),
		forks: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "sluice", Subsystem: "receiver", Name: "forks_total",
			Help: "Times that the bastion's audit log contradicted what was seen of it.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.transitions), reg.Register(m.refused), reg.Register(m.published), reg.Register(m.bulletinProblems), reg.Register(m.forks))
}

// awaited shows the releases that were announced and have not arrived, as of the scrape.
type awaited struct {
	report                         func() (LinkReport, error)
	releases, oldest, missingBytes *prometheus.Desc
}

// registerAwaited registers them.
func registerAwaited(reg prometheus.Registerer, report func() (LinkReport, error)) error {
	if reg == nil {
		return nil
	}
	of := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_receiver_awaited_"+name, help, nil, nil)
	}
	return reg.Register(&awaited{
		report:       report,
		releases:     of("releases", "Releases that were announced and have not arrived."),
		oldest:       of("oldest_seconds", "How long ago the oldest of them was announced; 0: there is none."),
		missingBytes: of("missing_bytes", "Bytes that are missing of them, as far as it is known."),
	})
}

// Describe implements prometheus.Collector.
func (a *awaited) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{a.releases, a.oldest, a.missingBytes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (a *awaited) Collect(ch chan<- prometheus.Metric) {
	r, err := a.report()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(a.releases, err)
		return
	}
	var oldest float64
	var missing int64
	for _, w := range r.Awaited {
		oldest, missing = max(oldest, w.SinceSeconds), missing+max(w.MissingBytes, 0)
	}
	for d, v := range map[*prometheus.Desc]float64{a.releases: float64(len(r.Awaited)), a.oldest: oldest, a.missingBytes: float64(missing)} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
}
