// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"sluice/internal/link"
	"sluice/internal/strictyaml"
)

// Lane is one of several ways to the receiver: an address that another route, another interface, another diode leads to.
type Lane struct {
	Address string             `yaml:"address"`
	Rate    strictyaml.BitRate `yaml:"rate"` // left out: link.rate
}

// EachLane is every lane with its own rate: those of link.lanes, or the one of link.address.
func (l *Link) EachLane() []Lane {
	if len(l.Lanes) == 0 {
		return []Lane{{Address: l.Address, Rate: l.Rate}}
	}
	lanes := make([]Lane, len(l.Lanes))
	for i, lane := range l.Lanes {
		if lane.Rate == 0 {
			lane.Rate = l.Rate
		}
		lanes[i] = lane
	}
	return lanes
}

// TotalRate is what all lanes carry together, bits a second.
func (l *Link) TotalRate() (sum int64) {
	for _, lane := range l.EachLane() {
		sum += int64(lane.Rate)
	}
	return sum
}

// validateLanes wants one address or several lanes, and no lane twice.
func (l *Link) validateLanes(p *problems) {
	if len(l.Lanes) == 0 {
		_, err := netip.ParseAddrPort(l.Address)
		p.check(err == nil, "link.address: %q is not an address and port", l.Address)
		return
	}
	p.check(l.Address == "", "link: address and lanes: write one of both; a single lane is an address")
	p.check(len(l.Lanes) <= link.MaxLanes, "link.lanes: %d lanes, at most %d", len(l.Lanes), link.MaxLanes)
	seen := map[netip.AddrPort]int{}
	for i, lane := range l.Lanes {
		a, err := netip.ParseAddrPort(lane.Address)
		p.check(err == nil, "link.lanes[%d].address: %q is not an address and port", i, lane.Address)
		if first, twice := seen[a]; twice && err == nil {
			p.check(false, "link.lanes[%d].address: %s is that of link.lanes[%d]: two lanes to one address are one", i, a, first)
		} else {
			seen[a] = i
		}
		p.check(lane.Rate == 0 || lane.Rate >= minRate, "link.lanes[%d].rate: at least 1Mbit is required", i)
	}
}

// Conns are the open lanes of a link.
type Conns []link.Lane

// Dial opens the sending sockets of the diode, one a lane. Of several lanes one may be impossible to open now, its interface down perhaps: it is
// tried again whenever something is to be sent over it. The error is that of the only lane, or of all.
func Dial(ctx context.Context, cfg Link, log *zap.Logger) (_ Conns, err error) {
	gso, err := link.ParseOffload(cfg.GSO)
	if err != nil {
		return nil, fmt.Errorf("link.gso: %w", err)
	}
	var conns Conns
	var errs []error
	for _, lane := range cfg.EachLane() {
		w := &laneWriter{ctx: context.WithoutCancel(ctx), options: link.SocketOptions{Address: lane.Address, GSO: gso, Buffer: int(cfg.SendBuffer), Logger: log}}
		if err := w.dial(); err != nil {
			errs = append(errs, err)
			log.Warn("lane not open: it is tried again", zap.String("lane", lane.Address), zap.Error(err))
		}
		conns = append(conns, link.Lane{Name: lane.Address, Conn: w, Rate: int64(lane.Rate)})
	}
	if len(errs) == len(conns) {
		return nil, errors.Join(errs...)
	}
	return conns, nil
}

// Close closes every socket.
func (c Conns) Close() error {
	errs := make([]error, 0, len(c))
	for _, lane := range c {
		errs = append(errs, lane.Conn.Close())
	}
	return errors.Join(errs...)
}

// redialAfter is the pause between attempts to open a lane.
const redialAfter = time.Second

// laneWriter is a socket that is opened when that is possible. As long as it is not, its datagrams are failures of this host.
type laneWriter struct {
	ctx     context.Context //nolint:containedctx // of the process: sockets are opened at any time
	options link.SocketOptions
	conn    link.BatchWriter // nil: not open
	tried   time.Time
	err     error
}

// dial opens the socket.
func (w *laneWriter) dial() (err error) {
	w.conn, w.err = link.DialUDP(w.ctx, w.options)
	w.tried = time.Now()
	if w.err != nil {
		w.conn = nil
	}
	return w.err
}

// WriteBatch implements link.BatchWriter.
func (w *laneWriter) WriteBatch(b []byte, segment int) error {
	if w.conn == nil && time.Since(w.tried) > redialAfter {
		_ = w.dial() // the error is kept
	}
	if w.conn == nil {
		return &link.SendError{Lost: len(b) / segment, Err: w.err}
	}
	return w.conn.WriteBatch(b, segment)
}

// Close implements link.BatchWriter.
func (w *laneWriter) Close() error {
	if w.conn == nil {
		return nil
	}
	return w.conn.Close()
}
