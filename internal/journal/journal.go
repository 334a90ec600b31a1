// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// fileMode: the journal names releases and people; nobody else reads it.
	fileMode = 0o600
	// openTimeout is how long Open waits for the lock of another process. Without one, bbolt waits for ever.
	openTimeout = time.Second
	// maxID caps a job id or a stream name: both are keys, and a page holds several of them.
	maxID = 512
	// maxJob caps the JSON of one job. Bodies are files: a job that wants more is misusing the journal.
	maxJob = 1 << 20
	// maxEvent caps the JSON of one event, so that the audit trail stays readable whatever an error text held.
	maxEvent = 64 << 10
	// maxNumber is where JSON numbers stop being exact for every reader (docs/spec/envelope.md).
	maxNumber = 1 << 53
)

// The buckets of the schema tree.
const (
	bucketMeta    = "meta"
	bucketJobs    = "jobs"
	bucketStreams = "streams"
	bucketEvents  = "events"
	bucketTree    = "tree"
	bucketWitness = "witness"
)

// Errors of opening a journal.
var (
	// ErrLocked says that another process has the file open. Ask that daemon over its admin socket, or stop it.
	ErrLocked = errors.New("journal: another process holds it")
	// ErrVersion says that the file was written by a newer build, or needs a migration and was opened read-only.
	ErrVersion = errors.New("journal: schema version")
	// ErrCorrupt says that the file is not a whole journal. Restore it from a backup; do not delete it, for an empty
	// journal has forgotten every high-water mark.
	ErrCorrupt = errors.New("journal: corrupt")
)

// Errors of using one.
var (
	// ErrExists says that Create met a job with this id. The caller has usually seen this release before.
	ErrExists = errors.New("journal: job exists")
	// ErrNotFound says that there is no job with this id.
	ErrNotFound = errors.New("journal: no such job")
	// ErrTransition says that the job is not in the state the caller believed, or the arrow is not legal. Somebody else
	// was faster, or the caller is wrong: read the job again, do not retry blindly.
	ErrTransition = errors.New("journal: illegal transition")
	// ErrRollback says that (epoch, seq) is not greater than the stream's high-water mark. Refuse the release.
	ErrRollback = errors.New("journal: rollback")
	// ErrTampered says that the audit trail does not hold together. Stop, keep the file, call a person.
	ErrTampered = errors.New("journal: audit trail altered")
	// ErrInvalid says that an argument could not be stored: an empty id, an unknown state, a value over its cap.
	ErrInvalid = errors.New("journal: invalid")
)

// Options say what a journal may hold.
type Options struct {
	// States are the legal transitions, from -> to. A state that is only ever a target is final. Needed unless
	// ReadOnly; without it a read-only journal cannot judge states.
	States map[string][]string
	// Now is the clock for Created, Updated and events. nil is time.Now.
	Now func() time.Time
	// ReadOnly takes a shared lock, changes nothing and migrates nothing. The file must exist.
	ReadOnly bool
}

// Journal is an open journal. It may be used by any number of goroutines; writers take turns.
type Journal struct {
	db    *bolt.DB
	path  string
	arrow map[[2]string]bool // legal (from, to)
	state map[string]bool    // known states
	now   func() time.Time

	broken atomic.Bool // a sync failed, see ErrSync
}

// Open opens or creates the journal at path and brings its schema up to date. The parent directory must exist.
//
// Errors: [ErrLocked] after one second, [ErrVersion], [ErrCorrupt] for a truncated or foreign file, [ErrInvalid] for
// options that make no sense.
func Open(path string, opt Options) (*Journal, error) {
	return open(path, opt, nil)
}

// open takes steps beyond those of this build, for tests of the machinery.
func open(path string, opt Options, more []migration) (*Journal, error) {
	j, err := newJournal(path, opt)
	if err != nil {
		return nil, err
	}
	steps := append(j.migrations(), more...)
	if err := checkWhole(path, opt.ReadOnly); err != nil {
		return nil, err
	}
	j.db, err = openBolt(path, opt.ReadOnly)
	if err != nil {
		return nil, err
	}
	if err := j.prepare(opt.ReadOnly, steps); err != nil {
		return nil, errors.Join(err, j.db.Close())
	}
	return j, nil
}

func newJournal(path string, opt Options) (*Journal, error) {
	if len(opt.States) == 0 && !opt.ReadOnly {
		return nil, fmt.Errorf("%w: open %s: Options.States is empty, so no job could ever move", ErrInvalid, path)
	}
	j := &Journal{path: path, arrow: map[[2]string]bool{}, state: map[string]bool{}, now: opt.Now}
	if j.now == nil {
		j.now = time.Now
	}
	for from, targets := range opt.States {
		j.state[from] = true
		for _, to := range targets {
			j.state[to] = true
			j.arrow[[2]string{from, to}] = true
		}
	}
	if j.state[""] {
		return nil, fmt.Errorf("%w: open %s: Options.States names the empty state", ErrInvalid, path)
	}
	return j, nil
}

// prepare makes the file and its schema durable before the first job is promised to anybody.
func (j *Journal) prepare(readOnly bool, steps []migration) error {
	err := guard(func() error {
		if err := migrate(j.db, steps, readOnly); err != nil {
			return err
		}
		return j.db.View(checkBuckets)
	})
	if err != nil {
		return fmt.Errorf("open journal %s: %w", j.path, err)
	}
	if readOnly {
		return nil
	}
	return syncDir(filepath.Dir(j.path))
}

// Close releases the lock. It waits for transactions in progress.
func (j *Journal) Close() error { return j.db.Close() }

// Path is the file the journal was opened from.
func (j *Journal) Path() string { return j.path }

func openBolt(path string, readOnly bool) (*bolt.DB, error) {
	var db *bolt.DB
	err := guard(func() (err error) {
		db, err = bolt.Open(path, fileMode, &bolt.Options{
			Timeout:      openTimeout,
			ReadOnly:     readOnly,
			FreelistType: bolt.FreelistMapType,
		})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s: ask the daemon (status), or stop it", ErrLocked, path)
	case isForeign(err):
		return nil, fmt.Errorf("%w: open %s: %w: restore it from a backup", ErrCorrupt, path, err)
	case err != nil:
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	return db, nil
}

func isForeign(err error) bool {
	return errors.Is(err, bolterrors.ErrInvalid) || errors.Is(err, bolterrors.ErrChecksum) ||
		errors.Is(err, bolterrors.ErrVersionMismatch)
}

// checkWhole refuses a file shorter than its own meta page says. bbolt maps the file: it would not report the
// missing pages, it would die on them with SIGBUS. Read-only opening loads no freelist, so it touches meta only.
func checkWhole(path string, mustExist bool) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !mustExist {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	if info.Size() == 0 && !mustExist {
		return nil // a crash before the very first write
	}
	db, err := openBolt(path, true)
	if err != nil {
		return err
	}
	var want int64
	err = db.View(func(tx *bolt.Tx) error { want = tx.Size(); return nil })
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("open journal %s: %w", path, err)
	}
	if info.Size() < want {
		return fmt.Errorf("%w: %s has %d bytes and should have %d: restore it from a backup",
			ErrCorrupt, path, info.Size(), want)
	}
	return nil
}

// syncDir makes the file's name durable: bbolt syncs the file, not its directory.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync journal directory: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}

// put stores v as JSON under key, refusing a value over limit bytes. It returns what it stored.
func put(b *bolt.Bucket, key []byte, v any, limit int) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: encode %q: %w", ErrInvalid, key, err)
	}
	if len(raw) > limit {
		return nil, fmt.Errorf("%w: %q takes %d bytes, at most %d: keep bodies in files", ErrInvalid, key, len(raw), limit)
	}
	return raw, b.Put(key, raw)
}

// clock is the journal's time: UTC and without a monotonic reading, as it comes back from JSON.
func (j *Journal) clock() time.Time { return j.now().UTC().Round(0) }
