// SPDX-License-Identifier: Apache-2.0

//go:build race

package trust_test

// stride thins the mutations out under the race detector, which makes them twenty times slower and finds nothing in them: they share
// nothing. `make test` runs all of them without it.
const stride = 61
