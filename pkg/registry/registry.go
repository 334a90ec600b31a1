// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"time"
)

// Sentinels. Every error of this package that a caller may want to act upon
// matches one of them with errors.Is; anything else is an error of the
// operating system or of the server, passed on with its place.
var (
	// ErrConflict: a key of the release exists with other bytes, or a key
	// exists that the release does not have. Nothing was overwritten; a person
	// must look.
	ErrConflict = errors.New("registry: conflict with what is already published")
	// ErrUnavailable: the target did not answer, or answered that it cannot
	// now. Publishing again later is safe and resumes.
	ErrUnavailable = errors.New("registry: target unavailable")
	// ErrNotFound: no COMMIT, so no release, or no such file in it.
	ErrNotFound = errors.New("registry: not found")
	// ErrCorrupt: bytes do not hash to what the release or the registry's own
	// records say.
	ErrCorrupt = errors.New("registry: corrupt")
	// ErrNoSpace: the target is full. Publishing again after space was made
	// resumes.
	ErrNoSpace = errors.New("registry: no space left on target")
	// ErrRollback: a release of the same name and stream with the same or a
	// higher (epoch, seq) is in the catalogue.
	ErrRollback = errors.New("registry: release is not newer than what is published")
	// ErrInvalid: the Release value breaks a rule of the layout; nothing was
	// written.
	ErrInvalid = errors.New("registry: invalid release")
	// ErrUnsafe: the server accepts writes that nobody signed, so what is in
	// the bucket proves nothing.
	ErrUnsafe = errors.New("registry: server accepts unauthenticated writes")
	// ErrDenied: the server refused our credentials for this operation.
	ErrDenied = errors.New("registry: access denied")
	// ErrWithdrawn: the release was published and then suspended or revoked; the
	// text says why. Readers get nothing, and it is not published again.
	ErrWithdrawn = errors.New("registry: release is withdrawn")
	// ErrFinal: what was revoked for good is not given back.
	ErrFinal = errors.New("registry: release is revoked for good")
	// ErrNoVersions: the bucket keeps no versions, so taking the files of a
	// revoked release away would destroy them. Withdrawing again after versioning
	// was enabled goes on.
	ErrNoVersions = errors.New("registry: bucket keeps no versions")
	// ErrStopped: an fsync failed in this process, so what the kernel still
	// holds is unknown. Nothing more is written until the process restarts.
	ErrStopped = errors.New("registry: stopped after a failed fsync")
)

// File is one file of a release. Path obeys envelope.md section 4 "Paths".
type File struct {
	Path   string
	Size   int64 // bytes
	SHA256 [32]byte
}

// Blob is one provenance object. Open returns a new reader at offset 0 at each
// call; this package closes it.
type Blob struct {
	Name   string // [a-z0-9][a-z0-9._-]*; ignored for the envelope
	Size   int64  // bytes
	SHA256 [32]byte
	Open   func() (io.ReadSeekCloser, error)
}

// Release is what is published. The caller keeps ownership; Publish does not
// change it.
type Release struct {
	ID              [32]byte // R, SHA-256 of the release statement
	Name            string   // published under this name
	Version         string
	Stream          string
	Kind            string
	Epoch, Seq      int64
	Files           []File   // sorted strictly by Path
	DirectoryDigest [32]byte // envelope.md section 6; see DirectoryDigest
	Statement       []byte   // release.json: the DSSE envelope of the statement
	Envelope        Blob     // envelope.sluice
	Evidence        []Blob   // sorted strictly by Name
	ModelSignature  []byte   // model.sig (model-signature.md); empty: there is none
}

// Source gives the files of a release out of the spool.
type Source interface {
	// Open opens file i of Release.Files for reading: a regular, complete file.
	// It may be called several times and concurrently; this package closes the
	// file. A directory target may link it instead of copying it.
	Open(i int) (*os.File, error)
}

// ReceiptFile is one object that was written. SHA256 is lower-case hex.
// VersionID is the server's, empty where there are no versions.
type ReceiptFile struct {
	Path      string `json:"path"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
	VersionID string `json:"version_id,omitempty"`
}

// Receipt says what was written, by whom and when (RFC 3339, UTC). Its bytes
// are bound by COMMIT.
type Receipt struct {
	Type       string        `json:"type"`
	Release    string        `json:"release"` // R, 64 hex digits
	Name       string        `json:"name"`
	Version    string        `json:"version"`
	Stream     string        `json:"stream"`
	Epoch      int64         `json:"epoch"`
	Seq        int64         `json:"seq"`
	Kind       string        `json:"kind"`
	Files      []ReceiptFile `json:"files"`      // sorted by path
	Provenance []ReceiptFile `json:"provenance"` // sorted by path; neither receipt.json nor COMMIT
	Receiver   string        `json:"receiver"`
	Started    string        `json:"started"`
	Finished   string        `json:"finished"`
}

// Digest is the SHA-256, in hex, of the receipt as it is stored: what COMMIT holds of it.
func (r *Receipt) Digest() (string, error) {
	data, err := encode(r)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// Published is a visible release: its COMMIT exists and its receipt is the one
// that COMMIT binds. Treat it as read-only, it may be shared.
type Published struct {
	ID              [32]byte
	Name            string
	DirectoryDigest [32]byte
	Bytes           int64 // sum of the files' sizes
	Receipt         Receipt
}

// Entry is one line of the catalogue.
type Entry struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	Stream    string `json:"stream"`
	Epoch     int64  `json:"epoch"`
	Seq       int64  `json:"seq"`
	Release   string `json:"release"` // R, 64 hex digits
	Kind      string `json:"kind"`
	Published string `json:"published"` // RFC 3339, UTC

	// Withdrawn is the mark: "suspended", "revoked" or nothing. List gives
	// entries without one only.
	Withdrawn string `json:"withdrawn,omitempty"`
}

// Withdrawal says that a release was withdrawn, or given back, and why. The
// caller of Withdraw sets Final, Reason and Orders, that of Restore Reason and
// Orders; the registry fills in the rest.
type Withdrawal struct {
	Type      string   `json:"type"`
	Name      string   `json:"name"`
	Release   string   `json:"release"` // R, 64 hex digits
	Withdrawn bool     `json:"withdrawn"`
	Final     bool     `json:"final"`    // revoked: never given back
	Reason    string   `json:"reason"`   // 1..512 bytes of UTF-8 without control characters
	Orders    []string `json:"orders"`   // ids of 64 hex digits of what led to this, 1..32
	At        string   `json:"at"`       // RFC 3339, UTC
	Receiver  string   `json:"receiver"` // who wrote it
}

// WithdrawnEntry is an entry of the catalogue that readers do not see, and why.
type WithdrawnEntry struct {
	Entry      Entry      `json:"entry"`
	Withdrawal Withdrawal `json:"withdrawal"`
}

// Problem is one finding of Fsck. Key names the object or prefix.
type Problem struct {
	Kind   ProblemKind
	Key    string
	Detail string
}

// ProblemKind says what sort of finding it is.
type ProblemKind string

// The findings of Fsck. Uncommitted, Uncatalogued, Exposed and Leftover are what
// a crash may leave and what a later call or Reconcile repairs, and so is a
// channel behind its catalogue; all others mean damage.
const (
	ProblemUncommitted  ProblemKind = "uncommitted"  // a prefix without COMMIT
	ProblemLeftover     ProblemKind = "leftover"     // staged file or unfinished upload
	ProblemUncatalogued ProblemKind = "uncatalogued" // COMMIT or withdrawal, but not in the catalogue
	ProblemCommit       ProblemKind = "commit"       // COMMIT unreadable or for another release
	ProblemReceipt      ProblemKind = "receipt"      // receipt missing or not the one COMMIT binds
	ProblemExtra        ProblemKind = "extra"        // a key that nobody published
	ProblemMissing      ProblemKind = "missing"      // a key that should be there
	ProblemSize         ProblemKind = "size"         // a key with another size
	ProblemDigest       ProblemKind = "digest"       // a key with other bytes (deep only)
	ProblemCatalog      ProblemKind = "catalog"      // the chain of serials is broken
	ProblemChannel      ProblemKind = "channel"      // a channel points at what it should not
	ProblemWithdrawal   ProblemKind = "withdrawal"   // the record of a withdrawal is missing, malformed or not what was decided
	ProblemExposed      ProblemKind = "exposed"      // files of a revoked release where consumers read
)

// Publisher is a registry target. All methods may be called concurrently, and
// by several processes on one target.
type Publisher interface {
	// Publish makes the release visible, whole, and returns its receipt. It is
	// idempotent: a second call writes nothing, and a call after a crash goes
	// on where the crash was. COMMIT is written last. progress, if not nil, is
	// called by one goroutine at a time with bytes done of total; each byte
	// counts twice, written and read back.
	Publish(ctx context.Context, r Release, src Source, progress func(done, total int64)) (*Receipt, error)
	// Withdraw makes a published release invisible: for good, files and all, with
	// w.Final; until Restore without. It is idempotent, and a call after a crash
	// goes on where the crash was. A release that is withdrawn as strongly
	// already keeps its record, but for orders that are new. ErrNotFound: nobody
	// published it. When it returns ErrNoVersions, all is done but for the bytes.
	Withdraw(ctx context.Context, name string, id [32]byte, w Withdrawal) error
	// Restore gives a suspended release back after it has read and hashed all of
	// it. directory is the directory digest of the signed statement, which the
	// registry cannot read itself. ErrFinal: it is revoked; ErrCorrupt: it is not
	// what was published, and stays withdrawn; ErrConflict: another order came
	// meanwhile. A release that is not withdrawn is left as it is.
	Restore(ctx context.Context, name string, id, directory [32]byte, w Withdrawal) error
	// Withdrawn returns the record of a published release (zero: it never was
	// withdrawn), and whether it is withdrawn now.
	Withdrawn(ctx context.Context, name string, id [32]byte) (Withdrawal, bool, error)
	// ListWithdrawn returns the entries that List leaves out.
	ListWithdrawn(ctx context.Context) ([]WithdrawnEntry, error)
	// Get returns the release, ErrNotFound while it has no COMMIT, or
	// ErrWithdrawn.
	Get(ctx context.Context, name string, id [32]byte) (*Published, error)
	// Open opens one file of a visible release and returns its size. The
	// reader returns ErrCorrupt instead of io.EOF when a whole sequential read
	// did not hash to the receipt. It is also an io.Seeker; after a seek away
	// from the start nothing is hashed.
	Open(ctx context.Context, name string, id [32]byte, path string) (io.ReadCloser, int64, error)
	// List returns the visible entries of the newest catalogue, checked against
	// its predecessor. An empty registry has none.
	List(ctx context.Context) ([]Entry, error)
	// Fsck judges every prefix, the catalogue chain, the channels and the
	// leftovers. deep also hashes every byte. Findings go to report; the error
	// is for what kept Fsck from judging.
	Fsck(ctx context.Context, deep bool, report func(Problem)) error
	// Reconcile is called at start: it announces what a crash left committed
	// but not announced, goes on with withdrawals, and removes leftovers that
	// nobody works on.
	Reconcile(ctx context.Context) error
	// Close releases what the target holds open. Calls in flight may fail.
	Close() error
}

// Options are common to both targets. The zero value is usable.
type Options struct {
	Receiver string           // id written into receipts
	Now      func() time.Time // nil: time.Now
	Workers  int              // objects in flight; 0: DefaultWorkers
	NoLink   bool             // directory only: never share an inode with the spool
}

// DefaultWorkers is how many objects are in flight at once: enough to hide the
// latency of small files, few enough that four 1 MiB buffers are all it costs.
const DefaultWorkers = 4
