// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	// sysctlFile is where deploy/sysctl.d/90-sluice.conf is installed.
	sysctlFile = "/etc/sysctl.d/90-sluice.conf"
	// linkFile is where systemd-networkd keeps what ethtool sets, across boots.
	linkFile = "/etc/systemd/network/10-diode.link"
)

// check is one check: a pure function of the host and of what is asked of it.
type check func(v *View, w Want) Finding

// Receiver checks a host that receives, in the order that data takes: interface, socket, disk, clock.
func Receiver(v *View, w Want) []Finding {
	return run(v, w, checkInterface, checkMTU, checkRXRing, checkGRO, checkPause, checkReversePath, checkGateway,
		checkReceiveMaximum, checkReceiveBuffer, checkBacklog, checkUDPMemory, checkSocketDrops, checkReceiveErrors,
		checkFileSystem, checkFreeSpace, checkWriteSpeed, checkClockSet, checkClockSteady, checkBootID)
}

// Sender checks a host that sends, in the order that data takes: disk, socket, offload, route, interface, clock.
func Sender(v *View, w Want) []Finding {
	return run(v, w, checkFileSystem, checkFreeSpace, checkReadSpeed, checkSendMaximum, checkSendErrors, checkGSO, checkGSOKernel,
		checkRoute, checkNeighbour, checkInterface, checkMTU, checkRate, checkQdisc, checkTXRing,
		checkClockSet, checkClockSteady)
}

// receiverLane and senderLane are the checks of what each lane has of its own.
func receiverLane() []check {
	return []check{checkInterface, checkMTU, checkRXRing, checkGRO, checkPause, checkReversePath, checkGateway, checkSocketDrops}
}

func senderLane() []check {
	return []check{checkRoute, checkNeighbour, checkInterface, checkMTU, checkRate, checkQdisc, checkTXRing}
}

// ReceiverLanes reads and checks a host that receives over one lane or several, each a Want: the host once, and of each lane what is its own.
func ReceiverLanes(ctx context.Context, lanes []Want) []Finding {
	return ofLanes(lanes, Receiver(ReadReceiver(ctx, lanes[0]), lanes[0]), receiverLane(), func(w Want) *View { return ReadReceiverLane(w) })
}

// SenderLanes is ReceiverLanes for a host that sends.
func SenderLanes(ctx context.Context, lanes []Want) []Finding {
	return ofLanes(lanes, Sender(ReadSender(ctx, lanes[0]), lanes[0]), senderLane(), func(w Want) *View { return ReadSenderLane(w) })
}

// ofLanes adds the findings of the lanes behind the first to those of the first, and numbers those that are of a lane.
func ofLanes(lanes []Want, findings []Finding, checks []check, read func(Want) *View) []Finding {
	if len(lanes) == 1 {
		return findings
	}
	own := map[string]bool{}
	var others []Finding
	for i, w := range lanes[1:] {
		for _, f := range run(read(w), w, checks...) {
			f.Lane, own[f.ID] = i+2, true
			others = append(others, f)
		}
	}
	for i := range findings {
		if own[findings[i].ID] {
			findings[i].Lane = 1
		}
	}
	return append(findings, others...)
}

func run(v *View, w Want, checks ...check) []Finding {
	findings := make([]Finding, len(checks))
	for i, c := range checks {
		findings[i] = c(v, w)
	}
	return findings
}

// sysctlFix is the command that sets a value now, and the line that keeps it.
func sysctlFix(name string, value any) string {
	return fmt.Sprintf("sysctl -w '%s=%v', and the line %s = %v in %s", name, value, name, value, sysctlFile)
}

// sysctlAsk is how to look at a setting that doctor could not read: many are the host's own, and no container sees them.
func sysctlAsk(name string) string {
	return "sysctl " + name + ", on the host itself if this is a container"
}

// linkFix is the command that sets a device now, and the lines of a .link file that keep it.
func linkFix(command, lines string) string {
	return fmt.Sprintf("%s, and below [Link] in %s: %s", command, linkFile, lines)
}

// size writes bytes in binary units, as buffers have them: "208 KiB".
func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// count writes a number with commas.
func count(n uint64) string { return humanize.Comma(int64(n)) }

// inFlight is how many bytes the link brings in a time; 0 when the rate is not known.
func inFlight(rate int64, d time.Duration) int64 {
	return int64(float64(rate) / 8 * d.Seconds())
}
