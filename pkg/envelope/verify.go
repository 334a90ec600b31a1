// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"context"
	"fmt"
	"io"
	"io/fs"
)

// PayloadError says which file of a payload is wrong, and where. It is an ErrDigest.
type PayloadError struct {
	Path string
	// Block is the number of the content block within the file, from 0; -1 when the trouble is the file as a whole.
	Block int64
	// Offset and Length are the block's range in the file, in bytes, as the statement has it; for a whole file, 0 and
	// its size.
	Offset, Length int64
	// Want is the statement's digest, Got that of the bytes found. Both are zero when digests were not compared.
	Want, Got Digest
	// Problem says in words what is wrong when it is not a digest: missing, too long, too short, not in the release.
	Problem string
}

// Error names the file, the range, both digests, and what to do.
func (e *PayloadError) Error() string {
	where := quote(e.Path)
	if e.Block >= 0 {
		where = fmt.Sprintf("%s, content block %d, bytes %d to %d", where, e.Block, e.Offset, e.Offset+e.Length-1)
	}
	if e.Problem != "" {
		return fmt.Sprintf("envelope: payload file %s: %s", where, e.Problem)
	}
	return fmt.Sprintf("envelope: payload file %s: SHA-256 is %s, the statement has %s: fetch this range again", where, e.Got, e.Want)
}

// Unwrap makes it an ErrDigest.
func (e *PayloadError) Unwrap() error { return ErrDigest }

// VerifyPayload checks that fsys holds exactly the files of the release, and every byte of them, reading each byte once.
// A missing or extra file is found before anything is hashed; the statement's digest of each file and every digest of
// the content index must match. progress may be nil; see BuildOptions. Errors: *PayloadError (an ErrDigest),
// ErrFormat for what cannot be in a release at all, and those of fsys and ctx.
func VerifyPayload(ctx context.Context, fsys fs.FS, e *Envelope, progress func(done, total int64)) error {
	files, err := listFiles(ctx, fsys)
	if err != nil {
		return err
	}
	if err := checkSet(e.Statement, files); err != nil {
		return err
	}
	open := func(i int) (io.ReadCloser, error) { return openFile(fsys, e.Statement.Subjects[i].Name) }
	return VerifyFiles(ctx, e.Statement, e.Index, open, progress)
}

// checkSet compares two sorted lists of files: names and sizes.
func checkSet(s *Statement, files []file) error {
	for i := range max(len(files), len(s.Subjects)) {
		switch {
		case i == len(files) || i < len(s.Subjects) && s.Subjects[i].Name < files[i].path:
			return wholeFile(&s.Subjects[i], "is missing")
		case i == len(s.Subjects) || s.Subjects[i].Name > files[i].path:
			return &PayloadError{
				Path: files[i].path, Block: -1, Length: files[i].size,
				Problem: "is not in the release: remove it, or release it",
			}
		case s.Subjects[i].Annotations.Size != files[i].size:
			return wrongSize(&s.Subjects[i], files[i].size)
		}
	}
	return nil
}

func wholeFile(s *Subject, problem string) *PayloadError {
	return &PayloadError{Path: s.Name, Block: -1, Length: s.Annotations.Size, Problem: problem}
}

func wrongSize(s *Subject, got int64) *PayloadError {
	return wholeFile(s, fmt.Sprintf("has %d bytes, the statement has %d: fetch the file again", got, s.Annotations.Size))
}

// VerifyFiles is VerifyPayload where files are named by their number in stmt.Subjects, and no set is compared. stmt was
// checked by ParseStatement; index is checked here. open is called once a file, from several goroutines at a time; what
// it returns is closed. A file that is longer than it should be is read one block past its end at most.
func VerifyFiles(ctx context.Context, stmt *Statement, index []byte, open func(i int) (io.ReadCloser, error), progress func(done, total int64)) error {
	if err := checkIndex(index, stmt); err != nil {
		return err
	}
	first := make([]int64, len(stmt.Subjects))
	var blocks int64
	for i := range stmt.Subjects {
		first[i] = blocks
		blocks += Blocks(stmt.Subjects[i].Annotations.Size)
	}
	meter := newProgress(stmt.Predicate.TotalSize, progress)
	return eachFile(ctx, len(stmt.Subjects), 0, func(ctx context.Context, h *hasher, i int) error {
		r, err := open(i)
		if err != nil {
			return fmt.Errorf("open %s: %w", quote(stmt.Subjects[i].Name), err)
		}
		defer r.Close()
		want := func(b int64) Digest { return blockDigest(index, first[i]+b) }
		return verifyFile(ctx, h, r, &stmt.Subjects[i], want, meter)
	})
}

// verifyFile reads one file and compares every block, then the whole.
func verifyFile(ctx context.Context, h *hasher, r io.Reader, s *Subject, want func(int64) Digest, meter *progress) error {
	size := s.Annotations.Size
	got, n, err := h.hash(ctx, r, func(i, n int64, d Digest) error {
		offset := i * BlockSize
		length := min(BlockSize, size-offset)
		if n > length {
			return wholeFile(s, fmt.Sprintf("is longer than the %d bytes of the statement: fetch the file again", size))
		}
		if n < length {
			return wrongSize(s, offset+n)
		}
		if w := want(i); d != w {
			return &PayloadError{Path: s.Name, Block: i, Offset: offset, Length: length, Want: w, Got: d}
		}
		meter.add(n)
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify %s: %w", quote(s.Name), err)
	}
	if n != size {
		return wrongSize(s, n)
	}
	if got != s.Digest.SHA256 {
		return &PayloadError{Path: s.Name, Block: -1, Length: size, Want: s.Digest.SHA256, Got: got}
	}
	return nil
}

func newProgress(total int64, report func(done, total int64)) *progress {
	return &progress{total: total, report: report}
}
