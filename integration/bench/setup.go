// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"strings"

	"sluice/internal/console"
	"sluice/internal/link"
	"sluice/internal/strictyaml"
)

// setup is one way to send.
type setup struct {
	size   strictyaml.Bytes
	files  int // 1: one file of random bytes; more: as many small ones; 0: one sparse file
	mtu    int
	repair int    // percent
	gso    string // auto, off, or auto over a wire that carries single datagrams: split or joined
	rates  string // of each lane, to try, fastest first, until one pass is enough
	lanes  int    // 0: one
	beside bool   // the disk of the receiver has othersWrite to write for others meanwhile, all at once
	turns  int    // of which the medians are reported; 1: the first rate that is enough, once
}

// The rates to try. What is not reached on two shared cores with both ends and a disk is tried all the same: this is how a machine
// that can do more shows it.
const (
	rates1500  = "7Gbit,6.5Gbit,6Gbit,5.5Gbit,5Gbit,4Gbit,3Gbit,2.5Gbit,2Gbit,1.5Gbit,1Gbit"
	rates9000  = "12Gbit,11Gbit,10Gbit,9Gbit,8Gbit,6Gbit,5Gbit,4Gbit,3Gbit,2Gbit,1Gbit"
	ratesSplit = "8Gbit,7Gbit,6Gbit,5Gbit,4.5Gbit,4Gbit,3.5Gbit,3Gbit,2.5Gbit,2Gbit,1.5Gbit,1Gbit"
	ratesLarge = "10Gbit,9Gbit,8Gbit,7Gbit,6Gbit,5.5Gbit,5Gbit,4.5Gbit,4Gbit,3.5Gbit,3Gbit,2.5Gbit,2Gbit,1.5Gbit,1Gbit"
	ratesPlain = "4Gbit,3.5Gbit,3Gbit,2.5Gbit,2Gbit,1.5Gbit,1Gbit,500Mbit"
)

// What a real link does, where GSO is auto: datagrams cross one by one, whatever the sender joined, and the receiving device joins
// them again, as drivers of network cards do, or does not.
const (
	split  = "split"
	joined = "joined"
)

// turns is how often a row is measured: a shared machine is never the same for long.
const turns = 5

// setups are the rows of `make bench`.
func setups(size, large strictyaml.Bytes) []setup {
	list := []setup{
		{size: size, files: 1, mtu: 1500, repair: 10, gso: "auto", rates: rates1500, turns: turns},
		{size: size, files: 1, mtu: 1500, repair: 5, gso: "auto", rates: rates1500, turns: turns},
		{size: size, files: 1, mtu: 9000, repair: 10, gso: "auto", rates: rates9000, turns: turns},
		{size: size, files: 1, mtu: 9000, repair: 5, gso: "auto", rates: rates9000, turns: turns},
		{size: size, files: 1, mtu: 1500, repair: 10, gso: split, rates: ratesSplit, turns: turns},
		{size: size, files: 1, mtu: 1500, repair: 10, gso: joined, rates: ratesSplit, turns: turns},
		{size: size, files: 1, mtu: 9000, repair: 10, gso: split, rates: rates9000, turns: turns},
		{size: size, files: 1, mtu: 9000, repair: 10, gso: joined, rates: rates9000, turns: turns},
		{size: size, files: 1, mtu: 1500, repair: 10, gso: "off", rates: ratesPlain, turns: turns},
	}
	if large > 0 {
		list = append(list,
			setup{size: large, files: 1, mtu: 1500, repair: 10, gso: "auto", turns: 1, rates: ratesLarge},
			setup{size: large, files: 1, mtu: 1500, repair: 5, gso: "auto", turns: 1, rates: ratesLarge},
			setup{size: large, files: 1, mtu: 9000, repair: 10, gso: "auto", turns: 1, rates: ratesLarge},
			setup{size: large, files: 1, mtu: 9000, repair: 5, gso: "auto", turns: 1, rates: ratesLarge},
			setup{size: large, files: 1, mtu: 9000, repair: 10, gso: "auto", turns: 1, rates: "4Gbit,3Gbit,2Gbit,1Gbit", beside: true},
		)
	}
	return list
}

// growth are rows of ever larger sparse releases at one rate, and one of many small files: cost is to be linear, memory flat.
func growth(sizes []strictyaml.Bytes, files int) (list []setup) {
	const rate = "2Gbit,1.5Gbit,1Gbit"
	for _, size := range sizes {
		list = append(list, setup{size: size, files: 0, mtu: 1500, repair: 10, gso: "auto", rates: rate, turns: 1})
	}
	if files > 0 {
		list = append(list, setup{size: strictyaml.Bytes(int64(files) * smallFile), files: files, mtu: 1500, repair: 10, gso: "auto", rates: rate, turns: 1})
	}
	return list
}

// smallFile is the size of one of many files.
const smallFile = 8 << 10

func (s setup) profile() link.Profile {
	if s.mtu == 9000 {
		return link.Profile9000
	}
	return link.Profile1500
}

func (s setup) offload() link.Offload {
	o, err := link.ParseOffload(s.flag())
	if err != nil {
		return link.OffloadAuto // the table above has no other words
	}
	return o
}

// flag is what the sender is told.
func (s setup) flag() string {
	if s.gso == split || s.gso == joined {
		return "auto"
	}
	return s.gso
}

// gib is the size in GiB, for figures a GiB.
func (s setup) gib() float64 { return float64(s.size) / (1 << 30) }

// label tells the row from the others.
func (s setup) label() string {
	kind := ""
	switch {
	case s.files == 0:
		kind = " sparse"
	case s.files > 1:
		kind = fmt.Sprintf(" in %d files", s.files)
	}
	if s.beside {
		kind += fmt.Sprintf(" beside %s of others' writes", othersWrite)
	}
	if s.lanes > 0 {
		kind += fmt.Sprintf(" over %s", console.Count(s.lanes, "lane"))
	}
	return strings.TrimSpace(fmt.Sprintf("%s%s, MTU %d, %d %% repair, GSO %s", s.size, kind, s.mtu, s.repair, s.gso))
}

// params are the label for machines.
func (s setup) params(link, rate string) map[string]any {
	return map[string]any{
		"bytes": int64(s.size), "files": max(s.files, 1), "sparse": s.files == 0, "mtu": s.mtu, "repair_percent": s.repair,
		"gso": s.gso, "rate": rate, "link": link, "lanes": max(s.lanes, 1), "others_write": s.beside, "cpus": runtime.NumCPU(),
	}
}
