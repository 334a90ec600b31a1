// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/bbolt"

	"sluice/internal/admin"
	"sluice/internal/bulletin"
	"sluice/internal/cli"
	"sluice/internal/cli/clitest"
	"sluice/internal/link"
	"sluice/internal/receiver"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/fec"
	"sluice/pkg/mofn"
	"sluice/pkg/registry"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"diode-receiver": main})
}

// TestScripts runs testdata/script: every verb and every exit code. Each script begins with keys/, made once, and with high.yaml, which
// publishes into registry/.
func TestScripts(t *testing.T) {
	s, err := clitest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			if err := s.Prepare(env); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "high.yaml"), config(env.WorkDir, s.Fingerprint), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit": clitest.Exit, "flip": clitest.Flip, "edit": clitest.Edit, "medium": medium(t, s),
			"published": published, "lock": lock, "receiving": receiving, "serving": serving, "data": data, "decide": decide,
			"stopped": stopped(s),
		},
		RequireUniqueNames: true,
	})
}

func config(dir, fingerprint string) []byte {
	return fmt.Appendf(nil, `receiver: rx-1
state: %[1]s/state
admin: {listen: "unix:%[1]s/admin.sock"}
trust: {object: %[1]s/keys/trust.json, fingerprint: "%[2]s"}
keys: {hpke: %[1]s/keys/rx-1, passphrase_file: %[1]s/keys/passphrase}
link: {listen: "127.0.0.1:0", confine: best-effort}
registry: {directory: {path: %[1]s/registry}}
`, dir, fingerprint)
}

// medium is the script command `medium DIR STREAM SEQ OFFICER...`: DIR/payload becomes a sealed release, approved by the officers. It sets
// RELEASE to its id.
func medium(t *testing.T, s *clitest.Site) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 3 {
			ts.Fatalf("usage: medium DIR STREAM SEQ OFFICER...")
		}
		seq, err := strconv.ParseInt(args[2], 10, 64)
		ts.Check(err)
		env, err := s.Seal(t.Context(), ts.MkAbs(args[0]), args[1], seq, args[3:]...)
		ts.Check(err)
		ts.Setenv("RELEASE", env.ID.String())
	}
}

// stopped is the script command `stopped FILE RELEASE OFFICER`: a bulletin in which the officer stops the release. Its snapshot is of nobody's
// heartbeat key, which holds up no order. It sets ORDER to the order's id.
func stopped(s *clitest.Site) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 3 {
			ts.Fatalf("usage: stopped FILE RELEASE OFFICER")
		}
		store, err := s.Trust()
		ts.Check(err)
		chain, err := os.ReadFile(s.Path("trust.json"))
		ts.Check(err)
		signer, err := s.Signer(args[2])
		ts.Check(err)
		_, role, _ := store.Policy.OfficerOf(signer.KeyID())
		now := envelope.FormatTime(time.Now())
		o := mofn.Order{Root: s.Fingerprint, Action: mofn.ActionStop, Kind: mofn.KindRelease, Target: args[1], Officer: args[2], Role: role, At: now, Reason: "a doubt"}
		payload, err := o.Marshal()
		ts.Check(err)
		ts.Setenv("ORDER", mofn.OrderID(payload))
		b := bulletin.Bulletin{Trust: [][]byte{chain}, Orders: []bulletin.Order{{ID: mofn.OrderID(payload), Data: signed(ts, signer, role, mofn.OrderPayloadType, payload)}}}
		snapshot := mofn.Snapshot{
			Site: "bastion-1", Root: s.Fingerprint, Counter: 1, Interval: 60, At: now,
			Trust: mofn.TrustRef{Version: 1, Fingerprint: s.Fingerprint}, Orders: []string{mofn.OrderID(payload)},
		}
		payload, err = snapshot.Marshal()
		ts.Check(err)
		b.Snapshot = signed(ts, signer, mofn.RoleHeartbeat, mofn.SnapshotPayloadType, payload)
		stream, err := b.Bytes()
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), stream, 0o600))
	}
}

// signed is the DSSE envelope of a payload.
func signed(ts *testscript.TestScript, signer mofn.Signer, role, payloadType string, payload []byte) []byte {
	d, err := trust.Sign(signer, role, payloadType, payload)
	ts.Check(err)
	data, err := d.Marshal()
	ts.Check(err)
	return data
}

// published is the script command `published FILE`: it sets PUBLISHED to the path of the only published file of that name.
func published(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: published FILE")
	}
	var found []string
	ts.Check(filepath.WalkDir(ts.MkAbs("registry"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() == args[0] {
			found = append(found, path)
		}
		return err
	}))
	if len(found) != 1 {
		ts.Fatalf("%d published files are called %s: %v", len(found), args[0], found)
	}
	ts.Check(os.Chmod(filepath.Dir(found[0]), 0o700)) // the script will damage it
	ts.Setenv("PUBLISHED", found[0])
}

// decide is the script command `decide CONFIG stop|revoke NAME RELEASE REASON`: what an officer decides about a published release, as the
// receiver hands it to the registry.
func decide(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: decide CONFIG stop|revoke NAME RELEASE REASON")
	}
	cfg, err := receiver.LoadConfig(ts.MkAbs(args[0]))
	ts.Check(err)
	reg, err := receiver.OpenRegistry(cfg)
	ts.Check(err)
	id, err := envelope.ParseDigest(args[3])
	ts.Check(err)
	w := registry.Withdrawal{Final: args[1] == "revoke", Reason: args[4], Orders: []string{args[3]}}
	ts.Check(reg.Withdraw(context.Background(), args[2], [32]byte(id), w))
	ts.Check(reg.Close())
}

// lock is the script command `lock JOURNAL`: another process has it open until the script ends.
func lock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lock JOURNAL")
	}
	db, err := bbolt.Open(ts.MkAbs(args[0]), 0o600, nil)
	ts.Check(err)
	ts.Defer(func() { ts.Check(db.Close()) })
}

// receiving is the script command `receiving CONFIG MEDIUM N`: a daemon without a link, until the script ends, to which all of a sealed
// release has come but its first N source symbols.
func receiving(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: receiving CONFIG MEDIUM N")
	}
	lost, err := strconv.Atoi(args[2])
	ts.Check(err)
	cfg, err := receiver.LoadConfig(ts.MkAbs(args[0]))
	ts.Check(err)
	r, err := receiver.Open(context.Background(), cfg, receiver.Options{})
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ts.Check(arrive(r, ts.MkAbs(args[1]), lost))
	srv, err := admin.Listen(ctx, admin.Options{Addr: cfg.Admin.Listen, Status: r.Status, Ticket: r.Ticket})
	ts.Check(err)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx) }()
	ts.Defer(func() { cancel(); ts.Check(<-done); ts.Check(r.Close()) })
}

// serving is the script command `serving CONFIG`: a daemon without a link, until the script ends.
func serving(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serving CONFIG")
	}
	cfg, err := receiver.LoadConfig(ts.MkAbs(args[0]))
	ts.Check(err)
	r, err := receiver.Open(context.Background(), cfg, receiver.Options{Version: "test"})
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	page := cli.AuditPage{Log: r.Audit()}
	srv, err := admin.Listen(ctx, admin.Options{Addr: cfg.Admin.Listen, Audit: page.Head, AuditEvents: page.Events})
	ts.Check(err)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx) }()
	ts.Defer(func() { cancel(); ts.Check(<-done); ts.Check(r.Close()) })
}

// data is the script command `data FILE SIZE`.
func data(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: data FILE SIZE")
	}
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[0])), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), bytes.Repeat([]byte("data"), size/4), 0o600))
}

// arrive gives a receiver the envelope and the source symbols of a release of one file, but the first few.
func arrive(r *receiver.Receiver, dir string, lost int) error {
	stream, err := os.ReadFile(filepath.Join(dir, "envelope.sluice"))
	if err != nil {
		return err
	}
	env, err := envelope.Read(bytes.NewReader(stream))
	if err != nil {
		return err
	}
	size := env.Statement.Predicate.TotalSize
	g, err := fec.New(size, link.Profile1500.SymbolSize(), 992)
	if err != nil {
		return err
	}
	a := link.Announcement{Profile: link.Profile1500, Release: [32]byte(env.ID), EnvelopeSize: int64(len(stream)), PayloadSize: size, Groups: g.Groups, Pass: 1}
	payload, err := r.Envelope(context.Background(), a, bytes.NewReader(stream), int64(len(stream)))
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(dir, "payload", "data.bin"))
	data = append(data, make([]byte, g.SymbolSize)...) // the last symbol is padded
	for i := lost; err == nil && int64(i) < g.Symbols(); i++ {
		_, err = payload.Put(0, uint32(i), data[g.Span(0).Offset(i):][:g.SymbolSize])
	}
	for received := lost > 0; err == nil && !received; {
		job, jerr := r.Journal().Get(env.ID.String()) // it is recorded by another goroutine
		received, err = job.State == "RECEIVED", jerr
	}
	return err
}
