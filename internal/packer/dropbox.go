// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"sluice/pkg/envelope"
)

// DropBox is the folder between the packer and the officers: a share, or a stick. The packer writes requests and status.txt; an
// officer's tool writes exactly one new file below approvals/ and edits none. Everything in it is hostile: files are read
// once, as regular files, under a cap, and below the folder.
//
//	requests/<stream>-<seq>-<release, 8 digits>/   envelope.sluice, review.txt, evidence/
//	approvals/<release>/<group>.<officer>.json     one DSSE statement
//	status.txt                                     who signed, what is missing
type DropBox struct {
	Dir string
}

const maxApproval = 64 << 10 // docs/spec/envelope.md section 1, caps

// approvalName is <group>.<officer>.json; both are names of the policy (docs/spec/trust.md section 3).
var approvalName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}\.[a-z0-9][a-z0-9._-]{0,63}\.json$`)

var (
	// ErrDecided says that the officer has decided about this release before.
	ErrDecided = errors.New("drop-box: the officer has decided already; an approval is never changed, remove it by hand to decide anew")
	// ErrRequest says that no request, or more than one, goes by the name given.
	ErrRequest = errors.New("drop-box: no such request")
)

func (b DropBox) root() (*os.Root, error) {
	if err := os.MkdirAll(b.Dir, 0o775); err != nil {
		return nil, fmt.Errorf("drop-box: %w", err)
	}
	root, err := os.OpenRoot(b.Dir)
	if err != nil {
		return nil, fmt.Errorf("drop-box: %w", err)
	}
	return root, nil
}

// RequestName is the directory of a request.
func RequestName(env *envelope.Envelope) string {
	p := env.Statement.Predicate
	return fmt.Sprintf("%s-%06d-%.8s", strings.ReplaceAll(p.Stream, "/", "."), p.Seq, env.ID)
}

// Request puts a sealed release up for approval. It is idempotent.
func (b DropBox) Request(env *envelope.Envelope) error {
	root, err := b.root()
	if err != nil {
		return err
	}
	defer root.Close()
	dir := "requests/" + RequestName(env)
	if err := errors.Join(root.MkdirAll(dir+"/evidence", 0o775), root.MkdirAll("approvals/"+env.ID.String(), 0o775)); err != nil {
		return fmt.Errorf("drop-box: %w", err)
	}
	var stream bytes.Buffer
	if _, err := env.WriteTo(&stream); err != nil {
		return err
	}
	files := []envelope.Named{{Name: dir + "/review.txt", Data: []byte(ReviewPage(env))}, {Name: dir + "/" + envelopeFile, Data: stream.Bytes()}}
	for _, e := range env.Evidence {
		files = append(files, envelope.Named{Name: dir + "/evidence/" + e.Name, Data: e.Data})
	}
	for _, f := range files {
		if err := replaceFile(root, f.Name, f.Data); err != nil {
			return fmt.Errorf("drop-box: %w", err)
		}
	}
	return nil
}

// Approvals reads what officers have written for a release, sorted by name. A file that is no regular file, is too big or has
// no name of the form <group>.<officer>.json is skipped and named in problems: it must not hold up the others.
func (b DropBox) Approvals(id envelope.Digest) (found []envelope.Named, problems []string, err error) {
	root, err := b.root()
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	dir := "approvals/" + id.String()
	entries, err := fs.ReadDir(root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("drop-box: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // an officer's tool writes a dot file and renames it
		}
		if !approvalName.MatchString(e.Name()) {
			problems = append(problems, fmt.Sprintf("%+q is no name of the form <group>.<officer>.json", e.Name()))
			continue
		}
		data, err := readHostile(root, path.Join(dir, e.Name()), maxApproval)
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		found = append(found, envelope.Named{Name: e.Name(), Data: data})
	}
	slices.SortFunc(found, func(a, b envelope.Named) int { return strings.Compare(a.Name, b.Name) })
	return found, problems, nil
}

// AddApproval writes one new approval. An existing one is never overwritten.
func (b DropBox) AddApproval(id envelope.Digest, name string, data []byte) error {
	root, err := b.root()
	if err != nil {
		return err
	}
	defer root.Close()
	dir := "approvals/" + id.String()
	if err := root.MkdirAll(dir, 0o775); err != nil {
		return fmt.Errorf("drop-box: %w", err)
	}
	if _, err := root.Lstat(dir + "/" + name); err == nil {
		return fmt.Errorf("%w (%s)", ErrDecided, name)
	}
	if err := replaceFile(root, dir+"/"+name, data); err != nil {
		return fmt.Errorf("drop-box: %w", err)
	}
	return nil
}

// ReadRequest reads the envelope of a request, by its directory name or by a unique beginning of the release id.
func (b DropBox) ReadRequest(request string) (*envelope.Envelope, error) {
	root, err := b.root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name, err := findRequest(root, request)
	if err != nil {
		return nil, err
	}
	f, err := openHostile(root, path.Join("requests", name, envelopeFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	env, err := envelope.Read(f)
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", name, err)
	}
	if RequestName(env) != name || request != name && !strings.HasPrefix(env.ID.String(), request) {
		return nil, fmt.Errorf("%w %q: %s holds the envelope of release %s", ErrRequest, request, name, env.ID)
	}
	return env, nil
}

func findRequest(root *os.Root, request string) (string, error) {
	entries, err := fs.ReadDir(root.FS(), "requests")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrRequest, err)
	}
	var names, hits []string
	for _, e := range entries {
		names = append(names, e.Name())
		short := e.Name()[strings.LastIndexByte(e.Name(), '-')+1:]
		if e.Name() == request || request == "" || len(request) >= 8 && strings.HasPrefix(request, short) {
			hits = append(hits, e.Name())
		}
	}
	if len(hits) != 1 {
		return "", fmt.Errorf("%w: %d requests match %q; there are: %s", ErrRequest, len(hits), request, strings.Join(names, ", "))
	}
	return hits[0], nil
}

// WriteStatus replaces status.txt.
func (b DropBox) WriteStatus(text string) error {
	root, err := b.root()
	if err != nil {
		return err
	}
	defer root.Close()
	if old, err := readHostile(root, "status.txt", 1<<20); err == nil && string(old) == text {
		return nil
	}
	return replaceFile(root, "status.txt", []byte(text))
}

// openHostile opens a regular file, and only the one that it looked at: whoever swaps it in between gains nothing, and a pipe
// does not hold us up.
func openHostile(root *os.Root, name string) (*os.File, error) {
	looked, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !looked.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err != nil || !os.SameFile(looked, opened) {
		return nil, errors.Join(fmt.Errorf("%s changed while it was opened", name), err, f.Close())
	}
	return f, nil
}

func readHostile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := openHostile(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return b, nil
}
