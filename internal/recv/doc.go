// SPDX-License-Identifier: Apache-2.0

// Package recv puts what faces the link into a process of its own, which can do nothing but receive: the front.
//
//	             daemon                               |            front: `diode-receiver recv`
//	                                                  |
//	X-Wing key   AnnouncementOpener <-----open------- | <- internal/link <== UDP sockets, inherited
//	policy       Daemon.Judge <---judge envelope----- |         |
//	             Assembler ------assemble, release--> | -> internal/spool
//	             status, tickets ---------status----> |         |
//	                                                  |         v
//	<state>/spool/<R>/payload --lent by rename--> <state>/incoming/<R>/     (and incoming/link/)
//	                          <--taken back------
//
// A parser of hostile bytes that is taken over gets: the session keys of the releases that are just being sent, the files that
// are just being received, and a socket to a daemon that believes no word of it. It gets no key, no other file, no network, no
// other process, and no way to run a program: landlock holds it to its directory, seccomp to about eighty system calls, and it
// has no capabilities even where root started it (sandbox_linux.go; every denial is tested).
//
// What it hands over is bytes. The daemon opens each announcement with its own key, reads each envelope with its own strict
// reader and judges it under its own policy, and hashes every payload byte against the statement. A directory that was taken back
// is beyond the front's reach by name, and a read lease on each file, which the kernel gives only when nobody can write to it,
// proves that no descriptor and no mapping was kept: what was verified stays what it is (home_linux.go).
//
// The front dies with the daemon, and is started again when it dies alone: the daemon holds the sockets, so what the link brings
// meanwhile waits in the kernel, and all that was received is on disk by position.
//
//	peer.go            requests and answers over the socket between the two: length-capped JSON frames
//	messages.go        what they ask one another
//	assembly.go        payloads being assembled, in whichever process it is
//	front.go           the front
//	process.go         the front, as the daemon sees it
//	child_linux.go     how it is started and how it ends
//	sandbox_linux.go   what it may do
//	home_linux.go      the directories that change hands
package recv
