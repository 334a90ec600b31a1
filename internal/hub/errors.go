// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// The sentinels of this package; errors.Is finds them under every error it returns.
var (
	// ErrConfig reports a Config or a Request that cannot work; nothing was sent.
	ErrConfig = errors.New("hub: unusable configuration")
	// ErrRepoNotFound reports a repository that does not exist, or that this token may not see: the Hub does not tell which.
	ErrRepoNotFound = errors.New("hub: repository not found")
	// ErrRepoMoved reports a repository that answers under another name, which must be named (and approved) itself.
	ErrRepoMoved = errors.New("hub: repository has another name")
	// ErrRevisionNotFound reports a branch, tag or commit that the repository does not have.
	ErrRevisionNotFound = errors.New("hub: revision not found")
	// ErrEntryNotFound reports a file that the commit does not have.
	ErrEntryNotFound = errors.New("hub: file not found")
	// ErrGated reports a repository whose terms this account has not been granted.
	ErrGated = errors.New("hub: access to the repository is gated")
	// ErrToken reports a token that the Hub refused.
	ErrToken = errors.New("hub: token refused")
	// ErrForbidden reports any other refusal to serve (disabled repositories among them).
	ErrForbidden = errors.New("hub: access refused")
	// ErrUnavailable reports a transient failure: the network, a rate limit, a server in trouble. Trying later may help.
	ErrUnavailable = errors.New("hub: temporarily unavailable")
	// ErrProtocol reports an answer that the Hub's contract does not allow.
	ErrProtocol = errors.New("hub: unexpected answer")
	// ErrMasked reports a tree whose hashes are masked or malformed, so that nothing could be verified against it.
	ErrMasked = errors.New("hub: hash masked or malformed")
	// ErrPath reports a path that must not be written to disk.
	ErrPath = errors.New("hub: unsafe path")
	// ErrLimit reports a tree beyond the caps of this package.
	ErrLimit = errors.New("hub: too large")
	// ErrDigest reports content that does not have the tree's hash; see DigestError.
	ErrDigest = errors.New("hub: content does not match the tree's hash")
	// ErrStray reports a file in the target directory that the snapshot does not have.
	ErrStray = errors.New("hub: file in the way")
)

// StatusError is an answer of the Hub that was not the one asked for. It unwraps to the sentinel that says what it means.
type StatusError struct {
	Method  string // GET
	URL     string // without query: a signature is a secret
	Status  int    // HTTP status
	Code    string // X-Error-Code, or ""
	Message string // X-Error-Message, or ""
	Advice  string // what to do next, or ""
	Err     error  // the sentinel
}

func (e *StatusError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %s %s: status %d", e.Err, e.Method, e.URL, e.Status)
	if e.Code != "" {
		fmt.Fprintf(&b, " (%s)", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Advice != "" {
		fmt.Fprintf(&b, "; %s", e.Advice)
	}
	return b.String()
}

// Unwrap returns the sentinel.
func (e *StatusError) Unwrap() error { return e.Err }

// DigestError names the file whose bytes are not those of the tree, with both values. Method is "sha256", "git-sha1" or
// "size"; Want is the tree's value.
type DigestError struct {
	Path, Method, Want, Got string
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%v: file %q: %s: want %s, got %s; the partial file was removed: mirror again, and suspect the path to the Hub if it repeats",
		ErrDigest, e.Path, e.Method, e.Want, e.Got)
}

// Unwrap returns ErrDigest.
func (e *DigestError) Unwrap() error { return ErrDigest }

const maxErrorText = 300 // bytes of a server's message that reach our log: enough to read, too little to flood

// statusError turns an answer into an error by X-Error-Code first and by status second (the Hub's table of errors:
// a bare 401 means different things on different endpoints, the code never does).
func statusError(req *http.Request, resp *http.Response) *StatusError {
	e := &StatusError{
		Method:  req.Method,
		URL:     redact(req.URL.String()),
		Status:  resp.StatusCode,
		Code:    printable(resp.Header.Get("X-Error-Code")),
		Message: printable(resp.Header.Get("X-Error-Message")),
	}
	e.Advice, e.Err = classify(e.Status, e.Code)
	return e
}

func classify(status int, code string) (advice string, sentinel error) {
	switch code {
	case "RepoNotFound":
		return "check the name; a private repository needs a token that may read it", ErrRepoNotFound
	case "RevisionNotFound":
		return "check the branch, tag or commit", ErrRevisionNotFound
	case "EntryNotFound":
		return "", ErrEntryNotFound
	case "GatedRepo":
		return "open the repository's page with the account that owns the token, accept its terms, wait for the grant, then mirror again", ErrGated
	}
	switch {
	case status == http.StatusUnauthorized:
		return "check the token file: the token may be mistyped, expired or revoked", ErrToken
	case status == http.StatusForbidden:
		return "the repository may be disabled, or a proxy refuses", ErrForbidden
	case status == http.StatusTooManyRequests:
		return "the rate limit is used up: try again in five minutes, or configure a token", ErrUnavailable
	case status == http.StatusRequestTimeout || status >= 500:
		return "try again later", ErrUnavailable
	case status == http.StatusNotFound:
		return "a 404 without X-Error-Code: is the endpoint a Hub?", ErrProtocol
	}
	return "", ErrProtocol
}

// networkError keeps cancellation as it is and marks everything else as transient.
func networkError(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("hub: %s: %w", what, context.Cause(ctx))
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, what, err)
}

// redact drops everything behind a question mark: a signed URL's query is a bearer secret.
func redact(url string) string {
	before, _, _ := strings.Cut(url, "?")
	return before
}

// printable cuts a server's text and drops what could confuse a terminal or a log.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\uFFFD' {
			return -1
		}
		return r
	}, s)
	if len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:maxErrorText], "")
	}
	return s
}
