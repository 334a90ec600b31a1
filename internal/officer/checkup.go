// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/console"
	"sluice/internal/dropbox"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Status is the verdict of one check before a ceremony.
type Status string

// The statuses, as those of internal/doctor. Only Bad keeps a ceremony from working.
const (
	Good    Status = "ok"
	Doubt   Status = "warn"
	Bad     Status = "fail"
	Unknown Status = "unknown"
)

// Finding is what one check found.
type Finding struct {
	ID                           string
	Status                       Status
	Seen, Wanted, Why, Fix, Note string
}

// CheckupRequest says what a checkup looks at.
type CheckupRequest struct {
	Box         dropbox.Box
	Trust       string // file
	Fingerprint string
	Key         string                 // file; "" where none is named
	Open        func() (Signer, error) // opens the key; nil: it is not tried
	Now         time.Time
}

// Checkup looks at everything that a ceremony needs, before the people are in the room. It writes one file into the drop-box and removes it.
func Checkup(r CheckupRequest) []Finding {
	var out []Finding
	anchor, f := r.pinned()
	out = append(out, f)
	out = append(out, r.box()...)
	chain, f := r.chain(anchor)
	out = append(out, f)
	if chain != nil {
		anchor = chain
	}
	out = append(out, r.key(anchor)...)
	out = append(out, r.requests(anchor), r.clock(anchor))
	return append(out, r.space())
}

func (f Finding) good(seen string) Finding {
	f.Status, f.Seen = Good, seen
	return f
}

func (f Finding) with(s Status, seen, fix string) Finding {
	f.Status, f.Seen, f.Fix = s, seen, fix
	return f
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// pinned gives the chain of the pinned object alone.
func (r *CheckupRequest) pinned() (*Anchor, Finding) {
	f := Finding{ID: "trust_object", Wanted: "the file whose fingerprint is pinned", Why: "everything that is shown is judged by it"}
	first, err := trust.Load(r.Trust, r.Fingerprint)
	if err != nil {
		return nil, f.with(Bad, oneLine(err), "copy trust.json from another officer and compare the eight words of trust fingerprint with the paper record")
	}
	return &Anchor{Chain: []*trust.Store{first}}, f.good(fmt.Sprintf("version %d, %s", first.Object.Version, strings.Join(mofn.Words(first.Fingerprint[:]), " ")))
}

func (r *CheckupRequest) box() []Finding {
	read := Finding{ID: "drop_box", Wanted: "readable", Why: "requests come from there"}
	write := Finding{ID: "drop_box_write", Wanted: "a new file can be made and read back", Why: "the decision is one new file"}
	names, err := r.Box.Requests()
	if err != nil {
		return []Finding{read.with(Bad, oneLine(err), "put the stick in, or mount the share, and say where with --drop-box"), write.with(Unknown, "", "")}
	}
	read = read.good(console.Count(len(names), "request"))
	if err := r.Box.TryWrite(); err != nil {
		return []Finding{read, write.with(Bad, oneLine(err), "mount it writable for you; slide the stick's switch; free space on it")}
	}
	return []Finding{read, write.good("made, read back, removed")}
}

func (r *CheckupRequest) chain(pinned *Anchor) (*Anchor, Finding) {
	f := Finding{ID: "trust_chain", Wanted: "verifies from the pinned version on", Why: "the newest version says who may decide"}
	if pinned == nil {
		return nil, f.with(Unknown, "", "")
	}
	a, err := OpenAnchor(r.Box, r.Trust, r.Fingerprint)
	if err != nil {
		return nil, f.with(Bad, oneLine(err), "do not decide anything; call the other officers and the bastion's operator")
	}
	if len(a.Chain) == 1 {
		return a, f.good("version 1 only")
	}
	return a, f.good(fmt.Sprintf("version %d; changed with it: %s", a.Newest().Object.Version, strings.Join(a.News, "; ")))
}

func (r *CheckupRequest) key(anchor *Anchor) []Finding {
	whose := Finding{ID: "key", Wanted: "the key of an officer of the newest version", Why: "only officers decide"}
	opens := Finding{ID: "passphrase", Wanted: "opens the key", Why: "better forgotten now than in the ceremony"}
	if r.Key == "" {
		return []Finding{whose.with(Unknown, "none named", "--key FILE, or officer init --key FILE"), opens.with(Unknown, "", "")}
	}
	id, err := KeyIDOf(r.Key)
	if err != nil {
		return []Finding{whose.with(Bad, oneLine(err), "name the key file with --key; a token must be in"), opens.with(Unknown, "", "")}
	}
	if anchor == nil {
		return []Finding{whose.with(Unknown, "", ""), opens.with(Unknown, "", "")}
	}
	you, err := anchor.PersonOf(id, r.Key)
	if err != nil {
		return []Finding{whose.with(Bad, oneLine(err), "use the enrolled key, or have the next version of the trust object enrol this one (trust propose)"), opens.with(Unknown, "", "")}
	}
	whose = whose.good(fmt.Sprintf("%s, role %s, key %.16s…", you.Officer, you.Role, id))
	if r.Open == nil {
		return []Finding{whose, opens.with(Unknown, "not tried", "--passphrase-file FILE or --ask tries it")}
	}
	signer, err := r.Open()
	if err != nil {
		return []Finding{whose, opens.with(Bad, oneLine(err), "try again slowly; a passphrase that is lost cannot be recovered: enrol a new key")}
	}
	held := signer.KeyID()
	if err := signer.Close(); err != nil {
		return []Finding{whose, opens.with(Bad, oneLine(err), "take the token out and put it in again")}
	}
	if held != id {
		return []Finding{whose, opens.with(Bad, fmt.Sprintf("it holds another key, %.16s…", held), "restore the key file from your backup")}
	}
	return []Finding{whose, opens.good("it does")}
}

func (r *CheckupRequest) requests(anchor *Anchor) Finding {
	f := Finding{ID: "requests", Wanted: "all read, each signed by an enrolled packer", Why: "what does not read cannot be decided"}
	names, err := r.Box.Requests()
	if err != nil || anchor == nil {
		return f.with(Unknown, "", "")
	}
	var bad []string
	for _, name := range names {
		req, err := r.Box.ReadRequest(name)
		if err == nil {
			err = anchor.Newest().CheckPacker(req.Envelope)
		}
		if err != nil {
			bad = append(bad, fmt.Sprintf("%+.80q: %s", name, oneLine(err)))
		}
	}
	if len(bad) > 0 {
		return f.with(Doubt, strings.Join(bad, "; "), "ask the bastion's operator what these are; the others can be decided")
	}
	return f.good(console.Count(len(names), "request"))
}

// clock: a clock before the newest thing that somebody signed is wrong. The other way round nobody here can tell.
func (r *CheckupRequest) clock(anchor *Anchor) Finding {
	f := Finding{ID: "clock", Wanted: "not before the newest signed thing here", Why: "decisions carry the time, and auditors read it"}
	newest, what := r.newestSigned(anchor)
	if newest.IsZero() {
		return f.with(Unknown, "", "")
	}
	if r.Now.Before(newest) {
		return f.with(Bad, fmt.Sprintf("%s, before %s of %s", envelope.FormatTime(r.Now), what, envelope.FormatTime(newest)), "timedatectl set-time, by a watch that you trust")
	}
	return f.good(fmt.Sprintf("%s; %s is of %s", envelope.FormatTime(r.Now), what, envelope.FormatTime(newest)))
}

func (r *CheckupRequest) newestSigned(anchor *Anchor) (newest time.Time, what string) {
	if anchor == nil {
		return newest, ""
	}
	later := func(text, of string) {
		if at, err := time.Parse(time.RFC3339, text); err == nil && at.After(newest) {
			newest, what = at.UTC(), of
		}
	}
	later(anchor.Newest().Object.Created, "the newest trust object")
	names, err := r.Box.Requests()
	if err != nil {
		return newest, what
	}
	for _, name := range names {
		if req, err := r.Box.ReadRequest(name); err == nil && anchor.Newest().CheckPacker(req.Envelope) == nil {
			later(req.Envelope.Statement.Predicate.Created, "the request "+name)
		}
	}
	if orders, err := ReadOrders(r.Box, anchor); err == nil {
		for _, o := range orders.All {
			later(o.At, "an order")
		}
	}
	return newest, what
}

// enoughSpace is what a decision may need on the stick, with room: two files of 64 KiB.
const enoughSpace = 1 << 20

func (r *CheckupRequest) space() Finding {
	f := Finding{ID: "space", Wanted: "1 MiB free", Why: "a decision is a file of some 10 KiB, written beside a dot file"}
	var st unix.Statfs_t
	err := unix.Statfs(r.Box.Dir, &st)
	if errors.Is(err, os.ErrNotExist) {
		return f.with(Unknown, "", "")
	}
	if err != nil {
		f.Note = oneLine(err)
		return f.with(Unknown, "", "")
	}
	free := int64(st.Bavail) * st.Bsize
	if free < enoughSpace {
		return f.with(Bad, console.Bytes(free)+" free", "remove old requests, or take another stick")
	}
	return f.good(console.Bytes(free) + " free")
}
