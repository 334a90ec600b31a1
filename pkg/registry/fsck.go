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

	records    map[string]*Withdrawal // by name/id: every record of a withdrawal, nil when it cannot be read
	introduced map[string]int64       // by name/id: the serial that brought the entry, 0 when a broken chain hides it
}

// Fsck implements Publisher.
func (e *engine) Fsck(ctx context.Context, deep bool, report func(Problem)) error {
	c := &check{e: e, deep: deep, report: report, visible: make(map[string]Entry), introduced: make(map[string]int64)}
	if err := c.readRecords(ctx); err != nil {
		return err
	}
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
	c.withdrawals(entries)
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
	return e.judge(ctx, name, hexID(id))
}

// judge is Verify for a release that may be withdrawn.
func (e *engine) judge(ctx context.Context, name, id string) error {
	var found []error
	c := &check{e: e, deep: true, visible: make(map[string]Entry), report: func(p Problem) {
		if len(found) < maxFindings {
			found = append(found, fmt.Errorf("%w: %s: %s: %s", ErrCorrupt, p.Kind, p.Key, p.Detail))
		}
	}}
	if err := c.release(ctx, name, id); err != nil {
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

// release judges one prefix. What was revoked has no files, and all the rest.
func (c *check) release(ctx context.Context, name, id string) error {
	w := c.records[name+"/"+id]
	revoked := w != nil && w.Final
	if revoked {
		if err := c.exposed(ctx, releasePrefix(name, id)); err != nil {
			return err
		}
	}
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
	if !revoked {
		if err := c.keys(ctx, releasePrefix(name, id), p.Receipt.Files); err != nil {
			return err
		}
	}
	if err := c.keys(ctx, provPrefix(name, id), p.Receipt.Provenance, receiptName, commitName); err != nil {
		return err
	}
	c.visible[name+"/"+id] = p.Receipt.entry()
	return nil
}

// exposed reports the files of a revoked release.
func (c *check) exposed(ctx context.Context, prefix string) error {
	n := 0
	err := c.e.st.list(ctx, prefix, func(object) error { n++; return nil })
	if err == nil && n > 0 {
		c.add(ProblemExposed, prefix, "%d keys of a release that is revoked; Reconcile takes them away", n)
	}
	return err
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
		c.introduce(prev, cat)
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
	next := make(map[Entry]string, len(cat.Entries))
	for _, en := range cat.Entries {
		next[en.unmarked()] = en.Withdrawn
	}
	for _, en := range prev.entries {
		mark, there := next[en.unmarked()]
		if !there {
			c.add(ProblemCatalog, serialKey(cat.Serial), "entry %s %s of serial %d is gone", en.Name, en.Release, prev.serial)
		} else if en.Withdrawn == markRevoked && mark != markRevoked {
			c.add(ProblemCatalog, serialKey(cat.Serial), "entry %s %s of serial %d is revoked, here it is not", en.Name, en.Release, prev.serial)
		}
	}
}

// introduce notes which serial brought which entry. After a serial that cannot
// be read nobody knows.
func (c *check) introduce(prev head, cat *catalog) {
	for _, en := range cat.Entries {
		key := en.Name + "/" + en.Release
		if _, known := c.introduced[key]; known {
			continue
		}
		c.introduced[key] = 0
		if prev.serial == cat.Serial-1 {
			c.introduced[key] = cat.Serial
		}
	}
}

// unmarked is what a later serial may not change.
func (e Entry) unmarked() Entry {
	e.Withdrawn = ""
	return e
}

// catalogued compares the last catalogue with the visible releases, both ways.
func (c *check) catalogued(entries []Entry) {
	listed := make(map[string]bool, len(entries))
	for _, en := range entries {
		key := en.Name + "/" + en.Release
		listed[key] = true
		if got, ok := c.visible[key]; !ok {
			c.add(ProblemMissing, commitKey(en.Name, en.Release), "in the catalogue, but no good COMMIT; publish the release again")
		} else if got != en.unmarked() {
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
		if !pointed[en.Name] && en.Withdrawn == "" {
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
	if why := c.misplaced(ch, &head{entries: entries}); why != "" {
		c.add(ProblemChannel, channelKey(name), "%s; Reconcile writes it", why)
	}
	return nil
}

// misplaced says why a channel is not where the catalogue puts it, or nothing.
func (c *check) misplaced(ch *channel, h *head) string {
	lines := h.lines(ch.Name)
	i := h.find(ch.Name, ch.Release)
	switch {
	case ch.Release == "" && len(lines) > 0:
		return "it says that every release is withdrawn, the catalogue has " + lines[0].newest.Release
	case ch.Release == "":
		return ""
	case i < 0:
		return fmt.Sprintf("release %s is not in the catalogue", ch.Release)
	case h.entries[i].Withdrawn != "":
		return fmt.Sprintf("release %s is %s", ch.Release, h.entries[i].Withdrawn)
	case h.entries[i].Stream != ch.Stream || h.entries[i].Epoch != ch.Epoch || h.entries[i].Seq != ch.Seq:
		return fmt.Sprintf("release %s has another stream, epoch or seq in the catalogue", ch.Release)
	}
	return c.behind(h.entries[i], h, lines)
}

// behind judges a channel at a release without a mark.
func (c *check) behind(en Entry, h *head, lines []line) string {
	for _, o := range h.entries {
		if o.Name == en.Name && o.Stream == en.Stream && o.Release != en.Release && o.Withdrawn == "" && order(en, o) <= 0 {
			return fmt.Sprintf("at epoch %d seq %d, the catalogue has epoch %d seq %d (release %s)", en.Epoch, en.Seq, o.Epoch, o.Seq, o.Release)
		}
	}
	unknown := false
	want, _, _ := target(lines, func(o Entry) (int64, error) {
		serial := c.introduced[o.Name+"/"+o.Release]
		unknown = unknown || serial == 0
		return serial, nil
	})
	if !unknown && want.Stream != en.Stream {
		return fmt.Sprintf("in stream %s, the last one of the name is %s", en.Stream, want.Stream)
	}
	return ""
}

// readRecords reads every record of a withdrawal, and reports what is none.
func (c *check) readRecords(ctx context.Context) error {
	c.records = make(map[string]*Withdrawal)
	return c.e.records(ctx, func(name, id string, w *Withdrawal, why error) error {
		c.records[name+"/"+id] = w
		if w == nil {
			c.add(ProblemWithdrawal, withdrawalKey(name, id), "%v; readers take the release as withdrawn", why)
		}
		return nil
	}, func(key string) { c.add(ProblemExtra, key, "not the record of a withdrawal") })
}

// withdrawals holds the records against the marks of the last catalogue, both ways.
func (c *check) withdrawals(entries []Entry) {
	marks := make(map[string]string, len(entries))
	for _, en := range entries {
		key := en.Name + "/" + en.Release
		marks[key] = en.Withdrawn
		if _, there := c.records[key]; !there && en.Withdrawn != "" {
			c.add(ProblemWithdrawal, withdrawalKey(en.Name, en.Release), "missing, and the catalogue says %s; withdraw the release again", en.Withdrawn)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.records)) {
		w := c.records[key]
		if w == nil {
			continue
		}
		mark, listed := marks[key]
		_, visible := c.visible[key]
		switch {
		case !listed && !visible:
			c.add(ProblemWithdrawal, withdrawalKey(w.Name, w.Release), "of a release that nobody published")
		case listed && mark == markRevoked && !w.Final:
			c.add(ProblemWithdrawal, withdrawalKey(w.Name, w.Release), "the catalogue says revoked, this does not; find out who changed it")
		case listed && mark != w.mark():
			c.add(ProblemUncatalogued, withdrawalKey(w.Name, w.Release), "it says %q, the catalogue %q; Reconcile enters it", w.mark(), mark)
		}
	}
}

// leftovers reports what crashes left.
func (c *check) leftovers(ctx context.Context) error {
	list, err := c.e.st.leftovers(ctx)
	for _, key := range list {
		c.add(ProblemLeftover, key, "nothing uses it; Reconcile removes it unless a publisher is at work")
	}
	return err
}
