// SPDX-License-Identifier: Apache-2.0

//go:build !race

package site_test

const underRace = false
