// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"sluice/integration/lab"
)

// look is how often a process that is watched is looked at: as often as the rate is to be told to one per cent.
const look = 5 * time.Millisecond

// sample is what a process and those that it started had used at a moment.
type sample struct {
	at  time.Time
	cpu time.Duration
}

// watch samples a process, so that what it had used at some moment can be told later. The receiver begins to verify in the moment that it
// has the payload, on every processor: whoever asks 0.1 s later counts a fifth of a second of SHA-256 as reception.
type watch struct {
	quit    chan struct{}
	done    chan struct{}
	samples []sample
	err     error
}

func newWatch(d *lab.Daemon) *watch {
	w := &watch{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(look)
		defer tick.Stop()
		pids := d.Processes()
		for {
			cpu, err := cpuOf(pids)
			if err != nil {
				w.err = err
				return
			}
			w.samples = append(w.samples, sample{time.Now(), cpu})
			select {
			case <-w.quit:
				return
			case <-tick.C:
			}
		}
	}()
	return w
}

// end ends the watch, and tells what the process had used so far. A second call tells the same.
func (w *watch) end() (time.Duration, error) {
	select {
	case <-w.quit:
	default:
		close(w.quit)
	}
	<-w.done
	if w.err != nil || len(w.samples) == 0 {
		return 0, errors.Join(errors.New("bench: nothing is known of the receiver's CPU time"), w.err)
	}
	return w.samples[len(w.samples)-1].cpu, nil
}

// at is what the process had used at a moment, between two looks in proportion. The watch has ended.
func (w *watch) at(t time.Time) time.Duration {
	i := sort.Search(len(w.samples), func(i int) bool { return w.samples[i].at.After(t) })
	switch i {
	case 0:
		return w.samples[0].cpu
	case len(w.samples):
		return w.samples[i-1].cpu
	}
	a, b := w.samples[i-1], w.samples[i]
	part := float64(t.Sub(a.at)) / float64(b.at.Sub(a.at))
	return a.cpu + time.Duration(part*float64(b.cpu-a.cpu))
}

// cpuOf adds up what running processes have used so far.
func cpuOf(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		var used unix.Timespec
		// The clock of another process's CPU time, as clock_getcpuclockid(3) makes it: the kernel's ABI, CPUCLOCK_SCHED of ~pid.
		if err := unix.ClockGettime(int32(^pid<<3|2), &used); err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		sum += time.Duration(used.Nano())
	}
	return sum, nil
}
