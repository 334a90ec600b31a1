// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sluice/internal/link"
)

// cell is what the process that tries things is given.
type cell struct {
	dir    string // its own
	state  string // around it; holds secret
	socket int    // bound UDP, inherited
	parent int
	memory [8]byte
}

// attempt is one thing that a front must not be able to do. root says that the attempt needs root's rights anyhow, so that it proves
// nothing without them.
type attempt struct {
	name string
	root bool
	try  func(c *cell) error
}

func raw(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

func attempts() []attempt {
	return append(append(files(), processes()...), networks()...)
}

func files() []attempt {
	read := func(name string) error { _, err := os.ReadFile(name); return err }
	write := func(name string) error { return os.WriteFile(name, []byte("x"), 0o600) }
	here := func(c *cell, name string) string { return filepath.Join(c.dir, name) }
	return []attempt{
		{name: "read /etc/passwd", try: func(*cell) error { return read("/etc/passwd") }},
		{name: "read /etc/passwd through /proc/self/root", try: func(*cell) error { return read("/proc/self/root/etc/passwd") }},
		{name: "read /proc/self/maps", try: func(*cell) error { return read("/proc/self/maps") }},
		{name: "read the memory of the parent", try: func(c *cell) error {
			f, err := os.Open("/proc/" + strconv.Itoa(c.parent) + "/mem")
			if err == nil {
				f.Close()
			}
			return err
		}},
		{name: "list /", try: func(*cell) error { _, err := os.ReadDir("/"); return err }},
		{name: "read what lies beside its directory", try: func(c *cell) error { return read(filepath.Join(c.state, "secret")) }},
		{name: "the same by ..", try: func(c *cell) error { return read(c.dir + "/../secret") }},
		{name: "write beside its directory", try: func(c *cell) error { return write(filepath.Join(c.state, "new")) }},
		{name: "overwrite beside its directory", try: func(c *cell) error { return write(filepath.Join(c.state, "secret")) }},
		{name: "truncate by name beside its directory", try: func(c *cell) error { return os.Truncate(filepath.Join(c.state, "secret"), 0) }},
		{name: "write to /proc/self/oom_score_adj", try: func(*cell) error { return os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0) }},
		{name: "write into /tmp", try: func(*cell) error {
			f, err := os.CreateTemp("/tmp", "sluice-")
			if err == nil {
				err = errors.Join(f.Close(), os.Remove(f.Name()))
			}
			return err
		}},
		{name: "make a directory beside its own", try: func(c *cell) error { return os.Mkdir(filepath.Join(c.state, "d"), 0o700) }},
		{name: "remove what lies beside its directory", try: func(c *cell) error { return os.Remove(filepath.Join(c.state, "removable")) }},
		{name: "remove a directory beside its own", try: func(c *cell) error { return os.Remove(filepath.Join(c.state, "removable.d")) }},
		{name: "move a file out of its directory", try: func(c *cell) error { return os.Rename(here(c, "out"), filepath.Join(c.state, "out")) }},
		{name: "move a file between its directories", try: func(c *cell) error { return os.Rename(here(c, "a/move"), here(c, "b/move")) }},
		{name: "symbolic link", try: func(c *cell) error { return os.Symlink("/etc/passwd", here(c, "symlink")) }},
		{name: "hard link", try: func(c *cell) error { return os.Link(here(c, "a/file"), here(c, "a/hard")) }},
		{name: "hard link to what lies beside", try: func(c *cell) error { return os.Link(filepath.Join(c.state, "secret"), here(c, "hard2")) }},
		{name: "named pipe", try: func(c *cell) error { return unix.Mkfifo(here(c, "fifo"), 0o600) }},
		{name: "device", root: true, try: func(c *cell) error { return unix.Mknod(here(c, "null"), unix.S_IFCHR|0o600, 1<<8|3) }},
		{name: "mode", try: func(c *cell) error { return os.Chmod(here(c, "a/file"), 0o777) }},
		{name: "owner", root: true, try: func(c *cell) error { return os.Chown(here(c, "a/file"), 1, 1) }},
		{name: "times", try: func(c *cell) error { return os.Chtimes(here(c, "a/file"), time.Unix(1, 0), time.Unix(1, 0)) }},
		{name: "extended attribute", try: func(c *cell) error { return notSupported(unix.Setxattr(here(c, "a/file"), "user.x", []byte("x"), 0)) }},
		{name: "watch", try: func(*cell) error { return closing(unix.InotifyInit1(0)) }},
		{name: "control a device", try: func(c *cell) error {
			_, err := unix.IoctlGetInt(c.socket, unix.TIOCINQ)
			return err
		}},
		{name: "mount", root: true, try: func(c *cell) error {
			return ignore(unix.Mount("none", here(c, "a"), "tmpfs", 0, "bogus=1"), unix.EINVAL)
		}},
		{name: "unmount", root: true, try: func(c *cell) error { return ignore(unix.Unmount(here(c, "a"), 0), unix.EINVAL) }},
		{name: "chroot", root: true, try: func(c *cell) error { return unix.Chroot("/") }},
		{name: "pivot_root", root: true, try: func(c *cell) error {
			return ignore(unix.PivotRoot(here(c, "a"), here(c, "a")), unix.EBUSY, unix.EINVAL)
		}},
		{name: "new mount interface", root: true, try: func(*cell) error { return ignore(raw(unix.SYS_FSOPEN, 0, 1<<30), unix.EINVAL) }},
	}
}

// notSupported makes an attempt count as done where the file system has no such thing.
func notSupported(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// closing gives back a descriptor that should not have been had.
func closing(fd int, err error) error {
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func processes() []attempt {
	return []attempt{
		{name: "execute", try: func(*cell) error { return exec.Command("/bin/true").Run() }},
		{name: "execute by descriptor", try: func(*cell) error { return ignore(raw(unix.SYS_EXECVEAT, ^uintptr(0), 0, 0, 0, 0), unix.EFAULT) }},
		{name: "fork", try: func(*cell) error {
			pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if pid == 0 && errno == 0 {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			if errno != 0 {
				return errno
			}
			_, err := unix.Wait4(int(pid), nil, 0, nil)
			return err
		}},
		{name: "trace the parent", try: func(c *cell) error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			err := raw(unix.SYS_PTRACE, 0x4206, uintptr(c.parent), 0, 0) // PTRACE_SEIZE
			if err == nil {                                              // it runs, so it cannot be let go: it is when this thread ends
				_ = raw(unix.SYS_PTRACE, uintptr(unix.PTRACE_DETACH), uintptr(c.parent), 0, 0)
			}
			return err
		}},
		{name: "read the parent's memory by system call", try: func(c *cell) error {
			local := unix.Iovec{Base: &c.memory[0], Len: 8}
			_, err := unix.ProcessVMReadv(c.parent, []unix.Iovec{local}, []unix.RemoteIovec{{Base: 1, Len: 8}}, 0)
			return ignore(err, unix.EFAULT)
		}},
		{name: "signal the parent", try: func(c *cell) error { return unix.Kill(c.parent, 0) }},
		{name: "signal a thread of the parent", try: func(c *cell) error { return raw(unix.SYS_TGKILL, uintptr(c.parent), uintptr(c.parent), 0) }},
		{name: "signal everybody", try: func(*cell) error { return unix.Kill(os.Getpid(), 0) }},
		{name: "descriptor of the parent", try: func(c *cell) error { return closing(unix.PidfdOpen(c.parent, 0)) }},
		{name: "take a descriptor of the parent", try: func(c *cell) error { return ignore(raw(unix.SYS_PIDFD_GETFD, ^uintptr(0), 0, 0), unix.EBADF) }},
		{name: "new namespace", root: true, try: func(*cell) error { return unix.Unshare(unix.CLONE_NEWUTS) }},
		{name: "new user namespace", try: func(*cell) error { return ignore(unix.Unshare(unix.CLONE_NEWUSER), unix.EINVAL) }},
		{name: "another's namespace", root: true, try: func(*cell) error { return ignore(unix.Setns(-1, 0), unix.EBADF) }},
		{name: "another user", root: true, try: func(*cell) error { return raw(unix.SYS_SETRESUID, ^uintptr(0), ^uintptr(0), ^uintptr(0)) }},
		{name: "other groups", root: true, try: func(*cell) error { return raw(unix.SYS_SETGROUPS, 0, 0) }},
		{name: "capabilities", try: func(*cell) error {
			h, d := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
			return unix.Capset(&h, &d[0])
		}},
		{name: "prctl", try: func(*cell) error { return unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }},
		{name: "personality", try: func(*cell) error { return raw(unix.SYS_PERSONALITY, 0xffffffff) }},
		{name: "limits", try: func(*cell) error {
			l := unix.Rlimit{Cur: 0, Max: 0}
			return unix.Prlimit(0, unix.RLIMIT_CORE, &l, nil)
		}},
		{name: "priority", try: func(*cell) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, 19) }},
		{name: "executable memory", try: func(*cell) error {
			m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err == nil {
				err = unix.Munmap(m)
			}
			return err
		}},
		{name: "memory made executable", try: func(*cell) error {
			m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err == nil {
				err = errors.Join(unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC), unix.Munmap(m))
			}
			return err
		}},
		{name: "file in memory", try: func(*cell) error { return closing(unix.MemfdCreate("x", 0)) }},
		{name: "bpf", try: func(*cell) error { return ignore(raw(unix.SYS_BPF, 9999, 0, 0), unix.EINVAL) }, root: true},
		{name: "performance counters", try: func(*cell) error { return ignore(raw(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0), unix.EFAULT) }},
		{name: "io_uring", try: func(*cell) error { return ignore(raw(unix.SYS_IO_URING_SETUP, 0, 0), unix.EFAULT, unix.EINVAL) }, root: true},
		{name: "userfaultfd", try: func(*cell) error { return ignore(raw(unix.SYS_USERFAULTFD, 0xffff), unix.EINVAL) }, root: true},
		{name: "keys", try: func(*cell) error { return raw(unix.SYS_KEYCTL, 0, ^uintptr(2), 1) }},
		{name: "host name", root: true, try: func(*cell) error { return ignore(raw(unix.SYS_SETHOSTNAME, 0, 1<<20), unix.EINVAL) }},
		{name: "clock", root: true, try: func(*cell) error { return ignore(raw(unix.SYS_CLOCK_SETTIME, 99, 0), unix.EINVAL, unix.EFAULT) }},
		{name: "restart the machine", root: true, try: func(*cell) error { return ignore(raw(unix.SYS_REBOOT, 1, 2, 3), unix.EINVAL) }},
		{name: "module", root: true, try: func(*cell) error {
			return ignore(raw(unix.SYS_FINIT_MODULE, ^uintptr(0), 0, 0), unix.EBADF, unix.ENOSYS)
		}},
		{name: "kernel log", root: true, try: func(*cell) error { return raw(unix.SYS_SYSLOG, 10, 0, 0) }},
	}
}

// ignore takes an error for success that only somebody gets who is let in.
func ignore(err error, expected ...unix.Errno) error {
	for _, e := range expected {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

func networks() []attempt {
	loopback := &unix.SockaddrInet4{Port: 40009, Addr: [4]byte{127, 0, 0, 1}}
	return []attempt{
		{name: "TCP socket", try: func(*cell) error { return closing(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)) }},
		{name: "UDP socket", try: func(*cell) error { return closing(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)) }},
		{name: "IPv6 socket", try: func(*cell) error {
			return ignore(closing(unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)), unix.EAFNOSUPPORT)
		}},
		{name: "Unix socket", try: func(*cell) error { return closing(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)) }},
		{name: "netlink socket", try: func(*cell) error { return closing(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)) }},
		{name: "raw socket", root: true, try: func(*cell) error { return closing(unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)) }},
		{name: "pair of sockets", try: func(*cell) error {
			p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err == nil {
				err = errors.Join(unix.Close(p[0]), unix.Close(p[1]))
			}
			return err
		}},
		{name: "send by the link's socket (sendto)", try: func(c *cell) error { return unix.Sendto(c.socket, []byte("x"), 0, loopback) }},
		{name: "send by the link's socket (sendmsg)", try: func(c *cell) error { return unix.Sendmsg(c.socket, []byte("x"), nil, loopback, 0) }},
		{name: "send by the link's socket (sendmmsg)", try: func(c *cell) error { return raw(unix.SYS_SENDMMSG, uintptr(c.socket), 0, 0, 0) }},
		{name: "send a file by the link's socket", try: func(c *cell) error {
			_, err := unix.Sendfile(c.socket, c.socket, nil, 1)
			return ignore(err, unix.EINVAL, unix.EDESTADDRREQ, unix.ESPIPE)
		}},
		{name: "connect the link's socket", try: func(c *cell) error {
			return ignore(raw(unix.SYS_CONNECT, uintptr(c.socket), 0, 16), unix.EFAULT) // let in as far as the address
		}},
		{name: "bind the link's socket", try: func(c *cell) error { return ignore(unix.Bind(c.socket, loopback), unix.EINVAL) }},
		{name: "listen", try: func(c *cell) error { return ignore(unix.Listen(c.socket, 1), unix.EOPNOTSUPP) }},
		{name: "accept", try: func(c *cell) error {
			_, _, err := unix.Accept(c.socket)
			return ignore(err, unix.EOPNOTSUPP, unix.EINVAL)
		}},
		{name: "options of the link's socket", try: func(c *cell) error { return unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_PRIORITY, 1) }},
		{name: "splice", try: func(c *cell) error {
			return ignore(raw(unix.SYS_SPLICE, ^uintptr(0), 0, ^uintptr(0), 0, 1), unix.EBADF)
		}},
	}
}

// outcome is what became of an attempt.
type outcome struct {
	Name   string
	Root   bool // what it takes anyhow
	Denied bool
	Error  string
}

// probe is the process that tries everything: confined as a front is, or free, as the control.
func probe() error {
	dir := os.Getenv("SLUICE_RECV_TEST_DIR")
	c := &cell{dir: dir, state: filepath.Dir(dir), parent: os.Getppid(), socket: 3}
	reader, err := link.FromFile(os.NewFile(uintptr(c.socket), "link"), link.SocketOptions{})
	if err != nil {
		return err
	}
	if os.Getenv("SLUICE_RECV_TEST_NO_LANDLOCK") != "" {
		if err := hideLandlock(); err != nil {
			return err
		}
	}
	if os.Getenv(roleEnv) == "probe" {
		if _, err := Confine(dir, os.Getenv("SLUICE_RECV_TEST_BEST_EFFORT") != ""); err != nil {
			return err
		}
	}
	var out []outcome
	for _, a := range attempts() {
		err := a.try(c)
		o := outcome{Name: a.name, Root: a.root, Denied: errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EXDEV)}
		if err != nil {
			o.Error = err.Error()
		}
		out = append(out, o)
	}
	if err := work(c, reader); err != nil {
		return fmt.Errorf("what a front has to do: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// hideLandlock makes this kernel one that never heard of it.
func hideLandlock() error {
	return seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Names: []string{"landlock_create_ruleset"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)}},
	}})
}

// work is what must go on in the confinement.
func work(c *cell, reader link.BatchReader) error {
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	l := NewLocal(root, zap.NewNop())
	l.bootID = "this one"
	a, err := l.open("a/work", [32]byte{1}, []int64{5 << 20, 0, 77}, Cut{1408, 4})
	if err != nil {
		return err
	}
	err = errors.Join(root.WriteFile("x.tmp", []byte("x"), 0o600), root.Rename("x.tmp", "x"), root.Remove("x"), a.Close(), root.RemoveAll("a/work/files"))
	var threads sync.WaitGroup // more than there are now: the runtime starts them
	for range 30 {
		threads.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			<-time.After(time.Millisecond)
			runtime.GC()
		})
	}
	threads.Wait()
	bufs := []link.Buffer{{Data: make([]byte, link.BufferSize)}}
	n, rerr := reader.ReadBatch(bufs)
	if rerr == nil && (n != 1 || string(bufs[0].Data[:bufs[0].N]) != "hello") {
		rerr = fmt.Errorf("read %d messages, %q", n, bufs[0].Data[:bufs[0].N])
	}
	_ = reader.Drops()
	return errors.Join(err, rerr, reader.Close())
}

// try runs the process in a role.
func try(t *testing.T, role string, env ...string) []outcome {
	t.Helper()
	state := t.TempDir()
	dir := filepath.Join(state, "own")
	for _, d := range []string{"own", "own/a", "own/a/work", "own/b", "removable.d"} {
		must(t, os.Mkdir(filepath.Join(state, d), 0o700))
	}
	for _, f := range []string{"secret", "removable", "own/out", "own/a/move", "own/a/file"} {
		must(t, os.WriteFile(filepath.Join(state, f), []byte("secret"), 0o600))
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	defer conn.Close()
	_, err = conn.WriteTo([]byte("hello"), conn.LocalAddr())
	must(t, err)
	file, err := conn.(*net.UDPConn).File()
	must(t, err)
	defer file.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(env, roleEnv+"="+role, "SLUICE_RECV_TEST_DIR="+dir)...)
	cmd.ExtraFiles = []*os.File{file}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", role, err, stderr.String())
	}
	var out []outcome
	must(t, json.Unmarshal(b, &out))
	return out
}

// TestEveryDenial: a confined process can do none of it, and a free one can do each, so that every line proves something.
func TestEveryDenial(t *testing.T) {
	if landlockABI() == 0 {
		t.Skip("SKIPPED: this kernel has no landlock: that a front is held to its directory is NOT checked")
	}
	confined, free := try(t, "probe"), try(t, "free")
	proved := 0
	for i, o := range confined {
		switch control := free[i]; {
		case !o.Denied:
			t.Errorf("%s: not denied: %q", o.Name, o.Error)
		case control.Error == "":
			proved++
		case o.Root && control.Denied: // not root, or root of a container
			t.Logf("%s: denied, and here it is without confinement too", o.Name)
		default:
			t.Errorf("%s: fails without confinement too, so it proves nothing: %s", o.Name, control.Error)
		}
	}
	t.Logf("%d attempts denied, %d of them possible without confinement", len(confined), proved)
	if proved < len(confined)/2 {
		t.Error("too few are possible without confinement for this test to prove much")
	}
}

// TestSeccompAlone: seccomp alone, as where the kernel has no landlock, still keeps the network, other processes and new ones away.
func TestSeccompAlone(t *testing.T) {
	names := map[string]bool{}
	for _, a := range append(processes(), networks()...) {
		names[a.name] = true
	}
	for _, o := range try(t, "probe", "SLUICE_RECV_TEST_NO_LANDLOCK=1", "SLUICE_RECV_TEST_BEST_EFFORT=1") {
		if names[o.Name] && !o.Denied {
			t.Errorf("%s: not denied: %q", o.Name, o.Error)
		}
		if o.Name == "read /etc/passwd" && o.Denied {
			t.Error("landlock was there: this test proved nothing")
		}
	}
}

// TestLandlockRequired: a kernel without it is refused in words that say what to do.
func TestLandlockRequired(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"=probe", "SLUICE_RECV_TEST_DIR="+t.TempDir(), "SLUICE_RECV_TEST_NO_LANDLOCK=1")
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	defer conn.Close()
	file, err := conn.(*net.UDPConn).File()
	must(t, err)
	defer file.Close()
	cmd.ExtraFiles = []*os.File{file}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "link.confine: best-effort") {
		t.Errorf("%v: %s", err, out)
	}
}
