// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"sluice/pkg/mofn"
)

// key is an open key in a token. It is safe for concurrent use; the token sees one caller at a time.
type key struct {
	file   *mofn.TokenKey
	uri    URI
	secret Secret
	load   loader

	mu   sync.Mutex
	s    *session // nil after the token was lost
	keys keys
	half half
	dead error // why no other PIN is tried
}

// Open opens a key in a token, and makes sure that it is the one of the file: the public key in the token, and the seed that unwraps. The
// caller closes it.
func Open(file *mofn.TokenKey, secret Secret) (Signer, error) {
	k, err := openKey(load, file, secret)
	if err != nil {
		return nil, err
	}
	return k, nil
}

func openKey(ld loader, file *mofn.TokenKey, secret Secret) (*key, error) {
	u, err := ParseURI(file.Token)
	if err != nil {
		return nil, err
	}
	switch {
	case len(u.ID) == 0:
		return nil, fmt.Errorf("%w: id is missing, which names the key in the token", ErrURI)
	case u.Type != "" && u.Type != "private":
		return nil, fmt.Errorf("%w: type is %s, and a key that signs is private", ErrURI, u.Type)
	}
	k := &key{file: file, uri: u, secret: secret, load: ld}
	if err := k.open(); err != nil {
		return nil, err
	}
	return k, nil
}

// open opens the session and checks the key. The lock is held, or nobody else has the key yet.
func (k *key) open() error {
	s, err := open(k.load, k.uri, k.file.Suite, 0, k.secret)
	if err != nil {
		return err
	}
	k.s = s
	if err := k.check(); err != nil {
		return errors.Join(err, k.drop())
	}
	return nil
}

func (k *key) check() error {
	c := curveOf(k.file.Suite)
	found, err := k.s.objects(k.uri.ID, c)
	if err != nil {
		return err
	}
	point, err := k.s.point(found.public, c)
	if err != nil {
		return err
	}
	public, err := k.file.PublicKey()
	if err != nil {
		return err
	}
	if !bytes.Equal(point, public.Classical()) {
		return fmt.Errorf("%w: what %s has under id %X is not the key %v of the file (%q); another token of this name, or a file of another key", ErrOtherKey, k.s.title, k.uri.ID, k.file.ID(), k.file.Comment)
	}
	k.keys, k.half = found, half{k.s, found.private, c, point}
	_, err = k.join()
	return err
}

// join unwraps the seed and joins both halves. The seed is wiped; what the library expanded from it lives until it is collected.
func (k *key) join() (*mofn.PrivateKey, error) {
	seed, err := k.s.unwrapSeed(k.keys.wrap, k.file)
	if err != nil {
		return nil, err
	}
	defer wipe(seed)
	joined, err := mofn.NewPrivateKey(k.file.Suite, seed, k.half)
	if err != nil {
		return nil, err
	}
	if joined.KeyID() != k.file.ID() {
		return nil, fmt.Errorf("%w: the seed in the file belongs to another key than its public key %v", ErrOtherKey, k.file.ID())
	}
	return joined, nil
}

// KeyID is the id of the key in the file, which the token was held to.
func (k *key) KeyID() mofn.KeyID { return k.file.ID() }

// Sign signs in the token. After a failure the session is given up, and the next call opens another: a token may have been taken out and be
// back. A PIN that was refused is not tried again: it would lock the token.
func (k *key) Sign(role string, message []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead != nil {
		return nil, k.dead
	}
	if k.s == nil {
		if err := k.open(); err != nil {
			if errors.Is(err, ErrPIN) || errors.Is(err, ErrLocked) {
				k.dead = fmt.Errorf("%w; not tried again: mend the PIN and start anew", err)
			}
			return nil, err
		}
	}
	joined, err := k.join()
	if err != nil {
		return nil, errors.Join(err, k.drop())
	}
	sig, err := joined.Sign(role, message)
	if err != nil && !errors.Is(err, mofn.ErrRole) {
		return nil, errors.Join(err, k.drop())
	}
	return sig, err
}

// drop gives the session up.
func (k *key) drop() error {
	if k.s == nil {
		return nil
	}
	s := k.s
	k.s = nil
	return s.close()
}

// Close logs out and lets the module go. A closed key does not sign.
func (k *key) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead == nil {
		k.dead = fmt.Errorf("%w: the key was closed", ErrToken)
	}
	return k.drop()
}
