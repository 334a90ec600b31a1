// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"io/fs"
	"net/netip"
	"time"

	"sluice/internal/link"
)

// Want is what the configuration asks of the host.
type Want struct {
	// Address is where the receiver listens, or where the sender sends.
	Address netip.AddrPort
	// Interface names the diode's interface where the receiver's address does not: 0.0.0.0 is every one.
	Interface string
	// Buffer is the socket's, in bytes.
	Buffer int64
	// Rate is the sender's over this lane, in bits a second on the wire; 0: not known here.
	Rate int64
	// Total is that of all lanes, which share the disk; 0: Rate is.
	Total int64
	// MTU is the profile's, 1500 or 9000; 0: not known here.
	MTU int
	// GSO is the sender's choice.
	GSO link.Offload
	// State is the directory of journal, spool and work.
	State string
}

// Reading is something read from the host, or why it could not be read.
type Reading[T any] struct {
	Value T
	Err   error
}

// View is all that the checks see of a host. A reading that was not made has an error, never a zero that looks like a value.
type View struct {
	Files fs.FS // the host's /, of which only proc and sys are read
	Page  int   // bytes of a page of memory

	Interface Reading[Interface] // the diode's
	Ring      Reading[Ring]
	GRO       Reading[bool]
	Pause     Reading[Pause]
	Qdiscs    Reading[[]string] // kinds, the root's first

	Route     Reading[Route]
	Neighbour Reading[Neighbour]

	ReceiveBuffer Reading[int64] // what the kernel gives for Want.Buffer
	GSO           error          // of the link's own probe

	Disk  Reading[Disk]
	Speed Reading[Speed]
	Clock Reading[Clock]
}

// Interface is a network interface.
type Interface struct {
	Name                  string
	Index, MTU            int
	Up, Carrier, Loopback bool
	PointToPoint          bool // no neighbours to find
	Addresses             []netip.Addr
}

// Ring is the number of descriptors that a device's queues have and can have.
type Ring struct{ RX, RXMax, TX, TXMax uint32 }

// Pause says which pause frames (IEEE 802.3x) a device heeds (RX) and sends (TX).
type Pause struct{ RX, TX bool }

// Route is how datagrams leave for the receiver.
type Route struct {
	Interface Interface
	Gateway   netip.Addr // invalid: on the link itself
	Source    netip.Addr
}

// Neighbour is an entry of the neighbour table for the next hop.
type Neighbour struct {
	State    string // as ip-neighbour(8) names it, in small letters; "": no entry
	Hardware string
}

// Disk is where the state directory lies.
type Disk struct {
	Path        string // resolved: the state directory, or the nearest directory above it that exists
	Free, Total int64  // bytes; Free for this user
}

// Speed is what a short sequential run measured, in bytes a second.
type Speed struct{ Write, Read float64 }

// Clock is the kernel's word about the time of day.
type Clock struct {
	Now          time.Time
	Synchronised bool
	MaxError     time.Duration
	Watched      time.Duration // by the monotonic clock
	Moved        time.Duration // by the wall clock, meanwhile
}

// Errors of a view.
var (
	// ErrNotRead says that a reading was not made, because what it depends on was not there.
	ErrNotRead = errors.New("not read")
	// ErrNoRoute says that no route leads to the receiver.
	ErrNoRoute = errors.New("no route")
	// ErrNoInterface says that no interface has the address.
	ErrNoInterface = errors.New("no interface")
	// ErrManyInterfaces says that the address is every interface's.
	ErrManyInterfaces = errors.New("more than one interface")
	// ErrMalformed says that a file of the kernel does not read as it should.
	ErrMalformed = errors.New("malformed")
)
