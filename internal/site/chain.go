// SPDX-License-Identifier: Apache-2.0

package site

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"sluice/internal/bulletin"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Pending is a version that verified and is in quarantine.
type Pending struct {
	Version     int64     `json:"version"`
	Fingerprint string    `json:"fingerprint"`
	Arrived     time.Time `json:"arrived"`
	Effect      time.Time `json:"effect"` // when it takes effect, unless something stops it
}

// successor verifies the DSSE envelope of the version after the newest. It changes nothing.
func (s *Site) successor(data []byte) (version, error) {
	d, err := envelope.ParseDSSE(data, maxFile)
	if err != nil {
		return version{}, err
	}
	if d.PayloadType != trust.PayloadType {
		return version{}, fmt.Errorf("payload type %q is not %q: this is no trust object", d.PayloadType, trust.PayloadType)
	}
	newest := s.chain[len(s.chain)-1].store.Object
	if _, err := mofn.VerifyTrust(newest, d.Payload, signaturesOf(d), envelope.PAE(d.PayloadType, d.Payload)); err != nil {
		return version{}, err
	}
	store, err := trust.Parse(data)
	if err != nil {
		return version{}, err
	}
	return version{store, data}, nil
}

// AddTrust takes the DSSE envelope of a trust object into quarantine; Tick puts it into effect. One that is here already is no news.
// Errors: ErrFork, ErrGap, ErrChain, ErrFull, and those of the disk; it counts nothing then (CVE-2020-15163).
func (s *Site) AddTrust(data []byte, now time.Time) (news bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addTrust(data, now)
}

func (s *Site) addTrust(data []byte, now time.Time) (news bool, err error) {
	d, err := envelope.ParseDSSE(data, maxFile)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrChain, err)
	}
	known, n, err := s.place(d)
	if err != nil || known {
		return false, err
	}
	if n > len(s.chain)+1 {
		s.gap = max(s.gap, int64(n))
		return false, fmt.Errorf("%w: this is version %d, the newest here is %d", ErrGap, n, len(s.chain))
	}
	if size := s.chainSize() + len(data); n > bulletin.MaxTrust || size > maxChain {
		return false, fmt.Errorf("%w: a chain has at most %d versions and %d bytes, this would be %d and %d: begin a new one by hand", ErrFull, bulletin.MaxTrust, maxChain, n, size)
	}
	next, err := s.successor(data)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrChain, err)
	}
	if err := s.change(func() error {
		if err := s.write(s.dir, chainName(n), data, 0o600); err != nil {
			return err
		}
		s.state.Arrived[next.fingerprint()] = now.UTC().Round(0)
		s.chain = append(s.chain, next)
		s.floor(next.created())
		return s.save()
	}); err != nil {
		return false, err
	}
	if s.gap <= int64(len(s.chain)) {
		s.gap = 0
	}
	return true, nil
}

func (s *Site) chainSize() (size int) {
	for _, v := range s.chain {
		size += len(v.data)
	}
	return size
}

// place finds where a payload belongs: known says that this very payload is in the chain. n is its version by its own word, which nobody
// signed yet: it decides which refusal is given, and nothing else.
func (s *Site) place(d *envelope.DSSE) (known bool, n int, err error) {
	fp := mofn.Fingerprint(d.Payload)
	if i := slices.IndexFunc(s.chain, func(v version) bool { return v.store.Fingerprint == fp }); i >= 0 {
		return true, i + 1, nil
	}
	t, err := mofn.ParseTrust(d.Payload)
	if err != nil {
		return false, 0, fmt.Errorf("%w: %w", ErrChain, err)
	}
	if t.Version > int64(len(s.chain)) {
		return false, int(min(t.Version, bulletin.MaxTrust+1)), nil
	}
	return false, int(t.Version), s.contradiction(t.Version, d)
}

// contradiction tells a fork from what somebody without keys made up: another version 2 that the quorum did not sign is no fork.
func (s *Site) contradiction(v int64, d *envelope.DSSE) error {
	what := fmt.Errorf("version %d here is %s, this one is %x", v, s.chain[v-1].fingerprint(), mofn.Fingerprint(d.Payload))
	if v == 1 {
		return fmt.Errorf("%w: %w", ErrChain, what)
	}
	if _, err := mofn.VerifyTrust(s.chain[v-2].store.Object, d.Payload, signaturesOf(d), envelope.PAE(d.PayloadType, d.Payload)); err != nil {
		return fmt.Errorf("%w: %w: %w", ErrChain, what, err)
	}
	return fmt.Errorf("%w: %w", ErrFork, what)
}

// due reports whether the quarantine of the next version is over: each takes effect after the other.
func (s *Site) due(now time.Time) bool {
	return s.effect+1 < len(s.chain) && !now.Before(s.effectAt(s.effect+1))
}

func (s *Site) effectAt(i int) time.Time {
	return s.state.Arrived[s.chain[i].fingerprint()].Add(s.quarantine)
}

// Tick puts versions into effect whose quarantine is over. It gives them, oldest first.
func (s *Site) Tick(now time.Time) ([]*trust.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.activate(now)
}

func (s *Site) activate(now time.Time) (taken []*trust.Store, err error) {
	err = s.change(func() error {
		for s.due(now) {
			if _, stopped := s.standing.Everything(); stopped {
				break // a stop of everything overtakes a version in quarantine: that is what quarantine is for
			}
			s.effect++
			taken = append(taken, s.chain[s.effect].store)
			// Orders are accepted under the version in effect, so each version has its look at those that no key was known for.
			s.retry()
			if err := s.judge(); err != nil {
				return err
			}
		}
		if len(taken) == 0 {
			return nil
		}
		s.forget()
		return s.save()
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}

// Confirm ends the quarantine of the next version now: a person at this console compared its fingerprint with the paper record.
func (s *Site) Confirm(fingerprint string, now time.Time) (*trust.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.effect+1 == len(s.chain) {
		return nil, fmt.Errorf("%w: no version waits in quarantine", ErrChain)
	}
	next := s.chain[s.effect+1]
	if next.fingerprint() != fingerprint {
		return nil, fmt.Errorf("%w: the next version is %d with the fingerprint %s, not %q", ErrChain, next.store.Object.Version, next.fingerprint(), fingerprint)
	}
	err := s.change(func() error {
		s.state.Arrived[fingerprint] = now.UTC().Round(0).Add(-s.quarantine)
		taken, err := s.activate(now)
		if err == nil && len(taken) == 0 {
			return fmt.Errorf("%w: a stop of everything stands: nothing takes effect", ErrChain)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return next.store, nil
}

// Waiting gives the versions in quarantine.
func (s *Site) Waiting() []Pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Pending
	for i := s.effect + 1; i < len(s.chain); i++ {
		v := s.chain[i]
		out = append(out, Pending{
			Version: v.store.Object.Version, Fingerprint: v.fingerprint(), Arrived: s.state.Arrived[v.fingerprint()], Effect: s.effectAt(i),
		})
	}
	return out
}

// Gap is the version that was seen, or that a snapshot names, and cannot be taken because one before it is missing; 0: none.
func (s *Site) Gap() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snapshot != nil && s.snapshot.Trust.Version > int64(len(s.chain)) {
		return max(s.gap, s.snapshot.Trust.Version)
	}
	return s.gap
}

// addChain takes the whole chain of a bulletin.
func (s *Site) addChain(chain [][]byte, now time.Time) (news []*trust.Store, err error) {
	if len(chain) == 0 {
		return nil, fmt.Errorf("%w: there is none", ErrChain)
	}
	first, err := envelope.ParseDSSE(chain[0], maxFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChain, err)
	}
	if fp := mofn.Fingerprint(first.Payload); !bytes.Equal(fp[:], s.chain[0].store.Fingerprint[:]) {
		return nil, fmt.Errorf("%w: the chain begins with %x, this site was given %s by hand: it is another site's", ErrChain, fp, s.Root())
	}
	for _, data := range chain[1:] {
		added, err := s.addTrust(data, now)
		if err != nil {
			return news, err
		}
		if added {
			news = append(news, s.chain[len(s.chain)-1].store)
		}
	}
	return news, nil
}
