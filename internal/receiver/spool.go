// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"sluice/internal/durable"
	"sluice/internal/recv"
	"sluice/internal/spool"
	"sluice/pkg/envelope"
)

// The spool. No name that came from outside names anything here: a release is its id, a file its number.
//
//	<state>/spool/<R>/envelope.sluice
//	<state>/spool/<R>/payload/files/000000 ...   in subject order, and the assembler's own state beside files/
//	<state>/incoming/<R>/                        the same payload directory while it is lent to the process that faces the link
//	<state>/incoming/link/                       what internal/link keeps
//	<state>/quarantine/<R>/                      envelope.sluice and verdict.json of what was refused
const (
	spoolDir     = "spool"
	envelopeFile = "envelope.sluice"
	payloadDir   = "payload"
)

// shelf is the spool directory of one release.
type shelf struct {
	root *os.Root
	id   envelope.Digest
}

// payloadHome is where the payload of a release belongs, below the state directory.
func payloadHome(release string) string { return spoolDir + "/" + release + "/" + payloadDir }

// openShelf makes or opens the spool directory of a release below state/spool.
func openShelf(spoolRoot *os.Root, id envelope.Digest) (*shelf, error) {
	name := id.String()
	if err := spoolRoot.MkdirAll(name+"/"+payloadDir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := durable.SyncDir(spoolRoot, "."); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	root, err := spoolRoot.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return &shelf{root: root, id: id}, nil
}

// findShelf opens the spool directory of a release, which must be there.
func findShelf(spoolRoot *os.Root, id envelope.Digest) (*shelf, error) {
	root, err := spoolRoot.OpenRoot(id.String())
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return &shelf{root: root, id: id}, nil
}

func (s *shelf) Close() error { return s.root.Close() }

// putEnvelope stores the envelope stream durably and returns its SHA-256.
func (s *shelf) putEnvelope(env *envelope.Envelope) (string, error) {
	var b bytes.Buffer
	if _, err := env.WriteTo(&b); err != nil {
		return "", err
	}
	sum := sha256.Sum256(b.Bytes())
	return hex.EncodeToString(sum[:]), durable.WriteFile(s.root, envelopeFile, b.Bytes(), 0o600)
}

// envelope reads the spooled envelope back, with the strict reader.
func (s *shelf) envelope() (*envelope.Envelope, error) {
	f, err := s.root.Open(envelopeFile)
	if err != nil {
		return nil, fmt.Errorf("spooled envelope: %w", err)
	}
	defer f.Close()
	env, err := envelope.Read(f)
	if err != nil {
		return nil, fmt.Errorf("spooled envelope: %w", err)
	}
	if env.ID != s.id {
		return nil, fmt.Errorf("%w: the spooled envelope is of release %s, the spool of %s", envelope.ErrDigest, env.ID, s.id)
	}
	return env, nil
}

// open opens file i of the payload for reading.
func (s *shelf) open(i int) (*os.File, error) {
	return s.root.Open(payloadDir + "/" + recv.FileName(i))
}

// opener opens files for a verification; one that vanished is damage like any other.
func (s *shelf) opener(st *envelope.Statement) func(i int) (io.ReadCloser, error) {
	return func(i int) (io.ReadCloser, error) {
		f, err := s.open(i)
		if errors.Is(err, os.ErrNotExist) {
			of := st.Subjects[i]
			return nil, &envelope.PayloadError{Path: of.Name, Block: -1, Length: of.Annotations.Size, Want: of.Digest.SHA256, Problem: "missing in the spool"}
		}
		return f, err
	}
}

// reserve opens the assembler for a cut that was announced, and remembers the cut. What was received in another cut cannot be used.
func (s *shelf) reserve(ctx context.Context, by recv.Assembler, st *envelope.Statement, cut recv.Cut, log *zap.Logger) (recv.Assembly, error) {
	asm, err := s.assemble(ctx, by, st, cut)
	if errors.Is(err, spool.ErrMismatch) {
		log.Warn("what the spool holds of the release cannot be continued; it is received anew", zap.String("release", s.id.String()), zap.Error(err))
		if err := errors.Join(s.root.RemoveAll(payloadDir), s.root.Mkdir(payloadDir, 0o700)); err != nil {
			return nil, fmt.Errorf("spool: %w", err)
		}
		asm, err = s.assemble(ctx, by, st, cut)
	}
	if err != nil {
		return nil, err
	}
	if err := writeGeometry(s, cut); err != nil {
		return nil, errors.Join(err, asm.Close())
	}
	return asm, nil
}

// assemble has the payload assembled: its space is reserved, or what was there resumed.
func (s *shelf) assemble(ctx context.Context, by recv.Assembler, st *envelope.Statement, cut recv.Cut) (recv.Assembly, error) {
	return by.Assemble(ctx, payloadHome(s.id.String()), [32]byte(s.id), sizes(st), cut)
}

func sizes(st *envelope.Statement) []int64 {
	list := make([]int64, len(st.Subjects))
	for i, f := range st.Subjects {
		list[i] = f.Annotations.Size
	}
	return list
}

// object opens the assembler of a payload that is at home, to take something back.
func (s *shelf) object(st *envelope.Statement, cut recv.Cut, log *zap.Logger) (*spool.Object, error) {
	root, err := s.root.OpenRoot(payloadDir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	defer root.Close()
	return recv.OpenObject(root, sizes(st), cut, spool.Options{Logger: log})
}

// copyFrom fills the payload from a medium, durably, file by file in subject order. The medium is hostile: regular files
// only, of the size that the statement says.
func (s *shelf) copyFrom(ctx context.Context, medium *os.Root, st *envelope.Statement, progress func(done, total int64)) error {
	if err := s.root.RemoveAll(payloadDir); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if err := s.root.MkdirAll(payloadDir+"/files", 0o700); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	var done int64
	for i, f := range st.Subjects {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.copyFile(medium, i, f); err != nil {
			return err
		}
		done += f.Annotations.Size
		progress(done, st.Predicate.TotalSize)
	}
	return errors.Join(durable.SyncDir(s.root, payloadDir+"/files"), durable.SyncDir(s.root, payloadDir), durable.SyncDir(s.root, "."))
}

func (s *shelf) copyFile(medium *os.Root, i int, f envelope.Subject) (err error) {
	in, err := openRegular(medium, filepath.FromSlash(f.Name), f.Annotations.Size)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := s.root.OpenFile(payloadDir+"/"+recv.FileName(i), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := durable.Allocate(out, f.Annotations.Size); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if _, err := io.Copy(out, io.LimitReader(in, f.Annotations.Size)); err != nil {
		return fmt.Errorf("copy of %s: %w", f.Name, err)
	}
	// What Copy counts is wrong after a copy_file_range that failed half way: it goes on with reads, and forgets what came before.
	n, err := out.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("copy of %s: %w", f.Name, err)
	}
	if n != f.Annotations.Size {
		return fmt.Errorf("%w: %s ended after %d of %d bytes", envelope.ErrDigest, f.Name, n, f.Annotations.Size)
	}
	return durable.Sync(out)
}

// openRegular opens a regular file of exactly the given size, without following a link at its end.
func openRegular(root *os.Root, name string, size int64) (*os.File, error) {
	info, err := root.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is missing", envelope.ErrDigest, name)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is no regular file but %s", envelope.ErrFormat, name, info.Mode().Type())
	}
	if info.Size() != size {
		return nil, fmt.Errorf("%w: %s has %d bytes, the statement says %d", envelope.ErrDigest, name, info.Size(), size)
	}
	return root.Open(name)
}
