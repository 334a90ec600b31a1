// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/miekg/pkcs11"
)

// What the library lacks (PKCS#11 3.0).
const (
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
	ckkECEdwards           = 0x40
)

// cryptoki is as much of PKCS#11 as is used. *pkcs11.Ctx is one; tests put faults in front of it.
type cryptoki interface {
	Initialize(...pkcs11.InitializeOption) error
	Finalize() error
	Destroy()
	GetInfo() (pkcs11.Info, error)
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetSlotInfo(slot uint) (pkcs11.SlotInfo, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	GetMechanismList(slot uint) ([]*pkcs11.Mechanism, error)
	OpenSession(slot, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(pkcs11.SessionHandle) error
	Login(s pkcs11.SessionHandle, user uint, pin string) error
	Logout(pkcs11.SessionHandle) error
	FindObjectsInit(pkcs11.SessionHandle, []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, most int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(pkcs11.SessionHandle) error
	GetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	GenerateKey(pkcs11.SessionHandle, []*pkcs11.Mechanism, []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error)
	DestroyObject(pkcs11.SessionHandle, pkcs11.ObjectHandle) error
	EncryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Encrypt(pkcs11.SessionHandle, []byte) ([]byte, error)
	DecryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Decrypt(pkcs11.SessionHandle, []byte) ([]byte, error)
	SignInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Sign(pkcs11.SessionHandle, []byte) ([]byte, error)
}

// load loads and initializes the module of a URI. The caller unloads it.
func load(u URI) (cryptoki, error) {
	path, err := findModule(u)
	if err != nil {
		return nil, err
	}
	if err := checkModule(path); err != nil {
		return nil, err
	}
	m := pkcs11.New(path)
	if m == nil {
		return nil, fmt.Errorf("%w: %s does not load: it is no PKCS#11 module, it is for another processor, or a library that it needs is missing (ldd %s)", ErrModule, path, path)
	}
	if err := m.Initialize(); err != nil {
		m.Destroy()
		if errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
			return nil, fmt.Errorf("%w: close the other key of %s first%s", ErrLoggedIn, path, ckr(err))
		}
		return nil, fmt.Errorf("%w: %s does not start: look at its own configuration (SoftHSM: SOFTHSM2_CONF)%s", ErrModule, path, ckr(err))
	}
	return m, nil
}

// unload ends everything that the process has in the module.
func unload(m cryptoki) error {
	err := m.Finalize()
	m.Destroy()
	if err != nil {
		return fmt.Errorf("%w: C_Finalize%s", ErrToken, ckr(err))
	}
	return nil
}

// folders are where packages put PKCS#11 modules.
func folders() []string {
	return []string{
		"/usr/lib/pkcs11", "/usr/lib/*-linux-gnu/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/softhsm", "/usr/lib/*-linux-gnu/softhsm",
		"/usr/lib64/softhsm", "/usr/local/lib/pkcs11", "/usr/local/lib/softhsm", "/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib",
	}
}

// findModule gives the path of the module that a URI names.
func findModule(u URI) (string, error) {
	if u.ModulePath != "" {
		return u.ModulePath, nil
	}
	if u.ModuleName == "" {
		return "", fmt.Errorf("%w: it names no module: add ?module-path=/usr/lib/softhsm/libsofthsm2.so, or whatever the maker of the token installed", ErrURI)
	}
	for _, folder := range folders() {
		dirs, err := filepath.Glob(folder)
		if err != nil {
			return "", err
		}
		for _, dir := range dirs {
			for _, name := range []string{"lib" + u.ModuleName + ".so", u.ModuleName + ".so"} {
				if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
					return filepath.Join(dir, name), nil
				}
			}
		}
	}
	return "", fmt.Errorf("%w: no module %q in the folders where packages put them; name it with module-path", ErrModule, u.ModuleName)
}

// checkModule: a module is code that runs here, and its name comes out of a file that may have crossed a stick. So root owns it, and all that
// leads to it, and nobody else may write there.
func checkModule(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("%w: %w; is it installed?", ErrModule, err)
	}
	for at := real; ; at = filepath.Dir(at) {
		fi, err := os.Lstat(at)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrModule, err)
		}
		if at == real && !fi.Mode().IsRegular() {
			return fmt.Errorf("%w: %s is not a file", ErrModule, real)
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || st.Uid != 0 || fi.Mode().Perm()&0o022 != 0 && fi.Mode()&os.ModeSticky == 0 {
			return fmt.Errorf("%w: %s: a module is code, so it and the folders above it belong to root and nobody else may write them, which %s does not; have the administrator install it", ErrModule, path, at)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// ckr gives the return value of a call, for the end of a message. Nil gives nothing.
func ckr(err error) string {
	if err == nil {
		return ""
	}
	var e pkcs11.Error
	if errors.As(err, &e) {
		return fmt.Sprintf(" [%s, 0x%X]", name(e), uint(e))
	}
	return ": " + err.Error()
}
