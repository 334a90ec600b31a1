// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sluice/integration/lab"
	"sluice/internal/admin"
	"sluice/internal/console"
	"sluice/internal/packer"
)

// stopAndResume lets one officer stop what is published, over the link, and the quorum give it back.
func (d *demo) stopAndResume(ctx context.Context) error {
	d.note("")
	d.note("an officer has doubts at night; one is enough to stop, and the quorum to go on:")
	if err := d.sameWords(ctx); err != nil {
		return err
	}
	id := d.releases[0]
	stop, err := d.Order(ctx, lab.Security()[1], "stop", "it answers in a strange way", "release", id)
	if err != nil {
		return err
	}
	d.tl.Stage(console.Low, "stopped", lab.Security()[1], -1, "order "+stop[:12]+": it answers in a strange way")
	if err := d.WaitState(ctx, d.high, id, "WITHDRAWN", time.Minute); err != nil {
		return err
	}
	out, err := d.Call(ctx, "diode-receiver", "list", "--config", d.Path("high.yaml"))
	if err != nil {
		return err
	}
	if strings.Contains(out, id) {
		return fmt.Errorf("the stopped release is still listed:\n%s", out)
	}
	d.tl.Stage(console.High, "withdrawn", "release "+id[:12], -1, "the registry shows it to nobody")
	for _, o := range []string{lab.Security()[0], lab.Security()[2], lab.Quality()[0]} {
		if _, err := d.Order(ctx, o, "resume", "looked into: the prompt was at fault", stop); err != nil {
			return err
		}
		d.tl.Stage(console.Low, "resumed", o, -1, "of order "+stop[:12])
	}
	if err := d.WaitState(ctx, d.high, id, "PUBLISHED", time.Minute); err != nil {
		return err
	}
	d.tl.Stage(console.High, "given back", "release "+id[:12], -1, "read and hashed again, every byte")
	return nil
}

// sameWords waits until both sides show the same freshness words, as two people compare them by telephone.
func (d *demo) sameWords(ctx context.Context) error {
	var words string
	err := lab.WaitFor(ctx, time.Minute, "the freshness words", func() (bool, error) {
		var low packer.Status
		if err := admin.Fetch(ctx, "unix:"+d.Path("low.sock"), "/status", &low); err != nil {
			return false, err
		}
		high, err := d.HighStatus(ctx)
		if err != nil {
			return false, err
		}
		words = strings.Join(low.Site.Freshness.Words, " ")
		return words != "" && words == strings.Join(high.Site.Freshness.Words, " "), nil
	})
	if err != nil {
		return err
	}
	d.tl.Stage("both", "fresh", "the same words on both consoles", -1, words)
	return nil
}
