// SPDX-License-Identifier: Apache-2.0

package site

import (
	"io/fs"
	"os"
)

// OpenWriting is Open with another way to write files, so that a test can fail each of them.
func OpenWriting(opt Options, write func(*os.Root, string, []byte, fs.FileMode) error) (*Site, error) {
	opt.write = write
	return Open(opt)
}

// Strangers is how many orders are kept whose keys nobody enrolled.
func (s *Site) Strangers() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.orders {
		if !o.accepted() {
			n++
		}
	}
	return n
}

const (
	MaxUnknown = maxUnknown
	MaxChain   = maxChain
)
