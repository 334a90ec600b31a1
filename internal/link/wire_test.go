// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"sluice/internal/link"
)

func TestProfileSizes(t *testing.T) {
	for _, tt := range []struct {
		p                link.Profile
		symbol, datagram int
		name             string
	}{
		{link.Profile1500, 1408, 1452, "1500"},
		{link.Profile9000, 8896, 8940, "9000"},
		{0, 0, 0, "profile(0)"},
		{3, 0, 0, "profile(3)"},
	} {
		equal(t, tt.name, []int{tt.p.SymbolSize(), tt.p.DatagramSize()}, []int{tt.symbol, tt.datagram})
		equal(t, "name", tt.p.String(), tt.name)
	}
}

// goodDatagram is a header and enough bytes behind it.
func goodDatagram() []byte {
	d := link.AppendHeader(nil, link.Header{
		Type: link.TypePayload, Profile: link.Profile1500,
		Session: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, Counter: 0x0102030405060708, SBN: 0x11121314, ESI: 0x21222324,
	})
	return append(d, make([]byte, link.Profile1500.DatagramSize()-len(d))...)
}

func TestParseHeader(t *testing.T) {
	h, err := link.ParseHeader(goodDatagram())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "header", h, link.Header{
		Type: link.TypePayload, Profile: link.Profile1500,
		Session: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, Counter: 0x0102030405060708, SBN: 0x11121314, ESI: 0x21222324,
	})

	for _, tt := range []struct {
		name   string
		change func(d []byte) []byte
		want   error
	}{
		{"empty", func([]byte) []byte { return nil }, link.ErrLength},
		{"27 bytes", func(d []byte) []byte { return d[:27] }, link.ErrLength},
		{"one byte short", func(d []byte) []byte { return d[:len(d)-1] }, link.ErrLength},
		{"one byte long", func(d []byte) []byte { return append(d, 0) }, link.ErrLength},
		{"length of the other profile", func(d []byte) []byte { d[2] = 2; return d }, link.ErrLength},
		{"magic", func(d []byte) []byte { d[0] = 0xD0; return d }, link.ErrMagic},
		{"type 0", func(d []byte) []byte { d[1] = 0; return d }, link.ErrType},
		{"type 5", func(d []byte) []byte { d[1] = 5; return d }, link.ErrType},
		{"profile 0", func(d []byte) []byte { d[2] = 0; return d }, link.ErrProfile},
		{"profile 3", func(d []byte) []byte { d[2] = 3; return d }, link.ErrProfile},
		{"reserved", func(d []byte) []byte { d[3] = 1; return d }, link.ErrReserved},
	} {
		if _, err := link.ParseHeader(tt.change(goodDatagram())); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestParameters(t *testing.T) {
	a := announcement(1)
	h := link.Header{Profile: a.Profile, Session: a.Session}
	good := link.AppendParameters(nil, a)
	got, err := link.ParseParameters(good, h)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "parameters", got, a)

	for _, tt := range []struct {
		name string
		at   int
		to   []byte
	}{
		{"session differs", 0, []byte{0xFF}},
		{"envelope over 160 MiB", 72, []byte{0, 0, 0, 0, 0x0A, 0, 0, 1}},
		{"envelope negative as int64", 72, []byte{0x80}},
		{"payload over 2^50", 80, []byte{0, 4, 0, 0, 0, 0, 0, 1}},
		{"payload negative as int64", 80, []byte{0xFF}},
		{"no groups", 88, []byte{0, 0, 0, 0}},
		{"4097 groups", 88, []byte{0, 0, 0x10, 1}},
		{"2^32-1 groups", 88, []byte{0xFF, 0xFF, 0xFF, 0xFF}},
		{"pass 0", 92, []byte{0, 0}},
		{"reserved 94", 95, []byte{1}},
		{"start beyond 9999", 96, []byte{1}},
		{"reserved 104", 104, []byte{1}},
		{"reserved 127", 127, []byte{1}},
	} {
		b := bytes.Clone(good)
		copy(b[tt.at:], tt.to)
		if _, err := link.ParseParameters(b, h); !errors.Is(err, link.ErrParameters) {
			t.Errorf("%s: %v, want ErrParameters", tt.name, err)
		}
	}
	for _, n := range []int{0, 127, 129} {
		if _, err := link.ParseParameters(make([]byte, n), h); !errors.Is(err, link.ErrParameters) {
			t.Errorf("%d bytes: %v, want ErrParameters", n, err)
		}
	}
	a.Start = time.Unix(-1, 0)
	if err := a.Validate(); !errors.Is(err, link.ErrParameters) {
		t.Errorf("start before 1970: %v", err)
	}
}

func TestHeartbeat(t *testing.T) {
	h := link.Heartbeat{Source: 1, Repair: 2, Rate: 3, Clock: 4, Failed: 5, Pass: 6, State: link.StateEndOfPass}
	body := link.AppendHeartbeat(nil, h, link.Profile1500)
	equal(t, "length", len(body), 1408)
	got, err := link.ParseHeartbeat(body)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "heartbeat", got, h)
	for _, tt := range []struct {
		name string
		at   int
		to   byte
	}{{"state 0", 42, 0}, {"state 6", 42, 6}, {"pass 0", 41, 0}, {"padding begins", 43, 1}, {"padding ends", 1407, 1}} {
		b := bytes.Clone(body)
		b[tt.at] = tt.to
		if _, err := link.ParseHeartbeat(b); !errors.Is(err, link.ErrHeartbeat) {
			t.Errorf("%s: %v, want ErrHeartbeat", tt.name, err)
		}
	}
	if _, err := link.ParseHeartbeat(body[:42]); !errors.Is(err, link.ErrHeartbeat) {
		t.Errorf("42 bytes: %v", err)
	}
	for s, want := range map[link.State]string{0: "announced", 1: "lead-in", 2: "sending", 3: "end of pass", 4: "end of session", 5: "idle", 9: "state(9)"} {
		equal(t, "state", s.String(), want)
	}
}

// FuzzParseHeader: what is accepted is written back to the same bytes.
func FuzzParseHeader(f *testing.F) {
	f.Add(goodDatagram())
	f.Add([]byte{})
	f.Add(make([]byte, link.MaxDatagram))
	f.Fuzz(func(t *testing.T, d []byte) {
		h, err := link.ParseHeader(d)
		if err != nil {
			return
		}
		if !bytes.Equal(link.AppendHeader(nil, h), d[:link.HeaderSize]) || len(d) != h.Profile.DatagramSize() {
			t.Fatalf("accepted %x as %+v", d[:link.HeaderSize], h)
		}
	})
}

// FuzzParseParameters: what is accepted is valid and is written back to the same
// bytes.
func FuzzParseParameters(f *testing.F) {
	a := announcement(1)
	f.Add(link.AppendParameters(nil, a))
	f.Add(make([]byte, 128))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := link.Header{Profile: link.Profile1500}
		copy(h.Session[:], b)
		a, err := link.ParseParameters(b, h)
		if err != nil {
			return
		}
		if err := a.Validate(); err != nil {
			t.Fatalf("accepted what is not valid: %v", err)
		}
		if !bytes.Equal(link.AppendParameters(nil, a), b) {
			t.Fatalf("accepted %x as %+v", b, a)
		}
	})
}

// FuzzParseHeartbeat: what is accepted is written back to the same bytes.
func FuzzParseHeartbeat(f *testing.F) {
	f.Add(link.AppendHeartbeat(nil, link.Heartbeat{Pass: 1, State: link.StateIdle}, link.Profile1500))
	f.Add(make([]byte, 43))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := link.ParseHeartbeat(b)
		if err != nil || len(b) != 1408 {
			return
		}
		if !bytes.Equal(link.AppendHeartbeat(nil, h, link.Profile1500), b) {
			t.Fatalf("accepted %x as %+v", b[:43], h)
		}
	})
}
