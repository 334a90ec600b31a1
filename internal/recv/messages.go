// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"context"
	"errors"
	"time"

	"sluice/internal/link"
	"sluice/internal/spool"
	"sluice/pkg/fec"
)

// The requests. Those of the front come from the one process that hostile bytes reach: the daemon believes no word of them that it
// can look up itself.
const (
	// Of the front, to the daemon.
	askOpen    = "open announcement" // openRequest -> openAnswer
	askJudge   = "judge envelope"    // judgeRequest -> Place
	askRefused = "refused"           // releaseRequest -> bool
	askDone    = "complete"          // Place: all of it is on stable storage
	askFailed  = "failed"            // failedRequest: the front ends, and why

	// Of the daemon, to the front.
	askSetUp     = "set up"   // setUp -> Confinement; once, before all others
	askReceive   = "receive"  // begin to read the sockets; once
	askAssemble  = "assemble" // assembleRequest -> spool.Progress
	askRelease   = "release"  // releaseRequest: close what assembles it
	askShortfall = "shortfall"
	askStatus    = "status" // -> frontStatus
)

// Cut is how a payload is cut into symbols.
type Cut struct {
	SymbolSize int `json:"symbol_size"`
	Groups     int `json:"groups"`
}

// Place is where the payload symbols of a release go: the assembly of that release in that cut. Whole says that nothing of it is
// needed any more.
type Place struct {
	Release [32]byte `json:"release"`
	Cut     Cut      `json:"cut"`
	Whole   bool     `json:"whole,omitempty"`
}

// Shortfall is what a release lacks that what is here cannot repair.
type Shortfall struct {
	Fresh   int           `json:"fresh"`   // first row of which nothing is here
	Need    fec.Selection `json:"need"`    // empty: what is here repairs all of it
	Lost    int64         `json:"lost"`    // source symbols
	Damaged int           `json:"damaged"` // spans
}

// Confinement is what the kernel holds the front to.
type Confinement struct {
	Landlock int  `json:"landlock"` // ABI; 0: this kernel has none
	Seccomp  bool `json:"seccomp"`
}

type setUp struct {
	PublicKey  []byte `json:"public_key"` // X-Wing, for mac1
	Incoming   string `json:"incoming"`   // directory
	BootID     string `json:"boot_id"`
	Buffer     int    `json:"buffer"`
	BestEffort bool   `json:"best_effort"` // go on without a landlock
}

type openRequest struct {
	Datagram []byte `json:"datagram"`
}

type openAnswer struct {
	Announcement link.Announcement `json:"announcement"`
	Key          [32]byte          `json:"key"`
}

type judgeRequest struct {
	Session [8]byte `json:"session"`
}

type releaseRequest struct {
	Release [32]byte `json:"release"`
}

type assembleRequest struct {
	Release [32]byte `json:"release"`
	Cut     Cut      `json:"cut"`
	Sizes   []int64  `json:"sizes"` // of the files, in order
}

type shortfallRequest struct {
	Release [32]byte `json:"release"`
	Room    int      `json:"room"` // bytes of the ticket
}

type failedRequest struct {
	Error *wireError `json:"error"`
}

// frontStatus is the front as of now. The clocks of two processes differ in nothing but where their monotonic reading begins, which
// JSON does not carry: every time in it is an age before Now.
type frontStatus struct {
	Now      time.Time        `json:"now"`
	Link     *link.Status     `json:"link"` // nil: it does not receive yet
	Assembly []assemblyStatus `json:"assembly"`
}

type assemblyStatus struct {
	Release  [32]byte       `json:"release"`
	Progress spool.Progress `json:"progress"`
}

// wireError is an error on its way to the other process: its text, and the one of sentinels that it is.
type wireError struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
}

// sentinels are the errors that are told apart on the other side, the first match first.
func sentinels() []struct {
	kind string
	err  error
} {
	return []struct {
		kind string
		err  error
	}{
		{"broken", spool.ErrBroken},
		{"closed", spool.ErrClosed},
		{"signature", link.ErrSignature},
		{"canceled", context.Canceled},
		{"deadline", context.DeadlineExceeded},
	}
}

// maxErrorText keeps an error within a frame: an envelope may name thousands of things that are wrong.
const maxErrorText = 4 << 10

func toWire(err error) *wireError {
	w := &wireError{Text: err.Error()}
	if len(w.Text) > maxErrorText {
		w.Text = w.Text[:maxErrorText] + " ..."
	}
	for _, s := range sentinels() {
		if errors.Is(err, s.err) {
			w.Kind = s.kind
			break
		}
	}
	return w
}

// remoteError is an error of the other process.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

func (w *wireError) err() error {
	e := &remoteError{text: w.Text}
	for _, s := range sentinels() {
		if s.kind == w.Kind {
			e.is = s.err
		}
	}
	return e
}
