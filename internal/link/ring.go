// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"

	"sluice/internal/largepage"
)

const (
	// ringBatches x batchBuffers x 64 KiB is the memory of the ring. When it is full
	// the reader waits and the socket's own buffer fills: what overflows there is
	// counted by the kernel.
	ringBatches  = 4
	batchBuffers = 32

	// batchAggregates is how many aggregates of datagrams a batch takes: half a MiB,
	// so that what is handled is still in the caches of the cores. What has to wait
	// waits in the socket, where it costs nothing; 32 MiB of it here made a transfer
	// cost the receiver a tenth more.
	batchAggregates = 8
)

// received is one filled batch of the ring.
type received struct {
	bufs []Buffer
	n    int // filled
	lane int // that brought it
}

// ring hands batches from the threads that only receive, one a lane, to the
// goroutine that authenticates, and back. Its buffers are allocated once.
type ring struct {
	free, full chan *received

	mu  sync.Mutex
	err error // why readers ended; read it after full is closed
}

// newRing allocates the buffers: those of one lane, and one more for each further
// lane, which its reader holds while the lane is quiet.
func newRing(lanes int) *ring {
	batches := ringBatches + lanes - 1
	g := &ring{free: make(chan *received, batches), full: make(chan *received, batches)}
	all := largepage.Bytes(batches * batchBuffers * BufferSize)
	for batch := range batches {
		memory := all[batch*batchBuffers*BufferSize:][:batchBuffers*BufferSize]
		b := &received{bufs: make([]Buffer, batchBuffers)}
		for i := range b.bufs {
			b.bufs[i].Data = memory[i*BufferSize : (i+1)*BufferSize : (i+1)*BufferSize]
		}
		g.free <- b
	}
	return g
}

// start starts a reader for each connection, and closes full when all have ended.
// One that fails ends the others.
func (g *ring) start(conns []BatchReader) {
	var readers sync.WaitGroup
	for lane, conn := range conns {
		readers.Go(func() {
			if err := g.read(lane, conn); err != nil {
				g.failed(err)
				for _, other := range conns {
					other.Close()
				}
			}
		})
	}
	go func() {
		readers.Wait()
		close(g.full)
	}()
}

// failed notes why a reader ended.
func (g *ring) failed(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = errors.Join(g.err, err)
}

// read receives until the connection is closed or fails, on a thread of its own.
func (g *ring) read(lane int, conn BatchReader) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	want := batchBuffers
	for b := range g.free {
		n, err := conn.ReadBatch(b.bufs[:want])
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read link, lane %d: %w", lane+1, err)
		}
		want = enough(b.bufs[:n])
		b.n, b.lane = n, lane
		g.full <- b
	}
	return nil
}

// enough is how many messages the next batch takes, after these.
func enough(last []Buffer) int {
	if n := len(last); n > 0 && last[n-1].N > last[n-1].Segment {
		return batchAggregates
	}
	return batchBuffers
}
