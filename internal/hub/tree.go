// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Limits on what a Hub may tell us before a file is fetched.
const (
	maxEntries  = 100_000  // files: docs/spec/envelope.md, section 1
	maxListed   = 200_000  // files and directories together
	maxPages    = 2_000    // 50 entries a page is the smallest page that the Hub serves
	maxPageSize = 32 << 20 // bytes: 1,000 entries of the longest paths are 2 MiB
	maxInfoSize = 32 << 20 // bytes of the answer to Resolve: it lists every file's name
	maxFileSize = 1 << 53  // bytes: docs/spec/envelope.md, section 3 (integers below 2^53)
)

// Entry is one file of a commit, as the Hub's tree describes it.
type Entry struct {
	Path    string // slash-separated, checked
	Size    int64  // bytes of the content (not of the LFS pointer)
	GitSHA1 string // 40 hex: git blob id of the content, or of the LFS pointer when SHA256 is set
	SHA256  string // 64 hex: SHA-256 of the content; LFS files only, else ""
}

// Resolve returns the commit (40 hex) that a revision names now. A revision that is a commit id already is returned as it
// is, without a request. Errors: ErrRepoNotFound, ErrRevisionNotFound, ErrGated, ErrRepoMoved, ErrUnavailable.
func (c *Client) Resolve(ctx context.Context, repo Repo, revision string) (commit string, err error) {
	if err := errors.Join(repo.check(), checkRevision(revision)); err != nil {
		return "", err
	}
	if isHex(revision, 40) {
		return revision, nil
	}
	body, _, err := c.getBody(ctx, repo.apiPath()+"/revision/"+url.PathEscape(revision), maxInfoSize)
	if err != nil {
		return "", fmt.Errorf("resolve %s@%s: %w", repo, revision, err)
	}
	return parseInfo(body, repo)
}

// parseInfo takes the commit out of a repository's description, and refuses one that goes by another name: names may be
// given up and taken over, and the policy approved this one.
func parseInfo(body []byte, repo Repo) (string, error) {
	var info struct {
		ID  string `json:"id"`
		SHA string `json:"sha"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return "", fmt.Errorf("%w: description of %s: %w", ErrProtocol, repo, err)
	}
	if info.ID != "" && info.ID != repo.ID {
		return "", fmt.Errorf("%w: %s answers as %q; if that is the one you mean, name it so", ErrRepoMoved, repo, printable(info.ID))
	}
	if !isHex(info.SHA, 40) {
		return "", fmt.Errorf("%w: description of %s: sha %q is not a commit", ErrProtocol, repo, printable(info.SHA))
	}
	return info.SHA, nil
}

// Tree returns every file of the commit (40 hex), sorted by path. It reads all pages; it refuses hashes that are masked or
// malformed (ErrMasked), paths that a release could not hold (ErrPath) and trees beyond the caps (ErrLimit).
func (c *Client) Tree(ctx context.Context, repo Repo, commit string) ([]Entry, error) {
	if err := repo.check(); err != nil {
		return nil, err
	}
	if !isHex(commit, 40) {
		return nil, fmt.Errorf("%w: commit %q: want 40 hexadecimal digits; Resolve turns a branch into one", ErrConfig, commit)
	}
	entries, err := c.pages(ctx, repo.apiPath()+"/tree/"+commit)
	if err != nil {
		return nil, fmt.Errorf("tree of %s@%s: %w", repo, commit, err)
	}
	if err := checkDisjoint(entries); err != nil {
		return nil, fmt.Errorf("tree of %s@%s: %w", repo, commit, err)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return entries, nil
}

// pages follows the cursor. Only the query of a next link is used, on our own path: a Link that names another host or
// another path leads nowhere else.
func (c *Client) pages(ctx context.Context, path string) ([]Entry, error) {
	var entries []Entry
	listed := 0
	query := "recursive=true&expand=false"
	seen := map[string]bool{}
	for range maxPages {
		seen[query] = true
		page, n, link, err := c.page(ctx, path+"?"+query)
		if err != nil {
			return nil, err
		}
		entries, listed = append(entries, page...), listed+n
		if listed > maxListed || len(entries) > maxEntries {
			return nil, fmt.Errorf("%w: more than %d files", ErrLimit, maxEntries)
		}
		if link == "" {
			return entries, nil
		}
		if query = link; seen[query] {
			return nil, fmt.Errorf("%w: the tree's pages go in a circle", ErrProtocol)
		}
	}
	return nil, fmt.Errorf("%w: more than %d pages", ErrLimit, maxPages)
}

func (c *Client) page(ctx context.Context, path string) (files []Entry, listed int, nextQuery string, err error) {
	body, header, err := c.getBody(ctx, path, maxPageSize)
	if err != nil {
		return nil, 0, "", err
	}
	if files, listed, err = parseTree(body); err != nil {
		return nil, 0, "", err
	}
	nextQuery, err = nextPage(header.Values("Link"))
	return files, listed, nextQuery, err
}

// readBody reads a whole small answer and closes it.
func readBody(ctx context.Context, resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: status %d", ErrProtocol, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, networkError(ctx, "read answer", err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w: answer of more than %d bytes", ErrLimit, limit)
	}
	return body, nil
}

type treeItem struct {
	Type string   `json:"type"`
	OID  string   `json:"oid"`
	Size int64    `json:"size"`
	Path string   `json:"path"`
	LFS  *treeLFS `json:"lfs"`
}

type treeLFS struct {
	OID  string `json:"oid"`
	Size int64  `json:"size"`
}

// parseTree reads one page: the files on it, and how many items it listed in all.
func parseTree(body []byte) (files []Entry, listed int, err error) {
	var items []treeItem
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, 0, fmt.Errorf("%w: tree: %w", ErrProtocol, err)
	}
	for _, item := range items {
		if item.Type == "directory" {
			continue
		}
		if item.Type != "file" {
			return nil, 0, fmt.Errorf("%w: tree: %q is a %q; only files and directories can be mirrored", ErrProtocol, printable(item.Path), printable(item.Type))
		}
		e, err := item.entry()
		if err != nil {
			return nil, 0, err
		}
		files = append(files, e)
	}
	return files, len(items), nil
}

func (t treeItem) entry() (Entry, error) {
	if err := checkPath(t.Path); err != nil {
		return Entry{}, err
	}
	e := Entry{Path: t.Path, Size: t.Size, GitSHA1: t.OID}
	if !isHex(t.OID, 40) {
		return Entry{}, maskedError(t.Path, t.OID)
	}
	if t.LFS != nil {
		if !isHex(t.LFS.OID, 64) {
			return Entry{}, maskedError(t.Path, t.LFS.OID)
		}
		if t.LFS.Size != t.Size {
			return Entry{}, fmt.Errorf("%w: tree: %q has size %d and LFS size %d", ErrProtocol, t.Path, t.Size, t.LFS.Size)
		}
		e.SHA256 = t.LFS.OID
	}
	if e.Size < 0 || e.Size >= maxFileSize {
		return Entry{}, fmt.Errorf("%w: tree: %q has size %d", ErrProtocol, t.Path, t.Size)
	}
	return e, nil
}

func maskedError(path, hash string) error {
	if hash != "" && strings.Trim(hash, "*") == "" {
		return fmt.Errorf("%w: %q: the Hub hides the hash from this account; ask for access to the repository and configure its token", ErrMasked, path)
	}
	return fmt.Errorf("%w: %q: %q is not a hash", ErrMasked, path, printable(hash))
}

// nextPage finds the query of the rel="next" target in Link headers (RFC 8288), or "".
func nextPage(links []string) (query string, err error) {
	for _, header := range links {
		for header != "" {
			target, params, rest, ok := cutLink(header)
			if !ok {
				return "", fmt.Errorf("%w: Link header %q", ErrProtocol, printable(header))
			}
			header = rest
			if !isNext(params) {
				continue
			}
			u, err := url.Parse(target)
			if err != nil || u.RawQuery == "" {
				return "", fmt.Errorf("%w: Link header leads to %q", ErrProtocol, printable(redact(target)))
			}
			return u.RawQuery, nil
		}
	}
	return "", nil
}

// cutLink splits the first `<target>; params` off a Link header. A comma inside quotes belongs to the parameters.
func cutLink(s string) (target, params, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t,")
	if s == "" {
		return "", "", "", true
	}
	if s[0] != '<' {
		return "", "", "", false
	}
	target, s, ok = strings.Cut(s[1:], ">")
	if !ok {
		return "", "", "", false
	}
	quoted := false
	for i, c := range []byte(s) {
		switch {
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return target, s[:i], s[i+1:], true
		}
	}
	return target, s, "", !quoted
}

func isNext(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(strings.TrimSpace(name), "rel") && slices.Contains(strings.Fields(strings.Trim(strings.TrimSpace(value), `"`)), "next") {
			return true
		}
	}
	return false
}
