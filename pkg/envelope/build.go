// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"slices"
)

// BuildOptions says what Build cannot see in the files.
type BuildOptions struct {
	// Predicate without the computed fields: Evidence, TotalSize, ContentIndex and DirectoryDigest are overwritten.
	Predicate Predicate
	// Evidence are the reports that the statement will bind, in any order.
	Evidence []Named
	// Workers is the number of files read at a time; 0 is one for each CPU. Each takes 2 MiB.
	Workers int
	// Progress, if set, is told the bytes hashed so far and the bytes in all, about once a MiB, one call at a time.
	Progress func(done, total int64)
}

// Build makes the release statement and the content index of the files of fsys. Each byte is read once. fsys should
// be rooted (os.Root's FS), so that a link planted while it runs cannot lead out of it. Refused are: anything but
// regular files and directories, a path that section 4 refuses, a file that changes its size while it is read, and
// whatever ParseStatement refuses, which Build runs over its own output. Evidence sections must then be written sorted
// by name. Errors: ErrFormat, and those of fsys and ctx.
func Build(ctx context.Context, fsys fs.FS, opt BuildOptions) (*Statement, []byte, error) {
	files, err := listFiles(ctx, fsys)
	if err != nil {
		return nil, nil, err
	}
	draft := &Statement{Type: StatementType, PredicateType: PredicateTypeRelease, Predicate: opt.Predicate}
	draft.Predicate.Evidence = evidenceRefs(opt.Evidence)
	index, err := hashPayload(ctx, fsys, files, draft, opt)
	if err != nil {
		return nil, nil, fmt.Errorf("build release: %w", err)
	}
	s, err := reread(draft, index)
	if err != nil {
		return nil, nil, fmt.Errorf("build release: %w", err)
	}
	return s, index, nil
}

func evidenceRefs(evidence []Named) []EvidenceRef {
	refs := make([]EvidenceRef, 0, len(evidence))
	for _, n := range slices.SortedFunc(slices.Values(evidence), byName) {
		refs = append(refs, EvidenceRef{Name: n.Name, SHA256: sha256.Sum256(n.Data), Size: int64(len(n.Data))})
	}
	return refs
}

// hashPayload fills the subjects and the computed fields of s, and returns the content index.
func hashPayload(ctx context.Context, fsys fs.FS, files []file, s *Statement, opt BuildOptions) ([]byte, error) {
	first := make([]int64, len(files)) // number of the first block of each file
	var total, blocks int64
	s.Subjects = make([]Subject, len(files))
	for i, f := range files {
		first[i] = blocks
		total += f.size
		blocks += Blocks(f.size)
		if f.size < 0 || total >= maxInt || blocks > maxBlocks {
			return nil, badPath(f.path, "takes the release over %d blocks of 1 MiB (section 1): split the release", maxBlocks)
		}
		s.Subjects[i] = Subject{Name: f.path, Annotations: Annotations{f.size}}
	}
	index := Index{Digests: make([]Digest, blocks)}
	meter := newProgress(total, opt.Progress)
	err := eachFile(ctx, len(files), opt.Workers, func(ctx context.Context, h *hasher, i int) error {
		own := index.Digests[first[i]:][:Blocks(files[i].size)]
		d, err := hashFile(ctx, h, fsys, files[i], own, meter)
		s.Subjects[i].Digest.SHA256 = d
		return err
	})
	if err != nil {
		return nil, err
	}
	b := index.Marshal()
	p := &s.Predicate
	p.TotalSize = total
	p.ContentIndex = ContentIndexRef{SHA256: sha256.Sum256(b), Size: int64(len(b)), BlockSize: BlockSize, Blocks: blocks}
	p.DirectoryDigest = DirectoryDigest(s.Subjects)
	return b, nil
}

// hashFile hashes one file into its part of the index.
func hashFile(ctx context.Context, h *hasher, fsys fs.FS, f file, own []Digest, meter *progress) (Digest, error) {
	r, err := openFile(fsys, f.path)
	if err != nil {
		return Digest{}, err
	}
	defer r.Close()
	changed := fmt.Errorf("%w: %s changed while it was read: build again when nobody writes to it", ErrDigest, quote(f.path))
	d, size, err := h.hash(ctx, r, func(i, n int64, d Digest) error {
		if i >= int64(len(own)) {
			return changed
		}
		own[i] = d
		meter.add(n)
		return nil
	})
	if err == nil && size != f.size {
		err = changed
	}
	if err != nil {
		return Digest{}, fmt.Errorf("hash %s: %w", quote(f.path), err)
	}
	return d, nil
}

// reread runs the real parser over what was built: what is handed out is what a receiver will see.
func reread(draft *Statement, index []byte) (*Statement, error) {
	b, err := draft.Marshal()
	if err != nil {
		return nil, err
	}
	s, err := ParseStatement(b)
	if err != nil {
		return nil, err
	}
	return s, checkIndex(index, s)
}
