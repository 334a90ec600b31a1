// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice/internal/journal"
)

// left is what a crash left, as far as others may see it.
type left struct {
	visible bool   // COMMIT is there
	state   string // of the job; empty: the journal has none
	spooled bool   // the journal says that the spool has every byte
	trail   []string
}

// judge looks at what is left: nothing that is visible may be partial or altered, and what the journal promises must be there.
func (p *bed) judge() (l left, err error) {
	if l.visible, err = p.visible(); err != nil {
		return l, err
	}
	if err := l.read(p); err != nil {
		return l, err
	}
	switch {
	case l.state == "PUBLISHED" && !l.visible:
		return l, errors.New("recorded but absent: the journal says PUBLISHED, the registry has no COMMIT")
	case l.state == "PUBLISHED" && !p.named():
		return l, errors.New("recorded but absent: the journal says PUBLISHED, and the channel or the catalogue does not name the release")
	case l.spooled:
		if err := p.spoolWhole(); err != nil {
			return l, fmt.Errorf("recorded but absent: the journal says %s: %w", l.state, err)
		}
	case l.state == "RECEIVING":
		if err := same(p.spool("envelope.sluice"), p.stream); err != nil {
			return l, fmt.Errorf("recorded but absent: the journal says RECEIVING: %w", err)
		}
	}
	return l, nil
}

// read asks the journal. One that was never made whole promises nothing; whether it may be in that state, the next run decides.
func (l *left) read(p *bed) (err error) {
	j, err := journal.Open(p.journal(), journal.Options{ReadOnly: true})
	if err != nil {
		if l.visible {
			return fmt.Errorf("the release is visible, and the journal cannot be read: %w", err)
		}
		return nil
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if err := j.Check(); err != nil {
		return err
	}
	job, err := j.Get(p.id())
	if errors.Is(err, journal.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var data struct {
		Kept bool `json:"spool_kept"`
	}
	if err := json.Unmarshal(job.Data, &data); err != nil {
		return err
	}
	l.state = job.State
	l.spooled = l.state == "PUBLISHED" && data.Kept || l.state != "PUBLISHED" && l.state != "REJECTED" && l.state != "RECEIVING"
	return j.Events(1, func(e journal.Event) error { l.trail = append(l.trail, e.Action); return nil })
}

func (l left) did(action string) (n int) {
	for _, a := range l.trail {
		if a == action {
			n++
		}
	}
	return n
}

// spoolWhole compares the spool with what was sealed.
func (p *bed) spoolWhole() error {
	if err := same(p.spool("envelope.sluice"), p.stream); err != nil {
		return err
	}
	for i, want := range p.files {
		if err := same(p.spool("payload", "files", fmt.Sprintf("%06d", i)), want); err != nil {
			return err
		}
	}
	return nil
}

func same(name string, want []byte) error {
	got, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s: %d bytes that are not the %d that were sealed", name, len(got), len(want))
	}
	return nil
}

// visible applies the rule of docs/spec/registry-layout.md: a release is visible when its COMMIT is there, and then all of it is; before
// that no catalogue and no channel names it.
func (p *bed) visible() (bool, error) {
	provenance := filepath.Join(p.registry(), "provenance", p.env.Statement.Predicate.Name, "sha256-"+p.id())
	_, err := os.Stat(filepath.Join(provenance, "COMMIT"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, p.unnamed()
	}
	if err != nil {
		return true, err
	}
	if _, err := os.Stat(filepath.Join(provenance, "receipt.json")); err != nil {
		return true, fmt.Errorf("visible without a receipt: %w", err)
	}
	if err := same(filepath.Join(provenance, "envelope.sluice"), p.stream); err != nil {
		return true, fmt.Errorf("visible and altered: %w", err)
	}
	return true, p.filesWhole()
}

// filesWhole compares every published file.
func (p *bed) filesWhole() error {
	for i, s := range p.env.Statement.Subjects {
		if err := same(p.published(s.Name), p.files[i]); err != nil {
			return fmt.Errorf("visible and altered: %w", err)
		}
	}
	return nil
}

// published is the name of a published file.
func (p *bed) published(name string) string {
	return filepath.Join(p.registry(), "releases", p.env.Statement.Predicate.Name, "sha256-"+p.id(), filepath.FromSlash(name))
}

// named tells whether the channel and the first catalogue name the release.
func (p *bed) named() bool {
	for _, name := range []string{"channels/" + p.env.Statement.Predicate.Name + "/latest.json", "catalog/serial-000000000001.json"} {
		b, err := os.ReadFile(filepath.Join(p.registry(), filepath.FromSlash(name)))
		if err != nil || !bytes.Contains(b, []byte(p.id())) {
			return false
		}
	}
	return true
}

// unnamed looks for the release in the catalogues and channels.
func (p *bed) unnamed() error {
	for _, dir := range []string{"catalog", "channels"} {
		err := filepath.WalkDir(filepath.Join(p.registry(), dir), func(name string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(name)
			if err == nil && bytes.Contains(b, []byte(p.id())) {
				err = fmt.Errorf("%s names a release that has no COMMIT", name)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// finishes runs a program that has to publish what is left, and judges all of it.
func (p *bed) finishes(with program) error {
	if _, err := with.must(); err != nil {
		return fmt.Errorf("the same again: %w", err)
	}
	return p.whole()
}

// whole wants the release published, the journal to say so, and a clean fsck.
func (p *bed) whole() error {
	l, err := p.judge()
	if err != nil {
		return err
	}
	if !l.visible || l.state != "PUBLISHED" {
		return fmt.Errorf("in the end the job is %q, visible: %v", l.state, l.visible)
	}
	if n := l.did("published"); n != 1 {
		return fmt.Errorf("the audit trail says %d times that the release was published: %q", n, l.trail)
	}
	out, err := p.verb("fsck", "--deep").must()
	if err == nil && strings.TrimSpace(out) != "clean" {
		err = fmt.Errorf("fsck --deep: %s", out)
	}
	return err
}
