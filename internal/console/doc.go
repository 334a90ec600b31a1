// SPDX-License-Identifier: Apache-2.0

// Package console is how the commands speak to a person: a progress bar, a timeline of stages, tables, human units.
//
//	  0.4 s  low   mirrored    demo/tiny-llama-awq@1f2e3d4c  316 MB  12 files, all verified
//	  9.7 s  high  published   demo/tiny-llama-awq@1f2e3d4c  316 MB  registry, read back
//	high   60 %  190 MB of 316 MB  52 MB/s
//
// Everything writes to an io.Writer and asks nothing of the process: a [Style] says whether a person watches, and
// [Detect] makes one. Off a terminal there are plain lines and no control characters, so that a log of the same run reads well.
//
// Names come from outside. So everything printed passes [Clean]: no release can move the cursor, change a colour,
// reverse the reading direction or fake a line.
package console
