// SPDX-License-Identifier: Apache-2.0

package strictyaml

import (
	"fmt"
	"math"
	"math/big"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bytes is a number of bytes: "512B", "64MiB" (binary units: KiB to PiB), "2TB" (decimal: KB to PB), "0". A bare
// number other than 0 is refused: nobody knows its unit. It is never negative.
type Bytes int64

// BitRate is a number of bits a second in decimal units, as the tc tool writes them: "900Mbit", "5Gbit", "2.5Gbit", "0".
type BitRate int64

// Duration is a time span as time.ParseDuration reads it, with days of 24 hours in front: "90s", "2h30m",
// "7d", "1d12h", "0". It is never negative. time.Duration(d) converts.
type Duration time.Duration

// Percent is a share in per cent, 0 to 100: "10%", "5.2%".
type Percent float64

// FilePath is an absolute, clean path. A daemon has no working directory that an operator could guess.
type FilePath string

const day = 24 * time.Hour

// unit is a suffix and what it multiplies by, largest first.
type unit struct {
	suffix string
	size   int64
}

func byteUnits() []unit {
	return []unit{
		{"PiB", 1 << 50},
		{"PB", 1e15},
		{"TiB", 1 << 40},
		{"TB", 1e12},
		{"GiB", 1 << 30},
		{"GB", 1e9},
		{"MiB", 1 << 20},
		{"MB", 1e6},
		{"KiB", 1 << 10},
		{"KB", 1e3},
		{"B", 1},
	}
}

func bitUnits() []unit {
	return []unit{{"Tbit", 1e12}, {"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}
}

// ParseBytes reads a [Bytes].
func ParseBytes(s string) (Bytes, error) {
	n, err := parseUnits(s, byteUnits(), "64MiB, 2TB or 512B")
	return Bytes(n), err
}

// ParseBitRate reads a [BitRate].
func ParseBitRate(s string) (BitRate, error) {
	n, err := parseUnits(s, bitUnits(), "900Mbit or 5Gbit (bits a second)")
	return BitRate(n), err
}

// days splits the days off the front of a duration.
var days = regexp.MustCompile(`^(\d{1,5})d`)

// ParseDuration reads a [Duration].
func ParseDuration(s string) (Duration, error) {
	rest, total := s, time.Duration(0)
	if m := days.FindStringSubmatch(s); m != nil {
		n, _ := strconv.Atoi(m[1]) // at most five digits
		rest, total = s[len(m[0]):], time.Duration(n)*day
		if rest == "" {
			return Duration(total), nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-total || strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
		return 0, fmt.Errorf("%q is not a duration: write 90s, 2h30m or 7d", s)
	}
	return Duration(total + d), nil
}

// percent keeps out what strconv would take as well: "Inf", "1e1", "0x1p3".
var percent = regexp.MustCompile(`^\d{1,3}(?:\.\d{1,6})?%$`)

// ParsePercent reads a [Percent].
func ParsePercent(s string) (Percent, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if !percent.MatchString(s) || err != nil || f > 100 {
		return 0, fmt.Errorf("%q is not a percentage: write 10%% or 5.2%%, from 0%% to 100%%", s)
	}
	return Percent(f), nil
}

// ParseFilePath reads a [FilePath].
func ParseFilePath(s string) (FilePath, error) {
	if !filepath.IsAbs(s) || strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("%q is not an absolute path: write one that begins with /", s)
	}
	if clean := filepath.Clean(s); clean != s {
		return "", fmt.Errorf("%q is not a clean path: write %q", s, clean)
	}
	return FilePath(s), nil
}

// number is what may stand before a unit.
var number = regexp.MustCompile(`^(\d{1,19}(?:\.\d{1,9})?) ?([A-Za-z]+)$`)

func parseUnits(s string, units []unit, example string) (int64, error) {
	if s == "0" {
		return 0, nil
	}
	if m := number.FindStringSubmatch(s); m != nil {
		for _, u := range units {
			if u.suffix == m[2] {
				return multiply(s, m[1], u)
			}
		}
	}
	return 0, fmt.Errorf("%q is not understood: write a number and a unit, such as %s", s, example)
}

// multiply is exact: a fraction must come out as a whole number.
func multiply(s, mantissa string, u unit) (int64, error) {
	r, ok := new(big.Rat).SetString(mantissa)
	if !ok {
		return 0, fmt.Errorf("%q is not a number", mantissa)
	}
	r.Mul(r, new(big.Rat).SetInt64(u.size))
	if !r.IsInt() {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	if !r.Num().IsInt64() {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return r.Num().Int64(), nil
}

// formatUnits uses the largest unit that divides n.
func formatUnits(n int64, units []unit) string {
	if n == 0 {
		return "0"
	}
	for _, u := range units {
		if n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}

// unmarshal parses a scalar and reports in yaml's own form, so that yaml goes on and finds the other problems too.
func unmarshal[T any](n *yaml.Node, into *T, parse func(string) (T, error)) error {
	if n.Kind != yaml.ScalarNode {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: want one value", n.Line)}}
	}
	v, err := parse(n.Value)
	if err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %s", n.Line, err)}}
	}
	*into = v
	return nil
}

// set is unmarshal for flags: nothing changes on an error.
func set[T any](s string, into *T, parse func(string) (T, error)) error {
	v, err := parse(s)
	if err == nil {
		*into = v
	}
	return err
}
