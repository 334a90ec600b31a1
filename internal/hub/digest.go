// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"crypto/sha1" //nolint:gosec // git's blob id is SHA-1; the SHA-256 of every file is recorded beside it
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
)

// digest computes, in one pass, the SHA-256 of a file and (where the tree has nothing better) its git blob id.
type digest struct {
	sha256 hash.Hash
	git    hash.Hash // nil for an LFS file
}

func newDigest(e Entry) *digest {
	d := &digest{sha256: sha256.New()}
	if e.SHA256 == "" {
		d.git = sha1.New() //nolint:gosec // git's blob id is SHA-1
		fmt.Fprintf(d.git, "blob %d\x00", e.Size)
	}
	return d
}

func (d *digest) Write(p []byte) (int, error) {
	d.sha256.Write(p)
	if d.git != nil {
		d.git.Write(p)
	}
	return len(p), nil
}

// verify compares with the tree and returns the line for the record, or a *DigestError.
func (d *digest) verify(e Entry) (RecordFile, error) {
	rf := RecordFile{Path: e.Path, Size: e.Size, GitSHA1: e.GitSHA1, SHA256: hex.EncodeToString(d.sha256.Sum(nil))}
	want, got := e.SHA256, rf.SHA256
	rf.Method = MethodSHA256
	if d.git != nil {
		want, got = e.GitSHA1, hex.EncodeToString(d.git.Sum(nil))
		rf.Method = MethodGitSHA1
	}
	if got != want {
		return RecordFile{}, &DigestError{Path: e.Path, Method: rf.Method, Want: want, Got: got}
	}
	return rf, nil
}
