// SPDX-License-Identifier: Apache-2.0

package composite

// Half is one signature algorithm: how its keys and signatures look in the draft's serialization, and what makes and checks
// them. Sizes are in bytes.
type Half struct {
	Name                       string // in half ids (trust.md section 1)
	PublicSize                 int
	SecretSize                 int
	RandomSize                 int // random bytes that make a private key
	MinSignature, MaxSignature int

	// Verifier checks a public key of any length and gives what verifies under it.
	Verifier func(public []byte) (Verifier, error)
	// Signer expands a private key of SecretSize bytes.
	Signer func(secret []byte) (Signer, error)
	// Secret makes a private key out of RandomSize uniformly random bytes.
	Secret func(random []byte) []byte
}

// Verifier reports whether sig is a signature of message. Any length of sig is allowed, and most are refused.
type Verifier func(message, sig []byte) bool

// Signer is the private key of one half, here or in a token.
type Signer interface {
	// Public gives the public key as it stands in a composite one.
	Public() []byte
	// Sign signs a message of some 200 bytes, all of it and not a hash of it.
	Sign(message []byte) ([]byte, error)
}

// signer is a Signer whose key is in memory.
type signer struct {
	public []byte
	sign   func(message []byte) ([]byte, error)
}

func (s signer) Public() []byte                      { return s.public }
func (s signer) Sign(message []byte) ([]byte, error) { return s.sign(message) }
