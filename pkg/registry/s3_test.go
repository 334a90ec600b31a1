// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

func TestS3Config(t *testing.T) {
	good := registry.S3Config{Endpoint: "https://minio:9000", Bucket: "models", AccessKey: "a", SecretKey: "b"}
	for what, test := range map[string]struct {
		change func(c *registry.S3Config)
		ok     bool
	}{
		"https":             {func(c *registry.S3Config) {}, true},
		"host and port":     {func(c *registry.S3Config) { c.Endpoint = "minio:9000" }, true},
		"loopback http":     {func(c *registry.S3Config) { c.Endpoint = "http://127.0.0.1:9000" }, true},
		"plain http":        {func(c *registry.S3Config) { c.Endpoint = "http://minio:9000" }, false},
		"plain http wanted": {func(c *registry.S3Config) { c.Endpoint, c.Insecure = "http://minio:9000", true }, true},
		"path":              {func(c *registry.S3Config) { c.Endpoint = "https://minio/x" }, false},
		"credentials":       {func(c *registry.S3Config) { c.Endpoint = "https://a:b@minio" }, false},
		"scheme":            {func(c *registry.S3Config) { c.Endpoint = "ftp://minio" }, false},
		"no endpoint":       {func(c *registry.S3Config) { c.Endpoint = "" }, false},
		"bucket":            {func(c *registry.S3Config) { c.Bucket = "Models/x" }, false},
		"short bucket":      {func(c *registry.S3Config) { c.Bucket = "ab" }, false},
		"no bucket":         {func(c *registry.S3Config) { c.Bucket = "" }, false},
		"anonymous":         {func(c *registry.S3Config) { c.SecretKey = "" }, false},
		"small parts":       {func(c *registry.S3Config) { c.PartSize = 1 << 20 }, false},
		"huge put":          {func(c *registry.S3Config) { c.MultipartAbove = 6 << 30 }, false},
		"prefix":            {func(c *registry.S3Config) { c.Prefix = "a/b/" }, true},
		"prefix no slash":   {func(c *registry.S3Config) { c.Prefix = "a" }, false},
		"prefix climbs":     {func(c *registry.S3Config) { c.Prefix = "../" }, false},
		"no CA file":        {func(c *registry.S3Config) { c.CAFile = "/does/not/exist" }, false},
		"bad CA file":       {func(c *registry.S3Config) { c.CAFile = os.DevNull }, false},
		"no state dir":      {func(c *registry.S3Config) { c.StateDir = "/does/not/exist" }, false},
	} {
		c := good
		test.change(&c)
		p, err := registry.NewS3(c)
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", what, err)
		}
		if err == nil {
			p.Close()
		}
	}
}

func smallSpool(t *testing.T) *registrytest.Spool {
	t.Helper()
	return registrytest.Make(t, t.TempDir(), "llama", 1, 1, map[string]int64{"a": 0, "b": 3000, "c": 70_000})
}

// TestS3Unavailable: nobody listens.
func TestS3Unavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	p, err := registry.NewS3(registry.S3Config{Endpoint: addr, Insecure: true, Bucket: "bucket", AccessKey: "a", SecretKey: "s"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := smallSpool(t)
	if _, err := p.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("connection refused: %v", err)
	}
}

// TestS3Errors answers one kind of request with an error, and looks at the
// class of the error, that nothing is visible, and that publishing again works.
func TestS3Errors(t *testing.T) {
	const key = "/releases/llama/"
	for _, test := range []struct {
		method string
		status int
		code   string
		want   error
	}{
		{http.MethodPut, 500, "InternalError", registry.ErrUnavailable},
		{http.MethodPut, 503, "SlowDown", registry.ErrUnavailable},
		{http.MethodPut, 502, "", registry.ErrUnavailable},
		{http.MethodPut, 429, "TooManyRequests", registry.ErrUnavailable},
		{http.MethodPut, 507, "XMinioStorageFull", registry.ErrNoSpace},
		{http.MethodPut, 400, "BadDigest", registry.ErrCorrupt},
		{http.MethodPut, 400, "XAmzContentChecksumMismatch", registry.ErrCorrupt},
		{http.MethodPut, 403, "AccessDenied", registry.ErrDenied},
		{http.MethodPut, 403, "InvalidAccessKeyId", registry.ErrDenied},
		{http.MethodPut, 409, "ConditionalRequestConflict", registry.ErrUnavailable},
		{http.MethodGet, 500, "InternalError", registry.ErrUnavailable},
		{http.MethodGet, 503, "", registry.ErrUnavailable},
	} {
		t.Run(fmt.Sprint(test.method, " ", test.status, " ", test.code), func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			var off atomic.Bool
			f.inject = func(w http.ResponseWriter, r *http.Request) bool {
				hit := !off.Load() && r.Method == test.method && strings.Contains(r.URL.Path, key)
				if hit {
					fail(w, test.status, test.code)
				}
				return hit
			}
			p, s := f.open(t, "bucket"), smallSpool(t)
			if _, err := p.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			visibleIsWhole(t, p, s)
			off.Store(true)
			if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
				t.Fatal(err)
			}
			registrytest.Clean(t, p)
		})
	}
}

// TestS3CutBody ends every GET of a file early.
func TestS3CutBody(t *testing.T) {
	f := newFake(t)
	var off atomic.Bool
	f.inject = func(w http.ResponseWriter, r *http.Request) bool {
		if off.Load() || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/c") {
			return false
		}
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Last-Modified", time.Unix(1_700_000_000, 0).UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", "70000")
		_, _ = w.Write(make([]byte, 1000))
		return true // the server closes the connection, 69,000 bytes short
	}
	p, s := f.open(t, "bucket"), smallSpool(t)
	if _, err := p.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, registry.ErrUnavailable) {
		t.Fatalf("cut body: %v", err)
	}
	visibleIsWhole(t, p, s)
	off.Store(true)
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	registrytest.Clean(t, p)
}

// TestS3LostAnswer: the server stored the object and its answer got lost; the
// client's retry meets its own object.
func TestS3LostAnswer(t *testing.T) {
	f := newFake(t)
	seen := make(map[string]bool)
	f.inject = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "sha256-") || seen[r.URL.Path] {
			return false
		}
		seen[r.URL.Path] = true // Workers: 1 and retries in sequence: no lock needed
		inner := f.inject
		f.inject = nil
		f.ServeHTTP(&discard{w}, r)
		f.inject = inner
		fail(w, http.StatusInternalServerError, "InternalError")
		return true
	}
	cfg := f.config("bucket")
	cfg.Options.Workers = 1
	p, err := registry.NewS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := smallSpool(t)
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	if len(seen) < 9 {
		t.Errorf("only %d answers were lost", len(seen))
	}
	registrytest.Complete(t, p, s)
	registrytest.Clean(t, p)
}

// discard drops an answer.
type discard struct{ http.ResponseWriter }

func (d *discard) Header() http.Header         { return make(http.Header) }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// TestS3Unsafe: servers that store what nobody signed are refused, for good.
func TestS3Unsafe(t *testing.T) {
	anonymous := func(r *http.Request) bool { return r.Header.Get("Authorization") == "" && r.URL.RawQuery == "" }
	forged := func(r *http.Request) bool { return r.URL.Query().Has("X-Amz-Signature") }
	for what, test := range map[string]struct {
		takes func(*http.Request) bool
		allow bool
		want  error
	}{
		"anonymous":          {anonymous, false, registry.ErrUnsafe},
		"anonymous, allowed": {anonymous, true, registry.ErrUnsafe},
		"forged":             {forged, false, registry.ErrUnsafe},
		"forged, allowed":    {forged, true, nil},
	} {
		f := newFake(t)
		f.inject = func(w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/.preflight/") && test.takes(r)
		}
		cfg := f.config("bucket")
		cfg.AllowForgedTrailer = test.allow
		p, err := registry.NewS3(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s := smallSpool(t)
		for range 2 {
			if _, err := p.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", what, err, test.want)
			}
		}
		if got := f.digest("bucket", "releases/llama/sha256-"+registrytest.Hex(s)+"/b"); (got == "") != (test.want != nil) {
			t.Errorf("%s: object %q", what, got)
		}
		p.Close()
	}
}

// TestS3LongKey: a path that S3 cannot hold is refused before anything is written.
func TestS3LongKey(t *testing.T) {
	f := newFake(t)
	p := f.open(t, "bucket")
	part := strings.Repeat("d", 200)
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, map[string]int64{"a": 1, part + "/" + part + "/" + part + "/" + part + "/" + part: 1})
	if _, err := p.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("key of over 1024 bytes: %v", err)
	}
	if keys := (fakes{f}).Keys(t, "bucket"); len(keys) > 0 {
		t.Errorf("wrote %v", keys)
	}
}

// TestS3Stall: a server that accepts and then says nothing is given up on.
func TestS3Stall(t *testing.T) {
	f := newFake(t)
	gone := make(chan struct{})
	f.inject = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/b") {
			select {
			case <-gone:
			case <-r.Context().Done():
			}
			return true
		}
		return false
	}
	t.Cleanup(func() { close(gone) })
	cfg := f.config("bucket")
	cfg.StallTimeout = 50 * time.Millisecond
	p, err := registry.NewS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := smallSpool(t)
	if _, err := p.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("stalled server: %v", err)
	}
}

// TestS3NoBucket: without CreateBucket an absent bucket is an error with advice.
func TestS3NoBucket(t *testing.T) {
	cfg := newFake(t).config("bucket")
	cfg.CreateBucket = false
	p, err := registry.NewS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.List(t.Context()); err == nil || !strings.Contains(err.Error(), "CreateBucket") {
		t.Errorf("absent bucket: %v", err)
	}
}
