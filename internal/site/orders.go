// SPDX-License-Identifier: Apache-2.0

package site

import (
	"errors"
	"fmt"
	"time"

	"sluice/internal/bulletin"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// verifyOrder checks an order under a version of the trust object.
func (s *Site) verifyOrder(data []byte, under int64) (mofn.SignedOrder, error) {
	d, err := envelope.ParseDSSE(data, maxFile)
	if err != nil {
		return mofn.SignedOrder{}, err
	}
	v := s.chain[under-1].store
	o, err := v.Policy.VerifyOrder(s.Root(), d.Payload, signaturesOf(d), envelope.PAE(d.PayloadType, d.Payload))
	o.Under = under
	return o, err
}

// AddOrder takes an order. One whose key is not enrolled is kept, for the next trust object may enrol it, and counts nothing; one that is
// here already is no news. It gives the order as it was accepted; zero when it was not. Errors: mofn.ErrOrder, ErrFull, bulletin.ErrFormat, and those of the disk.
func (s *Site) AddOrder(data []byte) (accepted mofn.SignedOrder, news bool, err error) {
	o, err := bulletin.NewOrder(data)
	if err != nil {
		return accepted, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.change(func() (err error) {
		if accepted, news, err = s.addOrder(o); err != nil || !news {
			return err
		}
		return s.settle()
	})
	if err != nil {
		return mofn.SignedOrder{}, false, err
	}
	return accepted, news, nil
}

// settle writes down which orders were accepted, and computes what stands.
func (s *Site) settle() error {
	if err := s.judge(); err != nil {
		return err
	}
	s.forget()
	return s.save()
}

// addOrder keeps an order. The caller settles.
func (s *Site) addOrder(o bulletin.Order) (accepted mofn.SignedOrder, news bool, err error) {
	have, known := s.orders[o.ID]
	if have.accepted() {
		return have.signed, false, nil
	}
	signed, err := s.verifyOrder(o.Data, int64(s.effect+1))
	unknown := errors.Is(err, mofn.ErrUnknownSigner)
	if err != nil && !unknown {
		return accepted, false, err
	}
	// The id says nothing of the signature: somebody may have been here first with the officer's words and a key of their own. What
	// verifies takes the place of what does not.
	if unknown && known {
		return accepted, false, nil
	}
	if err := s.room(unknown); err != nil && !known {
		return accepted, false, err
	}
	if err := s.write(s.dir, ordersDir+"/"+o.ID+".json", o.Data, 0o600); err != nil {
		return accepted, false, err
	}
	if unknown {
		s.orders[o.ID] = order{data: o.Data}
		return accepted, true, nil
	}
	s.accept(o.Data, signed)
	return signed, true, nil
}

func (s *Site) accept(data []byte, signed mofn.SignedOrder) {
	s.orders[signed.ID] = order{data: data, signed: signed}
	s.state.Under[signed.ID] = signed.Under
}

// maxUnknown is how many orders by unknown keys are kept: anybody can make them.
const maxUnknown = 64

// room keeps strangers from filling the place of officers.
func (s *Site) room(unknown bool) error {
	strangers := 0
	for _, o := range s.orders {
		if !o.accepted() {
			strangers++
		}
	}
	if unknown && strangers >= maxUnknown {
		return fmt.Errorf("%w: %d orders by keys that nobody enrolled are here already", ErrFull, strangers)
	}
	if len(s.orders)-strangers >= bulletin.MaxOrders-maxUnknown {
		return fmt.Errorf("%w: %d orders are here already; a new chain of trust begins without them", ErrFull, len(s.orders))
	}
	return nil
}

// retry looks at the orders of unknown keys again, under the version that takes effect. One that does not verify even now is left alone.
// The caller judges and saves.
func (s *Site) retry() {
	for _, o := range s.orders {
		if o.accepted() {
			continue
		}
		if signed, err := s.verifyOrder(o.data, int64(s.effect+1)); err == nil {
			s.accept(o.data, signed)
		}
	}
}

// judge computes anew what stands.
func (s *Site) judge() error {
	var signed []mofn.SignedOrder
	for _, o := range s.orders {
		if o.accepted() {
			signed = append(signed, o.signed)
		}
	}
	rulers := make([]mofn.Ruler, s.effect+1)
	for i := range rulers {
		st := s.chain[i].store
		rulers[i] = mofn.Ruler{Version: st.Object.Version, Policy: st.Policy, Root: st.Object.Root}
	}
	standing, err := mofn.Judge(rulers[s.effect], rulers[:s.effect], signed)
	if err != nil {
		return err
	}
	s.standing = standing
	return nil
}

// Heard notes a time that a quorum vouches for, as the earliest approval of a release that was accepted: no true clock shows less. One
// officer's word is not enough: a floor never sinks, and a single date far ahead would make every release expire.
func (s *Site) Heard(at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !at.After(s.state.Floor) {
		return nil
	}
	return s.change(func() error {
		s.floor(at.UTC().Round(0))
		return s.save()
	})
}

// Account is what a log has to say of a site: every version, which is in effect, and the orders that were accepted.
type Account struct {
	Versions []*trust.Store
	Effect   int
	Orders   []mofn.SignedOrder
}

// Account gives what is known now. Whoever writes a log holds it against what was told, also after a crash.
func (s *Site) Account() Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := Account{Effect: s.effect + 1}
	for _, v := range s.chain {
		a.Versions = append(a.Versions, v.store)
	}
	for _, o := range s.orders {
		if o.accepted() {
			a.Orders = append(a.Orders, o.signed)
		}
	}
	return a
}
