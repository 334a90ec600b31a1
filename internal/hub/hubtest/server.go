// SPDX-License-Identifier: Apache-2.0

// Package hubtest serves directories as the Hugging Face Hub serves repositories, for tests and demonstrations.
//
//	/api/models/{id}[/revision/{rev}]          description: id, sha, siblings
//	/api/models/{id}/tree/{rev}?recursive=true  the tree, paged by Link
//	/{id}/resolve/{rev}/{path}                  LFS: 302 to /cdn/... with a signed query; else 307 to /api/resolve-cache/...
//
// Headers, hashes, error codes and redirects are those that Hub clients see. Bodies go from the file to the socket by
// sendfile. Faults can be ordered one by one; see Fault.
package hubtest

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Server is an http.Handler with repositories in it. The exported fields are set before it serves.
type Server struct {
	PageSize int    // entries a page of a tree; default 1000, as the Hub
	LFSSize  int64  // files of at least so many bytes are LFS; default 1 MiB
	CDN      string // scheme://host of the server behind LFS redirects; default: this server itself
	Token    string // when set, every request to the Hub's own paths must carry it

	secret [32]byte // signs CDN URLs

	mu     sync.Mutex
	repos  map[string]*repo
	hashes map[fileKey]hashes
	faults []*Fault
	log    []Seen
	masked bool
	gated  map[string]bool
}

const (
	defaultPageSize = 1000
	defaultLFSSize  = 1 << 20
	maxLog          = 10_000 // requests kept for Requests: enough for a test, bounded for a demonstration
)

// New returns an empty server.
func New() *Server {
	s := &Server{
		PageSize: defaultPageSize,
		LFSSize:  defaultLFSSize,
		repos:    map[string]*repo{},
		hashes:   map[fileKey]hashes{},
		gated:    map[string]bool{},
	}
	rand.Read(s.secret[:])
	return s
}

// AddRepo adds a repository ("org/name" or "datasets/org/name") whose first commit is the content of dir, which must stay
// as it is while it is served. It returns the commit id: the same content gives the same id.
func (s *Server) AddRepo(name, dir string) (commit string, err error) {
	s.mu.Lock()
	_, exists := s.repos[name]
	s.mu.Unlock()
	if exists {
		return "", fmt.Errorf("hubtest: repository %q exists; AddCommit adds to it", name)
	}
	return s.add(name, "", dir)
}

// AddCommit adds a commit with the content of dir to a repository and moves main to it. Older commits stay.
func (s *Server) AddCommit(name, dir string) (commit string, err error) {
	s.mu.Lock()
	r := s.repos[name]
	s.mu.Unlock()
	if r == nil {
		return "", fmt.Errorf("hubtest: no repository %q; AddRepo makes it", name)
	}
	return s.add(name, r.main, dir)
}

func (s *Server) add(name, parent, dir string) (string, error) {
	c, err := s.snapshot(name, parent, dir)
	if err != nil {
		return "", fmt.Errorf("hubtest: add %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[name]
	if r == nil {
		r = &repo{name: name, commits: map[string]*commit{}}
		s.repos[name] = r
	}
	r.commits[c.id] = c
	r.main = c.id
	return c.id, nil
}

// Repos returns the names of the repositories, sorted.
func (s *Server) Repos() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.repos))
}

// MaskHashes makes trees hide the LFS hashes behind asterisks, as the Hub does for a gated repository without access.
func (s *Server) MaskHashes(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.masked = on
}

// Gate makes a repository gated: its files answer 401 without a token and 403 with one.
func (s *Server) Gate(name string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gated[name] = on
}

// Seen is one request that reached the server.
type Seen struct {
	Method, Host, Path, Query, Authorization, Range string
}

// Requests returns what reached the server so far (the first 10,000 of it).
func (s *Server) Requests() []Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (s *Server) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.log) < maxLog {
		s.log = append(s.log, Seen{
			Method: r.Method, Host: r.Host, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery,
			Authorization: r.Header.Get("Authorization"), Range: r.Header.Get("Range"),
		})
	}
}

// ServeHTTP routes on the escaped path: a revision may hold an escaped slash.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.note(r)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	p := r.URL.EscapedPath()
	if rest, ok := strings.CutPrefix(p, "/cdn/"); ok {
		s.serveCDN(w, r, rest)
		return
	}
	if s.Token != "" && r.Header.Get("Authorization") != "Bearer "+s.Token {
		s.unauthorized(w)
		return
	}
	switch {
	case strings.HasPrefix(p, "/api/resolve-cache/"):
		s.serveCache(w, r, strings.TrimPrefix(p, "/api/resolve-cache/"))
	case strings.HasPrefix(p, "/api/models/"):
		s.serveAPI(w, r, "", strings.TrimPrefix(p, "/api/models/"))
	case strings.HasPrefix(p, "/api/datasets/"):
		s.serveAPI(w, r, "datasets/", strings.TrimPrefix(p, "/api/datasets/"))
	case strings.Contains(p, "/resolve/"):
		s.serveResolve(w, r, strings.TrimPrefix(p, "/"))
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) unauthorized(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="Authentication required", charset="UTF-8"`)
	fail(w, http.StatusUnauthorized, "", "Invalid username or password.")
}

// fail answers as the Hub does: a code for programs, a sentence for people, and JSON.
func fail(w http.ResponseWriter, status int, code, message string) {
	if code != "" {
		w.Header().Set("X-Error-Code", code)
	}
	w.Header().Set("X-Error-Message", message)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":%q}`, message)
}
