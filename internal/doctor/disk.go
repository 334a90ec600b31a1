// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"sluice/internal/console"
)

const (
	// minFree is what a daemon needs to keep its journal: below it nothing works.
	minFree = 1 << 30
	// lowFree is where a person should look: less than most models.
	lowFree = 100 << 30
	// spare is how much faster than the link a disk should be: the sender reads a span twice, the receiver reads back what it publishes.
	spare = 2
)

func checkFileSystem(v *View, _ Want) Finding {
	f := Finding{
		ID: "file_system", Wanted: "a local file system (ext4, xfs)",
		Why: "what was received counts as kept once fdatasync returns: tmpfs forgets it, and an overlay or a share may lie about it or stall for seconds",
	}
	const fix = "state: DIR in the configuration, DIR on a local disk (a volume, in a container)"
	if v.Disk.Err != nil {
		return f.unknown(v.Disk.Err, "")
	}
	m, err := mountOf(v.Files, v.Disk.Value.Path)
	if err != nil {
		return f.unknown(err, "findmnt -T "+v.Disk.Value.Path)
	}
	seen := m.kind + " on " + m.source
	switch {
	case m.readOnly:
		return f.fail(seen+", read-only", "mount -o remount,rw "+m.point)
	case slices.Contains(localKinds(), m.kind):
		return f.ok(seen)
	case slices.Contains(doubtfulKinds(), m.kind):
		return f.warn(seen, fix)
	}
	f.Seen = seen
	return f.unknown(fmt.Errorf("nothing is known here of the file system %q", m.kind), fix)
}

// localKinds keep what fdatasync promises.
func localKinds() []string {
	return []string{"ext4", "ext3", "xfs", "btrfs", "zfs", "f2fs", "bcachefs"}
}

// doubtfulKinds forget, or promise for somebody else.
func doubtfulKinds() []string {
	return []string{
		"tmpfs", "ramfs", "overlay", "aufs", "nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "glusterfs", "fuse.glusterfs",
		"lustre", "afs", "fuse", "fuseblk", "fuse.sshfs", "vfat", "exfat", "ntfs3", "squashfs",
	}
}

func checkFreeSpace(v *View, _ Want) Finding {
	f := Finding{
		ID: "free_space", Wanted: "at least " + size(lowFree),
		Why: "room for a release is reserved before its first byte; without room it waits, and a journal without room stops the daemon",
	}
	d := v.Disk.Value
	seen := size(d.Free) + " of " + size(d.Total)
	fix := "make room on the file system of " + d.Path
	switch {
	case v.Disk.Err != nil:
		return f.unknown(v.Disk.Err, "")
	case d.Free < minFree:
		return f.fail(seen, fix)
	case d.Free < lowFree:
		return f.warn(seen, fix)
	}
	return f.ok(seen)
}

// checkWriteSpeed fails below the rate of the link: a receiver that writes more slowly than it hears loses the rest.
func checkWriteSpeed(v *View, w Want) Finding {
	f := Finding{
		ID: "write_speed", Wanted: speedWanted(w),
		Why: "what comes faster than the disk takes it is lost once the buffers are full",
	}
	got := v.Speed.Value.Write
	switch {
	case v.Speed.Err != nil:
		return f.unknown(v.Speed.Err, measureFix(v.Speed.Err))
	case w.total() == 0:
		f.Seen = console.Rate(got)
		return f.unknown(fmt.Errorf("the rate of the link is not in this configuration"), "doctor --rate RATE, the sender's link.rate")
	case got < bytesPerSecond(w):
		return f.fail(console.Rate(got), slower(w, got))
	case got < spare*bytesPerSecond(w):
		return f.warn(console.Rate(got), slower(w, got))
	}
	return f.ok(console.Rate(got))
}

// checkReadSpeed only warns: a sender that reads slowly sends slowly.
func checkReadSpeed(v *View, w Want) Finding {
	f := Finding{
		ID: "read_speed", Wanted: speedWanted(w),
		Why: "a payload is read in order, and each span again for its repair symbols; a slow disk makes the transfer longer",
	}
	got := v.Speed.Value.Read
	switch {
	case v.Speed.Err != nil:
		return f.unknown(v.Speed.Err, measureFix(v.Speed.Err))
	case got < spare*bytesPerSecond(w):
		return f.warn(console.Rate(got), slower(w, got))
	}
	return f.ok(console.Rate(got))
}

// measureFix is what makes measuring possible.
func measureFix(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "run doctor as root, or as the daemon's own user"
	}
	return ""
}

// total is the rate of all lanes together.
func (w Want) total() int64 { return max(w.Total, w.Rate) }

func bytesPerSecond(w Want) float64 { return float64(w.total()) / 8 }

func speedWanted(w Want) string {
	if w.total() == 0 {
		return "twice the rate of the link"
	}
	return fmt.Sprintf("at least %s (twice %s)", console.Rate(spare*bytesPerSecond(w)), console.BitRate(float64(w.total())))
}

// slower is the fix of a slow disk: another one, or the rate that this one bears.
func slower(w Want, got float64) string {
	const mega = 1_000_000
	bears := int64(got / spare * 8 / mega)
	return fmt.Sprintf("state: DIR on a faster disk, or link: {rate: %dMbit} at the sender (now %s)", max(bears, 1), console.BitRate(float64(w.total())))
}
