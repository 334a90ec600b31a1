// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package dropbox

import "os"

func renameNew(*os.Root, string, string, []byte) error { return errNoWay }
