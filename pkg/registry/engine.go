// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// engine is a Publisher over any store. Directory and S3 embed it.
type engine struct {
	st  store
	opt Options

	mu     sync.Mutex
	seen   int64        // highest catalogue serial this process has read
	recent []*Published // a few verified receipts, newest last, see remember
	sums   []string     // recent[i] was read under a COMMIT with this receipt digest
}

// recentReceipts is how many verified receipts stay in memory, so that reading
// the files of one release one by one parses its receipt once.
const recentReceipts = 4

func newEngine(st store, opt Options) *engine {
	opt.Workers = cmp.Or(max(opt.Workers, 0), DefaultWorkers)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &engine{st: st, opt: opt}
}

// Close releases what the target holds open.
func (e *engine) Close() error { return e.st.close() }

// now is the time as the formats write it.
func (e *engine) now() string { return e.opt.Now().UTC().Format(time.RFC3339) }

// putBytes puts a small object and makes it durable.
func (e *engine) putBytes(ctx context.Context, key, stage string, data []byte) error {
	_, err := e.st.put(ctx, key, bytesBody(data, stage, true))
	return err
}

// bytesBody is a body over memory.
func bytesBody(data []byte, stage string, final bool) body {
	return body{
		size: int64(len(data)), sha256: sha256.Sum256(data), stage: stage, final: final,
		open: func() (io.ReadSeekCloser, error) { return memory{bytes.NewReader(data)}, nil },
		add:  func(int64) {},
	}
}

// memory is a bytes.Reader that can be closed.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// readSmall reads a whole object of at most limit bytes.
func (e *engine) readSmall(ctx context.Context, key string, limit int64) ([]byte, object, error) {
	rc, obj, err := e.st.get(ctx, key, false)
	if err != nil {
		return nil, object{}, err
	}
	defer rc.Close()
	if obj.size > limit {
		return nil, object{}, fmt.Errorf("read %s: %w", key, corruptf("%d bytes, limit %d", obj.size, limit))
	}
	data, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err != nil {
		return nil, object{}, fmt.Errorf("read %s: %w", key, err)
	}
	if int64(len(data)) != obj.size {
		return nil, object{}, fmt.Errorf("read %s: %w", key, corruptf("%d bytes, announced %d", len(data), obj.size))
	}
	return data, obj, nil
}

// hashBuffer is the unit of reading back.
const hashBuffer = 1 << 20

// hash reads key from the medium and returns the SHA-256 of its bytes and its
// size as read.
func (e *engine) hash(ctx context.Context, key string, add func(int64)) (sum [32]byte, n int64, err error) {
	rc, o, err := e.st.get(ctx, key, true)
	if err != nil {
		return sum, 0, err
	}
	defer rc.Close()
	sum, n, err = hashAll(ctx, rc, o.size, add)
	if err != nil {
		err = fmt.Errorf("read back %s: %w", key, err)
	}
	return sum, n, err
}

// hashAll reads r to its end and returns the SHA-256 of its bytes and their
// number, of which about size are expected.
func hashAll(ctx context.Context, r io.Reader, size int64, add func(int64)) (sum [32]byte, n int64, err error) {
	h := sha256.New()
	buf := make([]byte, max(1, min(hashBuffer, size+1)))
	for {
		if err := ctx.Err(); err != nil {
			return sum, n, err
		}
		got, err := r.Read(buf)
		h.Write(buf[:got])
		n += int64(got)
		add(int64(got))
		if errors.Is(err, io.EOF) {
			return [32]byte(h.Sum(nil)), n, nil
		}
		if err != nil {
			return sum, n, err
		}
	}
}

// each runs work for 0..n-1 with the configured number of workers and stops at
// the first error.
func (e *engine) each(ctx context.Context, n int, work func(ctx context.Context, i int) error) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(e.opt.Workers)
	for i := range n {
		if inner.Err() != nil {
			break
		}
		group.Go(func() error { return work(inner, i) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// listing reads all keys below prefix into a map, at most limit of them.
func (e *engine) listing(ctx context.Context, prefix string, limit int) (map[string]object, error) {
	have := make(map[string]object)
	err := e.st.list(ctx, prefix, func(o object) error {
		if len(have) >= limit {
			return fmt.Errorf("%w: more than %d keys below %s", ErrConflict, limit, prefix)
		}
		have[o.key] = o
		return nil
	})
	return have, err
}

// hexID is a release id as the layout writes it.
func hexID(id [32]byte) string { return hex.EncodeToString(id[:]) }
