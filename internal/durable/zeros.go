// SPDX-License-Identifier: Apache-2.0

package durable

import "os"

// writeZeros reserves blocks the slow way: it appends zeros until f is size bytes long. Holes before its end stay.
func writeZeros(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20) // 1 MiB a call: few calls, little memory
	for at := info.Size(); at < size; {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
