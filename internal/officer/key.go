// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"sluice/pkg/mofn"
)

// Signer is an open key. Close lets a token go; a key in a file has nothing to close. Who opens it is the command: this package knows neither
// passphrases nor tokens.
type Signer interface {
	mofn.Signer
	io.Closer
}

const maxKeyFile = 64 << 10

// KeyIDOf reads the id that a key file names, without opening the key: the page says who would sign before a passphrase is asked for. It is
// compared with the key's own when that opens.
func KeyIDOf(path string) (mofn.KeyID, error) {
	f, err := os.Open(path)
	if err != nil {
		return mofn.KeyID{}, fmt.Errorf("key: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return mofn.KeyID{}, fmt.Errorf("key: %w", err)
	}
	var named struct {
		ID mofn.KeyID `json:"id"`
	}
	if err := json.Unmarshal(b, &named); err != nil || named.ID == (mofn.KeyID{}) {
		return mofn.KeyID{}, errors.Join(fmt.Errorf("%w: %s names no key id; it is no key file", mofn.ErrKeyFile, path), err)
	}
	return named.ID, nil
}
