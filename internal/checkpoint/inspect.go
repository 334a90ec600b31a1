// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"unicode"
)

// Limits on a snapshot.
const (
	maxFiles    = 100_000 // docs/spec/envelope.md, section 1
	maxFindings = 1_000   // a person reads them
)

// The kinds of envelope that have rules of their own.
const (
	kindModel   = "model-weights"
	kindDataset = "dataset"
)

// Inspect looks at every file of a snapshot and at what they make up together. The error says that the inspection could not
// be done (unreadable files, a cancelled context, unknown exceptions); a snapshot that is refused has a report with Verdict
// Fail and no error. The files of fsys must implement io.ReaderAt, as those of package os do.
//
// Kind model-weights gets all rules. Kind dataset gets the rules of files (and may hold Parquet). Of the other kinds every
// file is classified and only irregular files are refused: what a package holds is vouched for by its own signatures.
func Inspect(ctx context.Context, fsys fs.FS, opt Options) (*Report, error) {
	for _, e := range opt.Exceptions {
		if !slices.Contains(allRules(), e) {
			return nil, fmt.Errorf("%w: exception %q is not a rule; the rules are %s", ErrOptions, e, strings.Join(allRules(), ", "))
		}
	}
	in := &inspector{
		ctx:     ctx,
		fsys:    fsys,
		opt:     opt,
		rep:     &Report{Kind: opt.Kind, Findings: []Finding{}, Files: []FileKind{}},
		kinds:   map[string]string{},
		tensors: map[string]*Safetensors{},
	}
	if err := in.files(); err != nil {
		return nil, err
	}
	if opt.Kind == kindModel {
		if err := in.model(); err != nil {
			return nil, err
		}
	}
	in.judge()
	return in.rep, nil
}

// inspector is one call of Inspect at work.
type inspector struct {
	ctx     context.Context //nolint:containedctx // lives as long as the call
	fsys    fs.FS
	opt     Options
	rep     *Report
	kinds   map[string]string       // path -> kind
	tensors map[string]*Safetensors // path -> table of contents, of every good safetensors file of a model
	more    int                     // findings beyond the cap
	moreBad bool                    // one of them refuses
}

// refuse notes a finding that refuses the snapshot.
func (in *inspector) refuse(rule, file, fix, format string, args ...any) {
	in.note(Finding{Rule: rule, File: file, Fix: fix, Detail: fmt.Sprintf(format, args...), Fatal: true})
}

// remark notes a finding that refuses nothing.
func (in *inspector) remark(rule, file, fix, format string, args ...any) {
	in.note(Finding{Rule: rule, File: file, Fix: fix, Detail: fmt.Sprintf(format, args...)})
}

func (in *inspector) note(f Finding) {
	f.Excepted = f.Fatal && slices.Contains(in.opt.Exceptions, f.Rule)
	if len(in.rep.Findings) >= maxFindings {
		in.more++
		in.moreBad = in.moreBad || f.Fatal && !f.Excepted
		return
	}
	in.rep.Findings = append(in.rep.Findings, f)
}

func (in *inspector) judge() {
	if in.more > 0 {
		in.rep.Findings = append(in.rep.Findings, Finding{
			Rule: RuleFileKind, Detail: fmt.Sprintf("%d more findings are not listed", in.more),
			Fix: "remove the causes listed and inspect again", Fatal: in.moreBad,
		})
	}
	slices.SortStableFunc(in.rep.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Rule, b.Rule))
	})
	in.rep.Verdict = Pass
	if len(in.rep.Refused()) > 0 {
		in.rep.Verdict = Fail
	}
}

// files walks the snapshot and looks at each file by itself.
func (in *inspector) files() error {
	return fs.WalkDir(in.fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("walk snapshot: %w", err)
		case in.ctx.Err() != nil:
			return context.Cause(in.ctx)
		case d.IsDir():
			return nil
		case len(in.rep.Files) >= maxFiles:
			return fmt.Errorf("%w: more than %d", ErrTooMany, maxFiles)
		case !d.Type().IsRegular():
			in.refuse(RuleIrregular, p, "replace it by the file itself", "not a regular file (%s)", d.Type())
			return nil
		}
		if strings.ContainsFunc(p, unicode.IsControl) || strings.Contains(p, "\\") {
			in.refuse(RuleIrregular, p, "rename or remove it", "backslash or control character in the name")
		}
		return in.file(p)
	})
}

// file is one open file of the snapshot.
type file struct {
	path string
	size int64
	io.ReaderAt
}

// all returns a reader over the whole file.
func (f *file) all() io.Reader { return io.NewSectionReader(f, 0, f.size) }

// with opens a file for the time of one call.
func with(fsys fs.FS, p string, use func(*file) error) error {
	f, err := fsys.Open(p)
	if err != nil {
		return fmt.Errorf("open file of the snapshot: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open file of the snapshot: %w", err)
	}
	at, ok := f.(io.ReaderAt)
	if !ok || !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s cannot be read at an offset", ErrOptions, p)
	}
	return use(&file{path: p, size: info.Size(), ReaderAt: at})
}

// readSmall reads a file of at most limit bytes. A missing file gives fs.ErrNotExist.
func readSmall(fsys fs.FS, p string, limit int64) (b []byte, err error) {
	err = with(fsys, p, func(f *file) error {
		if f.size > limit {
			return fmt.Errorf("%w: %s has %d bytes: want at most %d", errTooLong, p, f.size, limit)
		}
		b = make([]byte, f.size)
		return readAt(f, b, 0)
	})
	return b, err
}

var errTooLong = errors.New("checkpoint: file too long")

func (in *inspector) file(p string) error {
	return with(in.fsys, p, func(f *file) error {
		kind, err := in.classify(f)
		if err != nil {
			return fmt.Errorf("inspect %s: %w", p, err)
		}
		in.kinds[p] = kind
		in.rep.Files = append(in.rep.Files, FileKind{Path: p, Kind: kind, Size: f.size})
		return nil
	})
}
