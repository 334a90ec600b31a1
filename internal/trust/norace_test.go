// SPDX-License-Identifier: Apache-2.0

//go:build !race

package trust_test

// stride: every mutation.
const stride = 1
