// SPDX-License-Identifier: Apache-2.0

package packer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"sluice/internal/hub"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/packer"
	"sluice/internal/ticket"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/quality"
)

// TestRefused names every error that a stage can meet: a verdict ends the job, everything else is tried again.
func TestRefused(t *testing.T) {
	for verdict, errs := range map[bool][]error{
		true: {
			packer.ErrInspection, packer.ErrGate, packer.ErrSuperseded, quality.ErrMissingItems, quality.ErrPairing, &quality.RejectedError{},
			envelope.ErrFormat, envelope.ErrDigest, envelope.ErrVersion, envelope.ErrConflict, &envelope.PayloadError{},
			mofn.ErrRejected, mofn.ErrThreshold, &mofn.ThresholdError{}, mofn.ErrSignature, mofn.ErrDuplicate, mofn.ErrTooMany, mofn.ErrClaim,
			mofn.ErrUnknownPacker, mofn.ErrTooLarge, mofn.ErrNoRule,
			trust.ErrAudience, trust.ErrExpired, trust.ErrRollback, trust.ErrVoteName,
			hub.ErrRepoNotFound, hub.ErrRevisionNotFound, hub.ErrMasked, hub.ErrPath,
			ticket.ErrFormat, ticket.ErrTyping, ticket.ErrSignature, ticket.ErrReceiver, ticket.ErrOther,
		},
		false: {
			nil, context.Canceled, context.DeadlineExceeded, io.ErrUnexpectedEOF, os.ErrNotExist, os.ErrPermission, errors.New("unknown"),
			hub.ErrUnavailable, hub.ErrProtocol, hub.ErrGated, hub.ErrToken, hub.ErrForbidden, hub.ErrRepoMoved, hub.ErrEntryNotFound, hub.ErrDigest,
			hub.ErrStray, hub.ErrLimit, hub.ErrConfig, quality.ErrNoSamples, quality.ErrMalformed, quality.ErrMargins, quality.ErrSameRun,
			journal.ErrLocked, journal.ErrSync, journal.ErrCorrupt, link.ErrConfig, link.ErrBusy, link.ErrShort, mofn.ErrPassphrase, trust.ErrFingerprint,
		},
	} {
		for _, err := range errs {
			if got := packer.Refused(err); got != verdict {
				t.Errorf("Refused(%v) = %v", err, got)
			}
			if err == nil {
				continue
			}
			if wrapped := fmt.Errorf("stage: %w", err); packer.Refused(wrapped) != verdict {
				t.Errorf("Refused(%v) changes with its context", wrapped)
			}
		}
	}
}
