// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/zap"

	"sluice/internal/checkpoint/checkpointtest"
	"sluice/internal/cli"
	"sluice/internal/cli/clitest"
	"sluice/internal/dropbox"
	"sluice/internal/hub/hubtest"
	"sluice/internal/officer"
	"sluice/internal/packer"
	"sluice/internal/ticket"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/fec"
	"sluice/pkg/mofn"
	"sluice/pkg/quality/qualitytest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bastion-packer": main})
}

// TestScripts runs testdata/script: every verb and every exit code. Each script begins with keys/, made once, and with a Hub of its own.
func TestScripts(t *testing.T) {
	s := site(t)
	models := filepath.Join(t.TempDir(), "models")
	if err := checkpointtest.Write(models, checkpointtest.Small()); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			return errors.Join(s.Prepare(env), startHub(env, models))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit": clitest.Exit, "flip": clitest.Flip, "expand": clitest.Expand, "edit": clitest.Edit,
			"snapshot": snapshot(models), "evaluations": evaluations, "request": request, "merge": merge, "pickle": pickle,
			"shortfall": shortfall(s), "firstline": firstLineOf, "fingerprint": fingerprint, "started": started, "lastword": lastWord, "newpolicy": newPolicy, "proposalwords": proposalWords,
		},
		RequireUniqueNames: true,
	})
}

// startHub serves the base and the AWQ snapshot as org/base and org/awq, at $HUB.
func startHub(env *testscript.Env, models string) error {
	hub := hubtest.New()
	for name, dir := range map[string]string{"org/base": checkpointtest.Base(models), "org/awq": checkpointtest.AWQ(models)} {
		commit, err := hub.AddRepo(name, dir)
		if err != nil {
			return err
		}
		env.Setenv(strings.ToUpper(strings.TrimPrefix(name, "org/")), commit)
	}
	srv := httptest.NewServer(hub)
	env.Defer(srv.Close)
	env.Setenv("HUB", srv.URL)
	return nil
}

// snapshot is the script command `snapshot base|awq DIR`: a published model without the Hub.
func snapshot(models string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 {
			ts.Fatalf("usage: snapshot base|awq DIR")
		}
		ts.Check(os.CopyFS(ts.MkAbs(args[1]), os.DirFS(filepath.Join(models, args[0]))))
	}
}

// evaluations is the script command `evaluations pass|fail DIR`.
func evaluations(ts *testscript.TestScript, neg bool, args []string) {
	specs := map[string]qualitytest.Spec{"pass": qualitytest.Passing(1), "fail": qualitytest.Failing(1)}
	if neg || len(args) != 2 {
		ts.Fatalf("usage: evaluations pass|fail DIR")
	}
	ts.Check(qualitytest.Write(ts.MkAbs(args[1]), specs[args[0]]))
}

// pickle is the script command `pickle FILE`: what torch.save would leave, a pickle of protocol 4 that calls a function when it is read.
func pickle(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: pickle FILE")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."), 0o600))
}

// request is the script command `request JOB BOX [PREVIOUS-JOB]`: what the daemon's seal does, JOB/envelope.sluice is put up for approval, by
// trust.json of the script, or else of the site. It sets RELEASE (its id) and WORDS (what an officer types).
func request(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: request JOB BOX [PREVIOUS-JOB]")
	}
	object, err := os.ReadFile(ts.MkAbs("trust.json"))
	if errors.Is(err, os.ErrNotExist) {
		object, err = os.ReadFile(ts.MkAbs("keys/trust.json"))
	}
	ts.Check(err)
	st, err := trust.Parse(object)
	ts.Check(err)
	env, err := packer.ReadEnvelope(ts.MkAbs(args[0]))
	ts.Check(err)
	var prev *envelope.Envelope
	if len(args) == 3 {
		prev, err = packer.ReadEnvelope(ts.MkAbs(args[2]))
		ts.Check(err)
	}
	ts.Check(packer.Request(dropbox.Box{Dir: ts.MkAbs(args[1])}, st, env, prev))
	ts.Setenv("RELEASE", env.ID.String())
	ts.Setenv("WORDS", officer.Words(env))
}

// started is the script command `started CONFIG`: a daemon that looks upstream once, goes as far as it can, and stops.
func started(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: started CONFIG")
	}
	cfg, err := packer.LoadConfig(ts.MkAbs(args[0]))
	ts.Check(err)
	p, err := packer.Open(context.Background(), cfg, packer.Options{Logger: zap.NewNop(), Version: "test"})
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	ts.Check(p.Run(ctx))
	ts.Check(p.Close())
}

// merge is the script command `merge JOB BOX`: what the daemon's collect does, the approvals of a drop-box go into JOB/envelope.sluice.
func merge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: merge JOB BOX")
	}
	ts.Check(clitest.Merge(ts.MkAbs(args[0]), ts.MkAbs(args[1])))
}

// firstLineOf is the script command `firstline FILE TARGET`.
func firstLineOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: firstline FILE TARGET")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(firstLine(ts.ReadFile(args[0]))), 0o600))
}

// fingerprint is the script command `fingerprint FILE`: it sets FINGERPRINT to that of a trust object.
func fingerprint(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fingerprint FILE")
	}
	st, err := trust.Parse([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Setenv("FINGERPRINT", hex.EncodeToString(st.Fingerprint[:]))
}

// lastWord is the script command `lastword FILE NAME`: the last word of a file becomes a variable.
func lastWord(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lastword FILE NAME")
	}
	words := strings.Fields(ts.ReadFile(args[0]))
	ts.Setenv(args[1], words[len(words)-1])
}

// newPolicy is the script command `newpolicy FILE NEW.pub TARGET`: s.ito makes room for n.new. It sets OLDKEY to the key that leaves.
func newPolicy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: newpolicy FILE NEW.pub TARGET")
	}
	text := ts.ReadFile(args[0])
	_, id, _, _, err := mofn.ParsePublicFile([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	_, rest, _ := strings.Cut(text, "officer s.ito key ")
	old := rest[:64]
	ts.Setenv("OLDKEY", old)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(strings.NewReplacer("s.ito", "n.new", old, id.String()).Replace(text)), 0o600))
}

// proposalWords is the script command `proposalwords FILE`: it sets TYPED to what confirms the proposal that was printed.
func proposalWords(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: proposalwords FILE")
	}
	_, rest, _ := strings.Cut(ts.ReadFile(args[0]), "\nWORDS ")
	ts.Setenv("TYPED", strings.Join(strings.Fields(rest)[:2], " "))
}

// shortfall is the script command `shortfall JOB FILE [NAME=VALUE...]`: a ticket of rx-1 that lacks two source symbols of the sealed release in
// JOB. The values change it: receiver, key, release, payload, profile, groups, envelope, and in, the hours from now when it was made.
func shortfall(s *clitest.Site) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 2 {
			ts.Fatalf("usage: shortfall JOB FILE [NAME=VALUE...]")
		}
		env, err := packer.ReadEnvelope(ts.MkAbs(args[0]))
		ts.Check(err)
		var stream bytes.Buffer
		_, err = env.WriteTo(&stream)
		ts.Check(err)
		t := ticket.Ticket{
			Receiver: clitest.Receiver, Release: [32]byte(env.ID), Envelope: sha256.Sum256(stream.Bytes()), Profile: 1, Groups: 992,
			Payload: env.Statement.Predicate.TotalSize, Fresh: 20, Created: time.Now(), Need: fec.Selection{{Spans: 1, Source: []fec.Extent{{Count: 1}}}},
		}
		key := "ticket"
		for _, change := range args[2:] {
			name, value, _ := strings.Cut(change, "=")
			n, err := strconv.Atoi(value)
			switch name {
			case "receiver":
				t.Receiver, err = value, nil
			case "key":
				key, err = value, nil
			case "release":
				t.Release[0] ^= byte(n)
			case "envelope":
				t.Envelope[0] ^= byte(n)
			case "payload":
				t.Payload += int64(n)
			case "profile":
				t.Profile = n
			case "groups":
				t.Groups = n
			case "in":
				t.Created = t.Created.Add(time.Duration(n) * time.Hour)
			default:
				err = errors.New(change)
			}
			ts.Check(err)
		}
		secret, err := trust.OpenKey(s.Path(key), []byte(clitest.Passphrase))
		ts.Check(err)
		signed, err := ticket.Sign(t, ed25519.NewKeyFromSeed(secret.Secret))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(signed.Text()), 0o600))
	}
}

// site makes the keys and the trust object that tests share.
func site(t *testing.T) *clitest.Site {
	t.Helper()
	s, err := clitest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// call runs a command line in this process.
func call(t *testing.T, stdout, stderr io.Writer, args ...string) int {
	t.Helper()
	return cli.Run(t.Context(), root, args, cli.Streams{In: strings.NewReader(""), Out: stdout, Err: stderr})
}
