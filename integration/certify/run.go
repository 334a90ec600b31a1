// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/link/linktest"
)

const (
	// shm is where trials store what they receive: the disk is not what is certified here.
	shm = "/dev/shm"

	// maxFailures is how many failing trials of a row are reported, and after how many a row is given up.
	maxFailures = 5
)

var (
	errFailed = errors.New("a promise was not kept")
	errSkip   = errors.New("cannot be tried here")
	errRow    = errors.New("no such row")
)

// certifier runs rows.
type certifier struct {
	options
	t       *testing.T
	out     io.Writer
	scratch string // directory of the trials
	field   *field // of the rows on sockets; nil until the first
	wards   ward   // where processes die
}

// certify runs the rows of the options, writes the reports, and returns errFailed when a row failed.
func certify(ctx context.Context, t *testing.T, o options, out io.Writer) (err error) {
	rows, err := chosen(o)
	if err != nil {
		return err
	}
	c := &certifier{options: o, t: t, out: out}
	if c.scratch, err = scratchDir(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.field.close(), os.RemoveAll(c.scratch)) }()
	r := newReport(o)
	began := time.Now()
	var count ledgers
	for _, row := range rows {
		res := c.row(ctx, row, &count)
		r.Rows = append(r.Rows, res)
		fmt.Fprintln(out, res.line())
	}
	if all := count.result(); all.Trials > 0 {
		r.Rows = append(r.Rows, all)
		fmt.Fprintln(out, all.line())
	}
	r.Seconds = math.Round(time.Since(began).Seconds())
	if err := r.write(o); err != nil {
		return err
	}
	return r.verdict()
}

// scratchDir makes a directory in memory, where there is such a file system.
func scratchDir() (string, error) {
	if dir, err := os.MkdirTemp(shm, "sluice-certify-"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "sluice-certify-")
}

// chosen returns the rows that the options name.
func chosen(o options) ([]row, error) {
	book, ok := books()[o.book()]
	if !ok {
		return nil, fmt.Errorf("%w: table %q; there are link and crash", errRow, o.table)
	}
	all := book.rows()
	if o.rows == "" {
		return all, nil
	}
	names := strings.Split(o.rows, ",")
	for _, name := range names {
		if !slices.ContainsFunc(all, func(r row) bool { return r.name == name }) {
			return nil, fmt.Errorf("%w: %q", errRow, name)
		}
	}
	return slices.DeleteFunc(all, func(r row) bool { return !slices.Contains(names, r.name) }), nil
}

// count scales a number of things that a row does, at least one.
func (c *certifier) count(n int) int { return max(1, int(math.Ceil(float64(n)*c.scale))) }

// row runs the trials of a row.
func (c *certifier) row(ctx context.Context, r row, count *ledgers) result {
	n := c.count(r.trials)
	if c.trials > 0 {
		n = c.trials
	}
	res := result{Name: r.name, Promise: r.promise, FirstSeed: c.seed, table: c.book()}
	if r.heavy && c.scale < 1 && c.rows == "" {
		return res.skipped(fmt.Errorf("%w: too large for -scale %v", errSkip, c.scale))
	}
	began := time.Now()
	played := c.trial(ctx, r, n)
	res.Seconds = math.Round(10*time.Since(began).Seconds()) / 10
	if !r.sockets && !r.disks {
		count.add(played)
	}
	return res.judged(r, played)
}

// played is one trial, as it went.
type played struct {
	seed    uint64
	figures figures
	err     error
}

// diskWorkers is how many trials of real programs run at once: each waits for the other half of it half of the time.
func diskWorkers() int { return 2 * runtime.GOMAXPROCS(0) }

// trial plays n trials of a row, on every core where time is virtual. It returns those that were played, in the order of their seeds.
func (c *certifier) trial(ctx context.Context, r row, n int) []played {
	workers := runtime.GOMAXPROCS(0)
	switch {
	case r.sockets || r.heavy:
		workers = 1
	case r.disks:
		workers = diskWorkers()
	}
	var mu sync.Mutex
	var all []played
	next, failures := c.seed, 0
	take := func() (seed uint64, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		seed = next
		next++
		return seed, seed < c.seed+uint64(n) && failures < maxFailures && ctx.Err() == nil
	}
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			c.t.Run(fmt.Sprintf("%s worker %d", r.name, worker), func(t *testing.T) {
				for seed, ok := take(); ok; seed, ok = take() {
					p := c.one(ctx, t, r, seed)
					mu.Lock()
					all = append(all, p)
					if p.err != nil {
						failures++
					}
					mu.Unlock()
				}
			})
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b played) int { return int(a.seed) - int(b.seed) })
	return all
}

// one plays one trial: in real time, or in a bubble of virtual time. What panics in the bubble's own goroutine has failed, and so has a
// bubble in which everybody waits for somebody else.
func (c *certifier) one(ctx context.Context, t *testing.T, r row, seed uint64) (p played) {
	p.seed = seed
	defer func() {
		if v := recover(); v != nil {
			p.err = fmt.Errorf("panic: %v", v)
		}
	}()
	if r.sockets || r.disks {
		p.figures, p.err = r.play(ctx, c, seed)
		return p
	}
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if v := recover(); v != nil {
				p.err = fmt.Errorf("panic: %v", v)
			}
		}()
		p.figures, p.err = r.play(t.Context(), c, seed)
	})
	return p
}

// ledgers counts, over all rows in virtual time, the trials whose ledger was exact: row I4.
type ledgers struct {
	exact, wrong int
	first        *failure
}

func (l *ledgers) add(all []played) {
	for _, p := range all {
		if !errors.Is(p.err, linktest.ErrLedger) {
			l.exact++
			continue
		}
		if l.wrong++; l.first == nil {
			l.first = &failure{Seed: p.seed, Error: p.err.Error()}
		}
	}
}

// result is row I4.
func (l *ledgers) result() result {
	res := result{
		Name: "I4", Trials: l.exact + l.wrong, Passed: l.exact, Status: pass,
		Promise: "the ledger is exact to the datagram in every trial above that is in virtual time: sent = authentic + missing, " +
			"received = authentic + duplicates + rejected + announcements, each number equal to an independent count",
	}
	if l.first != nil {
		res.Status, res.Failures = fail, []failure{*l.first}
	}
	return res
}
