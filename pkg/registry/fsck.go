// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
)

// check is one run of Fsck.
type check struct {
	e       *engine
	deep    bool
	report  func(Problem)
	visible map[string]Entry // by name/id: every release whose COMMIT and receipt are good
}

// Fsck implements Publisher.
func (e *engine) Fsck(ctx context.Context, deep bool, report func(Problem)) error {
	c := &check{e: e, deep: deep, report: report, visible: make(map[string]Entry)}
	names, err := e.names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.name(ctx, name); err != nil {
			return err
		}
	}
	entries, err := c.chain(ctx)
	if err != nil {
		return err
	}
	if err := c.channels(ctx, entries); err != nil {
		return err
	}
	return c.leftovers(ctx)
}

// Verify judges one visible release as Fsck does, deep: every key, size and
// digest. It is for the look again some time after Publish, before the spool
// copy may go. It returns ErrNotFound without COMMIT, and ErrCorrupt with the
// first findings.
func (e *engine) Verify(ctx context.Context, name string, id [32]byte) error {
	if _, err := e.Get(ctx, name, id); err != nil {
		return err
	}
	var found []error
	c := &check{e: e, deep: true, visible: make(map[string]Entry), report: func(p Problem) {
		if len(found) < maxFindings {
			found = append(found, fmt.Errorf("%w: %s: %s: %s", ErrCorrupt, p.Kind, p.Key, p.Detail))
		}
	}}
	if err := c.release(ctx, name, hexID(id)); err != nil {
		return err
	}
	return errors.Join(found...)
}

// maxFindings bounds the error text of Verify; Fsck reports them all.
const maxFindings = 20

func (c *check) add(kind ProblemKind, key, format string, args ...any) {
	c.report(Problem{Kind: kind, Key: key, Detail: fmt.Sprintf(format, args...)})
}

// names lists every name below releases and provenance, sorted.
func (e *engine) names(ctx context.Context) ([]string, error) {
	return e.union(ctx, releasesPrefix, provenancePrefix)
}

// union lists the children of several prefixes, sorted, each once.
func (e *engine) union(ctx context.Context, prefixes ...string) ([]string, error) {
	set := make(map[string]bool)
	for _, prefix := range prefixes {
		list, err := e.st.children(ctx, prefix)
		if err != nil {
			return nil, err
		}
		for _, child := range list {
			set[child] = true
		}
	}
	return slices.Sorted(maps.Keys(set)), nil
}

// name judges all releases of one name.
func (c *check) name(ctx context.Context, name string) error {
	if !validName(name) {
		return c.stray(ctx, name+"/", "not a release name")
	}
	children, err := c.e.union(ctx, releasesPrefix+name+"/", provenancePrefix+name+"/")
	if err != nil {
		return err
	}
	if len(children) == 0 {
		return c.stray(ctx, name+"/", "no release below this name")
	}
	for _, child := range children {
		id, ok := parseID(child)
		if !ok {
			err = c.stray(ctx, name+"/"+child+"/", "not sha256-<64 hex digits>")
		} else {
			err = c.release(ctx, name, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// release judges one prefix.
func (c *check) release(ctx context.Context, name, id string) error {
	p, kind, err := c.load(ctx, name, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return c.uncommitted(ctx, name, id)
	case errors.Is(err, ErrCorrupt):
		c.add(kind, commitKey(name, id), "%v", err)
		return nil
	case err != nil:
		return err
	}
	if err := c.keys(ctx, releasePrefix(name, id), p.Receipt.Files); err != nil {
		return err
	}
	if err := c.keys(ctx, provPrefix(name, id), p.Receipt.Provenance, receiptName, commitName); err != nil {
		return err
	}
	c.visible[name+"/"+id] = p.Receipt.entry()
	return nil
}

// uncommitted reports a prefix without COMMIT.
func (c *check) uncommitted(ctx context.Context, name, id string) error {
	return c.occupied(ctx, name+"/"+idPrefix+id+"/", ProblemUncommitted, "no COMMIT; publishing the release again completes it")
}

// stray reports keys in a place that the layout does not have.
func (c *check) stray(ctx context.Context, place, why string) error {
	return c.occupied(ctx, place, ProblemExtra, why)
}

// occupied reports a place below releases or provenance, if it has any key:
// servers list prefixes of which only delete markers are left, and directories
// may be empty. A single object called like a directory counts.
func (c *check) occupied(ctx context.Context, place string, kind ProblemKind, why string) error {
	for _, prefix := range []string{releasesPrefix + place, provenancePrefix + place} {
		keys := 0
		count := func(object) error { keys++; return nil }
		err := c.e.st.list(ctx, prefix, count)
		if err != nil {
			return err
		}
		if o, err := c.e.st.stat(ctx, prefix[:len(prefix)-1]); err == nil && o.odd != oddDirectory {
			keys++
		}
		if keys > 0 {
			c.add(kind, prefix, "%d keys; %s", keys, why)
		}
	}
	return nil
}

// load reads COMMIT and receipt anew; kind says whose fault an ErrCorrupt is.
func (c *check) load(ctx context.Context, name, id string) (p *Published, kind ProblemKind, err error) {
	com, err := c.e.readCommit(ctx, name, id)
	if err != nil {
		return nil, ProblemCommit, err
	}
	p, err = c.e.load(ctx, name, id, com)
	return p, ProblemReceipt, err
}

// keys compares what lies below prefix with the list, exactly; own names our
// records that no list holds.
func (c *check) keys(ctx context.Context, prefix string, list []ReceiptFile, own ...string) error {
	have, err := c.e.listing(ctx, prefix, maxFiles*2)
	if err != nil {
		return err
	}
	for _, name := range own {
		delete(have, prefix+name)
	}
	for _, f := range list {
		o, ok := have[prefix+f.Path]
		delete(have, prefix+f.Path)
		switch {
		case !ok:
			c.add(ProblemMissing, prefix+f.Path, "in the receipt, not in the registry")
		case o.odd != "":
			c.add(ProblemExtra, prefix+f.Path, "it is %s", o.odd)
		case o.size != f.Size:
			c.add(ProblemSize, prefix+f.Path, "%d bytes, the receipt says %d", o.size, f.Size)
		case c.deep:
			if err := c.digest(ctx, prefix, f); err != nil {
				return err
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		c.add(ProblemExtra, key, "nobody published it")
	}
	return nil
}

// digest hashes one object.
func (c *check) digest(ctx context.Context, prefix string, f ReceiptFile) error {
	sum, _, err := c.e.hash(ctx, prefix+f.Path, func(int64) {})
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound) {
		c.add(ProblemDigest, prefix+f.Path, "%v", err)
		return nil
	}
	if err == nil && hexID(sum) != f.SHA256 {
		c.add(ProblemDigest, prefix+f.Path, "SHA-256 is %x, the receipt says %s", sum, f.SHA256)
	}
	return err
}

// chain judges every serial from the first to the last, two in memory at a
// time, and returns the entries of the last.
func (c *check) chain(ctx context.Context) ([]Entry, error) {
	last, err := c.catalogKeys(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.e.forward(last); err != nil {
		c.add(ProblemCatalog, catalogPrefix, "%v", err)
	}
	var prev head
	for n := int64(1); n <= last; n++ {
		cat, sum, err := c.e.catalog(ctx, n)
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound) {
			c.add(ProblemCatalog, serialKey(n), "%v", err)
			prev = head{}
			continue
		}
		if err != nil {
			return nil, err
		}
		c.link(prev, cat)
		prev = head{serial: n, sum: sum, entries: cat.Entries}
	}
	c.catalogued(prev.entries)
	return prev.entries, nil
}

// catalogKeys returns the highest serial and reports keys that are none.
func (c *check) catalogKeys(ctx context.Context) (last int64, err error) {
	err = c.e.st.list(ctx, catalogPrefix, func(o object) error {
		n, ok := parseSerialKey(o.key)
		if !ok {
			c.add(ProblemExtra, o.key, "not a serial of the catalogue")
		}
		last = max(last, n)
		return nil
	})
	return last, err
}

// link judges one step of the chain: the hash, and that entries only come.
func (c *check) link(prev head, cat *catalog) {
	if prev.serial != cat.Serial-1 {
		return // the predecessor itself was reported
	}
	if prev.sum != cat.Prev {
		c.add(ProblemCatalog, serialKey(cat.Serial), "prev is %q, serial %d has %q", cat.Prev, prev.serial, prev.sum)
	}
	next := make(map[Entry]bool, len(cat.Entries))
	for _, en := range cat.Entries {
		next[en] = true
	}
	for _, en := range prev.entries {
		if !next[en] {
			c.add(ProblemCatalog, serialKey(cat.Serial), "entry %s %s of serial %d is gone", en.Name, en.Release, prev.serial)
		}
	}
}

// catalogued compares the last catalogue with the visible releases, both ways.
func (c *check) catalogued(entries []Entry) {
	listed := make(map[string]bool, len(entries))
	for _, en := range entries {
		key := en.Name + "/" + en.Release
		listed[key] = true
		if got, ok := c.visible[key]; !ok {
			c.add(ProblemMissing, commitKey(en.Name, en.Release), "in the catalogue, but no good COMMIT; publish the release again")
		} else if got != en {
			c.add(ProblemCatalog, commitKey(en.Name, en.Release), "the catalogue says %+v, the receipt %+v", en, got)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.visible)) {
		if en := c.visible[key]; !listed[key] {
			c.add(ProblemUncatalogued, commitKey(en.Name, en.Release), "committed, not in the catalogue; Reconcile enters it")
		}
	}
}

// channels judges every channel: it points at the newest catalogued release of
// its stream, and every catalogued name has one.
func (c *check) channels(ctx context.Context, entries []Entry) error {
	var names []string
	err := c.e.st.list(ctx, channelsPrefix, func(o object) error {
		name := path.Base(path.Dir(o.key))
		if o.key != channelKey(name) || !validName(name) {
			c.add(ProblemExtra, o.key, "not a channel")
			return nil
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		return err
	}
	pointed := make(map[string]bool, len(names))
	for _, name := range names {
		pointed[name] = true
		if err := c.channel(ctx, name, entries); err != nil {
			return err
		}
	}
	for _, en := range entries {
		if !pointed[en.Name] {
			pointed[en.Name] = true
			c.add(ProblemChannel, channelKey(en.Name), "missing; Reconcile writes it")
		}
	}
	return nil
}

// channel judges one channel.
func (c *check) channel(ctx context.Context, name string, entries []Entry) error {
	ch, _, err := c.e.channel(ctx, name)
	if errors.Is(err, ErrCorrupt) {
		c.add(ProblemChannel, channelKey(name), "%v", err)
		return nil
	}
	if err != nil || ch == nil {
		return err
	}
	h := head{entries: entries}
	en := Entry{Name: name, Release: ch.Release, Stream: ch.Stream, Epoch: ch.Epoch, Seq: ch.Seq}
	if !h.has(en) {
		c.add(ProblemChannel, channelKey(name), "release %s is not in the catalogue", ch.Release)
	} else if o, found := h.newer(en); found {
		c.add(ProblemChannel, channelKey(name), "at epoch %d seq %d, the catalogue has epoch %d seq %d", en.Epoch, en.Seq, o.Epoch, o.Seq)
	}
	return nil
}

// leftovers reports what crashes left.
func (c *check) leftovers(ctx context.Context) error {
	list, err := c.e.st.leftovers(ctx)
	for _, key := range list {
		c.add(ProblemLeftover, key, "nothing uses it; Reconcile removes it unless a publisher is at work")
	}
	return err
}
