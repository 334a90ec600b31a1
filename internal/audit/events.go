// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/hex"
	"fmt"
	"strings"

	"sluice/internal/journal"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

// TrustEvent is the event of a trust object that arrived or took effect. The caller adds the actor.
func TrustEvent(action string, st *trust.Store) journal.Event {
	return journal.Event{
		Action: action, Digest: hex.EncodeToString(st.Fingerprint[:]),
		Detail: fmt.Sprintf("version %d, %s", st.Object.Version, strings.Join(mofn.Words(st.Fingerprint[:]), " ")),
	}
}

// OrderEvent is the event of an order that was accepted. The caller adds the actor.
func OrderEvent(o mofn.SignedOrder) journal.Event {
	what := strings.TrimSpace(o.Kind + " " + o.Target)
	if o.Action == mofn.ActionResume {
		what = strings.Join(o.Lifts, " ")
	}
	return journal.Event{
		Action: ActionOrder + " " + o.Action, Release: releaseOf(o.Order), Officer: o.Officer, Key: o.Key.String(), Digest: o.ID, Detail: what + ": " + o.Reason,
	}
}
