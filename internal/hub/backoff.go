// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// Own back-off: doubling from backoffMin to backoffMax with full jitter over the upper half.
const (
	backoffMin = 500 * time.Millisecond
	backoffMax = 30 * time.Second
)

// backoff returns a retryablehttp.Backoff that obeys what the server asks for (Retry-After, RFC 9110 section 10.2.3; the
// Hub's RateLimit header) up to maxWait. The library's own default obeys without any cap, so that one hostile or broken
// proxy could park the mirror for ever.
func backoff(maxWait time.Duration) retryablehttp.Backoff {
	return func(_, _ time.Duration, attempt int, resp *http.Response) time.Duration {
		if resp != nil {
			if wait, ok := requestedWait(resp.Header, time.Now()); ok {
				return min(wait, maxWait)
			}
		}
		return min(jitter(attempt), maxWait)
	}
}

func jitter(attempt int) time.Duration {
	wait := backoffMin << min(attempt, 10)
	wait = min(wait, backoffMax)
	return wait/2 + rand.N(wait/2+1)
}

// requestedWait reads how long the server wants us to wait. The Hub's `RateLimit: "api";r=0;t=55` says that the window
// resets in 55 s; its own client waits one second more.
func requestedWait(h http.Header, now time.Time) (time.Duration, bool) {
	if t, ok := rateLimitReset(h.Get("RateLimit")); ok {
		return t + time.Second, true
	}
	after := h.Get("Retry-After")
	if n, err := strconv.ParseUint(after, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if at, err := http.ParseTime(after); err == nil {
		return max(0, at.Sub(now)), true
	}
	return 0, false
}

// rateLimitReset returns the t parameter of a RateLimit header with nothing remaining (r=0).
func rateLimitReset(value string) (time.Duration, bool) {
	remaining, reset := int64(-1), int64(-1)
	for param := range strings.SplitSeq(value, ";") {
		name, text, _ := strings.Cut(strings.TrimSpace(param), "=")
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			continue
		}
		switch name {
		case "r":
			remaining = n
		case "t":
			reset = n
		}
	}
	if remaining != 0 || reset < 0 {
		return 0, false
	}
	return time.Duration(reset) * time.Second, true
}

// checkRetry is the library's policy and 408, which it forgets.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if err == nil && resp != nil && resp.StatusCode == http.StatusRequestTimeout {
		return ctx.Err() == nil, ctx.Err()
	}
	return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
}

// sleep waits, or returns the context's cause.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
