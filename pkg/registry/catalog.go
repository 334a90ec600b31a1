// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// head is the newest catalogue. Serial 0 is the empty registry.
type head struct {
	serial  int64
	sum     string // SHA-256 of its bytes, "" at serial 0
	entries []Entry
}

// List implements Publisher.
func (e *engine) List(ctx context.Context) ([]Entry, error) {
	seen, _, err := e.split(ctx)
	return seen, err
}

// head finds and reads the newest catalogue, and checks that it follows from
// its predecessor, that no serial is missing, and that this process has not
// seen a higher one: the catalogue never goes back.
func (e *engine) head(ctx context.Context) (*head, error) {
	last, count, err := e.serials(ctx)
	if err != nil {
		return nil, err
	}
	if count != last {
		return nil, fmt.Errorf("list %s: %w", catalogPrefix, corruptf("%d serials up to %d: one is missing", count, last))
	}
	if err := e.forward(last); err != nil {
		return nil, err
	}
	if last == 0 {
		return &head{}, nil
	}
	c, sum, err := e.catalog(ctx, last)
	if err != nil {
		return nil, err
	}
	if last > 1 {
		_, prev, err := e.catalog(ctx, last-1)
		if err != nil {
			return nil, err
		}
		if prev != c.Prev {
			return nil, fmt.Errorf("%s: %w", serialKey(last), corruptf("prev is %s, serial %d has %s", c.Prev, last-1, prev))
		}
	}
	return &head{serial: last, sum: sum, entries: c.Entries}, nil
}

// serials returns the highest serial and how many there are. Keys that are no
// serial are Fsck's business.
func (e *engine) serials(ctx context.Context) (last, count int64, err error) {
	err = e.st.list(ctx, catalogPrefix, func(o object) error {
		if n, ok := parseSerialKey(o.key); ok {
			last = max(last, n)
			count++
		}
		return nil
	})
	return last, count, err
}

// forward notes serial and refuses one lower than a serial seen before.
func (e *engine) forward(serial int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if serial < e.seen {
		return fmt.Errorf("list %s: %w", catalogPrefix, corruptf("newest serial is %d, it was %d before", serial, e.seen))
	}
	e.seen = serial
	return nil
}

// catalog reads serial n and returns it with the digest of its bytes.
func (e *engine) catalog(ctx context.Context, n int64) (*catalog, string, error) {
	key := serialKey(n)
	data, _, err := e.readSmall(ctx, key, maxCatalog)
	if err != nil {
		return nil, "", err
	}
	c, err := parseCatalog(data, n)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", key, err)
	}
	sum := sha256.Sum256(data)
	return c, hex.EncodeToString(sum[:]), nil
}

// has says whether the release is catalogued under this name.
func (h *head) has(en Entry) bool {
	return h.find(en.Name, en.Release) >= 0
}

// find is the place of a release in the catalogue, or -1.
func (h *head) find(name, id string) int {
	return slices.IndexFunc(h.entries, func(o Entry) bool { return o.Name == name && o.Release == id })
}

// newer returns an entry of the same name and stream, another release, that en
// is not newer than. What was withdrawn keeps its place.
func (h *head) newer(en Entry) (Entry, bool) {
	i := slices.IndexFunc(h.entries, func(o Entry) bool {
		return o.Name == en.Name && o.Stream == en.Stream && o.Release != en.Release && order(en, o) <= 0
	})
	if i < 0 {
		return Entry{}, false
	}
	return h.entries[i], true
}

// order compares (epoch, seq).
func order(a, b Entry) int { return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq)) }

// refuseRollback refuses, before anything is written, a release that is not
// newer than all others of its name and stream. One that is catalogued already
// was once accepted, and may be completed.
func (e *engine) refuseRollback(ctx context.Context, en Entry) error {
	h, err := e.head(ctx)
	if err != nil || h.has(en) {
		return err
	}
	if o, found := h.newer(en); found {
		return fmt.Errorf("%w: %s stream %s is at epoch %d seq %d (release %s), this is epoch %d seq %d",
			ErrRollback, en.Name, en.Stream, o.Epoch, o.Seq, o.Release, en.Epoch, en.Seq)
	}
	return nil
}

// refuseMarked refuses a release that the catalogue says is withdrawn, and whose
// record does not say so any more: taking a record away, or changing one that
// is for good, gives nothing back.
func (e *engine) refuseMarked(ctx context.Context, en Entry) error {
	h, err := e.head(ctx)
	if err != nil {
		return err
	}
	i := h.find(en.Name, en.Release)
	if i < 0 || h.entries[i].Withdrawn == "" {
		return nil
	}
	w, _, err := e.withdrawal(ctx, en.Name, en.Release)
	if err != nil || w != nil && h.entries[i].Withdrawn != markRevoked {
		return err // suspended, and being given back
	}
	return fmt.Errorf("%w: %s %s is %s in the catalogue, and %s does not say so; find out who changed it, then withdraw it again",
		ErrWithdrawn, en.Name, en.Release, h.entries[i].Withdrawn, withdrawalKey(en.Name, en.Release))
}

// announce enters a committed release into the catalogue and moves its channel.
func (e *engine) announce(ctx context.Context, en Entry) error {
	if err := e.enter(ctx, en.Name, en.Release, en.Release, &en); err != nil {
		return err
	}
	return e.point(ctx, en.Name)
}

// enter writes the serial in which the release has an entry with the mark that
// its record asks for, if there is none yet. fresh is the entry when it has
// none; nil: it gets none. Losing the race for a serial means that somebody
// else made progress. After a serial the record is read again: what it said
// before may have been overtaken, and the last to write makes both agree.
func (e *engine) enter(ctx context.Context, name, id, stage string, fresh *Entry) error {
	for {
		w, _, err := e.withdrawal(ctx, name, id)
		if err != nil {
			return err
		}
		h, err := e.head(ctx)
		if err != nil {
			return err
		}
		entries, err := h.with(name, id, fresh, w)
		if err != nil || entries == nil {
			return err
		}
		err = e.append(ctx, h, stage, entries)
		if err != nil && !errors.Is(err, errExists) {
			return err
		}
	}
}

// with returns the entries in which the release is as its record w says; nil
// when they are that already.
func (h *head) with(name, id string, fresh *Entry, w *Withdrawal) ([]Entry, error) {
	i := h.find(name, id)
	if i < 0 && fresh == nil {
		return nil, nil
	}
	entries := slices.Clone(h.entries)
	if i < 0 {
		entries = append(entries, *fresh)
		slices.SortFunc(entries, compareEntries)
	}
	at := (&head{entries: entries}).find(name, id)
	en := &entries[at]
	mark := en.Withdrawn
	if w != nil {
		mark = w.mark()
	}
	switch {
	case i >= 0 && mark == en.Withdrawn:
		return nil, nil
	case en.Withdrawn == markRevoked:
		return nil, fmt.Errorf("%s: %w", withdrawalKey(name, id), corruptf("the catalogue says revoked, this does not; find out who changed it"))
	}
	en.Withdrawn = mark
	return entries, nil
}

// append writes the serial after h; errExists when somebody was faster.
func (e *engine) append(ctx context.Context, h *head, stage string, entries []Entry) error {
	next := catalog{Type: typeCatalog, Serial: h.serial + 1, Prev: h.sum, Entries: entries}
	data, err := encode(next)
	if err != nil {
		return err
	}
	if len(data) > maxCatalog {
		return fmt.Errorf("%w: the catalogue would have %d bytes, limit %d", ErrNoSpace, len(data), maxCatalog)
	}
	return e.putBytes(ctx, serialKey(next.Serial), stage, data)
}

// point writes the channel of name as it follows from the catalogue, if it is
// not that already. The channel is read first, so what is written over it comes
// from a catalogue that is not older than its own; and after a write both are
// read again, because the catalogue may have gone on while the channel was
// right for it and so was not touched.
func (e *engine) point(ctx context.Context, name string) error {
	for {
		now, tag, err := e.channel(ctx, name)
		if err != nil {
			return err
		}
		h, err := e.head(ctx)
		if err != nil {
			return err
		}
		next, err := e.follows(ctx, h, name, now)
		if err != nil || next == nil {
			return err
		}
		data, err := encode(next)
		if err != nil {
			return err
		}
		err = e.st.swap(ctx, channelKey(name), tag, data)
		if err != nil && !errors.Is(err, errExists) {
			return err
		}
	}
}

// follows is the channel of name that follows from the catalogue; nil when now
// is that.
func (e *engine) follows(ctx context.Context, h *head, name string, now *channel) (*channel, error) {
	introduced := func(en Entry) (int64, error) { return e.introduced(ctx, h.serial, en) }
	en, found, err := target(h.lines(name), introduced)
	if err != nil {
		return nil, err
	}
	if !found && (now == nil || now.Release == "") || found && now != nil && now.Release == en.Release {
		return nil, nil
	}
	next := &channel{Type: typeChannel, Name: name, Release: en.Release, Stream: en.Stream, Epoch: en.Epoch, Seq: en.Seq}
	if found {
		next.Serial, err = introduced(en)
	}
	return next, err
}

// line is one stream of a name that has a release without a mark.
type line struct {
	top    Entry // the highest (epoch, seq), withdrawn or not
	newest Entry // the highest (epoch, seq) without a mark
}

// lines are the streams of name that a channel may follow. Entries are sorted.
func (h *head) lines(name string) []line {
	var list []line
	var now line
	flush := func() {
		if now.newest.Release != "" {
			list = append(list, now)
		}
	}
	for _, en := range h.entries {
		if en.Name != name {
			continue
		}
		if en.Stream != now.top.Stream {
			flush()
			now = line{}
		}
		now.top = en
		if en.Withdrawn == "" {
			now.newest = en
		}
	}
	flush()
	return list
}

// target chooses the entry that the channel is at: within a stream (epoch, seq)
// decides; streams do not compare, and the one whose top came last wins. A
// withdrawal does not make the name go back to another stream while its own has
// a release left.
func target(lines []line, introduced func(Entry) (int64, error)) (en Entry, found bool, err error) {
	if len(lines) == 1 { // as a rule: no need to search for serials
		return lines[0].newest, true, nil
	}
	last := int64(0)
	for _, l := range lines {
		serial, err := introduced(l.top)
		if err != nil {
			return Entry{}, false, err
		}
		if serial > last {
			last, en, found = serial, l.newest, true
		}
	}
	return en, found, nil
}

// channel reads a channel and its tag; nil and "" when there is none.
func (e *engine) channel(ctx context.Context, name string) (*channel, string, error) {
	key := channelKey(name)
	data, obj, err := e.readSmall(ctx, key, maxSmallJSON)
	if errors.Is(err, ErrNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	c, err := parseChannel(data)
	if err == nil && c.Name != name {
		err = corruptf("it is for %s", c.Name)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", key, err)
	}
	return c, obj.tag, nil
}

// introduced finds the serial that brought the entry in. Entries never leave,
// so a binary search over the serials finds it.
func (e *engine) introduced(ctx context.Context, last int64, en Entry) (int64, error) {
	var failed error
	i := sort.Search(int(last-1), func(i int) bool {
		if failed != nil {
			return true
		}
		c, _, err := e.catalog(ctx, int64(i)+1)
		if err != nil {
			failed = err
			return true
		}
		return (&head{entries: c.Entries}).has(en)
	})
	return int64(i) + 1, failed
}
