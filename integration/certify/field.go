// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"sluice/integration/lab"
	"sluice/internal/link"
	"sluice/pkg/envelope"
)

const (
	// port is the receiver's on the high side.
	port = 4710

	// patience is how long a row on sockets waits for what must come.
	patience = 2 * time.Minute

	// still is how long nothing must have changed for a pass to be over: longer than the receiver's own pauses.
	still = 3 * time.Second

	// fieldSettle is the sender's time between envelope and payload.
	fieldSettle = 300 * time.Millisecond
)

// field is a site with the real binaries, its two sides in two network namespaces with a one-way link between.
type field struct {
	lab.Site
	diode  *lab.Diode
	sealed map[int64]*release
	err    error // why there is none
}

// release is a sealed release.
type release struct {
	dir string
	env *envelope.Envelope
}

// ground returns the field, which the first row on sockets sets up. Where that cannot be done the error is errSkip.
func (c *certifier) ground(ctx context.Context) (*field, error) {
	if c.field == nil {
		c.field = &field{}
		c.field.err = c.field.setUp(ctx, c.bin, c.scratch)
	}
	return c.field, c.field.err
}

func (f *field) setUp(ctx context.Context, bin, scratch string) (err error) {
	if bin == "" {
		return fmt.Errorf("%w: no binaries were named (-bin)", errSkip)
	}
	f.diode, err = lab.NewDiode(ctx)
	if errors.Is(err, lab.ErrNoDiode) {
		return fmt.Errorf("%w: %w; it needs root, and nft, ip and sysctl", errSkip, err)
	}
	if err != nil {
		return err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	f.Site = lab.Site{Bin: bin, Dir: filepath.Join(scratch, "site")}
	f.sealed = make(map[int64]*release)
	if err := errors.Join(f.Setup(ctx), f.HighConfig(fmt.Sprintf("%s:%d", lab.DiodeHigh, port), "")); err != nil {
		return err
	}
	return f.defaultBuffer()
}

// defaultBuffer gives the receiver the socket buffer that it has by default: the lab's own is half of it.
func (f *field) defaultBuffer() error {
	config, err := os.ReadFile(f.Path("high.yaml"))
	if err != nil {
		return err
	}
	config = bytes.ReplaceAll(config, []byte(", receive_buffer: 32MiB"), nil)
	return os.WriteFile(f.Path("high.yaml"), config, 0o600)
}

// close takes the namespaces down. The directory is the certifier's.
func (f *field) close() error {
	if f == nil || f.diode == nil {
		return nil
	}
	return f.diode.Close(context.Background())
}

// release seals a release of a size, once.
func (f *field) release(ctx context.Context, size int64) (*release, error) {
	if r := f.sealed[size]; r != nil {
		return r, nil
	}
	n := len(f.sealed) + 1
	r := &release{dir: f.Path(fmt.Sprintf("release-%d", n))}
	err := lab.RandomFile(r.file(), size, uint64(n))
	if err != nil {
		return nil, err
	}
	if r.env, err = f.SealData(ctx, r.dir, "data/link", n, lab.Security()[:2]...); err != nil {
		return nil, err
	}
	f.sealed[size] = r
	return r, nil
}

func (r *release) file() string { return filepath.Join(r.dir, "payload", "data.safetensors") }

// bout is one transfer to a fresh receiver.
type bout struct {
	*field
	release *release
	high    *lab.Daemon
	begin   func(ctx context.Context) (*lab.Daemon, error) // starts the receiver
	rate    string
	profile []string // further options of the sender
}

// bout clears the high side and starts a receiver there, by default in its namespace with a socket of its own.
func (c *certifier) bout(ctx context.Context, size int64, rate string, play func(b *bout) (figures, error)) (measured figures, err error) {
	f, err := c.ground(ctx)
	if err != nil {
		return nil, err
	}
	// One datagram a packet: the faults must see each.
	b := &bout{field: f, rate: rate, begin: f.inHigh, profile: []string{"--gso", "off", "--settle", fieldSettle.String()}}
	if b.release, err = f.release(ctx, size); err != nil {
		return nil, err
	}
	if err := errors.Join(os.RemoveAll(f.Path("high")), os.RemoveAll(f.Path("registry")), f.diode.Fault(ctx, "")); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.high.Stop(patience)) }()
	return play(b)
}

func (f *field) inHigh(context.Context) (*lab.Daemon, error) {
	return f.Start("diode-receiver", nil, nil, "ip", "netns", "exec", f.diode.High, filepath.Join(f.Bin, "diode-receiver"), "run", "--config", f.Path("high.yaml"))
}

// up starts the receiver and waits until it answers.
func (b *bout) up(ctx context.Context) (err error) {
	if b.high, err = b.begin(ctx); err != nil {
		return err
	}
	return b.WaitUp(ctx, b.high, "high.sock")
}

// sending is a pass under way.
type sending struct {
	*lab.Daemon
	began time.Time
}

// pass starts to send a pass.
func (b *bout) pass(n int) (*sending, error) {
	args := b.SendArgs(b.release.dir, fmt.Sprintf("%s:%d", lab.DiodeHigh, port), b.rate, n)
	args = slices.Concat([]string{"netns", "exec", b.diode.Low, filepath.Join(b.Bin, "bastion-packer")}, args, b.profile)
	if err := os.RemoveAll(b.Path("send.log")); err != nil {
		return nil, err
	}
	d, err := b.Start("send", nil, nil, "ip", args...)
	return &sending{d, time.Now()}, err
}

var sealedLine = regexp.MustCompile(`release [0-9a-f]+: (\d+) datagrams`)

// end waits for the end of a pass and returns how many datagrams it sealed.
func (s *sending) end() (sealed uint64, err error) {
	if state := s.State(); !state.Success() {
		return 0, fmt.Errorf("send: %s: %s", state, s.Tail(8))
	}
	m := sealedLine.FindStringSubmatch(s.Tail(8))
	if m == nil {
		return 0, fmt.Errorf("the sender does not say what it sent: %s", s.Tail(8))
	}
	return strconv.ParseUint(m[1], 10, 64)
}

// until waits until a share of the source symbols is here.
func (b *bout) until(ctx context.Context, share float64) error {
	return lab.WaitFor(ctx, patience, fmt.Sprintf("%.0f %% received", 100*share), func() (bool, error) {
		r, err := b.Release(ctx, b.release.env.ID.String())
		return r != nil && (r.State != "RECEIVING" || r.Symbols > 0 && float64(r.Have) >= share*float64(r.Symbols)), errors.Join(err, b.high.Died())
	})
}

// settled waits until the receiver has made of a pass what can be made of it.
func (b *bout) settled(ctx context.Context) (complete bool, err error) {
	last, since := int64(-1), time.Now()
	err = lab.WaitFor(ctx, patience, "the end of the pass", func() (bool, error) {
		r, err := b.Release(ctx, b.release.env.ID.String())
		if err != nil || r == nil {
			return time.Since(since) > still, errors.Join(err, b.high.Died())
		}
		if complete = r.State != "RECEIVING"; r.Have != last {
			last, since = r.Have, time.Now()
		}
		return complete || time.Since(since) > still, nil
	})
	return complete, err
}

// published waits for the publication and compares what is published with what was sealed.
func (b *bout) published(ctx context.Context) error {
	id := b.release.env.ID.String()
	if err := b.WaitState(ctx, b.high, id, "PUBLISHED", patience); err != nil {
		return err
	}
	there, err1 := digest(b.Path("registry", "releases", b.release.env.Statement.Predicate.Name, "sha256-"+id, "data.safetensors"))
	here, err2 := digest(b.release.file())
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return want("SHA-256 of what is published", fmt.Sprintf("%x", there), fmt.Sprintf("%x", here))
}

func digest(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

// unheard is how many datagrams at the end of a session may be lost without the receiver knowing of them: nothing follows them.
const unheard = 16

// ledger returns the ledger of the newest session, with what was lost behind the last datagram heard, which the sender knows. Its sums
// must be right.
func (b *bout) ledger(ctx context.Context, sealed uint64) (s link.SessionStatus, err error) {
	began := time.Now()
	err = lab.WaitFor(ctx, patience, "the ledger", func() (bool, error) { // it is shown up to 50 ms late
		st, err := b.HighStatus(ctx)
		if err == nil && len(st.Sessions) > 0 {
			s = st.Sessions[len(st.Sessions)-1]
		}
		return s.Sent == sealed || time.Since(began) > time.Second, err
	})
	if err == nil && s.Sent+unheard < sealed {
		err = fmt.Errorf("the ledger knows of %d datagrams, %d were sealed", s.Sent, sealed)
	}
	err = errors.Join(err, want("sent, authentic and missing", s.Sent, s.Authentic+s.Missing))
	s.Missing, s.Sent = s.Missing+sealed-s.Sent, sealed
	return s, err
}
