// SPDX-License-Identifier: Apache-2.0

//go:build race

package envelope_test

import "testing"

// slow leaves a test out under the race detector, which makes it ten times slower and finds nothing in it: it has one goroutine.
func slow(t *testing.T) {
	t.Helper()
	t.Skip("make test runs it without the race detector")
}
