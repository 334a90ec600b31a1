// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sluice/integration/lab"
)

type bench struct {
	lab.Site
	opt options
}

// measured is what one transfer cost.
type measured struct {
	goodput     float64       // payload bits a second, from the first payload symbol's turn until the payload is complete and durable
	sender      lab.Usage     // of the send verb, which also hashes the payload once before it sends
	receiverCPU time.Duration // until the payload was complete and durable
	receiver    lab.Usage     // of the whole run, publication included
}

// transfer sends a fresh release of the given size to a fresh receiver and measures both processes.
func (b *bench) transfer(ctx context.Context, n int, size int64, rate string) (m measured, err error) {
	dir := b.Path("release")
	defer func() {
		err = errors.Join(err, os.RemoveAll(dir), os.RemoveAll(b.Path("high")), os.RemoveAll(b.Path("registry")))
	}()
	if err := randomFile(filepath.Join(dir, "payload", "data.safetensors"), size, uint64(n)); err != nil {
		return m, err
	}
	env, err := b.SealData(ctx, dir, "data/bench", n, lab.Security()[:2]...)
	if err != nil {
		return m, err
	}
	listen, err := lab.FreeUDP()
	if err != nil {
		return m, err
	}
	if err := b.HighConfig(listen, ""); err != nil {
		return m, err
	}
	high, err := b.StartBinary("diode-receiver", "high.yaml")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, high.Stop(30*time.Second)); m.receiver = high.Usage() }()
	if err := b.WaitUp(ctx, high, "high.sock"); err != nil {
		return m, err
	}
	began := time.Now()
	_, m.sender, err = b.Measure(ctx, "bastion-packer", append(b.SendArgs(dir, listen, rate, 1), "--settle", settleTime.String())...)
	if err != nil {
		return m, err
	}
	return m, b.await(ctx, high, env.ID.String(), began, size, &m)
}

// await waits until the release is published, and takes the figures of its reception from the audit trail.
func (b *bench) await(ctx context.Context, high *lab.Daemon, id string, began time.Time, size int64, m *measured) error {
	err := lab.WaitFor(ctx, 5*time.Second, "complete after one pass", func() (bool, error) {
		r, err := b.Release(ctx, id)
		return r != nil && r.State != "RECEIVING", err
	})
	if err != nil {
		r, _ := b.Release(ctx, id)
		if r != nil {
			return fmt.Errorf("%w: %d of %d symbols", err, r.Have, r.Symbols)
		}
		return err
	}
	if m.receiverCPU, err = cpuOf(high); err != nil {
		return err
	}
	st, err := b.HighStatus(ctx)
	if err != nil {
		return err
	}
	accepted, received := time.Time{}, time.Time{}
	for _, e := range st.Events {
		switch {
		case e.Release == id && e.Action == "accepted":
			accepted = e.Time
		case e.Release == id && e.Action == "received":
			received = e.Time
		}
	}
	if accepted.Before(began) || received.IsZero() {
		return errors.New("the audit trail does not show the reception")
	}
	m.goodput = float64(size) * 8 / (received.Sub(accepted) - settleTime).Seconds()
	return b.WaitState(ctx, high, id, "PUBLISHED", 2*time.Minute)
}

// cpuOf reads what a running process has used so far (proc(5), fields 14 and 15, in clock ticks of 10 ms).
func cpuOf(d *lab.Daemon) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.PID()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", d.PID(), len(f))
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// randomFile writes a safetensors file of size bytes that do not compress: the inspection lets no unknown kind of file pass.
func randomFile(name string, size int64, seed uint64) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	header := fmt.Appendf(nil, `{"t":{"dtype":"U8","shape":[%[1]d],"data_offsets":[0,%[1]d]}}`, size-headerSize)
	header = append(header, bytes.Repeat([]byte(" "), headerSize-8-len(header))...)
	if _, err := f.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)); err != nil {
		return err
	}
	size -= headerSize
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	src := rand.NewChaCha8(key)
	buf := make([]byte, 1<<20)
	for size > 0 {
		n := min(size, int64(len(buf)))
		_, _ = src.Read(buf[:n])
		if _, err := f.Write(buf[:n]); err != nil {
			return err
		}
		size -= n
	}
	return nil
}

// headerSize is the size of the file's safetensors header, its length field included.
const headerSize = 256
