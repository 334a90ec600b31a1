// SPDX-License-Identifier: Apache-2.0

//go:build real

// Package real_test runs Sluice against real servers, started on loopback.
// Build the server first: tools/minio/README.md.
package real_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

const (
	accessKey = "sluice-test-access"
	secretKey = "sluice-test-secret"

	readyWithin = 60 * time.Second // a cold start on a loaded machine
	stopWithin  = 20 * time.Second
)

// binary finds the server, or says how to build it. With SLUICE_REAL=1 a
// missing server is a failure, so that a test run cannot pass by not running.
func binary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("SLUICE_MINIO")
	if path == "" {
		path = "../../.cache/bin/minio"
	}
	full, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(full)
	}
	if err != nil && os.Getenv("SLUICE_REAL") == "1" {
		t.Fatalf("no MinIO: %v; build it as tools/minio/README.md says, or set SLUICE_MINIO", err)
	}
	if err != nil {
		t.Skipf("no MinIO: %v", err)
	}
	return full
}

// server is one MinIO process over one data directory and port.
type server struct {
	addr string
	data string
	bin  string
	cmd  *exec.Cmd
	done chan error
}

// startMinIO starts a server on a random port with an empty directory, and
// stops it at the end of the test.
func startMinIO(t testing.TB) *server {
	t.Helper()
	s := &server{bin: binary(t), data: t.TempDir(), addr: freeAddr(t)}
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	return s
}

// freeAddr is a loopback address that was free a moment ago.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs the server and waits until it answers.
func (s *server) start(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command(s.bin, "server", "--address", s.addr, "--quiet", s.data)
	s.cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+accessKey, "MINIO_ROOT_PASSWORD="+secretKey,
		"MINIO_BROWSER=off", "MINIO_UPDATE=off")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan error) { done <- cmd.Wait() }(s.cmd, s.done)
	s.ready(t)
}

// ready polls the health endpoint.
func (s *server) ready(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/minio/health/ready", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case err := <-s.done:
			t.Fatalf("MinIO ended: %v", err)
		case <-ctx.Done():
			t.Fatalf("MinIO not ready in %v", readyWithin)
		case <-tick.C:
		}
	}
}

// kill is kill -9.
func (s *server) kill(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.done
}

// stop sends SIGTERM by pid, waits, and makes sure that nobody listens any more.
func (s *server) stop(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stop MinIO: %v", err)
	}
	select {
	case <-s.done:
	case <-time.After(stopWithin):
		t.Errorf("MinIO ignored SIGTERM for %v", stopWithin)
		s.kill(t)
	}
	if conn, err := net.Dial("tcp", s.addr); err == nil {
		conn.Close()
		t.Errorf("somebody still listens on %s", s.addr)
	}
}

// config is a publisher's configuration for one bucket. This MinIO has
// CVE-2026-41145 (see TestPreflightRefusesForgedTrailer); nobody else reaches it.
func (s *server) config(bucket, stateDir string) registry.S3Config {
	return registry.S3Config{
		Endpoint: "http://" + s.addr, Bucket: bucket, AccessKey: accessKey, SecretKey: secretKey,
		CreateBucket: true, StateDir: stateDir, AllowForgedTrailer: true,
		Options: registry.Options{Receiver: "receiver-1"},
	}
}

// open opens a publisher.
func open(t testing.TB, cfg registry.S3Config) *registry.S3 {
	t.Helper()
	p, err := registry.NewS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// client is a plain client for looking and damaging behind a publisher's back.
func (s *server) client(t testing.TB) *minio.Client {
	t.Helper()
	c, err := minio.New(s.addr, &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, ""), TrailingHeaders: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// buckets is the server as a target of the conformance suite: one bucket a
// registry.
type buckets struct {
	*server
	change func(*registry.S3Config)
}

func (b buckets) Open(t *testing.T, name string) registry.Publisher {
	t.Helper()
	cfg := b.config(name, "")
	if b.change != nil {
		b.change(&cfg)
	}
	p, err := registry.NewS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (b buckets) Plant(t *testing.T, name, key string, data []byte) {
	t.Helper()
	c := b.client(t)
	if ok, err := c.BucketExists(t.Context(), name); err != nil || !ok {
		if err := c.MakeBucket(t.Context(), name, minio.MakeBucketOptions{ObjectLocking: true}); err != nil {
			t.Fatal(err)
		}
	}
	body := registrytest.Blob("", string(data))
	r, err := body.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(t.Context(), name, key, r, body.Size, minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (b buckets) Remove(t *testing.T, name, key string) {
	t.Helper()
	if err := b.client(t).RemoveObject(t.Context(), name, key, minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (b buckets) Kept(t *testing.T, name, key string) []byte {
	t.Helper()
	c := b.client(t)
	for info := range c.ListObjectsIter(t.Context(), name, minio.ListObjectsOptions{Prefix: key, WithVersions: true}) {
		if info.Err != nil {
			t.Fatal(info.Err)
		}
		if info.Key == key && !info.IsDeleteMarker {
			return readVersion(t, c, name, key, info.VersionID)
		}
	}
	return nil
}

func (b buckets) Keys(t *testing.T, name string) map[string]string {
	t.Helper()
	c := b.client(t)
	keys := make(map[string]string)
	ok, err := c.BucketExists(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return keys
	}
	for info := range c.ListObjectsIter(t.Context(), name, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		if info.Err != nil {
			t.Fatal(info.Err)
		}
		if !info.IsLatest || info.IsDeleteMarker {
			continue
		}
		var data []byte
		if info.Size <= registrytest.MaxShown {
			data = read(t, c, name, info.Key)
		}
		keys[info.Key] = registrytest.Shown(fmt.Sprint(info.Size, " ", info.VersionID), data)
		if data == nil && info.Size <= registrytest.MaxShown {
			t.Fatalf("cannot read %s", info.Key)
		}
	}
	return keys
}

func read(t *testing.T, c *minio.Client, bucket, key string) []byte {
	t.Helper()
	return readVersion(t, c, bucket, key, "")
}

func readVersion(t *testing.T, c *minio.Client, bucket, key, version string) []byte {
	t.Helper()
	o, err := c.GetObject(t.Context(), bucket, key, minio.GetObjectOptions{VersionID: version})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	data, err := io.ReadAll(o)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
