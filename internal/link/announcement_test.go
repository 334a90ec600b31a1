// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"errors"
	"testing"

	"sluice/internal/link"
)

// sealed returns an announcement datagram and its session key.
func sealed(t testing.TB, k keys, a link.Announcement) ([]byte, [32]byte) {
	t.Helper()
	d, key, err := link.SealAnnouncement(fixedRandom(1), a, k.link, k.receiver)
	if err != nil {
		t.Fatal(err)
	}
	return d, key
}

func opener(t testing.TB, k keys, links ...ed25519.PublicKey) *link.AnnouncementOpener {
	t.Helper()
	o, err := link.NewAnnouncementOpener(k.private, links)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestAnnouncementRoundTrip(t *testing.T) {
	k, stranger := newKeys(20), newKeys(21)
	for _, p := range []link.Profile{link.Profile1500, link.Profile9000} {
		a := announcement(1)
		a.Profile = p
		d, key := sealed(t, k, a)
		equal(t, "length", len(d), p.DatagramSize())
		o := opener(t, k, stranger.public(), k.public()) // any link key will do
		if !o.CheckMAC1(d) {
			t.Error("mac1 refused")
		}
		got, gotKey, err := o.Open(d)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "announcement", got, a)
		equal(t, "session key", gotKey, key)
	}
}

// TestAnnouncementByStandardLibrary opens an announcement with crypto/hpke, which
// shares no code with circl: the construction is RFC 9180 and not a library's.
func TestAnnouncementByStandardLibrary(t *testing.T) {
	k, a := newKeys(22), announcement(3)
	d, key := sealed(t, k, a)
	private, err := hpke.MLKEM768X25519().NewPrivateKey(k.private)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(private.PublicKey().Bytes(), k.receiver) {
		t.Fatal("the two libraries derive different public keys")
	}
	body := d[28:]
	r, err := hpke.NewRecipient(body[:1120], private, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("sluice-link-v1"))
	if err != nil {
		t.Fatal(err)
	}
	parameters, err := r.Open(d[:12], body[1120:1264])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(parameters, link.AppendParameters(nil, a)) {
		t.Errorf("parameters %x", parameters)
	}
	exported, err := r.Export("sluice-session-key-v1", 32)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(exported, key[:]) {
		t.Error("the two libraries export different session keys")
	}
}

// TestAnnouncementAltered changes every byte of an announcement in turn: none is
// accepted, whether mac1 is made right again or not.
func TestAnnouncementAltered(t *testing.T) {
	k := newKeys(23)
	d, _ := sealed(t, k, announcement(1))
	o := opener(t, k, k.public())
	for i := range d {
		altered := bytes.Clone(d)
		altered[i] ^= 1
		if _, err := link.ParseHeader(altered); err != nil {
			continue // magic, type, profile or reserved
		}
		if o.CheckMAC1(altered) {
			t.Errorf("byte %d altered: mac1 accepted", i)
		}
		if i >= len(d)-link.TagSize {
			continue // only mac1 itself
		}
		if _, _, err := o.Open(altered); err == nil {
			t.Errorf("byte %d altered: opened by one who skipped mac1", i)
		}
	}
}

func TestAnnouncementRefused(t *testing.T) {
	k, other := newKeys(24), newKeys(25)
	d, _ := sealed(t, k, announcement(1))
	if _, _, err := opener(t, k, other.public()).Open(d); !errors.Is(err, link.ErrSignature) {
		t.Errorf("unknown link key: %v", err)
	}
	toOther, _, err := link.SealAnnouncement(fixedRandom(1), announcement(1), k.link, other.receiver)
	if err != nil {
		t.Fatal(err)
	}
	o := opener(t, k, k.public())
	if o.CheckMAC1(toOther) {
		t.Error("mac1 of another receiver accepted")
	}
	if _, _, err := o.Open(toOther); !errors.Is(err, link.ErrUnreadable) {
		t.Errorf("sealed to another receiver: %v", err)
	}
}

func TestAnnouncementKeys(t *testing.T) {
	k := newKeys(26)
	bad := announcement(1)
	bad.Groups = 0
	for _, tt := range []struct {
		name     string
		a        link.Announcement
		linkKey  ed25519.PrivateKey
		receiver []byte
		want     error
	}{
		{"parameters", bad, k.link, k.receiver, link.ErrParameters},
		{"link key", announcement(1), k.link[:32], k.receiver, link.ErrKey},
		{"receiver key", announcement(1), k.link, k.receiver[1:], link.ErrKey},
		{"no receiver key", announcement(1), k.link, nil, link.ErrKey},
	} {
		if _, _, err := link.SealAnnouncement(fixedRandom(1), tt.a, tt.linkKey, tt.receiver); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	for _, tt := range []struct {
		name    string
		private []byte
		links   []ed25519.PublicKey
	}{
		{"short seed", k.private[1:], []ed25519.PublicKey{k.public()}},
		{"no link key", k.private, nil},
		{"short link key", k.private, []ed25519.PublicKey{k.public()[1:]}},
	} {
		if _, err := link.NewAnnouncementOpener(tt.private, tt.links); !errors.Is(err, link.ErrKey) {
			t.Errorf("%s: %v, want ErrKey", tt.name, err)
		}
	}
}

func BenchmarkOpenAnnouncement(b *testing.B) {
	k := newKeys(27)
	d, _ := sealed(b, k, announcement(1))
	o := opener(b, k, k.public())
	b.Run("mac1", func(b *testing.B) {
		for b.Loop() {
			o.CheckMAC1(d)
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := o.Open(d); err != nil {
				b.Fatal(err)
			}
		}
	})
}
