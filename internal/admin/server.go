// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/netutil"
)

const (
	// headerTimeout: a local client sends its few header bytes at once; one that does not is a slow loris.
	headerTimeout = 5 * time.Second
	// writeTimeout covers the slowest /status, which may walk a journal.
	writeTimeout = time.Minute
	// idleTimeout is longer than a usual scrape interval, so that Prometheus keeps its connection.
	idleTimeout = 2 * time.Minute
	// shutdownTimeout is how long answers in progress may take once the daemon stops.
	shutdownTimeout = 5 * time.Second
	// maxHeader is ample for a GET of ours.
	maxHeader = 16 << 10
	// maxConnections: an operator, a scraper and a probe need three.
	maxConnections = 64
	// maxScrapes caps concurrent walks over the registry.
	maxScrapes = 4
)

// Options are what a daemon shows. A nil member answers 404, except Ready: without it the daemon is always ready.
type Options struct {
	// Addr is a loopback "127.0.0.1:9464", "[::1]:9464" or "localhost:9464", or the absolute path of a unix socket,
	// perhaps with "unix:" in front.
	Addr string
	// Registry is what /metrics shows.
	Registry *prometheus.Registry
	// Ready returns the reasons why the daemon is not ready, in words for an operator; none means ready.
	Ready func(context.Context) []string
	// Status returns a value that encoding/json can encode.
	Status func(context.Context) (any, error)
	// Ticket returns what /ticket?release=R shows, like Status. An error that is a [Refusal] says with which code.
	Ticket func(ctx context.Context, release string) (any, error)
	// Audit returns what /audit shows, like Status: how far the audit log is, signed.
	Audit func(context.Context) (any, error)
	// AuditEvents calls fn with the bytes of the events from a number on, for /audit/events?from=N; nil where there is no Audit.
	AuditEvents func(ctx context.Context, from int64, fn func(raw []byte) error) error
	// Logger takes what net/http would print. nil is silence.
	Logger *zap.Logger
}

// Server is a bound admin server. Make it with [Listen], then call Serve once.
type Server struct {
	http     *http.Server
	listener net.Listener
}

// Listen binds opt.Addr, so that a wrong or taken address is an error before the daemon calls itself ready.
// Errors: [ErrAddr], [ErrInUse], or the system's.
func Listen(ctx context.Context, opt Options) (*Server, error) {
	log := opt.Logger
	if log == nil {
		log = zap.NewNop()
	}
	errorLog, err := zap.NewStdLogAt(log, zapcore.WarnLevel)
	if err != nil {
		return nil, fmt.Errorf("admin logger: %w", err)
	}
	l, err := listen(ctx, opt.Addr)
	if err != nil {
		return nil, err
	}
	return &Server{
		listener: netutil.LimitListener(l, maxConnections),
		http: &http.Server{
			Handler:           localOnly(Handler(opt)),
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       headerTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          errorLog,
		},
	}, nil
}

// Addr is where the server listens: the path of the socket, or host:port with the port that the system chose for port 0.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Serve answers until ctx ends, then finishes what is in progress and returns nil. Any other end is an error.
func (s *Server) Serve(ctx context.Context) error {
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		stopped <- s.http.Shutdown(grace)
	})
	err := s.http.Serve(s.listener)
	if stop() { // ctx is alive: Serve failed by itself
		return fmt.Errorf("admin server: %w", err)
	}
	err = <-stopped
	if errors.Is(err, context.DeadlineExceeded) {
		return s.http.Close() // a client that does not finish its request is cut off: a drain is no failure
	}
	if err != nil {
		return fmt.Errorf("stop admin server: %w", errors.Join(err, s.http.Close()))
	}
	return nil
}

// Close gives the address back without serving. It is for a daemon that fails between Listen and Serve.
func (s *Server) Close() error { return errors.Join(s.listener.Close(), s.http.Close()) }

// Handler is the server's mux, for tests and for a daemon with an HTTP server of its own.
func Handler(opt Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { ready(w, r, opt.Ready) })
	if opt.Registry != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(opt.Registry, promhttp.HandlerOpts{
			EnableOpenMetrics:   true,
			MaxRequestsInFlight: maxScrapes,
		}))
	}
	if opt.Status != nil {
		mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) { value(w, r, "status", opt.Status) })
	}
	if opt.Ticket != nil {
		mux.HandleFunc("GET /ticket", func(w http.ResponseWriter, r *http.Request) {
			value(w, r, "ticket", func(ctx context.Context) (any, error) { return opt.Ticket(ctx, r.URL.Query().Get("release")) })
		})
	}
	if opt.Audit != nil {
		mux.HandleFunc("GET /audit", func(w http.ResponseWriter, r *http.Request) { value(w, r, "audit", opt.Audit) })
		mux.HandleFunc("GET /audit/events", func(w http.ResponseWriter, r *http.Request) { auditEvents(w, r, opt) })
	}
	return mux
}

// maxPage is where a page of events ends: well below what Fetch reads, with room for one more event.
const maxPage = 4 << 20

var errFull = errors.New("admin: the page is full")

// auditEvents answers with one event a line, as many as a page holds; who asks goes on after the last one.
func auditEvents(w http.ResponseWriter, r *http.Request, opt Options) {
	from, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	if err != nil || from < 1 {
		text(w, http.StatusBadRequest, "audit events: from is the number of an event, 1 or more")
		return
	}
	var page bytes.Buffer
	err = opt.AuditEvents(r.Context(), from, func(raw []byte) error {
		page.Write(raw)
		page.WriteByte('\n')
		if page.Len() >= maxPage {
			return errFull
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		text(w, http.StatusInternalServerError, "audit events: "+err.Error())
		return
	}
	text(w, http.StatusOK, strings.TrimSuffix(page.String(), "\n"))
}

func ready(w http.ResponseWriter, r *http.Request, check func(context.Context) []string) {
	var reasons []string
	if check != nil {
		reasons = check(r.Context())
	}
	if len(reasons) == 0 {
		text(w, http.StatusOK, "ready")
		return
	}
	text(w, http.StatusServiceUnavailable, strings.Join(reasons, "\n"))
}

// Refusal is an error of a page with the code that it is answered with: the daemon is well, and the answer is no.
type Refusal struct {
	Code int
	Err  error
}

func (e *Refusal) Error() string { return e.Err.Error() }

// Unwrap gives the reason.
func (e *Refusal) Unwrap() error { return e.Err }

// value encodes before it answers, so that a value that cannot be encoded is a 500 and not half a page.
func value(w http.ResponseWriter, r *http.Request, page string, get func(context.Context) (any, error)) {
	v, err := get(r.Context())
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		text(w, refusal.Code, refusal.Error())
		return
	case err != nil:
		text(w, http.StatusInternalServerError, page+": "+err.Error())
		return
	}
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		text(w, http.StatusInternalServerError, "encode "+page+": "+err.Error())
		return
	}
	answer(w, http.StatusOK, "application/json", string(body))
}

func text(w http.ResponseWriter, code int, body string) {
	answer(w, code, "text/plain; charset=utf-8", body)
}

func answer(w http.ResponseWriter, code int, kind, body string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	// An error means that the client has gone; net/http ends the connection.
	_, _ = io.WriteString(w, body+"\n") //nolint:gosec // plain text or JSON, and nosniff: no browser makes a page of it
}

// localOnly refuses a request that names a foreign host: a web page that rebinds its own name to 127.0.0.1 would
// otherwise read the status through the operator's browser.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]")
		}
		if !isLoopback(cmp.Or(host, "?")) && host != unixHost {
			text(w, http.StatusMisdirectedRequest, "this is not "+r.Host)
			return
		}
		next.ServeHTTP(w, r)
	})
}
