// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"sluice/pkg/envelope"
)

// Box is a drop-box by the path of its folder.
type Box struct {
	Dir string
}

const (
	requestsDir  = "requests"
	approvalsDir = "approvals"

	envelopeFile = "envelope.sluice"
	previousFile = "previous.sluice"

	maxApproval = 64 << 10 // docs/spec/drop-box.md, caps
	maxStatus   = 1 << 20
)

// approvalName is <group>.<officer>.json; both are names of the policy (docs/spec/trust.md section 3).
var approvalName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}\.[a-z0-9][a-z0-9._-]{0,63}\.json$`)

// ErrRequest says that no request, or more than one, goes by the name given.
var ErrRequest = errors.New("drop-box: no such request")

// Made opens the folder for the bastion, which makes it.
func (b Box) Made() (*os.Root, error) {
	if err := os.MkdirAll(b.Dir, 0o775); err != nil {
		return nil, explainWrite(err)
	}
	return b.Open()
}

// RequestName is the directory of a request.
func RequestName(env *envelope.Envelope) string {
	p := env.Statement.Predicate
	return fmt.Sprintf("%s-%06d-%.8s", strings.ReplaceAll(p.Stream, "/", "."), p.Seq, env.ID)
}

// HasRequest says whether the request of a release lies there. A folder that is away has none, and is ErrAway.
func (b Box) HasRequest(env *envelope.Envelope) (bool, error) {
	root, err := b.Made()
	if err != nil {
		return false, err
	}
	defer root.Close()
	_, err = root.Lstat("requests/" + RequestName(env) + "/envelope.sluice")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Page is what the bastion thinks that officers are shown: for people who look into the folder. No tool reads it.
type Page struct {
	Text, HTML []byte
}

// PutRequest puts a sealed release up for approval: what the bastion writes. previous is the envelope of the release that it names as its
// predecessor; nil where the bastion does not have it. It is idempotent.
func (b Box) PutRequest(env, previous *envelope.Envelope, page Page) error {
	root, err := b.Made()
	if err != nil {
		return err
	}
	defer root.Close()
	dir := requestsDir + "/" + RequestName(env)
	if err := errors.Join(root.MkdirAll(dir+"/evidence", 0o775), root.MkdirAll(approvalsDir+"/"+env.ID.String(), 0o775)); err != nil {
		return explainWrite(err)
	}
	files := []envelope.Named{{Name: "review.txt", Data: page.Text}, {Name: "review.html", Data: page.HTML}}
	for _, e := range env.Evidence {
		files = append(files, envelope.Named{Name: "evidence/" + e.Name, Data: e.Data})
	}
	if previous != nil {
		stream, err := streamOf(previous)
		if err != nil {
			return err
		}
		files = append(files, envelope.Named{Name: previousFile, Data: stream})
	}
	stream, err := streamOf(env)
	if err != nil {
		return err
	}
	// The envelope last: a request that shows is whole.
	for _, f := range append(files, envelope.Named{Name: envelopeFile, Data: stream}) {
		if err := Replace(root, dir+"/"+f.Name, f.Data); err != nil {
			return err
		}
	}
	return nil
}

func streamOf(env *envelope.Envelope) ([]byte, error) {
	bare := *env
	bare.Approvals = nil
	var stream bytes.Buffer
	_, err := bare.WriteTo(&stream)
	return stream.Bytes(), err
}

// Request is a request as it was read: once, into memory. Nobody's signature was looked at.
type Request struct {
	Name     string
	Envelope *envelope.Envelope
	// Previous is the release that Envelope names as its predecessor; nil: none is named, or Lack says why it is not here.
	Previous *envelope.Envelope
	Lack     string
}

// Requests lists the names of the requests.
func (b Box) Requests() ([]string, error) {
	root, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return names(root, requestsDir)
}

// ReadRequest reads a request by its directory name, or by a unique beginning of the release id; "" is the only one that there is.
// Errors: ErrRequest, ErrAway, ErrHostile, and those of package envelope.
func (b Box) ReadRequest(request string) (*Request, error) {
	root, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name, err := findRequest(root, request)
	if err != nil {
		return nil, err
	}
	env, err := readEnvelope(root, path.Join(requestsDir, name, envelopeFile))
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", name, err)
	}
	if RequestName(env) != name || request != "" && request != name && !strings.HasPrefix(env.ID.String(), request) {
		return nil, fmt.Errorf("%w %q: %s holds the envelope of release %s", ErrRequest, request, name, env.ID)
	}
	r := &Request{Name: name, Envelope: env}
	r.readPrevious(root)
	return r, nil
}

// readPrevious takes the predecessor only if it is the release that the statement names: its id says so, and nobody needs to be believed.
func (r *Request) readPrevious(root *os.Root) {
	want := r.Envelope.Statement.Predicate.Prev
	if want == "" {
		return
	}
	prev, err := readEnvelope(root, path.Join(requestsDir, r.Name, previousFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		r.Lack = "the request does not hold it"
	case err != nil:
		r.Lack = err.Error()
	case prev.ID.String() != want:
		r.Lack = fmt.Sprintf("%s is another release: %s", previousFile, prev.ID)
	default:
		r.Previous = prev
	}
}

func readEnvelope(root *os.Root, name string) (*envelope.Envelope, error) {
	f, err := OpenFile(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return envelope.Read(f)
}

func findRequest(root *os.Root, request string) (string, error) {
	all, err := names(root, requestsDir)
	if err != nil {
		return "", err
	}
	var hits []string
	for _, name := range all {
		short := name[strings.LastIndexByte(name, '-')+1:]
		if name == request || request == "" || len(request) >= 8 && strings.HasPrefix(request, short) {
			hits = append(hits, name)
		}
	}
	if len(hits) != 1 {
		return "", fmt.Errorf("%w: %d requests match %q; there are: %s", ErrRequest, len(hits), request, few(all))
	}
	return hits[0], nil
}

// few names some of a list that may be long and hostile.
func few(all []string) string {
	const most = 20
	text := ""
	for i, name := range all {
		if i == most {
			return fmt.Sprintf("%s and %d more", text, len(all)-most)
		}
		text += fmt.Sprintf(" %+.120q", name)
	}
	return strings.TrimSpace(text)
}

// Approvals reads what officers have written for a release, sorted by name. A file that is no regular file, is too big or has
// no name of the form <group>.<officer>.json is skipped and named in problems: it must not hold up the others.
func (b Box) Approvals(id envelope.Digest) (found []envelope.Named, problems []string, err error) {
	return b.collect(approvalsDir+"/"+id.String(), "<group>.<officer>.json", approvalName.MatchString, maxApproval)
}

// collect reads the files of one directory whose names are of a form. The others, and those that do not read, are problems.
func (b Box) collect(dir, form string, fits func(string) bool, limit int64) (found []envelope.Named, problems []string, err error) {
	root, err := b.Open()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil // the bastion asks before there was a request
	}
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	all, err := names(root, dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range all {
		if !fits(name) {
			problems = append(problems, fmt.Sprintf("%+.120q is no name of the form %s", name, form))
			continue
		}
		data, err := ReadFile(root, path.Join(dir, name), limit)
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		found = append(found, envelope.Named{Name: name, Data: data})
	}
	return found, problems, nil
}

// AddApproval writes one new approval and reads it back. Errors: ErrExists, ErrAway, ErrReadOnly.
func (b Box) AddApproval(id envelope.Digest, name string, data []byte) error {
	return b.add(approvalsDir+"/"+id.String()+"/"+name, data)
}

func (b Box) add(name string, data []byte) error {
	root, err := b.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	return create(root, name, data)
}

// HasApproval says whether an officer has decided about a release.
func (b Box) HasApproval(id envelope.Digest, name string) (bool, error) {
	root, err := b.Open()
	if err != nil {
		return false, err
	}
	defer root.Close()
	_, err = root.Lstat(approvalsDir + "/" + id.String() + "/" + name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, explain(err)
}

// WriteStatus replaces status.txt: what the bastion writes.
func (b Box) WriteStatus(text string) error {
	root, err := b.Made()
	if err != nil {
		return err
	}
	defer root.Close()
	if old, err := ReadFile(root, "status.txt", maxStatus); err == nil && string(old) == text {
		return nil
	}
	return Replace(root, "status.txt", []byte(text))
}

// TryWrite makes a new file as a decision is written, reads it back and removes it: a check before a ceremony. The file begins with a dot,
// so nobody takes it for anything.
func (b Box) TryWrite() error {
	root, err := b.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	name := ".try-" + rand.Text()[:12]
	if err := create(root, name, []byte("sluice officer doctor\n")); err != nil {
		return err
	}
	return removed(root, name)
}
