// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Limits on images and tokenizer models.
const (
	maxImage     = 32 << 20 // bytes: pictures in a README
	maxChunks    = 100_000  // PNG chunks
	maxSPM       = 64 << 20 // bytes: the largest SentencePiece model in use has 5 MB
	maxPieceSize = 1 << 20  // bytes of one piece or specification
)

var errImage = errors.New("checkpoint: malformed image")

func (in *inspector) checkImage(f *file, check func(*file) error) error {
	err := check(f)
	if errors.Is(err, errImage) {
		in.refuse(RulePolyglot, f.path, "leave it out with the mirror's ignore patterns", "%v", err)
		return nil
	}
	return err
}

// checkPNG walks the chunks (W3C PNG, section 5.3) to IEND, which must be the end of the file.
func checkPNG(f *file) error {
	if f.size > maxImage {
		return fmt.Errorf("%w: %d bytes", errImage, f.size)
	}
	off := int64(8)
	for range maxChunks {
		var head [8]byte
		if off+12 > f.size {
			return fmt.Errorf("%w: PNG without IEND", errImage)
		}
		if err := readAt(f, head[:], off); err != nil {
			return err
		}
		off += 12 + int64(binary.BigEndian.Uint32(head[:]))
		if string(head[4:]) != "IEND" {
			continue
		}
		if off != f.size {
			return fmt.Errorf("%w: PNG ends at %d, the file at %d", errImage, off, f.size)
		}
		return nil
	}
	return fmt.Errorf("%w: more than %d PNG chunks", errImage, maxChunks)
}

// checkJPEG demands the end marker at the end of the file (ITU T.81, section B.1.1.3).
func checkJPEG(f *file) error {
	if f.size > maxImage || f.size < 4 {
		return fmt.Errorf("%w: %d bytes", errImage, f.size)
	}
	var last [2]byte
	if err := readAt(f, last[:], f.size-2); err != nil {
		return err
	}
	if last != [2]byte{0xff, 0xd9} {
		return fmt.Errorf("%w: JPEG with data behind its end", errImage)
	}
	return nil
}

// isSentencePiece tells whether the file is a ModelProto of SentencePiece, as far as the wire shows: fields 1 (pieces: text,
// score, type), 2..5 (specifications), extensions from 200 on, at least one piece, and nothing behind the last field.
func isSentencePiece(f *file) bool {
	if f.size > maxSPM {
		return false
	}
	r := bufio.NewReader(f.all())
	pieces := 0
	for {
		tag, err := binary.ReadUvarint(r)
		if err == io.EOF {
			return pieces > 0
		}
		field, wire := tag>>3, tag&7
		if err != nil || wire != 2 || field == 0 || field > 5 && field < 200 || field > 1<<29 {
			return false
		}
		n, err := binary.ReadUvarint(r)
		if err != nil || n > maxPieceSize {
			return false
		}
		if field != 1 {
			if _, err := r.Discard(int(n)); err != nil {
				return false
			}
			continue
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil || !isPiece(body) {
			return false
		}
		pieces++
	}
}

// isPiece checks one SentencePiece message: 1 text, 2 float, 3 enum.
func isPiece(b []byte) bool {
	text := false
	for len(b) > 0 {
		tag, k := binary.Uvarint(b)
		if k <= 0 {
			return false
		}
		b = b[k:]
		switch tag {
		case 1<<3 | 2:
			n, k := binary.Uvarint(b)
			if k <= 0 || n > uint64(len(b)-k) || !utf8.Valid(b[k:k+int(n)]) {
				return false
			}
			b, text = b[k+int(n):], true
		case 2<<3 | 5:
			if len(b) < 4 {
				return false
			}
			b = b[4:]
		case 3 << 3:
			_, k := binary.Uvarint(b)
			if k <= 0 {
				return false
			}
			b = b[k:]
		default:
			return false
		}
	}
	return text
}
