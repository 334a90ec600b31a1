// SPDX-License-Identifier: Apache-2.0

// Package doctor says whether this host is fit for the one-way link, and what mends it where it is not.
//
//	ReadReceiver, ReadSender --> View --> Receiver, Sender --> []Finding --> Print, or JSON
//	    the real host            data       pure checks
//
// Nothing comes back over a diode, so a host that drops datagrams is never told: the tuning that other systems can leave to
// retransmission has to be right beforehand. Each check looks at one thing, says what it saw, what it wants and why, and
// gives the command or the line of a file that mends it. What could not be looked at is [Unknown], with the reason, and
// never taken for good.
//
// The host is read in one place (read_linux.go), which changes nothing: the only thing written is a temporary file below the
// state directory, to measure the disk, and it has no name any more when the first byte goes into it. Everything else is a
// function of a [View], so that every check is tested on hosts that nobody has.
package doctor
