// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// maxFromFront caps a frame that the daemon reads: its largest is a status of all sessions, some tens of KiB.
	maxFromFront = 1 << 20
	// maxFromDaemon caps a frame that the front reads: its largest lists the sizes of 100,000 files.
	maxFromDaemon = 16 << 20

	// maxCalls is how many requests of the other side are answered at a time; what is beyond is answered with an error at once.
	maxCalls = 32

	// writeWait is how long the other side may leave a frame unread.
	writeWait = 10 * time.Second

	// lengthSize is the big-endian length before each frame.
	lengthSize = 4
)

var (
	// ErrDown says that the other process is not there, or went away before it answered.
	ErrDown = errors.New("recv: the other process is not there")
	// errFrame says that the other side does not keep to the format.
	errFrame = errors.New("recv: malformed frame")
)

// frame is one message: a request when Method is set, else the answer to the request of that ID.
type frame struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Error  *wireError      `json:"error,omitempty"`
}

// handler answers a request. Its answer is written as JSON.
type handler func(ctx context.Context, body json.RawMessage) (any, error)

// peer is one end of the socket between the two processes: both ask, both answer, any number at a time.
type peer struct {
	conn     net.Conn
	limit    int // of a frame read
	handlers map[string]handler

	writing sync.Mutex

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan frame
	ended   error // why no answer comes any more
}

func newPeer(conn net.Conn, limit int, handlers map[string]handler) *peer {
	return &peer{conn: conn, limit: limit, handlers: handlers, waiting: make(map[uint64]chan frame)}
}

// run reads until the connection ends, and returns why; nil when the other side closed it. Requests that are being answered are
// cancelled, and waited for.
func (p *peer) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var answering sync.WaitGroup
	defer answering.Wait()
	defer cancel()
	room := make(chan struct{}, maxCalls)
	for {
		f, err := readFrame(p.conn, p.limit)
		if err != nil {
			p.end(err)
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		if f.Method == "" {
			p.answered(f)
			continue
		}
		select {
		case room <- struct{}{}:
			answering.Go(func() {
				defer func() { <-room }()
				p.answer(ctx, f)
			})
		default:
			p.reply(frame{ID: f.ID, Error: &wireError{Text: fmt.Sprintf("more than %d requests at a time", maxCalls)}})
		}
	}
}

// answer runs the handler of a request.
func (p *peer) answer(ctx context.Context, f frame) {
	out := frame{ID: f.ID}
	h := p.handlers[f.Method]
	if h == nil {
		out.Error = &wireError{Text: fmt.Sprintf("unknown request %.40q", f.Method)}
		p.reply(out)
		return
	}
	result, err := h(ctx, f.Body)
	if err == nil {
		out.Body, err = json.Marshal(result)
	}
	if err != nil {
		out.Body, out.Error = nil, toWire(err)
	}
	p.reply(out)
}

// reply writes an answer. When it cannot, the connection is over and the reader finds it.
func (p *peer) reply(f frame) {
	if err := p.write(f); err != nil {
		p.conn.Close()
	}
}

// answered hands an answer to who waits for it; one that nobody waits for any more is dropped.
func (p *peer) answered(f frame) {
	p.mu.Lock()
	ch := p.waiting[f.ID]
	delete(p.waiting, f.ID)
	p.mu.Unlock()
	if ch != nil {
		ch <- f // has room for it
	}
}

// end tells all who wait that no answer comes.
func (p *peer) end(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = fmt.Errorf("%w: %w", ErrDown, cause)
	for id, ch := range p.waiting {
		close(ch)
		delete(p.waiting, id)
	}
}

// call asks the other side and waits for its answer. out may be nil. The error is the other side's, [ErrDown], or the context's.
func (p *peer) call(ctx context.Context, method string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("recv: %s: %w", method, err)
	}
	ch := make(chan frame, 1)
	p.mu.Lock()
	if p.ended != nil {
		defer p.mu.Unlock()
		return p.ended
	}
	p.next++
	f := frame{ID: p.next, Method: method, Body: body}
	p.waiting[f.ID] = ch
	p.mu.Unlock()
	if err := p.write(f); err != nil {
		p.answered(frame{ID: f.ID})
		return fmt.Errorf("%w: %w", ErrDown, err)
	}
	select {
	case <-ctx.Done():
		p.answered(frame{ID: f.ID})
		return fmt.Errorf("recv: %s: %w", method, ctx.Err())
	case answer, ok := <-ch:
		return p.take(answer, ok, method, out)
	}
}

// take unpacks an answer.
func (p *peer) take(f frame, ok bool, method string, out any) error {
	switch {
	case !ok:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.ended
	case f.Error != nil:
		return f.Error.err()
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(f.Body, out); err != nil {
		return fmt.Errorf("%w: answer to %s: %w", errFrame, method, err)
	}
	return nil
}

// write sends one frame.
func (p *peer) write(f frame) error {
	b, err := appendFrame(nil, f)
	if err != nil {
		return err
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	if err := p.conn.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	_, err = p.conn.Write(b)
	return err
}

// appendFrame appends the bytes of a frame.
func appendFrame(b []byte, f frame) ([]byte, error) {
	text, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...), nil
}

// readFrame reads one frame of at most limit bytes. Memory grows with what arrives, and not with what the length promises.
func readFrame(r io.Reader, limit int) (frame, error) {
	var f frame
	var head [lengthSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > int64(limit) {
		return f, fmt.Errorf("%w: %d bytes, at most %d", errFrame, n, limit)
	}
	text, err := io.ReadAll(io.LimitReader(r, n))
	if err != nil {
		return f, err
	}
	if int64(len(text)) < n {
		return f, fmt.Errorf("%w: ended after %d of %d bytes", errFrame, len(text), n)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("%w: %w", errFrame, err)
	}
	return f, nil
}
