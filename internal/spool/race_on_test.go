// SPDX-License-Identifier: Apache-2.0

//go:build race

package spool_test

// raceDetector tells whether the test runs under the race detector.
const raceDetector = true
