// SPDX-License-Identifier: Apache-2.0

package hubtest

import (
	"io"
	"net/http"
	"strings"
)

// Where says which answers a fault spoils.
type Where int

// The places of a fault.
const (
	InBody    Where = iota // the body of a file, wherever it is served from
	AtAPI                  // descriptions and trees
	AtResolve              // the first answer about a file
	AtCDN                  // the answer behind a signed URL
)

// What says how.
type What int

// The faults.
const (
	Cut         What = iota // InBody: close the connection before byte At of the file
	Flip                    // InBody: change the byte At of the file
	Status                  // anywhere but InBody: answer Code with Header and no content
	NoRange                 // InBody: ignore Range, answer 200 with the whole file
	WrongRange              // InBody: answer 206 with a Content-Range of another offset
	Unsatisfied             // InBody: answer 416 to a request with Range
	Expire                  // AtResolve: sign the CDN's URL so that it has expired already
	Garbage                 // AtAPI: answer 200 with Text instead of JSON
	Chunked                 // InBody: no Content-Length, and Text after the content
)

// Fault is one order to misbehave. It is used up after Times matching answers; negative means never.
type Fault struct {
	Where  Where
	What   What
	Path   string // path in the repository (for AtAPI: a piece of the URL's path); "" matches all
	At     int64
	Code   int
	Header map[string]string
	Text   string
	Times  int
}

// Inject orders a fault. Faults are looked through in the order of their injection.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// take uses up and returns a copy of the first fault that matches, or nil.
func (s *Server) take(where Where, path string, fits func(*Fault) bool) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		matches := f.Path == "" || f.Path == path || where == AtAPI && strings.Contains(path, f.Path)
		if f.Where != where || f.Times == 0 || !matches || !fits(f) {
			continue
		}
		f.Times--
		taken := *f
		return &taken
	}
	return nil
}

// answered carries out a Status or Garbage fault at a place and reports whether it did.
func (s *Server) answered(w http.ResponseWriter, where Where, path string) bool {
	f := s.take(where, path, func(f *Fault) bool { return f.What == Status || f.What == Garbage })
	if f == nil {
		return false
	}
	for k, v := range f.Header {
		w.Header().Set(k, v)
	}
	if f.What == Garbage {
		io.WriteString(w, f.Text)
		return true
	}
	w.WriteHeader(f.Code)
	return true
}

// spoil wraps the content of a file so that its byte at differs or reading fails there.
type spoil struct {
	io.ReadSeeker
	what What
	at   int64
	off  int64
}

func (s *spoil) Seek(offset int64, whence int) (int64, error) {
	n, err := s.ReadSeeker.Seek(offset, whence)
	s.off = n
	return n, err
}

func (s *spoil) Read(p []byte) (int, error) {
	if s.what == Cut && s.off >= s.at {
		panic(http.ErrAbortHandler) // net/http's way to break a connection off in the middle of a body
	}
	if s.what == Cut {
		p = p[:min(int64(len(p)), s.at-s.off)]
	}
	n, err := s.ReadSeeker.Read(p)
	if i := s.at - s.off; s.what == Flip && i >= 0 && i < int64(n) {
		p[i] ^= 0x01
	}
	s.off += int64(n)
	return n, err
}
