// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package durable

import (
	"io/fs"
	"math"
	"os"
)

// Direct is nothing here: files are written through the page cache.
const Direct = 0

// Datasync is fsync here, which does more.
func Datasync(f *os.File) error { return Sync(f) }

// SyncFilesystem is fsync of f alone here: the daemons run on Linux.
func SyncFilesystem(f *os.File) error { return Sync(f) }

// StartWriteback does nothing here.
func StartWriteback(*os.File, int64, int64) {}

// DropCache does nothing here.
func DropCache(*os.File, int64, int64) {}

// WriteMapped is a pwrite here.
func WriteMapped(f *os.File, b []byte, offset int64) error {
	_, err := f.WriteAt(b, offset)
	return err
}

// PunchHole keeps the blocks here: the space comes back when the file is removed.
func PunchHole(*os.File, int64, int64) error { return nil }

func allocate(f *os.File, size int64) error { return writeZeros(f, size) }

// free is not known here: the writes themselves find out.
func free(*os.File) (int64, error) { return math.MaxInt64, nil }

func allocated(info fs.FileInfo) int64 { return info.Size() }
