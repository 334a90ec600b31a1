// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/pkg/mofn"
)

// members are the flags that put something into a trust object.
type members struct {
	keys, links, receivers, tickets, heartbeats, logs, floors []string
}

// add names the flag of officers' and packers' keys: init has nothing to take away, so there it is --key.
func (m *members) add(c *cobra.Command, key string) {
	c.Flags().StringArrayVar(&m.keys, key, nil, "public key file of an officer or a packer; repeatable")
	c.Flags().StringArrayVar(&m.links, "link", nil, "public link key file; repeatable")
	c.Flags().StringArrayVar(&m.receivers, "receiver", nil, "NAME=FILE, a receiver id and its public hpke key file; repeatable")
	c.Flags().StringArrayVar(&m.tickets, "ticket", nil, "NAME=FILE, a receiver id and its public ticket key file, so that it may ask for what is missing; repeatable")
	c.Flags().StringArrayVar(&m.heartbeats, "heartbeat", nil, "public key file that signs snapshots, at the bastion; repeatable")
	c.Flags().StringArrayVar(&m.logs, "log", nil, "ORIGIN=FILE, an audit log (sluice/low/ID or sluice/high/ID) and its public key file; repeatable")
	c.Flags().StringArrayVar(&m.floors, "epoch", nil, "STREAM=EPOCH/SEQ: releases below are refused, whatever anybody signed; repeatable")
}

// into puts what the flags name into a trust object, in the order that the format wants. A receiver, a log or a floor that is there already
// is replaced.
func (m *members) into(t *mofn.Trust) error {
	for _, step := range []func(*mofn.Trust) error{m.intoKeys, m.intoReceivers, m.intoOnline, m.intoFloors} {
		if err := step(t); err != nil {
			return err
		}
	}
	return nil
}

func (m *members) intoKeys(t *mofn.Trust) error {
	for _, name := range m.keys {
		k, err := readPublic(name, mofn.SuiteH1, mofn.SuiteH2)
		if err != nil {
			return err
		}
		t.Keys = append(t.Keys, mofn.TrustKey{ID: k.id, Suite: k.suite, Public: k.public, Comment: k.comment})
	}
	for _, name := range m.links {
		k, err := readPublic(name, mofn.SuiteLink)
		if err != nil {
			return err
		}
		t.Links = append(t.Links, mofn.LinkKey{ID: k.id, Public: k.public, Comment: k.comment})
	}
	slices.SortFunc(t.Keys, byID)
	slices.SortFunc(t.Links, func(a, b mofn.LinkKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return nil
}

func byID(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) }

func (m *members) intoReceivers(t *mofn.Trust) error {
	for _, arg := range m.receivers {
		name, k, err := readNamed("--receiver", arg, mofn.SuiteXWing)
		if err != nil {
			return err
		}
		r := mofn.Receiver{Name: name, HPKE: k.public, Comment: k.comment}
		if at := receiverAt(t, name); at >= 0 { // another key of the same receiver; its ticket key stays
			r.Ticket = t.Receivers[at].Ticket
			t.Receivers[at] = r
			continue
		}
		t.Receivers = append(t.Receivers, r)
	}
	for _, arg := range m.tickets {
		name, k, err := readNamed("--ticket", arg, mofn.SuiteTicket)
		if err != nil {
			return err
		}
		at := receiverAt(t, name)
		if at < 0 {
			return fmt.Errorf("--ticket %s: there is no --receiver %s", arg, name)
		}
		t.Receivers[at].Ticket = k.public
	}
	slices.SortFunc(t.Receivers, func(a, b mofn.Receiver) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func receiverAt(t *mofn.Trust, name string) int {
	return slices.IndexFunc(t.Receivers, func(r mofn.Receiver) bool { return r.Name == name })
}

func (m *members) intoOnline(t *mofn.Trust) error {
	for _, name := range m.heartbeats {
		k, err := readPublic(name, mofn.SuiteH1, mofn.SuiteH2)
		if err != nil {
			return err
		}
		t.Heartbeats = append(t.Heartbeats, mofn.TrustKey{ID: k.id, Suite: k.suite, Public: k.public, Comment: k.comment})
	}
	slices.SortFunc(t.Heartbeats, byID)
	for _, arg := range m.logs {
		origin, k, err := readNamed("--log", arg, mofn.SuiteH1, mofn.SuiteH2)
		if err != nil {
			return err
		}
		t.Logs = slices.DeleteFunc(t.Logs, func(l mofn.LogKey) bool { return l.Origin == origin })
		t.Logs = append(t.Logs, mofn.LogKey{Origin: origin, ID: k.id, Suite: k.suite, Public: k.public, Comment: k.comment})
	}
	slices.SortFunc(t.Logs, func(a, b mofn.LogKey) int { return strings.Compare(a.Origin, b.Origin) })
	return nil
}

func (m *members) intoFloors(t *mofn.Trust) error {
	for _, arg := range m.floors {
		stream, place, ok := strings.Cut(arg, "=")
		epoch, seq, both := strings.Cut(place, "/")
		e, err := strconv.ParseInt(epoch, 10, 64)
		n, nerr := strconv.ParseInt(seq, 10, 64)
		if !ok || !both || cmp.Or(err, nerr) != nil {
			return fmt.Errorf("--epoch %q is not STREAM=EPOCH/SEQ", arg)
		}
		t.Epochs = slices.DeleteFunc(t.Epochs, func(f mofn.Epoch) bool { return f.Stream == stream })
		t.Epochs = append(t.Epochs, mofn.Epoch{Stream: stream, MinEpoch: e, MinSeq: n})
	}
	slices.SortFunc(t.Epochs, func(a, b mofn.Epoch) int { return strings.Compare(a.Stream, b.Stream) })
	return nil
}

// leavers are the flags that take something out.
type leavers struct {
	keys, receivers, logs, floors []string
}

func (l *leavers) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&l.keys, "remove-key", nil, "id of a key of an officer, a packer, a link or heartbeats, or its first 8 digits; repeatable")
	c.Flags().StringArrayVar(&l.receivers, "remove-receiver", nil, "receiver id; repeatable")
	c.Flags().StringArrayVar(&l.logs, "remove-log", nil, "origin of an audit log; repeatable")
	c.Flags().StringArrayVar(&l.floors, "remove-epoch", nil, "stream whose floor goes; old releases pass again; repeatable")
}

// from takes out what the flags name. What is not there exactly once is a mistake.
func (l *leavers) from(t *mofn.Trust) error {
	for _, id := range l.keys {
		if err := removeKey(t, id); err != nil {
			return err
		}
	}
	for _, name := range l.receivers {
		n := len(t.Receivers)
		if t.Receivers = slices.DeleteFunc(t.Receivers, func(r mofn.Receiver) bool { return r.Name == name }); len(t.Receivers) == n {
			return fmt.Errorf("--remove-receiver %s: there is none", name)
		}
	}
	for _, origin := range l.logs {
		n := len(t.Logs)
		if t.Logs = slices.DeleteFunc(t.Logs, func(k mofn.LogKey) bool { return k.Origin == origin }); len(t.Logs) == n {
			return fmt.Errorf("--remove-log %s: there is none", origin)
		}
	}
	for _, stream := range l.floors {
		n := len(t.Epochs)
		if t.Epochs = slices.DeleteFunc(t.Epochs, func(e mofn.Epoch) bool { return e.Stream == stream }); len(t.Epochs) == n {
			return fmt.Errorf("--remove-epoch %s: it has no floor", stream)
		}
	}
	return nil
}

func removeKey(t *mofn.Trust, begin string) error {
	if len(begin) < 8 {
		return fmt.Errorf("--remove-key %s: give 8 digits at least", begin)
	}
	hits := 0
	hit := func(id mofn.KeyID) bool {
		yes := strings.HasPrefix(id.String(), begin)
		if yes {
			hits++
		}
		return yes
	}
	t.Keys = slices.DeleteFunc(t.Keys, func(k mofn.TrustKey) bool { return hit(k.ID) })
	t.Links = slices.DeleteFunc(t.Links, func(k mofn.LinkKey) bool { return hit(k.ID) })
	t.Heartbeats = slices.DeleteFunc(t.Heartbeats, func(k mofn.TrustKey) bool { return hit(k.ID) })
	if hits != 1 {
		return fmt.Errorf("--remove-key %s: %d keys begin so, one is wanted", begin, hits)
	}
	return nil
}
