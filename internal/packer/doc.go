// SPDX-License-Identifier: Apache-2.0

// Package packer is the low side: what bastion-packer does from an upstream commit to the last datagram.
//
//	watch --commit--> mirror --payload--> inspect --> gate --> seal --request--> drop-box
//	                                                                               |  approvals (people)
//	                                                                               v
//	                                             UDP <-- send <-- envelope <-- collect
//
//	NEW --> MIRRORED --> INSPECTED --> GATED --> SEALED --> APPROVED --> SENT
//	  \_________\____________\___________\_________\___________\______> REFUSED (with the reason)
//
// One job a commit of a watched repository, one file a stage, every state in the journal: a crash costs at most one stage, and
// waiting for evaluations or for people is a state, not a goroutine. The stage functions are exported and take directories,
// so that each verb of the command line does one of them once, on the same code.
//
// A job's directory is the sealed release in the making (docs/spec/envelope.md section 8):
//
//	<state>/work/<job>/payload/<path>      the files, as they will be published
//	<state>/work/<job>/base/<path>         the base model, for the gate and the inspection; never sent
//	<state>/work/<job>/evidence/*.json     mirror, inspection, gate
//	<state>/work/<job>/envelope.sluice     the envelope, first without approvals, then with them
package packer
