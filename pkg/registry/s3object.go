// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"
)

// checksumHeader is the declared form that MinIO and other servers check on a
// single PUT; the value is the whole object's SHA-256.
const checksumHeader = "x-amz-checksum-sha256"

// pageSize is how many keys one list request returns.
const pageSize = 1000

func (s *s3Store) key(key string) string { return s.cfg.Prefix + key }

// putOptions are common to all immutable objects. The payload is not hashed
// once more for the request's signature: the declared digest is a signed header
// and the server checks the payload against it.
func (s *s3Store) putOptions() minio.PutObjectOptions {
	opt := minio.PutObjectOptions{
		DisableMultipart: true, ContentType: "application/octet-stream", DisableContentSha256: true,
	}
	if s.cfg.RetainFor > 0 {
		opt.Mode = minio.Governance
		if s.cfg.Compliance {
			opt.Mode = minio.Compliance
		}
		opt.RetainUntilDate = time.Now().UTC().Add(s.cfg.RetainFor)
	}
	return opt
}

// put creates the object: small ones in one request, large ones in parts.
func (s *s3Store) put(ctx context.Context, key string, b body) (written, error) {
	if err := s.prepare(ctx); err != nil {
		return written{}, err
	}
	var version string
	var err error
	if b.size > s.cfg.MultipartAbove {
		version, err = s.putParts(ctx, key, b)
	} else {
		version, err = s.putWhole(ctx, key, b)
	}
	if errors.Is(err, errExists) {
		return written{}, errExists
	}
	return written{version: version}, err
}

// putWhole is one PUT that the server refuses if the key exists, or if the
// bytes do not hash to the declared digest.
func (s *s3Store) putWhole(ctx context.Context, key string, b body) (string, error) {
	src, err := b.open()
	if err != nil {
		return "", err
	}
	defer src.Close()
	opt := s.putOptions()
	opt.UserMetadata = map[string]string{checksumHeader: base64.StdEncoding.EncodeToString(b.sha256[:])}
	opt.SetMatchETagExcept("*")
	info, err := s.core.Client.PutObject(ctx, s.cfg.Bucket, s.key(key), &counted{src, b.add}, b.size, opt)
	if err != nil {
		return "", s3Error("put "+key, err)
	}
	return info.VersionID, nil
}

// counted tells add what is read, and takes it back when the client rewinds.
type counted struct {
	src io.ReadSeeker
	add func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.src.Read(p)
	c.add(int64(n))
	return n, err
}

func (c *counted) Seek(offset int64, whence int) (int64, error) {
	before, err := c.src.Seek(0, io.SeekCurrent)
	if err != nil {
		return before, err
	}
	after, err := c.src.Seek(offset, whence)
	if err == nil && after < before {
		c.add(after - before)
	}
	return after, err
}

// get opens the object for reading. The server's page cache is its own
// business, so fresh means nothing here.
func (s *s3Store) get(ctx context.Context, key string, _ bool) (io.ReadSeekCloser, object, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, object{}, err
	}
	o := &remote{s: s, ctx: ctx, key: key}
	if err := o.fetch(); err != nil {
		return nil, object{}, err
	}
	return o, o.info, nil
}

// remote is an object being read. A seek costs nothing until the next read.
type remote struct {
	s    *s3Store
	ctx  context.Context
	key  string
	info object
	body io.ReadCloser // nil: fetch at pos before reading
	pos  int64
}

// fetch starts a GET at pos, of the very object seen first.
func (r *remote) fetch() error {
	opt := minio.GetObjectOptions{}
	if r.pos > 0 {
		if err := opt.SetRange(r.pos, 0); err != nil {
			return s3Error("get "+r.key, err)
		}
	}
	if r.info.tag != "" {
		if err := opt.SetMatchETag(r.info.tag); err != nil {
			return s3Error("get "+r.key, err)
		}
	}
	body, info, _, err := r.s.core.GetObject(r.ctx, r.s.cfg.Bucket, r.s.key(r.key), opt)
	if err != nil {
		return s3Error("get "+r.key, err)
	}
	r.body = body
	if r.info.key == "" {
		r.info = r.s.object(info)
		r.info.key = r.key
	}
	return nil
}

func (r *remote) Read(p []byte) (int, error) {
	if r.body == nil {
		if r.pos >= r.info.size {
			return 0, io.EOF
		}
		if err := r.fetch(); err != nil {
			return 0, err
		}
	}
	n, err := r.body.Read(p)
	r.pos += int64(n)
	if err == nil || errors.Is(err, io.EOF) && r.pos == r.info.size {
		return n, err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the connection ended before the object did
	}
	return n, s3Error("read "+r.key, err)
}

func (r *remote) Seek(offset int64, whence int) (int64, error) {
	pos := offset
	switch whence {
	case io.SeekCurrent:
		pos += r.pos
	case io.SeekEnd:
		pos += r.info.size
	}
	if pos < 0 {
		return r.pos, fmt.Errorf("seek in %s: position %d before the start", r.key, pos)
	}
	if pos == r.pos {
		return pos, nil
	}
	r.pos = pos
	return pos, r.Close()
}

func (r *remote) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}

// object converts the server's description. A composite checksum (of parts) is
// not the object's digest and is left out.
func (s *s3Store) object(info minio.ObjectInfo) object {
	o := object{key: strings.TrimPrefix(info.Key, s.cfg.Prefix), size: info.Size, version: info.VersionID, tag: info.ETag}
	sum, err := base64.StdEncoding.DecodeString(info.ChecksumSHA256)
	if err == nil && len(sum) == 32 {
		o.digest = hexID([32]byte(sum))
	}
	return o
}

func (s *s3Store) stat(ctx context.Context, key string) (object, error) {
	if err := s.prepare(ctx); err != nil {
		return object{}, err
	}
	info, err := s.core.StatObject(ctx, s.cfg.Bucket, s.key(key), minio.StatObjectOptions{Checksum: true})
	if err != nil {
		return object{}, s3Error("stat "+key, err)
	}
	o := s.object(info)
	o.key = key
	return o, nil
}

func (s *s3Store) list(ctx context.Context, prefix string, each func(object) error) error {
	return s.walk(ctx, prefix, true, func(info minio.ObjectInfo) error { return each(s.object(info)) })
}

func (s *s3Store) children(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	err := s.walk(ctx, prefix, false, func(info minio.ObjectInfo) error {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(info.Key, s.key(prefix)), "/"))
		return nil
	})
	return names, err
}

// walk lists page by page.
func (s *s3Store) walk(ctx context.Context, prefix string, deep bool, each func(minio.ObjectInfo) error) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the iterator's own requests when each fails
	opt := minio.ListObjectsOptions{Prefix: s.key(prefix), Recursive: deep, MaxKeys: pageSize}
	for info := range s.core.ListObjectsIter(ctx, s.cfg.Bucket, opt) {
		if info.Err != nil {
			return s3Error("list "+prefix, info.Err)
		}
		if err := each(info); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// hide puts a delete marker on every key below prefix: it is gone for all who
// ask by name, also under object lock, and its versions stay. Without versions
// the bytes would be lost, and with them what investigators need.
func (s *s3Store) hide(ctx context.Context, prefix string) error {
	var keys []string
	err := s.list(ctx, prefix, func(o object) error {
		keys = append(keys, o.key)
		return nil
	})
	if err != nil || len(keys) == 0 {
		return err
	}
	if err := s.versioned(ctx, prefix); err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(cmp.Or(max(s.cfg.Options.Workers, 0), DefaultWorkers))
	for _, key := range keys {
		group.Go(func() error {
			return s3Error("delete "+key, s.core.RemoveObject(inner, s.cfg.Bucket, s.key(key), minio.RemoveObjectOptions{}))
		})
	}
	return group.Wait()
}

// versioned refuses a bucket in which a delete destroys.
func (s *s3Store) versioned(ctx context.Context, prefix string) error {
	conf, err := s.core.GetBucketVersioning(ctx, s.cfg.Bucket)
	if err != nil && !unsupported(err) {
		return s3Error("look at versioning of bucket "+s.cfg.Bucket, err)
	}
	if err == nil && conf.Enabled() {
		return nil
	}
	return fmt.Errorf("%w: s3: a delete below %s would destroy the files of a revoked release; enable versioning of bucket %s, "+
		"or copy them away and delete them yourself, then withdraw again", ErrNoVersions, prefix, s.cfg.Bucket)
}

// swap is a PUT under If-Match, or If-None-Match for the first.
func (s *s3Store) swap(ctx context.Context, key, tag string, data []byte) error {
	b := bytesBody(data, "", true)
	opt := minio.PutObjectOptions{DisableMultipart: true, ContentType: "application/json", DisableContentSha256: true}
	opt.UserMetadata = map[string]string{checksumHeader: base64.StdEncoding.EncodeToString(b.sha256[:])}
	if tag == "" {
		opt.SetMatchETagExcept("*")
	} else {
		opt.SetMatchETag(tag)
	}
	_, err := s.core.Client.PutObject(ctx, s.cfg.Bucket, s.key(key), bytes.NewReader(data), b.size, opt)
	err = s3Error("swap "+key, err)
	if errors.Is(err, errExists) || tag != "" && errors.Is(err, ErrNotFound) {
		return errExists
	}
	return err
}
