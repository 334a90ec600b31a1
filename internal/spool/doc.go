// SPDX-License-Identifier: Apache-2.0

// Package spool assembles one object on disk from encoding symbols, in any order, in bounded memory, and so that
// neither a kill nor a power cut makes it believe in bytes that are not there (docs/spec/datagram.md sections 4 and 6).
//
//	Put --source--> window (2 MiB) --whole--> writers: O_DIRECT -+-> final files, by position --+--> bits --> counters a group
//	 |                      `--with gaps--pwrite, or by mapping--'                              |                 |
//	 `---repair-------------------------------------pwrite---------> spool.repair, sparse ------'                 | a slab can be repaired
//	                                                                                        v
//	      done <--record-- fdatasync <--finisher-- span complete <--bits, pwrite-- decoder: a slab of <= 64 groups
//
// On disk, all names under one root:
//
//	files/000000 ...   the object's files, at their final length, every block reserved at Open
//	spool.map          bitmaps, mapped and shared: one bit a source symbol, one a repair symbol
//	spool.repair       repair symbols by position; the hole of a finished span is punched
//	spool.record       which spans are on stable storage: appended and synced after their files
//
// What is believed after a restart:
//
//	kill, same boot    every bit: a bit is set after its write returned, and the page cache outlives the process.
//	                   Lost are the symbols of two windows that are filled, about 2 MiB each, and of those that are on their way
//	                   past the page cache, at most 8.
//	clean Close        every bit, also after a reboot: Close syncs the files, then the map, then says so in the map.
//	power cut          the spans of spool.record, nothing else: the order in which the kernel wrote the other pages is
//	                   unknown. The boot is told from /proc/sys/kernel/random/boot_id.
//
// Not covered is a file system that is torn away within one boot (a pulled disk, a forced unmount): then the bitmaps may
// promise lost bytes. Like damage on the disk, that is found by the content index of the release; [Object.Forget]
// takes the damaged range back.
//
// Memory: 2 bytes for each group of 192 symbols, 6 bytes a span, the windows (21 MiB, at MTU 9000 22, given back at the end of a pass), and while damage is being
// repaired one slab of at most 24 MiB (64 groups of profile 1: 16.5 MiB) and the repair rows it takes, at most two
// thirds of that. The page cache of a span is given back once the span is recorded: the pages serve the next one, and
// what is verified later is read from the disk. The bitmaps are page cache, 1.34 bits a symbol: 48 MB for 400 GB at 1408 bytes a symbol. Nothing else
// grows with the object, so 64 GiB take less than 2 MiB of heap beside the windows.
package spool
