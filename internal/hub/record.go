// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"encoding/json"
	"time"
)

// The ways a file can have been verified, as Record names them.
const (
	MethodSHA256  = "sha256"   // the content's SHA-256 equals the tree's LFS id
	MethodGitSHA1 = "git-sha1" // SHA-1 of "blob <size>\x00" and the content equals the tree's git id
)

// Record says what was fetched, from where, and how every file was verified. It is the evidence `mirror.json` of
// docs/spec/envelope.md, section 4.
type Record struct {
	Endpoint  string       `json:"endpoint"`
	Repo      Repo         `json:"repo"`
	Revision  string       `json:"revision"` // what the operator named, or the commit
	Commit    string       `json:"commit"`   // 40 hex
	Allow     []string     `json:"allow,omitempty"`
	Ignore    []string     `json:"ignore,omitempty"`
	Started   time.Time    `json:"started"`  // UTC, whole seconds
	Finished  time.Time    `json:"finished"` // UTC, whole seconds
	TotalSize int64        `json:"total_size"`
	Skipped   []string     `json:"skipped,omitempty"` // paths of the commit that the filters left out
	Files     []RecordFile `json:"files"`             // sorted by path; exactly the regular files of the directory
}

// RecordFile is one mirrored file.
type RecordFile struct {
	Path    string `json:"path"`
	Size    int64  `json:"size"`     // bytes
	SHA256  string `json:"sha256"`   // of the content, computed here for every file
	GitSHA1 string `json:"git_sha1"` // the tree's git id: of the content, or of the LFS pointer
	Method  string `json:"method"`   // MethodSHA256 or MethodGitSHA1: which hash of the tree the content was held against
}

// Marshal returns the record as indented JSON with a final newline.
func (r *Record) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}
