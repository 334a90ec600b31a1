// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/packer"
	"sluice/internal/receiver"
	"sluice/pkg/envelope"
	"sluice/pkg/fec"
)

// victimEnv makes this program a victim: the high side as a process that takes symbols from a sealed release instead of a socket. It
// has no key to open, so it is up at once, and everything behind the link is the real thing.
const victimEnv = "SLUICE_CERTIFY_VICTIM"

const (
	// victimGroups cuts the small payload into several spans: 192 symbols a group.
	victimGroups = 2
	// victimLoss loses every so many source symbols, and victimRows repair rows make up for them.
	victimLoss, victimRows = 97, 8
)

// order is what a victim is to do.
type order struct {
	Verb    string        // receive: to the end; spool: until every byte is here; step: one round of the stages; import
	Config  string        // file
	Release string        // directory
	Clock   time.Duration // how far the clock is ahead
}

// does is a victim with an order.
func (p *bed) does(verb string, ahead time.Duration) program {
	b, err := json.Marshal(order{verb, p.config(), p.specimen.dir, ahead})
	if err != nil {
		panic("certify: internal error: " + err.Error())
	}
	return program{argv: []string{p.self, verb, "(victim)"}, env: []string{victimEnv + "=" + string(b)}}
}

// victim carries out an order and returns the exit code.
func victim(text string) int {
	var o order
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		err = o.do(context.Background())
	}
	var refused *receiver.RefusedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &refused):
		fmt.Fprintln(os.Stderr, err)
		return 3
	default:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
}

func (o order) do(ctx context.Context) (err error) {
	cfg, err := receiver.LoadConfig(o.Config)
	if err != nil {
		return err
	}
	r, err := receiver.Open(ctx, cfg, receiver.Options{Now: func() time.Time { return time.Now().Add(o.Clock) }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if o.Verb == "import" {
		_, err := r.Import(ctx, o.Release, false)
		return err
	}
	if err := r.Resume(ctx); err != nil {
		return err
	}
	if o.Verb == "step" {
		return r.Step(ctx)
	}
	return o.receive(ctx, r)
}

// receive feeds the symbols, with the stages running beside unless the order ends with the spool.
func (o order) receive(ctx context.Context, r *receiver.Receiver) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ran := make(chan error, 1)
	if o.Verb == "receive" {
		go func() { ran <- r.Run(ctx) }()
	}
	env, err := packer.ReadEnvelope(o.Release)
	if err == nil {
		err = o.feedAndAwait(ctx, r, env, ran)
	}
	stop()
	if o.Verb == "receive" {
		select {
		case err2 := <-ran:
			err = errors.Join(err, err2)
		case <-time.After(pathology):
			err = errors.Join(err, errors.New("the receiver does not stop"))
		}
	}
	return err
}

func (o order) feedAndAwait(ctx context.Context, r *receiver.Receiver, env *envelope.Envelope, ran chan error) error {
	before, err := r.Journal().Get(env.ID.String())
	if err != nil && !errors.Is(err, journal.ErrNotFound) {
		return err
	}
	if err := o.feed(ctx, r, env); err != nil {
		return err
	}
	return o.await(r, env, before, ran)
}

// feed announces the release and stores its symbols as the link would.
func (o order) feed(ctx context.Context, r *receiver.Receiver, env *envelope.Envelope) error {
	payload, err := o.payload(env)
	if err != nil {
		return err
	}
	var stream bytes.Buffer
	if _, err := env.WriteTo(&stream); err != nil {
		return err
	}
	a := link.Announcement{Profile: link.Profile1500, Release: [32]byte(env.ID), PayloadSize: int64(len(payload)), Groups: victimGroups, Pass: 1}
	p, err := r.Envelope(ctx, a, bytes.NewReader(stream.Bytes()), int64(stream.Len()))
	if err != nil {
		return err
	}
	g, err := fec.New(int64(len(payload)), a.Profile.SymbolSize(), a.Groups)
	if err != nil {
		return err
	}
	enc, err := fec.NewEncoder(0, victimRows)
	if err != nil {
		return err
	}
	for sbn := range g.Spans() {
		if err := errors.Join(feedSpan(p, enc, g.Span(sbn), payload), p.Flush(ctx)); err != nil {
			return err
		}
	}
	return nil
}

func (o order) payload(env *envelope.Envelope) (all []byte, err error) {
	for _, s := range env.Statement.Subjects {
		b, err := os.ReadFile(filepath.Join(o.Release, "payload", filepath.FromSlash(s.Name)))
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}

// feedSpan stores a span's symbols but for one in victimLoss, then its repair symbols.
func feedSpan(p link.Payload, enc *fec.Encoder, s fec.Span, payload []byte) error {
	body := make([]byte, s.K*s.D*s.SymbolSize)
	from := s.Offset(0)
	copy(body, payload[from:min(int64(len(payload)), s.Offset(s.N))])
	for i := range s.N {
		if i%victimLoss == 5 {
			continue
		}
		if _, err := p.Put(uint32(s.SBN), uint32(i), body[i*s.SymbolSize:(i+1)*s.SymbolSize]); err != nil {
			return err
		}
	}
	width := s.D * s.SymbolSize
	source, repair := slices.Collect(slices.Chunk(body, width)), make([][]byte, victimRows)
	for i := range repair {
		repair[i] = make([]byte, width)
	}
	if err := enc.Encode(source, repair); err != nil {
		return err
	}
	for row, b := range repair {
		for d := range s.D {
			if _, err := p.Put(uint32(s.SBN), s.RepairESI(row, d), b[d*s.SymbolSize:(d+1)*s.SymbolSize]); err != nil {
				return err
			}
		}
	}
	return nil
}

// await waits until the release is as far as the order goes: every byte is here, or published and its spool copy freed. Where a daemon
// would wait and try again, a victim ends and says why.
func (o order) await(r *receiver.Receiver, env *envelope.Envelope, before journal.Job, ran chan error) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(pathology / 2)
	for {
		job, err := r.Journal().Get(env.ID.String())
		if err != nil || o.reached(job) {
			return err
		}
		if job.LastError != "" && job.Updated.After(before.Updated) {
			return fmt.Errorf("%s of release %.12s: %s", job.State, job.ID, job.LastError)
		}
		select {
		case err := <-ran:
			ran <- nil
			return errors.Join(err, fmt.Errorf("the receiver stopped with the release %s", job.State))
		case <-limit:
			return fmt.Errorf("the release is %s and stays so", job.State)
		case <-tick.C:
		}
	}
}

func (o order) reached(job journal.Job) bool {
	if o.Verb == "spool" {
		return job.State != "RECEIVING"
	}
	var data struct {
		Kept bool `json:"spool_kept"`
	}
	return job.State == "HELD" && job.NotBefore.After(job.Updated.Add(heldFor/2)) || job.State == "PUBLISHED" && json.Unmarshal(job.Data, &data) == nil && !data.Kept
}
