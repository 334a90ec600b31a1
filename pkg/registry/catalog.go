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
	h, err := e.head(ctx)
	if err != nil {
		return nil, err
	}
	return h.entries, nil
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
	return slices.ContainsFunc(h.entries, func(o Entry) bool { return o.Name == en.Name && o.Release == en.Release })
}

// newer returns an entry of the same name and stream, another release, that en
// is not newer than.
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

// announce enters a committed release into the catalogue and moves its channel.
func (e *engine) announce(ctx context.Context, en Entry) error {
	h, err := e.enter(ctx, en)
	if err != nil {
		return err
	}
	return e.point(ctx, h, en)
}

// enter appends the entry as serial n+1 and returns the catalogue that has it.
// Losing the race for a serial means that somebody else made progress.
func (e *engine) enter(ctx context.Context, en Entry) (*head, error) {
	for {
		h, err := e.head(ctx)
		if err != nil || h.has(en) {
			return h, err
		}
		next := catalog{Type: typeCatalog, Serial: h.serial + 1, Prev: h.sum, Entries: append(slices.Clone(h.entries), en)}
		slices.SortFunc(next.Entries, compareEntries)
		data, err := encode(next)
		if err != nil {
			return nil, err
		}
		if len(data) > maxCatalog {
			return nil, fmt.Errorf("%w: the catalogue would have %d bytes, limit %d", ErrNoSpace, len(data), maxCatalog)
		}
		err = e.putBytes(ctx, serialKey(next.Serial), en.Release, data)
		if err != nil && !errors.Is(err, errExists) {
			return nil, err
		}
	}
}

// point moves the channel of the entry's name to it, if it is newer than what
// the channel says.
func (e *engine) point(ctx context.Context, h *head, en Entry) error {
	if _, superseded := h.newer(en); superseded {
		return nil
	}
	for {
		now, tag, err := e.channel(ctx, en.Name)
		if err != nil {
			return err
		}
		if now != nil && now.Stream == en.Stream && !moves(now, en, 0) {
			return nil // the usual second call: no need to search for the serial
		}
		serial, err := e.introduced(ctx, h.serial, en)
		if err != nil || !moves(now, en, serial) {
			return err
		}
		data, err := encode(channel{
			Type: typeChannel, Name: en.Name, Release: en.Release, Stream: en.Stream,
			Epoch: en.Epoch, Seq: en.Seq, Serial: serial,
		})
		if err != nil {
			return err
		}
		err = e.st.swap(ctx, channelKey(en.Name), tag, data)
		if !errors.Is(err, errExists) {
			return err
		}
	}
}

// moves says whether the channel goes from now (nil: none) to en, which serial
// introduced. Within a stream (epoch, seq) decides; between streams they do not
// compare, and the later serial wins.
func moves(now *channel, en Entry, serial int64) bool {
	switch {
	case now == nil:
		return true
	case now.Stream == en.Stream:
		return order(en, Entry{Epoch: now.Epoch, Seq: now.Seq}) > 0
	default:
		return serial > now.Serial
	}
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
