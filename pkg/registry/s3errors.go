// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/minio/minio-go/v7"
)

// response finds the server's answer anywhere in the chain. minio's own
// ToErrorResponse looks at the outermost error only and would miss a wrapped one.
func response(err error) (minio.ErrorResponse, bool) {
	var r minio.ErrorResponse
	ok := errors.As(err, &r)
	return r, ok
}

// code is the S3 error code, or "".
func code(err error) string {
	r, _ := response(err)
	return r.Code
}

// s3Error adds the place and the sentinel that fits; nil stays nil.
func s3Error(what string, err error) error {
	if err == nil {
		return nil
	}
	if kind := classify(err); kind != nil {
		return fmt.Errorf("%w: s3: %s: %w", kind, what, err)
	}
	return fmt.Errorf("s3: %s: %w", what, err)
}

// classify chooses the sentinel, or nil. A deadline is unavailability whosever
// it was: the transport's timeouts match context.DeadlineExceeded too.
func classify(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	r, ok := response(err)
	if !ok {
		return classifyNetwork(err)
	}
	switch r.Code {
	case "NoSuchKey", "NoSuchVersion":
		return ErrNotFound
	case "PreconditionFailed":
		return errExists
	case "ConditionalRequestConflict": // AWS: two conditional writes at once; asking again decides
		return ErrUnavailable
	case "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "InvalidDigest":
		return ErrCorrupt
	case "XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded":
		return ErrNoSpace
	case "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled":
		return ErrDenied
	case "RequestTimeout", "SlowDown", "SlowDownWrite", "SlowDownRead", "IncompleteBody", "OperationAborted":
		return ErrUnavailable
	}
	return classifyStatus(r.StatusCode)
}

func classifyStatus(status int) error {
	switch {
	case status == http.StatusNotFound:
		return ErrNotFound
	case status == http.StatusPreconditionFailed:
		return errExists
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return ErrDenied
	case status == http.StatusInsufficientStorage:
		return ErrNoSpace
	case status == http.StatusNotImplemented:
		return nil
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return ErrUnavailable
	}
	return nil
}

// classifyNetwork: everything between us and the server may pass by itself,
// except a certificate, which somebody must change.
func classifyNetwork(err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	if errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) {
		return nil
	}
	var op net.Error
	var request *url.Error
	if errors.As(err, &op) || errors.As(err, &request) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return ErrUnavailable
	}
	return nil
}

// unsupported says that the server knows the request and does not offer it.
func unsupported(err error) bool {
	r, ok := response(err)
	return ok && (r.StatusCode == http.StatusNotImplemented || r.Code == "NotImplemented" || r.Code == "InvalidArgument" || r.Code == "InvalidRequest")
}

// tolerate drops the error of an extra that the server does not offer.
func tolerate(err error) error {
	if unsupported(err) {
		return nil
	}
	return err
}
