// SPDX-License-Identifier: Apache-2.0

package envelope

// CheckStart is the look at the beginning of a release section.
func CheckStart(start []byte) error { return checkStart(start) }
