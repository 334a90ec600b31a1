// SPDX-License-Identifier: Apache-2.0

package site

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sluice/internal/trust"
)

// dirName is the directory of a site below the state directory of a daemon.
const dirName = "trust"

// Place says where a daemon has its site, and how it begins.
type Place struct {
	Dir         string // the state directory
	Object      string // the file of the first trust object
	Fingerprint string // that a person confirmed, 64 hex digits
	Quarantine  time.Duration
}

func (s Place) options(now time.Time) (Options, error) {
	first, data, err := trust.LoadData(s.Object, s.Fingerprint)
	return Options{First: first, FirstData: data, Quarantine: s.Quarantine, Now: now}, err
}

// Open opens the site of a daemon, and makes its directory. now has a reading of the monotonic clock. The caller closes it.
func (s Place) Open(now time.Time) (*Site, error) {
	opt, err := s.options(now)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(s.Dir, dirName)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	if opt.Dir, err = os.OpenRoot(path); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	open, err := Open(opt)
	if err != nil {
		return nil, errors.Join(err, opt.Dir.Close())
	}
	return open, nil
}

// Effective gives the trust objects that have been in effect, the newest first, for verbs that judge without the daemon, or beside it. It
// changes nothing. A daemon that never ran knows the first one.
func (s Place) Effective(now time.Time) ([]*trust.Store, error) {
	opt, err := s.options(now)
	if err != nil {
		return nil, err
	}
	opt.Dir, err = os.OpenRoot(filepath.Join(s.Dir, dirName))
	if errors.Is(err, os.ErrNotExist) {
		return []*trust.Store{opt.First}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	defer opt.Dir.Close()
	return Effective(opt)
}
