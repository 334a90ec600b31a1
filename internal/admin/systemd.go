// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// ErrSocket says that the service manager passed a socket that is not a UDP socket. The .socket unit is wrong.
var ErrSocket = errors.New("admin: inherited socket")

// NotifyReady tells the service manager that the daemon serves; status is one line for `systemctl status`. Outside of systemd it does
// nothing. See sd_notify(3).
func NotifyReady(status string) error {
	return notify(daemon.SdNotifyReady + "\nSTATUS=" + oneLine(status))
}

// NotifyStatus changes the line that `systemctl status` shows.
func NotifyStatus(status string) error { return notify("STATUS=" + oneLine(status)) }

// NotifyStopping tells the service manager that the daemon drains.
func NotifyStopping() error { return notify(daemon.SdNotifyStopping) }

// Watchdog pings the service manager at half the interval of WatchdogSec= until ctx ends, as long as healthy returns nil. A
// daemon that is not healthy is not pinged, and systemd restarts it. Without a watchdog it waits for ctx.
// The error is a ping that could not be sent, or the end of ctx as nil.
func Watchdog(ctx context.Context, healthy func(context.Context) error) error {
	timeout, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("watchdog interval: %w", err)
	}
	if timeout == 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(timeout / 2)
	defer ticker.Stop()
	for {
		if healthy(ctx) == nil {
			if err := notify(daemon.SdNotifyWatchdog); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Listeners returns the UDP sockets that systemd opened for the daemon (LISTEN_FDS), by the FileDescriptorName= of
// their .socket unit; none outside of socket activation. The caller owns and closes the files. A second call returns none, for
// the first one clears the environment, so that no child believes the sockets are its own.
// The error wraps [ErrSocket]; then all files are closed.
func Listeners() (map[string][]*os.File, error) {
	files := activation.Files(true)
	byName := make(map[string][]*os.File, len(files))
	for _, f := range files {
		if err := checkUDP(f); err != nil {
			return nil, errors.Join(err, closeAll(files))
		}
		byName[f.Name()] = append(byName[f.Name()], f)
	}
	return byName, nil
}

// checkUDP refuses what is not an IPv4 or IPv6 datagram socket.
func checkUDP(f *os.File) error {
	kind, err := sockopt(f, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("%w %q: %w", ErrSocket, f.Name(), err)
	}
	domain, err := sockopt(f, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("%w %q: %w", ErrSocket, f.Name(), err)
	}
	if kind != unix.SOCK_DGRAM || domain != unix.AF_INET && domain != unix.AF_INET6 {
		return fmt.Errorf("%w %q is not UDP: use ListenDatagram= with a port in its .socket unit", ErrSocket, f.Name())
	}
	return nil
}

// sockopt reads a socket option without File.Fd, which would switch the shared socket to blocking mode.
func sockopt(f *os.File, option int) (value int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := conn.Control(func(fd uintptr) {
		value, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option)
	})
	return value, errors.Join(controlErr, err)
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// oneLine keeps a status from smuggling in another assignment.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
