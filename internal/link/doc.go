// SPDX-License-Identifier: Apache-2.0

// Package link carries releases over the one-way link: the datagram format of
// docs/spec/datagram.md, sessions, pacing, batched sockets, and an exact ledger
// of what arrived. Nothing ever comes back, so no datagram's loss is fatal.
//
// Sending, one pass is one session a lane:
//
//	payload ──► encode ──┐ repair rows of span s, while s is sent
//	   │                 ▼
//	   └──────────────► order ──► deal ──┬─► seal ──► pace ──► BatchWriter ══► UDP
//	                                     │  AES-GCM   token    GSO | sendmmsg | write
//	envelope ─► carousel of each lane ───┴─► ... of each further lane
//
// Receiving:
//
//	UDP ══► BatchReader ──► ring ──► authenticate ──► count ──► Payload.Put
//	        one locked      bounded,   one goroutine: header, session, tag, window
//	        thread          no copy          │
//	                                         └─► envelope object (internal/spool)
//	                                               └─► Sink.Envelope: verify, reserve
//
// The files, in the order in which a datagram passes them:
//
//	wire.go          header, session parameters, heartbeat: pure bytes
//	announcement.go  sealing and opening announcements (HPKE X-Wing, Ed25519, mac1)
//	session.go       the AES-256-GCM of one session
//	sender.go        Sender: configuration, Send, Idle
//	pass.go          the order of one pass (section 5)
//	deal.go          whose turn it is: several lanes, one a goroutine; those that stall or fail
//	lane.go          the session of one lane: lead-in, envelope, cadence, end
//	object.go        what symbols are made of, shown where it lies or read
//	repair.go        repair rows, encoded while their span is sent
//	carousel.go      the envelope object, round and round
//	batch.go         datagrams gathered into batches; failures counted
//	pace.go          the token clock
//	socket*.go       UDP sockets: GSO, GRO, sendmmsg, recvmmsg, kernel drops
//	receiver.go      Receiver: configuration, Run
//	ring.go          the threads that only receive, one a socket
//	lanes.go         what each socket heard, and which is silent
//	handle.go        one datagram: authenticate, count, dispatch
//	window.go        the sliding window of counters (RFC 6479)
//	table.go         the sessions held, and how one gives way
//	release.go       the envelope object, the sink's answer, flushing
//	keep.go          announcements kept for a restart
//	ledger.go        what was received, to the datagram
//	hear.go          what is known of the past: outages, rates, releases announced
//	calibrate.go     heartbeats at full rate, and what came of each step
//	metrics.go       the same for Prometheus
package link
