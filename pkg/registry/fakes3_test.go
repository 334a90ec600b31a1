// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

// fakeS3 is a small part of S3 in memory, honest about being a fake: it exists
// to inject errors that a real server does not make on demand. The promises
// are tested against a real server in integration/real.
type fakeS3 struct {
	*httptest.Server
	// inject, if not nil, may answer the request itself.
	inject func(w http.ResponseWriter, r *http.Request) bool

	mu      sync.Mutex
	buckets map[string]map[string]fakeObject
	kept    map[string]map[string][]byte // what lies below a delete marker
	plain   bool                         // buckets keep no versions
	writes  int
}

type fakeObject struct {
	data []byte
	sum  string // base64 SHA-256
	mark int    // number of the write
}

func (o fakeObject) etag() string { return `"` + fmt.Sprintf("%x", md5.Sum(o.data)) + `"` }

func newFake(t *testing.T) *fakeS3 {
	f := &fakeS3{buckets: make(map[string]map[string]fakeObject), kept: make(map[string]map[string][]byte)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// config is a client's configuration for one bucket of the fake.
func (f *fakeS3) config(bucket string) registry.S3Config {
	return registry.S3Config{
		Endpoint: f.URL, Bucket: bucket, AccessKey: "access", SecretKey: "secret", CreateBucket: true,
		StallTimeout: 5 * time.Second, Options: registry.Options{Receiver: "receiver-1"},
	}
}

func (f *fakeS3) open(t *testing.T, bucket string) *registry.S3 {
	t.Helper()
	p, err := registry.NewS3(f.config(bucket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func (f *fakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.inject != nil && f.inject(w, r) {
		return
	}
	if r.Header.Get("Authorization") == "" {
		fail(w, http.StatusForbidden, "AccessDenied")
		return
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	objects, exists := f.buckets[bucket]
	switch {
	case key == "" && r.Method == http.MethodPut && exists:
		fail(w, http.StatusConflict, "BucketAlreadyOwnedByYou") // two publishers may create it at once
	case key == "" && r.Method == http.MethodPut:
		f.buckets[bucket] = make(map[string]fakeObject)
	case !exists:
		fail(w, http.StatusNotFound, "NoSuchBucket")
	case key == "" && r.URL.Query().Has("versioning"):
		f.versioning(w)
	case key == "":
		f.list(w, r, objects)
	case r.Method == http.MethodDelete:
		f.remove(bucket, key)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut:
		f.put(w, r, objects, key, body)
	default:
		f.get(w, r, objects, key)
	}
}

func fail(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>injected or refused</Message></Error>", code)
}

func (f *fakeS3) put(w http.ResponseWriter, r *http.Request, objects map[string]fakeObject, key string, body []byte) {
	old, exists := objects[key]
	sum := sha256.Sum256(body)
	o := fakeObject{data: body, sum: base64.StdEncoding.EncodeToString(sum[:])}
	match := r.Header.Get("If-Match")
	switch {
	case r.Header.Get("If-None-Match") == "*" && exists, match != "" && match != old.etag():
		fail(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	case r.Header.Get("X-Amz-Checksum-Sha256") != o.sum:
		fail(w, http.StatusBadRequest, "XAmzContentChecksumMismatch")
		return
	}
	f.writes++
	o.mark = f.writes
	objects[key] = o
	w.Header().Set("ETag", o.etag())
	w.Header().Set("X-Amz-Version-Id", strconv.Itoa(o.mark))
}

func (f *fakeS3) get(w http.ResponseWriter, r *http.Request, objects map[string]fakeObject, key string) {
	o, exists := objects[key]
	if !exists {
		fail(w, http.StatusNotFound, "NoSuchKey")
		return
	}
	w.Header().Set("ETag", o.etag())
	w.Header().Set("X-Amz-Version-Id", strconv.Itoa(o.mark))
	w.Header().Set("X-Amz-Checksum-Sha256", o.sum)
	http.ServeContent(w, r, "", time.Unix(1_700_000_000, 0), bytes.NewReader(o.data))
}

func (f *fakeS3) versioning(w io.Writer) {
	status := "<Status>Enabled</Status>"
	if f.plain {
		status = ""
	}
	fmt.Fprintf(w, "<VersioningConfiguration>%s</VersioningConfiguration>", status)
}

// remove puts a delete marker, or destroys.
func (f *fakeS3) remove(bucket, key string) {
	if o, there := f.buckets[bucket][key]; there && !f.plain {
		if f.kept[bucket] == nil {
			f.kept[bucket] = make(map[string][]byte)
		}
		f.kept[bucket][key] = o.data
	}
	delete(f.buckets[bucket], key)
}

// listResult is the answer of ListObjectsV2.
type listResult struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	IsTruncated           bool
	NextContinuationToken string
	Contents              []listed
	CommonPrefixes        []common
}

type listed struct {
	Key          string
	Size         int
	ETag         string
	LastModified string
}

type common struct{ Prefix string }

// fakePage is small, so that every listing has several pages.
const fakePage = 7

func (f *fakeS3) list(w http.ResponseWriter, r *http.Request, objects map[string]fakeObject) {
	q := r.URL.Query()
	if q.Has("uploads") {
		fmt.Fprint(w, "<ListMultipartUploadsResult></ListMultipartUploadsResult>")
		return
	}
	var names []string
	for key := range objects {
		if rest, ok := strings.CutPrefix(key, q.Get("prefix")); ok {
			if i := strings.Index(rest, "/"); i >= 0 && q.Get("delimiter") == "/" {
				key = q.Get("prefix") + rest[:i+1]
			}
			names = append(names, key)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var result listResult
	for _, name := range names {
		if name <= q.Get("continuation-token") {
			continue
		}
		if len(result.Contents)+len(result.CommonPrefixes) == fakePage {
			result.IsTruncated = true
			break
		}
		result.NextContinuationToken = name
		if o, ok := objects[name]; ok {
			result.Contents = append(result.Contents, listed{name, len(o.data), o.etag(), "2026-11-22T10:00:00.000Z"})
		} else {
			result.CommonPrefixes = append(result.CommonPrefixes, common{name})
		}
	}
	_ = xml.NewEncoder(w).Encode(result)
}

// fakes is the fake as a target of the conformance suite.
type fakes struct{ *fakeS3 }

func (f fakes) Open(t *testing.T, name string) registry.Publisher {
	t.Helper()
	p, err := registry.NewS3(f.config(name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (f fakes) Plant(t *testing.T, name, key string, data []byte) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.buckets[name] == nil {
		f.buckets[name] = make(map[string]fakeObject)
	}
	sum := sha256.Sum256(data)
	f.writes++
	f.buckets[name][key] = fakeObject{data: data, sum: base64.StdEncoding.EncodeToString(sum[:]), mark: f.writes}
}

func (f fakes) Remove(t *testing.T, name, key string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.buckets[name], key)
}

func (f fakes) Keys(t *testing.T, name string) map[string]string {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := make(map[string]string)
	for key, o := range f.buckets[name] {
		keys[key] = registrytest.Shown(strconv.Itoa(o.mark), o.data)
	}
	return keys
}

func (f fakes) Kept(t *testing.T, name, key string) []byte {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kept[name][key]
}

func TestFakeS3Conformance(t *testing.T) { registrytest.Run(t, fakes{newFake(t)}) }

// digest is the hex form of what the fake holds, for messages.
func (f *fakeS3) digest(bucket, key string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum, _ := base64.StdEncoding.DecodeString(f.buckets[bucket][key].sum)
	return hex.EncodeToString(sum)
}
