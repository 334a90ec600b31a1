// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"time"

	"sluice/internal/console"
)

const (
	// maxStep is how far the two clocks may part while doctor runs: a clock that is slewed gains 500 ppm at most.
	maxStep = 50 * time.Millisecond
	// bootIDLength is that of a UUID.
	bootIDLength = 36
)

// builtAfter is a time that lies in the past of every machine that runs this: a clock before it stands still or was reset.
func builtAfter() time.Time { return time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) }

func checkClockSet(v *View, _ Want) Finding {
	f := Finding{
		ID: "clock", Wanted: "set, and kept by a time service",
		Why: "releases expire by this clock and are held by it, and both sides put it into their evidence",
	}
	const fix = "timedatectl set-ntp true, with a time source on this side of the diode (chrony: a server, or a reference clock)"
	c := v.Clock.Value
	switch {
	case v.Clock.Err != nil:
		return f.unknown(v.Clock.Err, "timedatectl")
	case c.Now.Before(builtAfter()):
		return f.fail(c.Now.UTC().Format(time.DateTime)+" UTC", "timedatectl set-time 'YYYY-MM-DD hh:mm:ss'; "+fix)
	case !c.Synchronised:
		return f.warn("not synchronised", fix)
	}
	return f.ok("synchronised, within " + console.Duration(c.MaxError))
}

// checkClockSteady compares the two clocks over the time that doctor took.
func checkClockSteady(v *View, _ Want) Finding {
	f := Finding{
		ID: "clock_steady", Wanted: "time of day in step with the monotonic clock",
		Why: "a clock that jumps publishes early, or lets a release expire that was good",
	}
	c := v.Clock.Value
	switch {
	case v.Clock.Err != nil:
		return f.unknown(v.Clock.Err, "")
	case c.Watched <= 0:
		return f.fail("the monotonic clock stood still", "take another clock source: cat /sys/devices/system/clocksource/clocksource0/available_clocksource")
	case (c.Moved - c.Watched).Abs() > maxStep:
		return f.warn(fmt.Sprintf("moved %s in %s", console.Duration(c.Moved), console.Duration(c.Watched)), "let one service set the clock, and slew it: makestep 1 3 in chrony.conf")
	}
	return f.ok(fmt.Sprintf("watched for %s", console.Duration(c.Watched)))
}

func checkBootID(v *View, _ Want) Finding {
	f := Finding{
		ID: "boot_id", Wanted: "readable",
		Why: "it tells a restart from a power cut, after which only what was synced may be believed; nothing is received without it",
	}
	id, err := read(v.Files, "proc/sys/kernel/random/boot_id")
	switch {
	case errors.Is(err, ErrNotRead):
		return f.unknown(err, "")
	case err != nil:
		return f.fail("not readable: "+oneLine(err), "mount /proc, and let the unit or the container see /proc/sys/kernel/random")
	case len(id) != bootIDLength:
		return f.warn(fmt.Sprintf("%q", id), "mount the kernel's own /proc")
	}
	return f.ok(id[:8])
}
