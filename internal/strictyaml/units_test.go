// SPDX-License-Identifier: Apache-2.0

package strictyaml_test

import (
	"math"
	"testing"
	"time"

	"sluice/internal/strictyaml"
)

func TestUnits(t *testing.T) {
	asInt := func(v any) float64 {
		switch v := v.(type) {
		case strictyaml.Bytes:
			return float64(v)
		case strictyaml.BitRate:
			return float64(v)
		case strictyaml.Duration:
			return time.Duration(v).Seconds()
		case strictyaml.Percent:
			return float64(v)
		}
		return math.NaN()
	}
	parse := map[string]func(string) (any, error){
		"bytes":    func(s string) (any, error) { return strictyaml.ParseBytes(s) },
		"rate":     func(s string) (any, error) { return strictyaml.ParseBitRate(s) },
		"duration": func(s string) (any, error) { return strictyaml.ParseDuration(s) },
		"percent":  func(s string) (any, error) { return strictyaml.ParsePercent(s) },
	}
	for _, c := range []struct {
		kind, text string
		want       float64 // NaN: refused
	}{
		{"bytes", "0", 0},
		{"bytes", "0B", 0},
		{"bytes", "64MiB", 64 << 20},
		{"bytes", "2TiB", 2 << 40},
		{"bytes", "1.5GiB", 3 << 29},
		{"bytes", "2 TB", 2e12},
		{"bytes", "8PiB", 8 << 50},
		{"bytes", "64", math.NaN()},      // of what?
		{"bytes", "64M", math.NaN()},     // 64e6 or 64<<20?
		{"bytes", "64mib", math.NaN()},   // one spelling
		{"bytes", "1.5B", math.NaN()},    // not a whole number
		{"bytes", "9000PiB", math.NaN()}, // over int64
		{"bytes", "-1MiB", math.NaN()},
		{"bytes", "+1MiB", math.NaN()},
		{"bytes", "1e3MiB", math.NaN()},
		{"bytes", "0x10B", math.NaN()},
		{"bytes", "", math.NaN()},
		{"bytes", "MiB", math.NaN()},
		{"bytes", "99999999999999999999B", math.NaN()},
		{"rate", "900Mbit", 900e6},
		{"rate", "5Gbit", 5e9},
		{"rate", "2.5Gbit", 2.5e9},
		{"rate", "0", 0},
		{"rate", "5Gbps", math.NaN()}, // tc reads "bps" as bytes
		{"rate", "5GB", math.NaN()},
		{"rate", "5gbit", math.NaN()},
		{"duration", "90s", 90},
		{"duration", "2h30m", 9000},
		{"duration", "7d", 7 * 86400},
		{"duration", "1d12h", 129600},
		{"duration", "0", 0},
		{"duration", "1500ms", 1.5},
		{"duration", "-1s", math.NaN()},
		{"duration", "+1s", math.NaN()},
		{"duration", "1d-1s", math.NaN()},
		{"duration", "1d+1s", math.NaN()},
		{"duration", "90", math.NaN()},
		{"duration", "1.5d", math.NaN()},
		{"duration", "99999d2562047h", math.NaN()},
		{"duration", "999999d", math.NaN()},
		{"percent", "10%", 10},
		{"percent", "5.2%", 5.2},
		{"percent", "0%", 0},
		{"percent", "100%", 100},
		{"percent", "100.1%", math.NaN()},
		{"percent", "10", math.NaN()},
		{"percent", "0.1", math.NaN()},
		{"percent", "-1%", math.NaN()},
		{"percent", "Inf%", math.NaN()},
		{"percent", "NaN%", math.NaN()},
		{"percent", "1e1%", math.NaN()},
	} {
		v, err := parse[c.kind](c.text)
		if math.IsNaN(c.want) {
			if err == nil {
				t.Errorf("%s %q was taken as %v", c.kind, c.text, v)
			}
			continue
		}
		if err != nil || asInt(v) != c.want {
			t.Errorf("%s %q: %v, %v; want %v", c.kind, c.text, v, err, c.want)
		}
	}
}

func TestUnitsAreFlagsAndRoundTrip(t *testing.T) {
	var b strictyaml.Bytes
	var r strictyaml.BitRate
	var d strictyaml.Duration
	var p strictyaml.Percent
	var f strictyaml.FilePath
	for _, c := range []struct {
		flag interface {
			Set(string) error
			String() string
			Type() string
		}
		kind, in, out string
	}{
		{&b, "size", "1536MiB", "1536MiB"},
		{&b, "size", "2TB", "2TB"},
		{&b, "size", "1025B", "1025B"},
		{&b, "size", "0", "0"},
		{&r, "rate", "2.5Gbit", "2500Mbit"},
		{&r, "rate", "0", "0"},
		{&d, "duration", "7d", "168h0m0s"},
		{&p, "percentage", "5.20%", "5.2%"},
		{&f, "path", "/etc/sluice/root.pem", "/etc/sluice/root.pem"},
	} {
		if err := c.flag.Set(c.in); err != nil || c.flag.String() != c.out || c.flag.Type() != c.kind {
			t.Errorf("%s %q became %q, %v; want %q", c.flag.Type(), c.in, c.flag, err, c.out)
		}
		if err := c.flag.Set(c.flag.String()); err != nil || c.flag.String() != c.out {
			t.Errorf("%q does not read back: %v, %q", c.out, err, c.flag)
		}
		if err := c.flag.Set("nonsense"); err == nil || c.flag.String() != c.out {
			t.Errorf("nonsense: %v, and the flag is now %q", err, c.flag)
		}
	}
	if got := strictyaml.BitRate(900e6).BytesPerSecond(); got != 112_500_000 {
		t.Errorf("BytesPerSecond: %d", got)
	}
	if got := strictyaml.Percent(10).Ratio(); got != 0.1 {
		t.Errorf("Ratio: %v", got)
	}
}

func TestFilePathRefuses(t *testing.T) {
	for _, s := range []string{"", "a", "./a", "../a", "/a/../b", "/a/", "/a//b", "/a/./b", "/a\x00b"} {
		if p, err := strictyaml.ParseFilePath(s); err == nil {
			t.Errorf("%q was taken as %q", s, p)
		}
	}
}

func FuzzUnits(f *testing.F) {
	for _, s := range []string{"64MiB", "1.5GiB", "900Mbit", "1d2h", "5.2%", "0", "9223372036854775807B", "106751d23h47m16.854775807s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := strictyaml.ParseBytes(s); err == nil {
			if back, err := strictyaml.ParseBytes(v.String()); err != nil || back != v || v < 0 {
				t.Errorf("bytes %q: %d, back %d, %v", s, v, back, err)
			}
		}
		if v, err := strictyaml.ParseBitRate(s); err == nil {
			if back, err := strictyaml.ParseBitRate(v.String()); err != nil || back != v || v < 0 {
				t.Errorf("rate %q: %d, back %d, %v", s, v, back, err)
			}
		}
		if v, err := strictyaml.ParseDuration(s); err == nil {
			if back, err := strictyaml.ParseDuration(v.String()); err != nil || back != v || v < 0 {
				t.Errorf("duration %q: %d, back %d, %v", s, v, back, err)
			}
		}
		if v, err := strictyaml.ParsePercent(s); err == nil {
			if back, err := strictyaml.ParsePercent(v.String()); err != nil || back != v || v < 0 || v > 100 {
				t.Errorf("percent %q: %v, back %v, %v", s, v, back, err)
			}
		}
	})
}
