// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Descriptors that a front inherits.
const (
	controlFD = 3
	lockFD    = 4 // held open, and never looked at
	socketFD  = 5 // and those behind it
)

// frontNice is the priority of a front. What overflows in its socket while it waits for a processor nobody can ask for again;
// hashing and publishing can wait.
const frontNice = -10

// child is a front that was started.
type child struct {
	peer   *peer
	pid    int
	behind error         // why it has no priority over others; nil: it has
	stop   time.Duration // how long it may live when the connection is over
	began  time.Time
	gone   chan struct{} // closed once the process and the connection are over; then how and err are set

	mu     sync.Mutex
	exited chan struct{} // closed, under mu, before the process is waited for

	how string
	err error
}

// spawn starts this program again as a front. It dies with this process.
func spawn(command []string, files []*os.File, handlers map[string]handler, stop time.Duration) (*child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "recv control"), os.NewFile(uintptr(pair[1]), "recv control")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", command...) // ourselves: also when the file was replaced by an update meanwhile
	cmd.Args[0] = os.Args[0]
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, append([]*os.File{theirs}, files...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c := &child{peer: newPeer(conn, maxFromFront, handlers), stop: stop, began: time.Now(), gone: make(chan struct{}), exited: make(chan struct{})}
	started := make(chan error)
	go c.live(cmd, started)
	if err := <-started; err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// live starts the process, answers it, and waits for its end. The thread is locked: the signal of the parent's death is that of
// the thread that started the child.
func (c *child) live(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var err error
	if c.behind, err = withNice(frontNice, cmd.Start); err != nil {
		started <- err
		return
	}
	c.pid = cmd.Process.Pid
	answered := make(chan error, 1)
	go func() { answered <- c.converse() }()
	started <- nil
	err = c.wait(cmd)
	c.peer.conn.Close()
	c.err = errors.Join(err, <-answered)
	c.how = cmd.ProcessState.String()
	if c.err != nil && err == nil {
		c.how += ": " + c.err.Error()
	}
	close(c.gone)
}

// withNice does something while the thread, which the caller has locked, is at least so much before others: on Linux each thread has
// a nice value, and what it starts inherits it (setpriority(2), NOTES). Without the right to that, it is done all the same.
func withNice(nice int, do func() error) (refused, err error) {
	const thread = 0 // the calling one
	before, err := unix.Getpriority(unix.PRIO_PROCESS, thread)
	if before = 20 - before; err != nil || before <= nice { // the system call gives 1 to 40
		return err, do()
	}
	if refused = unix.Setpriority(unix.PRIO_PROCESS, thread, nice); refused != nil {
		return refused, do()
	}
	err = do()
	return unix.Setpriority(unix.PRIO_PROCESS, thread, before), err // to step back is always allowed
}

// wait waits for the process, and from then on its number is nobody's.
func (c *child) wait(cmd *exec.Cmd) error {
	// WNOWAIT: the number stays taken until signal can no longer use it.
	for {
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c.mu.Lock()
	close(c.exited)
	c.mu.Unlock()
	return cmd.Wait()
}

// converse answers it until the connection is over. A front that does not keep to the format is killed; one that nobody talks to any
// more may finish, but not for ever.
func (c *child) converse() error {
	err := c.peer.run(context.Background())
	c.peer.conn.Close()
	grace := c.stop
	if err != nil {
		grace = 0
	}
	select {
	case <-c.exited:
	case <-time.After(grace):
		c.signal()
	}
	return err
}

// signal kills the process, unless it has been waited for: its number may be another's by then.
func (c *child) signal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.exited:
	default:
		_ = unix.Kill(c.pid, unix.SIGKILL) // it may have just died
	}
}

// ask is a call that the front has to answer: one that does not in time is killed.
func (c *child) ask(ctx context.Context, method string, in, out any) error {
	err := c.peer.call(ctx, method, in, out)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		c.kill()
		return fmt.Errorf("%w: it did not answer in time: %w", ErrDown, err)
	}
	return err
}

// kill ends the process now and waits for it. Its files are closed then.
func (c *child) kill() {
	c.signal()
	<-c.gone
}

// Inherited gives a front what it was started with: its connection to the daemon, and count sockets.
func Inherited(count int) (net.Conn, []*os.File, error) {
	control := os.NewFile(controlFD, "control")
	conn, err := net.FileConn(control)
	if err = errors.Join(err, control.Close()); err != nil {
		return nil, nil, fmt.Errorf("recv: this command is started by `diode-receiver run`, which hands it the sockets; there is nothing to start by hand: %w", err)
	}
	sockets := make([]*os.File, count)
	for i := range sockets {
		sockets[i] = os.NewFile(uintptr(socketFD+i), fmt.Sprintf("link %d", i+1))
	}
	return conn, sockets, nil
}
