// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"sluice/internal/link"
)

// blastResult is what the sockets alone carry.
type blastResult struct {
	goodput float64       // received bits a second
	cpu     time.Duration // both ends, for the bytes that were sent
}

// rawBlasts are the medians of as many blasts as the row has turns.
func (b *bench) rawBlasts(s setup) (blastResult, error) {
	list := make([]blastResult, max(s.turns, 1))
	for i := range list {
		var err error
		if list[i], err = b.rawBlast(s); err != nil {
			return blastResult{}, fmt.Errorf("raw blast: %w", err)
		}
	}
	return blastResult{median(list, func(r blastResult) float64 { return r.goodput }), median(list, func(r blastResult) time.Duration { return r.cpu })}, nil
}

// rawBlast sends size bytes as datagrams as fast as the sockets take them, and counts what arrives: the same batching, no code, no
// encryption, no disk, no pacing. What is lost on the way does not count.
func (b *bench) rawBlast(s setup) (res blastResult, err error) {
	rx, tx, err := b.sockets(s)
	if err != nil {
		return res, err
	}
	before := selfCPU()
	var received int64
	var last time.Time
	var wg sync.WaitGroup
	wg.Go(func() { received, last = count(rx) })
	began := time.Now()
	err = blast(tx, int64(s.size), s.profile().DatagramSize())
	<-time.After(200 * time.Millisecond) // what is queued in the kernel
	err = errors.Join(err, tx.Close(), rx.Close())
	wg.Wait()
	return blastResult{float64(received) * 8 / last.Sub(began).Seconds(), selfCPU() - before}, err
}

// sockets opens both ends of the link.
func (b *bench) sockets(s setup) (rx link.BatchReader, tx link.BatchWriter, err error) {
	addr, err := b.place.address()
	if err != nil {
		return nil, nil, err
	}
	err = within(b.place.high(), func() (err error) {
		rx, err = link.ListenUDP(context.Background(), link.SocketOptions{Address: addr, Buffer: 32 << 20})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	err = within(b.place.low(), func() (err error) {
		tx, err = link.DialUDP(context.Background(), link.SocketOptions{Address: addr, GSO: s.offload()})
		return err
	})
	if err != nil {
		return nil, nil, errors.Join(err, rx.Close())
	}
	return rx, tx, nil
}

func blast(tx link.BatchWriter, size int64, segment int) error {
	batch := make([]byte, segment*min(link.MaxSegments, link.MaxBatch/segment))
	for ; size > 0; size -= int64(len(batch)) {
		var busy *link.SendError
		if err := tx.WriteBatch(batch, segment); err != nil && !errors.As(err, &busy) {
			return err
		}
	}
	return nil
}

// count reads until the socket closes.
func count(rx link.BatchReader) (bytes int64, last time.Time) {
	bufs := make([]link.Buffer, 8)
	for i := range bufs {
		bufs[i].Data = make([]byte, link.BufferSize)
	}
	for {
		n, err := rx.ReadBatch(bufs)
		if errors.Is(err, net.ErrClosed) || err != nil {
			return bytes, last
		}
		for _, b := range bufs[:n] {
			bytes += int64(b.N)
		}
		last = time.Now()
	}
}

func selfCPU() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
