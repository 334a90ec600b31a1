// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sluice/integration/lab"
)

type bench struct {
	lab.Site
	opt options
}

// measured is what one transfer cost.
type measured struct {
	goodput     float64       // payload bits a second, from the first payload symbol's turn until the payload is complete and durable
	sender      lab.Usage     // of the send verb, which also hashes the payload once before it sends
	receiverCPU time.Duration // until the payload was complete and durable
	receiverRSS int64         // peak of the whole run, publication included, bytes
}

// transfer sends a fresh release of the given size to a fresh receiver and measures both processes.
func (b *bench) transfer(ctx context.Context, n int, size int64, rate string) (m measured, err error) {
	dir := b.Path("release")
	defer func() {
		err = errors.Join(err, os.RemoveAll(dir), os.RemoveAll(b.Path("high")), os.RemoveAll(b.Path("registry")))
	}()
	if err := lab.RandomFile(filepath.Join(dir, "payload", "data.safetensors"), size, uint64(n)); err != nil {
		return m, err
	}
	env, err := b.SealData(ctx, dir, "data/bench", n, lab.Security()[:2]...)
	if err != nil {
		return m, err
	}
	listen, err := lab.FreeUDP()
	if err != nil {
		return m, err
	}
	if err := b.HighConfig(listen, ""); err != nil {
		return m, err
	}
	high, err := b.StartBinary("diode-receiver", "high.yaml")
	if err != nil {
		return m, err
	}
	defer func() {
		var perr error
		m.receiverRSS, perr = high.PeakRSS()
		err = errors.Join(err, perr, high.Stop(30*time.Second))
	}()
	if err := b.WaitUp(ctx, high, "high.sock"); err != nil {
		return m, err
	}
	began := time.Now()
	_, m.sender, err = b.Measure(ctx, "bastion-packer", append(b.SendArgs(dir, listen, rate, 1), "--settle", settleTime.String())...)
	if err != nil {
		return m, err
	}
	return m, b.await(ctx, high, env.ID.String(), began, size, &m)
}

// await waits until the release is published, and takes the figures of its reception from the audit trail.
func (b *bench) await(ctx context.Context, high *lab.Daemon, id string, began time.Time, size int64, m *measured) error {
	err := lab.WaitFor(ctx, 5*time.Second, "complete after one pass", func() (bool, error) {
		r, err := b.Release(ctx, id)
		return r != nil && r.State != "RECEIVING", err
	})
	if err != nil {
		r, _ := b.Release(ctx, id)
		if r != nil {
			return fmt.Errorf("%w: %d of %d symbols", err, r.Have, r.Symbols)
		}
		return err
	}
	if m.receiverCPU, err = cpuOf(high); err != nil {
		return err
	}
	st, err := b.HighStatus(ctx)
	if err != nil {
		return err
	}
	accepted, received := time.Time{}, time.Time{}
	for _, e := range st.Events {
		switch {
		case e.Release == id && e.Action == "accepted":
			accepted = e.Time
		case e.Release == id && e.Action == "received":
			received = e.Time
		}
	}
	if accepted.Before(began) || received.IsZero() {
		return errors.New("the audit trail does not show the reception")
	}
	m.goodput = float64(size) * 8 / (received.Sub(accepted) - settleTime).Seconds()
	return b.WaitState(ctx, high, id, "PUBLISHED", 2*time.Minute)
}

// cpuOf reads what a running process has used so far (proc(5), fields 14 and 15, in clock ticks of 10 ms).
func cpuOf(d *lab.Daemon) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.PID()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", d.PID(), len(f))
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}
