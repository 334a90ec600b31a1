// SPDX-License-Identifier: Apache-2.0

// Package admin is the window into a running daemon: for people on the same machine, for its supervisor, for Prometheus.
//
//	                 ┌── GET /healthz   200 while the process serves at all
//	operator ──HTTP──┼── GET /readyz    200, or 503 with one reason a line
//	  (loopback or   ├── GET /metrics   the daemon's own Prometheus registry
//	   unix socket)  ├── GET /status    JSON, made by the daemon: the way to read a journal that it holds locked
//	                 ├── GET /ticket    JSON: what a release lacks (the receiver only)
//	                 └── GET /audit     JSON: how far the audit log is, signed; /audit/events?from=N its events, one a line
//	systemd ──────────── READY=1, WATCHDOG=1, STOPPING=1 (sd_notify); inherited sockets (LISTEN_FDS)
//
// Everything here only reads. Nothing changes the daemon, so nothing is authenticated: who may look is decided by the address,
// which must be a loopback address or a socket file of mode 0660. A browser on the same machine is kept out by a
// check of the Host header (DNS rebinding).
//
// Beside it stands what every daemon builds once: [NewRegistry] and [NewLogger].
package admin
