// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"sluice/internal/durable"
)

const (
	recordName = "spool.record"

	recordMagic  = "SLSPOOL\x01"
	recordHeader = 64 // magic 8, digest 32, zeros 20, CRC-32C of the 60 bytes before 4
	recordSize   = 16 // kind 4, SBN 4, zeros 4, CRC-32C of the 12 bytes before 4; big-endian
)

// Kinds of a record.
const (
	kindComplete = 1 // the span's files were synced with every symbol of it
	kindReopened = 2 // symbols of the span were taken back
)

// errNoRecord says that the folder was never set up to the end.
var errNoRecord = errors.New("spool: no record")

// record is spool.record: the header says what object the folder holds and is written, durably, when the folder is set
// up; each entry is appended and synced. It is all that is believed after a power cut.
type record struct {
	file *os.File
	end  int64
}

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func recordStart(digest [32]byte) []byte {
	b := make([]byte, recordHeader)
	copy(b, recordMagic)
	copy(b[8:], digest[:])
	binary.BigEndian.PutUint32(b[60:], castagnoli(b[:60]))
	return b
}

// createRecord makes the folder valid: everything else is there before.
func createRecord(root *os.Root, digest [32]byte) (*record, error) {
	if err := durable.WriteFile(root, recordName, recordStart(digest), 0o600); err != nil {
		return nil, err
	}
	return openRecord(root, digest, func(uint32, int) {})
}

// openRecord opens the record of the object and calls each for every entry in order. errNoRecord says that there is
// none, ErrMismatch that it is of another object.
func openRecord(root *os.Root, digest [32]byte, each func(kind uint32, sbn int)) (_ *record, err error) {
	f, err := root.OpenFile(recordName, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoRecord
	}
	if err != nil {
		return nil, fmt.Errorf("open record: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	header := make([]byte, recordHeader)
	if _, err := io.ReadFull(f, header); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read record: %w", err)
	}
	if !bytes.Equal(header, recordStart(digest)) {
		return nil, fmt.Errorf("%w, or its %s is damaged; remove the folder and receive the object again", ErrMismatch, recordName)
	}
	r := &record{file: f, end: recordHeader}
	if err := r.replay(each); err != nil {
		return nil, err
	}
	return r, nil
}

// replay reads entries up to the first that is not whole: a power cut can tear the last append, which was never
// confirmed. The torn rest is cut off.
func (r *record) replay(each func(kind uint32, sbn int)) error {
	in := io.NewSectionReader(r.file, recordHeader, 1<<62)
	buf := make([]byte, recordSize*4096) // 4096 entries a read
	for {
		n, err := io.ReadFull(in, buf)
		whole := n / recordSize * recordSize
		for at := 0; at < whole; at += recordSize {
			kind, sbn, ok := parseEntry(buf[at : at+recordSize])
			if !ok {
				return r.cut()
			}
			each(kind, sbn)
			r.end += recordSize
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return r.cut()
		}
		if err != nil {
			return fmt.Errorf("read record: %w", err)
		}
	}
}

func (r *record) cut() error {
	if err := r.file.Truncate(r.end); err != nil {
		return fmt.Errorf("cut torn record: %w", err)
	}
	return nil
}

func parseEntry(b []byte) (kind uint32, sbn int, ok bool) {
	kind = binary.BigEndian.Uint32(b)
	ok = binary.BigEndian.Uint32(b[12:]) == castagnoli(b[:12]) && (kind == kindComplete || kind == kindReopened)
	return kind, int(binary.BigEndian.Uint32(b[4:])), ok
}

// append writes one entry a span and syncs them together; for no span it does nothing.
func (r *record) append(kind uint32, spans []int) error {
	if len(spans) == 0 {
		return nil
	}
	b := make([]byte, recordSize*len(spans))
	for i, sbn := range spans {
		entry := b[i*recordSize : (i+1)*recordSize]
		binary.BigEndian.PutUint32(entry, kind)
		binary.BigEndian.PutUint32(entry[4:], uint32(sbn))
		binary.BigEndian.PutUint32(entry[12:], castagnoli(entry[:12]))
	}
	if _, err := r.file.WriteAt(b, r.end); err != nil {
		return fmt.Errorf("append to record: %w", err)
	}
	if err := durable.Datasync(r.file); err != nil {
		return err
	}
	r.end += int64(len(b))
	return nil
}

func (r *record) close() error { return r.file.Close() }
