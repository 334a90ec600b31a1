// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"sluice/internal/journal"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Decisions are the events of the officers' words in an envelope that are not in seen, a list of their digests: who decided what, under which
// key. Only words that verify and that count for the release's stream are among them. The caller adds job and actor.
func Decisions(st *trust.Store, env *envelope.Envelope, seen []string) ([]journal.Event, error) {
	prog, err := st.Progress(env)
	if err != nil {
		return nil, err
	}
	var out []journal.Event
	for _, n := range env.Approvals {
		digest := hex.EncodeToString(digestOf(n.Data))
		if slices.Contains(seen, digest) {
			continue
		}
		vote, err := trust.Vote(n)
		if err != nil {
			return nil, err
		}
		officer, key := signer(st, vote)
		e := journal.Event{Release: env.ID.String(), Officer: officer, Key: key, Digest: digest}
		switch {
		case officer == "":
			continue // by an unknown key, whoever it says it is of: never tried, and no event
		case slices.Contains(prog.Approved, officer):
			e.Action = ActionApprove
		case slices.Contains(prog.Rejected, officer):
			e.Action = ActionReject
		default:
			continue // not of those whose word counts here
		}
		claim, err := trust.Open(vote.Payload)
		if err != nil {
			return nil, err
		}
		e.Detail = fmt.Sprintf("as %s; checked %s", claim.Role, strings.Join(claim.Checked, ", "))
		out = append(out, e)
	}
	return out, nil
}

// signer names the officer whose enrolled key is on a vote; Progress has verified the signatures of those. "" when the key is of nobody.
func signer(st *trust.Store, vote mofn.Vote) (officer, key string) {
	if len(vote.Signatures) != 1 {
		return "", ""
	}
	id, err := mofn.ParseKeyID(vote.Signatures[0].KeyID)
	if err != nil {
		return "", ""
	}
	officer, _, _ = st.Policy.OfficerOf(id)
	return officer, id.String()
}

func digestOf(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}
