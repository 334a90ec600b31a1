// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	sha256Size  = sha256.Size
	indexHeader = 24 // bytes before the first digest (section 5)
	// maxBlocks is how many digests MaxIndex holds.
	maxBlocks = (MaxIndex - indexHeader) / sha256Size

	indexName    = "SLINDEX" // bytes 0 to 6 of the magic
	indexVersion = 1         // byte 7 of the magic
)

// Blocks is the number of content blocks of a file of size bytes: ceil(size / 1 MiB), none for an empty file.
func Blocks(size int64) int64 {
	n := size / BlockSize
	if size%BlockSize != 0 {
		n++
	}
	return n
}

// Index is the content index (section 5): the SHA-256 of each content block, file by file in the order of the subjects.
type Index struct {
	Digests []Digest
}

// Marshal returns the index section's body, the caller's to keep.
func (x *Index) Marshal() []byte {
	out := make([]byte, indexHeader, indexHeader+sha256Size*len(x.Digests))
	copy(out, indexName)
	out[len(indexName)] = indexVersion
	binary.BigEndian.PutUint32(out[8:], BlockSize)
	binary.BigEndian.PutUint64(out[16:], uint64(len(x.Digests)))
	for i := range x.Digests {
		out = append(out, x.Digests[i][:]...)
	}
	return out
}

// WriteTo writes what Marshal returns.
func (x *Index) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(x.Marshal())
	return int64(n), err
}

// ParseIndex takes an index section's body that s binds: header, count, length and SHA-256 must all match. s has been
// checked by ParseStatement. Nothing of b is kept. Errors: ErrFormat, ErrVersion, ErrDigest.
func ParseIndex(b []byte, s *Statement) (*Index, error) {
	if err := checkIndex(b, s); err != nil {
		return nil, err
	}
	x := &Index{Digests: make([]Digest, s.Predicate.ContentIndex.Blocks)}
	for i := range x.Digests {
		x.Digests[i] = blockDigest(b, int64(i))
	}
	return x, nil
}

// blockDigest is entry i of an index that checkIndex took.
func blockDigest(index []byte, i int64) Digest {
	return Digest(index[indexHeader+sha256Size*i:][:sha256Size])
}

// checkIndex is ParseIndex without the copy: an index may have 64 MiB.
func checkIndex(b []byte, s *Statement) error {
	if len(b) < indexHeader || !bytes.HasPrefix(b, []byte(indexName)) {
		return fmt.Errorf("content index: %w: %d bytes that do not begin with %q (section 5)", ErrFormat, len(b), indexName)
	}
	if v := b[len(indexName)]; v != indexVersion {
		return fmt.Errorf("content index: %w %d: this reader knows %d (section 5)", ErrVersion, v, indexVersion)
	}
	if size := binary.BigEndian.Uint32(b[8:]); size != BlockSize {
		return fmt.Errorf("content index: %w: block size %d, want %d (section 5)", ErrFormat, size, BlockSize)
	}
	if binary.BigEndian.Uint32(b[12:]) != 0 {
		return fmt.Errorf("content index: %w: reserved bytes 12 to 15 are not 0 (section 5)", ErrFormat)
	}
	var want int64
	for i := range s.Subjects {
		want += Blocks(s.Subjects[i].Annotations.Size)
	}
	n := binary.BigEndian.Uint64(b[16:])
	if n != uint64(want) || want > maxBlocks || int64(len(b)) != indexHeader+sha256Size*want {
		return fmt.Errorf("content index: %w: %d blocks in %d bytes, the files have %d blocks (section 5)", ErrFormat, n, len(b), want)
	}
	if got := Digest(sha256.Sum256(b)); got != s.Predicate.ContentIndex.SHA256 {
		return fmt.Errorf("content index: %w: SHA-256 is %s, the statement has %s (section 5)", ErrDigest, got, s.Predicate.ContentIndex.SHA256)
	}
	return nil
}
