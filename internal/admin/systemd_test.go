// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sluice/internal/admin"
)

// manager is the service manager's end of NOTIFY_SOCKET.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func hear(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 1024)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestNotify(t *testing.T) {
	conn := manager(t)
	if err := admin.NotifyReady("listening\nWATCHDOG=1"); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, conn); got != "READY=1\nSTATUS=listening WATCHDOG=1" {
		t.Errorf("heard %q", got)
	}
	if err := admin.NotifyStatus("2 of 3"); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, conn); got != "STATUS=2 of 3" {
		t.Errorf("heard %q", got)
	}
	if err := admin.NotifyStopping(); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, conn); got != "STOPPING=1" {
		t.Errorf("heard %q", got)
	}
}

func TestNotifyWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := errors.Join(admin.NotifyReady("x"), admin.NotifyStopping()); err != nil {
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := admin.NotifyReady("x"); err == nil {
		t.Error("a manager that cannot be reached was not reported")
	}
}

// TestWatchdog: a healthy daemon is pinged for; one that is not healthy is left alone, and pinged for again once it is.
func TestWatchdog(t *testing.T) {
	conn := manager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, stop := context.WithCancel(t.Context())
	checks := make(chan error)
	done := make(chan error, 1)
	go func() {
		done <- admin.Watchdog(ctx, func(context.Context) error {
			select {
			case err := <-checks:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	checks <- nil
	if got := hear(t, conn); got != "WATCHDOG=1" {
		t.Errorf("heard %q", got)
	}
	checks <- errors.New("stuck")
	checks <- errors.New("stuck")
	if err := admin.NotifyStatus("marker"); err != nil { // the stuck checks sent nothing: the marker comes first
		t.Fatal(err)
	}
	if got := hear(t, conn); got != "STATUS=marker" {
		t.Errorf("a stuck daemon was reported healthy: heard %q", got)
	}
	checks <- nil
	if got := hear(t, conn); got != "WATCHDOG=1" {
		t.Errorf("heard %q", got)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatchdogOff(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := admin.Watchdog(ctx, func(context.Context) error { t.Error("asked"); return nil }); err != nil {
		t.Error(err)
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if err := admin.Watchdog(ctx, nil); err == nil {
		t.Error("a broken WATCHDOG_USEC was not reported")
	}
}

// activatedEnv makes this test the child that systemd would start.
const activatedEnv = "SLUICE_ADMIN_TEST_ACTIVATED"

func TestListeners(t *testing.T) {
	if os.Getenv(activatedEnv) != "" {
		activated(t)
		return
	}
	udp := packetFile(t, "udp4", "127.0.0.1:0")
	second := packetFile(t, "udp6", "[::1]:0")
	stream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	tcp, err := stream.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	for _, c := range []struct {
		name  string
		files []*os.File
		names string
		want  string
	}{
		{"one", []*os.File{udp}, "link", "link=1"},
		{"two of a name", []*os.File{udp, second}, "link:link", "link=2"},
		{"two names", []*os.File{udp, second}, "a:b", "a=1 b=1"},
		{"tcp", []*os.File{udp, tcp}, "link:web", "refused web"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The shell tells LISTEN_PID its own pid, which exec keeps, as systemd does.
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c",
				`LISTEN_PID=$$ exec "$0" -test.run=^TestListeners$ -test.v`, os.Args[0])
			cmd.Env = append(os.Environ(), activatedEnv+"=1", fmt.Sprintf("LISTEN_FDS=%d", len(c.files)), "LISTEN_FDNAMES="+c.names)
			cmd.ExtraFiles = c.files
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "RESULT "+c.want+"\n") {
				t.Errorf("%v\n%swant RESULT %s", err, out, c.want)
			}
		})
	}
}

func activated(t *testing.T) {
	files, err := admin.Listeners()
	if err != nil {
		if !errors.Is(err, admin.ErrSocket) {
			t.Fatal(err)
		}
		fmt.Println("RESULT refused", strings.Split(err.Error(), `"`)[1])
		return
	}
	var words []string
	for _, name := range []string{"a", "b", "link"} {
		for _, f := range files[name] {
			if _, err := net.FilePacketConn(f); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(files[name]); n > 0 {
			words = append(words, fmt.Sprintf("%s=%d", name, n))
		}
	}
	if again, err := admin.Listeners(); err != nil || len(again) != 0 {
		t.Errorf("a second call returned %d names, %v", len(again), err)
	}
	fmt.Println("RESULT", strings.Join(words, " "))
}

func TestListenersWithoutActivation(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	if files, err := admin.Listeners(); err != nil || len(files) != 0 {
		t.Errorf("%d names, %v: the sockets of another process", len(files), err)
	}
}

func packetFile(t *testing.T, network, addr string) *os.File {
	t.Helper()
	conn, err := net.ListenPacket(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	f, err := conn.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(f.Close(), conn.Close()) })
	return f
}
