// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// socketMode: the daemon's user and group. An operator joins the group.
	socketMode = 0o660
	// maxSocketPath is what fits sun_path with its final zero byte (unix(7)).
	maxSocketPath = 107
	// probeTimeout is how long a socket file that is already there may take to show that somebody listens.
	probeTimeout = time.Second
	// unixHost is the name in the URL, and so in the Host header, of requests over a unix socket.
	unixHost = "sluice"
)

var (
	// ErrAddr says that the address is neither a loopback address nor an absolute path. It is a configuration error.
	ErrAddr = errors.New("admin: address is neither loopback nor an absolute socket path")
	// ErrInUse says that another process listens on the socket: probably the same daemon, started twice.
	ErrInUse = errors.New("admin: another process listens")
)

// CheckAddr says what is wrong with an admin address without binding it: nil or an error that wraps [ErrAddr].
func CheckAddr(addr string) error {
	_, _, err := split(addr)
	return err
}

// split tells the network ("tcp" or "unix") and the address within it.
func split(addr string) (network, where string, err error) {
	path := strings.TrimPrefix(addr, "unix:")
	if filepath.IsAbs(path) {
		if len(path) > maxSocketPath {
			return "", "", fmt.Errorf("%w: %q is longer than %d bytes", ErrAddr, path, maxSocketPath)
		}
		return "unix", path, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", fmt.Errorf("%w: %q: %w", ErrAddr, addr, err)
	}
	if !isLoopback(host) {
		return "", "", fmt.Errorf("%w: %q: write 127.0.0.1:PORT, [::1]:PORT or /run/NAME.sock", ErrAddr, addr)
	}
	return "tcp", addr, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	network, where, err := split(addr)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if err := clearSocket(ctx, where); err != nil {
			return nil, err
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, network, where)
	if err != nil {
		return nil, fmt.Errorf("admin listen: %w", err)
	}
	if network == "unix" {
		// Connecting takes write permission, which no sane umask gives to others: the file is never too open.
		if err := os.Chmod(where, socketMode); err != nil {
			return nil, errors.Join(fmt.Errorf("admin socket: %w", err), l.Close())
		}
	}
	return l, nil
}

// clearSocket removes the socket file that a killed daemon left behind, and nothing else.
func clearSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w: %s exists and is not a socket: remove it, or choose another path", ErrAddr, path)
	}
	conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("%w on %s", ErrInUse, path), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w on %s, perhaps: %w", ErrInUse, path, err)
	}
	return os.Remove(path)
}
