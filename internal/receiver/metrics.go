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
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.transitions), reg.Register(m.refused), reg.Register(m.published))
}
