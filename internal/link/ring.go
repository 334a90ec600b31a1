// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"
	"net"
	"runtime"
)

const (
	// ringBatches x batchBuffers x 64 KiB = 32 MiB is what the receiver takes
	// from the kernel ahead of its work. When it is full the reader waits and the
	// socket's own buffer fills: what overflows there is counted by the kernel.
	ringBatches  = 16
	batchBuffers = 32
)

// received is one filled batch of the ring.
type received struct {
	bufs []Buffer
	n    int // filled
}

// ring hands batches from the thread that only receives to the goroutine that
// authenticates, and back. Its buffers are allocated once.
type ring struct {
	free, full chan *received
	err        error // why the reader ended; read it after full is closed
}

// newRing allocates the buffers.
func newRing() *ring {
	g := &ring{free: make(chan *received, ringBatches), full: make(chan *received, ringBatches)}
	for range ringBatches {
		memory := make([]byte, batchBuffers*BufferSize)
		b := &received{bufs: make([]Buffer, batchBuffers)}
		for i := range b.bufs {
			b.bufs[i].Data = memory[i*BufferSize : (i+1)*BufferSize : (i+1)*BufferSize]
		}
		g.free <- b
	}
	return g
}

// read receives until the connection is closed or fails, on a thread of its own.
func (g *ring) read(conn BatchReader) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(g.full)
	for b := range g.free {
		n, err := conn.ReadBatch(b.bufs)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			g.err = fmt.Errorf("read link: %w", err)
			return
		}
		b.n = n
		g.full <- b
	}
}
