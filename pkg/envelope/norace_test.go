// SPDX-License-Identifier: Apache-2.0

//go:build !race

package envelope_test

import "testing"

// slow leaves a test out under the race detector.
func slow(*testing.T) {}
