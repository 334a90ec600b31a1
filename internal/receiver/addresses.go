// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"fmt"
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/internal/link"
)

// Addresses are where the link is listened to: one, or one for each lane of the sender. In a configuration they are one address, or a list.
type Addresses []string

// String lists them.
func (a Addresses) String() string { return strings.Join(a, ", ") }

// UnmarshalYAML implements yaml's interface.
func (a *Addresses) UnmarshalYAML(n *yaml.Node) error {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	*a = make(Addresses, 0, len(items))
	for _, item := range items {
		if item.Kind != yaml.ScalarNode {
			return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: listen: write an address and port, or a list of them", item.Line)}}
		}
		*a = append(*a, item.Value)
	}
	return nil
}

// problems reports what makes no sense.
func (a Addresses) problems() (problems []error) {
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("  link.listen"+format, args...))
	}
	if len(a) < 1 || len(a) > link.MaxLanes {
		bad(": 1 to %d addresses are possible, one a lane", link.MaxLanes)
	}
	seen := map[netip.AddrPort]bool{}
	for _, text := range a {
		address, err := netip.ParseAddrPort(text)
		switch {
		case err != nil:
			bad(": %q is not an address and port", text)
		case seen[address]:
			bad(": %s is there twice; one socket hears all that arrives at an address", address)
		}
		seen[address] = true
	}
	return problems
}
