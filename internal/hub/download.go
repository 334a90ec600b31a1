// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

const (
	// chunkSize is how many bytes are read, written and hashed at once, from a multiple of it on: a large page, which the page
	// cache then has in one piece. Whoever maps the file (the sender does) maps it so.
	chunkSize = 2 << 20
	maxBreaks = 10_000 // broken connections a file: a server that gives one byte a connection ends here
)

// transfer is one file on its way from the Hub into its .part file. The digest always covers exactly the first off bytes
// of the file, which are on disk.
type transfer struct {
	m   *mirror
	e   Entry
	f   *os.File
	d   *digest
	off int64
	buf []byte
}

// errBroken reports a body that ended early, or a range that must be asked for again: the transfer goes on.
var errBroken = errors.New("hub: transfer broken off")

// download fills <path>.part, verifies it and renames it. Content that is not the tree's is deleted: ErrDigest.
func (m *mirror) download(ctx context.Context, e Entry) (RecordFile, error) {
	t, err := m.begin(e)
	if err != nil {
		return RecordFile{}, err
	}
	defer t.f.Close()
	rf, err := t.finish(ctx)
	if errors.Is(err, ErrDigest) {
		m.advance(-t.off, e.Path)
		return rf, errors.Join(err, m.root.Remove(e.Path+partSuffix))
	}
	return rf, err
}

func (m *mirror) begin(e Entry) (*transfer, error) {
	if err := m.makeParent(e.Path); err != nil {
		return nil, err
	}
	part := e.Path + partSuffix
	info, err := m.root.Lstat(part)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s in %s is not a regular file; remove it", ErrStray, part, m.req.Dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for unfinished file: %w", err)
	}
	f, err := m.root.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open unfinished file: %w", err)
	}
	return &transfer{m: m, e: e, f: f, d: newDigest(e), buf: make([]byte, min(chunkSize, max(1, e.Size)))}, nil
}

// finish is the life of a transfer: take over the kept prefix, fetch the rest, verify, make durable, rename.
func (t *transfer) finish(ctx context.Context) (RecordFile, error) {
	if err := t.resume(ctx); err != nil {
		return RecordFile{}, err
	}
	if err := t.run(ctx); err != nil {
		return RecordFile{}, err
	}
	rf, err := t.d.verify(t.e)
	if err != nil {
		return RecordFile{}, err
	}
	if err := t.f.Sync(); err != nil {
		return RecordFile{}, fmt.Errorf("sync %s: %w", t.e.Path, err)
	}
	if err := t.m.root.Rename(t.e.Path+partSuffix, t.e.Path); err != nil {
		return RecordFile{}, fmt.Errorf("rename finished file: %w", err)
	}
	return rf, nil
}

// resume hashes what an earlier run left. It is not trusted: if it is wrong, the digest of the whole will tell.
func (t *transfer) resume(ctx context.Context) error {
	info, err := t.f.Stat()
	if err != nil {
		return fmt.Errorf("look at unfinished file: %w", err)
	}
	if info.Size() > t.e.Size {
		return t.restart("the kept part is longer than the file")
	}
	if err := hashPrefix(ctx, t.f, t.d, info.Size()); err != nil {
		return err
	}
	t.grow(info.Size())
	return nil
}

func (t *transfer) grow(n int64) {
	t.off += n
	t.m.advance(n, t.e.Path)
}

// restart forgets everything and begins the file again.
func (t *transfer) restart(why string) error {
	t.m.c.log.Info("beginning file again", zap.String("file", t.e.Path), zap.String("reason", why))
	if err := t.f.Truncate(0); err != nil {
		return fmt.Errorf("truncate unfinished file: %w", err)
	}
	t.d = newDigest(t.e)
	t.grow(-t.off)
	return nil
}

// run fetches until the file is whole. Failures to get an answer were retried below already; here a body that breaks is
// continued, and a signature that ran out is renewed, as long as there is progress.
func (t *transfer) run(ctx context.Context) error {
	idle := 0
	for breaks := 0; t.off < t.e.Size; breaks++ {
		before := t.off
		err := t.attempt(ctx)
		if err == nil {
			continue
		}
		if ctx.Err() != nil || !errors.Is(err, errBroken) && !errors.Is(err, errExpired) {
			return err
		}
		if idle++; t.off > before {
			idle = 0
		}
		if idle > t.m.c.retries || breaks >= maxBreaks {
			return fmt.Errorf("%w: file %q stopped at %d of %d bytes: %w", ErrUnavailable, t.e.Path, t.off, t.e.Size, err)
		}
		t.m.c.log.Info("continuing file", zap.String("file", t.e.Path), zap.Int64("offset", t.off), zap.Error(err))
		if err := sleep(ctx, t.m.c.wait(0, 0, idle, nil)); err != nil {
			return err
		}
	}
	return nil
}

// attempt asks for the rest of the file once. The URL is resolved anew each time: a signed one is never stored.
func (t *transfer) attempt(ctx context.Context) error {
	rng := ""
	if t.off > 0 {
		rng = fmt.Sprintf("bytes=%d-", t.off)
	}
	resp, err := t.m.c.get(ctx, t.m.req.Repo.filePath(t.m.req.Commit, t.e.Path), rng)
	if err != nil {
		return fmt.Errorf("file %q at byte %d: %w", t.e.Path, t.off, err)
	}
	defer resp.Body.Close()
	if err := t.align(resp); err != nil {
		return err
	}
	return t.copy(ctx, resp)
}

// align brings the file and the answer to one offset. Only a 206 that says itself that it begins at our offset, of a file
// of our size, is a continuation (If-Range was seen to be ignored; the pinned commit makes it needless).
func (t *transfer) align(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		start, total, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if ok && start == t.off && t.off > 0 {
			return t.checkSize(total)
		}
		return t.again(fmt.Sprintf("answer with Content-Range %q to a request from byte %d", printable(resp.Header.Get("Content-Range")), t.off))
	case http.StatusRequestedRangeNotSatisfiable:
		return t.again("the server refuses the range")
	}
	if t.off > 0 {
		if err := t.restart("the server ignores the range"); err != nil {
			return err
		}
	}
	if resp.ContentLength < 0 {
		return nil
	}
	return t.checkSize(resp.ContentLength)
}

// again begins from zero with a new request.
func (t *transfer) again(why string) error {
	if err := t.restart(why); err != nil {
		return err
	}
	return fmt.Errorf("%w: file %q: %s", errBroken, t.e.Path, why)
}

func (t *transfer) checkSize(got int64) error {
	if got == t.e.Size {
		return nil
	}
	return &DigestError{Path: t.e.Path, Method: "size", Want: strconv.FormatInt(t.e.Size, 10), Got: strconv.FormatInt(got, 10)}
}

// copy reads, hashes and writes until the file is whole or the body ends.
func (t *transfer) copy(ctx context.Context, resp *http.Response) error {
	for t.off < t.e.Size {
		want := min(chunkSize-t.off%chunkSize, t.e.Size-t.off)
		n, readErr := io.ReadFull(resp.Body, t.buf[:want])
		if _, err := t.f.WriteAt(t.buf[:n], t.off); err != nil {
			return fmt.Errorf("write %s: %w", t.e.Path, err)
		}
		t.d.Write(t.buf[:n])
		t.grow(int64(n))
		if (readErr != nil || ctx.Err() != nil) && t.off < t.e.Size {
			return t.broken(ctx, readErr)
		}
	}
	if resp.ContentLength >= 0 {
		return nil
	}
	if n, _ := io.ReadFull(resp.Body, t.buf[:1]); n > 0 {
		return &DigestError{Path: t.e.Path, Method: "size", Want: strconv.FormatInt(t.e.Size, 10), Got: "more"}
	}
	return nil
}

func (t *transfer) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("file %q: %w", t.e.Path, context.Cause(ctx))
	}
	return fmt.Errorf("%w: file %q at byte %d: %w", errBroken, t.e.Path, t.off, stripURL(err))
}

// parseContentRange reads "bytes <start>-<end>/<total>" (RFC 9110, section 14.4).
func parseContentRange(s string) (start, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(s, "/")
	first, last, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, false
	}
	start, err1 := strconv.ParseInt(first, 10, 64)
	end, err2 := strconv.ParseInt(last, 10, 64)
	total, err3 := strconv.ParseInt(all, 10, 64)
	if errors.Join(err1, err2, err3) != nil || start < 0 || end < start || total <= end {
		return 0, 0, false
	}
	return start, total, true
}

// hashPrefix feeds the first n bytes of f to the digest; it stops when ctx ends.
func hashPrefix(ctx context.Context, f *os.File, d *digest, n int64) error {
	buf := make([]byte, min(chunkSize, max(1, n)))
	for off := int64(0); off < n; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k, err := f.ReadAt(buf[:min(int64(len(buf)), n-off)], off)
		if err != nil && !(errors.Is(err, io.EOF) && off+int64(k) == n) {
			return fmt.Errorf("read back %s: %w", f.Name(), err)
		}
		d.Write(buf[:k])
		off += int64(k)
	}
	return nil
}
