// SPDX-License-Identifier: Apache-2.0

package packer_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/dropbox"
	"sluice/internal/officer"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

// TestRotationThroughDropBox: officers sign the next trust object, and a bad signature by a known key that lies beside theirs holds nothing up.
func TestRotationThroughDropBox(t *testing.T) {
	l := newLow(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.Heed()) // shows officers the chain
	box := dropbox.Box{Dir: l.cfg.DropBox}
	anchor, err := officer.OpenAnchor(box, l.site.Path("trust.json"), l.site.Fingerprint)
	must(err)
	next := *anchor.Newest().Object
	next.Epochs = []mofn.Epoch{{Stream: "data/list", MinEpoch: 1, MinSeq: 1}}
	p, err := officer.Propose(box, anchor, &next)
	must(err)
	liar, err := l.site.Signer("s.ito")
	must(err)
	bad, err := trust.Sign(liar, "security", trust.PayloadType, p.Payload) // in another role: it does not verify as root's
	must(err)
	data, err := bad.Marshal()
	must(err)
	must(box.AddSignature(p.Version, p.Fingerprint, "s.ito", liar.KeyID().String(), data))
	for _, name := range []string{"a.roy", "m.lee", "q.ali"} {
		must(l.Heed())
		if l.Newest().Object.Version != 1 {
			t.Fatalf("taken before %s signed", name)
		}
		signer, err := l.site.Signer(name)
		must(err)
		p, err := officer.FindProposal(box, anchor, "")
		must(err)
		_, _, err = officer.SignProposal(box, p, signer)
		must(err)
	}
	must(errors.Join(l.Heed(), l.Heed()))
	if l.Newest().Object.Version != 2 {
		t.Fatal("a bad signature beside the quorum's holds the rotation up")
	}
	if _, err := os.Lstat(filepath.Join(l.cfg.DropBox, "trust/chain/000002.json")); err != nil {
		t.Error(err)
	}
	after, err := officer.OpenAnchor(box, l.site.Path("trust.json"), l.site.Fingerprint)
	must(err)
	if after.Newest().Object.Version != 2 || !strings.Contains(strings.Join(after.News, "\n"), "floor of data/list") {
		t.Errorf("officers see version %d: %q", after.Newest().Object.Version, after.News)
	}
}
