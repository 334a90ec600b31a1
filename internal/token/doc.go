// SPDX-License-Identifier: Apache-2.0

// Package token signs with keys in PKCS#11 tokens (docs/spec/trust.md section 2, "Keys in a token"), and is the one door to every key
// that signs, whatever holds it.
//
//	OpenSigner(path, secret) --> sealed file  --passphrase--> mofn.PrivateKey
//	                         \-> token file --URI--> module, token --PIN--> session: { Ed25519 or P-384, AES-256 }
//	Sign: unwrap the seed in the token -> join both halves (pkg/mofn) -> sign -> verify -> wipe the seed
//
// The token's code needs cgo and the build tag pkcs11 (`make build-pkcs11`). Without them the same calls answer [ErrNotBuilt]. One
// process has one session at a time: a PKCS#11 login is the process's and not the session's, so that a second one would sign without
// a PIN of its own.
package token
