// SPDX-License-Identifier: Apache-2.0

package dropbox

import "os"

// Ways are the ways to give a file its name, by name.
func Ways() map[string]func(root *os.Root, tmp, name string, data []byte) error {
	return map[string]func(*os.Root, string, string, []byte) error{"rename": renameNew, "link": linkNew, "exclusive": writeExclusive, "publish": publish}
}

var (
	Explain      = explain
	ExplainWrite = explainWrite
	MaxNames     = maxNames
)
