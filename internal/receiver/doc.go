// SPDX-License-Identifier: Apache-2.0

// Package receiver is the high side: what diode-receiver does with what comes out of the diode.
//
//	UDP --> internal/link --envelope--> accept --space--> spool <--payload symbols-- internal/link
//	                                      |                 |
//	                                   refused           complete
//	                                      v                 v
//	RECEIVING ---------------------> RECEIVED --> VERIFIED --> INSPECTED --> HELD --> PUBLISHED <--> WITHDRAWN
//	    |                               |             |             |          |
//	    +-------------------------------+-------------+-------------+----------+--> REJECTED (quarantine, with evidence)
//
// Two tempos. The fast half (internal/link, internal/spool) moves datagrams. The slow half is a journalled state
// machine: one job a release, one file a stage (accept.go, verify.go, inspect.go, publish.go), and a crash costs at most
// the stage it fell into.
//
// What holds, by construction: no payload byte is stored before the envelope was verified under this site's own policy and
// its space was reserved; publishing takes a mofn.Approval, which only the policy can make, and it is made anew
// from the spooled bytes right before publishing; a release is never published that an earlier one of its stream has overtaken.
package receiver
