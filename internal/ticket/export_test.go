// SPDX-License-Identifier: Apache-2.0

package ticket

import "sluice/pkg/fec"

// Armour is the text of bytes that need not be a ticket.
func Armour(b []byte) string { return (&Signed{bytes: b}).Text() }

// Exact returns the entries before anything is coarsened.
func (b *Builder) Exact() fec.Selection { return b.need }

// EntriesSize is how many bytes a selection takes.
var EntriesSize = entriesSize
