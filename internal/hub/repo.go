// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"fmt"
	"net/url"
	"strings"
)

// Limits on names, as the Hub itself sets them.
const (
	maxRepoID   = 96  // characters of "org/name": huggingface_hub validate_repo_id
	maxRevision = 255 // bytes: a git ref is a file name
)

// Repo names a repository of the Hub.
type Repo struct {
	Type string `json:"type"` // "model" or "dataset"; "" means model
	ID   string `json:"id"`   // "org/name", or "name" for the oldest models
}

// String returns the name as people write it: "org/name", or "datasets/org/name".
func (r Repo) String() string {
	if r.Type == "dataset" {
		return "datasets/" + r.ID
	}
	return r.ID
}

// ParseRepo reads "org/name", "models/org/name" or "datasets/org/name" under the Hub's rules for names: at most 96
// characters of [A-Za-z0-9._-], at most one slash, no "--", no "..", no ".git" at the end, no part that begins or ends
// with "." or "-". The error wraps ErrConfig.
func ParseRepo(s string) (Repo, error) {
	r := Repo{Type: "model", ID: s}
	if id, ok := strings.CutPrefix(s, "datasets/"); ok {
		r = Repo{Type: "dataset", ID: id}
	} else if id, ok := strings.CutPrefix(s, "models/"); ok {
		r.ID = id
	}
	return r, r.check()
}

func (r Repo) check() error {
	if r.Type != "" && r.Type != "model" && r.Type != "dataset" {
		return fmt.Errorf("%w: repository type %q: want model or dataset", ErrConfig, r.Type)
	}
	bad := func(why string) error {
		return fmt.Errorf("%w: repository %q: %s", ErrConfig, r.ID, why)
	}
	parts := strings.Split(r.ID, "/")
	switch {
	case len(r.ID) > maxRepoID:
		return bad(fmt.Sprintf("longer than %d characters", maxRepoID))
	case len(parts) > 2:
		return bad("want org/name")
	case strings.Contains(r.ID, "--") || strings.Contains(r.ID, ".."):
		return bad(`"--" and ".." are not allowed`)
	case strings.HasSuffix(r.ID, ".git"):
		return bad(`a name does not end in ".git"`)
	}
	for _, p := range parts {
		if !namePart(p) {
			return bad("want [A-Za-z0-9._-], not beginning or ending in . or -")
		}
	}
	return nil
}

func namePart(p string) bool {
	if p == "" || strings.ContainsAny(p[:1]+p[len(p)-1:], ".-") {
		return false
	}
	for _, c := range []byte(p) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-", c) >= 0) {
			return false
		}
	}
	return true
}

// apiPath is the path of an API call about the repository: /api/models/org/name + rest.
func (r Repo) apiPath() string {
	if r.Type == "dataset" {
		return "/api/datasets/" + r.ID
	}
	return "/api/models/" + r.ID
}

// filePath is the path of one file at a commit; every component is escaped by itself.
func (r Repo) filePath(commit, path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return "/" + r.String() + "/resolve/" + commit + "/" + strings.Join(parts, "/")
}

// checkRevision refuses what no git ref can be, before it gets into a URL.
func checkRevision(rev string) error {
	if rev == "" || len(rev) > maxRevision || strings.Contains(rev, "..") || strings.ContainsAny(rev, "\\ ~^:?*[") {
		return fmt.Errorf("%w: revision %q: want a branch, a tag or a commit", ErrConfig, rev)
	}
	for _, c := range rev {
		if c < 0x20 || c == 0x7f {
			return fmt.Errorf("%w: revision %q: control character", ErrConfig, rev)
		}
	}
	return nil
}

// isHex reports whether s is exactly n lower-case hexadecimal digits.
func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}
