// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// fetchTimeout is longer than a slow status and shorter than a person's patience.
	fetchTimeout = 30 * time.Second
	// maxAnswer caps what Fetch reads: far above the status of ten thousand jobs.
	maxAnswer = 16 << 20
)

// ErrUnreachable says that nobody answers at the address. The daemon is not running, or runs with another address.
var ErrUnreachable = errors.New("admin: daemon not reachable")

// StatusError is an answer other than 200. Body holds the daemon's words, such as the reasons of /readyz.
type StatusError struct {
	Code int
	Path string
	Body string
}

// Error says which page answered what.
func (e *StatusError) Error() string {
	return fmt.Sprintf("admin: %s answered %d: %s", e.Path, e.Code, e.Body)
}

// Fetch gets one page of the daemon at addr (as in [Options]) and decodes its JSON into into; a *[]byte takes the page as
// it is, for /metrics; nil throws it away. Errors: [ErrAddr], [ErrUnreachable], *[StatusError].
func Fetch(ctx context.Context, addr, path string, into any) error {
	network, where, err := split(addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	body, err := get(ctx, network, where, path)
	if err != nil {
		return err
	}
	switch into := into.(type) {
	case nil:
		return nil
	case *[]byte:
		*into = body
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("admin: decode %s: %w", path, err)
	}
	return nil
}

func get(ctx context.Context, network, where, path string) ([]byte, error) {
	host := where
	if network == "unix" {
		host = unixHost
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("admin: request %s: %w", path, err)
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, where) // never a proxy, never another host
		},
	}
	client := &http.Client{Transport: transport, CheckRedirect: noRedirect}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: is it running? %w", ErrUnreachable, where, err)
	}
	defer resp.Body.Close()
	return read(resp, path)
}

func read(resp *http.Response, path string) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("admin: read %s: %w", path, err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("admin: %s is longer than %d bytes", path, maxAnswer)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &StatusError{Code: resp.StatusCode, Path: path, Body: strings.TrimSpace(string(body))}
	}
	return body, nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
