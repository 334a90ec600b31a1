// SPDX-License-Identifier: Apache-2.0

package mofn

import "sluice/pkg/mofn/internal/composite"

// Doors for the external tests: the draft's own vectors use contexts that no role has, and fuzzing must not pay for scrypt.

func VerifyContext(k *PublicKey, context, message, sig []byte) bool {
	return k.key.Verify(context, message, sig)
}

func SignContext(k *PrivateKey, context, message []byte) ([]byte, error) {
	return k.key.Sign(context, message)
}

func OpenSecretWithin(file, passphrase []byte, limit ScryptParams) (*SecretKey, error) {
	return openSecret(file, passphrase, limit)
}

func WordList() string { return wordList }

func PAE(payloadType string, payload []byte) []byte { return pae(payloadType, payload) }

func SplitPAE(message []byte) (string, []byte, bool) { return splitPAE(message) }

func LowOrderPoints() []string { return composite.LowOrderPoints() }

func CheckPoint(public []byte) error { return checkPoint(public) }

func EncodeTrust(t *Trust) ([]byte, error) { return t.encode() }

func EncodeOrder(o *Order) ([]byte, error) { return encodeCanonical(o.wire()) }

func EncodeSnapshot(s *Snapshot) ([]byte, error) { return encodeCanonical(s.wire()) }
