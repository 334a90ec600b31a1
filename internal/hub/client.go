// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"go.uber.org/zap"
)

// Defaults and limits of the client.
const (
	DefaultEndpoint = "https://huggingface.co"
	DefaultWorkers  = 4
	DefaultMaxWait  = 5 * time.Minute // the Hub counts its limits in windows of five minutes
	DefaultRetries  = 5

	maxWorkers    = 64        // more connections than any Hub serves faster
	maxRedirects  = 8         // resolve -> cache or CDN is two
	maxToken      = 4096      // bytes; the Hub's are 37
	maxHeader     = 256 << 10 // bytes of response headers
	dialTimeout   = 30 * time.Second
	headerTimeout = 60 * time.Second
	stallTimeout  = 60 * time.Second // a body that gives nothing for so long is broken off and continued
)

// Config says which Hub to use and how. The zero value means the public Hub, anonymously.
type Config struct {
	Endpoint   string        // scheme://host[:port]; default DefaultEndpoint
	Token      string        // access token, read from a file by the caller; sent to Endpoint only; "" = anonymous
	Workers    int           // parallel files; default DefaultWorkers
	MaxWait    time.Duration // cap on every wait between two attempts, whoever asks for it; default DefaultMaxWait
	Retries    int           // attempts after the first that bring no progress; default DefaultRetries; negative = none
	Logger     *zap.Logger   // default: silent
	HTTPClient *http.Client  // default: own transport; its CheckRedirect is not used
}

// Client talks to one Hub. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	token   string
	workers int
	retries int
	wait    retryablehttp.Backoff
	log     *zap.Logger
	http    *retryablehttp.Client
}

// New checks the configuration and returns a client; nothing is sent. Errors wrap ErrConfig.
func New(cfg Config) (*Client, error) {
	base, err := parseEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	token, err := checkToken(cfg.Token, base)
	if err != nil {
		return nil, err
	}
	if cfg.Workers < 0 || cfg.Workers > maxWorkers {
		return nil, fmt.Errorf("%w: workers %d: want 1..%d", ErrConfig, cfg.Workers, maxWorkers)
	}
	c := &Client{
		base:    base,
		token:   token,
		workers: orDefault(cfg.Workers, DefaultWorkers),
		retries: max(0, orDefault(cfg.Retries, DefaultRetries)),
		wait:    backoff(orDefault(cfg.MaxWait, DefaultMaxWait)),
		log:     cfg.Logger,
	}
	if c.log == nil {
		c.log = zap.NewNop()
	}
	c.http = c.retryable(cfg.HTTPClient)
	return c, nil
}

// Endpoint returns the base URL, without a trailing slash.
func (c *Client) Endpoint() string { return c.base.String() }

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func parseEndpoint(s string) (*url.URL, error) {
	s = strings.TrimRight(orDefault(s, DefaultEndpoint), "/")
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%w: endpoint: %w", ErrConfig, err)
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: endpoint %q: want https://host[:port], the token in its own file", ErrConfig, u.Redacted())
	}
	return u, nil
}

// checkToken refuses a token that would cross a network in the clear, or that could not be one.
func checkToken(token string, base *url.URL) (string, error) {
	token = strings.TrimSpace(token)
	if token == "" {
		return "", nil
	}
	if len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%w: the token is not one line of printable ASCII: check the token file", ErrConfig)
	}
	if base.Scheme == "http" && !loopback(base.Hostname()) {
		return "", fmt.Errorf("%w: endpoint %s would carry the token unencrypted: use https, or no token", ErrConfig, base)
	}
	return token, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *Client) retryable(given *http.Client) *retryablehttp.Client {
	hc := &http.Client{Transport: transport(c.workers)}
	if given != nil {
		copied := *given
		hc = &copied
	}
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &retryablehttp.Client{
		HTTPClient:   hc,
		Logger:       nil, // it would write signed URLs
		RetryWaitMin: backoffMin,
		RetryWaitMax: backoffMax,
		RetryMax:     c.retries,
		CheckRetry:   checkRetry,
		Backoff:      c.wait,
		ErrorHandler: retryablehttp.PassthroughErrorHandler, // else X-Error-Code is lost with the response
	}
}

func transport(workers int) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true) // one connection a file: HTTP/2 would put all files behind one flow-control window
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    workers,
		IdleConnTimeout:        time.Minute,
		DisableCompression:     true,
		ReadBufferSize:         64 << 10,
		Protocols:              &protocols,
	}
}

// errExpired reports a 403 behind a redirect: the signature of the CDN's URL ran out. Asking the Hub again makes a new one.
var errExpired = errors.New("hub: signed URL refused")

// get sends GET and follows redirects by hand; rng is a Range header or "". The caller closes the body. Every answer but
// 200, 206 and 416 is an error. path is escaped already and begins with a slash.
func (c *Client) get(ctx context.Context, path, rng string) (*http.Response, error) {
	u, err := url.Parse(c.base.String() + path)
	if err != nil {
		return nil, fmt.Errorf("%w: path: %w", ErrConfig, err)
	}
	for hop := range maxRedirects {
		req, resp, err := c.send(ctx, u, rng)
		if err != nil {
			return nil, err
		}
		if !isRedirect(resp.StatusCode) {
			return accept(req, resp, hop)
		}
		discard(resp)
		if u, err = next(u, resp.Header.Get("Location")); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: %s: more than %d redirects", ErrProtocol, redact(path), maxRedirects)
}

// getBody reads a whole small answer; a body that breaks is asked for again.
func (c *Client) getBody(ctx context.Context, path string, limit int64) (body []byte, h http.Header, err error) {
	for attempt := range c.retries + 1 {
		resp, err := c.get(ctx, path, "")
		if err != nil {
			return nil, nil, err
		}
		body, err = readBody(ctx, resp, limit)
		if err == nil || !errors.Is(err, ErrUnavailable) || attempt == c.retries {
			return body, resp.Header, err
		}
		if err := sleep(ctx, c.wait(0, 0, attempt, nil)); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, ErrUnavailable
}

func (c *Client) send(ctx context.Context, u *url.URL, rng string) (*http.Request, *http.Response, error) {
	inner, cancel := context.WithCancelCause(ctx)
	req, resp, err := c.sendOnce(inner, u, rng)
	if err != nil {
		cancel(err)
		return nil, nil, err
	}
	resp.Body = watch(resp.Body, cancel)
	return req, resp, nil
}

func (c *Client) sendOnce(ctx context.Context, u *url.URL, rng string) (*http.Request, *http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: request: %w", ErrProtocol, err)
	}
	req.Header.Set("Accept-Encoding", "identity") // else net/http adds gzip and hides Content-Length
	req.Header.Set("User-Agent", "sluice-hub/1")
	if rng != "" {
		req.Header.Set("Range", rng)
	}
	if c.token != "" && sameOrigin(u, c.base) {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	wrapped, err := retryablehttp.FromRequest(req)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: request: %w", ErrProtocol, err)
	}
	resp, err := c.http.Do(wrapped)
	if err != nil {
		discard(resp)
		return nil, nil, networkError(ctx, "GET "+redact(u.String()), stripURL(err))
	}
	return req, resp, nil
}

// sameOrigin compares scheme, host and port: a sub-domain is another host.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host)
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// next resolves a Location. A step from https down to http is refused.
func next(from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	if location == "" || err != nil {
		return nil, fmt.Errorf("%w: %s redirects to nowhere", ErrProtocol, redact(from.String()))
	}
	if to.Scheme != "https" && (to.Scheme != "http" || from.Scheme == "https") {
		return nil, fmt.Errorf("%w: %s redirects to %s://%s: want https", ErrProtocol, redact(from.String()), to.Scheme, to.Host)
	}
	to.User = nil
	return to, nil
}

// accept passes content on and turns everything else into an error.
func accept(req *http.Request, resp *http.Response, hop int) (*http.Response, error) {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
			discard(resp)
			return nil, fmt.Errorf("%w: %s: content encoding %q was not asked for", ErrProtocol, redact(req.URL.String()), printable(enc))
		}
		return resp, nil
	}
	discard(resp)
	e := statusError(req, resp)
	if hop > 0 && e.Status == http.StatusForbidden && e.Code == "" {
		return nil, fmt.Errorf("%w: %w", errExpired, e)
	}
	return nil, e
}

// watched breaks its request off when the body gives nothing for stallTimeout: a connection may stay open for ever.
type watched struct {
	io.ReadCloser
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

var errStalled = errors.New("hub: the server sent nothing for a minute")

func watch(body io.ReadCloser, cancel context.CancelCauseFunc) io.ReadCloser {
	return &watched{body, time.AfterFunc(stallTimeout, func() { cancel(errStalled) }), cancel}
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.timer.Reset(stallTimeout)
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.cancel(nil)
	return err
}

const maxDiscard = 64 << 10 // bytes read from an unwanted body so that its connection can be used again

func discard(resp *http.Response) {
	if resp == nil || resp.Body == nil {
		return
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxDiscard) // when it fails, the connection is closed instead of used again
	resp.Body.Close()
}

// stripURL drops the URL that net/http puts into its errors: it may be a signed one.
func stripURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}
