// SPDX-License-Identifier: Apache-2.0

// An internal test: no disk fails when it is asked to. With a real one that does, it is row S5r of integration/certify.

package journal

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFailedSync: after a failed fdatasync nothing is written any more; a failed write may be tried again.
func TestFailedSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := Open(path, Options{States: anyStates()})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	err = j.failed(&fs.PathError{Op: "write", Path: path, Err: syscall.ENOSPC})
	if errors.Is(err, ErrSync) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
		t.Errorf("a failed write: %v", err)
	}
	if err := j.Append(Event{Action: "after a failed write"}); err != nil {
		t.Errorf("after a failed write: %v", err)
	}
	if err := j.failed(syscall.EIO); !errors.Is(err, ErrSync) || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), path) {
		t.Errorf("a failed fdatasync: %v", err)
	}
	err = j.Append(Event{Action: "after a failed fdatasync"})
	if !errors.Is(err, ErrSync) || !strings.Contains(err.Error(), path) {
		t.Errorf("after a failed fdatasync: %v", err)
	}
	head, err := j.Head()
	if err != nil || head.Seq != 1 {
		t.Errorf("%+v, %v: something was written after a failed fdatasync", head, err)
	}
}
