// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"sluice/integration/lab"
	"sluice/internal/admin"
	"sluice/internal/link"
)

const (
	// narrowRate is what the link carries in row N7ar, and overRate what is sent into it.
	narrowRate  = "100mbit"
	policedRate = "12500 kbytes/second" // nearly the same, in nft's words
	overRate    = "450Mbit"

	// certifiedSpeed is the sender's default, and stopTime what the receiver's default buffer of 64 MiB cannot hold of it.
	certifiedSpeed = "900Mbit"
	stopTime       = 2 * time.Second
	stopSize       = 384 * mib // four seconds of it

	// shownAfter is longer than the receiver takes to show its counts.
	shownAfter = 200 * time.Millisecond

	// soakSize is one of the transfers of a soak, nine seconds of the default rate; shortSoak is the least that a scaled soak lasts.
	soakSize  = 1024 * mib
	shortSoak = 20 * time.Second
)

func overloadRows() []row {
	counted := []column{
		{"sealed", "datagrams sealed", total},
		{"missing", "missing by the ledger", total},
		{"lost", "% lost (mean)", mean},
		{"link", "dropped by the link", total},
		{"drops", "dropped at the socket", total},
		{"received", "datagrams received", total},
	}
	return []row{
		{
			name: "N7ar", trials: 4, play: overdriven, report: counted,
			promise: fmt.Sprintf("%s into a link of %s, narrow in the sender's own queue (tbf) and behind it (nft): every datagram that is lost is counted, by the ledger and where it was lost, to the datagram; published after one more pass that sends the source", overRate, narrowRate),
		},
		{
			name: "N7br", trials: 2, play: overrun, report: counted,
			promise: fmt.Sprintf("the receiver stopped (SIGSTOP) for %s at the default rate, which its default buffer cannot hold: what was dropped is counted to the datagram; published after one more pass that sends the source", stopTime),
		},
		{
			name: "N7cr", trials: 1, play: soak,
			promise: "the sender's default profile, transfer after transfer of 1 GiB to a fresh receiver: nothing dropped, nothing missing, no failed send",
			report: []column{
				{"seconds", "seconds on the air", total},
				{"transfers", "transfers", total},
				{"sealed", "datagrams sealed", total},
				{"missing", "missing", total},
				{"drops", "dropped at the socket", total},
				{"failed", "not taken by the sender's kernel", total},
			},
		},
	}
}

// narrow is a place that carries narrowRate.
type narrow struct {
	at    string
	begin func(ctx context.Context, d *lab.Diode) error
	end   func(ctx context.Context, d *lab.Diode) error
	lost  func(ctx context.Context, b *bout) (int64, error)
}

// narrows are the two places where a link can be too narrow: the queue of the sender's own device, which tells the sender what it
// does not take, and behind it, where nobody is told.
func narrows() []narrow {
	return []narrow{
		{
			at: "the sender's queue",
			begin: func(ctx context.Context, d *lab.Diode) error {
				return errors.Join(d.Fault(ctx, ""), d.Shape(ctx, narrowRate))
			},
			end:  func(ctx context.Context, d *lab.Diode) error { return d.Unshape(ctx) },
			lost: func(_ context.Context, b *bout) (int64, error) { return b.refused() },
		},
		{
			at: "the link",
			begin: func(ctx context.Context, d *lab.Diode) error {
				return d.Fault(ctx, "", fmt.Sprintf("udp dport %d limit rate over %s burst 256 kbytes counter name hit drop", port, policedRate))
			},
			end:  func(context.Context, *lab.Diode) error { return nil },
			lost: func(ctx context.Context, b *bout) (int64, error) { return b.diode.Hits(ctx) },
		},
	}
}

// overdriven sends faster than the link is, and asks everybody who counts.
func overdriven(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	place := narrows()[seed%2]
	f, err := c.bout(ctx, fieldSize, overRate, func(b *bout) (f figures, err error) {
		if err := errors.Join(place.begin(ctx, b.diode), b.up(ctx)); err != nil {
			return nil, errors.Join(err, place.end(ctx, b.diode))
		}
		s, complete, err := b.send(ctx, 1, nil)
		if err != nil {
			return nil, errors.Join(err, place.end(ctx, b.diode))
		}
		lost, err1 := place.lost(ctx, b)
		f, a, err2 := b.account(ctx, s)
		f["link"] = float64(lost)
		// What was sent and not sealed are announcements; those that did not arrive no ledger lists.
		unsealed := a.received + a.drops + lost - int64(s.Sent)
		lostUnsealed := unsealed - a.announcements
		err = errors.Join(err1, err2, place.end(ctx, b.diode))
		switch {
		case lost == 0:
			err = errors.Join(err, errors.New("the link was fast enough: this trial proves nothing, or this machine is too slow for it"))
		case lostUnsealed < 0 || unsealed > unlisted:
			err = errors.Join(err, fmt.Errorf("of %d datagrams sealed, %d arrived with %d announcements and %d were lost: %d are told twice or not at all",
				s.Sent, a.received+a.drops, a.announcements, lost, unsealed))
		}
		err = errors.Join(err, want("missing by the ledger, and lost by link and socket", int64(s.Missing), lost+a.drops-lostUnsealed))
		return f, errors.Join(err, b.again(ctx, complete))
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", place.at, err)
	}
	return f, err
}

var refusedField = regexp.MustCompile(`(\d+) datagrams were not taken by this host's kernel`)

// refused is how many datagrams the sender says that its kernel did not take. (tbf counts each twice: the sender tries again.)
func (b *bout) refused() (int64, error) {
	said, err := os.ReadFile(b.Path("send.log"))
	if err != nil {
		return 0, err
	}
	m := refusedField.FindSubmatch(said)
	if m == nil {
		return 0, fmt.Errorf("the sender says nothing of datagrams that were not taken: %q", said)
	}
	return strconv.ParseInt(string(m[1]), 10, 64)
}

// overrun stops the receiver for longer than its socket's buffer lasts.
func overrun(ctx context.Context, c *certifier, _ uint64) (figures, error) {
	return c.bout(ctx, stopSize, certifiedSpeed, func(b *bout) (figures, error) {
		if err := errors.Join(b.countArrivals(ctx), b.up(ctx)); err != nil {
			return nil, err
		}
		s, complete, err := b.send(ctx, 1, func(*sending) error {
			if err := b.until(ctx, 0.05); err != nil {
				return err
			}
			err := b.high.SignalAll(syscall.SIGSTOP)
			<-time.After(stopTime)
			return errors.Join(err, b.high.SignalAll(syscall.SIGCONT))
		})
		if err != nil {
			return nil, err
		}
		f, a, err := b.account(ctx, s)
		arrived, err2 := b.diode.Hits(ctx)
		err = errors.Join(err, err2)
		lostUnsealed := a.drops - int64(s.Missing) // announcements, of which four a second are due
		switch {
		case a.drops == 0:
			err = errors.Join(err, errors.New("the buffer was large enough: this trial proves nothing, or this machine is too slow for it"))
		case lostUnsealed < 0 || lostUnsealed > unlisted:
			err = errors.Join(err, fmt.Errorf("the ledger misses %d datagrams, the socket dropped %d", s.Missing, a.drops))
		}
		err = errors.Join(err, want("received or dropped at the socket, and arrived", a.received+a.drops, arrived),
			want("sealed datagrams and announcements, and arrived", int64(s.Sent)+a.announcements+lostUnsealed, arrived))
		return f, errors.Join(err, b.again(ctx, complete))
	})
}

// again sends a pass that has the source, over a link that is as it should be, unless the repair symbols were enough.
func (b *bout) again(ctx context.Context, complete bool) (err error) {
	if err := b.diode.Fault(ctx, ""); err != nil {
		return err
	}
	if !complete {
		_, complete, err = b.send(ctx, fullPass, nil)
	}
	if err == nil && !complete {
		err = fmt.Errorf("%w after one more full pass", errIncomplete)
	}
	if err != nil {
		return err
	}
	return b.published(ctx)
}

// account is what others than the ledger counted, to the datagram: nobody here merges or segments any.
type account struct {
	drops         int64 // at the socket, by /proc/net/udp
	received      int64 // by the receiver, of any outcome
	announcements int64 // of them
}

// countArrivals has nft count what arrives, and take nothing.
func (b *bout) countArrivals(ctx context.Context) error {
	return b.diode.Fault(ctx, "", fmt.Sprintf("udp dport %d counter name hit accept", port))
}

// account holds the ledger of the one session against the counts of the kernel.
func (b *bout) account(ctx context.Context, s link.SessionStatus) (f figures, a account, err error) {
	f = figures{"sealed": float64(s.Sent), "missing": float64(s.Missing), "lost": 100 * float64(s.Missing) / float64(s.Sent)}
	if a.drops, err = b.diode.SocketDrops(ctx, port); err != nil {
		return f, a, err
	}
	<-time.After(shownAfter)
	outcomes, err := b.outcomes(ctx)
	if err != nil {
		return f, a, err
	}
	a.announcements = outcomes["announcement"]
	for _, n := range outcomes {
		a.received += n
	}
	f["drops"], f["received"] = float64(a.drops), float64(a.received)
	st, err := b.HighStatus(ctx)
	return f, a, errors.Join(err, want("dropped at the socket, by the receiver and by the kernel", int64(st.KernelDrops), a.drops),
		want("authentic, by the session and in all", int64(s.Authentic), outcomes["authentic"]))
}

var outcomeLine = regexp.MustCompile(`(?m)^sluice_link_datagrams_total\{outcome="(\w+)"\} (\S+)$`)

// outcomes is what became of each datagram that the receiver took, by its metrics.
func (b *bout) outcomes(ctx context.Context) (map[string]int64, error) {
	var page []byte
	if err := admin.Fetch(ctx, "unix:"+b.Path("high.sock"), "/metrics", &page); err != nil {
		return nil, err
	}
	all := make(map[string]int64)
	for _, m := range outcomeLine.FindAllSubmatch(page, -1) {
		n, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return nil, err
		}
		all[string(m[1])] = int64(n)
	}
	if len(all) == 0 {
		return nil, errors.New("the metrics do not say what became of the datagrams")
	}
	return all, nil
}

// soak sends once, and again until it was on the air for long enough.
func soak(ctx context.Context, c *certifier, _ uint64) (figures, error) {
	all := figures{"seconds": 0, "transfers": 0, "sealed": 0, "missing": 0, "drops": 0, "failed": 0}
	for all["transfers"] == 0 || all["seconds"] < c.soakTime().Seconds() {
		f, err := c.bout(ctx, soakSize, certifiedSpeed, func(b *bout) (figures, error) { return b.undisturbed(ctx) })
		for name, n := range f {
			all[name] += n
		}
		if err != nil {
			return all, fmt.Errorf("transfer %.0f: %w", all["transfers"]+1, err)
		}
		all["transfers"]++
	}
	return all, nil
}

// soakTime is how long row N7cr is on the air.
func (c *certifier) soakTime() time.Duration {
	return max(min(c.soak, shortSoak), time.Duration(float64(c.soak)*c.scale))
}

// undisturbed sends a pass as an operator does who changed nothing, and wants nothing to be lost.
func (b *bout) undisturbed(ctx context.Context) (figures, error) {
	b.profile = nil
	if err := b.up(ctx); err != nil {
		return nil, err
	}
	s, err := b.onePass(ctx, nil)
	if err != nil {
		return nil, err
	}
	drops, err1 := b.diode.SocketDrops(ctx, port)
	air, err2 := b.onAir()
	f := figures{"seconds": air.Seconds(), "sealed": float64(s.Sent), "missing": float64(s.Missing), "drops": float64(drops), "failed": float64(s.Heartbeat.Failed)}
	return f, errors.Join(err1, err2, want("missing", s.Missing, 0), want("dropped at the socket", drops, 0),
		want("not taken by the sender's kernel", s.Heartbeat.Failed, 0), b.published(ctx))
}

var elapsedField = regexp.MustCompile(`repair symbols, (\S+)`)

// onAir is how long the sender says that the last pass took.
func (b *bout) onAir() (time.Duration, error) {
	said, err := os.ReadFile(b.Path("send.log"))
	if err != nil {
		return 0, err
	}
	m := elapsedField.FindSubmatch(said)
	if m == nil {
		return 0, fmt.Errorf("the sender does not say how long it took: %q", said)
	}
	return time.ParseDuration(string(m[1]))
}
