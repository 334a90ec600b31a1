// SPDX-License-Identifier: Apache-2.0

//go:build race

package site_test

// underRace: the race detector makes the tests that open a site some hundred times ten times slower, and finds nothing in them: they share
// nothing. make test runs them a second time without it.
const underRace = true
