// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"time"

	"sluice/integration/lab"
	"sluice/internal/strictyaml"
)

// othersWrite is what others leave in memory for the receiver's disk: more than a second of its time, as when the kernel writes what a
// publication left there, or a backup does.
const othersWrite = strictyaml.Bytes(1536 << 20)

// others writes it to the page cache, and returns what brings it to the disk at once, when a quarter of the payload is there. The kernel
// would, too, half a minute after it was written.
func (b *bench) others() (flush func(context.Context, ends) error, err error) {
	name := b.Path("others")
	if err := lab.RandomFile(name, int64(othersWrite), 2); err != nil {
		return nil, err
	}
	return func(ctx context.Context, e ends) (err error) {
		defer func() { err = errors.Join(err, os.Remove(name)) }()
		for {
			r, err := b.Release(ctx, e.id)
			if err = errors.Join(err, ctx.Err(), e.high.Died()); err != nil {
				return err
			}
			if r != nil && (r.State != "RECEIVING" || r.Have > r.Symbols/4) {
				return b.settle()
			}
			<-time.After(2 * look)
		}
	}, nil
}
