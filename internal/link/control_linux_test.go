// SPDX-License-Identifier: Apache-2.0

package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
)

// message appends one control message, padded as the kernel pads.
func message(b []byte, level, kind int32, data []byte) []byte {
	start := len(b)
	b = binary.NativeEndian.AppendUint64(b, uint64(unix.CmsgLen(len(data))))
	b = binary.NativeEndian.AppendUint32(b, uint32(level))
	b = binary.NativeEndian.AppendUint32(b, uint32(kind))
	b = append(b, data...)
	for len(b)-start < unix.CmsgSpace(len(data)) {
		b = append(b, 0)
	}
	return b
}

func word(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func TestParseControl(t *testing.T) {
	gro := message(nil, unix.IPPROTO_UDP, unix.UDP_GRO, word(1452))
	drops := message(nil, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, word(7))
	other := message(nil, unix.SOL_SOCKET, unix.SO_TIMESTAMP, make([]byte, 13))
	for _, tt := range []struct {
		name string
		in   []byte
		want control
	}{
		{"nothing", nil, control{}},
		{"gro", gro, control{segment: 1452}},
		{"drops", drops, control{drops: 7, hasDrops: true}},
		{"both behind another", append(append(append([]byte(nil), other...), drops...), gro...), control{segment: 1452, drops: 7, hasDrops: true}},
		{"cut short", gro[:len(gro)-5], control{}},
		{"header only", gro[:16], control{}},
		{"length 0", make([]byte, 64), control{}},
		{"data too short", message(nil, unix.IPPROTO_UDP, unix.UDP_GRO, []byte{1, 2}), control{}},
	} {
		if got := parseControl(tt.in); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	f.Add(message(nil, unix.IPPROTO_UDP, unix.UDP_GRO, word(1452)))
	f.Add(make([]byte, controlSize))
	f.Fuzz(func(t *testing.T, b []byte) { parseControl(b) })
}

// TestFallBack: the modes step down on the errors that say that a mode does not
// work here, once each, and on no others.
func TestFallBack(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	w := &udpWriter{log: zap.New(core)}
	for _, step := range []struct {
		err   error
		count int
		again bool
		mode  sendMode
	}{
		{unix.ENOBUFS, 5, false, sendGSO},
		{unix.EMSGSIZE, 5, false, sendGSO},
		{unix.EIO, 1, false, sendGSO}, // a single datagram is not segmented
		{unix.EIO, 5, true, sendMMsg}, // the device cannot
		{unix.EINVAL, 5, false, sendMMsg},
		{unix.ENOSYS, 5, true, sendWrite}, // a seccomp filter
		{unix.ENOSYS, 5, false, sendWrite},
	} {
		if again := w.fallBack(step.err, step.count); again != step.again || w.mode != step.mode {
			t.Errorf("%v: again %v in mode %v, want %v in mode %v", step.err, again, w.mode, step.again, step.mode)
		}
	}
	if n := logs.Len(); n != 2 {
		t.Errorf("%d warnings, want 2", n)
	}
}

// TestEveryMode sends a batch in each mode, the last resort too.
func TestEveryMode(t *testing.T) {
	for _, mode := range []sendMode{sendGSO, sendMMsg, sendWrite} {
		r, err := ListenUDP(t.Context(), SocketOptions{Address: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		name, err := unix.Getsockname(r.(*udpReader).fd)
		if err != nil {
			t.Fatal(err)
		}
		port := name.(*unix.SockaddrInet4).Port
		w, err := dialUDP(t.Context(), SocketOptions{Address: fmt.Sprint("127.0.0.1:", port), Local: "127.0.0.1:0"}.withDefaults(1<<20), mode)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteBatch(make([]byte, 10*100), 100); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
		got, bufs := 0, []Buffer{{Data: make([]byte, BufferSize)}}
		for got < 1000 {
			if _, err := r.ReadBatch(bufs); err != nil {
				t.Fatal(err)
			}
			got += bufs[0].N
		}
		if err := errors.Join(w.Close(), r.Close()); err != nil || w.mode != mode {
			t.Errorf("mode %v became %v: %v", mode, w.mode, err)
		}
	}
}
