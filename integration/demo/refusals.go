// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/integration/lab"
	"sluice/internal/bulletin"
	"sluice/internal/cli"
	"sluice/internal/console"
	"sluice/internal/packer"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// secondRelease lets upstream move on by one commit, which the packer finds and seals. One approval of each group comes in: one too few.
func (d *demo) secondRelease(ctx context.Context) error {
	d.note("")
	d.note("upstream moves on; the next release, and three that are refused:")
	next := d.Path("hub", "next")
	if err := linkTree(d.input.dir, next); err != nil {
		return err
	}
	readme := filepath.Join(next, "README.md")
	old, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Remove(readme), os.WriteFile(readme, append(old, "\nRevised.\n"...), 0o644)); err != nil {
		return err
	}
	if _, err := d.hub.AddCommit(d.input.repo, next); err != nil {
		return err
	}
	if err := d.followLow(ctx, 2, "SEALED"); err != nil {
		return err
	}
	if err := d.review(ctx); err != nil { // against its predecessor, and only what changed is read again
		return err
	}
	for _, o := range []string{lab.Security()[0], lab.Quality()[0]} {
		if err := d.approve(ctx, o); err != nil {
			return err
		}
	}
	return d.named(ctx)
}

// named waits until the bastion's word of what is current names the second release, and keeps that word: it travels with the release on
// the medium, without which the receiver would hold it until the next one came over the link.
func (d *demo) named(ctx context.Context) error {
	return lab.WaitFor(ctx, time.Minute, "a bulletin that names the second release", func() (bool, error) {
		stream, err := os.ReadFile(d.Path("low", "latest.bulletin"))
		if err != nil {
			return false, err
		}
		b, err := bulletin.Read(bytes.NewReader(stream))
		if err != nil {
			return false, err
		}
		signed, err := envelope.ParseDSSE(b.Snapshot, len(b.Snapshot))
		if err != nil {
			return false, err
		}
		snapshot, err := mofn.ParseSnapshot(signed.Payload)
		if err != nil {
			return false, err
		}
		names := func(c mofn.Current) bool { return c.Release == d.releases[1] }
		if !slices.ContainsFunc(snapshot.Releases, names) {
			return false, nil
		}
		d.bulletin = stream
		return true, nil
	})
}

// stopDaemons lets both drain: from here on, releases come on a medium.
func (d *demo) stopDaemons(context.Context) error {
	low, high := d.low, d.high
	d.low, d.high = nil, nil
	if err := errors.Join(low.Stop(20*time.Second), high.Stop(20*time.Second)); err != nil {
		return err
	}
	d.tl.Stage("both", "drained", "bastion-packer, diode-receiver", -1, "SIGTERM, exit 0")
	return nil
}

// refusals takes media in that must not pass, and between them shows that the same release passes when nothing is wrong with it.
func (d *demo) refusals(ctx context.Context) error {
	job, err := d.jobDir(d.releases[1])
	if err != nil {
		return err
	}
	few, err := d.medium("few", job)
	if err != nil {
		return err
	}
	if err := d.mustRefuse(ctx, "one approval too few", few, "security"); err != nil {
		return err
	}
	if err := d.approve(ctx, lab.Security()[1]); err != nil {
		return err
	}
	good, err := d.medium("good", job)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(good, "bulletin.sluice"), d.bulletin, 0o644); err != nil {
		return err
	}
	flipped, err := d.flippedMedium(good)
	if err != nil {
		return err
	}
	if err := d.mustRefuse(ctx, "one flipped byte", flipped, d.victim()); err != nil {
		return err
	}
	out, err := d.Call(ctx, "diode-receiver", "import", "--wait", "--config", d.Path("high.yaml"), good)
	if err != nil {
		return err
	}
	d.tl.Stage(console.High, "published", "release "+d.releases[1][:12], -1, "from a medium, with all approvals and nothing flipped: "+strings.TrimSpace(out))
	first, err := d.jobDir(d.releases[0])
	if err != nil {
		return err
	}
	return d.mustRefuse(ctx, "a replayed older release", first, "rollback")
}

// mustRefuse imports a medium and wants exit code 3 and the reason.
func (d *demo) mustRefuse(ctx context.Context, what, dir, reason string) error {
	_, err := d.Call(ctx, "diode-receiver", "import", "--wait", "--config", d.Path("high.yaml"), dir)
	var call *lab.CallError
	if !errors.As(err, &call) {
		return fmt.Errorf("%s was not refused: %w", what, err)
	}
	if call.Code != cli.ExitRefused || !strings.Contains(call.Stderr, reason) {
		return fmt.Errorf("%s: exit code %d (3 is wanted), reason %q: %s", what, call.Code, reason, call.Stderr)
	}
	why, _, _ := strings.Cut(strings.ReplaceAll(call.Stderr, "\n", " "), " (evidence:")
	d.tl.Fail(console.High, "refused", what, "exit 3: "+strings.TrimPrefix(why, "diode-receiver: "))
	return nil
}

// jobDir finds the packer's work directory of a release: the sealed form.
func (d *demo) jobDir(release string) (string, error) {
	dirs, err := filepath.Glob(d.Path("low", "work", "*"))
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		env, err := packer.ReadEnvelope(dir)
		if err == nil && env.ID.String() == release {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no sealed release %s below %s", release, d.Path("low", "work"))
}

// medium copies a sealed release, with the approvals that are in the drop-box now, as a person would onto a stick.
func (d *demo) medium(name, job string) (string, error) {
	dir := d.Path("media", name)
	if err := linkTree(filepath.Join(job, "payload"), filepath.Join(dir, "payload")); err != nil {
		return "", err
	}
	env, err := packer.ReadEnvelope(job)
	if err != nil {
		return "", err
	}
	return dir, d.Collect(env, dir)
}

// victim is the file in which a byte is flipped: the first of the weights.
func (d *demo) victim() string {
	if d.opt.input == "minilm" {
		return "model.safetensors"
	}
	return "model-00001-of-"
}

// flippedMedium copies a medium and flips one bit of one byte in the middle of a weights file.
func (d *demo) flippedMedium(good string) (string, error) {
	dir := d.Path("media", "flipped")
	if err := linkTree(good, dir); err != nil {
		return "", err
	}
	hits, err := filepath.Glob(filepath.Join(dir, "payload", d.victim()+"*"))
	if err != nil || len(hits) == 0 {
		return "", fmt.Errorf("no weights on the medium: %w", err)
	}
	b, err := os.ReadFile(hits[0])
	if err != nil {
		return "", err
	}
	b[len(b)/2] ^= 0x10
	return dir, errors.Join(os.Remove(hits[0]), os.WriteFile(hits[0], b, 0o644))
}

// linkTree copies a tree by hard links: the files are never written in place.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return os.Link(path, filepath.Join(to, rel))
	})
}

// closing shows the registry and lets fsck judge everything.
func (d *demo) closing(ctx context.Context) error {
	out, err := d.Call(ctx, "diode-receiver", "list", "--config", d.Path("high.yaml"))
	if err != nil {
		return err
	}
	d.note("")
	d.note("the registry:")
	for line := range strings.Lines(indent(out)) {
		d.note("%s", strings.TrimRight(line, "\n"))
	}
	out, err = d.Call(ctx, "diode-receiver", "fsck", "--deep", "--config", d.Path("high.yaml"))
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	d.tl.Stage(console.High, "judged", "journal, spool, registry", -1, "fsck --deep: "+strings.TrimSpace(out))
	return nil
}
