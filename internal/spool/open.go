// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sluice/internal/durable"
	"sluice/pkg/fec"
)

// repairName is the side file.
const repairName = "spool.repair"

// Open makes an object of files in the folder root, or resumes the one that was begun there. The folder is ours alone:
// files of these names, and of names that begin with "spool.", are taken over. root may be closed after the call.
//
// A new object reserves every byte of its files before it accepts one: [durable.ErrNoSpace] says how much is lacking, and
// nothing is left. To resume, geometry and files must be as they were, else the error is [ErrMismatch]. A file that
// vanished, or changed its size, since is made anew and its symbols are missing again. [ErrFiles] says that the files do
// not make an object of that size, [ErrBusy] that the folder is open already.
func Open(root *os.Root, files []File, g fec.Geometry, opt Options) (*Object, error) {
	if err := checkFiles(files, g.ObjectSize); err != nil {
		return nil, err
	}
	if g.Spans() > maxSpans {
		return nil, fmt.Errorf("%w: %d spans, at most %d; use more groups", fec.ErrGeometry, g.Spans(), maxSpans)
	}
	opt, err := complete(opt, g)
	if err != nil {
		return nil, err
	}
	own, err := root.OpenRoot(".")
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	files = slices.Clone(files)
	o := &Object{
		geometry: g, options: opt, log: opt.Logger, root: own, digest: identity(g, files),
		staging: newStaging(g), spans: make([]spanState, g.Spans()), decoding: none, done: make(chan struct{}),
	}
	o.changed, o.work = sync.NewCond(&o.mu), sync.NewCond(&o.mu)
	if err := o.setUp(files); err != nil {
		return nil, errors.Join(err, o.abort())
	}
	o.workers.Go(o.repairer)
	o.workers.Go(o.finisher)
	for range writers {
		o.workers.Go(o.writer)
	}
	return o, nil
}

// complete fills in the defaults of the options.
func complete(opt Options, g fec.Geometry) (Options, error) {
	if opt.Logger == nil {
		opt.Logger = zap.NewNop()
	}
	if opt.SlabGroups == 0 {
		opt.SlabGroups = max(1, min(maxSlabGroups, maxSlabBytes/(fec.K*max(1, g.SymbolSize))))
	}
	if opt.SlabGroups < 1 || opt.SlabGroups > maxSlabGroups {
		return opt, fmt.Errorf("spool: slabs of %d groups, want 1 to %d", opt.SlabGroups, maxSlabGroups)
	}
	if opt.BootID == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return opt, fmt.Errorf("identity of this boot: %w", err)
		}
		opt.BootID = strings.TrimSpace(string(id))
	}
	return opt, nil
}

// setUp locks the folder and makes or resumes what is in it.
func (o *Object) setUp(files []File) (err error) {
	if o.files, err = newLayout(o.root, files); err != nil {
		return err
	}
	if err := unix.Flock(int(o.files.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	recorded := make([]bool, len(o.spans))
	o.record, err = openRecord(o.root, o.digest, func(kind uint32, sbn int) {
		if sbn < len(recorded) {
			recorded[sbn] = kind == kindComplete
		}
	})
	if errors.Is(err, errNoRecord) {
		err = o.create()
	} else if err == nil {
		err = o.resume(recorded)
	}
	if err != nil {
		return err
	}
	if o.settled == len(o.spans) {
		close(o.done)
	}
	return nil
}

// create sets up a new folder. The record is written last: without it the folder is not one yet, and a later Open begins
// anew.
//
//	mkdir openat fallocate (each file) fsync(directories); spool.repair, spool.map; WriteFile(spool.record)
func (o *Object) create() error {
	err := o.createFiles()
	if err == nil {
		err = o.openState()
	}
	if err == nil {
		o.bits.reset()
		err = errors.Join(o.side.Truncate(0), o.bits.claim(o.digest, bootKey(o.options.BootID)))
	}
	if err == nil {
		o.record, err = createRecord(o.root, o.digest)
	}
	if errors.Is(err, durable.ErrSync) { // to tidy up is to sync again; what is left the next Open takes over
		return err
	}
	if err != nil {
		return errors.Join(err, o.files.remove(o.root), removeIfThere(o.root, repairName), removeIfThere(o.root, mapName))
	}
	o.log.Info("space reserved", zap.Int64("bytes", o.geometry.ObjectSize), zap.Int("files", len(o.files.files)))
	return nil
}

// createFiles makes every file of the object at its length.
func (o *Object) createFiles() error {
	if err := durable.CheckSpace(o.files.dir, "the object", o.lacking()); err != nil {
		return err
	}
	folders := o.files.folders()
	for _, dir := range folders {
		if err := o.root.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	for _, f := range o.files.files {
		if err := o.createFile(f); err != nil {
			return err
		}
	}
	return syncFolders(o.root, folders)
}

// lacking is the space to have free before the files are made, one by one; 0 if a test reserves in its own way.
func (o *Object) lacking() int64 {
	if o.options.Reserve != nil {
		return 0
	}
	return o.geometry.ObjectSize + mapBytes(o.geometry)
}

// createFile makes one file at its length, or takes over what an Open that was cut short left of it.
func (o *Object) createFile(f File) error {
	file, err := o.root.OpenFile(f.Name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("make file of the object: %w", err)
	}
	if err := file.Truncate(0); err != nil {
		return errors.Join(fmt.Errorf("make file of the object: %w", err), file.Close())
	}
	reserve := o.options.Reserve
	if reserve == nil {
		reserve = durable.Allocate
	}
	return errors.Join(reserve(file, f.Size), file.Close())
}

// openState opens the side file and the bitmaps and makes the counts. Only now, when the object is known to have room:
// they are what grows with it.
func (o *Object) openState() (err error) {
	o.counts = newCounts(o.geometry, o.options.SlabGroups)
	o.queued = make([]bool, len(o.counts.damaged))
	if o.side, err = o.root.OpenFile(repairName, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("open repair symbols: %w", err)
	}
	o.bits, err = openBitmap(o.root, o.geometry)
	return err
}

// resume believes what can be believed (see the package comment) and goes on from there.
func (o *Object) resume(recorded []bool) error {
	_, err := o.root.Stat(repairName)
	sideGone := errors.Is(err, fs.ErrNotExist)
	if err := o.openState(); err != nil {
		return err
	}
	boot := bootKey(o.options.BootID)
	trusted := o.bits.trusted(o.digest, boot)
	if trusted {
		o.files.evicted = !o.bits.clean() // what the process before us wrote may not be on the disk yet
		o.recovered.Store(int64(o.bits.words[wordRecovered]))
		o.repair.Store(int64(o.bits.words[wordRepair]))
	} else {
		o.believeRecord(recorded)
	}
	if !trusted || sideGone {
		clear(o.bits.repair)
		if err := o.side.Truncate(0); err != nil {
			return fmt.Errorf("empty the repair symbols: %w", err)
		}
	}
	if err := o.bits.claim(o.digest, boot); err != nil {
		return err
	}
	if err := o.checkOnDisk(recorded); err != nil {
		return err
	}
	return o.takeStock(recorded, trusted)
}

// believeRecord sets the bits of the recorded spans and no other.
func (o *Object) believeRecord(recorded []bool) {
	o.bits.reset()
	for sbn, yes := range recorded {
		if yes {
			setAll(o.bits.sourceOf(sbn), o.geometry.Span(sbn).N)
		}
	}
}

// checkOnDisk makes anew the files that vanished or changed their size, and clears the bits of their symbols. The record
// goes first: once a file has its size again, nothing else tells that it is empty.
func (o *Object) checkOnDisk(recorded []bool) error {
	var remake, reopened []int
	for i, f := range o.files.files {
		info, err := o.root.Stat(f.Name)
		if err == nil && info.Mode().IsRegular() && info.Size() == f.Size {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look at file of the object: %w", err)
		}
		o.log.Warn("file of the object vanished or changed its size; receiving it again", zap.String("file", f.Name))
		remake = append(remake, i)
		reopened = append(reopened, o.clearFile(i, recorded)...)
	}
	if len(remake) == 0 {
		return nil
	}
	if err := o.record.append(kindReopened, reopened); err != nil {
		return err
	}
	return o.remake(remake)
}

func (o *Object) remake(files []int) error {
	for _, i := range files {
		f := o.files.files[i]
		if err := o.root.MkdirAll(path.Dir(f.Name), 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if err := o.createFile(f); err != nil {
			return err
		}
	}
	return syncFolders(o.root, o.files.folders())
}

// clearFile clears the source bits of every symbol that lies in file i, if only in part, and takes its spans off the
// recorded ones; it returns those.
func (o *Object) clearFile(i int, recorded []bool) (reopened []int) {
	if o.files.files[i].Size == 0 {
		return nil
	}
	size, perSpan := int64(o.geometry.SymbolSize), int64(fec.K)*int64(o.geometry.Groups)
	end := o.files.ends[i]
	for symbol := (end - o.files.files[i].Size) / size; symbol <= (end-1)/size; symbol++ {
		sbn := int(symbol / perSpan)
		unset(o.bits.sourceOf(sbn), int(symbol%perSpan))
		if recorded[sbn] {
			recorded[sbn] = false
			reopened = append(reopened, sbn)
		}
	}
	return reopened
}

// takeStock counts the bits, sets the states of the spans, and hands out the work that was left over.
func (o *Object) takeStock(recorded []bool, trusted bool) error {
	var reopened []int
	for sbn := range o.spans {
		s := o.geometry.Span(sbn)
		o.counts.load(s, o.bits.sourceOf(sbn), o.bits.repairOf(sbn))
		lost := int(o.counts.spanLost[sbn])
		o.have.Add(int64(s.N - lost))
		switch {
		case recorded[sbn] && lost == 0:
			o.spans[sbn] = spanRecorded
			o.settled++
			o.complete.Add(1)
		case recorded[sbn]:
			reopened = append(reopened, sbn)
		default:
			o.settleSpan(sbn)
		}
	}
	for slab := range o.counts.damaged {
		o.offer(slab)
	}
	o.log.Info("resumed", zap.Bool("every_bit_trusted", trusted), zap.Int64("symbols", o.geometry.Symbols()),
		zap.Int64("have", o.have.Load()), zap.Int("spans", len(o.spans)), zap.Int64("complete", o.complete.Load()))
	return o.record.append(kindReopened, reopened)
}

// abort closes what an Open that failed had opened.
func (o *Object) abort() error {
	errs := []error{o.root.Close()}
	if o.files != nil {
		errs = append(errs, o.files.close())
	}
	if o.record != nil {
		errs = append(errs, o.record.close())
	}
	if o.side != nil {
		errs = append(errs, o.side.Close())
	}
	if o.bits != nil {
		errs = append(errs, o.bits.close())
	}
	return errors.Join(errs...)
}
