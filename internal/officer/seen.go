// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"sluice/internal/dropbox"
	"sluice/pkg/envelope"
)

const (
	seenFile  = "seen-v1"
	seenMagic = "SLSEEN\x00\x01"
	// maxSeen caps the file: 8 million blocks are 8 TiB of releases.
	maxSeen = 256 << 20
	// textDir keeps small texts by their digest, so that the next release can show what changed.
	textDir = "texts"
)

// ErrSeen says that what was seen before cannot be trusted.
var ErrSeen = errors.New("officer: the record of what this machine read before is not believed")

// Seen remembers what this machine hashed: digests of content blocks, and marks of whole files. It stands for the officer's own memory, so
// it is believed only if nobody else can write it. A nil *Seen remembers nothing. Several goroutines may use one.
//
// The file is its magic and then 32 bytes an entry, in no order, only ever appended to; a torn last entry is nothing.
type Seen struct {
	dir *os.Root

	mu  sync.Mutex
	set map[envelope.Digest]struct{}
	log *os.File
}

// OpenSeen opens the record in a directory, which is made with mode 0700. Error: ErrSeen when others may write there.
func OpenSeen(dir string) (*Seen, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeen, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeen, err)
	}
	if err := ours(info); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSeen, dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeen, err)
	}
	s := &Seen{dir: root, set: map[envelope.Digest]struct{}{}}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w; remove the directory, and everything is read anew", ErrSeen, dir, err), root.Close())
	}
	return s, nil
}

// ours: what somebody else can write is not this officer's memory.
func ours(info fs.FileInfo) error {
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write there (mode %#o); chmod go-w it", info.Mode().Perm())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Getuid() {
		return fmt.Errorf("it belongs to the user %d", st.Uid)
	}
	return nil
}

func (s *Seen) load() error {
	err := s.dir.Mkdir(textDir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s.log, err = s.dir.OpenFile(seenFile, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := s.log.Stat()
	if err != nil {
		return err
	}
	if err := ours(info); err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSeen {
		return fmt.Errorf("%s is no regular file of at most %d bytes", seenFile, maxSeen)
	}
	b, err := io.ReadAll(io.LimitReader(s.log, maxSeen))
	if err != nil {
		return err
	}
	if len(b) < len(seenMagic) { // new, or torn at its beginning
		if err := s.log.Truncate(0); err != nil {
			return err
		}
		_, err := s.log.WriteString(seenMagic)
		return err
	}
	if !bytes.HasPrefix(b, []byte(seenMagic)) {
		return fmt.Errorf("%s does not begin as one", seenFile)
	}
	entries := b[len(seenMagic):]
	for ; len(entries) >= sha256.Size; entries = entries[sha256.Size:] {
		s.set[envelope.Digest(entries[:sha256.Size])] = struct{}{}
	}
	if len(entries) > 0 { // torn: the next entry must begin where it did
		return s.log.Truncate(int64(len(b) - len(entries)))
	}
	return nil
}

// Close lets the record go.
func (s *Seen) Close() error {
	if s == nil {
		return nil
	}
	return errors.Join(s.log.Close(), s.dir.Close())
}

// known says which blocks of a file were seen.
type known []bool

func (k known) has(i int) bool { return k != nil && k[i] }

func (k known) none() bool {
	for _, yes := range k {
		if yes {
			return false
		}
	}
	return true
}

func (s *Seen) have(blocks []envelope.Digest) known {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(known, len(blocks))
	for i, d := range blocks {
		_, out[i] = s.set[d]
	}
	return out
}

// fileMark stands for a file whose whole SHA-256 was computed here over exactly these blocks.
func fileMark(subject envelope.Subject, blocks []envelope.Digest) envelope.Digest {
	h := sha256.New()
	h.Write([]byte("sluice-seen-file-v1\x00"))
	h.Write(subject.Digest.SHA256[:])
	for _, d := range blocks {
		h.Write(d[:])
	}
	return envelope.Digest(h.Sum(nil))
}

// hasFile: the whole of it and each of its blocks. A mark without its blocks is nothing that this package wrote.
func (s *Seen) hasFile(subject envelope.Subject, blocks []envelope.Digest) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.set[fileMark(subject, blocks)]; !ok {
		return false
	}
	for _, d := range blocks {
		if _, ok := s.set[d]; !ok {
			return false
		}
	}
	return true
}

// add remembers digests that were just computed.
func (s *Seen) add(fresh []envelope.Digest) error {
	if s == nil || len(fresh) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var b []byte
	for _, d := range fresh {
		if _, ok := s.set[d]; !ok {
			s.set[d] = struct{}{}
			b = append(b, d[:]...)
		}
	}
	if _, err := s.log.Write(b); err != nil {
		return fmt.Errorf("officer: remember what was read: %w", err)
	}
	return nil
}

// keepText remembers a small text, for the next release.
func (s *Seen) keepText(d envelope.Digest, text []byte) {
	if s == nil {
		return
	}
	f, err := s.dir.OpenFile(textDir+"/"+d.String(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return // it is there, or is not kept: then the next release shows no difference
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = s.dir.Remove(textDir + "/" + d.String())
	}
}

// text gives a text by its digest, which is computed anew.
func (s *Seen) text(d envelope.Digest) ([]byte, bool) {
	if s == nil {
		return nil, false
	}
	b, err := dropbox.ReadFile(s.dir, textDir+"/"+d.String(), maxText)
	return b, err == nil && envelope.Digest(sha256.Sum256(b)) == d
}
