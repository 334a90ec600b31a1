// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"sluice/internal/console"
	"sluice/internal/hub"
	"sluice/internal/receiver"
	"sluice/pkg/envelope"
)

// prove holds every published file against the hash that the upstream tree names for it, and lets the receiver's own verify judge
// the published envelope.
func (d *demo) prove(ctx context.Context) (err error) {
	id, err := envelope.ParseDigest(d.releases[0])
	if err != nil {
		return err
	}
	cfg, err := receiver.LoadConfig(d.Path("high.yaml"))
	if err != nil {
		return err
	}
	reg, err := receiver.OpenRegistry(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	tree, name, err := d.upstream(ctx)
	if err != nil {
		return err
	}
	d.note("")
	d.note("published files, and the hash that the upstream tree names for each:")
	var size int64
	for _, e := range tree {
		f, n, err := reg.Open(ctx, name, [32]byte(id), e.Path)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		got, err := upstreamHash(f, n, e)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		want := e.SHA256
		if want == "" {
			want = e.GitSHA1
		}
		if got != want {
			return fmt.Errorf("published %s has %s, upstream has %s", e.Path, got, want)
		}
		d.note("    same  %-64s  %s", got, e.Path)
		size += n
	}
	out, err := d.Call(ctx, "diode-receiver", "verify", "--config", d.Path("high.yaml"), "--name", name, id.String())
	if err != nil {
		return err
	}
	for line := range strings.Lines(indent(out)) {
		d.note("%s", strings.TrimRight(line, "\n"))
	}
	d.tl.Stage(console.High, "proved", d.input.repo, size, fmt.Sprintf("%d files byte for byte as upstream; verify accepts the published envelope", len(tree)))
	return nil
}

// upstream asks the Hub, as anybody could, for the tree of the commit that was released.
func (d *demo) upstream(ctx context.Context) ([]hub.Entry, string, error) {
	j, err := d.job(ctx, 1)
	if err != nil {
		return nil, "", err
	}
	client, err := hub.New(hub.Config{Endpoint: d.hubURL})
	if err != nil {
		return nil, "", err
	}
	repo, err := hub.ParseRepo(d.input.repo)
	if err != nil {
		return nil, "", err
	}
	tree, err := client.Tree(ctx, repo, j.Commit)
	return tree, j.Name, err
}

// upstreamHash computes the hash that the Hub uses for the file: SHA-256 for LFS files, the git blob SHA-1 for the others.
func upstreamHash(r io.Reader, size int64, e hub.Entry) (string, error) {
	h := sha256.New()
	if e.SHA256 == "" {
		h = sha1.New()
		fmt.Fprintf(h, "blob %d\x00", size)
	}
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}
