// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"sluice/integration/lab"
	"sluice/internal/link"
)

const (
	mib = 1 << 20

	// fieldSize is the release of most rows: 47,663 symbols in 249 groups, so that 4,980 in a row may be lost.
	fieldSize = 64 * mib
	// longSize makes a pass last five seconds at longRate.
	longSize = 128 * mib
	// crashSize makes 200,000 datagrams, repair symbols included.
	crashSize = 244 * mib

	fieldRate = "300Mbit"
	longRate  = "200Mbit"
	// floodRate leaves this machine room for ten times as many forged datagrams.
	floodRate     = "50Mbit"
	floodRateBits = 50_000_000

	// cableOut is longer than one pass repairs at fieldRate (201 ms), and shorter than two.
	cableOut = 300 * time.Millisecond

	// unlisted is how many packets the faults may take that no ledger lists: announcements, repeated every 250 ms.
	unlisted = 64

	pauses     = 10
	pauseTime  = 200 * time.Millisecond
	killEvery  = time.Second
	downTime   = 200 * time.Millisecond
	sharedRoom = 64 << 20 // of a socket that outlives its reader, as deploy/systemd has it: three seconds at longRate
)

func socketRows() []row {
	lost := []column{{"sealed", "datagrams sealed", total}, {"lost", "% lost (mean)", mean}, {"missing", "missing by the ledger", total}, {"hit", "dropped by nft", total}}
	uniform := faulty("", fmt.Sprintf("udp dport %d numgen random mod 10000 < 100 counter name hit drop", port))
	outages := faulty("set bad { type inet_service; flags dynamic,timeout; timeout 5ms; size 16; }",
		fmt.Sprintf("udp dport @bad counter name hit drop\n    udp dport %d numgen random mod 100000 < 20 add @bad { udp dport timeout 5ms } counter name hit drop", port))
	rows := []row{
		{name: "N1r", trials: 5, play: uniform, report: lost, promise: "N1 with the real binaries and sockets: 1 % dropped by nft, 64 MiB published byte-identical after one pass"},
		{name: "N2r", trials: 3, play: outages, report: lost, promise: "N2 with real sockets: outages of 5 ms at random, by nft, published after one pass"},
		{name: "N2gr", trials: 3, play: realBursts, report: lost[:3], promise: "N2 with real sockets: its Gilbert-Elliott bursts by tc-bpf, published after one pass"},
		{
			name: "N3r", trials: 3, play: cableCut, promise: "N3 with real sockets: the link is down for 300 ms in mid-transfer, which is more than one pass repairs; published after pass 2",
			report: []column{{"missing", "datagrams missing by the ledger", total}, {"lost", "source symbols missing after pass 1", total}},
		},
		{
			name: "N8r", trials: 2, play: stoppedReceiver, promise: "the receiver stopped (SIGSTOP) 10 times for 200 ms at the configured rate: nothing lost",
			report: []column{{"sealed", "datagrams sealed", total}, {"missing", "missing", total}, {"drops", "dropped by the kernel", total}},
		},
		{
			name: "S8r", trials: 2, play: killedReceiver, promise: "the receiver killed (SIGKILL) every second behind an inherited socket, 200 ms down: no datagram lost at the socket, published after one pass",
			report: []column{{"sealed", "datagrams sealed", total}, {"drops", "dropped by the kernel", total}, {"kills", "kills", total}, {"lost", "symbols died with a process and were repaired", total}},
		},
		{
			name: "S1r", trials: 2, play: realFlood, promise: "S1 with real sockets: 10 times as many forged datagrams; no session made, published after one pass, at least 90 % of the rate without them",
			report: []column{{"factor", "forged for each genuine (least)", least}, {"kept", "% of the rate kept (least)", least}, {"missing", "genuine datagrams missing", total}},
		},
		{
			name: "I6r", trials: 1, play: nothingBack, promise: "no packet leaves the high side, in any of the rows on sockets; a packet sent back on purpose is counted",
			report: []column{{"tried", "packets tried to leave", total}, {"back", "came back", total}, {"control", "counted of the one on purpose", total}},
		},
	}
	rows = slices.Insert(rows, slices.IndexFunc(rows, func(r row) bool { return r.name == "N8r" }), overloadRows()...)
	for i := range rows {
		rows[i].sockets = true
	}
	return rows
}

// faulty sends one pass through rules of nftables.
func faulty(sets, rule string) trial {
	return func(ctx context.Context, c *certifier, _ uint64) (figures, error) {
		return c.bout(ctx, fieldSize, fieldRate, func(b *bout) (figures, error) {
			if err := errors.Join(b.diode.Fault(ctx, sets, rule), b.up(ctx)); err != nil {
				return nil, err
			}
			s, err := b.onePass(ctx, nil)
			if err != nil {
				return nil, err
			}
			hit, err := b.diode.Hits(ctx)
			f := figures{"sealed": float64(s.Sent), "missing": float64(s.Missing), "hit": float64(hit), "lost": 100 * float64(s.Missing) / float64(s.Sent)}
			switch {
			case err != nil:
			case hit == 0:
				err = errors.New("nft dropped nothing: this trial proves nothing")
			case uint64(hit) < s.Missing || uint64(hit) > s.Missing+unlisted:
				err = fmt.Errorf("nft dropped %d datagrams, the ledger misses %d", hit, s.Missing)
			}
			return f, errors.Join(err, b.published(ctx))
		})
	}
}

// onePass sends pass 1, does something meanwhile, and wants it to be enough. It returns the ledger of the pass.
func (b *bout) onePass(ctx context.Context, meanwhile func(p *sending) error) (link.SessionStatus, error) {
	s, complete, err := b.send(ctx, 1, meanwhile)
	if err == nil && !complete {
		err = fmt.Errorf("%w after one pass: %d of %d datagrams missing", errIncomplete, s.Missing, s.Sent)
	}
	return s, err
}

// send sends a pass, does something meanwhile, and waits until the receiver has made of it what can be made of it.
func (b *bout) send(ctx context.Context, n int, meanwhile func(p *sending) error) (s link.SessionStatus, complete bool, err error) {
	p, err := b.pass(n)
	if err != nil {
		return s, false, err
	}
	defer p.Kill()
	if meanwhile != nil {
		if err := meanwhile(p); err != nil {
			return s, false, err
		}
	}
	sealed, err := p.end()
	if err != nil {
		return s, false, err
	}
	if complete, err = b.settled(ctx); err != nil {
		return s, false, err
	}
	s, err = b.ledger(ctx, sealed)
	return s, complete, err
}

func cableCut(ctx context.Context, c *certifier, _ uint64) (figures, error) {
	return c.bout(ctx, fieldSize, fieldRate, func(b *bout) (figures, error) {
		if err := b.up(ctx); err != nil {
			return nil, err
		}
		s, complete, err := b.send(ctx, 1, func(*sending) error { return errors.Join(b.until(ctx, 0.3), b.diode.Cut(ctx, cableOut)) })
		if err != nil {
			return nil, err
		}
		f := figures{"missing": float64(s.Missing)}
		if complete {
			return f, fmt.Errorf("complete after pass 1 with %d datagrams missing: this trial proves nothing", s.Missing)
		}
		r, err := b.Release(ctx, b.release.env.ID.String())
		if err != nil {
			return f, err
		}
		f["lost"] = float64(r.Symbols - r.Have)
		if _, complete, err = b.send(ctx, 2, nil); err == nil && !complete {
			err = fmt.Errorf("%w after pass 2", errIncomplete)
		}
		if err != nil {
			return f, err
		}
		return f, b.published(ctx)
	})
}

func stoppedReceiver(ctx context.Context, c *certifier, _ uint64) (figures, error) {
	return c.bout(ctx, longSize, longRate, func(b *bout) (figures, error) {
		if err := b.up(ctx); err != nil {
			return nil, err
		}
		s, err := b.onePass(ctx, func(*sending) error {
			if err := b.until(ctx, 0.02); err != nil {
				return err
			}
			for range pauses {
				err := b.high.SignalAll(syscall.SIGSTOP)
				<-time.After(pauseTime)
				if err = errors.Join(err, b.high.SignalAll(syscall.SIGCONT)); err != nil {
					return err
				}
				<-time.After(pauseTime)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		drops, err := b.diode.SocketDrops(ctx, port)
		f := figures{"sealed": float64(s.Sent), "missing": float64(s.Missing), "drops": float64(drops)}
		return f, errors.Join(err, want("missing", s.Missing, 0), want("dropped by the kernel", drops, 0), b.published(ctx))
	})
}

// killedReceiver holds the receiver's socket itself, as systemd does, and kills the receiver again and again.
func killedReceiver(ctx context.Context, c *certifier, _ uint64) (figures, error) {
	return c.bout(ctx, crashSize, longRate, func(b *bout) (figures, error) {
		socket, err := b.inherited()
		if err != nil {
			return nil, err
		}
		defer socket.Close()
		b.begin = func(context.Context) (*lab.Daemon, error) { return b.StartActivated("high.yaml", socket) }
		if err := b.up(ctx); err != nil {
			return nil, err
		}
		p, err := b.pass(1)
		if err != nil {
			return nil, err
		}
		defer p.Kill()
		f := figures{}
		if f["kills"], err = b.killAgain(ctx, p); err != nil {
			return nil, err
		}
		sealed, err := p.end()
		if err != nil {
			return nil, err
		}
		return b.afterKills(ctx, f, sealed)
	})
}

// killAgain kills the receiver every second of a pass, and starts it again after a while, in which the sender goes on.
func (b *bout) killAgain(ctx context.Context, p *sending) (kills float64, err error) {
	if err := b.until(ctx, 0.02); err != nil {
		return 0, err
	}
	for ; p.Died() == nil; kills++ {
		<-time.After(killEvery - downTime)
		b.high.Kill()
		<-time.After(downTime)
		if err := b.up(ctx); err != nil {
			return kills, err
		}
	}
	return kills, nil
}

func (b *bout) afterKills(ctx context.Context, f figures, sealed uint64) (figures, error) {
	complete, err := b.settled(ctx)
	if err != nil {
		return nil, err
	}
	drops, err := b.diode.SocketDrops(ctx, port)
	f["sealed"], f["drops"] = float64(sealed), float64(drops)
	if !complete {
		return f, fmt.Errorf("%w after one pass", errIncomplete)
	}
	err = errors.Join(err, want("dropped by the kernel", drops, 0), b.published(ctx))
	for _, m := range recoveredField.FindAllStringSubmatch(b.high.Tail(recentLines), -1) { // of the envelope, and of the payload
		n, _ := strconv.ParseFloat(m[1], 64) // digits
		f["lost"] = max(f["lost"], n)
	}
	return f, err
}

// recoveredField is what the receiver's log says of a release that is complete.
var recoveredField = regexp.MustCompile(`object complete and durable.*"recovered": (\d+)`)

// recentLines of the log hold that of the last release.
const recentLines = 40

// inherited opens the receiver's socket on the high side.
func (b *bout) inherited() (file *os.File, err error) {
	err = b.diode.Inside(b.diode.High, func() error {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(lab.DiodeHigh), Port: port})
		if err != nil {
			return err
		}
		defer conn.Close() //nolint:errcheck // its descriptor lives on in the file
		if file, err = conn.File(); err != nil {
			return err
		}
		return syscall.SetsockoptInt(int(file.Fd()), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, sharedRoom)
	})
	return file, err
}

// realFlood sends one pass in peace and one under a flood, each to a fresh receiver, and compares their rates.
func realFlood(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	peace, _, err := c.underRealFlood(ctx, seed, 0)
	if err != nil {
		return nil, err
	}
	flooded, f, err := c.underRealFlood(ctx, seed, floodFactor)
	if err != nil {
		return nil, err
	}
	f["kept"] = 100 * flooded / peace
	switch {
	case f["kept"] < keptBar:
		err = fmt.Errorf("%.1f %% of the rate was kept, at least %d are wanted", f["kept"], keptBar)
	case f["factor"] < floodFactor*0.9:
		err = fmt.Errorf("%.1f forged datagrams for each genuine one were sent: this machine is too slow for this row", f["factor"])
	}
	return f, err
}

// underRealFlood sends a pass and returns the genuine datagrams that were received a second.
func (c *certifier) underRealFlood(ctx context.Context, seed uint64, factor int) (rate float64, f figures, err error) {
	f, err = c.bout(ctx, fieldSize/2, floodRate, func(b *bout) (figures, error) {
		if err := b.up(ctx); err != nil {
			return nil, err
		}
		var forged uint64
		began := time.Now()
		s, err := b.onePass(ctx, func(p *sending) (err error) {
			if err := b.until(ctx, 0.01); err != nil || factor == 0 {
				return err
			}
			forged, err = b.flood(ctx, p, seed, factor)
			return err
		})
		rate = float64(s.Authentic) / time.Since(began).Seconds()
		if err != nil {
			return nil, err
		}
		st, err := b.HighStatus(ctx)
		f := figures{"factor": float64(forged) / float64(s.Sent), "missing": float64(s.Missing)}
		return f, errors.Join(err, want("sessions", len(st.Sessions), 1), b.published(ctx))
	})
	return rate, f, err
}

// flood sends forged datagrams from the low side, factor times as many as the genuine ones, until the sender has ended.
func (b *bout) flood(ctx context.Context, p *sending, seed uint64, factor int) (sent uint64, err error) {
	st, err := b.HighStatus(ctx)
	if err != nil || len(st.Sessions) == 0 {
		return 0, errors.Join(err, errors.New("no session to forge datagrams of"))
	}
	var conn link.BatchWriter
	err = b.diode.Inside(b.diode.Low, func() (err error) {
		conn, err = link.DialUDP(ctx, link.SocketOptions{Address: fmt.Sprintf("%s:%d", lab.DiodeHigh, port)})
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	batch := forgedBatch(seed, st.Sessions[0].Session)
	size := link.Profile1500.DatagramSize()
	each := uint64(len(batch) / size)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); p.Died() == nil; <-tick.C {
		due := time.Since(began).Seconds() * floodRateBits * float64(factor) / float64((size+wireOverhead)*8)
		for ; sent < uint64(due); sent += each {
			var busy *link.SendError
			if err := conn.WriteBatch(batch, size); err != nil && !errors.As(err, &busy) {
				return sent, err
			}
		}
	}
	return sent, nil
}

// forgedBatch is one full batch of forged datagrams of the right length.
func forgedBatch(seed uint64, session [8]byte) (batch []byte) {
	size := link.Profile1500.DatagramSize()
	genuine := make([]byte, size)
	link.AppendHeader(genuine[:0], link.Header{Type: link.TypePayload, Profile: link.Profile1500, Session: session, Counter: 1})
	f := newForger(seed, nil)
	for len(batch)+size <= link.MaxBatch && len(batch)/size < link.MaxSegments {
		if d := f.forge(genuine); len(d) == size {
			batch = append(batch, d...)
		}
	}
	return batch
}

// nothingBack asks the kernel what tried to go the other way in all the rows before, and shows that it would have been seen.
func nothingBack(ctx context.Context, c *certifier, _ uint64) (figures, error) {
	return c.bout(ctx, fieldSize, fieldRate, func(b *bout) (figures, error) {
		if err := b.up(ctx); err != nil {
			return nil, err
		}
		if _, err := b.onePass(ctx, nil); err != nil {
			return nil, err
		}
		tried, back, err := b.diode.Counters(ctx)
		if err != nil {
			return nil, err
		}
		control, err := b.sendBack(ctx, tried)
		f := figures{"tried": float64(tried), "back": float64(back), "control": float64(control)}
		return f, errors.Join(err, want("packets that tried to leave", tried, 0), want("packets that came back", back, 0), want("counted of one on purpose", control, 1))
	})
}

// sendBack sends one packet the wrong way on purpose and returns how many were counted.
func (b *bout) sendBack(ctx context.Context, before int64) (int64, error) {
	if err := b.diode.LetOut(ctx); err != nil {
		return 0, err
	}
	err := b.diode.Inside(b.diode.High, func() error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "udp4", lab.DiodeLow+":4711")
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("back"))
		return err
	})
	after, _, err2 := b.diode.Counters(ctx)
	return after - before, errors.Join(err, err2)
}
