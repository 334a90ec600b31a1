// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// probePrefix is where the preflight tries to write. Nothing is ever there on
// a server that refuses.
const probePrefix = ".preflight/"

// probeText is what it tries to write.
const probeText = "sluice preflight: this object must not exist"

// preflight refuses a server that stores what nobody signed: there everybody on
// the network can put files beside ours, and If-None-Match or object lock do
// not help. It costs two requests that a sound server refuses.
func (s *s3Store) preflight(ctx context.Context) error {
	err := s.probe(ctx, "an unsigned PUT; remove the bucket's anonymous write policy, then restart", unsignedPut)
	if err != nil || s.cfg.AllowForgedTrailer {
		return err
	}
	return s.probe(ctx, "a PUT with a forged signature (CVE-2026-41145); update the server, or put a proxy in front of it "+
		"that refuses STREAMING-UNSIGNED-PAYLOAD-TRAILER and set AllowForgedTrailer", forgedPut)
}

// probe sends one forged request and refuses the server if it is obeyed.
func (s *s3Store) probe(ctx context.Context, what string, forge func(*url.URL, string) *http.Request) error {
	key := s.key(probePrefix + strings.ToLower(rand.Text()))
	target := s.core.EndpointURL()
	target.Path = "/" + s.cfg.Bucket + "/" + key
	resp, err := s.http.RoundTrip(forge(target, s.cfg.AccessKey).WithContext(ctx))
	if err != nil {
		return s3Error("preflight", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxSmallJSON)); err != nil {
		return s3Error("preflight", err)
	}
	switch {
	case resp.StatusCode/100 == 2:
		refusal := fmt.Errorf("%w: %s took %s", ErrUnsafe, target.Host, what)
		return errors.Join(refusal, s.core.RemoveObject(ctx, s.cfg.Bucket, key, minio.RemoveObjectOptions{}))
	case errors.Is(classifyStatus(resp.StatusCode), ErrUnavailable):
		return fmt.Errorf("%w: s3: preflight: HTTP status %d", ErrUnavailable, resp.StatusCode)
	}
	return nil
}

// unsignedPut is a PUT by nobody.
func unsignedPut(target *url.URL, _ string) *http.Request {
	return put(target, probeText)
}

// forgedPut is a PUT in the one form whose signature vulnerable servers never
// look at: unsigned payload with a trailer, credentials in the query. The
// signature is all zeros; only the access key is real.
func forgedPut(target *url.URL, accessKey string) *http.Request {
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum([]byte(probeText), crc32.MakeTable(crc32.Castagnoli)))
	trailer := "x-amz-checksum-crc32c:" + base64.StdEncoding.EncodeToString(sum[:])
	req := put(target, fmt.Sprintf("%x\r\n%s\r\n0\r\n%s\r\n\r\n", len(probeText), probeText, trailer))
	req.Header.Set("X-Amz-Content-Sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
	req.Header.Set("X-Amz-Decoded-Content-Length", strconv.Itoa(len(probeText)))
	req.Header.Set("X-Amz-Trailer", "x-amz-checksum-crc32c")
	now := time.Now().UTC()
	req.URL.RawQuery = url.Values{
		"X-Amz-Algorithm":     {"AWS4-HMAC-SHA256"},
		"X-Amz-Credential":    {accessKey + now.Format("/20060102") + "/us-east-1/s3/aws4_request"},
		"X-Amz-Date":          {now.Format("20060102T150405Z")},
		"X-Amz-Expires":       {"60"},
		"X-Amz-SignedHeaders": {"host"},
		"X-Amz-Signature":     {strings.Repeat("0", 64)},
	}.Encode()
	return req
}

// put is a plain PUT of text.
func put(target *url.URL, text string) *http.Request {
	return &http.Request{
		Method: http.MethodPut, URL: target, Host: target.Host, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
	}
}
