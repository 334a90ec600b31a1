// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"
)

// upload is a multipart upload as the state directory keeps it.
type upload struct {
	Type     string `json:"type"`
	Bucket   string `json:"bucket"`
	Key      string `json:"key"`
	UploadID string `json:"upload_id"`
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
	PartSize int64  `json:"part_size"`
	Started  string `json:"started"`
}

const (
	typeUpload   = "sluice-upload-v1"
	uploadSuffix = ".upload"
	maxUploadAge = 7 * 24 * time.Hour // an upload nobody went on with is aborted by Reconcile
	partWorkers  = 2                  // parts in flight of one object, times Options.Workers objects
)

// putParts uploads in parts. An earlier upload of the same object, found by its
// id in the state directory, is gone on with: parts that the server has with
// the right digest are not sent again.
func (s *s3Store) putParts(ctx context.Context, key string, b body) (string, error) {
	if _, err := s.stat(ctx, key); err == nil {
		return "", errExists // before sending many gigabytes that Complete would refuse
	} else if !errors.Is(err, ErrNotFound) {
		return "", err
	}
	up, have, err := s.resume(ctx, key, b)
	if err != nil {
		return "", err
	}
	parts, err := s.sendParts(ctx, up, have, b)
	if err != nil {
		return "", err
	}
	version, err := s.completeParts(ctx, up, parts)
	if err != nil && !errors.Is(err, errExists) {
		return "", err
	}
	// The object exists, so no other upload of this key can ever be completed:
	// those that a crash orphaned between their start and our note, too. What
	// cannot be aborted now is found by Fsck and aborted by Reconcile.
	_ = s.core.RemoveIncompleteUpload(ctx, s.cfg.Bucket, s.key(key))
	return version, errors.Join(err, s.forget(key))
}

// completeParts gives the upload its name, unless an object has it.
func (s *s3Store) completeParts(ctx context.Context, up *upload, parts []minio.CompletePart) (string, error) {
	opt := s.putOptions()
	opt.SetMatchETagExcept("*")
	info, err := s.core.CompleteMultipartUpload(ctx, s.cfg.Bucket, s.key(up.Key), up.UploadID, parts, opt)
	if code(err) != "NoSuchUpload" {
		return info.VersionID, s3Error("complete upload of "+up.Key, err)
	}
	if _, found := s.stat(ctx, up.Key); found == nil {
		return "", errExists // our own Complete succeeded and its answer was lost
	}
	return "", errors.Join(s.forget(up.Key), fmt.Errorf("%w: upload of %s vanished; publish again", ErrUnavailable, up.Key))
}

// resume returns the upload to work on and the parts that the server has.
func (s *s3Store) resume(ctx context.Context, key string, b body) (*upload, map[int]minio.ObjectPart, error) {
	if up := s.recall(key, b); up != nil {
		have, err := s.parts(ctx, up)
		if err == nil {
			return up, have, nil
		}
		if code(err) != "NoSuchUpload" {
			return nil, nil, s3Error("list parts of "+key, err)
		}
	}
	opt := s.putOptions()
	opt.SetMatchETagExcept("*")
	opt.Checksum = minio.ChecksumSHA256
	opt.UserMetadata = map[string]string{"x-amz-checksum-algorithm": opt.Checksum.String()}
	id, err := s.core.NewMultipartUpload(ctx, s.cfg.Bucket, s.key(key), opt)
	if err != nil {
		return nil, nil, s3Error("start upload of "+key, err)
	}
	up := &upload{
		Type: typeUpload, Bucket: s.cfg.Bucket, Key: key, UploadID: id, Size: b.size, SHA256: hexID(b.sha256),
		PartSize: s.partSize(b.size), Started: time.Now().UTC().Format(time.RFC3339),
	}
	return up, nil, s.note(up)
}

// partSize is the configured one, or as much more as maxParts needs.
func (s *s3Store) partSize(size int64) int64 {
	const unit = 1 << 20
	least := (size + maxParts - 1) / maxParts
	return max(s.cfg.PartSize, (least+unit-1)/unit*unit)
}

// parts lists what the server has of an upload.
func (s *s3Store) parts(ctx context.Context, up *upload) (map[int]minio.ObjectPart, error) {
	have := make(map[int]minio.ObjectPart)
	for marker := 0; ; {
		page, err := s.core.ListObjectParts(ctx, s.cfg.Bucket, s.key(up.Key), up.UploadID, marker, pageSize)
		if err != nil {
			return nil, err
		}
		for _, p := range page.ObjectParts {
			have[p.PartNumber] = p
		}
		if !page.IsTruncated || page.NextPartNumberMarker <= marker {
			return have, nil
		}
		marker = page.NextPartNumberMarker
	}
}

// sendParts sends what is missing and returns the list for Complete. The
// server checks each part; that the parts together are the release's file is
// checked here, before Complete gives the object its name.
func (s *s3Store) sendParts(ctx context.Context, up *upload, have map[int]minio.ObjectPart, b body) ([]minio.CompletePart, error) {
	n := int((up.Size + up.PartSize - 1) / up.PartSize)
	list := make([]minio.CompletePart, n)
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(partWorkers + 1)
	group.Go(func() error { return hashWhole(inner, up.Key, b) })
	for i := range n {
		if inner.Err() != nil {
			break
		}
		group.Go(func() error {
			part, err := s.sendPart(inner, up, i, have[i+1], b)
			list[i] = part
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return list, ctx.Err()
}

// hashWhole checks the spool file against the release.
func hashWhole(ctx context.Context, key string, b body) error {
	src, err := b.open()
	if err != nil {
		return err
	}
	defer src.Close()
	h := sha256.New()
	for {
		_, err := io.CopyN(h, src, copyChunk)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read spool file of %s: %w", key, err)
		}
	}
	if [32]byte(h.Sum(nil)) != b.sha256 {
		return fmt.Errorf("spool file of %s: %w", key, corruptf("SHA-256 is %x, the release says %x", h.Sum(nil), b.sha256))
	}
	return nil
}

// sendPart hashes part i in the spool, and sends it unless the server has it
// with that digest.
func (s *s3Store) sendPart(ctx context.Context, up *upload, i int, have minio.ObjectPart, b body) (minio.CompletePart, error) {
	src, err := b.open()
	if err != nil {
		return minio.CompletePart{}, err
	}
	defer src.Close()
	at := int64(i) * up.PartSize
	size := min(up.PartSize, up.Size-at)
	sum, err := hashPart(src, at, size)
	if err != nil {
		return minio.CompletePart{}, fmt.Errorf("read part %d of %s: %w", i+1, up.Key, err)
	}
	done := minio.CompletePart{PartNumber: i + 1, ETag: have.ETag, ChecksumSHA256: sum}
	if have.Size == size && have.ChecksumSHA256 == sum {
		b.add(size)
		return done, nil
	}
	if _, err := src.Seek(at, io.SeekStart); err != nil {
		return done, err
	}
	data := &counted{&window{src: src, base: at, size: size}, b.add}
	opt := minio.PutObjectPartOptions{CustomHeader: http.Header{}, DisableContentSha256: true}
	opt.CustomHeader.Set(checksumHeader, sum)
	part, err := s.core.PutObjectPart(ctx, s.cfg.Bucket, s.key(up.Key), up.UploadID, i+1, data, size, opt)
	done.ETag = part.ETag
	return done, s3Error(fmt.Sprintf("put part %d of %s", i+1, up.Key), err)
}

// hashPart returns the part's SHA-256 as the header wants it.
func hashPart(src io.ReadSeeker, at, size int64) (string, error) {
	if _, err := src.Seek(at, io.SeekStart); err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.CopyN(h, src, size); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
}

// window shows size bytes of src, which stands at base.
type window struct {
	src             io.ReadSeeker
	base, size, pos int64
}

func (w *window) Read(p []byte) (int, error) {
	if w.pos >= w.size {
		return 0, io.EOF
	}
	n, err := w.src.Read(p[:min(int64(len(p)), w.size-w.pos)])
	w.pos += int64(n)
	return n, err
}

func (w *window) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += w.pos
	case io.SeekEnd:
		offset += w.size
	}
	if offset < 0 {
		return w.pos, errors.New("seek before the start of the part")
	}
	_, err := w.src.Seek(w.base+offset, io.SeekStart)
	w.pos = offset
	return offset, err
}

// stateName is the file that holds the upload of key.
func stateName(bucket, key string) string {
	sum := sha256.Sum256([]byte(bucket + "/" + key))
	return hex.EncodeToString(sum[:]) + uploadSuffix
}

// note keeps an upload id through a kill or a power cut.
func (s *s3Store) note(up *upload) error {
	if s.state == nil {
		return nil
	}
	data, err := encode(up)
	if err != nil {
		return err
	}
	name := stateName(up.Bucket, s.key(up.Key))
	if err := writeDurable(s.state, name, data); err != nil {
		return dirError("note upload of "+up.Key, err)
	}
	return nil
}

// writeDurable replaces a small file: temporary, fsync, rename, fsync of the directory.
func writeDurable(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(name+tempSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := root.Rename(name+tempSuffix, name); err != nil {
		return err
	}
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// recall returns the noted upload of exactly this object, or nil. A note that
// cannot be read is worth a new upload, no more.
func (s *s3Store) recall(key string, b body) *upload {
	if s.state == nil {
		return nil
	}
	up, err := s.readNote(stateName(s.cfg.Bucket, s.key(key)))
	if err != nil || up.Key != key || up.Size != b.size || up.SHA256 != hexID(b.sha256) {
		return nil
	}
	return up
}

// readNote reads and checks one note.
func (s *s3Store) readNote(name string) (*upload, error) {
	data, err := s.state.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var up upload
	if err := decode(data, &up); err != nil {
		return nil, err
	}
	if up.Type != typeUpload || up.Bucket != s.cfg.Bucket || up.UploadID == "" || up.Size < 1 || up.PartSize < MinPartSize {
		return nil, corruptf("note %s: not an upload to this bucket", name)
	}
	return &up, nil
}

// forget drops the note of a finished upload.
func (s *s3Store) forget(key string) error {
	if s.state == nil {
		return nil
	}
	return ignoreNotExist(s.state.Remove(stateName(s.cfg.Bucket, s.key(key))))
}

// notes calls each for every readable note.
func (s *s3Store) notes(each func(*upload) error) error {
	if s.state == nil {
		return nil
	}
	dir, err := s.state.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list state directory: %w", err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, uploadSuffix) {
			continue
		}
		up, err := s.readNote(name)
		if err != nil {
			continue
		}
		if err := each(up); err != nil {
			return err
		}
	}
	return nil
}

// leftovers lists unfinished uploads that the state directory or the server
// knows.
func (s *s3Store) leftovers(ctx context.Context) ([]string, error) {
	found := make(map[string]bool)
	err := s.notes(func(up *upload) error {
		found[up.Key] = true
		return nil
	})
	if err == nil {
		err = s.uploads(ctx, func(key string, _ time.Time) error {
			found[key] = true
			return nil
		})
	}
	return slices.Sorted(maps.Keys(found)), err
}

// uploads calls each for every unfinished upload that the server lists.
func (s *s3Store) uploads(ctx context.Context, each func(key string, started time.Time) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing when each fails
	for info := range s.core.ListIncompleteUploads(ctx, s.cfg.Bucket, s.cfg.Prefix, true) {
		if info.Err != nil {
			return s3Error("list unfinished uploads", info.Err)
		}
		if err := each(strings.TrimPrefix(info.Key, s.cfg.Prefix), info.Initiated); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// clean aborts uploads whose object exists by now, and those that nobody went
// on with for a week. Younger ones are what a later Publish resumes, here or in
// another publisher.
func (s *s3Store) clean(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	err := s.uploads(ctx, func(key string, started time.Time) error {
		dead, err := s.dead(ctx, key, started)
		if err != nil || !dead {
			return err
		}
		return s3Error("abort upload of "+key, s.core.RemoveIncompleteUpload(ctx, s.cfg.Bucket, s.key(key)))
	})
	if err != nil {
		return err
	}
	return s.notes(func(up *upload) error {
		started, _ := time.Parse(time.RFC3339, up.Started) // the zero time is old
		dead, err := s.dead(ctx, up.Key, started)
		if err != nil || !dead {
			return err
		}
		return s.forget(up.Key)
	})
}

// dead says whether an upload of key that was started then has no future.
func (s *s3Store) dead(ctx context.Context, key string, started time.Time) (bool, error) {
	_, err := s.stat(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return time.Since(started) > maxUploadAge, nil
	}
	return err == nil, err
}
