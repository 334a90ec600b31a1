// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"sluice/internal/durable"
	"sluice/internal/oms"
	"sluice/pkg/envelope"
)

// modelSigFile is the model signature in the spool; empty when it was decided that the release gets none.
const modelSigFile = "model.sig"

// errNoModelKey: this site signs no models.
var errNoModelKey = errors.New("receiver: keys.model_signing names no key")

// ModelSigning says in words whether this site signs models.
func ModelSigning(cfg Config) (string, error) {
	key, err := modelKey(cfg)
	if errors.Is(err, errNoModelKey) {
		return "models are not signed for OMS tools: keys.model_signing names no key", nil
	}
	if err != nil {
		return "", err
	}
	return "models are signed for OMS tools with key " + key.Public().Hint(), nil
}

// modelKey reads the key that signs models. It is not encrypted, so that others may not read it is all that keeps it.
func modelKey(cfg Config) (*oms.Key, error) {
	name := cfg.Keys.ModelSigning
	if name == "" {
		return nil, errNoModelKey
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("keys.model_signing: %w", err)
	}
	if open := info.Mode().Perm() & 0o007; open != 0 {
		return nil, fmt.Errorf("keys.model_signing %s: everybody may read or write it (mode %04o); make a new key, and keep it at mode 0600", name, info.Mode().Perm())
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("keys.model_signing: %w", err)
	}
	key, err := oms.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("keys.model_signing %s: %w", name, err)
	}
	return key, nil
}

// modelSignature gives the OMS bundle of a release of weights (docs/spec/model-signature.md), nil where there is none. Whether there is
// one, and which, is decided at the first try and kept in the spool: what was published once can only be published again with the
// same bytes, whatever the configuration became meanwhile (ADR 15).
func (r *Receiver) modelSignature(env *envelope.Envelope, sh *shelf) ([]byte, error) {
	if env.Statement.Predicate.Kind != envelope.KindModelWeights {
		return nil, nil
	}
	files := make([]oms.File, len(env.Statement.Subjects))
	for i, s := range env.Statement.Subjects {
		files[i] = oms.File{Path: s.Name, SHA256: [32]byte(s.Digest.SHA256)}
	}
	statement, err := oms.Statement("sha256-"+env.ID.String(), files)
	if err != nil {
		return nil, err
	}
	key, err := modelKey(r.cfg)
	if err != nil && !errors.Is(err, errNoModelKey) {
		return nil, err
	}
	kept, err := sh.root.ReadFile(modelSigFile)
	if err == nil && usable(kept, statement, key) {
		return kept, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("spooled model signature: %w", err)
	}
	var bundle []byte
	if key != nil {
		if bundle, err = key.Sign(statement); err != nil {
			return nil, err
		}
	}
	return bundle, durable.WriteFile(sh.root, modelSigFile, bundle, 0o600)
}

// usable tells whether what the spool keeps is the decision that was made, and not damage. A bundle of a key that is no longer here is
// held against the statement alone.
func usable(kept, statement []byte, key *oms.Key) bool {
	if len(kept) == 0 {
		return true
	}
	b, err := oms.Parse(kept)
	if err != nil || !bytes.Equal(b.Statement, statement) {
		return false
	}
	return key == nil || key.Public().Hint() != b.Hint || b.Verify(key.Public()) == nil
}
