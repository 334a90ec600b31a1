// SPDX-License-Identifier: Apache-2.0

package strictyaml

import (
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// String writes b so that [ParseBytes] reads the same number back.
func (b Bytes) String() string { return formatUnits(int64(b), byteUnits()) }

// String writes r so that [ParseBitRate] reads the same number back.
func (r BitRate) String() string { return formatUnits(int64(r), bitUnits()) }

// BytesPerSecond is the rate in bytes a second, rounded down.
func (r BitRate) BytesPerSecond() int64 { return int64(r) / 8 }

// String writes d so that [ParseDuration] reads the same span back.
func (d Duration) String() string { return time.Duration(d).String() }

// String writes p so that [ParsePercent] reads the same share back.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// Ratio is the share as a number from 0 to 1.
func (p Percent) Ratio() float64 { return float64(p) / 100 }

// String is the path.
func (p FilePath) String() string { return string(p) }

// UnmarshalYAML reads what [ParseBytes] reads.
func (b *Bytes) UnmarshalYAML(n *yaml.Node) error { return unmarshal(n, b, ParseBytes) }

// MarshalYAML writes what String writes.
func (b Bytes) MarshalYAML() (any, error) { return b.String(), nil }

// Set makes a Bytes a flag.
func (b *Bytes) Set(s string) error { return set(s, b, ParseBytes) }

// Type is the flag's kind in help texts.
func (b Bytes) Type() string { return "size" }

// UnmarshalYAML reads what [ParseBitRate] reads.
func (r *BitRate) UnmarshalYAML(n *yaml.Node) error { return unmarshal(n, r, ParseBitRate) }

// MarshalYAML writes what String writes.
func (r BitRate) MarshalYAML() (any, error) { return r.String(), nil }

// Set makes a BitRate a flag.
func (r *BitRate) Set(s string) error { return set(s, r, ParseBitRate) }

// Type is the flag's kind in help texts.
func (r BitRate) Type() string { return "rate" }

// UnmarshalYAML reads what [ParseDuration] reads.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error { return unmarshal(n, d, ParseDuration) }

// MarshalYAML writes what String writes.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// Set makes a Duration a flag.
func (d *Duration) Set(s string) error { return set(s, d, ParseDuration) }

// Type is the flag's kind in help texts.
func (d Duration) Type() string { return "duration" }

// UnmarshalYAML reads what [ParsePercent] reads.
func (p *Percent) UnmarshalYAML(n *yaml.Node) error { return unmarshal(n, p, ParsePercent) }

// MarshalYAML writes what String writes.
func (p Percent) MarshalYAML() (any, error) { return p.String(), nil }

// Set makes a Percent a flag.
func (p *Percent) Set(s string) error { return set(s, p, ParsePercent) }

// Type is the flag's kind in help texts.
func (p Percent) Type() string { return "percentage" }

// UnmarshalYAML reads what [ParseFilePath] reads.
func (p *FilePath) UnmarshalYAML(n *yaml.Node) error { return unmarshal(n, p, ParseFilePath) }

// MarshalYAML writes what String writes.
func (p FilePath) MarshalYAML() (any, error) { return p.String(), nil }

// Set makes a FilePath a flag.
func (p *FilePath) Set(s string) error { return set(s, p, ParseFilePath) }

// Type is the flag's kind in help texts.
func (p FilePath) Type() string { return "path" }
