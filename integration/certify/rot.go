// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// afterHold is when a hold time is over, and laterHold when the one that began then is.
const afterHold, laterHold = heldFor + time.Hour, 2*heldFor + 2*time.Hour

func rotRows() []row {
	return []row{{
		name: "D2", trials: 280, disks: true, play: playRot, judge: everyRot,
		report: []column{{"found", "flips found", total}, {"repaired", "repaired and published", total}, {"harmless", "without effect", total}},
		promise: "one bit flipped in the spool, the journal, the quarantine or the registry, with the release RECEIVED, HELD or PUBLISHED: never published altered, found before publication or by fsck --deep, " +
			"repaired by another pass, another import or the spool's copy",
	}}
}

// everyRot wants that flips were found.
func everyRot(all []figures) error {
	found := sum(all, "found")
	if !few(all) && found < float64(len(all))/2 {
		return fmt.Errorf("only %v of %d flips were found", found, len(all))
	}
	return nil
}

// rot is one state of a release, and where the bit is flipped in it.
type rot struct {
	name string
	held bool // the release is one that is held
	play func(p *bed, random *rand.Rand) (figures, error)
}

func rots() []rot {
	return []rot{
		{"RECEIVED, spool", false, rotReceived},
		{"RECEIVED, envelope", false, rotEnvelope},
		{"HELD after a reception, spool", true, rotHeldLink},
		{"HELD after an import, spool", true, rotHeldMedium},
		{"PUBLISHED, registry", false, rotPublished},
		{"REJECTED, quarantine", false, rotQuarantine},
		{"journal", false, rotJournal},
	}
}

func playRot(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	w, err := c.ward(ctx)
	if err != nil {
		return nil, err
	}
	k := rots()[(seed-1)%uint64(len(rots()))]
	s := w.plain
	if k.held {
		s = w.held
	}
	p, err := w.bed(s, "")
	if err != nil {
		return nil, err
	}
	f, err := k.play(p, rand.New(rand.NewPCG(seed, 2)))
	if err != nil {
		err = fmt.Errorf("%s: %w", k.name, err)
	}
	return f, errors.Join(err, p.gone())
}

func repaired() figures { return figures{"found": 1, "repaired": 1} }
func harmless() figures { return figures{"harmless": 1} }

// flipBit flips one bit of a file.
func flipBit(name string, random *rand.Rand) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	b[random.IntN(len(b))] ^= 1 << random.IntN(8)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// file draws a file of the release that has bytes.
func (p *bed) file(random *rand.Rand) int {
	for {
		if i := random.IntN(len(p.files)); len(p.files[i]) > 0 {
			return i
		}
	}
}

// rots flips a bit of a spooled payload file.
func (p *bed) rots(random *rand.Rand) error {
	return flipBit(p.spool("payload", "files", fmt.Sprintf("%06d", p.file(random))), random)
}

// stands wants the job in a state, and nothing to be seen.
func (p *bed) stands(state string) error {
	visible, err := p.visible()
	l := left{}
	if err = errors.Join(err, l.read(p)); err == nil && (visible || l.state != state) {
		err = fmt.Errorf("the job is %q, visible: %v; want %s and nothing to be seen (%q)", l.state, visible, state, l.trail)
	}
	return err
}

func (p *bed) exits(pr program, code int, words string) error {
	o, err := pr.run()
	if err == nil && (o.code != code || !strings.Contains(o.errs+o.out, words)) {
		err = fmt.Errorf("%s, want exit %d with %q", o, code, words)
	}
	return err
}

func rotReceived(p *bed, random *rand.Rand) (figures, error) {
	return repaired(), inTurn(
		func() error { return p.exits(p.does("spool", 0), 0, "") },
		func() error { return p.rots(random) },
		func() error { return p.exits(p.does("step", 0), 0, "") },
		func() error { return p.stands("RECEIVING") },
		func() error { return p.finishes(p.does("receive", 0)) })
}

func rotEnvelope(p *bed, random *rand.Rand) (figures, error) {
	return repaired(), inTurn(
		func() error { return p.exits(p.does("spool", 0), 0, "") },
		func() error { return flipBit(p.spool("envelope.sluice"), random) },
		func() error { return p.exits(p.does("step", 0), 0, "") },
		func() error { return p.stands("REJECTED") },
		func() error { return p.finishes(p.does("receive", 0)) })
}

func rotHeldLink(p *bed, random *rand.Rand) (figures, error) {
	return repaired(), inTurn(
		func() error { return p.exits(p.does("receive", 0), 0, "") },
		func() error { return p.rots(random) },
		func() error { return p.exits(p.does("step", afterHold), 0, "") },
		func() error { return p.stands("RECEIVING") },
		func() error { return p.exits(p.does("receive", afterHold), 0, "") },
		func() error { return p.finishes(p.does("step", laterHold)) })
}

func rotHeldMedium(p *bed, random *rand.Rand) (figures, error) {
	return repaired(), inTurn(
		func() error { return p.exits(p.does("import", 0), 0, "") },
		func() error { return p.rots(random) },
		func() error { return p.exits(p.does("import", afterHold), 3, "content block") },
		func() error { return p.stands("REJECTED") },
		func() error { return p.exits(p.does("import", afterHold), 0, "") },
		func() error { return p.finishes(p.does("import", laterHold)) })
}

// rotPublished flips a bit of a published file before the spool copy goes. Where both are one file there is nothing to repair it with: the
// copy is kept and fsck says so. Where the registry has its own, the spool's heals it once the damaged one is taken away.
func rotPublished(p *bed, random *rand.Rand) (figures, error) {
	i := p.file(random)
	name := p.env.Statement.Predicate.Name
	file, shared := p.published(p.env.Statement.Subjects[i].Name), random.IntN(2) == 0
	err := inTurn(
		func() error { return p.exits(p.imports(), 0, name) },
		func() error { return split(file, shared) },
		func() error { return flipBit(file, random) },
		func() error { return p.exits(p.verb("fsck", "--deep"), 3, p.env.Statement.Subjects[i].Name) },
		func() error { return p.exits(p.does("step", time.Hour), 0, "") },
		func() error { return p.exits(p.verb("fsck", "--deep"), 3, p.env.Statement.Subjects[i].Name) },
		func() error { _, err := os.Stat(p.spool("envelope.sluice")); return err },
		func() error { return os.Remove(file) },
		func() error { return p.exits(p.does("step", 2*time.Hour), 0, "") })
	if err != nil {
		return nil, err
	}
	if !shared {
		return repaired(), p.whole()
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s was published again from a damaged copy", filepath.Base(file)), err)
	}
	return figures{"found": 1}, nil
}

// split gives a published file bytes of its own, as it has where the registry lies on another file system.
func split(file string, shared bool) error {
	if shared {
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(file), os.WriteFile(file, b, 0o444))
}

// rotQuarantine flips a bit of the evidence, which people read and no program.
func rotQuarantine(p *bed, random *rand.Rand) (figures, error) {
	medium := filepath.Join(p.dir, "medium")
	evidence := filepath.Join(p.state(), "quarantine", p.id(), []string{"envelope.sluice", "verdict.json"}[random.IntN(2)])
	return harmless(), inTurn(
		func() error { return os.CopyFS(medium, os.DirFS(p.specimen.dir)) },
		func() error { return flipBit(filepath.Join(medium, "payload", "body.safetensors"), random) },
		func() error { return p.exits(p.verb("import", medium), 3, "body.safetensors") },
		func() error { return p.stands("REJECTED") },
		func() error { return flipBit(evidence, random) },
		func() error { return p.finishes(p.imports()) })
}

// rotJournal flips a bit of the journal in one of three states. What it means is not known beforehand: many pages are free. No program
// may crash on it, and nothing altered may be seen after them.
func rotJournal(p *bed, random *rand.Rand) (figures, error) {
	begin := []program{p.does("spool", 0), p.imports(), p.verb("fsck")}[random.IntN(3)]
	err := inTurn(
		func() error { return p.exits(begin, 0, "") },
		func() error { return flipBit(p.journal(), random) })
	if err != nil {
		return nil, err
	}
	f := harmless()
	for _, pr := range []program{p.verb("fsck", "--deep"), p.imports(), p.verb("fsck", "--deep")} {
		o, err := pr.run()
		if err != nil {
			return nil, err
		}
		if o.code < 0 || o.code == 2 || strings.Contains(o.errs, "goroutine ") {
			return nil, fmt.Errorf("a flipped bit of the journal: %s: %s", strings.Join(pr.argv[1:2], " "), o)
		}
		if o.code != 0 {
			f = figures{"found": 1}
		}
	}
	_, err = p.visible()
	return f, err
}

// inTurn carries out steps up to the first that fails, and says which.
func inTurn(steps ...func() error) error {
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}
