// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/sha3"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Key prefixes and names of registry-layout.md.
const (
	releasesPrefix   = "releases/"
	provenancePrefix = "provenance/"
	catalogPrefix    = "catalog/"
	channelsPrefix   = "channels/"
	idPrefix         = "sha256-"

	withdrawalsPrefix = "withdrawals/"

	envelopeName  = "envelope.sluice"
	statementName = "release.json"
	evidenceDir   = "evidence/"
	modelSigName  = "model.sig"
	receiptName   = "receipt.json"
	commitName    = "COMMIT"
	channelName   = "latest.json"
)

// Limits of the formats; the reasons are those of envelope.md section 1.
const (
	maxFiles     = 100_000
	maxPath      = 1024
	maxComponent = 255
	maxDepth     = 32
	maxName      = 128
	maxEvidence  = 16
	maxInteger   = 1<<53 - 1 // what every JSON reader keeps exactly
	maxStatement = 44 << 20
	maxModelSig  = 64 << 20 // model-signature.md section 1
	serialDigits = 12

	// A record of a withdrawal stays below maxSmallJSON, escapes included.
	maxReason = 512
	maxOrders = 32
)

// releasePrefix is the prefix of the release's files, with its final slash.
func releasePrefix(name, id string) string { return releasesPrefix + name + "/" + idPrefix + id + "/" }

// provPrefix is the prefix of everything of ours about the release.
func provPrefix(name, id string) string { return provenancePrefix + name + "/" + idPrefix + id + "/" }

// commitKey is the key whose existence makes the release visible.
func commitKey(name, id string) string { return provPrefix(name, id) + commitName }

// receiptKey is the key of the receipt.
func receiptKey(name, id string) string { return provPrefix(name, id) + receiptName }

// serialKey is the key of catalogue n.
func serialKey(n int64) string {
	return fmt.Sprintf("%sserial-%0*d.json", catalogPrefix, serialDigits, n)
}

// parseSerialKey is the inverse of serialKey; ok is false for any other key.
func parseSerialKey(key string) (n int64, ok bool) {
	digits, found := strings.CutPrefix(key, catalogPrefix+"serial-")
	digits, json := strings.CutSuffix(digits, ".json")
	if !found || !json || len(digits) != serialDigits {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil && n > 0 && serialKey(n) == key
}

// channelKey is the key of the only mutable object of a name.
func channelKey(name string) string { return channelsPrefix + name + "/" + channelName }

// withdrawalKey is the key of the record of a withdrawal.
func withdrawalKey(name, id string) string {
	return withdrawalsPrefix + name + "/" + idPrefix + id + ".json"
}

// parseWithdrawalKey is the inverse of withdrawalKey; ok is false for any other key.
func parseWithdrawalKey(key string) (name, id string, ok bool) {
	name, file, _ := strings.Cut(strings.TrimPrefix(key, withdrawalsPrefix), "/")
	id, ok = parseID(strings.TrimSuffix(file, ".json"))
	return name, id, ok && validName(name) && withdrawalKey(name, id) == key
}

// mutable says whether an object at key may be replaced.
func mutable(key string) bool {
	return strings.HasPrefix(key, channelsPrefix) || strings.HasPrefix(key, withdrawalsPrefix)
}

// parseID reads "sha256-<64 hex>" and returns the hex digits.
func parseID(child string) (id string, ok bool) {
	id, ok = strings.CutPrefix(child, idPrefix)
	return id, ok && isHex(id)
}

// isHex says whether s is a SHA-256 in lower-case hexadecimal.
func isHex(s string) bool {
	if len(s) != 64 || strings.ToLower(s) != s {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil
}

// validName is [a-z0-9][a-z0-9._-]{0,127} (envelope.md section 4).
func validName(s string) bool {
	if s == "" || len(s) > maxName || !alnum(s[0]) {
		return false
	}
	for i := range len(s) {
		if !alnum(s[i]) && s[i] != '.' && s[i] != '_' && s[i] != '-' {
			return false
		}
	}
	return true
}

func alnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// validStream is [a-z0-9][a-z0-9._/-]{0,127} without an empty component.
func validStream(s string) bool {
	if len(s) > maxName {
		return false
	}
	for i, part := range strings.Split(s, "/") {
		ok := part != "" && (i > 0 || alnum(part[0])) && validName("x"+part[:min(len(part), maxName-1)])
		if !ok {
			return false
		}
	}
	return true
}

// printable says whether s is 1..128 printable ASCII characters.
func printable(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// validPath repeats those rules of envelope.md section 4 "Paths" that keep a
// path inside its prefix on every target. The envelope's reader has checked
// all of them already; this is the second, independent look.
func validPath(p string) error {
	switch {
	case p == "" || len(p) > maxPath:
		return fmt.Errorf("path of %d bytes, want 1..%d", len(p), maxPath)
	case !utf8.ValidString(p):
		return fmt.Errorf("path %q is not UTF-8", p)
	}
	parts := strings.Split(p, "/")
	if len(parts) > maxDepth {
		return fmt.Errorf("path %q has %d components, limit %d", p, len(parts), maxDepth)
	}
	for _, part := range parts {
		if part == "" || part == "." || part == ".." || len(part) > maxComponent {
			return fmt.Errorf("path %q has a bad component %q", p, part)
		}
	}
	if i := strings.IndexFunc(p, forbiddenRune); i >= 0 {
		return fmt.Errorf("path %q has a forbidden character at byte %d", p, i)
	}
	return nil
}

func forbiddenRune(r rune) bool {
	return r < 0x20 || r >= 0x7f && r <= 0x9f || r == '\\' || r == ':'
}

// validate refuses a release that the layout cannot hold.
func (r *Release) validate() error {
	if err := r.validateHead(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := r.validateFiles(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := r.validateEvidence(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func (r *Release) validateHead() error {
	switch {
	case !validName(r.Name):
		return fmt.Errorf("name %q is not [a-z0-9][a-z0-9._-]{0,127}", r.Name)
	case !validStream(r.Stream):
		return fmt.Errorf("stream %q is not [a-z0-9][a-z0-9._/-]{0,127}", r.Stream)
	case !printable(r.Version):
		return fmt.Errorf("version %q is not 1..128 printable ASCII characters", r.Version)
	case !validName(r.Kind):
		return fmt.Errorf("kind %q is not a kind's name", r.Kind)
	case r.Epoch < 0 || r.Epoch > maxInteger || r.Seq < 1 || r.Seq > maxInteger:
		return fmt.Errorf("epoch %d, seq %d out of range", r.Epoch, r.Seq)
	case len(r.Statement) == 0 || len(r.Statement) > maxStatement:
		return fmt.Errorf("statement of %d bytes, want 1..%d", len(r.Statement), maxStatement)
	case len(r.ModelSignature) > maxModelSig:
		return fmt.Errorf("model signature of %d bytes, at most %d", len(r.ModelSignature), maxModelSig)
	case r.Envelope.Size < 0 || r.Envelope.Open == nil:
		return fmt.Errorf("envelope without content")
	}
	return nil
}

func (r *Release) validateFiles() error {
	if len(r.Files) == 0 || len(r.Files) > maxFiles {
		return fmt.Errorf("%d files, want 1..%d", len(r.Files), maxFiles)
	}
	var total int64
	for i, f := range r.Files {
		if err := validPath(f.Path); err != nil {
			return fmt.Errorf("file %d: %w", i, err)
		}
		if i > 0 && r.Files[i-1].Path >= f.Path {
			return fmt.Errorf("file %d: path %q is not after %q", i, f.Path, r.Files[i-1].Path)
		}
		if f.Size < 0 || f.Size > math.MaxInt64/4-total {
			return fmt.Errorf("file %d: size %d out of range", i, f.Size)
		}
		total += f.Size
	}
	if got := DirectoryDigest(r.Files); got != r.DirectoryDigest {
		return fmt.Errorf("directory digest is %x, files give %x", r.DirectoryDigest, got)
	}
	return nil
}

func (r *Release) validateEvidence() error {
	if len(r.Evidence) > maxEvidence {
		return fmt.Errorf("%d evidence objects, limit %d", len(r.Evidence), maxEvidence)
	}
	for i, b := range r.Evidence {
		if !validName(b.Name) || b.Size < 0 || b.Open == nil {
			return fmt.Errorf("evidence %d (%q): bad name, size or no content", i, b.Name)
		}
		if i > 0 && r.Evidence[i-1].Name >= b.Name {
			return fmt.Errorf("evidence %d: name %q is not after %q", i, b.Name, r.Evidence[i-1].Name)
		}
	}
	return nil
}

// DirectoryDigest names a whole tree: SHA3-256 over the line
// "sluice-directory-v1" and one line a file, "<sha256> <size> <path>", in order
// (envelope.md section 6).
func DirectoryDigest(files []File) [32]byte {
	h := sha3.New256()
	fmt.Fprintf(h, "sluice-directory-v1\n")
	for _, f := range files {
		fmt.Fprintf(h, "%x %d %s\n", f.SHA256, f.Size, f.Path)
	}
	return [32]byte(h.Sum(nil))
}
