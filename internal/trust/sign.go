// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"

	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Sign wraps a payload in a DSSE envelope with one signature, made in a role.
func Sign(signer mofn.Signer, role, payloadType string, payload []byte) (*envelope.DSSE, error) {
	sig, err := signer.Sign(role, envelope.PAE(payloadType, payload))
	if err != nil {
		return nil, fmt.Errorf("sign as %s: %w", role, err)
	}
	return &envelope.DSSE{
		Payload: payload, PayloadType: payloadType,
		Signatures: []envelope.Signature{{KeyID: signer.KeyID().String(), Sig: sig}},
	}, nil
}

// SignaturesOf turns the signatures of a DSSE envelope into those of the policy.
func SignaturesOf(d *envelope.DSSE) []mofn.Signature { return signatures(d.Signatures) }
