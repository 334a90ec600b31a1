// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"errors"
	"fmt"
	"os"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/landlock-lsm/go-landlock/landlock"
	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// ErrNoLandlock says that the kernel cannot confine the process to its directory.
var ErrNoLandlock = errors.New("recv: this kernel has no landlock (it came with Linux 5.13; see the lsm= list in /sys/kernel/security/lsm), so the process that faces the link cannot be confined to its directory: boot a kernel that has it, or accept seccomp alone with link.confine: best-effort")

// rights are what the front may do below its directory: make, read, write, and remove files and directories. No links, no devices, no
// pipes, no sockets, no execution, nothing moved from one directory to another.
const rights = llsyscall.AccessFSReadFile | llsyscall.AccessFSWriteFile | llsyscall.AccessFSTruncate | llsyscall.AccessFSReadDir |
	llsyscall.AccessFSMakeReg | llsyscall.AccessFSMakeDir | llsyscall.AccessFSRemoveFile | llsyscall.AccessFSRemoveDir

// allowed are the system calls of the Go runtime, of files, and of receiving from a socket that is open already. What is not here fails
// with EPERM: above all socket, connect, bind, the send family, execve, fork, ptrace, mount, links, modes and owners.
func allowed() []string {
	return []string{
		// Memory and threads of the runtime. mmap, mprotect, clone and tgkill have conditions, below.
		"munmap", "madvise", "brk", "futex", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "sigaltstack", "rt_sigaction",
		"rt_sigprocmask", "rt_sigreturn", "nanosleep", "clock_nanosleep", "clock_gettime", "gettimeofday", "getrandom", "getpid", "gettid",
		"exit", "exit_group", "restart_syscall", "timer_create", "timer_settime", "timer_delete", "getrusage",
		// The runtime's poller, and that of the reader.
		"epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2", "poll", "ppoll", "pipe2",
		// Descriptors that are open.
		"read", "write", "pread64", "pwrite64", "preadv2", "readv", "writev", "lseek", "close", "fcntl", "fstat", "fstatfs", "flock", "ftruncate", "fallocate",
		"fsync", "fdatasync", "syncfs", "msync", "sync_file_range", "fadvise64", "getdents64", "dup", "dup3",
		// Names; landlock says which.
		"openat", "newfstatat", "statx", "readlinkat", "mkdirat", "unlinkat", "renameat", "renameat2", "faccessat", "faccessat2", "getcwd",
		// The sockets it inherited.
		"recvmmsg", "recvmsg", "recvfrom", "getsockopt", "getsockname", "shutdown",
	}
}

// conditional are the calls of which only some uses are allowed.
func conditional() []seccomp.NameWithConditions {
	is := func(name string, argument uint32, op seccomp.Operation, value uint64) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{{Argument: argument, Operation: op, Value: value}}}
	}
	return []seccomp.NameWithConditions{
		is("mmap", 2, seccomp.BitsNotSet, unix.PROT_EXEC),
		is("mprotect", 2, seccomp.BitsNotSet, unix.PROT_EXEC),
		is("clone", 0, seccomp.BitsSet, unix.CLONE_THREAD), // a thread, and no process
		is("tgkill", 0, seccomp.Equal, uint64(os.Getpid())),
		is("prlimit64", 2, seccomp.Equal, 0), // ask, and not set
	}
}

// Confine takes from this process, all its threads, for ever, everything but the directory dir and the descriptors it holds.
// A kernel without landlock is [ErrNoLandlock], unless bestEffort.
func Confine(dir string, bestEffort bool) (Confinement, error) {
	c := Confinement{Landlock: landlockABI()}
	if c.Landlock == 0 && !bestEffort {
		return c, ErrNoLandlock
	}
	if err := dropCapabilities(); err != nil {
		return c, fmt.Errorf("drop capabilities: %w", err)
	}
	if c.Landlock > 0 {
		if err := landlock.V11.BestEffort().Restrict(landlock.PathAccess(rights, dir)); err != nil {
			return c, fmt.Errorf("landlock: %w", err)
		}
	}
	if err := filter(); err != nil {
		return c, fmt.Errorf("seccomp: %w", err)
	}
	c.Seccomp = true
	return c, nil
}

// landlockABI is the version of the kernel's landlock; 0: it has none.
func landlockABI() int {
	abi, err := llsyscall.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return abi
}

// CanConfine is [ErrNoLandlock] where [Confine] would be, without confining anything.
func CanConfine(bestEffort bool) error {
	if landlockABI() == 0 && !bestEffort {
		return ErrNoLandlock
	}
	return nil
}

// dropCapabilities matters for a process of root's: it keeps its files, and nothing else.
func dropCapabilities() error {
	if same, err := cap.GetProc().Cf(cap.NewSet()); err == nil && same == 0 {
		return nil
	}
	return cap.NewSet().SetProc()
}

// filter installs the filter of system calls on every thread.
func filter() error {
	machine, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	group := seccomp.SyscallGroup{Action: seccomp.ActionAllow, NamesWithCondtions: conditional()}
	for _, name := range allowed() {
		if _, known := machine.SyscallNames[name]; known { // poll and epoll_wait are not everywhere
			group.Names = append(group.Names, name)
		}
	}
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{group, {
			// A C library tries clone3 first, whose flags a filter cannot see, and takes clone when there is no such call.
			Names: []string{"clone3"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS),
		}}},
	})
}
