// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
)

// Get implements Publisher. It trusts nothing but COMMIT: the receipt must be
// the one that COMMIT names, and must agree with it in every count.
func (e *engine) Get(ctx context.Context, name string, id [32]byte) (*Published, error) {
	if !validName(name) {
		return nil, fmt.Errorf("%w: name %q", ErrNotFound, name)
	}
	p, err := e.published(ctx, name, hexID(id))
	if err != nil {
		return nil, err
	}
	if err := e.refuseWithdrawn(ctx, name, p.Receipt.Release); err != nil {
		return nil, err
	}
	return p, nil
}

// published is Get for checked names, and for withdrawn releases too. A receipt verified lately under the same
// COMMIT is not read again.
func (e *engine) published(ctx context.Context, name, id string) (*Published, error) {
	c, err := e.readCommit(ctx, name, id)
	if err != nil {
		return nil, err
	}
	if p := e.remembered(name, c); p != nil {
		return p, nil
	}
	return e.load(ctx, name, id, c)
}

// load reads the receipt that COMMIT c binds, without the memory of earlier reads.
func (e *engine) load(ctx context.Context, name, id string, c *commit) (*Published, error) {
	receipt, sum, err := e.receipt(ctx, name, id)
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			err = corruptf("COMMIT is there, its receipt is not; restore %s from a backup", receiptKey(name, id))
		}
		return nil, err
	}
	p, err := bind(c, receipt, name, sum)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", commitKey(name, id), err)
	}
	e.remember(p, c)
	return p, nil
}

// readCommit reads COMMIT; its absence is ErrNotFound.
func (e *engine) readCommit(ctx context.Context, name, id string) (*commit, error) {
	key := commitKey(name, id)
	data, _, err := e.readSmall(ctx, key, maxSmallJSON)
	if err != nil {
		return nil, err
	}
	c, err := parseCommit(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if c.Release != id {
		return nil, fmt.Errorf("%s: %w", key, corruptf("it is for release %s", c.Release))
	}
	return c, nil
}

// receipt reads and parses receipt.json and returns the digest of its bytes.
func (e *engine) receipt(ctx context.Context, name, id string) (*Receipt, string, error) {
	key := receiptKey(name, id)
	data, _, err := e.readSmall(ctx, key, maxReceipt)
	if err != nil {
		return nil, "", err
	}
	r, err := parseReceipt(data)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", key, err)
	}
	sum := sha256.Sum256(data)
	return r, hex.EncodeToString(sum[:]), nil
}

// bind joins COMMIT and receipt, or says where they differ.
func bind(c *commit, r *Receipt, name, sum string) (*Published, error) {
	files, total, err := r.files()
	if err != nil {
		return nil, err
	}
	digest := DirectoryDigest(files)
	switch {
	case c.Receipt != sum:
		return nil, corruptf("it binds receipt %s, there is %s", c.Receipt, sum)
	case r.Release != c.Release || r.Name != name:
		return nil, corruptf("the receipt is for %s %s", r.Name, r.Release)
	case c.Files != int64(len(files)) || c.Bytes != total:
		return nil, corruptf("it says %d files of %d bytes, the receipt %d of %d", c.Files, c.Bytes, len(files), total)
	case c.DirectoryDigest != hexID(digest):
		return nil, corruptf("directory digest %s, the receipt's files give %x", c.DirectoryDigest, digest)
	}
	id, err := parseSum(c.Release)
	if err != nil {
		return nil, err
	}
	return &Published{ID: id, Name: name, DirectoryDigest: digest, Bytes: total, Receipt: *r}, nil
}

// remembered returns the release if its receipt was verified lately under the
// same COMMIT.
func (e *engine) remembered(name string, c *commit) *Published {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, p := range e.recent {
		if p.Name == name && p.Receipt.Release == c.Release && e.sums[i] == c.Receipt {
			return p
		}
	}
	return nil
}

// remember keeps the last few verified receipts.
func (e *engine) remember(p *Published, c *commit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.recent, e.sums = append(e.recent, p), append(e.sums, c.Receipt)
	if n := len(e.recent) - recentReceipts; n > 0 {
		e.recent, e.sums = slices.Delete(e.recent, 0, n), slices.Delete(e.sums, 0, n)
	}
}

// File returns the receipt's record of path.
func (p *Published) File(path string) (ReceiptFile, bool) { return find(p.Receipt.Files, path) }

// Open implements Publisher.
func (e *engine) Open(ctx context.Context, name string, id [32]byte, path string) (io.ReadCloser, int64, error) {
	p, err := e.Get(ctx, name, id)
	if err != nil {
		return nil, 0, err
	}
	return e.open(ctx, releasePrefix(name, hexID(id)), path, p.Receipt.Files)
}

// OpenProvenance opens one provenance object of a committed release, for example
// "release.json", "envelope.sluice" or "evidence/gate.json", as Open does; also
// of one that is withdrawn, because an auditor, and who gives it back, need it.
func (e *engine) OpenProvenance(ctx context.Context, name string, id [32]byte, path string) (io.ReadCloser, int64, error) {
	if !validName(name) {
		return nil, 0, fmt.Errorf("%w: name %q", ErrNotFound, name)
	}
	p, err := e.published(ctx, name, hexID(id))
	if err != nil {
		return nil, 0, err
	}
	return e.open(ctx, provPrefix(name, hexID(id)), path, p.Receipt.Provenance)
}

// open opens an object that a verified list names.
func (e *engine) open(ctx context.Context, prefix, path string, list []ReceiptFile) (io.ReadCloser, int64, error) {
	f, ok := find(list, path)
	if !ok {
		return nil, 0, fmt.Errorf("%w: %s%s is not in the receipt", ErrNotFound, prefix, path)
	}
	rc, obj, err := e.st.get(ctx, prefix+path, false)
	if errors.Is(err, ErrNotFound) {
		err = corruptf("%s%s is in the receipt and not in the registry", prefix, path)
	}
	if err != nil {
		return nil, 0, err
	}
	if obj.size != f.Size {
		rc.Close()
		return nil, 0, corruptf("%s%s has %d bytes, the receipt says %d", prefix, path, obj.size, f.Size)
	}
	return &reader{rc: rc, file: f, key: prefix + path, sum: sha256.New()}, f.Size, nil
}

// reader checks the digest of what is read from start to end without a seek.
type reader struct {
	rc   io.ReadSeekCloser
	file ReceiptFile
	key  string
	sum  hash.Hash // nil after a seek elsewhere
	pos  int64
}

// Read returns ErrCorrupt in place of io.EOF when the bytes are not the receipt's.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.rc.Read(p)
	r.pos += int64(n)
	if r.sum == nil {
		return n, err
	}
	r.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(r.sum.Sum(nil)) != r.file.SHA256 {
		return n, fmt.Errorf("%s: %w", r.key, corruptf("SHA-256 is not %s", r.file.SHA256))
	}
	return n, err
}

// Seek implements io.Seeker. Only a seek that stays, or goes to the start,
// keeps the check.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	pos, err := r.rc.Seek(offset, whence)
	if err != nil {
		return pos, err
	}
	switch {
	case pos == 0:
		r.sum = sha256.New()
	case pos != r.pos:
		r.sum = nil
	}
	r.pos = pos
	return pos, nil
}

// Close implements io.Closer.
func (r *reader) Close() error { return r.rc.Close() }
