// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// item is one object of a release: where it goes and what it must be.
type item struct {
	path    string // below its prefix
	key     string
	body    body
	version string // filled in when it is known to exist
	ours    bool   // this call of Publish created it
	checked bool   // and its bytes were read back already
}

// job is one call of Publish.
type job struct {
	e       *engine
	id      string
	r       *Release
	files   []item
	prov    []item
	started string
	meter   *meter
}

// Publish implements Publisher: the order of registry-layout.md, once for all
// targets.
func (e *engine) Publish(ctx context.Context, r Release, src Source, progress func(done, total int64)) (*Receipt, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	j := e.newJob(&r, src, progress)
	for _, it := range slices.Concat(j.files, j.prov) {
		if err := e.st.check(it.key); err != nil {
			return nil, err
		}
	}
	end, err := e.st.begin(ctx, j.id)
	if err != nil {
		return nil, err
	}
	receipt, err := j.run(ctx)
	if err == nil {
		err = j.refuseWithdrawn(ctx) // somebody may have withdrawn it meanwhile
	}
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return receipt, end()
}

// refuseWithdrawn refuses a release that is withdrawn, after it has done what
// follows from that: files that this or an earlier call put there go again.
func (j *job) refuseWithdrawn(ctx context.Context) error {
	w, _, err := j.e.withdrawal(ctx, j.r.Name, j.id)
	if err != nil || w == nil || !w.Withdrawn {
		return err
	}
	return errors.Join(w.refusal(), j.e.complete(ctx, w, j.id))
}

// newJob lists the objects of a release.
func (e *engine) newJob(r *Release, src Source, progress func(done, total int64)) *job {
	j := &job{e: e, id: hexID(r.ID), r: r, started: e.now(), meter: &meter{report: progress}}
	prefix := releasePrefix(r.Name, j.id)
	for i, f := range r.Files {
		b := body{size: f.Size, sha256: f.SHA256, link: true, open: openFile(src, i, f)}
		j.files = append(j.files, j.item(prefix, f.Path, b))
	}
	prefix = provPrefix(r.Name, j.id)
	j.prov = append(j.prov, j.item(prefix, envelopeName, blobBody(r.Envelope)))
	for _, b := range r.Evidence {
		j.prov = append(j.prov, j.item(prefix, evidenceDir+b.Name, blobBody(b)))
	}
	j.prov = append(j.prov, j.item(prefix, statementName, bytesBody(r.Statement, j.id, false)))
	if len(r.ModelSignature) > 0 {
		j.prov = append(j.prov, j.item(prefix, modelSigName, bytesBody(r.ModelSignature, j.id, false)))
	}
	for _, it := range slices.Concat(j.files, j.prov) {
		j.meter.total += 2 * it.body.size // written and read back
	}
	slices.SortFunc(j.prov, func(a, b item) int { return strings.Compare(a.path, b.path) })
	return j
}

func (j *job) item(prefix, path string, b body) item {
	b.stage, b.add = j.id, j.meter.add
	return item{path: path, key: prefix + path, body: b}
}

func blobBody(b Blob) body { return body{size: b.Size, sha256: b.SHA256, open: b.Open} }

// openFile opens file i of the spool and makes sure that it is what Source
// promises: a regular file of the right size.
func openFile(src Source, i int, f File) func() (io.ReadSeekCloser, error) {
	return func() (io.ReadSeekCloser, error) {
		file, err := src.Open(i)
		if err != nil {
			return nil, fmt.Errorf("open spool file %q: %w", f.Path, err)
		}
		if err := checkSpool(file, f); err != nil {
			file.Close()
			return nil, err
		}
		return file, nil
	}
}

func checkSpool(file *os.File, f File) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("stat spool file %q: %w", f.Path, err)
	}
	if !info.Mode().IsRegular() || info.Size() != f.Size {
		return fmt.Errorf("spool file %q: %w", f.Path,
			corruptf("%s of %d bytes, want a regular file of %d", info.Mode().Type(), info.Size(), f.Size))
	}
	return nil
}

// run is the sequence. A release that is visible is only completed.
func (j *job) run(ctx context.Context) (*Receipt, error) {
	if err := j.refuseWithdrawn(ctx); err != nil {
		return nil, err
	}
	p, err := j.e.published(ctx, j.r.Name, j.id)
	if err == nil {
		return j.again(ctx, p)
	}
	if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	if err := j.e.refuseRollback(ctx, j.entry("")); err != nil {
		return nil, err
	}
	if err := j.writeFiles(ctx); err != nil {
		return nil, err
	}
	receipt, err := j.writeProvenance(ctx)
	if err != nil {
		return nil, err
	}
	if err := j.commit(ctx, receipt); err != nil {
		return nil, err
	}
	return receipt, j.e.announce(ctx, receipt.entry())
}

// writeFiles puts what is missing below the release prefix, then requires the
// exact set of keys: consumers take everything that lies there.
func (j *job) writeFiles(ctx context.Context) error {
	prefix := releasePrefix(j.r.Name, j.id)
	if err := j.putMissing(ctx, prefix, j.files, false); err != nil {
		return err
	}
	if err := j.e.st.settle(ctx, prefix); err != nil {
		return err
	}
	have, err := j.present(ctx, prefix, j.files)
	if err != nil {
		return err
	}
	if len(have) != len(j.files) {
		return fmt.Errorf("list %s: %w", prefix, corruptf("%d keys of %d after writing all", len(have), len(j.files)))
	}
	return j.readBack(ctx, j.files)
}

// putMissing puts the items that are not there. With heal, what is put is also
// read back here.
func (j *job) putMissing(ctx context.Context, prefix string, items []item, heal bool) error {
	have, err := j.present(ctx, prefix, items)
	if err != nil {
		return err
	}
	return j.e.each(ctx, len(items), func(ctx context.Context, i int) error {
		_, there := have[items[i].key]
		if there {
			j.meter.add(items[i].body.size)
		}
		if err := j.putOne(ctx, &items[i], there); err != nil || there || !heal {
			return err
		}
		return j.readOne(ctx, &items[i])
	})
}

// present lists prefix and refuses a key that is not of the release, one that
// is no plain object, and one of another size. Our own records are allowed.
func (j *job) present(ctx context.Context, prefix string, items []item) (map[string]object, error) {
	want := make(map[string]int64, len(items))
	for _, it := range items {
		want[it.key] = it.body.size
	}
	have, err := j.e.listing(ctx, prefix, maxFiles+1)
	if err != nil {
		return nil, err
	}
	delete(have, receiptKey(j.r.Name, j.id))
	delete(have, commitKey(j.r.Name, j.id))
	for _, key := range slices.Sorted(maps.Keys(have)) {
		size, known := want[key]
		switch o := have[key]; {
		case !known:
			return nil, fmt.Errorf("%w: %s is not part of the release; find out who wrote it, then remove it", ErrConflict, key)
		case o.odd != "":
			return nil, fmt.Errorf("%w: %s is %s", ErrConflict, key, o.odd)
		case o.size != size:
			return nil, fmt.Errorf("%w: %s has %d bytes, the release %d", ErrConflict, key, o.size, size)
		}
	}
	return have, nil
}

// putOne makes sure that the object exists, and knows its version. One that
// was there already must have the same size and, where the server tells it,
// the same digest; its bytes are read back later like all others.
func (j *job) putOne(ctx context.Context, it *item, there bool) error {
	if !there {
		w, err := j.e.st.put(ctx, it.key, it.body)
		if !errors.Is(err, errExists) {
			it.version, it.ours, it.checked = w.version, err == nil, w.readBack
			return err
		}
	}
	o, err := j.e.st.stat(ctx, it.key)
	if err != nil {
		return err
	}
	if o.size != it.body.size || o.digest != "" && o.digest != hexID(it.body.sha256) {
		return fmt.Errorf("%w: %s exists with %d bytes, SHA-256 %q; the release has %d bytes, %x",
			ErrConflict, it.key, o.size, o.digest, it.body.size, it.body.sha256)
	}
	it.version = o.version
	return nil
}

// readBack hashes every item where it was published, but for those that the
// store itself has read back from the medium before it gave them their name.
func (j *job) readBack(ctx context.Context, items []item) error {
	return j.e.each(ctx, len(items), func(ctx context.Context, i int) error { return j.readOne(ctx, &items[i]) })
}

func (j *job) readOne(ctx context.Context, it *item) error {
	if it.checked {
		return nil
	}
	sum, n, err := j.e.hash(ctx, it.key, j.meter.add)
	if err != nil {
		return err
	}
	if n == it.body.size && sum == it.body.sha256 {
		return nil
	}
	kind := ErrConflict // somebody else's, or an earlier run's
	if it.ours {
		kind = ErrCorrupt
	}
	return fmt.Errorf("%w: %s: read back %d bytes, SHA-256 %x; the release has %d bytes, %x; nothing was committed",
		kind, it.key, n, sum, it.body.size, it.body.sha256)
}

// writeProvenance puts the provenance and the receipt, reads them back, and
// returns the receipt that is there: ours, or the one of a run that crashed or
// of a racing publisher.
func (j *job) writeProvenance(ctx context.Context) (*Receipt, error) {
	prefix := provPrefix(j.r.Name, j.id)
	if err := j.putMissing(ctx, prefix, j.prov, false); err != nil {
		return nil, err
	}
	data, err := encode(j.receipt())
	if err != nil {
		return nil, err
	}
	err = j.e.putBytes(ctx, receiptKey(j.r.Name, j.id), j.id, data)
	if err != nil && !errors.Is(err, errExists) {
		return nil, err
	}
	if err := j.e.st.settle(ctx, prefix); err != nil {
		return nil, err
	}
	if err := j.readBack(ctx, j.prov); err != nil {
		return nil, err
	}
	receipt, _, err := j.e.receipt(ctx, j.r.Name, j.id)
	if err != nil {
		return nil, err
	}
	return receipt, j.sameRelease(receipt)
}

// receipt describes what was written.
func (j *job) receipt() *Receipt {
	en := j.entry(j.e.now())
	return &Receipt{
		Type: typeReceipt, Release: j.id, Name: en.Name, Version: en.Version, Stream: en.Stream,
		Epoch: en.Epoch, Seq: en.Seq, Kind: en.Kind, Files: records(j.files), Provenance: records(j.prov),
		Receiver: j.e.opt.Receiver, Started: j.started, Finished: en.Published,
	}
}

func records(items []item) []ReceiptFile {
	list := make([]ReceiptFile, len(items))
	for i, it := range items {
		list[i] = ReceiptFile{Path: it.path, Size: it.body.size, SHA256: hexID(it.body.sha256), VersionID: it.version}
	}
	return list
}

func (j *job) entry(published string) Entry {
	r := j.r
	return Entry{
		Name: r.Name, Version: r.Version, Stream: r.Stream, Epoch: r.Epoch, Seq: r.Seq,
		Release: j.id, Kind: r.Kind, Published: published,
	}
}

// sameRelease refuses a receipt that speaks of anything else than this release.
func (j *job) sameRelease(got *Receipt) error {
	mine, theirs := j.entry(""), got.entry()
	theirs.Published = ""
	equal := func(a, b ReceiptFile) bool { return a.Path == b.Path && a.Size == b.Size && a.SHA256 == b.SHA256 }
	if mine != theirs || !slices.EqualFunc(records(j.files), got.Files, equal) ||
		!slices.EqualFunc(records(j.prov), got.Provenance, equal) {
		return fmt.Errorf("%w: %s describes other content under the same release id", ErrConflict, receiptKey(j.r.Name, j.id))
	}
	return nil
}

// commit makes the release visible. COMMIT's bytes follow from the receipt, so
// a second publisher finds its own bytes there, or a conflict.
func (j *job) commit(ctx context.Context, receipt *Receipt) error {
	data, err := encode(receipt)
	if err != nil {
		return err
	}
	want, err := encode(j.commitObject(data))
	if err != nil {
		return err
	}
	key := commitKey(j.r.Name, j.id)
	err = j.e.putBytes(ctx, key, j.id, want)
	if err != nil && !errors.Is(err, errExists) {
		return err
	}
	got, _, err := j.e.readSmall(ctx, key, maxSmallJSON)
	if err != nil {
		return err
	}
	if string(got) != string(want) {
		return fmt.Errorf("%w: %s is %q, want %q", ErrConflict, key, got, want)
	}
	return nil
}

func (j *job) commitObject(receipt []byte) commit {
	sum := sha256.Sum256(receipt)
	c := commit{
		Type: typeCommit, Release: j.id, Receipt: hex.EncodeToString(sum[:]),
		DirectoryDigest: hex.EncodeToString(j.r.DirectoryDigest[:]), Files: int64(len(j.files)),
	}
	for _, it := range j.files {
		c.Bytes += it.body.size
	}
	return c
}

// again completes a release whose COMMIT exists: objects that a server lost are
// put again and read back (MinIO loses acknowledged objects at a power cut),
// and the announcement is finished. When nothing is missing nothing is written.
func (j *job) again(ctx context.Context, p *Published) (*Receipt, error) {
	if err := j.sameRelease(&p.Receipt); err != nil {
		return nil, err
	}
	if err := j.e.refuseMarked(ctx, p.Receipt.entry()); err != nil {
		return nil, err
	}
	if err := j.heal(ctx, releasePrefix(j.r.Name, j.id), j.files); err != nil {
		return nil, err
	}
	if err := j.heal(ctx, provPrefix(j.r.Name, j.id), j.prov); err != nil {
		return nil, err
	}
	j.meter.finish()
	return &p.Receipt, j.e.announce(ctx, p.Receipt.entry())
}

// heal puts and reads back what is missing below prefix, and makes it durable.
func (j *job) heal(ctx context.Context, prefix string, items []item) error {
	if err := j.putMissing(ctx, prefix, items, true); err != nil {
		return err
	}
	return j.e.st.settle(ctx, prefix)
}

// meter adds up progress for one job.
type meter struct {
	mu     sync.Mutex
	done   int64
	told   int64
	total  int64
	report func(done, total int64)
}

// meterStep is how many bytes pass between two reports.
const meterStep = 1 << 20

// add counts n bytes and reports when enough have passed or all are done.
func (m *meter) add(n int64) {
	if m.report == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	if m.done-m.told >= meterStep || m.done == m.total {
		m.told = m.done
		m.report(min(m.done, m.total), m.total)
	}
}

// finish reports that everything is done.
func (m *meter) finish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.report != nil && m.told != m.total {
		m.done, m.told = m.total, m.total
		m.report(m.done, m.total)
	}
}
