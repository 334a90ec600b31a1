// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// maxProcFile bounds what is read of a file of the kernel: /proc/net/udp of a host with 30,000 sockets.
const maxProcFile = 4 << 20

// read returns a file, without the space around it.
func read(files fs.FS, name string) (string, error) {
	if files == nil {
		return "", fmt.Errorf("%s: %w", name, ErrNotRead)
	}
	f, err := files.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	return strings.TrimSpace(string(b)), err // it names the file
}

// readInts returns a file of exactly count whole numbers.
func readInts(files fs.FS, name string, count int) ([]int64, error) {
	text, err := read(files, name)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(text)
	if len(fields) != count {
		return nil, fmt.Errorf("%s: %w: %d numbers, want %d", name, ErrMalformed, len(fields), count)
	}
	numbers := make([]int64, count)
	for i, s := range fields {
		if numbers[i], err = strconv.ParseInt(s, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", name, ErrMalformed, err)
		}
	}
	return numbers, nil
}

// readInt returns a file of one whole number.
func readInt(files fs.FS, name string) (int64, error) {
	numbers, err := readInts(files, name, 1)
	if err != nil {
		return 0, err
	}
	return numbers[0], nil
}

// sysctl returns a setting of one number, by its dotted name.
func sysctl(files fs.FS, name string) (int64, error) {
	return readInt(files, path.Join("proc/sys", strings.ReplaceAll(name, ".", "/")))
}

// udpCounter returns a counter of UDP from /proc/net/snmp, which has a line of names above the line of numbers.
func udpCounter(files fs.FS, name string) (uint64, error) {
	const file = "proc/net/snmp"
	text, err := read(files, file)
	if err != nil {
		return 0, err
	}
	var names []string
	for l := range strings.Lines(text) {
		fields := strings.Fields(l)
		switch {
		case len(fields) == 0 || fields[0] != "Udp:":
		case names == nil:
			names = fields
		default:
			return columnOf(names, fields, name)
		}
	}
	return 0, fmt.Errorf("%s: %w: no two lines of Udp", file, ErrMalformed)
}

// columnOf returns the number below a name.
func columnOf(names, numbers []string, name string) (uint64, error) {
	for i, s := range names {
		if s == name && i < len(numbers) {
			n, err := strconv.ParseUint(numbers[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w: %w", name, ErrMalformed, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: no counter %s", ErrMalformed, name)
}

// udpSocket is a row of /proc/net/udp.
type udpSocket struct {
	local netip.AddrPort
	drops uint64
}

// udpSockets returns the UDP sockets of both families. A host without IPv6 has no udp6.
func udpSockets(files fs.FS) ([]udpSocket, error) {
	var all []udpSocket
	for _, file := range []string{"proc/net/udp", "proc/net/udp6"} {
		text, err := read(files, file)
		if errors.Is(err, fs.ErrNotExist) && file == "proc/net/udp6" {
			continue
		}
		if err != nil {
			return nil, err
		}
		rows, err := parseSockets(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, rows...)
	}
	return all, nil
}

// parseSockets reads the rows below the header.
func parseSockets(text string) (all []udpSocket, err error) {
	const localColumn, dropsColumn = 1, 12
	header := true
	for l := range strings.Lines(text) {
		fields := strings.Fields(l)
		if header || len(fields) == 0 {
			header = false
			continue
		}
		if len(fields) <= dropsColumn {
			return nil, fmt.Errorf("%w: a row of %d columns", ErrMalformed, len(fields))
		}
		var s udpSocket
		if s.local, err = parseLocal(fields[localColumn]); err != nil {
			return nil, err
		}
		if s.drops, err = strconv.ParseUint(fields[dropsColumn], 10, 64); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// parseLocal reads "0100007F:1266": words of the address in the machine's own order, and the port.
func parseLocal(s string) (netip.AddrPort, error) {
	host, portText, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	port, portErr := strconv.ParseUint(portText, 16, 16)
	if err := errors.Join(err, portErr); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: address %q: %w", ErrMalformed, s, err)
	}
	for word := b; len(word) >= 4; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%w: address %q", ErrMalformed, s)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}

// gateways returns the gateways that IPv4 routes of an interface name, from /proc/net/route.
func gateways(files fs.FS, name string) (all []netip.Addr, err error) {
	const file, nameColumn, gatewayColumn = "proc/net/route", 0, 2
	text, err := read(files, file)
	if err != nil {
		return nil, err
	}
	for l := range strings.Lines(text) {
		fields := strings.Fields(l)
		if len(fields) <= gatewayColumn {
			return nil, fmt.Errorf("%s: %w: a row of %d columns", file, ErrMalformed, len(fields))
		}
		if fields[nameColumn] != name {
			continue
		}
		gateway, err := parseLocal(fields[gatewayColumn] + ":0")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if !gateway.Addr().IsUnspecified() {
			all = append(all, gateway.Addr())
		}
	}
	return all, nil
}

// mount is a line of /proc/self/mountinfo.
type mount struct {
	point, kind, source string
	readOnly            bool
}

// mountOf returns the mount that a clean absolute path lies on: of the longest mount point above it, the last mounted.
func mountOf(files fs.FS, target string) (mount, error) {
	const file = "proc/self/mountinfo"
	text, err := read(files, file)
	if err != nil {
		return mount{}, err
	}
	var best mount
	for l := range strings.Lines(text) {
		m, err := parseMount(l)
		if err != nil {
			return mount{}, fmt.Errorf("%s: %w", file, err)
		}
		if isBelow(target, m.point) && len(m.point) >= len(best.point) {
			best = m
		}
	}
	if best.point == "" {
		return mount{}, fmt.Errorf("%s: %w: nothing is mounted above %s", file, ErrMalformed, target)
	}
	return best, nil
}

func isBelow(target, point string) bool {
	return target == point || strings.HasPrefix(target, strings.TrimSuffix(point, "/")+"/")
}

// parseMount reads "36 35 98:0 /root /mnt rw,noatime shared:1 - ext4 /dev/vda rw" (proc_pid_mountinfo(5)).
func parseMount(l string) (mount, error) {
	const pointColumn, optionsColumn = 4, 5
	left, right, ok := strings.Cut(l, " - ")
	before, after := strings.Fields(left), strings.Fields(right)
	if !ok || len(before) <= optionsColumn || len(after) < 2 {
		return mount{}, fmt.Errorf("%w: line %q", ErrMalformed, strings.TrimSpace(l))
	}
	options := before[optionsColumn]
	if len(after) > 2 {
		options += "," + after[2] // those of the file system itself
	}
	return mount{
		point: unescape(before[pointColumn]), kind: after[0], source: after[1],
		readOnly: strings.Contains(","+options+",", ",ro,"),
	}, nil
}

// unescape undoes the kernel's writing of space, tab, line feed and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
