// SPDX-License-Identifier: Apache-2.0

package hubtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// signatureLife is how long a signed URL of the Hub's CDN lives.
const signatureLife = time.Hour

// find looks a revision up: main, or a commit.
func (s *Server) find(name, rev string) (r *repo, c *commit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r = s.repos[name]; r == nil {
		return nil, nil
	}
	if rev == "main" {
		rev = r.main
	}
	return r, r.commits[rev]
}

// lookup is find with the Hub's own errors; nil means that the answer was given.
func (s *Server) lookup(w http.ResponseWriter, name, rev string) *commit {
	r, c := s.find(name, rev)
	switch {
	case r == nil && s.Token == "":
		fail(w, http.StatusUnauthorized, "RepoNotFound", "Repository not found")
	case r == nil:
		fail(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
	case c == nil:
		fail(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+rev)
	}
	return c
}

// serveAPI answers /api/{models,datasets}/{id}[/revision/{rev}] and .../tree/{rev}[/{sub}].
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request, prefix, rest string) {
	if s.answered(w, AtAPI, r.URL.Path) {
		return
	}
	id, verb, arg := rest, "", ""
	for _, v := range []string{"/revision/", "/tree/"} {
		if before, after, ok := strings.Cut(rest, v); ok {
			id, verb, arg = before, v, after
		}
	}
	if verb == "" {
		arg = "main"
	}
	escaped, sub, _ := strings.Cut(arg, "/")
	rev, err1 := url.PathUnescape(escaped)
	sub, err2 := url.PathUnescape(sub)
	if err1 != nil || err2 != nil {
		fail(w, http.StatusBadRequest, "", "bad escape")
		return
	}
	c := s.lookup(w, prefix+id, rev)
	switch {
	case c == nil:
	case verb == "/tree/":
		s.serveTree(w, r, c, sub)
	default:
		s.serveInfo(w, id, c)
	}
}

func (s *Server) serveInfo(w http.ResponseWriter, id string, c *commit) {
	type sibling struct {
		Name string `json:"rfilename"`
	}
	siblings := make([]sibling, 0, len(c.files))
	for _, f := range c.files {
		siblings = append(siblings, sibling{f.path})
	}
	writeJSON(w, map[string]any{"id": id, "modelId": id, "sha": c.id, "private": false, "gated": false, "disabled": false, "tags": []string{}, "siblings": siblings})
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

type treeItem struct {
	Type string   `json:"type"`
	OID  string   `json:"oid"`
	Size int64    `json:"size"`
	Path string   `json:"path"`
	LFS  *treeLFS `json:"lfs,omitempty"`
}

type treeLFS struct {
	OID         string `json:"oid"`
	Size        int64  `json:"size"`
	PointerSize int    `json:"pointerSize"`
}

func (s *Server) serveTree(w http.ResponseWriter, r *http.Request, c *commit, sub string) {
	q := r.URL.Query()
	items := s.tree(c, strings.Trim(sub, "/"), strings.EqualFold(q.Get("recursive"), "true"))
	if len(items) == 0 && sub != "" {
		w.Header().Set("X-Repo-Commit", c.id)
		fail(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	start := 0
	if raw, err := base64.URLEncoding.DecodeString(q.Get("cursor")); err == nil && len(raw) > 0 {
		start, _ = strconv.Atoi(string(raw))
	}
	start = min(max(start, 0), len(items))
	end := min(start+s.PageSize, len(items))
	if end < len(items) {
		q.Set("cursor", base64.URLEncoding.EncodeToString([]byte(strconv.Itoa(end))))
		w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?%s>; rel="next"`, r.Host, r.URL.EscapedPath(), q.Encode()))
	}
	writeJSON(w, items[start:end])
}

// tree lists what lies below sub: files, and directories where the Hub shows them.
func (s *Server) tree(c *commit, sub string, recursive bool) []treeItem {
	s.mu.Lock()
	masked := s.masked
	s.mu.Unlock()
	items := []treeItem{}
	dirs := map[string]bool{}
	for _, f := range c.files {
		rel := f.path
		if sub != "" {
			var ok bool
			if rel, ok = strings.CutPrefix(f.path, sub+"/"); !ok {
				continue
			}
		}
		for i := range len(rel) {
			d := strings.TrimSuffix(f.path, rel[i:])
			if rel[i] == '/' && !dirs[d] && (recursive || !strings.Contains(rel[:i], "/")) {
				dirs[d] = true
				items = append(items, treeItem{Type: "directory", OID: gitBlob([]byte(d)), Path: d})
			}
		}
		if recursive || !strings.Contains(rel, "/") {
			items = append(items, f.item(masked))
		}
	}
	slices.SortFunc(items, func(a, b treeItem) int { return strings.Compare(a.Path, b.Path) })
	return items
}

func (f *file) item(masked bool) treeItem {
	item := treeItem{Type: "file", OID: f.oid(), Size: f.size, Path: f.path}
	if f.lfs {
		item.LFS = &treeLFS{OID: f.sha256, Size: f.size, PointerSize: len(pointer(f.sha256, f.size))}
		if masked {
			item.LFS.OID = strings.Repeat("*", 64)
		}
	}
	return item
}

// serveResolve answers /{id}/resolve/{rev}/{path}: a redirect with everything a client wants to know in its headers.
func (s *Server) serveResolve(w http.ResponseWriter, r *http.Request, p string) {
	name, rest, _ := strings.Cut(p, "/resolve/")
	escapedRev, escapedPath, _ := strings.Cut(rest, "/")
	rev, err1 := url.PathUnescape(escapedRev)
	file, err2 := url.PathUnescape(escapedPath)
	if err1 != nil || err2 != nil {
		fail(w, http.StatusBadRequest, "", "bad escape")
		return
	}
	if s.answered(w, AtResolve, file) || s.refusedGate(w, r, name, file) {
		return
	}
	c := s.lookup(w, name, rev)
	if c == nil {
		return
	}
	w.Header().Set("X-Repo-Commit", c.id)
	f := c.index[file]
	if f == nil {
		fail(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	s.redirect(w, r, name, c, f)
}

// redirect leads to the bytes: by a relative Location for small files, by an absolute one for LFS files. Clients follow the
// first in a HEAD and stop at the second, whose headers tell all.
func (s *Server) redirect(w http.ResponseWriter, r *http.Request, name string, c *commit, f *file) {
	h := w.Header()
	h.Set("Accept-Ranges", "bytes")
	h.Set("Cache-Control", "no-cache, no-transform")
	if !f.lfs {
		h.Set("ETag", f.etag())
		h.Set("Location", "/api/resolve-cache/"+s.target(name, c, f)+"?etag="+url.QueryEscape(f.etag()))
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	expires := time.Now().Add(signatureLife)
	if s.take(AtResolve, f.path, func(f *Fault) bool { return f.What == Expire }) != nil {
		expires = time.Now().Add(-time.Second)
	}
	h.Set("X-Linked-Etag", f.etag())
	h.Set("X-Linked-Size", strconv.FormatInt(f.size, 10))
	h.Set("ETag", `"`+f.oid()+`"`)
	cdn := s.CDN
	if cdn == "" {
		cdn = "http://" + r.Host
	}
	h.Set("Location", cdn+"/cdn/"+s.target(name, c, f)+"?"+s.sign(s.target(name, c, f), expires))
	w.WriteHeader(http.StatusFound)
}

// target names a file at a commit in the paths of the cache and the CDN.
func (s *Server) target(name string, c *commit, f *file) string {
	parts := strings.Split(f.path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	kind, id := "models", name
	if rest, ok := strings.CutPrefix(name, "datasets/"); ok {
		kind, id = "datasets", rest
	}
	return path.Join(kind, id, c.id) + "/" + strings.Join(parts, "/")
}

func (s *Server) sign(target string, expires time.Time) string {
	q := url.Values{"Expires": {strconv.FormatInt(expires.Unix(), 10)}}
	q.Set("Signature", s.mac(target, q.Get("Expires")))
	return q.Encode()
}

func (s *Server) mac(target, expires string) string {
	m := hmac.New(sha256.New, s.secret[:])
	fmt.Fprintf(m, "%s\n%s", target, expires)
	return hex.EncodeToString(m.Sum(nil))
}

// locate is the inverse of target.
func (s *Server) locate(target string) (*commit, *file) {
	kind, rest, _ := strings.Cut(target, "/")
	name := ""
	for {
		part, after, ok := strings.Cut(rest, "/")
		if !ok {
			return nil, nil
		}
		full := name
		if kind == "datasets" {
			full = "datasets/" + name
		}
		if _, c := s.find(full, part); c != nil && part != "main" {
			p, _ := url.PathUnescape(after)
			return c, c.index[p]
		}
		name, rest = strings.TrimPrefix(name+"/"+part, "/"), after
	}
}

func (s *Server) serveCache(w http.ResponseWriter, r *http.Request, target string) {
	c, f := s.locate(target)
	if f == nil {
		fail(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	w.Header().Set("X-Repo-Commit", c.id)
	w.Header().Set("ETag", f.etag())
	s.serveFile(w, r, f)
}

// serveCDN checks the signature and serves. Its ETag is 64 hexadecimal digits that are not the SHA-256 of the content:
// the Hub's CDN does the same, and a client that believes it fails here.
func (s *Server) serveCDN(w http.ResponseWriter, r *http.Request, target string) {
	q := r.URL.Query()
	at, err := strconv.ParseInt(q.Get("Expires"), 10, 64)
	if err != nil || time.Now().Unix() > at || !hmac.Equal([]byte(q.Get("Signature")), []byte(s.mac(target, q.Get("Expires")))) {
		http.Error(w, "Access denied", http.StatusForbidden)
		return
	}
	c, f := s.locate(target)
	if f == nil {
		http.NotFound(w, r)
		return
	}
	if s.CDN == "" { // clients follow a HEAD's redirects on one host and look for these at its end
		w.Header().Set("X-Repo-Commit", c.id)
		w.Header().Set("X-Linked-Etag", f.etag())
		w.Header().Set("X-Linked-Size", strconv.FormatInt(f.size, 10))
	}
	if s.answered(w, AtCDN, f.path) {
		return
	}
	x := sha256.Sum256([]byte("xet" + f.sha256))
	w.Header().Set("ETag", `"`+hex.EncodeToString(x[:])+`"`)
	s.serveFile(w, r, f)
}

// serveFile sends the content, whole or in part, spoilt if that was ordered.
func (s *Server) serveFile(w http.ResponseWriter, r *http.Request, f *file) {
	src, err := os.Open(f.disk)
	if err != nil {
		http.Error(w, "file is gone", http.StatusInternalServerError)
		return
	}
	defer src.Close()
	var content io.ReadSeeker = src
	w.Header().Set("Content-Type", "application/octet-stream")
	hasRange := r.Header.Get("Range") != ""
	fault := s.take(InBody, f.path, func(f *Fault) bool { return hasRange || f.What == Cut || f.What == Flip || f.What == Chunked })
	if fault == nil {
		http.ServeContent(w, r, "", time.Time{}, content)
		return
	}
	switch fault.What {
	case Cut, Flip:
		content = &spoil{ReadSeeker: src, what: fault.What, at: fault.At}
	case NoRange:
		r.Header.Del("Range")
	case WrongRange:
		r.Header.Set("Range", "bytes=0-")
	case Unsatisfied:
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", f.size))
	case Status, Expire, Garbage: // these are faults of other places: the body is as it should be
	case Chunked:
		io.Copy(w, struct{ io.Reader }{src}) // several writes without a Content-Length: chunked
		io.WriteString(w, fault.Text)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, content)
}

// refusedGate answers for a gated repository: before it looks whether the file exists, but for the papers at the root.
func (s *Server) refusedGate(w http.ResponseWriter, r *http.Request, name, file string) bool {
	s.mu.Lock()
	gated := s.gated[name]
	s.mu.Unlock()
	if !gated || slices.Contains([]string{"README.md", "LICENSE", "LICENSE.md", "LICENSE.txt"}, file) {
		return false
	}
	text := "Access to model " + name + " is restricted"
	if r.Header.Get("Authorization") == "" {
		fail(w, http.StatusUnauthorized, "GatedRepo", text+". You must have access to it and be authenticated to access it. Please log in.")
	} else {
		fail(w, http.StatusForbidden, "GatedRepo", text+" and you are not in the authorized list.")
	}
	return true
}
