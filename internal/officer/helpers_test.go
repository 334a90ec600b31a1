// SPDX-License-Identifier: Apache-2.0

package officer_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"sluice/internal/dropbox"
	"sluice/internal/officer"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// now is when officers decide in tests.
func now() time.Time { return trusttest.Sealed().Add(time.Hour) }

// room is a site with a drop-box and an officer's machine.
type room struct {
	*trusttest.Site
	t      testing.TB
	box    dropbox.Box
	file   string // of the first trust object
	anchor *officer.Anchor
}

func newRoom(t testing.TB) *room {
	t.Helper()
	s, err := trusttest.New()
	must(t, err)
	r := &room{Site: s, t: t, box: dropbox.Box{Dir: filepath.Join(t.TempDir(), "box")}, file: filepath.Join(t.TempDir(), "trust.json")}
	must(t, errors.Join(os.MkdirAll(r.box.Dir, 0o700), os.WriteFile(r.file, s.Object, 0o600)))
	r.reopen()
	return r
}

func (r *room) fingerprint() string { return hex.EncodeToString(r.Store.Fingerprint[:]) }

func (r *room) reopen() {
	r.t.Helper()
	a, err := officer.OpenAnchor(r.box, r.file, r.fingerprint())
	must(r.t, err)
	r.anchor = a
}

// release seals files; before may be nil. change edits the predicate.
func (r *room) release(files fstest.MapFS, before *envelope.Envelope, change func(*envelope.Predicate)) *envelope.Envelope {
	r.t.Helper()
	p := trusttest.Predicate("models/llm", 1, 1)
	if before != nil {
		p.Seq, p.Prev = before.Statement.Predicate.Seq+1, before.ID.String()
	}
	if change != nil {
		change(&p)
	}
	env, err := r.Seal(context.Background(), files, p, nil)
	must(r.t, err)
	return env
}

func (r *room) put(env, before *envelope.Envelope) {
	r.t.Helper()
	must(r.t, r.box.PutRequest(env, before, dropbox.Page{Text: []byte("review.txt lies: all is well\n"), HTML: []byte("<p>all is well")}))
}

func (r *room) person(name string) officer.Person {
	r.t.Helper()
	you, err := r.anchor.PersonOf(r.Keys[name].KeyID(), name)
	must(r.t, err)
	return you
}

func (r *room) look(env *envelope.Envelope, opt officer.LookOptions) (*officer.View, error) {
	r.t.Helper()
	req, err := r.box.ReadRequest(env.ID.String())
	must(r.t, err)
	return officer.Look(context.Background(), r.box, r.anchor, req, opt)
}

func (r *room) view(env *envelope.Envelope, opt officer.LookOptions) *officer.View {
	r.t.Helper()
	v, err := r.look(env, opt)
	must(r.t, err)
	return v
}

// decide is the whole of an officer's decision without bytes.
func (r *room) decide(env *envelope.Envelope, name, decision string) error {
	r.t.Helper()
	v := r.view(env, officer.LookOptions{You: r.person(name)})
	_, err := officer.Decide(r.box, r.anchor, officer.Decision{
		View: v, Page: v.Page(), Decision: decision, Typed: officer.Confirmation(env, decision), Tool: "test", Now: now(), Signer: r.Keys[name],
	})
	return err
}

// staging writes files into a directory and opens it.
func staging(t testing.TB, files fstest.MapFS) *os.Root {
	t.Helper()
	dir := t.TempDir()
	must(t, os.CopyFS(dir, fs.FS(files)))
	root, err := os.OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func openSeen(t testing.TB, dir string) *officer.Seen {
	t.Helper()
	if err := os.Chmod(dir, 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) { // whatever the umask is
		t.Fatal(err)
	}
	s, err := officer.OpenSeen(dir)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// big is a file of n blocks, each of another byte.
func big(n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, bytes.Repeat([]byte{byte(i)}, envelope.BlockSize)...)
	}
	return append(b, "tail"...)
}

func order(action, kind, target, reason string) mofn.Order {
	return mofn.Order{Action: action, Kind: kind, Target: target, Reason: reason}
}

// give lets an officer give an order.
func (r *room) give(name string, o mofn.Order) string {
	r.t.Helper()
	o, _, err := officer.NewOrder(r.anchor, r.person(name), o, now())
	must(r.t, err)
	id, err := officer.SignOrder(r.box, r.anchor, o, r.Keys[name])
	must(r.t, err)
	return id
}

func files(texts map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range texts {
		out[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o600}
	}
	return out
}

func hexOf(b byte) string { return fmt.Sprintf("%x", bytes.Repeat([]byte{b}, 32)) }
