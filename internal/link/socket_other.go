// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package link

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// The link's sockets need Linux; the formats of this package do not.

// DialUDP is available on Linux only.
func DialUDP(context.Context, SocketOptions) (BatchWriter, error) {
	return nil, fmt.Errorf("open sending socket: %w", errors.ErrUnsupported)
}

// ListenUDP is available on Linux only.
func ListenUDP(context.Context, SocketOptions) (BatchReader, error) {
	return nil, fmt.Errorf("open receiving socket: %w", errors.ErrUnsupported)
}

// FromFile is available on Linux only.
func FromFile(*os.File, SocketOptions) (BatchReader, error) {
	return nil, fmt.Errorf("open receiving socket: %w", errors.ErrUnsupported)
}

// ProbeGSO is available on Linux only.
func ProbeGSO(context.Context) error {
	return fmt.Errorf("probe segmentation offload: %w", errors.ErrUnsupported)
}

// TryReceiveBuffer is available on Linux only.
func TryReceiveBuffer(int) (int, error) {
	return 0, fmt.Errorf("try the receive buffer: %w", errors.ErrUnsupported)
}
