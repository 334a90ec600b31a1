// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Config says which bucket, and how to reach it.
type S3Config struct {
	Endpoint  string // host:port, or a URL without a path
	Bucket    string
	Region    string // "": us-east-1, which asks the server nothing
	AccessKey string
	SecretKey string
	CAFile    string // PEM; "": the system's roots
	Prefix    string // put before every key, "" or ending in a slash
	Insecure  bool   // allow plain HTTP to a host that is not loopback

	// AllowForgedTrailer publishes to a server that stores a PUT with a forged
	// signature (CVE-2026-41145: every MinIO up to the last open release). Who
	// knows the access key, not the secret, can then write into the bucket. Set
	// it only where a proxy in front of the server refuses requests with
	// "X-Amz-Content-Sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER", or where
	// nobody but this process and readers can reach the server.
	AllowForgedTrailer bool

	PartSize       int64         // of multipart uploads, bytes; 0: DefaultPartSize, at least MinPartSize
	MultipartAbove int64         // larger objects go up in parts; 0 or above MaxSinglePut: MaxSinglePut
	StateDir       string        // where upload ids survive a kill; "": large uploads start anew
	StallTimeout   time.Duration // give up on a connection that moves no byte; 0: DefaultStall
	CreateBucket   bool          // create the bucket, versioned and locked, when it is absent
	RetainFor      time.Duration // object lock of what is published; 0: the bucket's default
	Compliance     bool          // with RetainFor: COMPLIANCE instead of GOVERNANCE
	Options        Options
}

// Limits of S3.
const (
	MaxSinglePut    = 5 << 30  // one PUT; larger objects need multipart
	MinPartSize     = 5 << 20  // all parts but the last
	DefaultPartSize = 64 << 20 // 10,000 of them hold 625 GiB; larger objects get larger parts
	maxParts        = 10_000
	maxKey          = 1024 // bytes in a key
)

// Timeouts. A transfer has no limit in total, only one on silence.
const (
	DefaultStall   = 2 * time.Minute  // MinIO may be silent for long while it joins thousands of parts
	dialTimeout    = 10 * time.Second // a host in the same enclave answers at once or is down
	idleTimeout    = 90 * time.Second
	requestRetries = 3 // of minio-go; waiting longer is the caller's job
)

// S3 is the registry in a bucket. It speaks plain S3 (no admin interface).
//
// Objects of up to MultipartAbove bytes go up as one PUT with a declared
// x-amz-checksum-sha256, which the server checks, and If-None-Match: *. Larger
// ones go up in parts, each with its own declared SHA-256; the upload id is kept
// in StateDir so that a kill -9 of publisher or server loses one part at most.
type S3 struct {
	*engine
}

var _ Publisher = (*S3)(nil)

// NewS3 checks the configuration; it does not speak to the server, which may be
// down now. The first call that does looks for the bucket and refuses a server
// that takes unsigned or forged writes (ErrUnsafe).
func NewS3(cfg S3Config) (*S3, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	host, secure, err := cfg.endpoint()
	if err != nil {
		return nil, err
	}
	transport, err := cfg.transport()
	if err != nil {
		return nil, err
	}
	core, err := minio.NewCore(host, &minio.Options{
		Creds:  credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, ""),
		Secure: secure, Transport: transport, Region: cfg.Region,
		BucketLookup: minio.BucketLookupPath, TrailingHeaders: true, MaxRetries: requestRetries,
	})
	if err != nil {
		return nil, fmt.Errorf("s3 client: %w", err)
	}
	st := &s3Store{cfg: cfg, core: core, http: transport}
	if cfg.StateDir != "" {
		if st.state, err = os.OpenRoot(cfg.StateDir); err != nil {
			return nil, fmt.Errorf("open state directory: %w", err)
		}
	}
	return &S3{newEngine(st, cfg.Options)}, nil
}

// complete fills in defaults and refuses what cannot work.
func (c *S3Config) complete() error {
	c.Region = cmp.Or(c.Region, "us-east-1")
	c.StallTimeout = cmp.Or(c.StallTimeout, DefaultStall)
	c.PartSize = cmp.Or(c.PartSize, DefaultPartSize)
	c.MultipartAbove = cmp.Or(c.MultipartAbove, MaxSinglePut)
	switch {
	case len(c.Bucket) < 3 || len(c.Bucket) > 63 || strings.Trim(c.Bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "":
		return fmt.Errorf("s3: bucket %q: want 3..63 lower-case letters, digits, '.' and '-'", c.Bucket)
	case c.AccessKey == "" || c.SecretKey == "":
		return errors.New("s3: access key and secret key are required; anonymous publishing is not supported")
	case c.PartSize < MinPartSize:
		return fmt.Errorf("s3: part size %d, want at least %d", c.PartSize, MinPartSize)
	case c.MultipartAbove < 0 || c.MultipartAbove > MaxSinglePut:
		return fmt.Errorf("s3: multipart above %d, want at most %d", c.MultipartAbove, int64(MaxSinglePut))
	case c.Prefix != "" && (!strings.HasSuffix(c.Prefix, "/") || validPath(strings.TrimSuffix(c.Prefix, "/")) != nil):
		return fmt.Errorf("s3: prefix %q: want a relative path that ends in a slash", c.Prefix)
	}
	return nil
}

// endpoint splits Endpoint into host:port and whether to use TLS. Plain HTTP
// is for loopback, unless Insecure allows it.
func (c *S3Config) endpoint() (host string, secure bool, err error) {
	text := c.Endpoint
	if !strings.Contains(text, "://") {
		scheme := "https://"
		if c.Insecure {
			scheme = "http://"
		}
		text = scheme + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", false, fmt.Errorf("s3: endpoint: %w", err)
	}
	if u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		return "", false, fmt.Errorf("s3: endpoint %q: want host:port or a URL without path, user or query", c.Endpoint)
	}
	switch {
	case u.Scheme == "https":
		return u.Host, true, nil
	case u.Scheme == "http" && (c.Insecure || isLoopback(u.Hostname())):
		return u.Host, false, nil
	}
	return "", false, fmt.Errorf("s3: endpoint %q: plain http needs Insecure, other schemes are unknown", c.Endpoint)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// transport never uses a proxy and gives up on a connection that stalls.
func (c *S3Config) transport() (*http.Transport, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("s3: read CA file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("s3: CA file %s holds no certificate", c.CAFile)
		}
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	stall := c.StallTimeout
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{Conn: conn, limit: stall}, nil
		},
		TLSClientConfig: conf, TLSHandshakeTimeout: dialTimeout, DisableCompression: true,
		MaxIdleConnsPerHost: 16, IdleConnTimeout: idleTimeout, ResponseHeaderTimeout: stall,
		WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
	}, nil
}

// stallConn fails a read or write that moves no byte for limit.
type stallConn struct {
	net.Conn
	limit time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// s3Store is the store over a bucket.
type s3Store struct {
	cfg   S3Config
	core  *minio.Core
	http  *http.Transport
	state *os.Root // nil without StateDir

	mu     sync.Mutex
	ready  bool  // bucket seen, preflight passed
	unsafe error // the preflight's refusal, for good
}

// check refuses a key that is too long for S3.
func (s *s3Store) check(key string) error {
	if n := len(s.cfg.Prefix) + len(key); n > maxKey {
		return fmt.Errorf("%w: key %s has %d bytes, S3 takes %d; publish it to a directory, or shorten the path", ErrInvalid, key, n, maxKey)
	}
	return nil
}

func (s *s3Store) close() error {
	s.http.CloseIdleConnections()
	if s.state != nil {
		return s.state.Close()
	}
	return nil
}

// begin takes the release's lock in the state directory, so that two publishers
// that share it do not work on one multipart upload. Others meet at If-None-Match.
func (s *s3Store) begin(ctx context.Context, id string) (func() error, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	if s.state == nil {
		return func() error { return nil }, nil
	}
	return lockFile(ctx, s.state, id+lockSuffix)
}

// settle: the server's answer is all there is to have. What it loses after that
// is found by Verify and healed by publishing again.
func (s *s3Store) settle(context.Context, string) error { return nil }

// prepare looks once for the bucket and at the server's manners.
func (s *s3Store) prepare(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready || s.unsafe != nil {
		return s.unsafe
	}
	if err := s.bucket(ctx); err != nil {
		return err
	}
	err := s.preflight(ctx)
	if errors.Is(err, ErrUnsafe) {
		s.unsafe = err
	}
	s.ready = err == nil
	return err
}

// bucket makes sure that the bucket exists. A server that cannot lock objects
// gets a bucket without, one that cannot version, one without versions: the
// layout does not depend on either.
func (s *s3Store) bucket(ctx context.Context) error {
	ok, err := s.core.BucketExists(ctx, s.cfg.Bucket)
	if err != nil {
		return s3Error("look for bucket "+s.cfg.Bucket, err)
	}
	if ok {
		return nil
	}
	if !s.cfg.CreateBucket {
		return fmt.Errorf("s3: bucket %s does not exist and CreateBucket is off; create it with object lock and versioning", s.cfg.Bucket)
	}
	opt := minio.MakeBucketOptions{Region: s.cfg.Region, ObjectLocking: true}
	err = s.core.MakeBucket(ctx, s.cfg.Bucket, opt)
	if unsupported(err) {
		opt.ObjectLocking = false
		err = s.core.MakeBucket(ctx, s.cfg.Bucket, opt)
		if err == nil {
			err = tolerate(s.core.EnableVersioning(ctx, s.cfg.Bucket))
		}
	}
	if code(err) == "BucketAlreadyOwnedByYou" || code(err) == "BucketAlreadyExists" {
		return nil // another publisher was faster
	}
	return s3Error("create bucket "+s.cfg.Bucket, err)
}
