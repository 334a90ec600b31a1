// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/checkpoint"
	"sluice/internal/durable"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/oms"
	"sluice/internal/receiver"
	"sluice/internal/spool"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/registry"
)

// classes is what every error that another package names means for a release. Those that only a start or a datagram can meet are
// transient like everything that nobody named: they must never refuse a release.
func classes() map[receiver.Disposition]map[string]error {
	return map[receiver.Disposition]map[string]error{
		receiver.Refused: {
			"envelope.ErrFormat": envelope.ErrFormat, "envelope.ErrDigest": envelope.ErrDigest, "envelope.ErrVersion": envelope.ErrVersion,
			"envelope.ErrConflict": envelope.ErrConflict,
			"mofn.ErrSignature":    mofn.ErrSignature, "mofn.ErrUnknownPacker": mofn.ErrUnknownPacker, "mofn.ErrDuplicate": mofn.ErrDuplicate,
			"mofn.ErrTooMany": mofn.ErrTooMany, "mofn.ErrClaim": mofn.ErrClaim, "mofn.ErrRejected": mofn.ErrRejected,
			"mofn.ErrThreshold": mofn.ErrThreshold, "mofn.ErrTooLarge": mofn.ErrTooLarge, "mofn.ErrNoRule": mofn.ErrNoRule,
			"trust.ErrAudience": trust.ErrAudience, "trust.ErrExpired": trust.ErrExpired, "trust.ErrRollback": trust.ErrRollback,
			"trust.ErrFastForward": trust.ErrFastForward, "trust.ErrVoteName": trust.ErrVoteName, "trust.ErrRevoked": trust.ErrRevoked,
			"mofn.ErrOrder": mofn.ErrOrder, "mofn.ErrSnapshot": mofn.ErrSnapshot,
			"registry.ErrConflict": registry.ErrConflict, "registry.ErrRollback": registry.ErrRollback, "registry.ErrInvalid": registry.ErrInvalid,
			"registry.ErrWithdrawn": registry.ErrWithdrawn,
			"journal.ErrRollback":   journal.ErrRollback,
			"checkpoint.ErrTooMany": checkpoint.ErrTooMany, "checkpoint.ErrSafetensors": checkpoint.ErrSafetensors,
		},
		receiver.Broken: {
			"durable.ErrSync": durable.ErrSync, "spool.ErrBroken": spool.ErrBroken, "link.ErrBroken": link.ErrBroken,
			"registry.ErrStopped": registry.ErrStopped, "journal.ErrSync": journal.ErrSync, "journal.ErrCorrupt": journal.ErrCorrupt, "journal.ErrTampered": journal.ErrTampered,
		},
		receiver.Transient: {
			"mofn.ErrKey": mofn.ErrKey, "mofn.ErrRole": mofn.ErrRole, "mofn.ErrKeyFile": mofn.ErrKeyFile, "mofn.ErrPassphrase": mofn.ErrPassphrase,
			"trust.ErrStopped": trust.ErrStopped, "mofn.ErrUnknownSigner": mofn.ErrUnknownSigner,
			"mofn.ErrPolicy": mofn.ErrPolicy, "mofn.ErrTrust": mofn.ErrTrust, "trust.ErrFingerprint": trust.ErrFingerprint,
			"registry.ErrUnavailable": registry.ErrUnavailable, "registry.ErrNotFound": registry.ErrNotFound, "registry.ErrCorrupt": registry.ErrCorrupt,
			"registry.ErrNoSpace": registry.ErrNoSpace, "registry.ErrUnsafe": registry.ErrUnsafe, "registry.ErrDenied": registry.ErrDenied,
			"registry.ErrFinal": registry.ErrFinal, "registry.ErrNoVersions": registry.ErrNoVersions,
			"durable.ErrNoSpace": durable.ErrNoSpace,
			"spool.ErrClosed":    spool.ErrClosed, "spool.ErrMismatch": spool.ErrMismatch, "spool.ErrBusy": spool.ErrBusy, "spool.ErrFiles": spool.ErrFiles,
			"spool.ErrSymbol": spool.ErrSymbol, "spool.ErrRange": spool.ErrRange, "spool.ErrESI": spool.ErrESI,
			"journal.ErrLocked": journal.ErrLocked, "journal.ErrVersion": journal.ErrVersion, "journal.ErrExists": journal.ErrExists,
			"journal.ErrNotFound": journal.ErrNotFound, "journal.ErrTransition": journal.ErrTransition, "journal.ErrInvalid": journal.ErrInvalid,
			"link.ErrMAC1": link.ErrMAC1, "link.ErrSignature": link.ErrSignature, "link.ErrNotNow": link.ErrNotNow, "link.ErrUnreadable": link.ErrUnreadable, "link.ErrKey": link.ErrKey,
			"link.ErrEnvelopeDigest": link.ErrEnvelopeDigest, "link.ErrConfig": link.ErrConfig, "link.ErrBusy": link.ErrBusy, "link.ErrLanes": link.ErrLanes,
			"link.ErrBatch": link.ErrBatch, "link.ErrTooLong": link.ErrTooLong, "link.ErrOffload": link.ErrOffload, "link.ErrSocket": link.ErrSocket,
			"link.ErrLength": link.ErrLength, "link.ErrMagic": link.ErrMagic, "link.ErrType": link.ErrType, "link.ErrProfile": link.ErrProfile,
			"link.ErrReserved": link.ErrReserved, "link.ErrParameters": link.ErrParameters, "link.ErrHeartbeat": link.ErrHeartbeat,
			"link.ErrShort": link.ErrShort,
			"oms.ErrKey":    oms.ErrKey, "oms.ErrFormat": oms.ErrFormat, "oms.ErrSignature": oms.ErrSignature,
			"checkpoint.ErrOptions": checkpoint.ErrOptions, "checkpoint.ErrReport": checkpoint.ErrReport,
		},
	}
}

func TestClassify(t *testing.T) {
	for want, list := range classes() {
		for name, err := range list {
			if got := receiver.Classify(fmt.Errorf("of a release: %w", err)); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
			if got := receiver.Classify(errors.Join(err, durable.ErrSync)); got != receiver.Broken {
				t.Errorf("%s together with a failed fsync is %s", name, got)
			}
		}
	}
	for err, want := range map[error]receiver.Disposition{
		context.Canceled: receiver.Transient, context.DeadlineExceeded: receiver.Transient, os.ErrPermission: receiver.Transient,
		&mofn.ThresholdError{}: receiver.Refused, &envelope.PayloadError{}: receiver.Refused, &durable.NoSpaceError{}: receiver.Transient,
	} {
		if got := receiver.Classify(err); got != want {
			t.Errorf("%T is %s, want %s", err, got, want)
		}
	}
}

// TestEverySentinelIsClassified reads the sources, so that an error which is new must be thought about.
func TestEverySentinelIsClassified(t *testing.T) {
	known := map[string]bool{}
	for _, list := range classes() {
		for name := range list {
			known[name] = true
		}
	}
	found := sentinels(t)
	for name := range found {
		if !known[name] {
			t.Errorf("%s has no disposition: add it to classes, and to docs/errors.md", name)
		}
	}
	for name := range known {
		if !found[name] {
			t.Errorf("%s is gone", name)
		}
	}
}

// TestErrorsPage: docs/errors.md tells a user what to do about each.
func TestErrorsPage(t *testing.T) {
	b, err := os.ReadFile("../../docs/errors.md")
	must(t, err)
	page := string(b)
	for disposition, list := range classes() {
		for name := range list {
			if !strings.Contains(page, "`"+name+"`") {
				t.Errorf("docs/errors.md does not name %s (%s)", name, disposition)
			}
		}
	}
	for _, err := range receiver.Named() {
		if text := err.Error(); strings.HasPrefix(text, "receiver: ") && !strings.Contains(page, text) {
			t.Errorf("docs/errors.md does not quote %q", text)
		}
	}
}

// sentinels lists the exported variables Err* of the packages whose errors a release can meet.
func sentinels(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, dir := range []string{"pkg/envelope", "pkg/mofn", "pkg/registry", "internal/trust", "internal/spool", "internal/durable", "internal/link", "internal/journal", "internal/checkpoint", "internal/oms"} {
		names, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
		must(t, err)
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			must(t, err)
			for _, e := range errVars(f) {
				out[path.Base(dir)+"."+e] = true
			}
		}
	}
	if len(out) < 60 {
		t.Fatalf("only %d sentinels found: the sources are elsewhere", len(out))
	}
	return out
}

func errVars(f *ast.File) (names []string) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, s := range g.Specs {
			for _, n := range s.(*ast.ValueSpec).Names {
				if strings.HasPrefix(n.Name, "Err") {
					names = append(names, n.Name)
				}
			}
		}
	}
	return names
}
