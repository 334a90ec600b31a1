// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// shutdownRequest is FS_IOC_SHUTDOWN; with noLogFlush what is not on the device never gets there. Measured to leave the same as a block
	// device that drops its writes.
	shutdownRequest, noLogFlush = 0x8004587d, 2

	// ext4Size holds a state many times over; xfsSize is the smallest that mkfs.xfs makes. The images are sparse and in memory.
	ext4Size, xfsSize = "64M", "320M"

	// bootID is how the kernel tells one boot from another. A cut bind-mounts another file over it, in its own mount namespace: to the
	// receiver the machine was started again.
	bootID = "/proc/sys/kernel/random/boot_id"
)

// disk is an image with a file system. One trial at a time has it.
type disk struct {
	fs, image string
}

// pool gives a file system's images, one for each worker, which the first call makes.
func (w *ward) pool(fs string) (chan *disk, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.disks[fs] != nil {
		return w.disks[fs], nil
	}
	for _, tool := range []string{"mkfs." + fs, "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: %w (apt-get install e2fsprogs xfsprogs mount)", errSkip, err)
		}
	}
	n := diskWorkers()
	pool := make(chan *disk, n)
	for i := range n {
		d := &disk{fs: fs, image: w.Path(fmt.Sprintf("%s-%d", fs, i))}
		if err := d.format(); err != nil {
			return nil, fmt.Errorf("%w: %w", errSkip, err)
		}
		pool <- d
	}
	w.disks[fs] = pool
	return pool, nil
}

// format makes the file system anew.
func (d *disk) format() error {
	size, make := ext4Size, `mkfs.ext4 -q -F "$2"`
	if d.fs == "xfs" {
		size, make = xfsSize, `mkfs.xfs -q -f "$2"`
	}
	return shell(`rm -f "$2" && truncate -s "$1" "$2" && `+make, size, d.image)
}

func shell(script string, args ...string) error {
	out, err := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// isolated runs fn on a thread with mounts of its own, which end with it. They are private, so that no process that makes a mount
// namespace meanwhile copies one: it would hold a file system that was shut down, and the next mount would find the dead one again.
func isolated(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("%w: no mount namespace here: %w", errSkip, err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

// mount mounts the image. The loop device goes with the mount, and the mount with the thread.
func (d *disk) mount(dir string) error {
	return shell(`mount -t "$1" -o loop "$2" "$3"`, d.fs, d.image, dir)
}

// unmount waits for those who still have a file open: the victim's last threads.
func unmount(dir string) error {
	var err error
	for range 200 {
		if err = unix.Unmount(dir, 0); !errors.Is(err, unix.EBUSY) {
			return err
		}
		<-time.After(5 * time.Millisecond)
	}
	return err
}

// cutPower shuts the file system down.
func cutPower(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), shutdownRequest, noLogFlush)
}

// boot makes the machine another one from here on, as far as the receiver can tell.
func (p *bed) boot(n int) error {
	name := filepath.Join(p.dir, fmt.Sprintf("boot-%d", n))
	id := fmt.Sprintf("%08x-0000-4000-8000-000000000000\n", n)
	if err := os.WriteFile(name, []byte(id), 0o444); err != nil {
		return err
	}
	return unix.Mount(name, bootID, "", unix.MS_BIND, "")
}

// cutting is a row of power cuts.
type cutting struct {
	fs    string
	scene scene
	syncs func(p *bed) []string // options of strace that leave syncs out: a control; nil: none
}

func cutRows() []row {
	report := []column{
		{"acknowledged", "had ended with PUBLISHED before the cut", total}, {"promised", "of the others had a job in the journal", total}, {"visible", "were visible after it", total},
	}
	controls := []column{{"lost", "releases lost or recorded but absent", total}}
	var rows []row
	for _, fs := range []string{"ext4", "xfs"} {
		for i, s := range []scene{importScene(), receiveScene()} {
			rows = append(rows, row{
				name: "S6" + fs[:1] + []string{"", "r"}[i], trials: 500, disks: true, report: report, play: cutting{fs, s, nil}.play, judge: manyPromised,
				promise: fmt.Sprintf("power cuts at random moments of %s on %s: nothing lost that was acknowledged, nothing recorded that is absent, and it finishes after", []string{"an import", "a reception"}[i], fs),
			})
		}
		rows = append(rows,
			row{
				name: "C6" + fs[:1] + "f", trials: 25, disks: true, report: controls, play: cutting{fs, receiveScene(), withoutDatasync}.control, judge: mostLost,
				promise: "CONTROL, which must lose: a reception on " + fs + " with the fdatasync of files left out",
			},
			row{
				name: "C6" + fs[:1] + "d", trials: 25, disks: true, report: controls, play: cutting{fs, importScene(), withoutDirSync}.control, judge: someLost,
				promise: "CONTROL, which must lose: an import on " + fs + " with the fsync of directories left out",
			})
	}
	return rows
}

// manyPromised wants that the cuts fell where something was at stake.
func manyPromised(all []figures) error {
	n := sum(all, "acknowledged") + sum(all, "promised")
	if !few(all) && n < float64(len(all))/5 {
		return fmt.Errorf("only %v of %d cuts fell after the journal had promised something", n, len(all))
	}
	return nil
}

func mostLost(all []figures) error { return lost(all, 0.9) }
func someLost(all []figures) error { return lost(all, 0.2) }

func lost(all []figures, share float64) error {
	n := sum(all, "lost")
	if !few(all) && n < share*float64(len(all)) {
		return fmt.Errorf("only %v of %d lost something: the row that this is the control of proves nothing", n, len(all))
	}
	return nil
}

// bedOn runs fn with a bed on a mounted disk.
func (k cutting) bedOn(ctx context.Context, c *certifier, fn func(p *bed, d *disk) error) error {
	w, err := c.ward(ctx)
	if err != nil {
		return err
	}
	pool, err := w.pool(k.fs)
	if err != nil {
		return err
	}
	d := <-pool
	defer func() { pool <- d }()
	p, err := w.bed(w.plain, "")
	if err != nil {
		return err
	}
	err = isolated(func() error {
		if err := errors.Join(d.mount(p.disk), p.boot(1)); err != nil {
			return fmt.Errorf("%w: %w", errSkip, err)
		}
		err := p.aged()
		if err == nil {
			err = fn(p, d)
		}
		return errors.Join(err, unmount(p.disk))
	})
	if err != nil {
		err = errors.Join(err, d.format())
	}
	return errors.Join(err, p.gone())
}

// aged makes an empty state whose journal has all the blocks that it will need, as one has after some releases: in a young journal each
// commit takes new blocks, and the log of the file system that has to be written for those takes along every name that nobody synced.
func (p *bed) aged() error {
	const grown = 1 << 20
	if err := shell(`rm -rf "$1/high" "$1/registry"`, p.disk); err != nil {
		return err
	}
	if _, err := p.verb("fsck").must(); err != nil {
		return err
	}
	f, err := os.OpenFile(p.journal(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(make([]byte, grown-info.Size()), info.Size())
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// play cuts the power at a moment that the seed draws from the time that the program takes, and a bit more.
func (k cutting) play(ctx context.Context, c *certifier, seed uint64) (f figures, err error) {
	random := rand.New(rand.NewPCG(seed, 6))
	err = k.bedOn(ctx, c, func(p *bed, d *disk) error {
		f, err = k.cut(p, d, random)
		return err
	})
	return f, err
}

func (k cutting) cut(p *bed, d *disk, random *rand.Rand) (figures, error) {
	span, err := k.span(p)
	if err != nil {
		return nil, err
	}
	r, err := k.scene.program(p).start()
	if err != nil {
		return nil, err
	}
	acknowledged, err := during(r, time.Duration(random.Int64N(int64(span))))
	if random.IntN(2) == 0 {
		err = errors.Join(err, p.writeBack())
	}
	if err := errors.Join(err, cutPower(p.disk)); err != nil {
		r.kill()
		return nil, err
	}
	if !acknowledged {
		r.kill()
		if o, err := r.wait(); err != nil {
			return nil, err
		} else if acknowledged = o.code == 0; acknowledged { // it ended in the very moment
			return nil, nil //nolint:nilnil // whether before or after the cut is not known
		}
	}
	if err := errors.Join(p.powerUp(d), p.boot(2)); err != nil {
		return nil, err
	}
	return p.afterCut(k.scene, acknowledged)
}

// writeBack does what the kernel may do at any moment, and what it hardly ever does within the tenth of a second that a trial takes: it
// writes the spool's map of what is here before the bytes that it speaks of.
func (p *bed) writeBack() error {
	f, err := os.OpenFile(p.spool("payload", "spool.map"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not yet, or no longer
	}
	if err != nil {
		return err
	}
	return errors.Join(unix.Fdatasync(int(f.Fd())), f.Close())
}

// during waits for a moment of the program's run, or for its end.
func during(r *running, after time.Duration) (acknowledged bool, err error) {
	moment := time.NewTimer(after)
	defer moment.Stop()
	select {
	case err := <-r.done:
		o, err := r.outcome(err)
		if err == nil && o.code != 0 {
			err = errors.New(o.String())
		}
		return true, err
	case <-moment.C:
		return false, nil
	}
}

// span is the time in which cuts fall: what the program takes when nothing happens to it, measured once, and more than half of it again: machines are busy.
func (k cutting) span(p *bed) (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := k.fs + " " + k.scene.name
	if p.spans[key] > 0 {
		return p.spans[key], nil
	}
	began := time.Now()
	if _, err := k.scene.program(p).must(); err != nil {
		return 0, err
	}
	p.spans[key] = time.Since(began) * 8 / 5
	return p.spans[key], p.aged()
}

func (p *bed) powerUp(d *disk) error {
	if err := unmount(p.disk); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return d.mount(p.disk)
}

// afterCut judges what is left, and finishes.
func (p *bed) afterCut(s scene, acknowledged bool) (figures, error) {
	l, err := p.judge()
	if err != nil {
		return nil, err
	}
	f := figures{"acknowledged": number01(acknowledged), "promised": number01(!acknowledged && l.state != ""), "visible": number01(l.visible)}
	if acknowledged && (!l.visible || l.state != "PUBLISHED") {
		return f, fmt.Errorf("lost: it had ended with PUBLISHED, and after the cut the job is %q, visible: %v", l.state, l.visible)
	}
	if err := p.finishes(s.again(p)); err != nil {
		return f, fmt.Errorf("%w (after the cut the job was %q)", err, l.state)
	}
	return f, p.neverAgain()
}

// withoutDatasync leaves out every fdatasync: of what the spool assembles, of its record, and of the journal.
func withoutDatasync(*bed) []string { return []string{"-e", "inject=fdatasync:retval=0"} }

// withoutDirSync leaves out those of every directory.
func withoutDirSync(p *bed) []string {
	name := p.env.Statement.Predicate.Name
	dirs := []string{p.state(), filepath.Join(p.state(), "spool"), p.spool(), p.spool("payload"), p.spool("payload", "files"), p.registry()}
	for _, dir := range []string{
		"releases", "releases/" + name, "releases/" + name + "/sha256-" + p.id(), "releases/" + name + "/sha256-" + p.id() + "/deep", "provenance", "provenance/" + name,
		"provenance/" + name + "/sha256-" + p.id(), "provenance/" + name + "/sha256-" + p.id() + "/evidence", "catalog", "channels", "channels/" + name,
	} {
		dirs = append(dirs, filepath.Join(p.registry(), filepath.FromSlash(dir)))
	}
	var options []string
	for _, dir := range dirs {
		options = append(options, "-P", dir)
	}
	return append(options, "-e", "inject=fsync:retval=0")
}

// control plays a whole import with syncs left out and cuts the power as soon as it has ended: the row that this is the control of has
// to find that something is lost.
func (k cutting) control(ctx context.Context, c *certifier, _ uint64) (f figures, err error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return nil, fmt.Errorf("%w: %w (apt-get install strace)", errSkip, err)
	}
	err = k.bedOn(ctx, c, func(p *bed, d *disk) error {
		options := append(k.syncs(p), "--seccomp-bpf", "-e", "trace=fsync,fdatasync")
		if _, err := p.traced(k.scene.program(p), options...).must(); err != nil {
			return err
		}
		if err := errors.Join(cutPower(p.disk), p.powerUp(d)); err != nil {
			return err
		}
		_, err := p.afterCut(k.scene, true)
		f = figures{"lost": number01(err != nil && told(err))}
		if err != nil && !told(err) {
			return err
		}
		return nil
	})
	return f, err
}

// told tells whether an error is one of those that a lossy disk must lead to.
func told(err error) bool {
	for _, words := range []string{"lost:", "recorded but absent", "visible and altered", "visible without", "the same again", "no COMMIT", "fsck", "journal cannot be read"} {
		if strings.Contains(err.Error(), words) {
			return true
		}
	}
	return false
}
