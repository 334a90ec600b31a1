// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package doctor

import (
	"context"
	"errors"
	"fmt"
)

// The link's sockets need Linux, and so does what looks after them.

// ReadReceiver knows nothing of a host that is not Linux.
func ReadReceiver(context.Context, Want) *View { return nothing() }

// ReadSender knows nothing of a host that is not Linux.
func ReadSender(context.Context, Want) *View { return nothing() }

// ReadReceiverLane knows nothing of a host that is not Linux.
func ReadReceiverLane(Want) *View { return nothing() }

// ReadSenderLane knows nothing of a host that is not Linux.
func ReadSenderLane(Want) *View { return nothing() }

// nothing is a view in which every reading says why it was not made.
func nothing() *View {
	err := fmt.Errorf("%w: %w: this host is not Linux", ErrNotRead, errors.ErrUnsupported)
	v := &View{GSO: err}
	v.Interface.Err, v.Ring.Err, v.GRO.Err, v.Pause.Err, v.Qdiscs.Err = err, err, err, err, err
	v.Route.Err, v.Neighbour.Err, v.ReceiveBuffer.Err = err, err, err
	v.Disk.Err, v.Speed.Err, v.Clock.Err = err, err, err
	return v
}
