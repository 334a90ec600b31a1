// SPDX-License-Identifier: Apache-2.0

//go:build real

package real_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

func TestConformance(t *testing.T) {
	s := startMinIO(t)
	t.Run("whole", func(t *testing.T) { registrytest.Run(t, buckets{server: s}) })
	t.Run("parts", func(t *testing.T) {
		registrytest.Run(t, buckets{server: s, change: func(c *registry.S3Config) {
			c.MultipartAbove, c.PartSize, c.Options.Workers = 1<<20, registry.MinPartSize, 1
		}})
	})
}

// TestPreflightRefusesForgedTrailer: the archived MinIO stores a PUT with a
// signature of zeros (CVE-2026-41145). Without AllowForgedTrailer we do not publish to it.
func TestPreflightRefusesForgedTrailer(t *testing.T) {
	s := startMinIO(t)
	cfg := s.config("forged", "")
	cfg.AllowForgedTrailer = false
	spool := smallSpool(t)
	p := open(t, cfg)
	if _, err := p.Publish(t.Context(), spool.Release, spool, nil); !errors.Is(err, registry.ErrUnsafe) {
		t.Fatalf("publish to a forgeable server: %v", err)
	}
	if keys := (buckets{server: s}).Keys(t, "forged"); len(keys) > 0 {
		t.Errorf("left %v", keys)
	}
}

// TestPreflightRefusesAnonymousWrites: a bucket with a public write policy.
func TestPreflightRefusesAnonymousWrites(t *testing.T) {
	s := startMinIO(t)
	c := s.client(t)
	if err := c.MakeBucket(t.Context(), "public", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:PutObject"],"Resource":["arn:aws:s3:::public/*"]}]}`
	if err := c.SetBucketPolicy(t.Context(), "public", policy); err != nil {
		t.Fatal(err)
	}
	spool := smallSpool(t)
	if _, err := open(t, s.config("public", "")).Publish(t.Context(), spool.Release, spool, nil); !errors.Is(err, registry.ErrUnsafe) {
		t.Fatalf("publish into a public bucket: %v", err)
	}
}

func smallSpool(t *testing.T) *registrytest.Spool {
	t.Helper()
	return registrytest.Make(t, t.TempDir(), "llama", 1, 1, registrytest.Small())
}

// TestServerChecksDigest: one flipped bit on its way is refused by the server
// itself, for single and multipart uploads: the bytes are changed behind the client.
func TestServerChecksDigest(t *testing.T) {
	s := startMinIO(t)
	for i, above := range []int64{registry.MaxSinglePut, 1 << 20} {
		var flipped atomic.Int64
		proxy := s.proxy(t, func(r *http.Request) {
			if r.Method == http.MethodPut && r.ContentLength > 1<<20 {
				flipped.Add(1)
				r.Body = &flipper{ReadCloser: r.Body, at: r.ContentLength / 2}
			}
		}, nil)
		cfg := s.config(fmt.Sprint("flipped-", i), "")
		cfg.MultipartAbove, cfg.PartSize, cfg.Endpoint = above, registry.MinPartSize, proxy.URL
		spool := registrytest.Make(t, t.TempDir(), "llama", 1, 1, map[string]int64{"w": 7 << 20})
		_, err := open(t, cfg).Publish(t.Context(), spool.Release, spool, nil)
		if !errors.Is(err, registry.ErrCorrupt) || flipped.Load() == 0 {
			t.Errorf("multipart above %d: %v, %d bits flipped", above, err, flipped.Load())
		}
		if keys := (buckets{server: s}).Keys(t, cfg.Bucket); len(keys) > 0 {
			t.Errorf("stored %v", keys)
		}
	}
}

// TestSpoolFlippedMultipart: a bit that rotted in the spool does not become an
// object either, although each part is consistent in itself.
func TestSpoolFlippedMultipart(t *testing.T) {
	s := startMinIO(t)
	cfg := s.config("rotten", t.TempDir())
	cfg.MultipartAbove, cfg.PartSize = 1<<20, registry.MinPartSize
	spool := registrytest.Make(t, t.TempDir(), "llama", 1, 1, map[string]int64{"w": 12 << 20})
	registrytest.Flip(t, spool.File(0), 6<<20)
	p := open(t, cfg)
	if _, err := p.Publish(t.Context(), spool.Release, spool, nil); !errors.Is(err, registry.ErrCorrupt) {
		t.Fatalf("rotten spool: %v", err)
	}
	if keys := (buckets{server: s}).Keys(t, cfg.Bucket); len(keys) > 0 {
		t.Errorf("stored %v", keys)
	}
	registrytest.Flip(t, spool.File(0), 6<<20)
	if _, err := p.Publish(t.Context(), spool.Release, spool, nil); err != nil {
		t.Fatal(err)
	}
	registrytest.Complete(t, p, spool)
	registrytest.Clean(t, p)
}

// flipper inverts one bit of a body.
type flipper struct {
	io.ReadCloser
	at, pos int64
}

func (f *flipper) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if i := f.at - f.pos; i >= 0 && i < int64(n) {
		p[i] ^= 4
	}
	f.pos += int64(n)
	return n, err
}

// proxy forwards to the server and shows each request before and after. The
// Host header stays: it is signed.
func (s *server) proxy(t *testing.T, before func(*http.Request), after func(*http.Response) error) *httptest.Server {
	t.Helper()
	target := &url.URL{Scheme: "http", Host: s.addr}
	rp := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ModifyResponse: after,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) },
		ErrorLog:       nil,
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before != nil {
			before(r)
		}
		rp.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	return proxy
}

// isPart says whether a request sends one part of a multipart upload.
func isPart(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Query().Has("partNumber")
}

// TestKillServerMidUpload kills MinIO with SIGKILL while parts are coming in,
// restarts it, and publishes again with a new publisher: it goes on with the
// same upload and does not send again what the server has.
func TestKillServerMidUpload(t *testing.T) {
	s := startMinIO(t)
	const parts, killAfter = 12, 5
	var mu sync.Mutex
	ids := make(map[string]bool)
	sent, acked := 0, 0
	proxy := s.proxy(t, func(r *http.Request) {
		if isPart(r) {
			mu.Lock()
			sent++
			ids[r.URL.Query().Get("uploadId")] = true
			mu.Unlock()
		}
	}, func(resp *http.Response) error {
		mu.Lock()
		defer mu.Unlock()
		if isPart(resp.Request) && resp.StatusCode == http.StatusOK {
			if acked++; acked == killAfter {
				s.kill(t)
			}
		}
		return nil
	})
	cfg := s.config("killed-server", t.TempDir())
	cfg.Endpoint, cfg.MultipartAbove, cfg.PartSize = proxy.URL, 1<<20, registry.MinPartSize
	spool := registrytest.Make(t, t.TempDir(), "llama", 1, 1, map[string]int64{"w": parts * registry.MinPartSize, "small": 5})
	if _, err := open(t, cfg).Publish(t.Context(), spool.Release, spool, nil); !errors.Is(err, registry.ErrUnavailable) {
		t.Fatalf("server killed: %v", err)
	}
	s.start(t)
	p := open(t, cfg)
	if _, err := p.Get(t.Context(), spool.Name, spool.ID); !errors.Is(err, registry.ErrNotFound) {
		t.Fatalf("visible after the kill: %v", err)
	}
	mu.Lock()
	sent = 0
	mu.Unlock()
	if _, err := p.Publish(t.Context(), spool.Release, spool, nil); err != nil {
		t.Fatal(err)
	}
	if len(ids) != 1 || sent > parts-killAfter+1 {
		t.Errorf("%d upload ids, %d of %d parts sent again after %d were acknowledged", len(ids), sent, parts, killAfter)
	}
	t.Logf("%d parts, %d acknowledged before the kill, %d sent after it", parts, killAfter, sent)
	registrytest.Complete(t, p, spool)
	registrytest.Clean(t, p)
}

// Environment of the helper process.
const (
	helperEndpoint = "SLUICE_TEST_ENDPOINT"
	helperBucket   = "SLUICE_TEST_BUCKET"
	helperState    = "SLUICE_TEST_STATE"
	helperSpool    = "SLUICE_TEST_SPOOL"
)

// killConfig is what the helper and its parent share.
func (s *server) killConfig(endpoint, bucket, state string) registry.S3Config {
	cfg := s.config(bucket, state)
	cfg.Endpoint, cfg.MultipartAbove, cfg.PartSize, cfg.Options.Workers = endpoint, 1<<20, registry.MinPartSize, 1
	return cfg
}

func killSpool(t *testing.T, dir string) *registrytest.Spool {
	t.Helper()
	return registrytest.Make(t, dir, "llama", 1, 1, map[string]int64{"a/b": 2000, "empty": 0, "w": 11 << 20})
}

// TestPublisherHelper is no test: it is the publisher that
// TestKillPublisherAtEveryRequest kills.
func TestPublisherHelper(t *testing.T) {
	endpoint := os.Getenv(helperEndpoint)
	if endpoint == "" {
		t.Skip("only as a helper process")
	}
	spool := killSpool(t, os.Getenv(helperSpool))
	p := open(t, (&server{}).killConfig(endpoint, os.Getenv(helperBucket), os.Getenv(helperState)))
	if _, err := p.Publish(t.Context(), spool.Release, spool, nil); err != nil {
		t.Fatal(err)
	}
}

// TestKillPublisherAtEveryRequest kills a publisher with SIGKILL at its k-th
// request, before the server sees it and after the server has answered, for
// every k, and publishes again as the receiver does after a restart.
func TestKillPublisherAtEveryRequest(t *testing.T) {
	s := startMinIO(t)
	points := 0
	for k := 1; ; k++ {
		before := s.killOnce(t, k, true)
		after := s.killOnce(t, k, false)
		if !before && !after {
			break
		}
		points += 2
	}
	t.Logf("%d kill points", points)
	if points < 40 {
		t.Errorf("only %d kill points", points)
	}
}

// killOnce reports whether the publisher lived long enough to send request k.
func (s *server) killOnce(t *testing.T, k int, early bool) bool {
	t.Helper()
	bucket, state, what := fmt.Sprint("kill-", k, "-", early), t.TempDir(), "nothing"
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPublisherHelper$")
	var n atomic.Int64
	kill := func(r *http.Request) {
		what = fmt.Sprint(r.Method, " ", r.URL.Path, "?", r.URL.RawQuery)
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
		panic(http.ErrAbortHandler)
	}
	proxy := s.proxy(t, func(r *http.Request) {
		if n.Add(1) == int64(k) && early {
			kill(r)
		}
	}, func(resp *http.Response) error {
		if n.Load() == int64(k) && !early {
			kill(resp.Request)
		}
		return nil
	})
	defer proxy.Close()
	dir := t.TempDir()
	cmd.Env = append(os.Environ(), helperEndpoint+"="+proxy.URL, helperBucket+"="+bucket, helperState+"="+state, helperSpool+"="+dir)
	out := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	killed := n.Load() >= int64(k)
	if !killed && err != nil {
		t.Fatalf("helper: %v\n%s", err, out)
	}
	s.afterKill(t, bucket, state, fmt.Sprintf("request %d, early %v, %s", k, early, what))
	return killed
}

// afterKill checks that nothing partial is visible, and that publishing again
// ends with one COMMIT and no leftovers.
func (s *server) afterKill(t *testing.T, bucket, state, what string) {
	t.Helper()
	spool := killSpool(t, t.TempDir())
	p := open(t, s.killConfig("http://"+s.addr, bucket, state))
	if _, err := p.Get(t.Context(), spool.Name, spool.ID); err == nil {
		registrytestWhole(t, p, spool, what)
	} else if !errors.Is(err, registry.ErrNotFound) {
		t.Fatalf("%s: half a release is visible: %v", what, err)
	}
	if err := p.Reconcile(t.Context()); err != nil {
		t.Fatalf("%s: reconcile: %v", what, err)
	}
	if _, err := p.Publish(t.Context(), spool.Release, spool, nil); err != nil {
		t.Fatalf("%s: publish again: %v", what, err)
	}
	if err := p.Reconcile(t.Context()); err != nil {
		t.Fatalf("%s: reconcile again: %v", what, err)
	}
	registrytest.Complete(t, p, spool)
	if found := registrytest.Fsck(t, p, true); len(found) > 0 {
		t.Fatalf("%s: fsck found %v", what, found)
	}
	s.oneVersion(t, bucket, what)
	notes, err := filepath.Glob(state + "/*")
	if err != nil || len(notes) > 0 {
		t.Fatalf("%s: state directory holds %v, %v", what, notes, err)
	}
}

// registrytestWhole requires every file of a visible release.
func registrytestWhole(t *testing.T, p *registry.S3, spool *registrytest.Spool, what string) {
	t.Helper()
	if err := p.Verify(t.Context(), spool.Name, spool.ID); err != nil {
		t.Fatalf("%s: visible, not whole: %v", what, err)
	}
}

// oneVersion requires that no immutable object was ever written twice.
func (s *server) oneVersion(t *testing.T, bucket, what string) {
	t.Helper()
	seen := make(map[string]bool)
	opt := minio.ListObjectsOptions{Recursive: true, WithVersions: true}
	for info := range s.client(t).ListObjectsIter(t.Context(), bucket, opt) {
		if info.Err != nil {
			t.Fatal(info.Err)
		}
		if seen[info.Key] && !strings.HasPrefix(info.Key, "channels/") {
			t.Fatalf("%s: %s was written twice", what, info.Key)
		}
		seen[info.Key] = true
	}
}

// TestOutage refuses connections for a while; the caller's loop publishes again.
func TestOutage(t *testing.T) {
	s := startMinIO(t)
	cfg := s.config("outage", t.TempDir())
	spool := smallSpool(t)
	p := open(t, cfg)
	s.kill(t)
	if _, err := p.Publish(t.Context(), spool.Release, spool, nil); !errors.Is(err, registry.ErrUnavailable) {
		t.Fatalf("server down: %v", err)
	}
	s.start(t)
	if _, err := p.Publish(t.Context(), spool.Release, spool, nil); err != nil {
		t.Fatal(err)
	}
	registrytest.Clean(t, p)
}

// TestRetention: with RetainFor the server locks what was published.
func TestRetention(t *testing.T) {
	s := startMinIO(t)
	cfg := s.config("locked", "")
	cfg.RetainFor = time.Hour
	spool := smallSpool(t)
	receipt, err := open(t, cfg).Publish(t.Context(), spool.Release, spool, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range receipt.Files {
		key := "releases/llama/sha256-" + receipt.Release + "/" + f.Path
		err := s.client(t).RemoveObject(t.Context(), "locked", key, minio.RemoveObjectOptions{VersionID: f.VersionID})
		if err == nil || f.VersionID == "" {
			t.Errorf("version %q of %s was deleted within its retention", f.VersionID, key)
		}
	}
}
