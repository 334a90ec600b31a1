// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package packer

import (
	"errors"
	"os"
)

// Files are mapped on Linux only; elsewhere they are read.

func mapFile(*os.File, int64) ([]byte, error) { return nil, errors.ErrUnsupported }

func populate([]byte) error { return errors.ErrUnsupported }

func drop([]byte) {}

func unmap([]byte) {}

func reaches(*os.File, int64) bool { return false }
