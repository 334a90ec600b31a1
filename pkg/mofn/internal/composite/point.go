// SPDX-License-Identifier: Apache-2.0

package composite

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// edwardsSize is the length of an Ed25519 public key (RFC 8032 section 5.1.5).
const edwardsSize = 32

// LowOrderPoints are the eight points of order 1, 2, 4 and 8 and the six other ways to write some of them (list: C2SP CCTV,
// ed25519/README.md). Under such a key one constant signature verifies for many or all messages, so whoever enrolled
// it did not sign anything.
func LowOrderPoints() []string {
	return []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000080",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	}
}

// CheckEd25519 refuses an Ed25519 public key that is a low-order point, is not canonically encoded, or is no point of the curve
// (trust.md section 1; RFC 8032 section 5.1.3). It works on public data only, so it need not be constant in time.
func CheckEd25519(public []byte) error {
	if len(public) != edwardsSize {
		return fmt.Errorf("Ed25519 key has %d bytes, not %d", len(public), edwardsSize)
	}
	if slices.Contains(LowOrderPoints(), hex.EncodeToString(public)) {
		return errors.New("Ed25519 key is a low-order point, under which anybody can sign")
	}
	p := fieldPrime()
	y, negative := littleEndianY(public)
	if y.Cmp(p) >= 0 {
		return errors.New("Ed25519 key is not canonically encoded")
	}
	x := recoverX(y, p)
	if x == nil {
		return errors.New("Ed25519 key is not a point of the curve")
	}
	if x.Sign() == 0 && negative {
		return errors.New("Ed25519 key is not canonically encoded")
	}
	return nil
}

// fieldPrime is 2^255 - 19.
func fieldPrime() *big.Int {
	p := new(big.Int).Lsh(big.NewInt(1), 255)
	return p.Sub(p, big.NewInt(19))
}

// littleEndianY splits an encoded point into y and the sign bit of x.
func littleEndianY(public []byte) (y *big.Int, negative bool) {
	raw := slices.Clone(public)
	negative = raw[edwardsSize-1]&0x80 != 0
	raw[edwardsSize-1] &= 0x7f
	slices.Reverse(raw)
	return new(big.Int).SetBytes(raw), negative
}

// recoverX gives a root of x^2 = (y^2 - 1) / (d y^2 + 1), d = -121665/121666, or nil when there is none.
func recoverX(y, p *big.Int) *big.Int {
	d := new(big.Int).ModInverse(big.NewInt(121666), p)
	d.Mul(d, big.NewInt(-121665)).Mod(d, p)
	yy := new(big.Int).Mul(y, y)
	u := new(big.Int).Sub(yy, big.NewInt(1))
	v := d.Mul(d, yy).Add(d, big.NewInt(1))
	// -1/d is no square, so v is never 0 and always has an inverse.
	v.ModInverse(v.Mod(v, p), p)
	u.Mul(u, v).Mod(u, p)
	return new(big.Int).ModSqrt(u, p)
}
