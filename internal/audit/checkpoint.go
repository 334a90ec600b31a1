// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sluice/pkg/mofn"
)

const (
	// maxNote caps a checkpoint with its signatures: room for sixteen of ours beside those of strangers.
	maxNote = 64 << 10
	// MaxEvents caps a log: a tool that holds its hashes needs 1 GiB then.
	MaxEvents = 1 << 24
	// Role is what a log key signs as (docs/spec/trust.md section 1).
	Role = "log"
	// signatureType is the byte of C2SP signed-note for types without a number of their own; a longer name follows it.
	signatureType = 0xff
)

// The two sides, as they stand in an origin line.
const (
	Low  = "low"
	High = "high"
)

var (
	// ErrFormat says that a text is not what it should be. Where it was read from an export, somebody changed it.
	ErrFormat = errors.New("audit: malformed")
	// ErrSignature says that a checkpoint is not signed by the log key that was asked for.
	ErrSignature = errors.New("audit: signature")
	// ErrTampered says that events, checkpoint and proofs do not belong together, or that a log contradicts itself.
	ErrTampered = errors.New("audit: tampered or inconsistent")
)

var idRule = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// Origin is the name of a log: that of its side and its site.
func Origin(side, id string) string { return "sluice/" + side + "/" + id }

// sideOf tells the side of an origin; "" when it is none of ours.
func sideOf(origin string) string {
	parts := strings.SplitN(origin, "/", 3)
	if len(parts) != 3 || parts[0] != "sluice" || parts[1] != Low && parts[1] != High || !idRule.MatchString(parts[2]) {
		return ""
	}
	return parts[1]
}

// Checkpoint says how far a log has come (C2SP tlog-checkpoint). Size is at least 1: an empty log has nothing to say.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// Text is the note that is signed.
func (c Checkpoint) Text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + c.Root.String() + "\n"
}

// ParseCheckpoint reads the text of a checkpoint, without its signatures. Exactly three lines in their one form are taken: extension lines are not
// signed by every kind of signature, and ours has none. The error is [ErrFormat].
func ParseCheckpoint(text string) (c Checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return c, fmt.Errorf("%w: a checkpoint has three lines (origin, size, root hash), not %d", ErrFormat, len(lines)-1)
	}
	c.Origin = lines[0]
	if sideOf(c.Origin) == "" {
		return c, fmt.Errorf("%w: origin %.100q is not sluice/low/ID or sluice/high/ID", ErrFormat, c.Origin)
	}
	if c.Size, err = parseSize(lines[1]); err != nil {
		return c, fmt.Errorf("%w: size of a checkpoint: %w", ErrFormat, err)
	}
	if c.Root, err = parseHash(lines[2]); err != nil {
		return c, fmt.Errorf("%w: root hash of a checkpoint: %w", ErrFormat, err)
	}
	return c, nil
}

func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil || strconv.FormatInt(n, 10) != s:
		return 0, fmt.Errorf("%.40q is no plain decimal number", s)
	case n < 1:
		return 0, errors.New("0: a log without events says nothing, and is consistent with everything")
	case n > MaxEvents:
		return 0, fmt.Errorf("%d events, at most %d", n, MaxEvents)
	}
	return n, nil
}

func parseHash(s string) (h tlog.Hash, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != tlog.HashSize || len(s) != 44 {
		return h, fmt.Errorf("%.60q is no SHA-256 in base64", s)
	}
	return tlog.Hash(b), nil
}

// Key is the public key of a log: what an auditor brings, or compares by its id.
type Key struct {
	ID     mofn.KeyID
	Suite  mofn.Suite
	File   []byte // the .pub file
	public *mofn.PublicKey
	bytes  []byte
}

// ParseKey reads a .pub file (docs/spec/trust.md section 2). The key must be of a suite that signs statements.
func ParseKey(file []byte) (*Key, error) {
	suite, id, public, _, err := mofn.ParsePublicFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: log key: %w", ErrFormat, err)
	}
	k, err := mofn.ParsePublicKey(suite, public)
	if err != nil {
		return nil, fmt.Errorf("%w: log key: a key of suite %s signs no checkpoints: make one with keys generate --use sign: %w", ErrFormat, suite, err)
	}
	return &Key{ID: id, Suite: suite, File: bytes.Clone(file), public: k, bytes: public}, nil
}

// PublicKey is ParseKey of a key that stands in a trust object.
func PublicKey(suite mofn.Suite, public []byte) (*Key, error) {
	file, err := mofn.MarshalPublicFile(suite, public, "")
	if err != nil {
		return nil, fmt.Errorf("%w: log key: %w", ErrFormat, err)
	}
	return ParseKey(file)
}

// hash is the key id of C2SP signed-note for the log of an origin.
func (k *Key) hash(origin string) uint32 {
	h := sha256.New()
	h.Write([]byte(origin))
	h.Write([]byte{'\n', signatureType})
	h.Write([]byte("sluice/" + string(k.Suite) + "\x00"))
	h.Write(k.bytes)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// verifier checks the line of one key on notes of one origin.
type verifier struct {
	key    *Key
	origin string
}

func (v verifier) Name() string    { return v.origin }
func (v verifier) KeyHash() uint32 { return v.key.hash(v.origin) }
func (v verifier) Verify(msg, sig []byte) bool {
	return v.key.public.Verify(Role, msg, sig) == nil
}

// noteSigner makes the line of a log.
type noteSigner struct {
	verifier
	sign mofn.Signer
}

func (s noteSigner) Sign(msg []byte) ([]byte, error) { return s.sign.Sign(Role, msg) }

// SignCheckpoint makes the signed note. The signature is checked before it is given away, as every signature here.
func SignCheckpoint(c Checkpoint, key *Key, sign mofn.Signer) ([]byte, error) {
	if _, err := ParseCheckpoint(c.Text()); err != nil {
		return nil, err
	}
	msg, err := note.Sign(&note.Note{Text: c.Text()}, noteSigner{verifier{key, c.Origin}, sign})
	if err != nil {
		return nil, fmt.Errorf("audit: sign checkpoint: %w", err)
	}
	if _, err := OpenCheckpoint(msg, key); err != nil {
		return nil, fmt.Errorf("audit: internal error: the checkpoint just signed is not accepted: %w", err)
	}
	return msg, nil
}

// SignedBy gives the text of a signed note and the signature of key over it, for tools that check it by other means. The signature is
// that of the first line that claims to be of this key, and nothing is verified. Errors: [ErrFormat], [ErrSignature].
func SignedBy(msg []byte, key *Key) (text, sig []byte, err error) {
	if len(msg) > maxNote {
		return nil, nil, fmt.Errorf("%w: a checkpoint of %d bytes, at most %d", ErrFormat, len(msg), maxNote)
	}
	origin, _, _ := strings.Cut(string(msg), "\n")
	taken := taker{verifier: verifier{key, origin}}
	_, err = note.Open(msg, note.VerifierList(&taken))
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		return nil, nil, fmt.Errorf("%w: the note of %.60q has no line of the key %.16s", ErrSignature, origin, key.ID)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: checkpoint: %w", ErrFormat, err)
	}
	return taken.text, taken.sig, nil
}

// taker accepts the line of its key, unseen, and keeps what it was given.
type taker struct {
	verifier
	text, sig []byte
}

func (t *taker) Verify(msg, sig []byte) bool {
	t.text, t.sig = bytes.Clone(msg), bytes.Clone(sig)
	return true
}

// OpenCheckpoint reads a signed note and checks that key signed it for the origin that it names. Lines of other keys are left alone (C2SP
// signed-note); a line that claims to be of this key and does not verify refuses the note. Errors: [ErrFormat], [ErrSignature].
func OpenCheckpoint(msg []byte, key *Key) (Checkpoint, error) {
	if len(msg) > maxNote {
		return Checkpoint{}, fmt.Errorf("%w: a checkpoint of %d bytes, at most %d", ErrFormat, len(msg), maxNote)
	}
	origin, _, _ := strings.Cut(string(msg), "\n")
	if sideOf(origin) == "" {
		return Checkpoint{}, fmt.Errorf("%w: a checkpoint begins with sluice/low/ID or sluice/high/ID, not with %.60q", ErrFormat, origin)
	}
	n, err := note.Open(msg, note.VerifierList(verifier{key, origin}))
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &invalid):
		return Checkpoint{}, fmt.Errorf("%w: the checkpoint of %s has a line of log key %.16s... that does not verify: text or signature were changed", ErrSignature, origin, key.ID)
	case errors.As(err, &unverified):
		return Checkpoint{}, fmt.Errorf("%w: the checkpoint of %s is not signed by log key %.16s...: it is of another log, or of another key of it", ErrSignature, origin, key.ID)
	case err != nil:
		return Checkpoint{}, fmt.Errorf("%w: checkpoint: %w", ErrFormat, err)
	}
	return ParseCheckpoint(n.Text)
}
