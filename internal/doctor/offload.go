// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"

	"sluice/internal/link"
)

// checkGSO tells what the link's own probe saw on loopback.
func checkGSO(v *View, w Want) Finding {
	f := Finding{
		ID: "gso", Wanted: "UDP_SEGMENT works over loopback",
		Why: "without it each datagram costs a pass through the kernel: a core that sends 10 Gbit/s with it sends 3 without",
	}
	switch {
	case w.GSO == link.OffloadOff:
		return f.ok("not used: link.gso is off")
	case v.GSO == nil:
		return f.ok("works")
	case errors.Is(v.GSO, errors.ErrUnsupported), errors.Is(v.GSO, ErrNotRead):
		return f.unknown(v.GSO, "")
	case w.GSO == link.OffloadOn:
		return f.fail("refused: "+oneLine(v.GSO), "link: {gso: auto} in the configuration")
	}
	return f.warn("refused: "+oneLine(v.GSO), "mend what is named; until then the link uses sendmmsg by itself")
}

// checkGSOKernel looks for the kernels whose damage only the other side could see.
func checkGSOKernel(v *View, w Want) Finding {
	f := Finding{
		ID: "gso_kernel", Wanted: "a kernel that is not 7.0 to 7.1.4",
		Why: "those mangle the headers of batches of equal datagrams, all that the link sends; the damage does not show on this host",
	}
	release, err := read(v.Files, "proc/sys/kernel/osrelease")
	if err != nil {
		return f.unknown(err, "uname -r")
	}
	broken, known := link.GSOBroken(release)
	switch {
	case !known:
		f.Seen = release
		return f.unknown(fmt.Errorf("%w: %q is no version of a kernel", ErrMalformed, release), "uname -r")
	case broken && w.GSO == link.OffloadOn:
		return f.fail(release, "link: {gso: auto} in the configuration, or Linux 7.1.5 or later")
	case broken && w.GSO == link.OffloadAuto:
		return f.warn(release+", so sendmmsg is used", "Linux 7.1.5 or later")
	}
	return f.ok(release)
}
