// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"golang.org/x/sys/unix"
)

const (
	// leastDisk and diskStep are the sizes of the disks that are full: one page more each time, from one on which nothing fits.
	leastDisk, diskStep = 16 << 10, 4 << 10

	// fullSteps reaches the disk on which all of the release fits.
	fullSteps = 400

	// roomyDisk is what the disk grows to afterwards.
	roomyDisk = 16 << 20
)

// fullRows fills the disk: at each size another step of the way is the one that has no room.
func fullRows() []row {
	report := []column{
		{"refused", "had no room and said so", total}, {"named", "of them with the bytes lacking", total}, {"fitted", "had room", total},
	}
	promise := "%s on a disk that is full at every page in turn: it ends with 1 and says that there is no space, with the bytes lacking where the payload has none; nothing partial is visible; the same finishes when the disk grows"
	return []row{
		{name: "D1", trials: fullSteps, disks: true, play: full(importScene()), report: report, judge: bothEnds, promise: fmt.Sprintf(promise, "an import")},
		{name: "D1r", trials: fullSteps, disks: true, play: full(receiveScene()), report: report, judge: bothEnds, promise: fmt.Sprintf(promise, "a reception")},
	}
}

// bothEnds wants that the steps went from too little to enough.
func bothEnds(all []figures) error {
	fitted, named, large := sum(all, "fitted"), sum(all, "named"), sum(all, "large")
	if !few(all) && (named == 0 || large > 0 && fitted == 0) {
		return fmt.Errorf("of %d disks %v were large enough and %v too small for the payload: the steps do not span the release", len(all), fitted, named)
	}
	return nil
}

// sizeOf is the disk of a seed. Fewer trials than steps take every so many, so that both ends are among them.
func (c *certifier) sizeOf(seed uint64) int64 {
	n := uint64(c.count(fullSteps))
	if c.trials > 0 {
		n = fullSteps
	}
	return leastDisk + diskStep*int64((seed-1)%n*fullSteps/n)
}

var lacking = regexp.MustCompile(`free at least [1-9]\d* bytes more`)

func full(s scene) trial {
	return func(ctx context.Context, c *certifier, seed uint64) (f figures, err error) {
		w, err := c.ward(ctx)
		if err != nil {
			return nil, err
		}
		p, err := w.bed(w.plain, "")
		if err != nil {
			return nil, err
		}
		size := c.sizeOf(seed)
		err = isolated(func() error {
			if err := unix.Mount("tmpfs", p.disk, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
				return fmt.Errorf("%w: %w", errSkip, err)
			}
			f, err = p.fill(s)
			return errors.Join(err, unmount(p.disk))
		})
		if f != nil {
			f["large"] = number01(size > leastDisk+diskStep*fullSteps*9/10)
		}
		if err != nil {
			err = fmt.Errorf("a disk of %d bytes: %w", size, err)
		}
		return f, errors.Join(err, p.gone())
	}
}

func (p *bed) fill(s scene) (figures, error) {
	o, err := s.program(p).run()
	if err != nil {
		return nil, err
	}
	f := figures{"refused": number01(o.code == 1), "named": number01(o.code == 1 && lacking.MatchString(o.errs)), "fitted": number01(o.code == 0)}
	switch {
	case o.code == 0:
		err = p.published0()
	case o.code == 1:
		err = worded(o.errs, "ENOSPC")
	default:
		err = errors.New(o.String())
	}
	if err != nil {
		return f, err
	}
	if _, err := p.judge(); err != nil {
		return f, fmt.Errorf("%w (it ended with %s)", err, o)
	}
	if err := unix.Mount("", p.disk, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", roomyDisk)); err != nil {
		return f, err
	}
	return f, p.finishes(s.again(p))
}
