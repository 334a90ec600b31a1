// SPDX-License-Identifier: Apache-2.0

// Package ticket is the shortfall ticket of docs/spec/ticket.md: what a receiver lacks of a release, signed, and small enough to be
// typed or scanned.
//
//	high side   spool.Lacking --> Builder (coarsens to fit) --> Sign --> Text, QR
//	                                                                      |  a person
//	low side    link.Transfer.Only <-- Selection (with spare) <-- Verify <-- ReadText
//
// A ticket asks; it cannot harm: whatever it says, the sender sends symbols of a release that was sealed and approved. The package
// knows bytes, keys and geometry. Whether the ticket is of the release at hand is for the packer to say.
package ticket
