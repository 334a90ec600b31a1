// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"sluice/pkg/fec"
)

const (
	// defaultSpan is the span of section 4 unless Groups is set: an outage of
	// 13 MiB costs no group more than 10 symbols of 192.
	defaultSpan = 256 << 20

	// settlePerFile is what a receiver is given to make and to reserve one file.
	// Chosen, not measured a file: with it 20,000 files crossed in one pass on a
	// busy machine, where without it what was sent meanwhile came too early.
	settlePerFile = 200 * time.Microsecond

	// settleBase and settleBytesPerSecond make the default settling time: what a
	// slow receiver needs to verify an envelope and to reserve space.
	settleBase           = time.Second
	settleBytesPerSecond = 16 << 20

	// sessionReserve is what is left of a session's counters for the heartbeats
	// that close it: a session never comes near the limit of section 1.
	sessionReserve = 1 << 16
)

// Errors of the sender.
var (
	// ErrConfig says that a SenderConfig, a ReceiverConfig or a Transfer makes no sense.
	ErrConfig = errors.New("link: bad configuration")
	// ErrBusy says that the sender already sends: one link, one stream.
	ErrBusy = errors.New("link: sender is busy")
)

// SenderConfig configures a Sender.
type SenderConfig struct {
	// Lanes carry a pass together, each as a session of its own: one to MaxLanes,
	// all with a rate or all without.
	Lanes   []Lane
	Profile Profile
	Groups  int // G; 0: the default of section 4, a span of 256 MiB
	Repair  int // repair rows a pass, 0..64, for a Transfer that names none

	// Settle is the time between the envelope and the payload; 0: one second, what
	// 16 MiB/s need for the envelope, and 200 us for each file.
	Settle time.Duration

	LinkKey     ed25519.PrivateKey
	ReceiverKey []byte // X-Wing public key, 1216 bytes

	Logger   *zap.Logger        // may be nil
	Progress func(SendProgress) // may be nil; called during Send and Idle, four times a second for each lane, one call at a time
}

// Transfer is one pass of one release.
type Transfer struct {
	Release      [32]byte
	Envelope     io.ReaderAt
	EnvelopeSize int64
	Payload      io.ReaderAt // read once in order, and again a span at a time for its repair rows; a Viewer is looked at instead
	PayloadSize  int64
	Files        int  // of the payload, for the settling time
	Pass         int  // 1..
	Source       bool // send the source symbols; a heal pass sends none
	FirstRow     int  // first repair row of this pass
	Rows         int  // repair rows; 0: SenderConfig.Repair; negative: none

	// Round is how many passes sent the source before this one. What a lane carries
	// of the source in one round, another carries in the next.
	Round int

	// Only, when it is not nil, is all that is sent of the payload; Source, FirstRow and Rows are then not set. Its repair rows are
	// read a span at a time, and as many as it names of one span are in memory.
	Only fec.Selection
}

// SendReport says what a pass sent, over all its lanes. Counts are of datagrams.
type SendReport struct {
	Session    [8]byte // of the first lane; the last, when it took more than one
	Sessions   int     // as many as lanes, unless one carried more than 2^32 datagrams
	Sealed     uint64
	Source     uint64 // payload source symbols
	Repair     uint64 // payload repair symbols
	Envelope   uint64 // envelope symbols
	Bytes      int64  // UDP payload handed to the kernel, announcements included
	Elapsed    time.Duration
	SendErrors uint64 // datagrams that the kernel did not take
	Lanes      []LaneReport
}

// SendProgress is a SendReport under way.
type SendProgress struct {
	SendReport
	State       State // of the lane that told
	Pass        int
	SourceTotal uint64
	RepairTotal uint64
}

// Sender sends releases to one receiver.
type Sender struct {
	config SenderConfig
	log    *zap.Logger
	busy   sync.Mutex
	// sessionLimit is just below MaxSealed; a test lowers it to see a session give way to the next.
	sessionLimit uint64
}

// DefaultGroups returns the G of a sender that is told no other (section 4).
func DefaultGroups(p Profile) int { return fec.DefaultGroups(p.SymbolSize(), defaultSpan) }

// NewSender checks the configuration.
func NewSender(config SenderConfig) (*Sender, error) {
	symbolSize := config.Profile.SymbolSize()
	switch {
	case symbolSize == 0:
		return nil, fmt.Errorf("%w: unknown profile %d", ErrConfig, config.Profile)
	case config.Settle < 0:
		return nil, fmt.Errorf("%w: settle %v", ErrConfig, config.Settle)
	case config.Groups < 0 || config.Groups > MaxGroups:
		return nil, fmt.Errorf("%w: %d groups, not in 1..%d", ErrConfig, config.Groups, MaxGroups)
	case config.Repair < 0 || config.Repair > fec.MaxRows:
		return nil, fmt.Errorf("%w: %d repair rows a pass, not in 0..%d", ErrConfig, config.Repair, fec.MaxRows)
	}
	if err := checkLanes(config.Lanes); err != nil {
		return nil, err
	}
	if config.Groups == 0 {
		config.Groups = DefaultGroups(config.Profile)
	}
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	// A wrong key is an error now, not at the first release.
	probe := Announcement{Profile: config.Profile, Groups: config.Groups, Pass: 1, Start: time.Unix(0, 0)}
	if _, _, err := SealAnnouncement(rand.Reader, probe, config.LinkKey, config.ReceiverKey); err != nil {
		return nil, err
	}
	return &Sender{config: config, log: config.Logger, sessionLimit: MaxSealed - sessionReserve}, nil
}

// checkLanes checks the lanes of a sender.
func checkLanes(lanes []Lane) error {
	if n := len(lanes); n < 1 || n > MaxLanes {
		return fmt.Errorf("%w: %d lanes, not 1 to %d", ErrConfig, n, MaxLanes)
	}
	for i, l := range lanes {
		switch {
		case l.Conn == nil:
			return fmt.Errorf("%w: lane %d has no connection", ErrConfig, i+1)
		case l.Rate < 0:
			return fmt.Errorf("%w: lane %d has the rate %d", ErrConfig, i+1, l.Rate)
		case (l.Rate == 0) != (lanes[0].Rate == 0):
			return fmt.Errorf("%w: lane %d is unlimited beside one that is not: they are dealt by their rates", ErrConfig, i+1)
		}
	}
	return nil
}

// Send sends one pass, one session a lane: lead-in, payload, end (section 5). It
// returns what was sent also with an error. It is ErrBusy while another Send or
// Idle of this Sender runs. Memory is bounded by the repair rows of two spans,
// those of the envelope (at most 54 MiB), scratch of 8 MiB, and of several lanes
// 1 MiB each. A payload that is a Viewer has one span (256 MiB) more of its pages in
// memory, two for a moment, which count as this process's and which the kernel can
// take back at any time.
//
// Of several lanes one over which this host's kernel refuses everything is held back,
// tried four times a second, and dealt its share again when something leaves; one
// that fails for good is given up. The others carry its share meanwhile. Its
// LaneReport says why it was given up, or that it was still held back in the end;
// what was lost with it comes in the next round, over another lane. The error is
// ErrLanes when none is left: each failed, or nothing left over any for 10 seconds.
func (s *Sender) Send(ctx context.Context, t Transfer) (SendReport, error) {
	if !s.busy.TryLock() {
		return SendReport{}, ErrBusy
	}
	defer s.busy.Unlock()
	if err := s.complete(&t); err != nil {
		return SendReport{}, err
	}
	p, err := s.newPass(ctx, t)
	if err != nil {
		return SendReport{}, err
	}
	err = p.run(ctx)
	report := p.report()
	s.log.Info("pass sent",
		zap.Binary("session", report.Session[:]), zap.Int("pass", t.Pass), zap.Uint64("source", report.Source),
		zap.Uint64("repair", report.Repair), zap.Uint64("send_errors", report.SendErrors),
		zap.Duration("elapsed", report.Elapsed), zap.Error(err))
	return report, err
}

// complete fills the defaults of a transfer and checks it.
func (s *Sender) complete(t *Transfer) error {
	switch {
	case t.Only != nil && (t.Source || t.FirstRow != 0 || t.Rows != 0):
		return fmt.Errorf("%w: a selection beside source or repair rows of everything", ErrConfig)
	case t.Only != nil && len(t.Only) == 0:
		return fmt.Errorf("%w: an empty selection: there is nothing to send", ErrConfig)
	case t.Only != nil:
	case t.Rows == 0:
		t.Rows = s.config.Repair
	case t.Rows < 0:
		t.Rows = 0
	}
	switch {
	case t.Release == [32]byte{}:
		return fmt.Errorf("%w: release id is zero", ErrConfig)
	case t.Envelope == nil || t.EnvelopeSize < 1:
		return fmt.Errorf("%w: no envelope", ErrConfig)
	case t.Payload == nil && t.PayloadSize > 0:
		return fmt.Errorf("%w: no payload", ErrConfig)
	case t.Round < 0:
		return fmt.Errorf("%w: round %d", ErrConfig, t.Round)
	case t.FirstRow < 0 || t.FirstRow+t.Rows > fec.MaxRows:
		return fmt.Errorf("%w: repair rows %d..%d, not in 0..%d", ErrConfig, t.FirstRow, t.FirstRow+t.Rows-1, fec.MaxRows-1)
	case !t.Source && t.Rows == 0 && t.Only == nil:
		return fmt.Errorf("%w: a pass without source and without repair", ErrConfig)
	}
	return nil
}

// newPass prepares everything that takes time before the first datagram.
func (s *Sender) newPass(ctx context.Context, t Transfer) (*pass, error) {
	a := Announcement{
		Profile: s.config.Profile, Release: t.Release, EnvelopeSize: t.EnvelopeSize,
		PayloadSize: t.PayloadSize, Groups: s.config.Groups, Pass: t.Pass, Start: time.Now(),
	}
	if err := a.Validate(); err != nil {
		return nil, err
	}
	digest := sha256.New()
	if n, err := io.Copy(digest, io.NewSectionReader(t.Envelope, 0, t.EnvelopeSize)); err != nil || n != t.EnvelopeSize {
		return nil, fmt.Errorf("read envelope, %d of %d bytes: %w", n, t.EnvelopeSize, cmpErr(err, ErrShort))
	}
	digest.Sum(a.EnvelopeSHA256[:0])

	symbolSize := s.config.Profile.SymbolSize()
	envelope, err := fec.New(t.EnvelopeSize, symbolSize, s.config.Groups)
	if err != nil {
		return nil, fmt.Errorf("envelope object: %w", err)
	}
	payload, err := fec.New(t.PayloadSize, symbolSize, s.config.Groups)
	if err != nil {
		return nil, fmt.Errorf("payload object: %w", err)
	}
	if err := t.Only.Check(payload); err != nil {
		return nil, fmt.Errorf("%w: selection: %w", ErrConfig, err)
	}
	p := s.blankPass(a)
	p.transfer, p.geometry = t, payload
	shared, err := newCarousel(ctx, t.Envelope, envelope)
	if err != nil {
		return nil, err
	}
	for _, l := range p.lanes {
		l.carousel = shared.share()
	}
	if len(p.lanes) > 1 {
		p.dealer = newDealer(p, t.Round)
	}
	return p, p.begin()
}

// cmpErr returns err, or otherwise when it is nil.
func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// idleRetry is how long a lane that carries no heartbeats is left alone before it
// is tried again.
const idleRetry = 10 * time.Second

// Idle announces an empty session a lane and sends a heartbeat a second over each
// until ctx ends, so that the receiver can tell a quiet sender from a dead link. It
// returns nil when ctx ends, and an error when no lane carries heartbeats; one
// that fails while others do not is tried again from time to time.
func (s *Sender) Idle(ctx context.Context) error {
	if !s.busy.TryLock() {
		return ErrBusy
	}
	defer s.busy.Unlock()
	p := s.blankPass(Announcement{Profile: s.config.Profile, Groups: s.config.Groups, Pass: 1, Start: time.Now()})
	for _, l := range p.lanes {
		l.state = StateIdle
	}
	if err := p.begin(); err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	i := idler{errs: make([]error, len(p.lanes)), cancel: cancel}
	var lanes sync.WaitGroup
	for _, l := range p.lanes {
		lanes.Go(func() { i.drive(inner, l) })
	}
	lanes.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(i.errs...)
}

// idler watches the lanes of an idle sender.
type idler struct {
	mu     sync.Mutex
	errs   []error // of each lane that rests
	cancel context.CancelFunc
}

// drive keeps one lane idle, and tries again when it failed, until no lane is left.
func (i *idler) drive(ctx context.Context, l *lane) {
	for {
		err := l.idle(ctx)
		if err == nil || i.rests(l, err) {
			return
		}
		l.pass.sender.log.Warn("lane carries no heartbeats: it is tried again", zap.String("lane", l.Name), zap.Duration("after", idleRetry), zap.Error(err))
		if sleep(ctx, idleRetry) != nil {
			return
		}
		i.rests(l, nil)
		l.batch.failingAt, l.batch.buf = time.Time{}, l.batch.buf[:0]
		if err := l.begin(); err != nil && i.rests(l, err) {
			return
		}
	}
}

// rests notes that a lane failed, or is tried again, and reports whether that was
// the last: then the others end too.
func (i *idler) rests(l *lane, err error) (last bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.errs[l.index] = err
	if slices.Contains(i.errs, nil) {
		return false
	}
	i.cancel()
	return true
}

// settle returns the settling time of the configuration for a transfer.
func (s *Sender) settle(t Transfer) time.Duration {
	if s.config.Settle > 0 {
		return s.config.Settle
	}
	envelope := time.Duration(float64(t.EnvelopeSize) / settleBytesPerSecond * float64(time.Second))
	return settleBase + envelope + time.Duration(t.Files)*settlePerFile
}
