// SPDX-License-Identifier: Apache-2.0

package mofn

import "fmt"

// StopGroup is the group any one officer of which may stop a stream, a key or a release (trust.md section 3, the line stop). ok is
// false without that line: then any officer of any quorum may.
func (p *Policy) StopGroup() (name string, ok bool) {
	if p.stop == nil {
		return "", false
	}
	return p.stop.name, true
}

// ResumeGroup is the group whose quorum lifts a stop and revokes; "" without a stop line: then it is the root group of the trust
// object, which the policy does not know.
func (p *Policy) ResumeGroup() string {
	if p.resume == nil {
		return ""
	}
	return p.resume.name
}

// MayStop reports whether one officer alone may stop. Names that are no officer's may not.
func (p *Policy) MayStop(officer string) bool {
	o, ok := p.officers[officer]
	if !ok {
		return false
	}
	if p.stop != nil {
		return p.stop.holds(o)
	}
	for _, r := range p.rules {
		if p.groups[r.Quorum].holds(o) {
			return true
		}
	}
	return false
}

// MeetsGroup is nil when the officers named are enough for the group: people are counted, as for a release. A *ThresholdError says
// how many are missing and who could be next; ErrPolicy when there is no such group. Names that are no officer of the group do
// not count, nor do those with the value false.
func (p *Policy) MeetsGroup(group string, officers map[string]bool) error {
	g, ok := p.groups[group]
	if !ok {
		return fmt.Errorf("%w: it has no group %q", ErrPolicy, shorten(group))
	}
	return g.shortfall(func(o *officer) bool { return officers[o.name] }, 0)
}
