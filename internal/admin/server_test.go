// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"sluice/internal/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server until the test ends, and checks that it ends well.
func serve(t *testing.T, opt admin.Options) *admin.Server {
	t.Helper()
	s, err := admin.Listen(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

type daemonStatus struct {
	State string `json:"state"`
	Jobs  int    `json:"jobs"`
}

func TestPages(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0", "SOCKET", "unix:SOCKET"} {
		t.Run(addr, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.sock")
			var reasons []string
			s := serve(t, admin.Options{
				Addr:     strings.Replace(addr, "SOCKET", path, 1),
				Registry: admin.NewRegistry("v1.2.3"),
				Ready:    func(context.Context) []string { return reasons },
				Status:   func(context.Context) (any, error) { return daemonStatus{"idle", 3}, nil },
			})
			var got daemonStatus
			fetch(t, s, "/status", &got)
			if got != (daemonStatus{"idle", 3}) {
				t.Errorf("status: %+v", got)
			}
			fetch(t, s, "/healthz", nil)
			fetch(t, s, "/readyz", nil)
			var metrics []byte
			fetch(t, s, "/metrics", &metrics)
			if !strings.Contains(string(metrics), `sluice_build_info{goversion="go1`) || !strings.Contains(string(metrics), `version="v1.2.3"} 1`) {
				t.Error("no sluice_build_info in the metrics")
			}
			reasons = []string{"no trust root", "no heartbeat"}
			var refused *admin.StatusError
			if err := admin.Fetch(t.Context(), s.Addr(), "/readyz", nil); !errors.As(err, &refused) || refused.Code != 503 {
				t.Fatalf("readyz: %v", err)
			}
			if refused.Body != "no trust root\nno heartbeat" {
				t.Errorf("reasons: %q", refused.Body)
			}
		})
	}
}

func fetch(t *testing.T, s *admin.Server, path string, into any) {
	t.Helper()
	if err := admin.Fetch(t.Context(), s.Addr(), path, into); err != nil {
		t.Fatal(err)
	}
}

func TestHandlerRefuses(t *testing.T) {
	broken := func(context.Context) (any, error) { return nil, errors.New("journal: corrupt") }
	echo := func(_ context.Context, release string) (any, error) {
		switch release {
		case "":
			return nil, fmt.Errorf("of course: %w", &admin.Refusal{Code: http.StatusNotFound, Err: errors.New("no release")})
		case "broken":
			return nil, errors.New("broken")
		}
		return release, nil
	}
	mute := func(context.Context) (any, error) { return make(chan int), nil }
	for _, c := range []struct {
		name, method, path string
		opt                admin.Options
		code               int
		says               string
	}{
		{"unknown page", "GET", "/", admin.Options{}, 404, "not found"},
		{"no metrics", "GET", "/metrics", admin.Options{}, 404, ""},
		{"no status", "GET", "/status", admin.Options{}, 404, ""},
		{"no pprof", "GET", "/debug/pprof/", admin.Options{}, 404, ""},
		{"post", "POST", "/status", admin.Options{Status: broken}, 405, ""},
		{"delete", "DELETE", "/healthz", admin.Options{}, 405, ""},
		{"status fails", "GET", "/status", admin.Options{Status: broken}, 500, "journal: corrupt"},
		{"status cannot be encoded", "GET", "/status", admin.Options{Status: mute}, 500, "encode status"},
		{"no ticket", "GET", "/ticket", admin.Options{}, 404, ""},
		{"ticket", "GET", "/ticket?release=ab%20c", admin.Options{Ticket: echo}, 200, `"ab c"`},
		{"ticket of nothing", "GET", "/ticket", admin.Options{Ticket: echo}, 404, "no release"},
		{"ticket fails", "GET", "/ticket?release=broken", admin.Options{Ticket: echo}, 500, "ticket: broken"},
		{"ticket by post", "POST", "/ticket?release=ab", admin.Options{Ticket: echo}, 405, ""},
		{"always ready", "GET", "/readyz", admin.Options{}, 200, "ready"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			admin.Handler(c.opt).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, c.path, http.NoBody))
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
				t.Errorf("%d %q, want %d %q", w.Code, w.Body, c.code, c.says)
			}
		})
	}
}

// TestForeignHost is DNS rebinding: the browser of somebody on this machine reaches us under a name of the attacker.
func TestForeignHost(t *testing.T) {
	s := serve(t, admin.Options{Addr: "127.0.0.1:0"})
	for host, want := range map[string]int{
		"evil.example:80": 421, "evil.example": 421, "10.1.2.3": 421, "[2001:db8::1]:80": 421, "127.0.0.1.evil.example": 421,
		"localhost": 200, "127.0.0.1:9": 200, "[::1]": 200, "[::1]:9": 200,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr()+"/healthz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Host %s: %d, want %d", host, resp.StatusCode, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:9464": true, "127.9.9.9:1": true, "[::1]:9464": true, "localhost:9464": true, "[::ffff:127.0.0.1]:1": true,
		"/run/sluice/packer.sock": true, "unix:/run/sluice/packer.sock": true,
		"0.0.0.0:9464": false, ":9464": false, "[::]:9464": false, "10.0.0.1:9464": false, "example.org:80": false, "127.0.0.1": false,
		"": false, "run/packer.sock": false, "unix:packer.sock": false, "localhost.example.org:1": false, "/" + strings.Repeat("x", 107): false,
	} {
		if err := admin.CheckAddr(addr); (err == nil) != ok || err != nil && !errors.Is(err, admin.ErrAddr) {
			t.Errorf("%q: %v, want ok = %v", addr, err, ok)
		}
	}
	if _, err := admin.Listen(t.Context(), admin.Options{Addr: ":0"}); !errors.Is(err, admin.ErrAddr) {
		t.Errorf("Listen on all addresses: %v", err)
	}
}

func TestSocketFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	leaveStale(t, path)
	s := serve(t, admin.Options{Addr: path})
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket mode %v, %v; want 0660", info.Mode(), err)
	}
	if _, err := admin.Listen(t.Context(), admin.Options{Addr: path}); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("a second server: %v, want ErrInUse", err)
	}
	fetch(t, s, "/healthz", nil) // the attempt did not hurt the first
}

// leaveStale leaves what a killed daemon leaves: a socket file without a listener.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestForeignFileIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen(t.Context(), admin.Options{Addr: path}); !errors.Is(err, admin.ErrAddr) {
		t.Errorf("error is %v, want ErrAddr", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "data" {
		t.Errorf("the file is now %q, %v", data, err)
	}
}

// TestShutdownFinishesAnswers: an answer in progress when the daemon stops still arrives.
func TestShutdownFinishesAnswers(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s, err := admin.Listen(t.Context(), admin.Options{
		Addr: "127.0.0.1:0",
		Status: func(context.Context) (any, error) {
			close(entered)
			<-leave
			return "late", nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served, fetched := make(chan error, 1), make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	var got string
	go func() { fetched <- admin.Fetch(t.Context(), s.Addr(), "/status", &got) }()
	<-entered
	var idle []*bufio.Reader
	for range 8 {
		idle = append(idle, idleConn(t, s.Addr()))
	}
	stop()
	for _, r := range idle { // a server that cuts its connections has cut the busy one by now too
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("idle connection: %v, want EOF", err)
		}
	}
	close(leave)
	if err := errors.Join(<-fetched, <-served); err != nil || got != "late" {
		t.Errorf("%q, %v", got, err)
	}
	if err := admin.Fetch(t.Context(), s.Addr(), "/healthz", nil); !errors.Is(err, admin.ErrUnreachable) {
		t.Errorf("after the end: %v, want ErrUnreachable", err)
	}
}

// idleConn has one answer on a connection of its own and keeps it open.
func idleConn(t *testing.T, addr string) *bufio.Reader {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // of the answer; the connection stays
	return r
}

func TestServeReportsItsOwnEnd(t *testing.T) {
	s, err := admin.Listen(t.Context(), admin.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context()); err == nil {
		t.Error("a closed server served")
	}
}

func TestFetchRefuses(t *testing.T) {
	big := make([]byte, 1<<20)
	mux := http.NewServeMux()
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		for range 17 {
			_, _ = w.Write(big)
		}
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://example.org/", http.StatusFound)
	})
	mux.HandleFunc("/text", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "not JSON") })
	server := httptest.NewServer(mux)
	defer server.Close()
	addr := server.Listener.Addr().String()
	for path, says := range map[string]string{
		"/big": "longer than", "/moved": "answered 302", "/text": "decode /text", "/none": "answered 404", "/%zz": "request",
	} {
		var into any
		if err := admin.Fetch(t.Context(), addr, path, &into); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", path, err, says)
		}
	}
	gone := filepath.Join(t.TempDir(), "gone.sock")
	if err := admin.Fetch(t.Context(), gone, "/status", nil); !errors.Is(err, admin.ErrUnreachable) || !strings.Contains(err.Error(), gone) {
		t.Errorf("nobody there: %v", err)
	}
	if err := admin.Fetch(t.Context(), "example.org:80", "/status", nil); !errors.Is(err, admin.ErrAddr) {
		t.Errorf("foreign host: %v", err)
	}
}

func TestRegistryIsItsOwn(t *testing.T) {
	names := func(reg *prometheus.Registry) (all []string) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			all = append(all, f.GetName())
		}
		return all
	}
	a, b := admin.NewRegistry("a"), admin.NewRegistry("b") // twice: a global one would panic
	if d := cmp.Diff(names(a), names(b)); d != "" {
		t.Error(d)
	}
	joined := strings.Join(names(a), " ")
	for _, want := range []string{"sluice_build_info", "go_goroutines", "process_open_fds"} {
		if !strings.Contains(joined, want) {
			t.Errorf("no %s in %s", want, joined)
		}
	}
}

func ExampleFetch() {
	err := admin.Fetch(context.Background(), "/nonexistent/packer.sock", "/status", nil)
	fmt.Println(errors.Is(err, admin.ErrUnreachable))
	// Output: true
}
