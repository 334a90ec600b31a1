// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"bytes"
	"fmt"
	"strconv"
)

// TrustPayloadType is the DSSE payload type of a trust object (trust.md section 4).
const TrustPayloadType = "application/vnd.sluice.trust.v1+json"

// pae is the DSSE pre-authentication encoding (DSSE 1.0.2; envelope.md section 2), what is signed.
func pae(payloadType string, payload []byte) []byte {
	head := fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	return append(head, payload...)
}

// splitPAE takes a signed message apart again. It accepts exactly what pae makes, so that a caller who hands over a payload
// together with the message of another one is caught here.
func splitPAE(message []byte) (payloadType string, payload []byte, ok bool) {
	rest, ok := bytes.CutPrefix(message, []byte("DSSEv1 "))
	if !ok {
		return "", nil, false
	}
	kind, rest, ok := cutCounted(rest)
	if !ok || len(rest) == 0 || rest[0] != ' ' {
		return "", nil, false
	}
	payload, rest, ok = cutCounted(rest[1:])
	return string(kind), payload, ok && len(rest) == 0
}

// cutCounted reads "<decimal length> SP <that many bytes>".
func cutCounted(b []byte) (field, rest []byte, ok bool) {
	const digits = 19 // of the largest int64; a longer count cannot be the length of anything
	head, _, ok := bytes.Cut(b[:min(len(b), digits+1)], []byte(" "))
	if !ok {
		return nil, nil, false
	}
	n, err := strconv.Atoi(string(head))
	if err != nil || n < 0 || strconv.Itoa(n) != string(head) {
		return nil, nil, false
	}
	rest = b[len(head)+1:]
	if n > len(rest) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}
